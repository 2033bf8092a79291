"""What a caption says truly, and how much of it stays: captions whose truth is known."""

from __future__ import annotations

import math

import pytest

from kn_core.measures.truth import named_truly, says, truth_retention
from kn_core.pictures.scenes import SETTINGS, samples


@pytest.mark.parametrize(
    ("caption", "thing", "said"),
    [
        ("A bear on a grassy lawn.", "field", True),
        ("A bear in a snowy field.", "snow", True),
        ("A bear in the Woods.", "forest", True),
        ("A bear on the street.", "field", False),
        ("Two ponies on a street.", "horse", True),
        ("A seahorse.", "horse", False),
        ("", "field", False),
    ],
)
def test_a_thing_is_named_by_any_of_its_words(caption, thing, said):
    assert says(caption, thing) is said


def test_retention_by_truth_counts_things_and_not_words():
    things = ("horse", "tree", "field")
    truths = named_truly("A bear and a sheep standing on the grass near a pony.", things)
    assert truths == ("horse", "field")  # no sheep is there, and of the tree nothing is said
    assert truth_retention(truths, "A field with nothing in it.") == 1 / 2
    assert truth_retention(truths, "A horse in a meadow, grazing.") == 1.0
    assert truth_retention(truths, "The . The . The .") == 0.0
    assert math.isnan(truth_retention(named_truly("A bear.", things), "A bear."))


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_what_people_call_a_place_names_it(name):
    setting = SETTINGS[name]
    phrases = [*setting.nouns, *setting.empty, *(phrase for place in setting.places.values() for phrase in place)]
    assert [phrase for phrase in phrases if "over" not in phrase and not says(phrase, name)] == []


def test_a_scene_says_where_it_plays_and_what_else_it_shows():
    shown = list(samples("pizza", 8, seed=5, size=64))
    assert all(sample.setting in SETTINGS and sample.things == (*sample.others, sample.setting) for sample in shown)
    put_up = {sample.setting for sample in shown if "dining table" in sample.things}
    assert put_up and "table" not in put_up
