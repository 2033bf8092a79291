"""Intervals, tests and effect sizes on numbers small enough for hand, and on simulations whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from kn_core.measures.stats import (
    SHARE,
    SIGNED,
    cluster_interval,
    effect_size,
    estimate,
    holm,
    jackknife,
    left_out,
    paired_permutation,
    percentile_among,
    smallest_seen,
)


def simulated(rng: np.random.Generator, mean: float, concepts: int = 9, images: int = 10, between: float = 1.0):
    """Images of concepts: `mean` + an effect of the concept (standard deviation `between`) + one of the image (1)."""
    return [rng.normal(mean + shift, 1.0, images) for shift in rng.normal(0, between, concepts)]


def test_the_interval_is_students_over_concepts_or_over_the_images_of_one():
    values = np.array([1.0, 3.0, 2.0, 6.0])
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert cluster_interval([values]) == pytest.approx(tuple(expected))
    spread = [np.array([value - 1, value + 1]) for value in values]
    assert cluster_interval(spread) == pytest.approx(tuple(expected))


def test_the_interval_of_shares_ends_where_shares_do():
    assert cluster_interval([np.zeros(50), np.ones(50)]) == (0.0, 1.0)
    assert cluster_interval([np.array([-0.1]), np.ones(50)])[1] > 1


def test_the_interval_of_differences_goes_on_below_zero_though_none_of_them_is_there():
    differences = [0.0, 0.0, 0.25, 0.5]
    low, high = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert low < 0
    assert estimate(differences, within=SIGNED).ends[1:] == pytest.approx((low, high))
    assert estimate(differences).ends[1:] == pytest.approx((0, high))


def test_the_interval_without_spread_has_no_width_and_one_image_has_none():
    assert cluster_interval([np.ones(4), np.ones(2)]) == (1.0, 1.0)
    assert all(map(math.isnan, cluster_interval([np.ones(1)])))
    assert all(map(math.isnan, cluster_interval([])))


@pytest.mark.parametrize("between", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("concepts", "images"), [(9, 5), (9, 12), (40, 12)])  # embedded's, and embedded-many's
def test_the_interval_covers_the_truth_of_concepts_of_yes_and_no_as_often_as_it_says(between, concepts, images):
    rng, whole = np.random.default_rng(0), np.random.default_rng(1)

    def chances(shape, rng):
        return 1 / (1 + np.exp(-rng.normal(-0.3, between, shape)))

    truth = chances(200_000, whole).mean()
    samples = rng.random((600, concepts, images)) < chances((600, concepts, 1), rng)
    ends = [cluster_interval(list(sample.astype(float))) for sample in samples]
    assert 0.92 <= np.mean([low <= truth <= high for low, high in ends]) <= 0.97


def test_of_a_mean_the_jackknife_is_the_interval_over_concepts_or_over_the_images_of_one():
    values, concepts = np.array([1.0, 3.0, 2.0, 6.0, 5.0]), ["bear", "bear", "bus", "cat", "cat"]
    clusters = [values[:2], values[2:3], values[3:]]
    found = left_out(values, concepts)
    assert found == pytest.approx([9.5 / 3, 7.5 / 2, 7.5 / 2, 2.0])
    assert jackknife(found, SIGNED) == pytest.approx((9.5 / 3, *cluster_interval(clusters)))
    assert jackknife(found, SHARE)[1:] == (0.0, 1.0)
    alone = left_out(values, ["bear"] * 5)
    assert jackknife(alone, SIGNED) == pytest.approx((3.4, *cluster_interval([values])))


def test_the_jackknife_of_a_ratio_of_means():
    # Sums 6 and 8; without each 5/7, 4/6, 3/3: their mean is 50/63, the squares from it add up to 258/3969.
    means = left_out(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 5.0]]), ["bear", "bus", "cat"])
    half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(2 / 3 * 258 / 3969)
    assert jackknife(means[:, 0] / means[:, 1], SIGNED) == pytest.approx((0.75, 0.75 - half, 0.75 + half))


@pytest.mark.parametrize("images", [1, 3])
def test_the_jackknife_of_a_share_of_means_covers_the_truth_as_often_as_it_says(images):
    rng, held = np.random.default_rng(0), []
    concepts = [*np.repeat(np.arange(9), images)]
    for _ in range(600):
        ways = rng.normal(5, 1.5, (9, 1)) + rng.normal(0, 1.5, (9, images))
        lost = 0.55 * ways + rng.normal(0, 1.2, (9, 1)) + rng.normal(0, 1, (9, images))
        means = left_out(np.stack([lost, ways], axis=-1).reshape(-1, 2), concepts)
        _, low, high = jackknife(means[:, 0] / means[:, 1], SIGNED)
        held.append(low <= 0.55 <= high)
    assert 0.93 <= np.mean(held) <= 0.97  # 0.91 with the normal distribution in place of t


def test_an_image_without_a_value_is_left_out_and_so_is_a_concept():
    found = left_out(np.array([[1.0, 0.0], [math.nan, 1.0], [math.nan, 1.0]]), ["bear", "bear", "bus"])
    assert found.tolist() == pytest.approx(np.array([[1.0, 0.75], [math.nan, 1.0], [1.0, 0.5]]), nan_ok=True)


def test_the_jackknife_has_no_interval_of_one_image_or_where_it_is_undefined_without_a_concept():
    assert left_out(np.empty((0, 2)), []).shape == (1, 2)
    one = jackknife(left_out(np.ones(1), ["bear"]), SIGNED)
    for value, low, high in (one, jackknife(np.array([1.0, 1.0, math.nan, 1.0]), SIGNED)):
        assert value == 1.0 and math.isnan(low) and math.isnan(high)
    assert all(map(math.isnan, jackknife(np.array([math.nan, 1.0, 1.0]), SIGNED)))


def test_the_smallest_difference_seen_is_seen_in_as_many_samples_as_it_says():
    rng = np.random.default_rng(0)
    sizes = [smallest_seen(simulated(rng, 0.0)) for _ in range(300)]
    true = float(np.sqrt(np.mean(np.square(sizes))))  # what nine concepts' scatter would give if it were known
    seen = [cluster_interval(simulated(rng, true))[0] > 0 for _ in range(1000)]
    assert 0.75 <= np.mean(seen) <= 0.85
    assert math.isnan(smallest_seen([np.array([0.1, 0.2])]))


def test_flipping_the_signs_of_three_images_has_eight_outcomes():
    differences = [np.array([1.0, 2.0, 3.0])]
    assert paired_permutation(differences) == 2 / 8
    assert paired_permutation(differences, alternative="greater") == 1 / 8
    assert paired_permutation(differences, alternative="less") == 1.0


def test_a_concept_with_more_images_weighs_no_more():
    # 2/2 - 1/4 - 1/4 = 1/2; of +-1 +-1/4 +-1/4 four outcomes are as large. All images alike: 0, and five of eight.
    assert paired_permutation([np.array([2.0]), np.array([-1.0, -1.0])], alternative="greater") == 4 / 8


def test_no_difference_is_no_evidence():
    assert paired_permutation([np.zeros(5), np.zeros(2)]) == 1.0
    assert paired_permutation([np.zeros(20), np.zeros(20)], draws=99) == 1.0


def test_a_sampled_p_value_is_never_zero_and_depends_on_the_seed_alone():
    differences = [np.full(20, 1.0), np.full(20, 2.0)]
    assert paired_permutation(differences, draws=99, alternative="greater") == 1 / 100
    assert paired_permutation(differences, draws=99) == 2 / 100
    mixed = [np.array([0.3, -0.1, 0.2, 0.4, -0.2, 0.1, 0.5]), np.array([-0.3, 0.6, 0.2, 0.1, -0.4, 0.2, 0.3])]
    assert paired_permutation(mixed, seed=1) == paired_permutation(mixed, seed=1)
    assert paired_permutation(mixed, seed=1) != paired_permutation(mixed, seed=2)
    assert paired_permutation(mixed, seed=1) == pytest.approx(paired_permutation(mixed, draws=2**14), abs=0.02)


def rejected(rng: np.random.Generator, mean: float) -> float:
    """Share of 300 simulated experiments, images of unlike spread, that are significant at 5 %."""
    spread = np.linspace(0.5, 2.0, 4)
    tests = [[rng.normal(mean, spread) for _ in range(9)] for _ in range(300)]
    return float(np.mean([paired_permutation(test, draws=199, seed=seed) <= 0.05 for seed, test in enumerate(tests)]))


def test_the_permutation_test_finds_what_is_there_and_little_else():
    rng = np.random.default_rng(0)
    assert 0.025 <= rejected(rng, 0.0) <= 0.075
    assert rejected(rng, 0.75) >= 0.8


def test_too_few_images_have_no_p_value_and_no_effect_size():
    for few in ([], [np.ones(1)]):
        assert math.isnan(paired_permutation(few))
        assert math.isnan(effect_size(few))


@pytest.mark.parametrize("measure", [paired_permutation, effect_size])
def test_undefined_differences_and_empty_concepts_are_refused(measure):
    with pytest.raises(ValueError, match="must be finite. Got 1 of 3 that are not"):
        measure([np.array([1.0, math.nan]), np.ones(1)])
    with pytest.raises(ValueError, match=r"every concept must have an image. Got none for those at \[1\]"):
        measure([np.ones(2), np.ones(0)])


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_keeps_the_order():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.01, 0.02, 0.03, 0.005]), [0.03, 0.04, 0.04, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.6]), [1.0, 1.0])
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).shape == (0,)


def test_holm_does_not_count_tests_that_could_not_be_made():
    np.testing.assert_allclose(holm([math.nan, 0.04, 0.01]), [math.nan, 0.04, 0.02])
    assert np.isnan(holm([math.nan, math.nan])).all()


@pytest.mark.parametrize("p", [[-0.1], [0.5, 1.5]])
def test_holm_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match=r"p values must lie in \[0, 1\]"):
        holm(p)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_p_and_bonferroni_and_ranks_as_p_does(p):
    adjusted = holm(p)
    assert np.all(adjusted >= p)
    assert np.all(adjusted <= np.minimum(1, len(p) * np.array(p)))
    assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)


def test_the_effect_size_counts_in_standard_deviations_of_the_difference():
    assert effect_size([np.array([1.0, 2.0, 3.0])]) == 2.0
    assert effect_size([np.array([1.0]), np.array([2.0, 3.0])]) == 2.0  # images pooled
    assert effect_size([np.array([-1.0, 1.0])]) == 0.0


def test_the_effect_size_without_spread_is_infinite_or_undefined():
    assert effect_size([np.full(3, 0.1)]) == math.inf
    assert effect_size([np.full(2, -0.1), np.full(3, -0.1)]) == -math.inf
    assert math.isnan(effect_size([np.zeros(3)]))


def test_the_percentile_counts_ties_half():
    draws = [1.0, 2.0, 2.0, 3.0] * 5
    assert [percentile_among(value, draws) for value in (0.0, 2.0, 2.5, 4.0)] == [0.0, 0.5, 0.75, 1.0]
    assert math.isnan(percentile_among(2.0, draws[1:]))  # of fewer than twenty it says nothing
