"""Methods at equal suppression, on curves whose crossings can be read off."""

from __future__ import annotations

import numpy as np
import pytest

from kn_core.measures.matched import at_level, dose_at_level, resampled, told

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


def test_a_curve_is_the_mean_over_concepts_and_is_resampled_alike_for_every_method():
    rng = np.random.default_rng(1)
    concepts = ["bear"] * 3 + ["bus"]
    ours = rng.random((4, 2, 2))
    ours[0, :, 1] = np.nan  # of this picture nothing can be kept
    found = resampled({"ours": ours, "same": ours, "worse": ours - 0.1}, concepts, draws=50)
    assert found["ours"].shape == (51, 3, 2) and (found["ours"][:, 0] == [0, 1]).all()
    by_hand = (np.nanmean(ours[:3], axis=0) + ours[3]) / 2
    assert found["ours"][0, 1:] == pytest.approx(by_hand)
    assert np.array_equal(found["ours"], found["same"])
    assert np.allclose((found["ours"] - found["worse"])[:, 1:], 0.1)


def test_an_interval_holds_the_truth_and_is_none_where_the_level_is_not_reached():
    rng = np.random.default_rng(0)
    names = [f"concept {i}" for i in range(9) for _ in range(12)]
    chances = np.array([[0.3, 0.8], [0.9, 0.3]])  # the truth: at 0.6, halfway, 0.55 is kept
    held = 0
    for _ in range(60):
        pictures = (rng.random((108, 2, 2)) < chances).astype(float)
        means = resampled({"ours": pictures}, names, draws=200)["ours"]
        found = told(at_level(means, 0.6), 108, 9)
        held += found.low <= 0.55 <= found.high
    assert held >= 54
    assert np.isnan(told(at_level(means, 0.9), 108, 9).ends[1:]).all()
