"""Thresholds from a null: each rule by hand, and its promise on planted truth."""

from __future__ import annotations

import numpy as np
import pytest

from kn_core.method import planted_truth, thresholds
from kn_core.settings import Rules


def test_w_is_the_mean_over_its_error_and_the_median_neurons():
    x = np.array([[1.0, 2.0, 0.0], [3.0, 6.0, 0.0]])  # sd 1.41, 2.83, 0; errors 1, 2, 0, their median 1
    assert thresholds.contrast(x) == pytest.approx([2 / (1 + 1), 4 / (2 + 1), 0])
    assert thresholds.standardised(x).mean(axis=0) == pytest.approx(thresholds.contrast(x))
    assert thresholds.t_statistic(x)[:2] == pytest.approx([2, 2])


def test_a_decoy_is_brought_to_where_the_typical_neuron_moves_as_far():
    d, e = np.array([[1.0, 2.0, 9.0], [2.0, 2.0, 2.0]]), np.array([[4.0, -4.0, 4.0], [0.0, 0.0, 0.0]])
    assert thresholds.matched(d, e).tolist() == [[2, -2, 2], [0, 0, 0]]


@pytest.mark.parametrize(("q", "kept"), [(0.2, 0), (0.25, 4), (0.35, 6), (0.5, 7)])
def test_the_decoy_rule_takes_the_lowest_threshold_that_promises_q(q, kept):
    w = np.array([9.0, 8, 7, 6, 5, 0.5, 0.3, -5, -0.4, -0.2])  # at 6: 1/4, at 5: 2/5, at .5: 2/6, at .3: 3/7
    assert (w > thresholds.decoy(w, q)).sum() == kept


def test_without_a_negative_one_in_q_is_still_to_be_reached():
    w = np.arange(1.0, 10)  # nine neurons promise no better than 1/9
    assert thresholds.decoy(w, 0.1) == np.inf
    assert (w > thresholds.decoy(w, 0.12)).all()


def test_false_shares_end_at_one():
    assert thresholds.false_share(20, 1) == 0.1
    assert thresholds.false_share(0, 0) == 1
    assert thresholds.false_share(4, 40) == 1


def test_benjamini_hochberg_keeps_what_the_step_up_rule_keeps():
    statistic = np.array([9.0, 5.0, 3.5, 0.1, -1, -3])  # p of 9 degrees: 4e-6, 4e-4, .0033, .46, .83, .99
    assert (statistic > thresholds.benjamini_hochberg(statistic, 10, 0.01)).tolist() == [True] * 3 + [False] * 3
    assert (statistic > thresholds.benjamini_hochberg(statistic, 10, 0.003)).sum() == 2
    assert thresholds.benjamini_hochberg(statistic[3:], 10, 0.1) == np.inf


def test_rules_on_the_difference_alone():
    d = np.array([10.0, 5.0, 3.0, 1.0, 1.0, -4.0])
    assert thresholds.share_of_largest(d, 0.2) == 2
    for share, kept in ((0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3)):
        assert (d > thresholds.share_of_total(d, share)).sum() == kept
    assert (d > thresholds.elbow(d)).sum() == 2  # the line from 10 to 1 is at 7.75, 5.5, 3.25: farthest above 5
    assert thresholds.elbow(np.ones(5)) == thresholds.share_of_total(-d[:1], 0.5) == np.inf


def test_stability_counts_halves():
    x = np.array([[9.0, 1, 0], [9, 1, 0], [9, 0, 1], [9, 0, 1]]) + np.arange(4)[:, None] / 100
    found = thresholds.stability(x, 1, 50, 0)
    assert found.tolist() == [1, 0, 0]
    assert thresholds.stability(x, 2, 50, 0)[1:].sum() == pytest.approx(1)
    assert np.isnan(thresholds.stability(x[:3], 1, 5, 0)).all()
    assert thresholds.expected_false(10, 1000, 0.75) == 0.2


def test_what_a_rule_would_keep_with_the_two_exchanged_is_what_it_is_said_to_get_wrong():
    rng = np.random.default_rng(0)
    d, e = rng.normal(size=(2, 8, 40, 10))
    d[:, :5] += 4
    found = thresholds.rules(d, e, Rules(best=50), 0.9, 0)
    swapped = thresholds.rules(e, d, Rules(best=50), 0.9, 0)
    assert found["raw-low"].exchanged == swapped["raw-low"].kept.sum()
    assert found["stability"].exchanged == swapped["stability"].kept.sum()
    assert found["quantile"].kept.sum() == 40
    assert found["decoy"].false_share <= 0.1
    assert found["decoy"].kept[:5].sum() > 40 > 10 > found["decoy"].kept[5:].sum()


def test_where_all_answer_alike_nothing_is_found():
    x = np.random.default_rng(0).normal(size=(10, 500))
    x -= 0.3  # the decoys move them more
    assert thresholds.sign_flips(x, 0.1, 50, 0) == np.inf
    assert thresholds.automatic(x, Rules(), 0) == np.inf
    assert thresholds.local_fdr(thresholds.t_statistic(x), 10) > thresholds.t_statistic(x).max()


def test_on_planted_truth_rules_from_a_null_keep_their_promise_and_a_quantile_promises_nothing():
    held = planted_truth.held(Rules(), 0.95).groupby("rule")[["false", "estimated", "found"]].mean()
    assert held.loc["decoy", "false"] < 0.1 < 0.7 < held.loc["decoy", "found"]
    assert (held.loc[["sign-flips", "bh", "local-fdr", "stability"], "false"] < 0.15).all()
    assert (held.loc[["sign-flips", "bh", "local-fdr", "stability"], "found"] > 0.7).all()
    assert held.loc["quantile", "false"] == pytest.approx(0.84, abs=0.02)
    assert (held["estimated"] - held["false"]).between(-0.01, 0.08).all()  # no rule is flattered
