"""The funnel draws the frame's counts."""

from __future__ import annotations

import pandas as pd

from book.data_filtering import figures
from kn_core import drawing


def test_funnel_draws_the_counts():
    attrition = pd.DataFrame(
        [("bear", "looked at", 7), ("bear", "area", 5), ("bus", "looked at", 4), ("bus", "area", 3)],
        columns=["concept", "constraint", "left"],
    )
    with drawing.theme():
        ax = figures.funnel(attrition, {"area": "neither a speck nor the whole frame"})
    assert [bar.get_width() for bar in ax.patches] == [11, 8]
    said = [text.get_text().strip() for text in ax.texts]
    assert said == ["looked at", "11", "neither a speck nor the whole frame", "8 (−3)"]
    assert "8 of 11 pictures pass every constraint" in ax.get_title(loc="left").replace("\n", " ")
