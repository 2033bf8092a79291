"""What each choice is worth: the steps from the paper's recipe to the third stage's, side by side and one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from book.claims.rules import Measurement
from book.style import READINGS
from book.words import NotRun, interval, listed, told
from kn_core.measures.metrics import per_image, perplexity_limit, with_intervals
from kn_core.measures.stats import holm, paired_permutation
from kn_core.study.experiments import ladder
from kn_core.study.experiments.ladder import CONTROL, PAPER, THIRD
from kn_core.study.study import Study, StudyError

STEPS = {  # how the book names each step of `recipes.LADDER`
    PAPER: "the paper’s recipe",
    "sums": "sums over tokens, not maxima",
    "site": "differences of the product",
    "one product": "one product, not two thresholds",
    "within, half": "minus ½ of other words’",
    "within, whole": "minus all of other words’",
    "between": "minus other concepts’ largest",
}
BEFORE = dict(zip(list(STEPS)[1:], STEPS, strict=False)) | {"between": "within, half"}  # what a step is one choice from
METRICS = ("suppression", "retention", "retention_probability", "fluent")
DONE = {"noise": "noise", "zero": "zeroed", "mean": "at the mean", "patch": "patched"}
WHOLE = "all choices together"
BOTH = "both"  # S_se + S_re by probability of a picture: what a choice is worth at once


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`ladder.ladder` of every concept, and the third stage's other budgets as steps of their number.

    Raises NotRun where there are no pictures to try steps on.
    """
    try:
        found = [ladder.ladder(study, concept) for concept in concepts]
        third = pd.concat([ladder.third_stage(study, concept) for concept in concepts])
    except StudyError as error:
        raise NotRun(str(error).removesuffix(".")) from error
    budgets = third[(third["method"] == THIRD) & (third["n"] != study.profile.identification.budget)]
    return pd.concat([*found, budgets.assign(step=budgets["n"].astype(str))], ignore_index=True)


def _images(rows: pd.DataFrame, limit: float) -> pd.DataFrame:
    """`per_image` by step, intervention and whose neurons ('chosen' or `CONTROL`), and `BOTH` as one more metric."""
    whose = rows["method"].where(rows["method"] == CONTROL, "chosen")
    keys = ["step", "intervention", "whose"]
    images = per_image(rows.assign(whose=whose), keys, perplexity_limit=limit)
    images = images[images["metric"].isin(METRICS)]
    keys += ["image_concept", "image_id"]
    wide = images.pivot_table(index=keys, columns="metric", values="value")
    both = (wide["suppression"] + wide["retention_probability"]).dropna()
    return pd.concat([images, both.rename("value").reset_index().assign(metric=BOTH)], ignore_index=True)


def effects(rows: pd.DataFrame, limit: float = math.inf) -> pd.DataFrame:
    """Each step: columns step, intervention (in the order of `rows`), whose, metric, value, low, high, n_images, ..."""
    found = with_intervals(_images(rows, limit), ["step", "intervention", "whose"])
    tried = list(rows["intervention"].unique())
    return found.sort_values("intervention", key=lambda each: each.map(tried.index), kind="stable", ignore_index=True)


def gains(rows: pd.DataFrame, limit: float = math.inf) -> pd.DataFrame:
    """What a step changes, picture by picture: columns step, intervention, metric, value, low, high, p, p_holm, ...

    Against the step that it is one choice away from under the same intervention, at the last step also against the
    intervention before; `WHOLE` is the last step against the paper's recipe. p flips pictures' signs
    (`stats.paired_permutation`); Holm's correction is over all of these within a metric.
    """
    images = _images(rows, limit).query("whose == 'chosen'")
    tried = list(dict.fromkeys(rows["intervention"]))
    pairs = [((step, how), (before, how)) for step, before in BEFORE.items() for how in tried]
    last = list(STEPS)[-1]
    pairs += [((last, how), (last, earlier)) for earlier, how in pairwise(tried)]
    pairs += [((last, tried[1]), (PAPER, tried[0]))] if len(tried) > 1 else []
    found = []
    for (step, how), (before, earlier) in pairs:
        one, other = (
            images[(images["step"] == a) & (images["intervention"] == b)].drop(columns=["step", "intervention"])
            for a, b in ((step, how), (before, earlier))
        )
        both = one.merge(other, on=["whose", "image_concept", "image_id", "metric"], suffixes=("", "_before"))
        if both.empty:
            continue
        both["value"] -= both.pop("value_before")
        change = with_intervals(both, [])
        clusters = {
            metric: [values.to_numpy() for _, values in group.groupby("image_concept")["value"]]
            for metric, group in both.groupby("metric")
        }
        change["p"] = [paired_permutation(clusters[metric]) for metric in change["metric"]]
        changed = WHOLE if step != before != BEFORE.get(step) else f"{DONE[how]}, not {DONE[earlier]}"
        name = step if how == earlier else changed
        found.append(change.assign(step=name, intervention=how))
    table = pd.concat(found, ignore_index=True)
    table["p_holm"] = table.groupby("metric")["p"].transform(lambda p: holm(p.to_numpy()))
    return table


