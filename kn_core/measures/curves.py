"""Faithfulness curves: how much of a logit difference a set of neurons carries, over the set's size (MIB, 2504.13151).

m(C) is the mean y with every neuron outside the set C as it would be without the object, m(M) with nothing patched,
m(0) with all patched, m(x_i) that of the picture without the object. Means come first, then the ratio: the ratio of
single pictures has no bound where a picture's denominator is small.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest


def share(part: ArrayLike, none: ArrayLike, whole: ArrayLike) -> np.ndarray:
    """(part - none) / (whole - none): what `part` has of the way from `none` to `whole`. NaN where there is no way.

    Faithfulness f(C) is share(m(C), m(0), m(M)), wanted 1; completeness share(m(M without C), m(0), m(M)), wanted 0;
    the FFN share share(m(0), m(M), m(x_i)).
    """
    part, none, whole = (np.asarray(each, float) for each in (part, none, whole))
    way = whole - none
    nothing = np.full(np.broadcast_shapes(part.shape, way.shape), np.nan)
    found: np.ndarray = np.divide(part - none, way, out=nothing, where=way != 0)
    return found


def area(sizes: ArrayLike, values: ArrayLike, *, log: bool = False) -> np.ndarray:
    """Trapezoid of `values` (..., K) over sizes (K,), or over their logarithm, divided by the range: a mean value."""
    x = np.log(sizes) if log else np.asarray(sizes, float)
    return np.asarray(np.trapezoid(np.asarray(values, float), x, axis=-1) / (x[-1] - x[0]))


def cpr(sizes: ArrayLike, faithfulness: ArrayLike, *, log: bool = False) -> np.ndarray:
    """Area under a faithfulness curve: the more the better."""
    return area(sizes, faithfulness, log=log)


def cmd(sizes: ArrayLike, faithfulness: ArrayLike, *, log: bool = False) -> np.ndarray:
    """Area between a faithfulness curve and 1: the less the better."""
    return area(sizes, np.abs(1 - np.asarray(faithfulness, float)), log=log)


def beats(ours: float, random: ArrayLike) -> tuple[float, float]:
    """Share of random sets (n,) whose value ours exceeds, and the p-value that this is half of them or fewer.

    A binomial test, as Shi et al. 2024 (2410.13032) hold a circuit against random ones.
    """
    drawn = np.asarray(random, float)
    wins = int((ours > drawn).sum())
    return wins / len(drawn), float(binomtest(wins, len(drawn), 0.5, alternative="greater").pvalue)
