"""What each choice is worth: the steps from the paper's recipe to the third stage's, side by side and one by one."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from book.claims.rules import Measurement
from book.perturbation import references
from book.perturbation.matched import Doses
from book.style import READINGS
from book.tables import P_HOLM, p_value
from book.words import CHANGE, compared_with_zero, interval, listed, of_every
from kn_core.measures.metrics import per_image
from kn_core.measures.stats import SHARE, SIGNED, each_alone, holm, paired_permutation
from kn_core.measures.summaries import perplexity_limit, with_intervals
from kn_core.study.experiments import ladder
from kn_core.study.experiments.ladder import CONTROL, PAPER, THIRD
from kn_core.study.study import Study

STEPS = {  # how the book names each step of `recipes.LADDER`
    PAPER: "the paper’s recipe",
    "sums": "sums over tokens, not maxima",
    "site": "differences of the product",
    "one product": "one product, not two thresholds",
    "within, half": "minus ½ of other words’",
    "within, whole": "minus all of other words’",
    "between": "minus ½ of other words’ and other concepts’ largest",
}
BEFORE = dict(zip(list(STEPS)[1:], STEPS, strict=False)) | {"between": "within, half"}  # what a step is one choice from
TOLD = ("suppression", "retention_truth", "retention", "retention_probability", "fluent")  # all readings of S_re
DONE = {"noise": "under noise", "zero": "zeroed", "mean": "at the mean", "patch": "patched"}
WHOLE = "all choices together"
BOTH = "both"  # S_se + S_re by probability of a picture: what a choice is worth at once


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`ladder.ladder` of every concept, and on its pictures the third stage as chosen, a step a number of neurons.

    Raises NotRun where there are no pictures to try steps on.
    """
    climbed, third = (of_every(made, study, concepts) for made in (ladder.ladder, ladder.third_stage))
    own = third[(third["method"] == THIRD) & third["image_id"].isin(climbed["image_id"])]
    own = own[own["concept"] == own["image_concept"]]
    return pd.concat([climbed, own.assign(step=own["n"].astype(str))], ignore_index=True)


def _images(rows: pd.DataFrame, limit: float) -> pd.DataFrame:
    """`per_image` by step, intervention and whose neurons ('chosen' or `CONTROL`), and `BOTH` as one more metric."""
    whose = rows["method"].where(rows["method"] == CONTROL, "chosen")
    keys = ["step", "intervention", "whose"]
    images = per_image(rows.assign(whose=whose), keys, perplexity_limit=limit)
    images = images[images["metric"].isin(TOLD)]
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
    """What a choice changes, picture by picture: columns step, at, intervention, metric, value, low, high, p, ...

    Against the step that `at` is one choice away from, under the same intervention; at the first and the last step also
    against the intervention before: then `step` says so. `WHOLE` is the last against the paper's recipe. p flips
    pictures' signs (`stats.paired_permutation`) and p_concepts those of whole concepts, as in Table II
    (`methods.compare`); p_holm and p_concepts_holm have Holm's correction over all of these within a metric.
    """
    images = _images(rows, limit).query("whose == 'chosen'")
    tried = list(dict.fromkeys(rows["intervention"]))
    pairs = [((step, how), (before, how)) for step, before in BEFORE.items() for how in tried]
    last = list(STEPS)[-1]
    pairs += [((last, how), (last, earlier)) for earlier, how in pairwise(tried)]
    pairs += [((step, tried[1]), (PAPER, tried[0])) for step in (PAPER, last)] if len(tried) > 1 else []
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
        change = with_intervals(both, [], within=SIGNED)
        clusters = {
            metric: [values.to_numpy() for _, values in group.groupby("image_concept")["value"]]
            for metric, group in both.groupby("metric")
        }
        change["p"] = [paired_permutation(clusters[metric]) for metric in change["metric"]]
        means = {metric: each_alone(values.mean() for values in of) for metric, of in clusters.items()}
        change["p_concepts"] = [paired_permutation(means[metric]) for metric in change["metric"]]
        exchanged = f"{DONE[how]}, not {DONE[earlier]}" if step == before else WHOLE
        found.append(change.assign(step=step if how == earlier else exchanged, at=step, intervention=how))
    table = pd.concat(found, ignore_index=True)
    for test in ("p", "p_concepts"):
        table[f"{test}_holm"] = table.groupby("metric")[test].transform(holm)
    return table


def order(effects: pd.DataFrame) -> list[tuple[str, str]]:
    """Steps with their interventions as a reader climbs: from the paper's, then the third stage's numbers."""
    there = list(dict.fromkeys(zip(effects["step"], effects["intervention"], strict=True)))
    steps = list(STEPS)
    return sorted(there, key=lambda one: steps.index(one[0]) if one[0] in STEPS else len(steps) + int(one[0]))


def name(step: object) -> str:
    """A step for a reader; a budget of the third stage is a step too."""
    return STEPS.get(str(step)) or f"third stage, {step} neurons"


Ends = tuple[float, float, float]


def cells(frame: pd.DataFrame, *keys: str) -> dict[tuple[str, ...], Ends]:
    """value, low and high of each row, by what is in some columns."""
    rows = frame.to_dict("records")
    return {tuple(str(row[key]) for key in keys): (row["value"], row["low"], row["high"]) for row in rows}


