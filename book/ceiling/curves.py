"""What sets of neurons carry of the word's logit, over their size: frames of `experiments.curves`."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from book.claims.rules import Measurement
from book.style import METHODS
from book.tables import P_HOLM
from book.words import interval
from kn_core.measures.curves import beats, cmd, cpr, share
from kn_core.measures.stats import SIGNED, Ends, holm, jackknife, left_out
from kn_core.study.experiments import single_neurons
from kn_core.study.experiments.curves import COLLAPSE, KEPT, MATCHED, REMOVED, SPARED, UNIFORM, collapse, curves
from kn_core.study.experiments.guard import spared
from kn_core.study.study import Study, StudyError

ENDS = ["value", "low", "high"]
AREA: Ends = (0.0, math.inf)
Interval = tuple[float, float, float]  # value, low, high
Column = tuple[str, int, int, str]  # ranking, draw, n, side


class Curves:
    """y of every picture under every set, and what follows from the means.

    `means` (1 + n, K) are over concepts: of all, and without each of n concepts (`stats.left_out`). `able` is
    how many neurons can act, `budget` how many the profile disturbs.
    """

    def __init__(self, study: Study, concepts: Sequence[str]) -> None:
        frame = pd.concat([curves(study, concept) for concept in concepts], ignore_index=True)
        wide = frame.pivot_table(
            index=["concept", "image_id"], columns=["ranking", "draw", "n", "side"], values="y", sort=False
        )
        budget = study.profile.identification.budget
        if (spared := ("two-stage", 0, budget, SPARED)) in wide:  # of concepts with a flagged neuron alone
            wide[spared] = wide[spared].fillna(wide["two-stage", 0, budget, REMOVED])
        self.y = wide.dropna(axis=1)
        columns: list[Any] = self.y.columns.tolist()
        self.place: dict[Column, int] = {column: i for i, column in enumerate(columns)}
        self.means = left_out(self.y.to_numpy(), self.y.index.get_level_values("concept").tolist())
        self.budget, self.able = budget, self._anchor("everything")[2]
        names = dict.fromkeys(key[0] for key in self.place if key[3] == REMOVED)
        self.rankings = [name for name in names if name != MATCHED]
        self.sizes = sorted({key[2] for key in self.place if key[3] == KEPT})

    def _anchor(self, ranking: str) -> Column:
        return next(key for key in self.place if key[0] == ranking and not key[3])

    def mean(self, means: np.ndarray, column: Column | str) -> np.ndarray:
        """m of a set, or of an anchor by its name, out of means (..., K)."""
        found: np.ndarray = means[..., self.place[self._anchor(column) if isinstance(column, str) else column]]
        return found

    def carried(self, means: np.ndarray, column: Column) -> np.ndarray:
        """The share of what all neurons carry that a set has (kept) or that is left without it (removed)."""
        return share(*(self.mean(means, each) for each in (column, "everything", "nothing")))

    def lost(self, means: np.ndarray, anchor: str) -> np.ndarray:
        """The share of what the object adds to y that is gone under an anchor."""
        return share(*(self.mean(means, each) for each in (anchor, "nothing", "without")))

    def along(self, means: np.ndarray, ranking: str, side: str, draw: int = 0) -> np.ndarray:
        """`carried` over `sizes` and all neurons that can act, (..., sizes + 1)."""
        each = [self.carried(means, (ranking, draw, n, side)) for n in self.sizes]
        return np.stack([*each, np.full_like(each[0], float(side == KEPT))], axis=-1)

    def estimate(self, function: Callable[[np.ndarray], np.ndarray], within: Ends = SIGNED) -> Interval:
        """A function of means (..., K), with its interval (`stats.jackknife`)."""
        return jackknife(function(self.means), within)

    @property
    def shares(self) -> np.ndarray:
        """The sizes of a curve as shares of the neurons that can act."""
        return np.array([*self.sizes, self.able]) / self.able


def ffn_share(found: Curves) -> Interval:
    """How much of the object's share of y is gone when all neurons are patched, with its interval."""
    return found.estimate(lambda m: found.lost(m, "everything"))


def measured(study: Study) -> list[Measurement]:
    """The FFN share, as a claim of ours asks for it."""
    found = Curves(study, study.studied())
    return [Measurement("ffn_share", *ffn_share(found), len(found.y), 0.0)]


def layer_profile(found: Curves, neurons: pd.DataFrame) -> pd.DataFrame:
    """The share of the object's y that is gone with a window patched: columns window, first, last, value, low, high.

    And `holds`: the share of a concept's `neurons` (`Study.neurons`, of one method) that lie there, mean over concepts.
    """
    rows = []
    for name in dict.fromkeys(key[0] for key in found.place if key[0].startswith("layers ")):
        first, last = map(int, name.removeprefix("layers ").split("–"))
        holds = neurons["layer"].between(first, last).groupby(neurons["concept"]).mean().mean()
        rows.append((name, first, last, *found.estimate(partial(found.lost, anchor=name)), holds))
    return pd.DataFrame(rows, columns=["window", "first", "last", *ENDS, "holds"])


