"""Whose the third stage's neurons are: what they take from other words, what sets share, a planted companion's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from book.choices.ladder import cells
from book.words import interval, spread, told
from kn_core.measures.metrics import headline, probability_suppression
from kn_core.measures.overlap import overlap
from kn_core.measures.stats import GAP, LOST, SIGNED, Estimate, estimate
from kn_core.method.recipes import Recipe
from kn_core.study.experiments import companions, ladder
from kn_core.study.experiments.ladder import THIRD
from kn_core.study.study import Study

SETS = {"two-stage": "two stages, the paper’s recipe", "no contrasts": "no contrasts", THIRD: "third stage"}


def selectivity(study: Study, rows: pd.DataFrame, climbed: pd.DataFrame, concepts: Sequence[str]) -> pd.DataFrame:
    """Share of a word's probability that a set takes: columns method, whose ('own', 'other', 'own - other'), ends, n.

    A concept's own word on its own pictures, and other concepts' words on theirs; the difference is its selectivity.
    `climbed` (`choices.ladder.of_all`) has what neurons without contrasts take from their own.
    """
    budget = study.profile.identification.budget
    before = headline(study.perturbations(), study.effort).query("method == 'two-stage' and seed == 0")
    how = rows["intervention"].iloc[0]
    plain = climbed[(climbed["method"] == "one product") & (climbed["intervention"] == how)]
    at_budget = rows[rows["n"] == budget]
    found = pd.concat([before, plain.assign(method="no contrasts"), at_budget])
    found = found[found["method"].isin(SETS) & found["concept"].isin(list(concepts))]
    lost = probability_suppression(found["clean_probability"], found["target_probability"])
    found = found.assign(lost=lost, own=found["concept"] == found["image_concept"])
    sides = found.pivot_table("lost", ["method", "concept"], "own").reindex(columns=[True, False]).dropna()
    n = found.groupby(["method", "own"])["image_id"].nunique()
    records = []
    for method in SETS:
        if method not in sides.index:
            continue
        of = sides.loc[method]
        gap, by = of[True] - of[False], n[method]  # the gap is over concepts, whose pictures are those of both
        for whose, values, within, seen in (
            ("own", of[True], LOST, by[True]),
            ("other", of[False], LOST, by[False]),
            ("own - other", gap, SIGNED, 0),
        ):
            ends = estimate(values, within=within)
            records.append((method, whose, *ends.ends, ends.n, seen))
    return pd.DataFrame(records, columns=["method", "whose", "value", "low", "high", "n_concepts", "n_images"])


def selectivity_for_readers(found: pd.DataFrame) -> pd.DataFrame:
    """`selectivity`, a row a set."""
    ends = cells(found, "method", "whose")
    names = {"own": "its own word loses", "other": "other words lose", "own - other": "its own, less others"}
    rows = [
        {"neurons": SETS[method]} | {names[whose]: interval(*ends[method, whose]) for whose in names}
        for method in SETS
        if (method, "own") in ends
    ]
    return pd.DataFrame(rows)


def common(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """What two concepts' sets have in common: columns method, shared (mean number), expected (by chance), n (pairs)."""
    recipe, how = ladder.choice(study)
    budget, width = study.profile.identification.budget, study.pooled(concepts[0])["delta"].shape
    records = []
    for method in SETS:
        sets = {}
        for concept in concepts:
            found = (
                study.neuron_set(concept)
                if method == "two-stage"
                else ladder.neurons(study, concept, recipe if method == THIRD else Recipe(), how)
            ).top(budget)
            sets[concept] = set(zip(found.layers.tolist(), found.units.tolist(), strict=True))
        pairs = overlap(sets, width)
        if len(pairs):
            records.append((method, pairs["shared"].mean(), pairs["expected"].mean(), len(pairs)))
    return pd.DataFrame(records, columns=["method", "shared", "expected", "n"])


def common_in_words(shared: pd.DataFrame) -> dict[str, str]:
    """`common` for sentences."""
    of = shared.set_index("method")
    keys = {"before": "two-stage", "plain": "no contrasts", "after": THIRD}
    numbers = {key: of["shared"].get(method, np.nan) for key, method in keys.items()} | {
        "chance": of["expected"].mean()
    }
    return {f"shared-{key}": "–" if np.isnan(number) else f"{number:.1f}" for key, number in numbers.items()}


def drops(study: Study, concepts: Sequence[str]) -> pd.DataFrame | None:
    """`companions.companions` of every concept; None where pictures are photographs, into which nothing is planted."""
    if study.profile.data.source != "scenes":
        return None
    return pd.concat([companions.companions(study, concept) for concept in concepts], ignore_index=True)


def dropped(found: pd.DataFrame, column: str) -> Estimate:
    """Share dropped of the companion's neurons minus that of the concept's own; `column` is the stage's."""
    counted = found[(found["kind"] != "") & (found["candidates"] > 0)]
    share = (counted[column] / counted["candidates"]).rename("share")
    wide = counted.join(share).pivot_table(index=["concept", "image_id"], columns="kind", values="share")
    wide = wide.reindex(columns=["companion", "own"]).dropna()
    return estimate(wide["companion"] - wide["own"], wide.index.get_level_values("concept"), within=GAP)


def planted_in_words(found: pd.DataFrame | None) -> dict[str, str]:
    """The planted companions for sentences; without a frame the same keys with dashes."""
    if found is None:
        keys = ("gap-two", "gap-third", "own-two", "own-third", "companion-two", "companion-third", "scenes", "finding")
        return dict.fromkeys(keys, "–") | {"note": "Nothing can be planted in this profile’s photographs."}
    two, third = dropped(found, "dropped"), dropped(found, "third_dropped")
    counted = found[found["kind"] != ""].groupby("kind")[["candidates", "best", "third_best"]].sum()
    parts = counted / counted.sum().clip(lower=1)
    words = {"note": "", "scenes": f"{found[found['kind'] != '']['image_id'].nunique()}"}
    words |= {f"gap-{name}": spread(*gap.ends, "{:+z.3f}") for name, gap in (("two", two), ("third", third))}
    for kind in ("own", "companion"):
        words |= {f"{kind}-two": f"{parts['best'].get(kind, math.nan):.0%}"}
        words |= {f"{kind}-third": f"{parts['third_best'].get(kind, math.nan):.0%}"}
    words["finding"] = told(
        *third.ends[1:],
        "The third stage drops the companion's neurons more often than the concept's own.",
        "The third stage, too, drops the concept's own neurons more often.",
        "Nothing here shows that the third stage tells the two apart.",
        "Too few scenes count to say whether the third stage tells the two apart.",
    )
    return words
