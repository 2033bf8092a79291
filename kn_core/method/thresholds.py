"""Thresholds from a null: which neurons answer to the object more than to a decoy, with how many false ones among them.

Letters: N pictures, p neurons, in any shape behind the pictures. d_n is a neuron's score where the object is taken out
of picture n, e_n the same where a decoy is, and x_n = d_n - e_n. Where a neuron does not tell the two apart, x_n is as
likely to be -x_n; so what a rule would keep with the two exchanged says how much of what it keeps is false.

Decoy rule: Barber & Candes 2015 (knockoff+), after He et al. 2018. Sign flips: Tusher, Tibshirani & Chu 2001 (SAM).
Stability: Shah & Samworth 2013. Local false discovery rate: Efron 2004. The others look at d alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import gaussian_kde, norm, t

from kn_core.settings import Rules

Scores = np.ndarray


def matched(d: Scores, e: Scores) -> Scores:
    """e on the scale of d: in each picture the typical neuron, which is nobody's, moves as far in both.

    Pixels that change alike need not move a network alike. The scale is the ratio of the medians of |d_n| and |e_n|.
    """
    axes = tuple(range(1, d.ndim))
    typical = np.median(np.abs(e), axis=axes, keepdims=True)
    ratio = np.median(np.abs(d), axis=axes, keepdims=True) / np.where(typical > 0, typical, 1)
    matched: Scores = e * np.where(typical > 0, ratio, 1)
    return matched


def standardised(x: Scores) -> Scores:
    """x over its standard error plus the median neuron's, so that tiny spreads make no large scores; N >= 2.

    Its mean over pictures is W = mean(x) / (sd(x) / sqrt(N) + s0).
    """
    error = x.std(axis=0, ddof=1) / np.sqrt(len(x))
    spread = error + np.median(error)
    scaled: Scores = x / np.where(spread > 0, spread, 1)
    return scaled


def contrast(x: Scores) -> np.ndarray:
    """W of every neuron: its mean difference in standard errors."""
    w: np.ndarray = standardised(x).mean(axis=0)
    return w


def false_share(kept: float, exchanged: float) -> float:
    """Estimated share of false ones among `kept` neurons, of which `exchanged` would be kept with d and e exchanged."""
    return min(1.0, (1 + exchanged) / max(1.0, kept))


def false_shares(ours: np.ndarray, theirs: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neurons above each threshold, and the estimated share of false ones; `theirs`: with d and e exchanged."""
    above, exchanged = (each.size - np.searchsorted(np.sort(each, None), at, "right") for each in (ours, theirs))
    return above, np.minimum(1, (1 + exchanged) / np.maximum(1, above))


def decoy(w: np.ndarray, q: float) -> float:
    """The smallest T with (1 + #{W <= -T}) / #{W >= T} <= q, and so W > what is returned; infinity where there is none.

    What is returned lies between the smallest |W| that counts and the next.
    """
    rising = np.sort(w, axis=None)
    at = np.unique(np.abs(rising))
    at = at[at > 0]
    above = len(rising) - np.searchsorted(rising, at, "left")
    below = np.searchsorted(rising, -at, "right")
    good = np.flatnonzero((1 + below) <= q * np.maximum(1, above))
    return _just_below(at, at[good[0]]) if len(good) else np.inf


def sign_flips(x: Scores, q: float, flips: int, seed: int) -> float:
    """The smallest W at which the mean count over sign flips is at most q of the count; infinity where there is none.

    A flip turns the signs of whole pictures, all neurons together, so what neurons have in common stays.
    """
    x = x.reshape(len(x), -1).astype(np.float32)
    n, rising = len(x), np.sort(contrast(x))
    at = np.unique(rising[rising > 0])
    at = at[np.unique(np.linspace(0, len(at) - 1, 2000).astype(int))] if len(at) else at
    square, middle = (x**2).sum(axis=0), np.median(x.std(axis=0, ddof=1)) / np.sqrt(n)
    found, rng = np.zeros(len(at)), np.random.default_rng(seed)
    for _ in range(flips):
        mean = rng.choice(np.array([-1, 1], np.float32), n) @ x / n  # and the sum of squares is what it was
        error = np.sqrt(np.maximum(square - n * mean**2, 0) / (n - 1) / n)
        flipped = np.sort(mean / np.maximum(error + middle, 1e-30))
        found += len(flipped) - np.searchsorted(flipped, at, "left")
    kept = len(rising) - np.searchsorted(rising, at, "left")
    good = np.flatnonzero(found / flips <= q * kept)
    return _just_below(rising, at[good[0]]) if len(good) else np.inf


def t_statistic(x: Scores) -> np.ndarray:
    """Mean over standard error, without what W adds to it."""
    error = x.std(axis=0, ddof=1) / np.sqrt(len(x))
    value: np.ndarray = x.mean(axis=0) / np.maximum(error, 1e-30)
    return value


def benjamini_hochberg(statistic: np.ndarray, pictures: int, q: float) -> float:
    """The threshold of a t statistic by Benjamini & Hochberg 1995, one-sided; infinity where none passes."""
    falling = -np.sort(-statistic, axis=None)
    p = t.sf(falling, pictures - 1)
    good = np.flatnonzero(p <= q * np.arange(1, len(p) + 1) / len(p))
    return _just_below(falling[::-1], falling[good[-1]]) if len(good) else np.inf


