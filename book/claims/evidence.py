"""What a run says of the paper's claims: tidy frames in, one `Measurement` a statistic of `paper/claims.yml` out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from book.claims.rules import Measurement
from book.style import methods_of
from kn_core.measures.metrics import headline
from kn_core.measures.stats import estimate
from kn_core.measures.summaries import contrast, main_retention, perplexity_limit, summarise
from kn_core.profile import Profile

RIVALS = methods_of("rival")  # methods of others; single stages are the paper's own
PAPER_A = (0.8, 2.5)  # threshold_a in the paper's Table IV, as the digest gives its range
PAPER_G = (1e-4, 2e-3)  # threshold_g


def pair_counts(pairs: pd.DataFrame) -> list[Measurement]:
    """How many concepts have kept pairs, and how many of these are used."""
    kept = pairs[pairs["kept"]]
    return [_count("concepts", kept["concept"].nunique()), _count("pairs", int((kept["role"] != "").sum()))]


def in_range(thresholds: Mapping[str, Mapping[str, float]]) -> list[Measurement]:
    """Share of concepts whose thresholds lie where the paper's do."""
    found = []
    for name, stage, (low, high) in (("activation", "delta", PAPER_A), ("gradient", "gradcam", PAPER_G)):
        inside = float(np.mean([low <= values[stage] <= high for values in thresholds.values()]))
        found.append(Measurement(f"{name}_thresholds_in_range", inside, inside, inside, len(thresholds)))
    return found


def late_share(neurons: pd.DataFrame, n_layers: int, budget: int | None = None) -> Measurement:
    """Share of each concept's neurons in the upper two thirds of the layers; control: uniformly drawn ones.

    Of all that pass both stages, which is what the paper's Figure 2 shows, or of the `budget` best of them.
    """
    kept = neurons[(neurons["method"] == "two-stage") & (neurons["rank"] < (budget or math.inf))]
    late = (kept["layer"] >= n_layers / 3).groupby(kept["concept"]).mean()
    uniform, found = float(np.mean(np.arange(n_layers) >= n_layers / 3)), estimate(late)
    return Measurement("late_share_of_best" if budget else "late_share", *found.ends, found.n, uniform)


def effects(perturbations: pd.DataFrame, profile: Profile) -> list[Measurement]:
    """What the main setting does to captions, beside its controls."""
    rows, limit = headline(perturbations, profile), perplexity_limit(perturbations)
    both = summarise(rows, ["method"], perplexity_limit=limit).set_index(["method", "metric"])
    control = _measurement("control", both, ("random", "suppression_fluent")).value
    return [
        _measurement("suppression_fluent", both, ("two-stage", "suppression_fluent"), control),
        _measurement("fluent", both, ("two-stage", "fluent")),
        _concepts_suppressed(rows, limit),
    ]


def of_stages(rows: pd.DataFrame, limit: float) -> list[Measurement]:
    """The main setting against single stages, and how the captions of a rival read, as far as `rows` hold them.

    `rows` are `headline` rows.
    """
    there = set(rows["method"])
    found = []
    if "stage-1" in there:
        gain = contrast(rows, "two-stage", "stage-1", perplexity_limit=limit).set_index("metric")
        found.append(_measurement("stage2_retention_gain", gain, main_retention(rows)))
    if {"stage-1", "stage-1-layers"} <= there:
        over = contrast(rows, "stage-1", "stage-1-layers", perplexity_limit=limit).set_index("metric")
        found.append(_measurement("stage1_suppression_over_control", over, "suppression"))
    if "schwettmann" in there:
        fluent = summarise(rows[rows["method"] == "schwettmann"], ["method"], perplexity_limit=limit)
        share = _measurement("fluent", fluent.set_index("metric"), "fluent")
        found.append(Measurement("degenerate_schwettmann", 1 - share.value, 1 - share.high, 1 - share.low, share.n))
    return found


def _concepts_suppressed(rows: pd.DataFrame, limit: float) -> Measurement:
    """Share of concepts on which two-stage neurons suppress more than the control; control: with the two exchanged.

    The interval is over concepts.
    """
    by = summarise(rows, ["method", "concept"], perplexity_limit=limit).query("metric == 'suppression'")
    ours, control = (by[by["method"] == method].set_index("concept") for method in ("two-stage", "random"))
    cleared, exchanged = estimate(ours["low"] > control["value"]), float((control["low"] > ours["value"]).mean())
    return Measurement("concepts_suppressed", *cleared.ends, cleared.n, exchanged)


def _measurement(name: str, frame: pd.DataFrame, key: Any, baseline: float | None = None) -> Measurement:
    if key not in frame.index:
        return Measurement(name, math.nan, math.nan, math.nan, 0, baseline)
    row = frame.loc[key]
    return Measurement(name, float(row["value"]), float(row["low"]), float(row["high"]), int(row["n_images"]), baseline)


def _count(name: str, count: int) -> Measurement:
    return Measurement(name, count, count, count, count)
