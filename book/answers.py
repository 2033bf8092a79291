"""Three questions that the paper's claim comes down to, and what does work: the first page's answers, in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from book.ceiling import ceilings
from book.choices import third_stage
from book.choices.ladder import DONE
from book.perturbation import matched, ownership, readings, references
from book.words import NotRun, interval, spread, told
from kn_core.measures.metrics import perplexity_limit
from kn_core.study.experiments import ladder
from kn_core.study.experiments.ownership import cross
from kn_core.study.study import Study


def in_words(study: Study) -> dict[str, str]:
    """The answers to: does noise take the object away, are the neurons its own, does the rest stay; and what works."""
    perturbations, paper = study.perturbations(), readings.printed()
    doses = matched.Doses(perturbations, study.effort)
    words = matched.in_words(matched.table(doses, paper["suppression"]), doses, paper["suppression"])
    bounds = references.bounds(perturbations, perplexity_limit(perturbations)).set_index(["method", "metric"])["value"]
    words["removal"] = f"{bounds.get(('removal', doses.retention), float('nan')):.2f}"
    return words | _whose(study, perturbations) | {"works": _what_works(study)}


def _whose(study: Study, perturbations: pd.DataFrame) -> dict[str, str]:
    crossed = pd.concat([cross(study, concept) for concept in study.studied()], ignore_index=True)
    found = ownership.silenced(perturbations, crossed, study.profile)
    own, gap = found["concept"] == found["image_concept"], ownership.own_minus_foreign(found)
    means = (found[rows].groupby("image_concept")["probability"].mean().mean() for rows in (own, ~own))
    which = told(gap.low, gap.high, "They are", "They are not: others' take more", "Not to be told from others'")
    return {
        "whose": which,
        **dict(zip(("own", "foreign"), ("–" if np.isnan(mean) else f"{mean:.0%}" for mean in means), strict=True)),
    }


def _what_works(study: Study) -> str:
    """What all neurons could do, and what as many do that three stages choose; or why it was not run."""
    n, limit = study.profile.identification.budget, perplexity_limit(study.perturbations())
    try:
        everything = ceilings.measured(study)[0]
        rows = third_stage.of_all(study, study.studied())
    except NotRun as error:
        return str(error)
    chosen = {row["metric"]: row for row in third_stage.main(rows, n, limit).to_dict("records")}
    has = {name: spread(*(chosen[name][end] for end in ("value", "low", "high"))) for name in third_stage.REACHED}
    lost, done = interval(everything.value, everything.low, everything.high), DONE[ladder.choice(study)[1]]
    return (
        f"With every neuron patched to what it says without the object, {lost} of the captions lose the name, so the "
        f"neurons are there. {n} of them, chosen by their part in the word less what they do for other words, and "
        f"{done}, have Sₛₑ {has['suppression']} and Sᵣₑ {has['retention']}, by probability "
        f"{has['retention_probability']}; of the captions {has['fluent']} are fluent"
    )
