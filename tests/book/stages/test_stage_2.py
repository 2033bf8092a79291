"""What the page on stage 2 says: counts, and what is dropped of a concept's neurons and of a planted companion's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from book.stages import figures, stage_2
from tests.book.stages.test_figures import heading, stage_frame


def companion_rows(*counts: tuple[str, str, str, int, int, int]) -> pd.DataFrame:
    frame = pd.DataFrame(counts, columns=["concept", "image_id", "kind", "candidates", "dropped", "last"])
    return frame.assign(companion="train", caption="A bear.", best=frame["candidates"] - frame["dropped"])


def test_counts_and_words_agree():
    left = stage_2.counts(stage_frame())
    assert left.to_dict("list")["candidates"] == [4, 4] and left.to_dict("list")["kept"] == [2, 1]
    words = stage_2.in_words(stage_frame())
    assert words["layers"] == "3" and words["dropped"] == "62%" and words["last"] == "50%"
    assert words["kept-chance"] == "0" and words["lift"] == "3.0"  # 1.5 kept where 4 * 1.5 / 12 = 0.5 would be


def test_the_drop_is_a_mean_over_concepts_of_scenes_that_have_both_kinds():
    found = companion_rows(
        ("bear", "a", "own", 10, 5, 5),
        ("bear", "a", "companion", 10, 9, 0),  # 0.9 - 0.5
        ("bear", "b", "own", 4, 1, 0),
        ("bear", "b", "companion", 4, 3, 2),  # 0.75 - 0.25; without the last layer 0.5 - 0.25
        ("bus", "c", "own", 2, 1, 0),
        ("bus", "c", "companion", 0, 0, 0),  # nothing to drop: the scene says nothing
        ("bus", "d", "own", 5, 2, 0),
        ("bus", "d", "companion", 5, 1, 0),  # 0.2 - 0.4
        ("bus", "e", "", 0, 0, 0),  # its caption does not name the concept
    )
    gap = stage_2.drop_gap(found)
    assert gap.n == 3 and gap.value == pytest.approx((0.45 - 0.2) / 2) and gap.low < gap.value < gap.high
    nothing = stage_2.drop_gap(found[found["kind"] == ""])
    assert nothing.n == 0 and np.isnan(nothing.value)
    above = stage_2.drop_gap(found, above=True)
    assert above.value == pytest.approx(((0.9 - 0) / 2 + (0.5 - 0.25) / 2 - 0.2) / 2)
    words = stage_2.companions_in_words(found)
    assert (words["scenes"], words["named"]) == ("5", "4")
    assert words["companion"] == "51%" and words["own"] == "41%"  # (0.825 + 0.2) / 2, (0.375 + 0.45) / 2


def test_words_have_the_same_keys_whether_the_test_was_run_or_not():
    found = companion_rows(("bear", "a", "own", 10, 5, 5), ("bear", "a", "companion", 10, 9, 0))
    assert stage_2.companions_in_words(found).keys() == stage_2.companions_in_words(None).keys()


def test_photographs_measure_nothing_of_companions():
    photographs = SimpleNamespace(profile=SimpleNamespace(data=SimpleNamespace(source="coco")))
    assert stage_2.measured(photographs) == []


def test_the_figure_has_a_row_a_concept_and_one_for_all():
    found = companion_rows(
        ("bear", "a", "own", 10, 5, 0),
        ("bear", "a", "companion", 10, 9, 0),
        ("bus", "c", "own", 10, 7, 0),
        ("bus", "c", "companion", 10, 9, 0),
    )
    ax = figures.drops(stage_2.drops(found))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bear", "bus", "all"]
    assert "90% of the companion’s neurons, 60% of the concept’s own" in heading(ax)
