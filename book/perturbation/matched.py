"""Methods at equal suppression: what each keeps of a caption where it takes the concept out of as many.

One noise is another dose for every method, so S_re is compared where S_se is the same, between the doses of a sweep.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from book.claims.evidence import RIVALS
from book.claims.rules import Measurement
from book.perturbation import methods, references
from book.perturbation.readings import OF, harmonic_mean, printed, sweep
from book.style import METHODS, methods_of
from book.words import interval, told
from kn_core.measures import matched
from kn_core.measures.metrics import per_image
from kn_core.measures.stats import GAP, SHARE, Ends, Estimate, jackknife
from kn_core.measures.summaries import main_retention, perplexity_limit
from kn_core.profile import Profile
from kn_core.study.study import Study

TRIED = (*methods_of("ours", "stage", "rival"), "random", "direction")  # at the image tokens
AT_TEXT = methods_of("at text")
BY_CHANCE = {"random": "random neurons of the same layers", "direction": "random directions"}  # nobody's choice
ONE = "cannot be placed (one noise alone was tried)"
PICTURE = ["image_concept", "image_id"]


class Doses:
    """The sweep over the noise of every method that has one, on the pictures that all of them saw.

    `means[method]` (1 + n, 1 + d, 2) are the means of S_se and S_re over the doses `sigma[method]` (1 + d,), the first
    of them 0: of all, and without each of n concepts (`matched.over_doses`).
    """

    def __init__(self, perturbations: pd.DataFrame, profile: Profile) -> None:
        self.retention, self.main = main_retention(perturbations), profile.perturbation.sigma
        rows = [sweep(perturbations, profile, "sigma", TRIED), _at_text(perturbations, profile)]
        values = per_image(pd.concat(rows), ["method", "sigma"]).query("metric in ['suppression', @self.retention]")
        named = values[values["metric"] == "suppression"]
        seen = named.pivot_table("value", PICTURE, ["method", "sigma"]).dropna().index  # every dose of every method
        wide = values.pivot_table("value", PICTURE, ["method", "sigma", "metric"]).reindex(seen)
        concepts = wide.index.get_level_values("image_concept").tolist()
        self.n, self.n_concepts = len(concepts), len(set(concepts))
        self.images = set(wide.index.get_level_values("image_id"))
        self.sigma: dict[str, list[float]] = {}
        self.means: dict[str, np.ndarray] = {}
        for method, of_method in named.groupby("method", sort=False):
            doses = sorted(of_method["sigma"].unique())
            both = pd.MultiIndex.from_product([[method], doses, ["suppression", self.retention]])
            pictures = wide.reindex(columns=both).to_numpy().reshape(len(wide), len(doses), 2)
            self.sigma[str(method)], self.means[str(method)] = [0.0, *doses], matched.over_doses(pictures, concepts)

    def several(self, method: str) -> bool:
        """Whether a method was tried under several noises: with one alone, a line from nothing done is a guess."""
        return len(self.sigma.get(method, ())) > 2

    def at(self, method: str, level: float | np.ndarray) -> np.ndarray:
        """S_re of a method where its S_se is `level`, (1 + n,); NaN where one noise alone was tried."""
        found = matched.at_level(self.means[method], level)
        return found if self.several(method) else np.full_like(found, math.nan)

    def under(self, method: str, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """S_se and S_re under one of the noises that were tried, (1 + n,) each."""
        curve = self.means[method][:, self.sigma[method].index(sigma)]
        return curve[:, 0], curve[:, 1]

    def at_main(self, method: str) -> tuple[np.ndarray, np.ndarray]:
        """S_se and S_re under the main noise, (1 + n,) each."""
        return self.under(method, self.main)

    def told(self, values: np.ndarray, within: Ends) -> Estimate:
        """Of values (1 + n,), those of all, with their interval (`stats.jackknife`)."""
        return Estimate(*jackknife(values, within), self.n, self.n_concepts)


def _at_text(perturbations: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The sweep at text tokens of rivals that score there, and of random neurons as 'random-text'."""
    rows = perturbations[(perturbations["intervention"] == "noise") & (perturbations["positions"] == "text")]
    rows = rows[(rows["n"] == profile.identification.budget) & rows["sigma"].isin(profile.perturbation.text_sigma)]
    rows = rows.assign(method=rows["method"].replace("random", "random-text"))
    return rows[rows["method"].isin(AT_TEXT) & rows["heldout"] & (rows["seed"] == 0)]


