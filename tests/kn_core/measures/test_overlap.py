"""Sets of neurons against each other, and against chance."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from book.stages.neurons import between_concepts
from kn_core.measures.overlap import overlap


def test_two_sets_and_what_chance_would_give():
    found = overlap({"a": {(0, 0), (0, 1), (1, 2)}, "b": {(0, 1), (1, 2)}, "c": set()}, (2, 5)).set_index(
        ["one", "other"]
    )
    ab = found.loc["a", "b"]
    assert ab[["shared", "jaccard", "expected"]].tolist() == pytest.approx([2, 2 / 3, 3 * 2 / 10])
    assert ab["p"] == pytest.approx(3 * 2 / 2 / math.comb(10, 2))  # both of b's are a's: C(3, 2) of C(10, 2)
    assert ab["expected_layers"] == pytest.approx((2 * 1 + 1 * 1) / 5)
    assert found.loc[("a", "c"), ["shared", "jaccard"]].tolist() == [0, 0.0]
    with pytest.raises(ValueError, match="neurons must lie in 2 layers of 5"):
        overlap({"a": {(2, 0)}, "b": set()}, (2, 5))


def test_concepts_by_their_best_neurons():
    rows = [("bear", 0, 0, 0), ("bear", 0, 1, 1), ("bear", 1, 4, 2), ("bus", 0, 1, 0), ("bus", 1, 0, 1)]
    frame = pd.DataFrame(rows, columns=["concept", "layer", "unit", "rank"]).assign(method="two-stage")
    found = between_concepts(frame, 2, (2, 5))
    assert found[["concept", "other", "shared"]].to_numpy().tolist() == [["bear", "bus", 1]]
