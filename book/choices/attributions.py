"""Attributions held against exact patches: which score foretells what a neuron's patch really takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from book.choices import ladder as steps
from book.choices.ladder import DONE, TOLD, cells
from book.perturbation import references
from book.style import METHODS, READINGS
from book.tables import n_neurons, n_pictures
from book.words import interval, of_every, told
from kn_core.measures.stats import GAP, SIGNED, estimate
from kn_core.study.experiments import attribution, ladder
from kn_core.study.experiments.ladder import CONTROL, PAPER
from kn_core.study.study import Study

SCORES = {  # in tables and figures, cheapest last
    "conductance": "conductance",
    "ig": "integrated gradients",
    "relp": "RelP",
    "ensemble": "mean rank of three",
    "trapezoid": "trapezoid",
    "atp": "attribution patching",
    "gxa": "gradient × activation",
    "gradcam-sum": "stage 2’s score, summed",
    "gradcam": "stage 2’s score (maximum)",
}
WITHIN = dict.fromkeys(("spearman", "pearson"), GAP)
READ = {"spearman": "Spearman’s ρ", "pearson": "Pearson’s r", "sign": "right sign", "precision": "best fifth found"}


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`attribution.patches` of every concept. Raises NotRun for a decoder whose neurons cannot be taken singly."""
    return of_every(attribution.patches, study, concepts)


def counted(study: Study, patches: pd.DataFrame) -> str:
    """On how many neurons and pictures the exact patches are, for a caption."""
    paths, pairs = study.effort.choices.paths, study.pairs()
    chose = (
        pairs[(pairs["role"] == "select") & pairs["concept"].isin(patches["concept"])].groupby("concept").head(paths)
    )
    return f"{n_neurons(patches)}, patched on {n_pictures(chose)[4:]} that chose neurons"


def agreement(patches: pd.DataFrame) -> pd.DataFrame:
    """`attribution.agreement` as means over concepts: columns method, over, reading, value, low, high, n_concepts."""
    found = attribution.agreement(patches).melt(["concept", "method", "over"], list(READ), "reading")
    records = []
    for key, group in found.dropna(subset="value").groupby(["method", "over", "reading"], sort=False):
        ends = estimate(group["value"], within=WITHIN.get(str(key[-1])))
        records.append((*key, *ends.ends, ends.n))
    return pd.DataFrame(records, columns=["method", "over", "reading", "value", "low", "high", "n_concepts"])


def for_readers(agreement: pd.DataFrame) -> pd.DataFrame:
    """A row a score: how it agrees over all neurons, and how it ranks those that it puts first."""
    found = cells(agreement, "method", "over", "reading")
    rows = []
    for score in (score for score in SCORES if score in set(agreement["method"])):
        row = {"score": SCORES[score]}
        for over, reading, heading in (
            *(("all", reading, heading) for reading, heading in READ.items()),
            ("own", "spearman", "ρ in its own best"),
        ):
            ends = found.get((score, over, reading))
            row[heading] = interval(*ends) if ends else "–"
        rows.append(row)
    return pd.DataFrame(rows)


FROM_LADDER = {  # its steps that stand among the scores
    PAPER: "the paper’s two stages",
    "sums": "two stages, sums for maxima",
    "between": "two contrasts, the last step",
}


def best_of_each(study: Study, concepts: Sequence[str], climbed: pd.DataFrame, limit: float) -> pd.DataFrame:
    """What the best by every score do under the third stage's intervention: `choices.ladder.effects`, a step a score.

    The rivals' and attributions' of `experiments.ladder.by_score`, and of `climbed` (`choices.ladder.of_all`) the steps
    `FROM_LADDER`, on the same pictures. Raises NotRun where there are none.
    """
    tried = of_every(ladder.by_score, study, concepts)
    beside = climbed[climbed["step"].isin(FROM_LADDER) & (climbed["method"] != CONTROL)]
    beside = beside[beside["intervention"] == tried["intervention"].iloc[0]]
    return steps.effects(pd.concat([beside, tried.assign(step=tried["method"])], ignore_index=True), limit)


def best_for_readers(found: pd.DataFrame, bounds: pd.DataFrame) -> pd.DataFrame:
    """`best_of_each`, a row a score: the paper's, rivals', attributions', with contrasts; `bounds` at the foot."""
    read, there = cells(found, "step", "metric"), set(found["step"])
    rivals = [name for name in METHODS if name in there and name not in SCORES]
    *stages, last = FROM_LADDER
    names = [*stages, *rivals, *SCORES, last]
    rows = [
        {"the best by": _named(name)}
        | {READINGS[metric].label: interval(*read[name, metric]) if (name, metric) in read else "–" for metric in TOLD}
        for name in names
        if name in there
    ]
    return pd.concat([pd.DataFrame(rows), references.for_readers(bounds, TOLD, "the best by")], ignore_index=True)


def best_in_words(found: pd.DataFrame, paths: int) -> dict[str, str]:
    """Which attribution and which rival take most names away, what is done, and on how many pictures scores are."""
    lost = found[found["metric"] == "suppression"].set_index("step")["value"]
    kept = found[found["metric"] == "retention_probability"].set_index("step")["value"]
    words = {"done": DONE[str(found["intervention"].iloc[0])], "paths": f"{paths} picture{'s' if paths > 1 else ''}"}
    for whose, names in (("score", list(SCORES)), ("rival", [name for name in METHODS if name not in SCORES])):
        of = lost.reindex(names).dropna()
        best = str(of.idxmax()) if len(of) else ""
        words[whose] = f"{_named(best)} ({of[best]:.2f}, and {kept[best]:.2f} kept by probability)" if best else "none"
    return words


def _named(score: str) -> str:
    return FROM_LADDER.get(score) or SCORES.get(score) or METHODS[score].label


def in_words(patches: pd.DataFrame, agreement: pd.DataFrame) -> dict[str, str]:
    """Both for sentences."""
    one = patches.drop_duplicates(["concept", "layer", "unit"])
    means = cells(agreement[agreement["over"] == "all"], "reading", "method")
    best, sign = (
        max((ends[0], name) for (of, name), ends in means.items() if of == reading)[1]
        for reading in ("spearman", "sign")
    )
    patched = one.groupby("concept").size().median()
    words = {"patched": f"{patched:.0f}", "fifth": f"{max(1, round(patched / 5))}"}
    words |= {"best-name": SCORES[best], "sign-name": SCORES[sign]}
    shown = {"best": ("spearman", best), "sign": ("sign", sign), "paper": ("spearman", "gradcam")}
    shown |= {"paper-sign": ("sign", "gradcam"), "summed": ("spearman", "gradcam-sum")}
    words |= {key: interval(*means[place]) for key, place in shown.items()}
    beside = f"; attribution patching, which costs one backward pass, has {interval(*means['spearman', 'atp'])}"
    words["atp"] = ", at the cost of one backward pass" if best == "atp" else beside
    found = attribution.agreement(patches).query("over == 'all'").pivot_table("spearman", "concept", "method")
    gap = estimate(found["gradcam-sum"] - found["gradcam"], within=SIGNED)
    words["sum-or-max"] = told(
        gap.low, gap.high, "better than", "worse than", "neither clearly better nor clearly worse than"
    )
    largest = one.loc[np.abs(one["effect"]).idxmax()]
    return words | {"largest": f"{largest['effect']:.2f}"}