def table(doses: Doses, level: float, ours: str = "two-stage") -> pd.DataFrame:
    """Each method's S_re at S_se = `level`, and where its S_se is that of `ours` under the main noise.

    Columns method, doses (how many noises), sigma (which reaches the level), value, low, high (NaN: no dose reaches it,
    or there is but one), most (the largest S_se of all doses), kept (S_re where S_se is that of `ours` under the main
    noise), difference (S_re of `ours` minus that) with difference_low and difference_high, n_images, n_concepts.
    """
    suppressed, kept_by_us = doses.at_main(ours)
    records = []
    for method in (name for name in METHODS if name in doses.means):
        curve = doses.means[method]
        tried = len(doses.sigma[method]) - 1
        sigma = float(matched.dose_at_level(curve[0], doses.sigma[method], level)) if tried > 1 else math.nan
        there, kept = doses.told(doses.at(method, level), SHARE), doses.at(method, suppressed)
        gap = doses.told(kept_by_us - kept, GAP) if method != ours else Estimate(0.0, math.nan, math.nan)
        most = float(curve[0, :, 0].max())
        records.append((method, tried, sigma, *there.ends, most, float(kept[0]), *gap.ends, doses.n, doses.n_concepts))
    columns = ["method", "doses", "sigma", "value", "low", "high", "most", "kept", "difference"]
    columns += ["difference_low", "difference_high", "n_images", "n_concepts"]
    return pd.DataFrame(records, columns=columns)


def for_readers(found: pd.DataFrame, level: float) -> pd.DataFrame:
    """`table` in words; where none of several doses reaches the level, how far they come."""
    shown = []
    for row in found.to_dict("records"):
        reached = not math.isnan(row["value"])
        without = "one dose" if row["doses"] == 1 else f"not reached (at most {row['most']:.2f})"
        here = interval(row["value"], row["low"], row["high"]) if reached else without
        gap = interval(row["difference"], row["difference_low"], row["difference_high"])
        shown.append(
            {
                "neurons of": METHODS[row["method"]].label,
                "doses": str(row["doses"]),
                f"retention at {level:g} suppressed": here,
                "by σ": f"{row['sigma']:.1f}" if reached else "–",
                "retention where as much is suppressed": "–" if math.isnan(row["kept"]) else f"{row['kept']:.2f}",
                "ours minus that": "–" if row["method"] == "two-stage" else gap,
            }
        )
    return pd.DataFrame(shown)


def in_words(found: pd.DataFrame, doses: Doses, level: float) -> dict[str, str]:
    """For sentences: 'matched-ours', S_re at the level; 'matched-random' and 'matched-direction', what these keep.

    'matched-control' is which of the two decides a claim.
    """
    rows = {row["method"]: row for row in found.to_dict("records")}
    ours = rows["two-stage"]
    words = {"matched-ours": _there(ours)}
    words["matched-there"] = _there(rows["random"]) if "random" in rows else "were not tried"
    one = "; ".join(METHODS[str(name)].label for name in rows if rows[name]["doses"] == 1)
    words["matched-one"] = f"Under one noise alone, through which there is no curve, were tried: {one}." if one else ""
    words |= {"matched-level": f"{level:g}", "matched-pictures": str(doses.n)}
    words["matched-reading"] = f"of {OF[doses.retention]}"
    words["matched-here"] = f"{doses.at_main('two-stage')[0][0]:.2f}"
    for control in BY_CHANCE:
        words[f"matched-{control}"] = _said(rows[control]) if control in rows else "were not tried in this version"
    return words | {"matched-control": _decides(doses)}


def _there(row: Mapping[Hashable, Any]) -> str:
    """What a method keeps at the level, or that it does not come so far."""
    if math.isnan(row["value"]):
        return ONE if row["doses"] == 1 else f"never come so far (at most {row['most']:.2f})"
    return f"keep {interval(row['value'], row['low'], row['high'])}"


def _said(row: Mapping[Hashable, Any]) -> str:
    if row["doses"] == 1:
        return ONE
    if math.isnan(row["difference"]):
        return f"never reach it (at most {row['most']:.2f})"
    ends = row["difference_low"], row["difference_high"]
    which = told(
        *ends, "less than the two-stage neurons", "more than the two-stage neurons", "not clearly more or less"
    )
    gap = interval(row["difference"], *ends)
    return f"keep {row['kept']:.2f}, {which} (two-stage neurons minus these: {gap})"


def _decides(doses: Doses) -> str:
    """Against which control a claim is decided, and why not against the other."""
    best, _ = _hardest(doses, BY_CHANCE)
    said = BY_CHANCE.get(best, "neither")
    for other in (name for name in BY_CHANCE if name != best):
        if not doses.several(other):
            said += f"; {BY_CHANCE[other]} were not tried under several noises"
        elif math.isnan(doses.at(other, doses.at_main("two-stage")[0])[0]):
            said += f"; {BY_CHANCE[other]} never suppress as much"
    return said


