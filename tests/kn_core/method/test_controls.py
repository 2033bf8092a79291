"""Controls share with the neurons what should not matter, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from kn_core.method.controls import ControlError, generator, same_activation, same_layers, same_norm, uniform
from kn_core.method.two_stages import NeuronSet

LIKE = NeuronSet("bear", "two-stage", np.array([1, 0, 1, 2]), np.array([5, 7, 9, 0]), np.array([4.0, 3.0, 2.0, 1.0]))
QUANTITY = np.tile(np.arange(60.0), (3, 1))  # a unit's own number, in each of three layers
DRAWN = {
    "random": lambda rng: same_layers(LIKE, 60, rng),
    "uniform": lambda rng: uniform(LIKE, (3, 60), rng),
    "same-activation": lambda rng: same_activation(LIKE, QUANTITY, rng, near=4),
    "same-norm": lambda rng: same_norm(LIKE, QUANTITY, rng, near=4),
}


@pytest.mark.parametrize("method", DRAWN)
def test_a_control_is_as_many_others_and_follows_from_the_seed(method):
    held = set(zip(LIKE.layers, LIKE.units, strict=True))
    for seed in range(20):
        drawn = DRAWN[method](np.random.default_rng(seed))
        neurons = set(zip(drawn.layers, drawn.units, strict=True))
        assert len(neurons) == len(LIKE)
        assert not neurons & held
        assert (drawn.concept, drawn.method) == ("bear", method)
        again = DRAWN[method](np.random.default_rng(seed))
        assert np.array_equal(drawn.units, again.units)
        if method != "uniform":
            assert np.array_equal(drawn.layers, LIKE.layers)


@pytest.mark.parametrize("method", ["same-activation", "same-norm"])
def test_a_matched_control_is_near_in_what_is_matched(method):
    for seed in range(20):
        drawn = DRAWN[method](np.random.default_rng(seed))
        assert (np.abs(drawn.units - LIKE.units) <= 5).all()  # the four nearest, others taken


def test_where_few_are_free_all_of_them_are_near():
    quantity = np.arange(6.0)[None]
    like = NeuronSet("bear", "two-stage", np.zeros(3, int), np.array([0, 1, 2]), np.zeros(3))
    drawn = same_norm(like, quantity, np.random.default_rng(0), near=20)
    assert sorted(drawn.units) == [3, 4, 5]


def test_uniform_neurons_lie_in_all_layers():
    layers = np.concatenate([DRAWN["uniform"](np.random.default_rng(seed)).layers for seed in range(300)])
    assert np.allclose(np.bincount(layers, minlength=3) / len(layers), 1 / 3, atol=0.05)


def test_a_concept_s_controls_are_its_own():
    draws = [same_layers(LIKE, 1000, generator(concept, 2)).units for concept in ("bear", "bus", "bear")]
    assert (draws[0] == draws[2]).all() and not np.intersect1d(draws[0], draws[1]).size
    assert (generator("bear", 2, 0).random(3) != generator("bear", 2, 1).random(3)).all()


@pytest.mark.parametrize("method", DRAWN)
def test_a_set_that_leaves_too_few_others_is_named(method):
    quantity, units = np.arange(5.0)[None], np.arange(3)
    like = NeuronSet("bear", "two-stage", np.zeros(3, int), units, np.zeros(3))
    rng = np.random.default_rng(0)
    draw = {
        "random": lambda: same_layers(like, 5, rng),
        "uniform": lambda: uniform(like, (1, 5), rng),
        "same-activation": lambda: same_activation(like, quantity, rng),
        "same-norm": lambda: same_norm(like, quantity, rng),
    }[method]
    with pytest.raises(ControlError, match=r"needs 3 other neurons.*\b2 are left.*identification\.budget"):
        draw()
