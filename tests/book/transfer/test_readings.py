"""Transfer's differences and slopes, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from book.transfer import readings
from kn_core.measures.stats import Estimate


def test_a_gap_is_paired_by_picture():
    rows = pd.DataFrame(
        {"concept": c, "where": "words", "on": "?", "of": of, "image_id": i, "lost": lost}
        for c, i, of, lost in [
            *(("bear", "a", "third stage", 0.9), ("bear", "a", "random", 0.1), ("bear", "b", "third stage", 0.5)),
            *(("cat", "c", "third stage", 0.6), ("cat", "c", "random", 0.2)),
        ]
    )
    assert readings.gap(rows, "words")[0] == pytest.approx((0.8 + 0.4) / 2)
    assert all(np.isnan(readings.gap(rows, "photographs")))


def test_the_slope_is_within_concepts():
    taken = pd.DataFrame({"concept": ["a", "a", "b", "b"], "neurons": ["x", "y"] * 2, "lost": [0.0, 1.0, 0.5, 0.7]})
    success = pd.DataFrame(
        {"image_concept": ["a", "a", "b", "b"], "neurons": ["x", "y"] * 2, "value": [0.2, 0.4, 0.0, 0.08]}
    ).assign(new="c", image_id="one")
    found = readings.helps(taken, success)
    assert (found.value, found.n) == (pytest.approx((0.2 + 0.4) / 2), 2)
    for value in (0.0, 1.0):  # of a picture that one set alone was tried on
        lacking = success.iloc[:1].assign(image_id="two", value=value)
        assert readings.helps(taken, pd.concat([success, lacking])) == found
    assert readings.helps_in_words(Estimate(0.3, 0.1, 0.5, 4, 4)) == {
        "slope": "0.30 (95 % interval 0.10 to 0.50)",
        "helps": "it helps",
        "slopes-of": "4",
    }
    assert np.isnan(readings.helps(taken.assign(lost=0.5), success).value)
