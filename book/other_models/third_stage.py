"""What all neurons carry and what the third stage takes, in two models of one decoder: does it hold in both?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from book.other_models import two_studies
from book.other_models.two_studies import DIFFERENCE, Studies, beside, by_picture, ends, works
from book.words import compared_with_zero, interval, of_every
from kn_core.measures.metrics import per_image
from kn_core.measures.summaries import differences, perplexity_limit
from kn_core.study.experiments import ceiling, ladder
from kn_core.study.experiments.ladder import CONTROL, THIRD
from kn_core.study.study import Study

READ = ("suppression", "retention_truth", "retention", "retention_probability", "fluent")
OVER = "third-suppression-over-random"
QUANTITIES = {
    "ceiling": "suppression, all neurons patched",
    "third-suppression": "suppression, third stage",
    OVER: "suppression, third stage minus random",
    "third-retention_truth": "retention of what is true, third stage",
    "third-retention": "retention by words, third stage",
    "third-retention_probability": "retention by probability, third stage",
    "third-fluent": "fluent captions, third stage",
}


def compare(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """As `two_studies.compare`, of `QUANTITIES`. Raises NotRun where a model has no pictures for them."""
    return pd.DataFrame(beside({model: _values(study, concepts) for model, study in studies.items()}))


def bounds(studies: Studies, concepts: Sequence[str]) -> dict[str, pd.DataFrame]:
    """`two_studies.bounds` of the pictures that the third stage was tried on."""
    return two_studies.bounds(
        studies, concepts, {model: set(_third(study, concepts)["image_id"]) for model, study in studies.items()}
    )


def _third(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """What the third stage and random neurons do at the profile's budget to the concepts' own pictures."""
    third = of_every(ladder.third_stage, study, concepts)
    return third[(third["n"] == study.profile.identification.budget) & (third["concept"] == third["image_concept"])]


def _values(study: Study, concepts: Sequence[str]) -> dict[str, pd.Series]:
    whole = of_every(ceiling.ceiling, study, concepts).query("method == @ceiling.EVERYTHING")
    rows = _third(study, concepts)
    limit = perplexity_limit(study.perturbations())
    images = per_image(rows[rows["method"] == THIRD], ["method"], perplexity_limit=limit)
    over = differences(rows, THIRD, CONTROL, perplexity_limit=limit)
    found = {"ceiling": by_picture(per_image(whole, ["method"]), "suppression"), OVER: by_picture(over, "suppression")}
    found |= {f"third-{metric}": by_picture(images, metric) for metric in READ}
    return {quantity: found[quantity] for quantity in QUANTITIES if len(found[quantity])}


def in_words(compared: pd.DataFrame, **models: str) -> dict[str, str]:
    """`compare` for sentences; `models` are short names, each of one of its models."""
    found = ends(compared)
    what = "the third stage's neurons, zeroed, suppress more than as many random ones of the same layers"
    said = {"third-works": works(compared, OVER, what)}
    for short, model in models.items():
        said |= {f"{name}-{short}": interval(*found.get((name, model), (math.nan,) * 3)) for name in QUANTITIES}
        said[f"third-clear-{short}"] = compared_with_zero(*found[OVER, model][1:])
    change = compared[(compared["model"] == DIFFERENCE) & ((compared["low"] > 0) | (compared["high"] < 0))]
    apart = [QUANTITIES[name] for name in change["quantity"]]
    return said | {"third-apart": "; ".join(apart) or "none of them"}
