"""Three questions that the paper's claim comes down to, and what does work: the first page's answers, in words."""

from __future__ import annotations

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
    return {"whose": which, **dict(zip(("own", "foreign"), (f"{mean:.0%}" for mean in means), strict=True))}


def _what_works(study: Study) -> str:
    """What all neurons could do, and what as many do that three stages choose; or why it was not run."""
    try:
        means = ceilings.summary(ceilings.of_all(study, study.studied())).set_index(["method", "metric"])
        ceiling = means.loc[(ceilings.EVERYTHING, "suppression")]
        rows, limit = third_stage.of_all(study, study.studied()), perplexity_limit(study.perturbations())
        chosen = third_stage.main(rows, study.profile.identification.budget, limit).set_index("metric")
    except NotRun as error:
        return str(error)
    reached = {
        name: spread(*chosen.loc[name, ["value", "low", "high"]].to_numpy(float)) for name in third_stage.REACHED
    }
    lost = interval(*ceiling[["value", "low", "high"]].to_numpy(float))
    done = DONE[ladder.choice(study)[1]]
    return (
        f"With every neuron patched, to what it says without the object, {lost} of the captions lose the name, so the "
        f"neurons are there. Chosen by their exact part in the word, and by what they do for no other word, "
        f"{study.profile.identification.budget} of them, {done}, have S_se {reached['suppression']} and S_re "
        f"{reached['retention']}, or {reached['retention_probability']} by probability; {reached['fluent']} of the captions "
        "are fluent"
    )
