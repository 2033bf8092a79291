"""Suppression, retention and fluency on captions and tables small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kn_core.measures import metrics

CLEAN = "A brown dog sleeps, standing on a red sofa."


@pytest.mark.parametrize(
    ("caption", "gone"),
    [
        (CLEAN, False),
        ("Two DOGS and a dog.", False),
        ("A hot dog on a plate.", True),
        ("A brown animal sleeps.", True),
        ("RRRRRR", True),
        ("", True),
    ],
)
def test_a_caption_that_no_longer_names_the_concept_is_suppressed(caption: str, gone: bool) -> None:
    assert metrics.suppressed(caption, "dog") is gone


@pytest.mark.parametrize(
    ("perturbed", "share"),
    [
        (CLEAN, 1.0),
        ("A brown cat sleeps on a sofa.", 3 / 4),
        ("RED red red", 1 / 4),
        ("dog", 0.0),
        ("RRRRRR", 0.0),
        ("", 0.0),
    ],
)
def test_retention_is_the_share_of_brown_sleeps_red_sofa(perturbed: str, share: float) -> None:
    assert metrics.retention(CLEAN, perturbed, "dog") == share


def test_retention_counts_a_word_once_however_often_it_stands_in_the_clean_caption() -> None:
    assert metrics.retention("A dog, a tree, a tree and a ball.", "A ball.", "dog") == 1 / 2


def test_retention_leaves_out_every_mention_of_the_concept() -> None:
    assert metrics.retention("A dog next to a dog on grass.", "grass", "dog") == 1.0


@pytest.mark.parametrize("clean", ["A dog.", "dog", ""])
def test_retention_is_undefined_where_nothing_else_was_said(clean: str) -> None:
    assert math.isnan(metrics.retention(clean, "A brown dog.", "dog"))


def test_chance_retention_is_what_captions_of_other_concepts_share() -> None:
    captions = ["A dog on green grass.", "A cat on grass.", "A cat on a sofa."]
    # dog image: {green, grass} against {cat, grass}, {cat, sofa}: 1/2, 0. Cat images against {dog, green, grass}: 1, 0.
    assert metrics.chance_retention(captions, ["dog", "cat", "cat"]) == pytest.approx((1 / 4 + 1 + 0) / 3)


def test_chance_retention_passes_over_captions_of_the_concept_alone() -> None:
    assert metrics.chance_retention(["A dog.", "A cat on grass."], ["dog", "cat"]) == 0.0
    assert math.isnan(metrics.chance_retention(["A dog on grass.", "A dog."], ["dog", "dog"]))
    assert math.isnan(metrics.chance_retention([], []))


def test_probability_suppression_is_the_share_taken_away() -> None:
    lost = metrics.probability_suppression([0.5, 0.8, 0.2], [0.125, 0.8, 0.3])
    np.testing.assert_allclose(lost, [0.75, 0.0, -0.5])


def test_probability_retention_does_not_reward_a_token_that_became_likelier() -> None:
    assert metrics.probability_retention([0.5, 0.4], [0.25, 0.8]) == 0.75
    assert math.isnan(metrics.probability_retention([], []))


@pytest.mark.parametrize(("clean", "perturbed"), [([0.0], [0.0]), ([1.5], [0.5]), ([0.5], [-0.1]), ([0.5], [1.1])])
def test_what_is_no_probability_is_refused(clean: list[float], perturbed: list[float]) -> None:
    with pytest.raises(ValueError, match="probabilities must lie in"):
        metrics.probability_suppression(clean, perturbed)


def test_probabilities_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape. Got \(2,\) and \(1,\)"):
        metrics.probability_retention([0.5, 0.5], [0.5])


@pytest.mark.parametrize(
    ("caption", "rate"),
    [
        ("", 0.0),
        ("dog", 0.0),
        (CLEAN, 0.0),
        ("a bear a bear a bear", 3 / 5),  # 5 bigrams, 2 distinct
        ("The . The .", 1 / 3),
        ("RRRR", 2 / 3),  # r r r r
        ("RRRRRRRRRRR", 9 / 10),
        ("dogdogdog", 1 / 2),  # dog dog dog
        ("a book, a book", 1 / 4),  # 'oo' is no repetition; 'a book' is
    ],
)
def test_repetition_is_the_share_of_repeated_bigrams(caption: str, rate: float) -> None:
    assert metrics.repetition(caption) == pytest.approx(rate)


def test_repetition_of_single_words() -> None:
    assert metrics.repetition("a dog and a cat", n=1) == pytest.approx(1 / 5)
    with pytest.raises(ValueError, match="n must be at least 1"):
        metrics.repetition("a dog", n=0)


@pytest.mark.parametrize(
    ("caption", "perplexity", "reads"),
    [
        (CLEAN, 20.0, True),
        (CLEAN, 50.0, True),
        (CLEAN, 50.1, False),
        (CLEAN, math.nan, False),
        ("RRRRRRRRR", 2.0, False),
        ("The . The .", 2.0, False),
        ("dog", 2.0, False),
        ("", math.nan, False),
    ],
)
def test_a_fluent_caption_is_long_enough_and_neither_repetitive_nor_surprising(
    caption: str, perplexity: float, reads: bool
) -> None:
    assert metrics.fluent(caption, perplexity, perplexity_limit=50.0) is reads
