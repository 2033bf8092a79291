"""Where an object lies on the grid of image tokens: shares of cells, and which tokens look at it."""

import numpy as np
from scipy.sparse import csr_array

ROUNDING = 1e-9  # of a cell: what is exactly half, or equal, is taken for it


def cells(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The share of each cell that the mask fills: (h, w) bool -> (rows, columns) float64 in [0, 1].

    Exact areas: a cell's edge that cuts through a pixel splits it. That the model squashes a picture to a square before
    it cuts it into cells does not change the shares.
    """
    rows, columns = (_overlap(cell_count, pixels) for cell_count, pixels in zip(grid, mask.shape, strict=True))
    shares: np.ndarray = np.clip((rows @ mask @ columns.T) * (grid[0] * grid[1] / mask.size), 0, 1)
    return shares


def inside(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The cells that the object at least half fills or, where there is none, the one that it fills most.

    (h, w) bool -> (rows, columns) bool, at least one of them True; in a tie, more. Raises ValueError for an empty mask.
    """
    if not mask.any():
        raise ValueError("mask must hold at least one pixel of the object. Got none.")
    shares = cells(mask, grid)
    found: np.ndarray = shares >= min(0.5, shares.max()) - ROUNDING
    return found


def tokens_inside(mask: np.ndarray, grid: tuple[int, int], maps: np.ndarray) -> np.ndarray:
    """The image tokens that look at the object: (h, w) bool and the tokens' `maps` (P, rows * columns) -> (P,) bool.

    Those with half of their map or more on cells `inside` the object or, where there is none, the one with most; where
    token p is cell p, those of these cells. At least one of them is True.
    """
    shares = maps @ inside(mask, grid).ravel()
    found: np.ndarray = shares >= min(0.5, shares.max()) - ROUNDING
    return found


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask at another size (rows, columns), bool: a pixel is set where the object fills at least half of it.

    The geometry is that of the model's bicubic resizing of whole pictures; the object keeps its area. Bicubic itself
    has negative lobes: at a threshold it would carve and fatten thin parts of a mask.
    """
    return cells(mask, size) >= 0.5 - ROUNDING


def _overlap(n_cells: int, n_pixels: int) -> csr_array:
    """(n_cells, n_pixels), sparse: how much of each pixel, along one axis, lies in each cell. Columns sum to 1."""
    # Between two neighbouring cuts lies a part of one cell and one pixel.
    cuts = np.union1d(np.arange(n_pixels + 1), np.linspace(0, n_pixels, n_cells + 1))
    middle = (cuts[:-1] + cuts[1:]) / 2
    cell, pixel = (middle * (n_cells / n_pixels)).astype(int), middle.astype(int)
    return csr_array((np.diff(cuts), (cell, pixel)), shape=(n_cells, n_pixels))
