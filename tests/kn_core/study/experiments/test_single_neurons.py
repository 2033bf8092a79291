"""Switching single neurons off, exactly, and holding scores against what that does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from kn_core.method.capture import Target
from kn_core.models.hooks import intervene
from kn_core.study.experiments.single_neurons import (
    ablate,
    beside_scores,
    candidates_to_ablate,
    rank_correlation,
    residual_streams,
)
from tests.toy_world import toy_samples

CAPTION = "A pizza in a forest."


@pytest.fixture
def prompt(tiny_model):
    return tiny_model.prompts([next(toy_samples("pizza", 1, seed=4)).image])[0]


@pytest.fixture
def target(tiny_model) -> Target:
    return Target("pizza", tiny_model.encode(CAPTION)[0][2], 2)


@pytest.mark.parametrize("positions", ["image", "all"])
@pytest.mark.parametrize("batch_size", [16, 3])
def test_an_ablation_is_what_a_whole_run_without_the_neuron_gives(
    tiny_model, prompt, target, positions, batch_size, monkeypatch
):
    monkeypatch.setattr(tiny_model, "batch_size", batch_size)
    layers, units = np.array([2, 0, 1, 0, 1, 2, 2]), np.array([5, 7, 9, 40, 9, 0, 47])
    found = ablate(tiny_model, prompt, CAPTION, target, layers, units, positions)

    def logit(edits):
        with torch.no_grad(), intervene(tiny_model, edits):
            return tiny_model.logits(prompt[None], [CAPTION])[0, target.position, target.token].item()

    def off(unit):
        def edit(activations, first):
            changed = activations.clone()
            changed[:, tiny_model.image_positions if positions == "image" else slice(None), unit] = 0
            return changed

        return edit

    clean = logit({})
    expected = [clean - logit({layer: off(unit)}) for layer, unit in zip(layers, units, strict=True)]
    assert found == pytest.approx(expected, abs=1e-5)
    if positions == "image":
        assert (found[layers == 2] == 0).all()  # the last layer's image tokens reach no word


def test_no_hook_is_left_behind(tiny_model, prompt, target):
    ablate(tiny_model, prompt, CAPTION, target, np.array([0, 2]), np.array([1, 2]))
    assert not any(block.down_proj._forward_pre_hooks for block in tiny_model.ffn)


def test_residual_streams_are_those_of_the_decoder(tiny_model, prompt):
    with torch.no_grad():
        streams = list(residual_streams(tiny_model, prompt[None]))
        expected = tiny_model.decoder.model(inputs_embeds=prompt[None], output_hidden_states=True).hidden_states
    assert len(streams) == 4
    assert all(torch.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(streams[:3], expected, strict=False))


def test_neurons_that_there_are_not(tiny_model, prompt, target):
    with pytest.raises(ValueError, match=r"layers must be in 0..2. Got \[3\]"):
        ablate(tiny_model, prompt, CAPTION, target, np.array([3]), np.array([0]))
    with pytest.raises(ValueError, match=r"units must be in 0..47. Got \[48\]"):
        ablate(tiny_model, prompt, CAPTION, target, np.array([0]), np.array([48]))


def test_the_top_of_every_method_and_others_of_every_layer():
    one, two = np.zeros((3, 10)), np.zeros((3, 10))
    one[0, :2], two[0, 1], two[2, 4] = [3, 2], 5, 4
    chosen = candidates_to_ablate({"one": one, "two": two}, 2, 7, np.random.default_rng(0))
    top = chosen[chosen["stratum"] == "top"]
    assert set(zip(top["layer"], top["unit"], strict=True)) == {(0, 0), (0, 1), (2, 4)}
    rest = chosen[chosen["stratum"] == "random"]
    assert sorted(rest["layer"].value_counts()) == [2, 2, 3]
    assert not chosen.duplicated(["layer", "unit"]).any()
    with pytest.raises(ValueError, match="scores must be"):
        candidates_to_ablate({"one": one, "two": two[:2]}, 2, 7, np.random.default_rng(0))


def ranked_neurons() -> pd.DataFrame:
    """Two concepts, six neurons each: ranked by their effect, the other way round, and not at all."""
    places = pd.DataFrame({"layer": 0, "unit": range(6), "stratum": ["top"] * 2 + ["random"] * 4})
    score, effect = np.array([[6.0, 5, 4, 3, 2, 1]]), np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    held = {"two-stage": score, "stage-1": -score, "stage-2": np.ones((1, 6))}
    return pd.concat([beside_scores(places, effect, held).assign(concept=name) for name in ("bear", "bus")])


def test_rank_correlation_by_hand():
    neurons = ranked_neurons()
    rho = rank_correlation(neurons).set_index(["concept", "method", "over"])["rho"]
    assert rho["bear", "two-stage", "all"] == pytest.approx(1)
    assert rho["bus", "stage-1", "random"] == pytest.approx(-1)
    assert np.isnan(rho["bear", "stage-2", "all"])
    assert len(rho) == 2 * 3 * 2
    with pytest.raises(ValueError, match="one effect a concept and method"):
        rank_correlation(pd.concat([neurons, neurons]))
