"""Choices that the paper leaves open, as they are read from a profile."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from book.claims.departures import Departure, answers, choices
from kn_core.profile import load_profile
from kn_core.settings import Threshold


@pytest.mark.parametrize("name", ["embedded", "embedded-coco"])
def test_every_departure_is_read_from_the_profile(name: str) -> None:
    settings = load_profile(name)
    table = answers(settings).set_index("setting")
    assert table.loc["identification.pooling", "here"] == settings.identification.pooling
    assert table.loc["identification.pooling", "instead"] == "max, min"
    assert table.loc["ours", "here"] == ", ".join(settings.ours)
    assert table.loc["identification.threshold_a", "here"] == "the 0.95 quantile over all neurons"
    assert (table[["question", "the paper", "here", "why"]] != "").all(axis=None)


def test_a_choice_is_shown_with_its_setting_and_what_else_there_is() -> None:
    soup = BeautifulSoup(choices(load_profile("embedded")).to_html(), "html.parser")
    notes = [note.text for note in soup.find_all("small")]
    assert notes[:2] == ["data.source", "or coco"]
    assert notes[notes.index("model.tower") + 1] == "or dinov2-small, eva-vit-g"
    assert "the paper's ninety" in soup.text


def test_a_threshold_set_by_hand_is_listed() -> None:
    settings = load_profile("embedded")
    by_hand = settings.identification.model_copy(update={"threshold_a": Threshold(quantile=0.9, by_hand={"bear": 1.5})})
    table = answers(settings.model_copy(update={"identification": by_hand})).set_index("setting")
    assert table.loc["identification.threshold_a", "here"] == "the 0.9 quantile over all neurons, bear 1.5"


def test_a_departure_answers_once() -> None:
    with pytest.raises(ValueError, match="exactly one of 'setting' and 'here'"):
        Departure(question="q", paper="p", setting="data.seed", here="there", why="w")


def test_a_checkpoint_stands_for_its_parts() -> None:
    table = answers(load_profile("llava-1.5-7b")).set_index("setting")
    assert table.loc["model.tower", "here"] == "part of the checkpoint llava-hf/llava-1.5-7b-hf"
