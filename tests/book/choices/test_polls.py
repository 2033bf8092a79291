"""What polls say, of odds made up here."""

from __future__ import annotations

import pandas as pd
import pytest

from book.choices import polls
from kn_core.study.experiments.ladder import THIRD


def asked(with_it: float, without: float, third: float) -> pd.DataFrame:
    """Two concepts of two pictures; odds of yes of each, the same for all but for a small step a picture."""
    rows = []
    for concept in ("bear", "bus"):
        for method, odds in {"nothing": with_it, "removal": without}.items():
            rows.append((concept, f"{concept}-0", "select", method, odds))
        for place in (1, 2):
            for method, odds in {"nothing": with_it, "removal": without, THIRD: third}.items():
                rows.append((concept, f"{concept}-{place}", "held_out", method, odds + place / 100))
    return pd.DataFrame(rows, columns=["concept", "image_id", "role", "method", "odds"])


def test_the_line_between_yes_and_no_is_halfway_on_selection_pictures():
    found = asked(-1.0, -3.0, -2.5)  # it always says no, and can be asked all the same
    assert polls.threshold(found) == -2.0
    assert polls.accuracy(found, -2.0).value == 1 and polls.readable(found)
    assert polls.in_words(found).startswith("This captioner can be asked. Nothing disturbed, it says yes to 0% of 4")
    by_caption = pd.DataFrame(
        {"image_id": ["bear-1", "bear-2", "bus-1", "bus-2"], "method": THIRD, "by_caption": [1, 0, 1, 1]}
    )
    told = polls.summary(found, by_caption).set_index(["method", "reading"])["value"]
    assert told[THIRD, "poll"] == 1 and told[THIRD, "caption"] == pytest.approx(0.75)
    assert told["nothing", "poll"] == told["nothing", "caption"] == 0 and told["removal", "poll"] == 1
    assert len(polls.for_readers(polls.summary(found, by_caption))) == len(polls.LABELS)


def test_a_model_whose_answers_do_not_follow_the_picture_cannot_be_asked():
    found = asked(-3.0, -3.0, -3.0)
    assert not polls.readable(found)
    assert polls.in_words(found).startswith("This captioner cannot be asked")
    empty = pd.DataFrame()
    empty.attrs["why"] = "The profile has no editing.poll."
    assert not polls.readable(empty) and "no editing.poll" in polls.in_words(empty)
