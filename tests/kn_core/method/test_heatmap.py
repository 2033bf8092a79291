"""Heatmaps against masks, on grids small enough to count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kn_core.method.heatmap import iou, localise, mass_on_object, pointing_game

SHARE = np.array([[1.0, 0.5], [0.25, 0.0]])  # the object fills the first cell, half the second, a quarter of the third


@pytest.mark.parametrize(
    ("heat", "pointing", "inside"),
    [
        ([[4.0, 0.0], [0.0, 0.0]], 1.0, 1.0),
        ([[0.0, 4.0], [0.0, -9.0]], 1.0, 0.5),  # half a cell counts in half; what is negative does not count
        ([[0.0, 0.0], [4.0, 4.0]], 0.0, 0.125),
        ([[4.0, 0.0], [4.0, 0.0]], 0.5, 0.625),  # two are hottest, one is the object's
    ],
)
def test_where_the_map_points_and_lies(heat, pointing, inside):
    assert pointing_game(np.array(heat), SHARE) == pointing
    assert mass_on_object(np.array(heat), SHARE) == pytest.approx(inside)


def test_iou_of_the_hottest_cells():
    heat = np.arange(64.0).reshape(8, 8)  # above the 95th percentile: the last four cells
    share = np.zeros((8, 8))
    share[7, 4:] = 1
    assert iou(heat, share) == 1.0
    share[6] = 1  # twelve cells: the best that four can reach is a third
    assert iou(heat, share) == pytest.approx(4 / 12)
    assert iou(heat, np.eye(8)) == pytest.approx(1 / 11)


def test_what_cannot_be_read_is_nan():
    nowhere, small = -np.ones((2, 2)), np.full((2, 2), 0.1)
    assert all(math.isnan(value) for value in localise(nowhere, SHARE).values())
    found = localise(np.ones((2, 2)), small)
    assert math.isnan(found["iou"])
    assert math.isnan(found["pointing"])
    assert found["inside"] == pytest.approx(0.1)
    with pytest.raises(ValueError, match="share must have the heatmap's shape"):
        iou(np.ones((2, 2)), np.ones((4, 1)))