def points(found: Curves) -> pd.DataFrame:
    """Curves for a figure: columns ranking, draw, side, share (of the neurons), value, low, high."""
    rows = []
    keys = {(key[0], key[1], key[3]) for key in found.place if key[3] in (KEPT, REMOVED) and key[0] != MATCHED}
    for ranking, draw, side in sorted(keys):
        for n, size in zip(found.sizes, found.shares, strict=False):
            ends = found.estimate(partial(found.carried, column=(ranking, draw, n, side)))
            rows.append((ranking, draw, side, size, *ends))
        end = float(side == KEPT)
        rows.append((ranking, draw, side, 1.0, end, end, end))
    return pd.DataFrame(rows, columns=["ranking", "draw", "side", "share", *ENDS])


def table(found: Curves) -> pd.DataFrame:
    """A row a ranking: f at the budget, what is lost without as many, CPR and CMD over shares and their logarithm.

    Each has its interval in `<column>_low` and `<column>_high`; n_images is of all.
    """
    functions: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {
        "alone": lambda m, name: found.carried(m, (name, 0, found.budget, KEPT)),
        "lost": lambda m, name: 1 - found.carried(m, (name, 0, found.budget, REMOVED)),
        "cpr": lambda m, name: cpr(found.shares, found.along(m, name, KEPT)),
        "cmd": lambda m, name: cmd(found.shares, found.along(m, name, KEPT)),
        "cpr_log": lambda m, name: cpr(found.shares, found.along(m, name, KEPT), log=True),
        "cmd_log": lambda m, name: cmd(found.shares, found.along(m, name, KEPT), log=True),
    }
    rows = []
    for name in found.rankings:
        row: dict[str, object] = {"ranking": name}
        for key, function in functions.items():
            ends = found.estimate(partial(_of, function, name), AREA if key.startswith("cmd") else SIGNED)
            row |= dict(zip((key, f"{key}_low", f"{key}_high"), ends, strict=True))
        rows.append(row)
    return pd.DataFrame(rows).assign(n_images=len(found.y))


def _of(function: Callable[[np.ndarray, str], np.ndarray], ranking: str, means: np.ndarray) -> np.ndarray:
    return function(means, ranking)


def table_for_readers(frame: pd.DataFrame, budget: int) -> pd.DataFrame:
    """`table`, intervals in words."""
    headings = {
        "alone": f"f of the best {budget}",
        "lost": "lost without them",
        "cpr": "CPR",
        "cmd": "CMD",
        "cpr_log": "CPR, log",
        "cmd_log": "CMD, log",
    }
    shown = pd.DataFrame({"ranked by": list(map(_label, frame["ranking"]))})
    for key, heading in headings.items():
        shown[heading] = [interval(*ends) for ends in frame[[key, f"{key}_low", f"{key}_high"]].to_numpy().tolist()]
    return shown


def _label(ranking: str) -> str:
    return METHODS[ranking].label if ranking in METHODS else ranking


def tests(study: Study, found: Curves) -> pd.DataFrame:
    """The two-stage neurons against random ones: columns test, won (share), n (random sets or concepts), n_images, p.

    p is corrected (`P_HOLM`); least is what it would be if all were won, with the other tests as they came out.
    Sufficiency: alone they carry more than as many random ones of their layers. Partial necessity: without them less
    is left. Minimality: of a concept's best, singly, most take more from the logit than half of the random neurons do;
    concepts share neurons, so a concept is one case.
    """
    mean, rows = found.means[0], []
    for test, side, sign in (("sufficiency", KEPT, 1), ("partial necessity", REMOVED, -1)):
        drawn = [mean[i] for key, i in found.place.items() if key[0] == MATCHED and key[3] == side]
        ours = mean[found.place["two-stage", 0, found.budget, side]]
        rows.append((test, *beats(sign * ours, sign * np.array(drawn)), len(drawn), len(found.y)))
    with suppress(StudyError):  # a decoder whose neurons cannot be taken singly
        rows.append(("minimality", *_minimality(study, found.y.index.unique("concept").tolist())))
    tests = pd.DataFrame(rows, columns=["test", "won", "p", "n", "n_images"])
    p = tests.pop("p").to_numpy()
    least = [holm(np.where(np.arange(len(p)) == i, 0.5**n, p))[i] for i, n in enumerate(tests["n"])]
    return tests.assign(**{P_HOLM: holm(p)}, least=least)


def tests_for_readers(tests: pd.DataFrame) -> pd.DataFrame:
    """`tests` without what is told below the table, and of what n is."""
    of = [f"{n} {'concepts' if test == 'minimality' else 'random sets'}" for test, n in tests[["test", "n"]].to_numpy()]
    return tests.drop(columns=["n_images", "least"]).assign(n=of).rename(columns={"n": "of"})


