"""Where in the picture neurons answer, on the model's own grid of image tokens, and how well that lies on the object.

`heat` is a map and `share` the part of each cell that the object fills (`token_grid.cells`), both (rows, columns). The
object's cells are those that it fills by half or more.

Every reading is NaN for a map without a positive cell, which points nowhere; the first two also for an object that
half-fills no cell, which nothing can hit. NaN says that the picture does not count, not that the map missed.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from kn_core.method.two_stages import NeuronSet


def heatmap(score: Tensor, neurons: NeuronSet, grid: tuple[int, int], maps: Tensor | None = None) -> np.ndarray:
    """Where in the picture the neurons answer: the mean of their scores (L, P, D) at each image token, (rows, columns).

    `grid` is the model's own, `CaptionModel.grid`: MiniGPT-4's tokens are strips, 16 rows of 4, not squares. `maps`
    (P, rows * columns), `CaptionModel.token_maps` of the picture, says where each token looks, and the map is the sum
    of these maps weighed by the tokens' scores; without it token p is cell p.
    """
    n_tokens, n_cells = score.shape[1], grid[0] * grid[1]
    if maps is None and n_cells != n_tokens:
        raise ValueError(f"grid must hold the score's {n_tokens} image tokens. Got {grid[0]} x {grid[1]}.")
    if maps is not None and maps.shape != (n_tokens, n_cells):
        raise ValueError(f"maps must have shape (P, rows * columns)={(n_tokens, n_cells)}. Got {tuple(maps.shape)}.")
    if not len(neurons):
        raise ValueError(f"a heatmap needs at least one neuron. Got none of '{neurons.concept}'.")
    mean: np.ndarray = score.numpy()[neurons.layers, :, neurons.units].mean(axis=0)  # (P,)
    on_cells: np.ndarray = mean if maps is None else mean @ maps.numpy()
    return on_cells.reshape(grid)


def localise(heat: np.ndarray, share: np.ndarray) -> dict[str, float]:
    """All three readings: `iou`, `pointing` and `inside`."""
    return {
        "iou": iou(heat, share),
        "pointing": pointing_game(heat, share),
        "inside": mass_on_object(heat, share),
    }


def iou(heat: np.ndarray, share: np.ndarray, percentile: float = 95) -> float:
    """Intersection over union of the map's hottest cells, those from its `percentile` up, and the object's cells.

    Pan et al. 2024 cut at the 95th. That leaves the 4 hottest of 64 cells, on the 8 x 8 and the 16 x 4 grid alike (more
    where cells tie, fewer where fewer are positive): for an object of n > 4 cells the best map reaches 4 / n. Compare
    maps on the same pictures only.
    """
    on_object = _cells_of(heat, share)
    if not (heat > 0).any() or not on_object.any():
        return math.nan
    hot = (heat >= np.percentile(heat, percentile)) & (heat > 0)
    return float((hot & on_object).sum() / (hot | on_object).sum())


def pointing_game(heat: np.ndarray, share: np.ndarray) -> float:
    """1 where the hottest cell is the object's, 0 where it is not (Zhang et al. 2018, without tolerance).

    Where several cells are hottest, the share of them that are the object's.
    """
    on_object = _cells_of(heat, share)
    if not (heat > 0).any() or not on_object.any():
        return math.nan
    return float(on_object[heat == heat.max()].mean())


def mass_on_object(heat: np.ndarray, share: np.ndarray) -> float:
    """The map's positive heat on the object over all of it; a cell that the object fills in part counts in part."""
    _cells_of(heat, share)
    positive = heat.clip(0)
    return float((positive * share).sum() / positive.sum()) if positive.any() else math.nan


def _cells_of(heat: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The object's cells, (rows, columns) bool."""
    if heat.shape != share.shape:
        raise ValueError(f"share must have the heatmap's shape {heat.shape}. Got {share.shape}.")
    on_object: np.ndarray = share >= 0.5 - 1e-9  # exact halves belong to it, whatever the rounding
    return on_object
