"""What is either stage worth? Each switched on and off, with as many neurons each and with all that pass.

A stage is off where its threshold lets everything pass. The paper reports both together and tries neither alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from book.perturbation import references
from book.perturbation.readings import ENDS, READ_BY
from book.style import READINGS
from book.words import CHANGE, compared_with_zero, interval, of_every, spread, told
from kn_core.measures.metrics import per_image
from kn_core.measures.stats import GAP, SIGNED
from kn_core.measures.summaries import with_intervals
from kn_core.study.experiments import thresholds
from kn_core.study.experiments.thresholds import ARMS, BUDGET, OWN
from kn_core.study.study import Study

METRICS = ("suppression", "retention_truth", "retention", "fluent")
STAGES = dict(zip(ARMS, ("neither", "stage 1 alone", "stage 2 alone", "both"), strict=True))


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`thresholds.ablation` of every concept. Raises NotRun where the profile does without one of the arms."""
    return of_every(thresholds.ablation, study, concepts)


def effects(ablation: pd.DataFrame, *, perplexity_limit: float = math.inf) -> pd.DataFrame:
    """Every arm with intervals: columns at, method, neurons (mean), metric, value, low, high, n_images, n_concepts."""
    found = with_intervals(_images(ablation, perplexity_limit), ["at", "method"])
    neurons = ablation.groupby(["at", "method", "concept"])["n"].first().groupby(["at", "method"]).mean()
    return found.join(neurons.rename("neurons"), on=["at", "method"])


def gains(ablation: pd.DataFrame, *, perplexity_limit: float = math.inf) -> pd.DataFrame:
    """What a stage adds, image by image: columns at, gain, metric, value, low, high, n_images, n_concepts.

    'together' is the interaction: both stages' gain over neither, beyond the sum of what each brings alone.
    """
    index = ["at", "image_concept", "image_id", "metric"]
    images = _images(ablation, perplexity_limit)
    wide = images.pivot_table(index=index, columns="method", values="value").reindex(columns=list(ARMS))
    neither, first, second, both = (wide[arm] for arm in ARMS)
    differences = {
        "stage 1 to neither": first - neither,
        "stage 2 to neither": second - neither,
        "stage 2 to stage 1": both - first,
        "stage 1 to stage 2": both - second,
        "together": both - first - second + neither,
    }
    long = pd.DataFrame(differences).reset_index().melt(id_vars=index, var_name="gain").dropna(subset="value")
    together = long["gain"] == "together"  # a difference of differences
    sides = (long[~together], GAP), (long[together], SIGNED)
    return pd.concat([with_intervals(rows, ["at", "gain"], within=ends) for rows, ends in sides], ignore_index=True)


def bounds(perturbations: pd.DataFrame, ablation: pd.DataFrame, limit: float) -> pd.DataFrame:
    """`references.bounds` of the pictures that the arms were tried on, with a column at."""
    images = {at: set(rows["image_id"]) for at, rows in ablation.groupby("at", sort=False)}
    return pd.concat([references.bounds(perturbations, limit, of).assign(at=at) for at, of in images.items()])


def _images(ablation: pd.DataFrame, perplexity_limit: float) -> pd.DataFrame:
    images = per_image(ablation, ["at", "method", "n"], perplexity_limit=perplexity_limit)
    return images[images["metric"].isin(METRICS)]


def for_readers(effects: pd.DataFrame, bounds: pd.DataFrame | None = None) -> pd.DataFrame:
    """`effects` as a table: a row an arm, its metrics with intervals as text; those of `bounds` below."""
    rows: list[dict[Any, Any]] = []
    for at, method in product((BUDGET, OWN), ARMS):
        of_arm = effects[(effects["at"] == at) & (effects["method"] == method)].set_index("metric")
        if len(of_arm):
            ends = of_arm.reindex(METRICS)[ENDS].T
            shown = {READINGS[metric].label: interval(*ends[metric]) for metric in METRICS}
            rows.append({"stages": STAGES[method], "with": at, "neurons": of_arm["neurons"].iloc[0], **shown})
    for each, found in bounds.groupby("at", sort=False) if bounds is not None else ():
        rows += references.for_readers(found, METRICS, "stages").assign(**{"with": str(each)}).to_dict("records")
    return pd.DataFrame(rows)


def in_words(effects: pd.DataFrame, gains: pd.DataFrame, kept: str) -> dict[str, str]:
    """Both frames for sentences: 'pictures', 'neurons-stage-1', 'suppression-stage-1', ...; what each stage does.

    'retained-stage-1' is S_re as `kept` reads it, in words 'reading'. 'added-1' is what stage 1 changes where stage 2
    is on already, 'added-2' the other way round ('adds-2', suppression alone); with '-own' at the end, at each arm's
    own thresholds. 'together' and 'interaction' are the interaction in words and as a number.
    """
    words = {"reading": READ_BY[kept]}
    rows = gains[["at", "gain", "metric", *ENDS]].to_numpy()
    found = {(at, gain, metric): (value, low, high) for at, gain, metric, value, low, high in rows}
    for at, suffix in ((BUDGET, ""), (OWN, "-own")):
        for row in effects[effects["at"] == at].to_dict("records"):
            words[f"pictures{suffix}"] = f"{row['n_images']}"
            words[f"neurons-{row['method']}{suffix}"] = f"{row['neurons']:,.0f}"
            metric = "retained" if row["metric"] == kept else row["metric"]
            words[f"{metric}-{row['method']}{suffix}"] = f"{row['value']:.2f}"
        for name, gain in (("added-1", "stage 1 to stage 2"), ("added-2", "stage 2 to stage 1")):
            both = {"suppression": "suppression", kept: f"retention {READ_BY[kept]}"}
            words[f"{name}{suffix}"] = _changes({said: found[at, gain, of] for of, said in both.items()})
    value, low, high = found[BUDGET, "stage 2 to stage 1", "suppression"]
    words["adds-2"] = f"{interval(value, low, high, CHANGE)}, {compared_with_zero(low, high)}"
    value, low, high = found[BUDGET, "together", "suppression"]
    unclear = "not clearly more or less than"
    words["together"] = told(low, high, "more than", "less than", unclear, unclear)
    return words | {"interaction": spread(value, low, high, CHANGE)}


def _changes(found: Mapping[str, tuple[float, float, float]]) -> str:
    """'raises suppression, +0.21 (95 % interval +0.10 to +0.32), and lowers retention, ...'; one verb if it does."""
    unclear = "makes no clear difference to"
    verbs = {metric: told(low, high, "raises", "lowers", unclear, unclear) for metric, (_, low, high) in found.items()}
    (one, first), (other, second) = (
        (f"{of}, {spread(ends[0], ends[1], ends[2], CHANGE)}", verbs[of]) for of, ends in found.items()
    )
    return f"{first} {one}, and {'' if first == second else second + ' '}{other}"