def measured(study: Study) -> list[Measurement]:
    """What claims ask of doses: S_re where S_se is the paper's, and where it is another's; balances, each at its own.

    'retention_at_suppression' has what another concept's caption keeps for its control. A curve, and a noise of
    one's own, take several noises: who was tried under one alone has no number.
    """
    perturbations = study.perturbations()
    doses, paper = Doses(perturbations, study.effort), printed()
    bounds = references.bounds(perturbations, perplexity_limit(perturbations)).set_index(["method", "metric"])["value"]
    ours = doses.told(doses.at("two-stage", paper["suppression"]), SHARE)
    at_paper = Measurement("retention_at_suppression", *ours.ends, doses.n, bounds.get(("chance", doses.retention)))
    own = own_doses(doses, methods.doses(perturbations, study.effort))
    both = doses.several("two-stage") and doses.several("stage-1")
    gain = _balance(doses, "two-stage", own) - _balance(doses, "stage-1", own) if both else None
    over_stage_1 = _measurement("stage2_balance_gain", doses, gain)
    return [at_paper, over_controls(doses), over_stage_1, *over_rivals(doses, own)[0]]


def over_controls(doses: Doses) -> Measurement:
    """'matched_over_controls': S_re of the two-stage neurons under the main noise minus that of the control that keeps
    more at the same S_se, random neurons of the same layers or random directions as long as what the noise writes.
    """
    return _measurement("matched_over_controls", doses, _hardest(doses, BY_CHANCE)[1])


def over_rivals(doses: Doses, own: Mapping[str, float]) -> tuple[list[Measurement], dict[str, str]]:
    """Two measurements against the best rival that suppresses at all, at the image tokens or in its own place.

    'matched_retention_over_rivals': S_re of the two-stage neurons under the main noise minus that of the rival that
    keeps most at the same S_se, of those tried under several noises; one that never suppresses as much wins nothing.
    'balance_over_rivals': the harmonic mean of S_se and S_re, each under its `own_doses`, minus the best rival's of
    those that `suppresses` there; the two-stage neurons and some rival must have been tried under several noises. With
    each the name of the rival; NaN where no rival is left.
    """
    rivals = [name for name in (*RIVALS, *AT_TEXT) if name in doses.means and name != "random-text"]
    closest, kept = _hardest(doses, rivals)
    swept = doses.several("two-stage") and any(map(doses.several, rivals))
    able = {name: _balance(doses, name, own) for name in rivals if swept and suppresses(doses, name, own[name])}
    balanced = max(able, key=lambda name: able[name][0], default="")
    gap = _balance(doses, "two-stage", own) - able[balanced] if able else None
    over_closest = _measurement("matched_retention_over_rivals", doses, kept)
    return [over_closest, _measurement("balance_over_rivals", doses, gap)], {"matched": closest, "balance": balanced}


def _hardest(doses: Doses, against: Iterable[str]) -> tuple[str, np.ndarray | None]:
    """Who keeps most where as much is suppressed as by the two-stage neurons under the main noise; '' for none.

    With S_re of the two-stage neurons there minus its own, (1 + n,), or None. Who was tried under one noise alone, or
    never suppresses as much, does not count.
    """
    suppressed, kept = doses.at_main("two-stage")
    gaps = {name: kept - doses.at(name, suppressed) for name in against if name in doses.means}
    gaps = {name: gap for name, gap in gaps.items() if not math.isnan(gap[0])}
    best = min(gaps, key=lambda name: gaps[name][0], default="")
    return best, gaps.get(best)


def suppresses(doses: Doses, method: str, sigma: float) -> bool:
    """Whether noise on these neurons takes names away at all: more than nothing done does, and than random neurons.

    Nothing done takes none, so the interval of S_se must lie above zero; its mean must lie above that of random neurons
    under the same noise in the same place.
    """
    control = "random-text" if method in AT_TEXT else "random"
    if sigma not in doses.sigma.get(control, ()):
        return False
    (suppressed, _), (by_chance, _) = doses.under(method, sigma), doses.under(control, sigma)
    return doses.told(suppressed, SHARE).low > 0 and bool(suppressed[0] > by_chance[0])


def own_doses(doses: Doses, chosen: pd.DataFrame) -> dict[str, float]:
    """The noise of each method: the main one, or what `methods.doses` chose on pictures that chose neurons."""
    best = chosen[chosen["chosen"]].set_index("method")["sigma"]
    return {name: float(best.get(name, doses.main)) for name in doses.means}


def rivals_in_words(best: Mapping[str, str]) -> str:
    """Which rivals `over_rivals` holds the two-stage neurons against."""
    sides = {"matched": "at equal suppression", "balance": "in the balance of both numbers"}
    return " and ".join(
        f"{said} against {METHODS[best[side]].label}" if best[side] else f"{said} against none, as none qualifies"
        for side, said in sides.items()
    )


def _balance(doses: Doses, method: str, own: Mapping[str, float]) -> np.ndarray:
    """The harmonic mean of S_se and S_re under a method's own noise, (1 + n,)."""
    return harmonic_mean(*map(pd.Series, doses.under(method, own[method]))).to_numpy()


def _measurement(name: str, doses: Doses, values: np.ndarray | None) -> Measurement:
    """Of a difference of shares (1 + n,); NaN where there is none."""
    if values is None:
        return Measurement(name, math.nan, math.nan, math.nan, 0)
    return Measurement(name, *doses.told(values, GAP).ends, doses.n)