def for_readers(
    effects: pd.DataFrame, gains: pd.DataFrame, doses: Doses | None = None, bounds: pd.DataFrame | None = None
) -> pd.DataFrame:
    """A row a step and intervention: readings with intervals, what random neurons do, and what the choice is worth.

    With `doses` also the dose-matched control: what random neurons keep under the noise that suppresses as much. With
    `bounds`, those of the same pictures (`references.bounds`), rows of them below.
    """
    found = cells(effects, "step", "intervention", "whose", "metric")
    worth = gains[(gains["metric"] == BOTH) & (gains["step"] != WHOLE)].to_dict("records")
    rows = []
    for step, how in order(effects):
        read = [found.get((step, how, "chosen", metric)) for metric in TOLD]
        random = found.get((step, how, CONTROL, "suppression"))
        changes = [row for row in worth if (row["at"], row["intervention"]) == (step, how)]
        said = [
            f"{_change(each)}{_mark(each)}" + ("" if each["step"] == step else f" ({each['step']})") for each in changes
        ]
        rows.append(
            {"choice": f"{name(step)}, {DONE[how]}"}
            | {READINGS[key].label: interval(*ends) if ends else "–" for key, ends in zip(TOLD, read, strict=True)}
            | {"suppression, random": f"{random[0]:.2f}" if random else "–"}
            | ({} if doses is None else {"retention, random at equal suppression": at_equal(doses, read[0])})
            | {"change of both": "; ".join(said) or "–"}
            | {P_HOLM: "; ".join(p_value(each["p_holm"]) for each in changes) or "–"}
        )
    below = [] if bounds is None else references.for_readers(bounds, TOLD, "choice").to_dict("records")
    words = dict.fromkeys(rows[0], "–")
    return pd.DataFrame([*rows, *(words | row for row in below)])


def at_equal(doses: Doses, suppressed: Ends | None) -> str:
    """What random neurons keep (`doses.retention`) under the noise at which their S_se is a step's, with its interval.

    Where no noise that was tried suppresses as much, how far the strongest comes; of one alone nothing is read.
    """
    if suppressed is None:
        return "–"
    if not doses.several("random"):
        return "one dose"
    kept = doses.told(doses.at("random", suppressed[0]), SHARE)
    most = doses.means["random"][0, :, 0].max()
    return f"not reached (at most {most:.2f})" if math.isnan(kept.value) else interval(*kept.ends)


def in_words(effects: pd.DataFrame, gains: pd.DataFrame, kept: str) -> dict[str, str]:
    """The first and the last step, and the choices that matter, for sentences; 'retained': S_re as `kept` reads it."""
    found = cells(effects[effects["whose"] == "chosen"], "step", "intervention", "metric")
    last, tried = list(STEPS)[-1], [str(how) for how in effects["intervention"].unique()]
    paper, third = tried[0], tried[min(1, len(tried) - 1)]
    words = {"pictures": f"{effects['n_images'].max():.0f}", "paper-done": DONE[paper], "last-done": DONE[third]}
    steps = {step for step, how, _ in found if how == paper}
    words["paper-at"] = "at every step" if len(steps) > 2 else "at the first and the last step"
    for key, step, how in (("paper", PAPER, paper), ("last", last, third), ("same", last, paper)):
        read = {metric: found[step, how, metric] for metric in TOLD if (step, how, metric) in found}
        words |= {f"{key}-{metric}": f"{value:.2f}" for metric, (value, *_) in read.items()}
        words[f"{key}-retained"] = words[f"{key}-{kept}"]
    both = gains[gains["metric"] == BOTH].sort_values("value", ascending=False, kind="stable")
    rows = both[both["step"] != WHOLE].to_dict("records")
    sure = [f"{_choice(row)} ({row['value']:+.2f}{_mark(row)})" for row in rows if row["p_holm"] < 0.05]
    words["whole"] = next((_change(row) for row in both[both["step"] == WHOLE].to_dict("records")), "–")
    words |= {"sure": listed(sure) if sure else "none of them", "largest": _choice(rows[0])}
    words["largest-step"] = STEPS.get(rows[0]["step"], rows[0]["step"])
    places = {PAPER: "by the paper's recipe", last: "at the last step"}  # where what is done to neurons was changed
    words["largest-where"] = "as one step" if rows[0]["step"] in STEPS else places[rows[0]["at"]]
    ends = rows[0]["low"], rows[0]["high"]
    words |= {"largest-value": _change(rows[0]), "largest-sure": compared_with_zero(*ends)}
    random = effects[(effects["whose"] == CONTROL) & (effects["metric"] == "suppression")]["value"]
    return words | {"random-most": f"{random.max():.2f}" if len(random) else "–"}


def _change(row: Mapping[Hashable, Any]) -> str:
    return interval(row["value"], row["low"], row["high"], CHANGE)


def _mark(row: Mapping[Hashable, Any]) -> str:
    """As in Table II: a dagger where pictures tell the step from the one before, a double one where concepts do."""
    return "‡" if row["p_concepts_holm"] < 0.05 else "†" if row["p_holm"] < 0.05 else ""


def _choice(row: Mapping[Hashable, Any]) -> str:
    """'sums over tokens, not maxima (zeroed)'; 'zeroed, not under noise (the paper's recipe)'."""
    step, where = str(row["step"]), STEPS[row["at"]]
    return f"{where} ({DONE[row['intervention']]})" if step in STEPS else f"{step} ({where})"


def measured(study: Study) -> list[Measurement]:
    """What all choices together change of S_se plus S_re by probability, from the paper's recipe to the last step."""
    found = gains(of_all(study, study.studied()), perplexity_limit(study.perturbations()))
    rows = found[(found["step"] == WHOLE) & (found["metric"] == BOTH)].to_dict("records")
    return [
        Measurement("ladder_gain", row["value"], row["low"], row["high"], int(row["n_images"]), 0.0) for row in rows
    ]