def order(effects: pd.DataFrame) -> list[tuple[str, str]]:
    """Steps with their interventions as a reader climbs: from the paper's, then other numbers of neurons."""
    there = list(dict.fromkeys(zip(effects["step"], effects["intervention"], strict=True)))
    steps = list(STEPS)
    return sorted(there, key=lambda one: steps.index(one[0]) if one[0] in STEPS else len(steps) + int(one[0]))


def name(step: str) -> str:
    """A step for a reader; a budget is a step too."""
    return STEPS.get(step) or f"the same, {step} neurons"


def for_readers(effects: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """A row a step and intervention: readings with intervals, what random neurons do, and what the choice is worth."""
    cells = effects.set_index(["step", "intervention", "whose", "metric"])[["value", "low", "high"]]
    worth = gains[gains["metric"] == BOTH].set_index(["step", "intervention"])
    rows = []
    for step, how in order(effects):
        row = {"choice": name(step), "neurons are": DONE[how]}
        for metric in METRICS:
            key = (step, how, "chosen", metric)
            row[READINGS[metric].label] = interval(*cells.loc[key]) if key in cells.index else "–"
        key = (step, how, CONTROL, "suppression")
        row["Sₛₑ, random"] = f"{cells.loc[key, 'value']:.2f}" if key in cells.index else "–"
        keys = ((step, how), *((other, by) for other, by in worth.index if by == how and other.startswith(DONE[how])))
        change = next((worth.loc[key] for key in keys if key in worth.index), None)
        row["Sₛₑ + Sᵣₑ"] = "–" if change is None else interval(*change[["value", "low", "high"]], "{:+.2f}")
        row["p (Holm)"] = math.nan if change is None else float(change["p_holm"])
        rows.append(row)
    return pd.DataFrame(rows)


def in_words(effects: pd.DataFrame, gains: pd.DataFrame) -> dict[str, str]:
    """The first and the last step, and the choices that matter, for sentences."""
    cells = effects[effects["whose"] == "chosen"].set_index(["step", "intervention", "metric"])["value"]
    last, tried = list(STEPS)[-1], list(dict.fromkeys(effects["intervention"]))
    words = {"pictures": f"{effects['n_images'].max():.0f}", "paper-done": DONE[tried[0]], "third-done": DONE[tried[1]]}
    for key, step, how in (("paper", PAPER, tried[0]), ("last", last, tried[1]), ("same", last, tried[0])):
        words |= {f"{key}-{metric}": f"{cells[step, how, metric]:.2f}" for metric in METRICS}
    whole, both = (gains[(gains["metric"] == BOTH) & ((gains["step"] == WHOLE) == all_)] for all_ in (True, False))
    words["whole"] = interval(*whole[["value", "low", "high"]].iloc[0], "{:+.2f}") if len(whole) else "–"
    sure = both[both["p_holm"] < 0.05].sort_values("value", ascending=False)
    said = [
        f"{STEPS.get(row['step'], row['step'])} ({row['value']:+.2f}, {DONE[row['intervention']]})"
        for row in sure.to_dict("records")
    ]
    words["sure"] = listed(said) if said else "none of them"
    largest = both.loc[both["value"].idxmax()]
    words["largest"] = f"{STEPS.get(largest['step'], largest['step'])}, under neurons {DONE[largest['intervention']]}"
    words["largest-value"] = interval(*largest[["value", "low", "high"]], "{:+.2f}")
    words["largest-sure"] = told(*largest[["low", "high"]], "clear of zero", "below zero", "not clear of zero")
    random = effects[(effects["whose"] == CONTROL) & (effects["metric"] == "suppression")]["value"]
    return words | {"random-most": f"{np.nanmax(random):.2f}" if len(random) else "–"}


def measured(study: Study) -> list[Measurement]:
    """What all choices together change of S_se plus S_re by probability, from the paper's recipe to the last step."""
    found = gains(of_all(study, study.studied()), perplexity_limit(study.perturbations()))
    rows = found[(found["step"] == WHOLE) & (found["metric"] == BOTH)].to_dict("records")
    return [
        Measurement("ladder_gain", row["value"], row["low"], row["high"], int(row["n_images"]), 0.0) for row in rows
    ]
