"""What interventions did, as the book's tables and curves show it: a study's frames in, tidy frames out.

`evidence` decides claims from the same rows; here they are laid out for a reader: sweeps around the main setting, the
readings of Table II side by side, what the noise is in the neurons' own units.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from book.claims.rules import load_claims
from book.perturbation import references
from book.stages.neurons import shared
from book.style import READINGS
from book.words import compared_with_zero, interval, spread
from kn_core.measures.metrics import TEXT, headline
from kn_core.measures.summaries import contrast, main_retention, perplexity_limit, summarise
from kn_core.profile import Profile
from kn_core.study.study import Study

Over = Literal["n", "sigma", "intervention", "positions"]
ENDS = ["value", "low", "high"]
OF = {"retention": "the other content words", "retention_truth": "what else the clean caption truly names"}
READ_BY = {"retention": "by words", "retention_truth": "of what is true"}  # readings of S_re in sentences
SIDES = {"two_stage": "two-stage", "random": "random", "difference": "difference"}  # column -> heading


def harmonic_mean(suppression: pd.Series, retention: pd.Series) -> pd.Series:
    """2 S_se S_re / (S_se + S_re): 0 for gibberish and for noise that does nothing; NaN where either is."""
    total = suppression + retention
    return (2 * suppression * retention / total).mask(total == 0, 0.0)


def printed() -> dict[str, float]:
    """The paper's two numbers: its Table II, mean over its nine concepts."""
    return {claim.id: float(claim.paper) for claim in load_claims() if claim.id in ("suppression", "retention")}


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
    """`summaries.summarise` of a sweep: columns method, `over`, metric, value, low, high, n_images, n_concepts."""
    rows = sweep(perturbations, profile, over, methods)
    return summarise(rows, ["method", over], perplexity_limit=perplexity_limit(perturbations)).sort_values(
        ["method", "metric", over], ignore_index=True
    )


def bounds(
    perturbations: pd.DataFrame, profile: Profile, over: Over, methods: Sequence[str] = ("two-stage", "random")
) -> pd.DataFrame:
    """`references.bounds` of the pictures of a `curve`."""
    images = set(sweep(perturbations, profile, over, methods)["image_id"])
    return references.bounds(perturbations, perplexity_limit(perturbations), images)


def ranges(curve: pd.DataFrame) -> dict[str, str]:
    """Between which ends each method's suppression lies over the doses of a `curve`: 'range-two-stage' and so on."""
    values = curve[curve["metric"] == "suppression"].groupby("method")["value"]
    return {f"range-{method}": f"{of.min():.0%} to {of.max():.0%}" for method, of in values}


