"""Means of the metrics over images and concepts, with intervals, and what one method does beside another.

An image's value is the mean over noise seeds (`metrics.per_image`), a concept's the mean over its images, the reported
one the mean over concepts, with a 95 % interval over concepts. Apart from `metrics`, which what is computed and kept
needs: another interval asks for nothing to be computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kn_core.measures.metrics import SETTINGS, one_setting, per_image
from kn_core.measures.stats import GAP, LOST, SIGNED, Ends, cluster_interval

WITHIN = {"suppression_probability": LOST, "selectivity": SIGNED, "log_perplexity": SIGNED}  # no shares


def perplexity_limit(perturbations: pd.DataFrame) -> float:
    """The 95th percentile of clean captions' perplexity: what is above reads worse than almost all of them."""
    clean = perturbations.drop_duplicates("image_id")["clean_perplexity"]
    return float(clean.quantile(0.95))


def main_retention(perturbations: pd.DataFrame) -> str:
    """The reading of S_re that leads: by truth where at least half of the pictures have something true to keep."""
    pictures = perturbations[perturbations["heldout"]].drop_duplicates("image_id")
    return "retention_truth" if pictures["retained_truth"].notna().mean() >= 0.5 else "retention"


def summarise(
    perturbations: pd.DataFrame,
    by: Sequence[str],
    *,
    perplexity_limit: float = math.inf,
) -> pd.DataFrame:
    """The metrics of `per_image` with intervals: columns `by`, metric, value, low, high, n_images, n_concepts.

    `value` is the mean over concepts of the mean over their images: a concept with many images weighs no more.
    """
    return with_intervals(per_image(perturbations, by, perplexity_limit=perplexity_limit), by)


def differences(
    perturbations: pd.DataFrame,
    method: str,
    against: str,
    by: Sequence[str] = (),
    *,
    perplexity_limit: float = math.inf,
) -> pd.DataFrame:
    """`method` minus `against`, image by image on the images that both have; columns as in `per_image`.

    Pairing keeps what makes one image harder than another out of the difference.
    """
    if unknown := {method, against}.difference(perturbations["method"]):
        known = sorted(perturbations["method"].unique())
        raise ValueError(f"method and against must be two of {known}. Got {sorted(unknown)}.")
    if "method" in by:
        raise ValueError("by must not hold 'method', which is what is contrasted.")
    both = perturbations[perturbations["method"].isin([method, against])]
    return paired(per_image(both, ["method", *by], perplexity_limit=perplexity_limit), method, against)


def paired(images: pd.DataFrame, method: str, against: str) -> pd.DataFrame:
    """`differences` of two of the methods of `per_image`, for a caller who has them side by side."""
    ours, theirs = (images[images["method"] == side].drop(columns="method") for side in (method, against))
    found = ours.merge(theirs, on=[*ours.columns.drop("value")], suffixes=("", "_against"))
    found["value"] -= found.pop("value_against")
    return found


def contrast(
    perturbations: pd.DataFrame,
    method: str,
    against: str,
    by: Sequence[str] = (),
    *,
    perplexity_limit: float = math.inf,
) -> pd.DataFrame:
    """`differences` with intervals, columns as in `summarise`. Both methods must have been tried at one setting."""
    one_setting(perturbations[perturbations["method"].isin([method, against])], by, SETTINGS[1:])
    images = differences(perturbations, method, against, by, perplexity_limit=perplexity_limit)
    return with_intervals(images, by, within=GAP)


def with_intervals(images: pd.DataFrame, by: Sequence[str], *, within: Ends | None = None) -> pd.DataFrame:
    """The mean over concepts of the mean over images, with its 95 % interval.

    `within` says where values can lie if these are not the metrics' own: GAP for `differences`, which those of
    metrics that are no shares may leave.
    """
    keys = [*by, "metric"]
    records = []
    for key, group in images.groupby(keys, dropna=False, sort=False):
        clusters = [values.to_numpy(float) for _, values in group.groupby("image_concept")["value"]]
        value = float(np.mean([values.mean() for values in clusters]))
        own = WITHIN.get(str(key[-1]))
        ends = cluster_interval(clusters, SIGNED if within and own else within or own)
        records.append((*key, value, *ends, len(group), len(clusters)))
    return pd.DataFrame.from_records(records, columns=[*keys, "value", "low", "high", "n_images", "n_concepts"])
