"""What interventions did, as the book's tables and curves show it: a study's frames in, tidy frames out.

`evidence` decides claims from the same rows; here they are laid out for a reader: sweeps around the main setting, the
readings of Table II side by side, what the noise is in the neurons' own units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from book.style import READINGS
from book.words import interval
from kn_core.measures.metrics import contrast, headline, perplexity_limit, summarise
from kn_core.profile import Profile

Over = Literal["n", "sigma", "intervention", "positions"]

IN_TABLE = (
    *("suppression", "suppression_probability", "retention", "retention_probability", "retention_others"),
    *("selectivity", "fluent", "log_perplexity", "repetition"),
)


def sweep(
    perturbations: pd.DataFrame, profile: Profile, over: Over, methods: Sequence[str] = ("two-stage", "random")
) -> pd.DataFrame:
    """Rows that differ from the main setting in `over` alone: the first seed, own held-out pictures that saw them all.

    A sweep runs with one seed and one draw of the control, so the main setting's other seeds are left out of it too.
    Noise on weights, which has no positions, counts as one more intervention.
    """
    settings = profile.perturbation
    main = {"intervention": settings.intervention, "positions": settings.positions, "n": profile.identification.budget}
    same = perturbations["heldout"] & (perturbations["seed"] == 0)
    same &= perturbations["concept"] == perturbations["image_concept"]
    same &= perturbations["method"].isin(methods)
    on_weights = (perturbations["intervention"] == "weights") & (over == "intervention")
    for name, value in main.items():
        if name != over:
            same &= (perturbations[name] == value) | (on_weights & (name == "positions"))
    if over != "sigma":  # without noise there is no sigma to agree on
        same &= (perturbations["sigma"] == settings.sigma) | (perturbations["intervention"] != "noise")
    rows = perturbations[same]
    tried = rows.groupby(["method", "image_id"])[over].nunique()
    whole = tried[tried == tried.groupby("method").transform("max")].index
    return rows[pd.MultiIndex.from_frame(rows[["method", "image_id"]]).isin(whole)]


def curve(
    perturbations: pd.DataFrame, profile: Profile, over: Over, methods: Sequence[str] = ("two-stage", "random")
) -> pd.DataFrame:
    """`metrics.summarise` of a sweep: columns method, `over`, metric, value, low, high, n_images, n_concepts."""
    rows = sweep(perturbations, profile, over, methods)
    return summarise(rows, ["method", over], perplexity_limit=perplexity_limit(perturbations)).sort_values(
        ["method", "metric", over], ignore_index=True
    )


def by_concept(perturbations: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The main setting, concept by concept: columns method, concept, metric, value, low, high, n_images, n_concepts."""
    rows = headline(perturbations, profile)
    rows = rows[rows["method"].isin(["two-stage", "random"])]
    return summarise(rows, ["method", "concept"], perplexity_limit=perplexity_limit(perturbations))


