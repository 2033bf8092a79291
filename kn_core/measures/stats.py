"""Intervals, tests and effect sizes for numbers that come from several images of each of a few concepts.

Values arrive in clusters, one array (n,) a concept, one entry an image. What is estimated is the mean over concepts of
the mean over their images, so that a concept with many images weighs no more than another.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import nct, percentileofscore, permutation_test
from scipy.stats import t as student_t

Ends = tuple[float, float]
SHARE: Ends = (0.0, 1.0)
SIGNED: Ends = (-math.inf, math.inf)  # what has no bounds
GAP: Ends = (-1.0, 1.0)  # of two shares; correlations
LOST: Ends = (-math.inf, 1.0)  # what is lost of a probability, which may also grow


def cluster_interval(clusters: Sequence[np.ndarray], within: Ends | None = None) -> Ends:
    """95 % interval of the mean of the clusters' means, by Student's t over clusters, a concept's images (n,) each.

    How images vary within a concept is in how the concepts' means do. Of nine concepts with 5 or 12 simulated images of
    yes or no each it covers the truth in 93 to 95 % of samples; a bootstrap of the nine means in 89 to 90 % by
    percentiles and 88 to 92 % by BCa, one of concepts and their images in 94 to more than 99 %. With one concept t is
    over its images, so the interval speaks of that concept alone; with fewer than two images it is NaN. Where all
    agree it has no width, however few they are: read n_images beside it. It ends where values can lie:
    `within`, or, where all are in [0, 1], as shares are, there. What is no share, though none of it happens to lie
    below zero, must say so.
    """
    values = clusters[0] if len(clusters) == 1 else np.array([cluster.mean() for cluster in clusters])
    if len(values) < 2:
        return math.nan, math.nan
    shares = all(0 <= cluster.min() <= cluster.max() <= 1 for cluster in clusters)
    ends = within or (SHARE if shares else SIGNED)
    return _students(float(values.mean()), standard_error(values), len(values), ends)


def _students(value: float, error: float, n: int, within: Ends) -> Ends:
    """The 95 % interval of what n > 1 values tell with a standard error, ended where it can lie."""
    half = float(student_t.ppf(0.975, n - 1)) * error
    return max(value - half, within[0]), min(value + half, within[1])


def standard_error(values: np.ndarray) -> float:
    """Of the mean of values (n,), n > 1."""
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def smallest_seen(clusters: Sequence[np.ndarray], power: float = 0.8) -> float:
    """The smallest true mean that `power` of such samples would show: their `cluster_interval` lies above zero.

    `clusters` hold paired differences, one array (n,) a concept, and say how such means scatter. NaN with fewer than
    two concepts.
    """
    if len(clusters) < 2:
        return math.nan
    free, error = len(clusters) - 1, standard_error(np.array([cluster.mean() for cluster in clusters]))
    bound = student_t.ppf(0.975, free)
    return error * float(brentq(lambda shift: nct.sf(bound, free, shift) - power, 0, 20))


@dataclass(frozen=True)
class Estimate:
    """A mean over concepts of the mean over their images, with its 95 % interval; NaN says that there is none."""

    value: float
    low: float
    high: float
    n: int = 0  # images, or concepts where each has one value
    n_concepts: int = 0

    @property
    def ends(self) -> tuple[float, float, float]:
        """value, low, high."""
        return self.value, self.low, self.high


def estimate(
    values: Iterable[float], concepts: Iterable[Hashable] | None = None, *, within: Ends | None = None
) -> Estimate:
    """The mean over concepts of the mean over their images, and its interval (`cluster_interval`).

    `values` (n,) are one an image, NaN where it has none, and `concepts` (n,) says whose it is; without `concepts` each
    value is a concept's own. `within` as there.
    """
    found = pd.Series(list(values), dtype=float)
    whose = pd.Series(range(len(found)) if concepts is None else list(concepts))  # type: ignore[arg-type]
    clusters = [group.to_numpy() for _, group in found.dropna().groupby(whose, sort=False)]
    if not clusters:
        return Estimate(math.nan, math.nan, math.nan)
    mean = float(np.mean([cluster.mean() for cluster in clusters]))
    return Estimate(mean, *cluster_interval(clusters, within), sum(map(len, clusters)), len(clusters))


def left_out(values: np.ndarray, concepts: Sequence[Hashable]) -> np.ndarray:
    """Means over concepts of the means over their images, of all and then without each of n concepts: (1 + n, ...).

    `values` (images, ...) are each image's, NaN where it has none, and `concepts` (images,) say whose it is. Of one
    concept, each of its images is left out in turn.
    """
    whose = np.arange(len(values)) if len(set(concepts)) == 1 else np.asarray(concepts)
    flat = pd.DataFrame(values.reshape(len(values), math.prod(values.shape[1:])))
    means = flat.groupby(whose, sort=False).mean().to_numpy()  # (n, ...)
    there, n = ~np.isnan(means), len(means)
    chosen = np.vstack([np.ones((1, n)), 1 - np.eye(n)])  # (1 + n, n)
    counted = chosen @ there
    found: np.ndarray = chosen @ np.where(there, means, 0.0) / np.where(counted, counted, math.nan)
    return found.reshape(1 + n, *values.shape[1:])


def jackknife(values: np.ndarray, within: Ends) -> tuple[float, float, float]:
    """A function of means with its 95 % interval, by Student's t on the jackknife over concepts: value, low, high.

    `values` (1 + n,) are what it is of each of `left_out`: of all, theta, and without each concept, theta_(i). The
    standard error is sqrt((n - 1) / n sum (theta_(i) - their mean)^2), t has n - 1 degrees of freedom (Tukey 1958;
    Miller 1974; Efron & Tibshirani 1993, ch. 11); of a mean it is `cluster_interval`. The interval is NaN where the
    function is undefined of all or without any one concept, as where a level is no longer reached, and with n < 2.

    Of nine concepts with 2 to 12 simulated images, yes or no under five doses, it covers the truth in 91 to 95 % of
    samples for S_re at a level of S_se, 93 to 95 % for a gap at equal S_se, 94 to 95 % for a difference of harmonic
    means, and 95 to 96 % for a share of means; a bootstrap of the nine concepts by BCa in 85 to 93 %, one of concepts
    and their images by percentiles in 87 to 99 %, with no interval of a level in up to half of the samples.
    """
    value, without = float(values[0]), values[1:]
    n = len(without)
    if n < 2:
        return value, math.nan, math.nan
    return value, *_students(value, math.sqrt((n - 1) * float(without.var())), n, within)


def each_alone(values: Iterable[float]) -> list[np.ndarray]:
    """Clusters of one value each, for intervals and tests over concepts alone."""
    return [np.array([value], float) for value in values]


def paired_permutation(
    differences: Sequence[np.ndarray],
    *,
    draws: int = 9999,
    seed: int = 0,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
) -> float:
    """p value of the mean over concepts of the mean paired difference, by flipping the signs of images.

    `differences` holds one array (n,) a concept, an entry an image's value under one method minus that under another.
    The null hypothesis: an image's two values could as well be exchanged. All 2^images sign patterns are tried where
    these are no more than `draws`; else p = (1 + patterns at least as extreme) / (1 + draws), which is never 0 (Phipson
    & Smyth 2010). Two-sided is twice the smaller tail. NaN with fewer than two images.

    The test speaks of these concepts' images; how far another set of concepts would differ is what `cluster_interval`
    tells. Raises ValueError for a concept without images and for undefined differences.
    """
    values = _pooled(differences)
    if len(values) < 2:
        return math.nan
    weights = np.repeat(
        [1 / (len(differences) * len(of_concept)) for of_concept in differences], list(map(len, differences))
    )

    def statistic(flipped: np.ndarray, axis: int) -> np.ndarray:
        means: np.ndarray = np.moveaxis(flipped, axis, -1) @ weights
        return means

    test = permutation_test(
        (values,),
        statistic,
        permutation_type="samples",  # of one sample: flips signs
        vectorized=True,
        n_resamples=draws,
        batch=1000,
        alternative=alternative,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's adjusted p values (m,), in the order given: step-down, no assumption on dependence (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and none comes below a smaller one's. NaN, a test that could not
    be made, stays NaN and is not counted among the m.
    """
    p = np.asarray(p, dtype=float)
    if np.any((p < 0) | (p > 1)):
        raise ValueError(f"p values must lie in [0, 1]. Got {p.tolist()}.")
    order = np.argsort(p)  # NaN last
    left = np.count_nonzero(~np.isnan(p)) - np.arange(len(p))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(left * p[order]))
    return adjusted


