"""Faithfulness curves by hand: shares of a way, areas over sizes, means before ratios, random sets."""

from __future__ import annotations

import numpy as np
import pytest

from kn_core.measures.curves import area, beats, cmd, cpr, share
from kn_core.measures.stats import left_out


def test_what_a_part_has_of_the_way():
    assert share([2, 6, 10], 2, 10) == pytest.approx([0, 0.5, 1])
    assert share(4, 10, 2) == pytest.approx(0.75)  # the FFN share: 6 of the 8 that the object gives
    assert np.isnan(share(1, 3, 3))


def test_areas_are_mean_values_over_sizes_or_their_logarithm():
    sizes, curve = [0.01, 0.1, 1], [0, 0.5, 1.5]
    assert area(sizes, curve) == pytest.approx((0.09 * 0.25 + 0.9 * 1.0) / 0.99)
    assert cpr(sizes, curve, log=True) == pytest.approx((0.25 + 1.0) / 2)
    assert cmd(sizes, curve, log=True) == pytest.approx((0.75 + 0.5) / 2)  # |1 - f|: 1, .5, .5
    assert (cpr(sizes, np.ones((2, 3))).tolist(), cmd(sizes, np.ones(3))) == ([1, 1], 0)


def test_means_come_before_the_ratio():
    """One picture's denominator is nearly zero: its own ratio says nothing, and the ratio of means hardly moves."""
    values = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 0.001]])
    means = left_out(values, ["bear", "bear", "bus"])
    assert share(means[:, 0], 0, means[:, 1]) == pytest.approx([1 / 1.0005, 1000, 1 / 2])  # concepts weigh alike


def test_a_set_against_random_ones():
    won, p = beats(1.0, [0.1, 0.2, 0.3, 1.2])
    assert (won, p) == (0.75, pytest.approx(5 / 16))  # 3 or 4 of 4 coins
    assert beats(1.0, np.zeros(10))[1] == pytest.approx(2**-10)