def _minimality(study: Study, concepts: Sequence[str]) -> tuple[float, float, int, int]:
    won, images, settings = [], 0, study.effort.faithfulness
    for concept in concepts:
        effects = single_neurons.effects(study, concept).query("method == 'two-stage'")
        random = effects[effects["stratum"] == "random"]["effect"].median()
        best = effects.dropna(subset=["score"]).nlargest(settings.per_method, "score")
        images += min(settings.pictures, int((study.pairs(concept)["role"] == "held_out").sum()))
        won.append(bool((best["effect"] > random).mean() > 0.5))
    p = binomtest(sum(won), len(won), 0.5, alternative="greater").pvalue
    return float(np.mean(won)), float(p), len(won), images


def in_words(found: Curves, frame: pd.DataFrame, layers: pd.DataFrame) -> dict[str, str]:
    """Curves, `table` and `layer_profile` for sentences."""
    rankings = {str(row["ranking"]): row for row in frame.to_dict("records")}
    best = max(rankings, key=lambda name: rankings[name]["lost"])
    windows = layers.to_dict("records")
    first, last = windows[0], windows[-1]

    def of(row: Mapping[Hashable, Any], key: str = "") -> str:
        value, low, high = (row[name] for name in ((key, f"{key}_low", f"{key}_high") if key else ENDS))
        return interval(value, low, high, "{:z.0%}")

    passing = ffn_share(found)
    return {
        "ffn-share": interval(*passing, "{:z.0%}"),
        "left": "What is left reached the text past every neuron at an image token"
        if passing[0] < 1
        else "Nothing is left that goes past them",
        "carry": of(rankings["two-stage"], "lost"),
        "alone": of(rankings["two-stage"], "alone"),
        "best": _label(best),
        "best-lost": of(rankings[best], "lost"),
        "able": f"{found.able:,}",
        "budget": f"{found.budget}",
        "curve-pictures": f"{len(found.y)}",
        "first-layers": first["window"],
        "first-share": of(first),
        "last-layers": last["window"],
        "last-share": of(last),
        "order": _order(first, last),
        "uniform": f"{1 + max((key[1] for key in found.place if key[0] == UNIFORM), default=-1)}",
        "matched": f"{1 + max((key[1] for key in found.place if key[0] == MATCHED), default=-1)}",
    }


def _order(first: Mapping[Hashable, Any], last: Mapping[Hashable, Any]) -> str:
    if last["high"] < first["low"]:
        return "What the first layers write about the object matters more than what the last do"
    if first["high"] < last["low"]:
        return "The last layers matter most"
    return "Between the first and the last layers there is no clear difference"


def tests_in_words(tests: pd.DataFrame) -> str:
    """What the tests say, one after the other."""
    each = []
    for test, won, n, p, least in tests[["test", "won", "n", P_HOLM, "least"]].itertuples(index=False):
        said = "is not shown" if least < 0.05 else "has too few sets to tell"
        said = "not enough to tell" if np.isnan(p) else "holds" if p < 0.05 else said
        each.append(f"{test} {said} ({won:.0%} of {n}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})")
    return "; ".join(each).capitalize()


def guard_in_words(study: Study, found: Curves, concepts: Sequence[str]) -> str:
    """Whether one of the best neurons alone carries language, and what sets suppress with and without such."""
    each = pd.concat([collapse(study, concept) for concept in concepts], ignore_index=True)
    single = each.drop_duplicates(["layer", "unit"])
    flagged = each[each["ratio"] >= COLLAPSE].drop_duplicates(["layer", "unit"])
    (largest,) = each.nlargest(1, "ratio").to_dict("records")
    where = f"layer {largest['layer']}, unit {largest['unit']}"
    told_of = f"Of {len(single)} neurons that are among a concept’s first, "
    if flagged.empty:
        return told_of + (
            f"none alone makes captions of the other concepts, one of each, {COLLAPSE:g} times as surprising (the most "
            f"is {largest['ratio']:.2f} times, {where}): none of them carries language itself, and no "
            "set was tried without"
        )
    names = ", ".join(f"layer {row.layer}, unit {row.unit}" for row in flagged.itertuples())
    left = found.estimate(lambda m: 1 - found.carried(m, ("two-stage", 0, found.budget, SPARED)))
    captions = pd.concat([spared(study, concept) for concept in concepts], ignore_index=True)
    lost = 1 - captions.groupby(["method", "concept"])["target_present"].mean().groupby("method").mean()
    return told_of + (
        f"{len(flagged)} make captions of the other concepts, one of each, {COLLAPSE:g} times as surprising or more "
        f"({names}): without these the set carries {interval(*left, '{:z.0%}')}. Of concepts that have such, the set "
        f"takes {lost['two-stage']:.0%} of the names with them and {lost[f'two-stage, {SPARED}']:.0%} without, and the "
        f"best by attribution patching {lost['atp']:.0%} with and {lost[f'atp, {SPARED}']:.0%} without"
    )