def by_concept(perturbations: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The main setting, concept by concept: columns method, concept, metric, value, low, high, n_images, n_concepts."""
    rows = headline(perturbations, profile)
    rows = rows[rows["method"].isin(["two-stage", "random"])]
    return summarise(rows, ["method", "concept"], perplexity_limit=perplexity_limit(perturbations))


def against_random(perturbations: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Every reading of the main setting: two-stage neurons, the control, and the difference, image by image.

    Columns metric, paper (NaN where it prints none), for each of `SIDES` its value, low and high, then n_images,
    n_concepts. Held-out pictures, mean over concepts, all seeds.
    """
    rows, limit = headline(perturbations, profile), perplexity_limit(perturbations)
    both = summarise(rows, ["method"], perplexity_limit=limit).set_index(["method", "metric"])
    gap = contrast(rows, "two-stage", "random", perplexity_limit=limit).set_index("metric")
    metrics = [metric for metric in READINGS if metric not in TEXT]
    paper = pd.Series(printed()).rename({"retention": main_retention(perturbations)})  # of what, it does not say
    table = pd.DataFrame({"paper": paper.reindex(metrics)}).rename_axis("metric")
    for side, found in zip(SIDES, (both.xs("two-stage"), both.xs("random"), gap), strict=True):
        table[[side, f"{side}_low", f"{side}_high"]] = found.reindex(metrics)[ENDS]
    counts = both.xs("two-stage")[["n_images", "n_concepts"]].reindex(metrics, fill_value=0)
    return table.join(counts).reset_index()


def _ends(row: Mapping[Hashable, Any], side: str) -> tuple[float, float, float]:
    return row[side], row[f"{side}_low"], row[f"{side}_high"]


def for_readers(table: pd.DataFrame, bounds: pd.DataFrame | None = None) -> pd.DataFrame:
    """`against_random` with its readings in words and every value with its interval, as text.

    `bounds` of the same pictures (`references.bounds`) are its last columns.
    """
    shown = []
    for row in table.to_dict("records"):
        paper = "–" if np.isnan(row["paper"]) else f"{row['paper']:g}"
        sides = {heading: interval(*_ends(row, side)) for side, heading in SIDES.items()}
        shown.append({"reading": READINGS[row["metric"]].label, "paper": paper, **sides})
    found = pd.DataFrame(shown)
    if bounds is None:
        return found
    return found.join(references.beside(bounds, table["metric"].tolist()).reset_index(drop=True))


def in_words(table: pd.DataFrame, kept: str) -> dict[str, str]:
    """`against_random` for sentences: 'suppression', 'suppression-random', 'suppression-difference' and so on.

    'retained' is the reading of S_re that leads, `kept`, and 'retained-of' what it is of.
    'clear', 'clear-probability' and 'clear-selectivity' say how the two differences and the selectivity compare with
    zero, 'harder-hit' what two-stage neurons take away more of, the concept or the rest of the caption.
    """
    words, rows = {}, {row["metric"]: row for row in table.to_dict("records")}
    for metric, row in rows.items():
        for side, suffix in zip(SIDES, ("", "-random", "-difference"), strict=True):
            words[f"{metric}{suffix}"] = spread(*_ends(row, side))
    words |= {f"retained{suffix}": words[f"{kept}{suffix}"] for suffix in ("", "-random")}
    words["retained-of"] = OF[kept]
    suppression = rows["suppression"]
    words |= {"pictures": str(suppression["n_images"]), "concepts": str(suppression["n_concepts"])}
    words |= {f"paper-{metric}": f"{value:g}" for metric, value in printed().items()}
    for name, metric, side in (
        ("clear", "suppression", "difference"),
        ("clear-probability", "suppression_probability", "difference"),
        ("clear-selectivity", "selectivity", "two_stage"),
    ):
        words[name] = compared_with_zero(*_ends(rows[metric], side)[1:])
    concept, rest = suppression["two_stage"], 1 - rows[kept]["two_stage"]
    which = "more than" if rest > concept else "less than" if rest < concept else "as much as"
    return words | {"harder-hit": f"{rest:.0%} of {OF[kept]}, {which} the {concept:.0%} of the concepts"}


def neurons_in_words(study: Study, concepts: Sequence[str]) -> dict[str, str]:
    """How many of a concept's best neurons are another concept's too, the median; how many pass both stages at all."""
    neurons, n_neurons = study.neurons(), study.pooled(concepts[0])["delta"].size
    common = shared(neurons, study.profile.identification.budget, n_neurons).set_index("concept").loc[list(concepts)]
    two_stage = neurons[(neurons["method"] == "two-stage") & neurons["concept"].isin(concepts)]
    sizes, median = two_stage.groupby("concept").size(), common.median(numeric_only=True)
    return {
        "another": f"{median['of another concept']:g}",
        "every": f"{median['of every concept']:g}",
        "smallest": f"{sizes.min():,}",
        "largest": f"{sizes.max():,}",
    }


def where_chosen(perturbations: pd.DataFrame, profile: Profile) -> str:
    """The main setting on the pictures that chose the neurons, in a sentence."""
    rows = headline(perturbations, profile, held_out=False)
    if rows.empty:
        return "It was not tried on pictures that chose the neurons"
    found = summarise(rows[rows["method"] == "two-stage"], ["method"]).set_index("metric")
    gap = contrast(rows, "two-stage", "random").set_index("metric")
    suppression, retention, over = (
        interval(*frame.loc[metric, ENDS].to_numpy(float))
        for frame, metric in ((found, "suppression"), (found, main_retention(perturbations)), (gap, "suppression"))
    )
    seen = f"On {found['n_images'].max()} pictures that had chosen the neurons"
    return f"{seen}, suppression is {suppression} (less that of random neurons {over}), and retention is {retention}"


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
