"""What is said of two towers before one decoder, of numbers made up here."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from book.other_models import figures, third_stage, towers, two_studies
from book.other_models.two_studies import DIFFERENCE, QUANTITIES
from kn_core import drawing

PAGE = Path(__file__).parents[3] / "book" / "appendix" / "towers.md"
SHARED = pd.DataFrame(
    {
        "shared": [20, 30],
        "jaccard": [0.2, 0.3],
        "jaccard_chance": [0.001, 0.001],
        "jaccard_others": [0.1, 0.1],
        "p_holm": [0.01, 0.5],
    }
)
JUDGED = pd.DataFrame(
    {
        "claim": ["x", "y"],
        "statement": ["alike", "unlike in S_re"],
        "measured": ["S_se", "a share"],
        "a": ["reproduced", "reproduced"],
        "b": ["reproduced", "not run"],
        "differ": [False, True],
    }
    | {f"{tower}, {name}": [0.5, 0.25] for tower in "ab" for name in ("ours", "low", "high")}
)


THIRD = pd.DataFrame(
    [(name, model, 0.5, 0.4, 0.6) for name in third_stage.QUANTITIES for model in ("a", "b")]
    + [(name, DIFFERENCE, -0.3, -0.5, -0.1) for name in ("ceiling",)]
    + [(name, DIFFERENCE, 0.0, -0.1, 0.1) for name in third_stage.QUANTITIES if name != "ceiling"],
    columns=["quantity", "model", "value", "low", "high"],
)


def made_up(over: dict[str, tuple[float, float, float]], **changes: tuple[float, float, float]) -> pd.DataFrame:
    """Towers a and b: all alike but the advantage over random neurons and what `changes` says of differences."""
    flat = {"a": (0.5, 0.4, 0.6), "b": (0.5, 0.4, 0.6), DIFFERENCE: (0.0, -0.1, 0.1)}
    rows = [
        (name, tower, *(changes.get(name, ends) if tower == DIFFERENCE else ends))
        for name in QUANTITIES
        for tower, ends in (flat | (over if name == "suppression-over-random" else {})).items()
    ]
    return pd.DataFrame(rows, columns=["quantity", "model", "value", "low", "high"])


def test_the_numbers_decide_what_is_said():
    above, across = (0.2, 0.1, 0.3), (0.1, -0.1, 0.3)
    words = towers.compared_in_words(made_up({"a": above, "b": above, DIFFERENCE: (0.0, -0.1, 0.1)}))
    assert words["advantage-told"] == words["naming-told"] == "the towers cannot be told apart"
    assert words["depends"] == "none of them"
    words = towers.compared_in_words(made_up({"a": across, "b": above, DIFFERENCE: (-0.1, -0.2, -0.05)}))
    assert words["advantage-told"] == "larger with b"
    assert words["depends"] == "suppression, two-stage minus random"
    frame = made_up({"a": across, "b": across, DIFFERENCE: (0.0, np.nan, np.nan)}, naming=(0.2, 0.1, 0.3))
    words = towers.compared_in_words(frame)
    assert words["advantage-told"] == "too few concepts to tell"
    assert words["naming-told"] == "a names more"
    assert words["depends"] == "captions of the same pictures that name the concept"
    shown = two_studies.compared_for_readers(frame)
    assert shown.columns.tolist() == ["quantity", "a", "b", "difference"]
    assert shown.iloc[0].tolist() == [
        "captions of the same pictures that name the concept",
        *["0.50 [0.40,\u00a00.60]"] * 2,
        "0.20 [0.10,\u00a00.30]",
    ]
    one = pd.DataFrame({"method": "removal", "metric": two_studies.MEASURED, "value": [1.0, 0.75, 0.5]})
    below = two_studies.compared_for_readers(frame, bounds={"a": one, "b": one.assign(value=0.25)}).iloc[len(shown) :]
    assert below.to_numpy().tolist() == [
        [
            "suppression, retention of what is true and by words: the object taken out of the picture",
            *("1.00, 0.75 and 0.50", "0.25, 0.25 and 0.25", "–"),
        ]
    ]
    untried = two_studies.compared_for_readers(frame, bounds={"a": one.iloc[:0], "b": one.iloc[:0]})
    assert untried.to_numpy().tolist() == shown.to_numpy().tolist()


def test_verdicts_and_overlap_are_counted_in_words():
    assert towers.verdicts_in_words(JUDGED) == {"claims": "2", "differ": "1"}
    words = towers.shared_in_words(SHARED)
    assert words["beyond-chance"] == "1 of 2"
    assert words["shared"] == "25"
    assert words["jaccard"] == "0.25 [0.00,\u00a00.89]"
    assert words["same-concept"] == "0.15 [-0.49,\u00a00.79], not clear of zero"


def test_what_the_third_stage_does_with_either_tower():
    said = third_stage.in_words(THIRD, first="a", second="b")
    assert said["third-works"].startswith("With both models the third stage's neurons, zeroed, suppress more")
    assert said["third-apart"] == "suppression, all neurons patched" and said["third-clear-first"] == "clear of zero"


def test_verdicts_that_differ_come_first_for_readers():
    shown = towers.verdicts_for_readers(JUDGED, ["a", "b"])
    assert shown["the paper says"].tolist() == ["unlike in Sᵣₑ", "alike"]
    assert shown["measured"].tolist() == ["a share", "Sₛₑ"]
    assert shown["b"].tolist() == ["not run: 0.25 [0.25,\u00a00.25]", "reproduced: 0.50 [0.50,\u00a00.50]"]


def test_the_page_says_everything_that_its_text_asks_for():
    frame = made_up({})
    said = towers.compared_in_words(frame) | towers.shared_in_words(SHARED) | towers.verdicts_in_words(JUDGED)
    said |= third_stage.in_words(THIRD, first="a", second="b")
    assert set(re.findall(r"\{glue:text\}`([^`]+)`", PAGE.read_text())) <= {*said, "concepts"}
    with drawing.theme():
        figure = figures.towers(frame)
    assert figure.get_suptitle() == f"0 of {len(QUANTITIES)} quantities differ between the towers"
    plt.close(figure)
