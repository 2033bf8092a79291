"""The constraints, one by one and as a funnel, with a model that says what it is told to."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pandas as pd
import pytest

from book.data_filtering.pairs import attrition
from kn_core.method.filtering import (
    AFTER_BOTH,
    AFTER_CAPTION,
    BEFORE_CAPTIONS,
    MEANING,
    ORDER,
    Candidate,
    explain,
    make_pairs,
    regions,
)
from kn_core.pictures.sample import Sample
from kn_core.settings import Constraint, Filtering

SETTINGS = Filtering(constraints=ORDER, area=(0.05, 0.6))


def sample(area: float = 0.25, *, number: int = 0, **more) -> Sample:
    """A bear that fills this share of a 20 x 20 picture, all of whose pixels are `number`; without it, `number` + 1."""
    mask = np.zeros(400, bool)
    mask[: round(400 * area)] = True
    image = np.full((20, 20, 3), number, np.uint8)
    return Sample(f"picture-{number}", "bear", image, mask.reshape(20, 20), without=image + 1, **more)


class Told:
    """Says of a picture what `says` holds for its first pixel; counts the pictures that it was shown."""

    def __init__(self, says: dict[int, str]) -> None:
        self.says, self.shown = says, []

    def caption(self, images, max_new_tokens):
        self.shown += [int(image[0, 0, 0]) for image in images]
        return [self.says[int(image[0, 0, 0])] for image in images]

    def encode(self, caption):
        """Words as tokens, numbered by their length."""
        words, start, spans = caption.split(" "), 0, []
        for word in words:
            spans.append((start, start + len(word)))
            start += len(word) + 1
        return [len(word) for word in words], spans


@pytest.mark.parametrize(("area", "passes"), [(0.0475, False), (0.05, True), (0.3, True), (0.6, True), (0.6025, False)])
def test_area_bounds_are_inclusive(area, passes):
    assert BEFORE_CAPTIONS["area"](Candidate(sample(area)), SETTINGS) is passes


@pytest.mark.parametrize(
    ("blobs", "expected"),
    [
        ([], 0),
        ([(0, 0, 5, 5)], 1),
        ([(0, 0, 5, 5), (10, 10, 15, 15)], 2),
        ([(0, 0, 5, 5), (5, 5, 10, 10)], 1),  # they touch at a corner
        ([(0, 0, 9, 10), (15, 10, 20, 12)], 1),  # the small one is a tenth of the whole, no more
        ([(0, 0, 9, 10), (15, 9, 20, 12)], 2),
    ],
)
def test_regions(blobs, expected):
    mask = np.zeros((20, 20), bool)
    for top, left, bottom, right in blobs:
        mask[top:bottom, left:right] = True
    assert regions(mask) == expected
    scattered = replace(sample(), mask=mask)
    assert BEFORE_CAPTIONS["one_region"](Candidate(scattered), SETTINGS) is (expected == 1)


def test_the_other_constraints():
    assert BEFORE_CAPTIONS["unsquashed"](Candidate(sample()), SETTINGS)
    assert not BEFORE_CAPTIONS["unsquashed"](Candidate(sample(resized=True)), SETTINGS)
    assert BEFORE_CAPTIONS["one_instance"](Candidate(sample()), SETTINGS)
    assert not BEFORE_CAPTIONS["one_instance"](Candidate(sample(n_instances=2)), SETTINGS)
    named, without = Candidate(sample(), "Two bears.", "A log."), Candidate(sample(), "A teddy bear.", "A bear.")
    assert AFTER_CAPTION["named"](named, SETTINGS)
    assert not AFTER_CAPTION["named"](without, SETTINGS)
    assert AFTER_BOTH["not_named_after"](named, SETTINGS)
    assert not AFTER_BOTH["not_named_after"](without, SETTINGS)


@pytest.mark.parametrize(
    ("caption", "after", "whole"),
    [
        ("A bear sits.", "A log lies.", True),
        ("A bear sits", "A log lies.", False),
        ("A bear sits.", "A log.", False),
        ("A bear sits.", "", False),
    ],
)
def test_whole_captions(caption, after, whole):
    assert AFTER_BOTH["captions_whole"](Candidate(sample(), caption, after), SETTINGS) is whole


def test_every_constraint_of_a_profile_is_known_and_said_in_words():
    assert set(Constraint.__args__) == set(ORDER) == set(MEANING)
    assert explain("area", SETTINGS) == "the object fills 5% to 60% of the frame"
    assert "paper" in explain("named", SETTINGS)


@pytest.fixture
def profile(toy_profile):
    filtering = Filtering(constraints=("not_named_after", "named", "one_region", "area"))  # however they are listed
    return toy_profile.model_copy(update={"filtering": filtering})


def test_a_pair_is_judged_by_the_cheapest_constraint_first_and_then_asked_no_more(profile):
    looked_at = [
        sample(number=0),
        sample(0.7, number=10),
        sample(number=20),
        sample(number=30),
        sample(number=40, n_instances=3),
    ]
    model = Told({0: "a big bear", 1: "a log", 20: "a log", 30: "one bear", 31: "bears", 40: "the bear", 41: "logs"})
    pairs = make_pairs(model, looked_at, profile)
    assert pairs["reason"].tolist() == ["", "area", "named", "not_named_after", ""]
    assert pairs["kept"].tolist() == [True, False, False, False, True]
    assert pairs["caption"].tolist() == ["a big bear", "", "a log", "one bear", "the bear"]
    assert pairs["caption_inpainted"].tolist() == ["a log", "", "", "bears", "logs"]
    assert pairs["target_word"].tolist() == ["bear", "", "", "bear", "bear"]
    assert pairs["target_token"].tolist() == [4, -1, -1, 4, 4]
    assert pairs["target_position"].tolist() == [2, -1, -1, 1, 1]
    assert pairs["area_fraction"].tolist() == pytest.approx([0.25, 0.7, 0.25, 0.25, 0.25])
    assert pairs["role"].tolist() == ["select", "", "", "", "held_out"]
    assert model.shown == [0, 20, 30, 40, 1, 31, 41]


def test_columns_are_those_of_the_design_and_a_role(profile):
    pairs = make_pairs(Told({0: "a bear", 1: "a log"}), [sample()], profile)
    assert list(pairs.columns) == [
        *("concept", "image_id", "drawing", "area_fraction", "caption", "caption_inpainted"),
        *("target_word", "target_token", "target_position", "kept", "reason", "role"),
    ]
    none = make_pairs(Told({}), [], profile)
    assert list(none.columns) == list(pairs.columns)
    assert len(none) == 0


def test_no_more_pictures_are_looked_at_than_needed(profile):
    drawn = []

    def endless():
        for number in count():
            drawn.append(number)
            yield sample(number=0)

    pairs = make_pairs(Told({0: "a bear", 1: "a log"}), endless(), profile, batch_size=3)  # 3 + 2 are wanted
    assert len(drawn) == len(pairs) == 5
    assert pairs["role"].tolist() == ["select"] * 3 + ["held_out"] * 2
    assert pairs["kept"].all()


def test_a_drawing_that_chose_neurons_is_not_one_that_they_are_tried_on(profile):
    """3 + 2 are wanted. What there is no room for yet is looked at when others of its role have failed."""
    says = {0: "a bear", 1: "a log", 10: "nothing"}
    roles = ["select", "held_out"] * 6
    numbers = [0, 10, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0]
    looked_at = [sample(number=n, role=role, drawing=role) for n, role in zip(numbers, roles, strict=True)]
    pairs = make_pairs(Told(says), looked_at, profile)
    assert len(pairs) == 7
    assert pairs["role"].value_counts().to_dict() == {"select": 3, "held_out": 2, "": 2}
    assert (pairs["role"] == pairs["drawing"])[pairs["kept"]].all()
    only = make_pairs(Told(says), looked_at[::2], profile)
    assert only["role"].value_counts().to_dict() == {"select": 2, "held_out": 1}, "none of the other: split as ever"


@pytest.mark.parametrize(
    ("kept", "select", "held_out"), [(0, 0, 0), (1, 1, 0), (2, 1, 1), (3, 2, 1), (4, 2, 2), (5, 3, 2)]
)
def test_roles_are_in_the_profiles_proportion_however_few_are_kept(profile, kept, select, held_out):
    says = {0: "a bear", 1: "a log", 10: "nothing"}
    pairs = make_pairs(Told(says), [sample(number=0)] * kept + [sample(number=10)] * (6 - kept), profile)
    assert (pairs["role"] == "select").sum() == select
    assert (pairs["role"] == "held_out").sum() == held_out


def test_two_kept_pairs_are_one_to_choose_on_and_one_to_try_on(profile):
    data = profile.data.model_copy(update={"select": 9, "held_out": 1})
    profile = profile.model_copy(update={"data": data})
    pairs = make_pairs(Told({0: "a bear", 1: "a log"}), [sample()] * 2, profile)
    assert pairs["role"].tolist() == ["select", "held_out"]
    profile = profile.model_copy(update={"data": data.model_copy(update={"held_out": 0})})
    pairs = make_pairs(Told({0: "a bear", 1: "a log"}), [sample()] * 2, profile)
    assert pairs["role"].tolist() == ["select", "select"]


def test_the_funnel_ends_with_what_was_kept():
    reasons = {"bear": ["", "area", "named", "not_named_after", "", "area"], "bus": ["one_region", "named", "named"]}
    rows = [(concept, reason, not reason) for concept, found in reasons.items() for reason in found]
    pairs = pd.DataFrame(rows, columns=["concept", "reason", "kept"])
    funnel = attrition(pairs, ["named", "not_named_after", "area", "one_region"])
    assert funnel["constraint"].tolist() == ["looked at", "area", "one_region", "named", "not_named_after"] * 2
    assert funnel["left"].tolist() == [6, 4, 4, 3, 2, 3, 3, 2, 0, 0]
    last = funnel.groupby("concept")["left"].last()
    assert (last == pairs.groupby("concept")["kept"].sum()).all()
