"""Random neurons to compare with, drawn to share with a set what should not matter: layers, activations, weights."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from kn_core.method.two_stages import NeuronSet


class ControlError(ValueError):
    """A set leaves too few other neurons to draw as many from."""


def generator(concept: str, *seed: int) -> np.random.Generator:
    """Random numbers of a concept's own: out of one seed alone, the controls of all concepts would be one draw."""
    return np.random.default_rng([*seed, zlib.crc32(concept.encode())])


def uniform(like: NeuronSet, shape: Sequence[int], rng: np.random.Generator) -> NeuronSet:
    """As many neurons of any layer, none of which `like` holds; `shape` (L, D) is of those that can act.

    Raises ControlError, as all of these do, where `like` holds more than it leaves.
    """
    drawn = others(like.layers * shape[1] + like.units, shape[0] * shape[1], rng)
    return _control(like, "uniform", drawn // shape[1], drawn % shape[1])


def same_layers(like: NeuronSet, width: int, rng: np.random.Generator) -> NeuronSet:
    """For every neuron of `like`, at the same rank, another one of its layer that `like` does not hold."""
    units = np.empty_like(like.units)
    for layer, taken in like.by_layer().items():
        units[like.layers == layer] = others(np.asarray(taken), width, rng, f" of layer {layer}")
    return _control(like, "random", like.layers, units)


def others(taken: np.ndarray, width: int, rng: np.random.Generator, where: str = "") -> np.ndarray:
    """As many of the numbers below `width` that are not `taken`; `where` tells a ControlError what they number."""
    free = np.setdiff1d(np.arange(width), taken)
    _enough(len(taken), len(free), where)
    return rng.choice(free, size=len(taken), replace=False)


def same_activation(like: NeuronSet, activation: np.ndarray, rng: np.random.Generator, near: int = 20) -> NeuronSet:
    """As `same_layers`, but each one of the `near` neurons whose mean |activation|, (L, D), is nearest."""
    return _control(like, "same-activation", like.layers, _nearest(like, activation, rng, near))


def same_norm(like: NeuronSet, norm: np.ndarray, rng: np.random.Generator, near: int = 20) -> NeuronSet:
    """As `same_layers`, but each one of the `near` neurons whose |w_out|, (L, D), is nearest."""
    return _control(like, "same-norm", like.layers, _nearest(like, norm, rng, near))


def _nearest(like: NeuronSet, quantity: np.ndarray, rng: np.random.Generator, near: int) -> np.ndarray:
    """Units drawn without replacement, the best neuron of `like` first, from the nearest that are still free."""
    units = np.empty_like(like.units)
    free = np.ones(quantity.shape, bool)
    free[like.layers, like.units] = False
    for layer, taken in like.by_layer().items():
        _enough(len(taken), free[layer].sum(), f" of layer {layer}")
    for place, (layer, unit) in enumerate(zip(like.layers, like.units, strict=True)):
        left = np.flatnonzero(free[layer])
        distance = np.abs(quantity[layer, left] - quantity[layer, unit])
        nearest = left[np.argpartition(distance, near - 1)[:near]] if len(left) > near else left
        units[place] = rng.choice(nearest)
        free[layer, units[place]] = False
    return units


def _enough(taken: int, free: int, where: str) -> None:
    if free < taken:
        raise ControlError(
            f"A set to compare with needs {taken} other neurons{where}: of {taken + free} there, {free} are left. "
            "Take fewer neurons (`identification.budget`; `perturbation.sweep_n`, under `full` too)."
        )


def _control(like: NeuronSet, method: str, layers: np.ndarray, units: np.ndarray) -> NeuronSet:
    return NeuronSet(like.concept, method, layers, units, np.zeros(len(like)))