def table_2(perturbations: pd.DataFrame, profile: Profile, paper: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Every reading of the main setting: two-stage neurons, the control, and the difference, image by image.

    Columns metric, paper (NaN where it prints none), for each of two_stage, random, difference its value, low and high,
    then n_images, n_concepts. Held-out pictures, mean over concepts, all seeds.
    """
    rows, limit = headline(perturbations, profile), perplexity_limit(perturbations)
    both = summarise(rows, ["method"], perplexity_limit=limit).set_index(["method", "metric"])
    gap = contrast(rows, "two-stage", "random", perplexity_limit=limit).set_index("metric")
    sides = {"two_stage": both.xs("two-stage"), "random": both.xs("random"), "difference": gap}
    records = []
    for metric in IN_TABLE:
        record: dict[str, object] = {"metric": metric, "paper": (paper or {}).get(metric, np.nan)}
        for side, found in sides.items():
            place = found.loc[metric] if metric in found.index else dict.fromkeys(("value", "low", "high"), np.nan)
            record |= {side: place["value"], f"{side}_low": place["low"], f"{side}_high": place["high"]}
        counted = sides["two_stage"]
        for count in ("n_images", "n_concepts"):
            record[count] = int(counted.loc[metric, count]) if metric in counted.index else 0  # type: ignore[arg-type]
        records.append(record)
    return pd.DataFrame(records)


def for_readers(table: pd.DataFrame) -> pd.DataFrame:
    """`table_2` with its readings in words and every value with its interval, as text."""
    sides = {"two_stage": "two-stage", "random": "random", "difference": "difference"}
    paper = ["–" if np.isnan(value) else f"{value:g}" for value in table["paper"]]
    shown = pd.DataFrame({"reading": table["metric"].map(lambda metric: READINGS[metric].label), "paper": paper})
    for side, words in sides.items():
        bounds = table[[side, f"{side}_low", f"{side}_high"]].itertuples(index=False)
        shown[words] = [interval(*bound) for bound in bounds]
    return shown


def in_words(table: pd.DataFrame) -> dict[str, str]:
    """`table_2` for sentences: 'suppression', 'suppression-random', 'suppression-difference' and so on."""
    words = {}
    for row in table.to_dict("records"):
        for side, suffix in (("two_stage", ""), ("random", "-random"), ("difference", "-difference")):
            value, low, high = (row[f"{side}{end}"] for end in ("", "_low", "_high"))
            spread = "too few pictures for an interval" if np.isnan(low) else f"95 % interval {low:.2f} to {high:.2f}"
            words[f"{row['metric']}{suffix}"] = "not measured" if np.isnan(value) else f"{value:.2f} ({spread})"
    return words


def where_chosen(perturbations: pd.DataFrame, profile: Profile) -> str:
    """The main setting on the pictures that chose the neurons, in a sentence."""
    rows = headline(perturbations, profile, held_out=False)
    if rows.empty:
        return "It was not tried on pictures that chose the neurons"
    found = summarise(rows[rows["method"] == "two-stage"], ["method"]).set_index("metric")
    gap = contrast(rows, "two-stage", "random").set_index("metric")
    ends, n = ["value", "low", "high"], found["n_images"].max()
    suppression, retention, over = (
        interval(*frame.loc[metric, ends].to_numpy(float))
        for frame, metric in ((found, "suppression"), (found, "retention"), (gap, "suppression"))
    )
    return (
        f"On {n} pictures that had chosen the neurons, Sₛₑ is {suppression}, above that of random neurons by {over}, "
        f"and Sᵣₑ is {retention}"
    )


def harder_hit(table: pd.DataFrame) -> str:
    """What two-stage neurons take away more of, the concept or the rest of the caption, in words; from `table_2`."""
    value = table.set_index("metric")["two_stage"]
    concept, rest = value["suppression"], 1 - value["retention"]
    which = "more than" if rest > concept else "less than" if rest < concept else "as much as"
    return f"{rest:.0%} of the other words, {which} the {concept:.0%} of the concepts"


def noise_units(neurons: pd.DataFrame, activation: Mapping[str, np.ndarray], budget: int, sigma: float) -> pd.DataFrame:
    """How large noise of size `sigma` is for the neurons that it is added to: one row a concept and method.

    `activation[concept]` (N, L, D) is the mean of O' over the image tokens of each selection picture. Columns concept,
    method, activation (median over neurons of |mean O'|), change (median over neurons of the largest difference that
    the object makes at a token), sigma_per_activation, sigma_per_change.
    """
    best = neurons[(neurons["rank"] < budget) & (neurons["draw"] == 0)]
    best = best[best["method"].isin(["two-stage", "random"])]
    records = []
    for (concept, method), chosen in best.groupby(["concept", "method"], sort=False):
        mean = activation[str(concept)].mean(axis=0)[chosen["layer"], chosen["unit"]]  # (n,)
        size, change = float(np.median(np.abs(mean))), float(chosen["delta"].median())
        records.append((concept, method, size, change, sigma / size, sigma / change))
    columns = ["concept", "method", "activation", "change", "sigma_per_activation", "sigma_per_change"]
    return pd.DataFrame(records, columns=columns)


def units_for_readers(units: pd.DataFrame) -> pd.DataFrame:
    """`noise_units`, one row a concept: activation at rest and the object's effect, two-stage beside random."""
    names = {"activation": "at rest", "change": "by the object"}
    wide = units.pivot_table(index="concept", columns="method", values=list(names), sort=False)
    shown = {f"{words}, {side}": wide[of, side] for of, words in names.items() for side in ("two-stage", "random")}
    return pd.DataFrame(shown).reset_index()


def units_in_words(units: pd.DataFrame) -> dict[str, str]:
    """`noise_units` for sentences, the median concept's: 'rest-two-stage', ..., and which neurons it disturbs more."""
    ratios = {"rest": "sigma_per_activation", "change": "sigma_per_change"}
    median = units.groupby("method")[list(ratios.values())].median()
    words = {f"{name}-{side}": f"{median.loc[side, of]:.3g}" for name, of in ratios.items() for side in median.index}
    return words | {"disturbed-more": str(median["sigma_per_activation"].idxmax())}
