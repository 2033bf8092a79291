"""What stands around the results, drawn: the numbers are the frame's, and the title is what they say."""

from __future__ import annotations

import math
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from book.appendix import figures
from kn_core.drawing import theme


@pytest.fixture(autouse=True)
def canvas() -> Iterator[None]:
    """Figures in the book's theme, closed when the test is over."""
    with theme():
        yield
    plt.close("all")


def test_the_overlap_says_what_two_concepts_have_in_common() -> None:
    rows = [("bear", "bus", 8, 0.05, 1.5), ("bear", "cat", 20, 0.14, 1.25), ("bus", "cat", 2, 0.01, 1.0)]
    shared = pd.DataFrame(rows, columns=["concept", "other", "shared", "jaccard", "expected_layers"])
    ax = figures.overlap(shared)
    assert "Two concepts share 8 neurons in the median; sets drawn from their layers, 1.2" in ax.get_title(
        loc="left"
    ).replace("\n", " ")
    assert sorted(text.get_text() for text in ax.texts) == ["2", "20", "8"]


def test_a_log_of_several_phases_is_one_curve() -> None:
    columns = {"step": [0, 100, 200, 0, 100], "loss": [math.nan, 3.0, 2.0, math.nan, 1.5]}
    named = {"scenes_named": [0.0, 0.4, 0.6, 0.6, 0.9], "photos_named": [0.0, 0.2, 0.3, 0.3, 0.5]}
    figure = figures.training(pd.DataFrame(columns | named))
    (loss,) = figure.axes[0].get_lines()
    np.testing.assert_allclose(loss.get_xydata(), [(100, 3), (200, 2), (300, 1.5)])
    assert (
        figure.get_suptitle()
        .replace("\n", " ")
        .startswith("After 300 steps the target is named in 90% of validation scenes and 50%")
    )
