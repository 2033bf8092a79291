"""Methods at equal suppression: what each keeps where it suppresses as much as another, by interpolation over doses.

At one noise the method that is disturbed more suppresses more and keeps less: its point says where on a curve it was
caught. So S_re is read where S_se reaches a level, on the straight line between the doses on either side; at dose 0
nothing is suppressed and everything kept. A level that no dose reaches has no S_re: NaN.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from kn_core.measures.stats import left_out


def over_doses(values: np.ndarray, concepts: Sequence[Hashable]) -> np.ndarray:
    """A method's curve, of all and without each of n concepts: (1 + n, 1 + d, 2).

    `values` (images, d, 2) are of each image at each of d rising doses S_se and S_re (NaN: it has none), `concepts`
    (images,) say whose it is: `stats.left_out`, after dose 0.
    """
    means = left_out(values, concepts)
    nothing = np.broadcast_to([0.0, 1.0], (len(means), 1, 2))
    return np.concatenate([nothing, means], axis=1)


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
