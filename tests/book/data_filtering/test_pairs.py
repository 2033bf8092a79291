"""The pairs in words: how many drawings of a concept choose neurons, and on how many these are tried."""

import pandas as pd
import pytest

from book.data_filtering.pairs import in_words
from kn_core.profile import load_profile


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("bear", "select", "a"), ("bear", "select", "b"), ("bear", "held_out", "c")], "2 and 1 of a concept"),
        ([("bear", "select", "a"), ("bus", "select", "d"), ("bus", "select", "e")], "1 to 2 of a concept"),
        ([("bear", "", "a")], "none were kept"),
    ],
)
def test_the_drawings_of_a_concept_are_counted_by_role(rows, said):
    pairs = pd.DataFrame(rows, columns=["concept", "role", "drawing"]).assign(kept=True)
    assert in_words(pairs, load_profile("embedded"))["drawings"] == said
