"""Methods at equal suppression, on curves whose crossings can be read off."""

from __future__ import annotations

import numpy as np
import pytest

from kn_core.measures.matched import at_level, dose_at_level, over_doses
from kn_core.measures.stats import SHARE, jackknife

CURVE = np.array([[0.0, 1.0], [0.4, 0.8], [0.8, 0.2]])


@pytest.mark.parametrize(
    ("level", "kept", "dose"), [(0.0, 1.0, 0.0), (0.2, 0.9, 1.5), (0.4, 0.8, 3.0), (0.6, 0.5, 4.0), (0.8, 0.2, 5.0)]
)
def test_retention_lies_on_the_line_between_the_doses_around_the_level(level, kept, dose):
    assert at_level(CURVE, level) == pytest.approx(kept)
    assert dose_at_level(CURVE, [0, 3, 5], level) == pytest.approx(dose)


def test_a_level_that_no_dose_reaches_has_no_retention():
    assert np.isnan(at_level(CURVE, 0.9)) and np.isnan(dose_at_level(CURVE, [0, 3, 5], 0.9))
    assert at_level(np.stack([CURVE, CURVE]), np.array([0.6, 0.9])) == pytest.approx([0.5, np.nan], nan_ok=True)


def test_the_first_crossing_counts_where_a_curve_turns_back():
    turning = np.array([[0.0, 1.0], [0.6, 0.6], [0.5, 0.4], [0.9, 0.1]])
    assert at_level(turning, 0.55) == pytest.approx(1 - 0.4 * 0.55 / 0.6)


def test_a_curve_starts_where_nothing_is_done_and_is_without_each_concept_too():
    ours = np.array([[[0.0, 1.0], [1.0, 0.5]], [[1.0, np.nan], [1.0, np.nan]], [[1.0, 0.5], [1.0, 0.0]]])
    found = over_doses(ours, ["bear", "bear", "bus"])
    bear, bus = [[0.5, 1.0], [1.0, 0.5]], [[1.0, 0.5], [1.0, 0.0]]
    assert (found[:, 0] == [0, 1]).all()
    assert found[:, 1:].tolist() == [np.mean([bear, bus], axis=0).tolist(), bus, bear]


def test_an_interval_covers_the_truth_and_is_none_where_a_level_is_not_reached_without_a_concept():
    """Nine concepts of six pictures whose names and other words go the sooner the easier a concept is."""
    rng, ends = np.random.default_rng(0), np.array([[-1.6, -2.2], [-0.5, -1.2], [0.5, -0.3], [1.5, 0.7], [2.6, 1.6]])

    def pictures(concepts: int) -> np.ndarray:
        ease = rng.normal(size=(concepts, 1, 1, 2)) + rng.normal(size=(concepts, 6, 1, 2))
        return (ease + rng.logistic(scale=0.6, size=(concepts, 6, 5, 2)) < ends) ^ np.array([False, True])

    truth, held = at_level(pictures(30_000).mean(axis=(0, 1)), 0.6), []
    for _ in range(600):
        kept = at_level(over_doses(pictures(9).reshape(-1, 5, 2).astype(float), [*np.repeat(np.arange(9), 6)]), 0.6)
        _, low, high = jackknife(kept, SHARE)
        held.append(low <= truth <= high)
    assert 0.91 <= np.mean(held) <= 0.97  # 0.89 with the normal distribution in place of t
    names = np.array([1.0] + [0.0] * 8)[:, None, None] * [[1.0, 0.0]]
    found = at_level(over_doses(names, list(range(9))), 1 / 9)
    assert found[0] == 0 and np.isnan(jackknife(found, SHARE)[1:]).all()  # one concept alone reaches it
