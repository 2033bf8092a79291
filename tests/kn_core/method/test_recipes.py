"""Recipes on scores of six neurons, whose choices can be read off."""

from __future__ import annotations

import numpy as np
import pytest

from kn_core.method.recipes import LADDER, Recipe, chosen_by, contrasts, specific
from kn_core.profile import Profile

OWN = {
    "atp": np.array([[5.0, 4.0, 3.0], [2.0, 1.0, -1.0]]),
    "atp-other": np.array([[9.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
    "gxa": np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]),
    "gxa-other": np.zeros((2, 3)),
    "elsewhere": np.array([[-4.0, 2.0, 0.0], [0.0, 0.0, 2.0]]),
    "delta-sum": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    "delta-sum-product": np.array([[6.0, 5.0, 4.0], [3.0, 2.0, 1.0]]),
    "gradcam-sum": np.array([[1.0, 1.5, 2.0], [9.0, 8.0, 7.0]]),
}
OTHERS = [
    {"atp": np.array([[0.0, 6.0, 0.0], [0.0, 0.0, -9.0]])},
    {"atp": np.array([[0.0, 2.0, 1.0], [0.0, 0.0, -9.0]])},
]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(), [[5, 4, 3], [2, 1, -1]]),
        (Recipe(within=0.5), [[0.5, 4, 2.5], [2, 1, -1]]),
        (Recipe(between="largest"), [[5, -2, 2], [2, 1, -1]]),  # what is below zero for another takes nothing away
        (Recipe(between="mean"), [[5, 0, 2.5], [2, 1, -1]]),
        (Recipe(within=0.5, between="largest"), [[0.5, -2, 1.5], [2, 1, -1]]),
        (Recipe(places=0.5), [[5, 3, 3], [2, 1, -2]]),
    ],
)
def test_contrasts_take_away_what_is_not_the_word_s_own(recipe, expected):
    assert specific(recipe, OWN, OTHERS, "atp").tolist() == expected


def test_a_concept_that_is_alone_has_nothing_between():
    assert (specific(Recipe(between="largest"), OWN, [], "atp") == OWN["atp"]).all()


def test_zeroing_ranks_by_what_zeroing_takes_and_patching_by_what_patching_takes(toy_profile: Profile):
    settings = toy_profile.identification
    zero, patch = (chosen_by(Recipe(), "bear", OWN, [], how, settings) for how in ("zero", "patch"))
    assert list(zip(zero.layers[:2], zero.units[:2], strict=True)) == [(1, 2), (1, 1)]
    assert list(zip(patch.layers[:2], patch.units[:2], strict=True)) == [(0, 0), (0, 1)]


def test_two_thresholds_hold_sums_at_either_site(toy_profile: Profile):
    """The medians: above both of them are, at the paper's site, the second layer; at the product the two are rarer."""
    settings = toy_profile.identification
    found = {step: chosen_by(LADDER[step], "bear", OWN, [], "noise", settings) for step in ("sums", "site")}
    assert [list(each.units[each.layers == 1]) for each in found.values()] == [[0, 1, 2], []]
    assert len(found["site"]) == 0
    with pytest.raises(ValueError, match="those of the study"):
        chosen_by(LADDER["paper"], "bear", OWN, [], "noise", settings)


def test_the_grid_of_contrasts_holds_each_pair_once():
    assert len(set(contrasts((0.0, 1.0), ("none", "mean", "largest")))) == 6
