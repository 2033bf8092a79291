"""Methods at equal suppression: what each keeps where it suppresses as much as another, by interpolation over doses.

At one noise the method that is disturbed more suppresses more and keeps less: its point says where on a curve it was
caught. So S_re is read where S_se reaches a level, on the straight line between the doses on either side; at dose 0
nothing is suppressed and everything kept. A level that no dose reaches has no S_re: NaN.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from kn_core.measures.stats import Estimate

DRAWS = 1000


def resampled(
    curves: Mapping[str, np.ndarray], concepts: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Every method's curve, of the sample itself and of resampled ones: (1 + draws, 1 + d, 2) each.

    `curves` by method are (n, d, 2): of each picture at each of d rising doses S_se and S_re (NaN: it has none), of the
    same n pictures for all; `concepts` (n,) are theirs. A curve is the mean over concepts of the mean over pictures,
    after dose 0. A draw takes concepts and their pictures with replacement, the same for every method.
    """
    names, whose = list(curves), np.asarray(concepts)
    sizes = [curves[name].shape[1] for name in names]
    values = np.concatenate([curves[name] for name in names], axis=1)  # (n, all doses, 2)
    clusters = [values[whose == concept] for concept in dict.fromkeys(concepts)]
    rng, total = np.random.default_rng(seed), np.zeros((1 + draws, *values.shape[1:]))
    counted = np.zeros_like(total)
    for place in range(len(clusters)):
        drawn = np.concatenate([[place], rng.integers(len(clusters), size=draws)])
        for concept, cluster in enumerate(clusters):
            here = np.flatnonzero(drawn == concept)
            picked = rng.integers(len(cluster), size=(len(here), len(cluster)))
            if concept == place:
                picked[0] = np.arange(len(cluster))  # the sample itself
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a concept without any retention
                means = np.nanmean(cluster[picked], axis=1)
            total[here] += np.nan_to_num(means)
            counted[here] += ~np.isnan(means)
    means = total / np.where(counted, counted, np.nan)
    nothing = np.broadcast_to([0.0, 1.0], (1 + draws, 1, 2))
    parts = np.split(means, np.cumsum(sizes)[:-1], axis=1)
    return {name: np.concatenate([nothing, part], axis=1) for name, part in zip(names, parts, strict=True)}


def at_level(curve: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    """S_re where S_se first reaches the level: curves (..., d, 2) over rising doses -> (...,); NaN where none does.

    >>> at_level(np.array([[0.0, 1.0], [0.4, 0.8], [0.8, 0.2]]), 0.6)
    array(0.5)
    """
    place, share = _crossing(curve, level)
    before, after = (np.take_along_axis(curve[..., 1], at[..., None], -1)[..., 0] for at in (place - 1, place))
    found: np.ndarray = before + share * (after - before)
    return found


def dose_at_level(curve: np.ndarray, doses: Sequence[float], level: np.ndarray | float) -> np.ndarray:
    """The dose at which S_se first reaches the level; `doses` (d,) are the curve's, 0 the first."""
    place, share = _crossing(curve, level)
    steps = np.asarray(doses, float)
    found: np.ndarray = steps[place - 1] + share * (steps[place] - steps[place - 1])
    return found


def _crossing(curve: np.ndarray, level: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """The first dose that reaches the level, and how far towards it from the one before; NaN where none does."""
    reached = curve[..., 0] >= np.asarray(level)[..., None]
    place = np.maximum(reached.argmax(-1), 1)
    below, above = (np.take_along_axis(curve[..., 0], at[..., None], -1)[..., 0] for at in (place - 1, place))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip((level - below) / (above - below), 0, 1)
    return place, np.where(reached.any(-1), share, np.nan)


def told(values: np.ndarray, n: int, n_concepts: int) -> Estimate:
    """The sample's value and the 95 % interval of the resampled ones (1 + draws,).

    An interval of what is undefined in more than one draw of twenty, as its level is not reached, is none.
    """
    drawn = values[1:]
    if np.isnan(values[0]) or np.isnan(drawn).mean() > 0.05:
        return Estimate(float(values[0]), np.nan, np.nan, n, n_concepts)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Estimate(float(values[0]), float(low), float(high), n, n_concepts)