def local_fdr(statistic: np.ndarray, pictures: int, most: float = 0.2) -> float:
    """The smallest t statistic at which, and above which, the local false discovery rate is at most `most`.

    pi0 f0(z) / f(z): z are the statistics as normal deviates, f0 is the normal density, f that of all neurons, and pi0
    the share of nulls by Storey's estimate at p = .5.
    """
    p = t.sf(np.ravel(statistic), pictures - 1)
    z = norm.isf(np.clip(p, 1e-12, 1 - 1e-12))
    if np.ptp(z) == 0:
        return np.inf
    grid = np.linspace(max(0, z.min()), z.max(), 200)
    rate = min(1.0, 2 * float(np.mean(p > 0.5))) * norm.pdf(grid) / np.maximum(gaussian_kde(z)(grid), 1e-12)
    bad = np.flatnonzero(rate > most)
    first = bad[-1] + 1 if len(bad) else 0
    return float(t.isf(norm.sf(grid[first]), pictures - 1)) if first < len(grid) else np.inf


def stability(x: Scores, best: int, pairs: int, seed: int) -> np.ndarray:
    """How often a neuron is among the `best` by W in halves of the pictures, 0 to 1; `pairs` random pairs of halves.

    Of an odd number of pictures one is left out of each pair. NaN where halves have fewer than two.
    """
    shape, x, half = x.shape[1:], x.reshape(len(x), -1), len(x) // 2
    if half < 2:
        return np.full(shape, np.nan)
    counts, rng = np.zeros(x.shape[1]), np.random.default_rng(seed)
    for _ in range(pairs):
        order = rng.permutation(len(x))
        for chosen in (order[:half], order[half : 2 * half]):
            counts[np.argpartition(-contrast(x[chosen]), min(best, x.shape[1]) - 1)[:best]] += 1
    return (counts / (2 * pairs)).reshape(shape)


def expected_false(best: int, neurons: int, kept: float) -> float:
    """Shah & Samworth's bound on the false ones among neurons that are in a share `kept` > .5 of all halves."""
    return best**2 / ((2 * kept - 1) * neurons)


def share_of_largest(d: np.ndarray, share: float) -> float:
    """A share of the largest score, as Dai et al. 2022 take .2 of it."""
    return share * float(d.max())


def share_of_total(d: np.ndarray, share: float) -> float:
    """The threshold of the smallest set that has so much of the sum of all positive scores."""
    falling = -np.sort(-d[d > 0], axis=None)
    if not len(falling):
        return np.inf
    total = np.cumsum(falling)
    return _just_below(falling[::-1], falling[np.searchsorted(total, share * total[-1] * (1 - 1e-12))])


def elbow(d: np.ndarray) -> float:
    """Where the falling curve of the positive scores is farthest below the line between its ends."""
    falling = -np.sort(-d[d > 0], axis=None)
    if len(falling) < 3 or falling[0] == falling[-1]:
        return np.inf
    line = np.linspace(falling[0], falling[-1], len(falling))
    return _just_below(falling[::-1], falling[np.argmax(line - falling)])


def automatic(x: Scores, settings: Rules, seed: int) -> float:
    """The threshold of W by the decoy rule; where that promises too few false ones at no threshold, by sign flips.

    Sign flips ask for less: neurons that answer *less* to the object than to the decoy do not count against the rest.
    """
    limit = decoy(contrast(x), settings.false_share)
    return limit if limit < np.inf else sign_flips(x, settings.false_share, settings.flips, seed)


@dataclass(frozen=True, eq=False)
class Found:
    """What a rule finds: neurons whose score passes a threshold, and how many would with d and e exchanged."""

    kept: np.ndarray  # (...) bool
    exchanged: int
    no_more: int  # of the kept, those with a mean of d no larger than that of e
    threshold: float  # of `scale`
    scale: str  # 'difference', 'contrast', 't' or 'frequency'

    @property
    def false_share(self) -> float:
        return false_share(int(self.kept.sum()), self.exchanged)


def rules(d: Scores, e: Scores, settings: Rules, quantile: float, seed: int) -> Mapping[str, Found]:
    """What every rule finds; d and e (N, ...) on one scale (`matched`), `quantile` the one that the profile sets."""
    x, n, mean = d - e, len(d), d.mean(axis=0)
    statistic, q = t_statistic(x), settings.false_share

    def stable(x: Scores) -> np.ndarray:
        return stability(x, settings.best, settings.halves, seed)

    score: dict[str, Callable[[Scores, Scores], np.ndarray]] = {
        "difference": lambda one, _: one.mean(axis=0),
        "contrast": lambda one, other: contrast(one - other),
        "t": lambda one, other: t_statistic(one - other),
        "frequency": lambda one, other: stable(one - other),
    }
    limits = {
        "decoy": ("contrast", decoy(contrast(x), q)),
        "sign-flips": ("contrast", sign_flips(x, q, settings.flips, seed)),
        "bh": ("t", benjamini_hochberg(statistic, n, q)),
        "local-fdr": ("t", local_fdr(statistic, n)),
        "stability": ("frequency", settings.stable - 1e-9),
        "quantile": ("difference", float(np.quantile(mean, quantile))),
        "largest": ("difference", share_of_largest(mean, settings.of_largest)),
        "total": ("difference", share_of_total(mean, settings.of_total)),
        "elbow": ("difference", elbow(mean)),
        "raw-low": ("difference", settings.raw[0]),
        "raw-high": ("difference", settings.raw[1]),
    }
    ours, theirs = ({scale: of(*pair) for scale, of in score.items()} for pair in ((d, e), (e, d)))
    return {
        name: Found(
            kept := ours[scale] > limit,
            int((theirs[scale] > limit).sum()),
            int((kept & (x.mean(axis=0) <= 0)).sum()),
            limit,
            scale,
        )
        for name, (scale, limit) in limits.items()
    }


def _just_below(rising: np.ndarray, value: float) -> float:
    """Between a value and the next smaller of `rising`, so that rounding changes no set; below all, half of it."""
    below = np.searchsorted(rising, value, "left")
    return float(value + rising[below - 1]) / 2 if below else float(value - abs(value) / 2 - 1e-30)
