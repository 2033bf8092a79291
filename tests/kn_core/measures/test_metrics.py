"""Suppression, retention and fluency on captions and tables small enough to work out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kn_core.measures import metrics, stats

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


def perturbation(concept: str, image_concept: str, image_id: str, present: bool, **changes: Any) -> dict[str, Any]:
    return {
        "concept": concept,
        "method": "two-stage",
        "intervention": "noise",
        "positions": "image",
        "n": 80,
        "sigma": 10.0,
        "seed": 0,
        "image_id": image_id,
        "image_concept": image_concept,
        "heldout": True,
        "caption": "A brown animal on grass.",
        "clean_caption": f"A brown {image_concept} on grass.",
        "target_present": present,
        "target_probability": 0.1,
        "clean_probability": 0.4,
        "retained": 0.5,
        "retained_truth": 1.0,
        "retained_probability": 0.8,
        "perplexity": math.e**2,
        "repetition": 0.0,
    } | changes


def perturbations() -> pd.DataFrame:
    """Two images of dogs and one of a cat, under the neurons of both; two seeds for the first dog."""
    return pd.DataFrame(
        [
            perturbation("dog", "dog", "d1", False, seed=0, retained=1.0),
            perturbation("dog", "dog", "d1", True, seed=1, retained=0.0),
            perturbation("dog", "dog", "d2", False, retained=math.nan),
            perturbation("dog", "cat", "c1", True),
            perturbation("cat", "cat", "c1", False, retained=0.25, caption="RRRRRRRR", perplexity=math.e**8),
            perturbation("cat", "dog", "d1", True),
            perturbation("cat", "dog", "d2", False),
        ]
    )


def value_of(frame: pd.DataFrame, metric: str, column: str = "value") -> Any:
    return frame.set_index("metric")[column][metric]


def test_the_summary_averages_seeds_then_images_then_concepts() -> None:
    summary = metrics.summarise(perturbations(), by=["method"])
    assert value_of(summary, "suppression") == ((1 / 2 + 1) / 2 + 1) / 2  # dogs d1 1/2, d2 1; cat 1
    assert value_of(summary, "retention") == (1 / 2 + 1 / 4) / 2  # d2 has none
    assert value_of(summary, "retention_others") == ((1 + 0) / 2 + 1) / 2
    assert value_of(summary, "selectivity") == ((1 / 2 + 0) / 2 + 1) / 2  # d1: 1/2 - 0, d2: 1 - 1, c1: 1 - 0
    assert value_of(summary, "suppression_probability") == pytest.approx(0.75)
    assert value_of(summary, "retention_probability") == pytest.approx(0.8)
    assert value_of(summary, "log_perplexity") == pytest.approx((2 + 8) / 2)
    assert value_of(summary, "repetition") == 0.0
    assert value_of(summary, "fluent") == (1 + 0) / 2
    assert value_of(summary, "suppression_fluent") == ((1 / 2 + 1) / 2 + 0) / 2  # the cat's caption is 'RRRRRRRR'
    assert value_of(summary, "retention_truth") == 1.0


def test_the_summary_counts_the_images_and_concepts_behind_each_number() -> None:
    summary = metrics.summarise(perturbations(), by=["method"])
    assert list(summary.columns) == ["method", "metric", "value", "low", "high", "n_images", "n_concepts"]
    assert (value_of(summary, "suppression", "n_images"), value_of(summary, "suppression", "n_concepts")) == (3, 2)
    assert (value_of(summary, "retention", "n_images"), value_of(summary, "retention", "n_concepts")) == (2, 2)


def test_the_summary_of_one_concept_has_no_selectivity() -> None:
    summary = metrics.summarise(perturbations(), by=["concept"])
    assert "selectivity" not in set(summary["metric"])
    cat = summary[summary["concept"] == "cat"]
    assert value_of(cat, "suppression") == 1.0
    assert math.isnan(value_of(cat, "suppression", "low")), "one image has no interval"
    assert value_of(cat, "retention_others") == 0.5


def test_the_summary_needs_no_groups() -> None:
    assert value_of(metrics.summarise(perturbations(), by=[]), "suppression") == 7 / 8


def test_images_that_never_named_their_concept_are_left_out() -> None:
    silent = perturbation("dog", "dog", "d3", False, clean_caption="An animal on grass.")
    summary = metrics.summarise(pd.concat([perturbations(), pd.DataFrame([silent])]), by=["method"])
    assert value_of(summary, "suppression", "n_images") == 3


def test_an_undefined_setting_is_a_setting() -> None:
    zeroed = perturbations().assign(intervention="zero", sigma=math.nan)
    summary = metrics.summarise(pd.concat([perturbations(), zeroed]), by=["intervention", "sigma"])
    assert set(summary["intervention"]) == {"noise", "zero"}


def test_two_settings_in_one_group_are_refused() -> None:
    mixed = pd.concat([perturbations(), perturbations().assign(n=160)])
    with pytest.raises(ValueError, match=r"n must be one value in every group of by=\['method'\]"):
        metrics.summarise(mixed, by=["method"])
    assert set(metrics.summarise(mixed, by=["n"])["n"]) == {80, 160}


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"must have the columns \['perplexity', 'seeds'\]"):
        metrics.summarise(perturbations().drop(columns="perplexity"), by=["seeds"])


def test_the_reading_by_truth_leads_where_half_of_the_pictures_have_something_true_to_keep() -> None:
    rows = perturbations()
    assert metrics.main_retention(rows) == "retention_truth"
    silent = rows.assign(retained_truth=rows["retained_truth"].mask(rows["image_id"] != "c1"))  # one picture of three
    assert metrics.main_retention(silent) == "retention"


def test_the_perplexity_limit_decides_fluency() -> None:
    summary = metrics.summarise(perturbations(), by=[], perplexity_limit=5.0)
    assert value_of(summary, "fluent") == 0.0


def test_of_a_probability_all_can_be_lost_and_no_more_and_some_can_be_won() -> None:
    lost = pd.DataFrame({"image_concept": ["dog", "cat"], "metric": "suppression_probability", "value": [0.5, 1.0]})
    ends = metrics.with_intervals(lost, []).iloc[0]
    assert ends["low"] < 0 and ends["high"] == 1
    assert metrics.with_intervals(lost, [], within=stats.SIGNED).iloc[0]["high"] > 1
    shares = metrics.with_intervals(lost.assign(metric="suppression"), []).iloc[0]
    assert (shares["low"], shares["high"]) == (0, 1)


def test_the_contrast_pairs_images() -> None:
    control = perturbations().assign(method="random", target_present=True, retained=1.0)
    control = control[control["image_id"] != "d2"]
    difference = metrics.contrast(pd.concat([perturbations(), control]), "two-stage", "random")
    assert value_of(difference, "suppression") == (1 / 2 + 1) / 2  # d1 and c1
    assert value_of(difference, "suppression", "n_images") == 2
    assert value_of(difference, "retention") == (-1 / 2 - 3 / 4) / 2


def test_the_contrast_refuses_what_it_cannot_compare() -> None:
    table = pd.concat([perturbations(), perturbations().assign(method="random", sigma=3.0)])
    with pytest.raises(ValueError, match=r"must be two of \['random', 'two-stage'\]. Got \['rnadom'\]"):
        metrics.contrast(table, "two-stage", "rnadom")
    with pytest.raises(ValueError, match="sigma must be one value in every group"):
        metrics.contrast(table, "two-stage", "random")
    with pytest.raises(ValueError, match="by must not hold 'method'"):
        metrics.contrast(table, "two-stage", "random", by=["method"])
