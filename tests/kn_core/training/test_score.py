"""What a scene's caption gets right, counted by hand."""

import math

import numpy as np
import pytest

from kn_core.pictures.sample import Sample
from kn_core.training.score import means, score

PLAIN = np.zeros((2, 2, 3), np.uint8)


def a_scene(*others: str, setting: str = "field") -> Sample:
    return Sample("scene", "bear", PLAIN, np.ones((2, 2), bool), others=others, setting=setting)


@pytest.mark.parametrize(
    ("caption", "named", "setting", "companion", "true", "false"),
    [
        (
            "A brown bear is walking in a green field next to a tree and a red car.",
            1,
            1,
            1,
            4,
            0,
        ),  # no colours
        ("A bear is flying in a field with a car sailing next to it.", 1, 1, 0, 2, 0),  # nor what is done
        ("A dog is parked on a sandy beach next to a pine.", 0, 0, 0, 0, 4),
        ("A bear is standing in a snowy field next to a car.", 1, 0, 0, 2, 1),
        ("There is a bear.", 1, 0, 0, 0, 0),
    ],
)
def test_a_caption_is_held_against_the_scene(caption, named, setting, companion, true, false):
    found = score(a_scene("tree", "car"), caption)
    assert found["named"] == named
    assert found["setting"] == setting
    assert found["companion"] == companion
    assert (found["true_words"], found["false_words"]) == (true, false)


def test_a_scene_without_company_has_none_to_name():
    alone, together = (score(a_scene(*others), "A bear near a tree in a field.") for others in ((), ("tree",)))
    assert math.isnan(alone["companion"])
    assert means([alone, together])["companion"] == 1
    assert (alone["true_words"], alone["false_words"]) == (1, 1)
    assert math.isnan(means([])["named"])