def effect_size(differences: Sequence[np.ndarray]) -> float:
    """Cohen's d_z of paired differences: their mean over their standard deviation (n - 1), all images pooled.

    d_z counts in standard deviations of the difference, not of the values (Cohen 1988, 2.3.5), and every image weighs
    the same. NaN with fewer than two images. Where all images differ by the same amount, that amount is infinitely many
    standard deviations from zero: infinity with its sign, or NaN where it is zero.
    """
    values = _pooled(differences)
    if len(values) < 2:
        return math.nan
    if np.ptp(values) == 0:
        return math.copysign(math.inf, values[0]) if values[0] else math.nan
    return float(values.mean() / values.std(ddof=1))


ENOUGH = 20  # draws that a percentile can be read from


def percentile_among(value: float, draws: Sequence[float]) -> float:
    """Share of control draws (n,) below `value`, ties counted half, in [0, 1]; NaN with fewer than `ENOUGH` draws."""
    return float(percentileofscore(draws, value, kind="mean")) / 100 if len(draws) >= ENOUGH else math.nan


def _pooled(differences: Sequence[np.ndarray]) -> np.ndarray:
    """All images' differences, concept by concept (images,)."""
    if empty := [place for place, values in enumerate(differences) if len(values) == 0]:
        raise ValueError(f"every concept must have an image. Got none for those at {empty}: leave them out.")
    values = np.concatenate([np.empty(0), *differences])
    if undefined := np.count_nonzero(~np.isfinite(values)):
        raise ValueError(f"differences must be finite. Got {undefined} of {len(values)} that are not: leave them out.")
    return values
