"""A model in half precision: the same method, with numbers that are the float32 ones up to rounding."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from kn_core.method import identification, perturbation
from kn_core.method.capture import Capture, capture, find_target
from kn_core.method.interventions import Setting, noisy_weights
from kn_core.method.perturbation import Picture, Trial
from kn_core.method.rivals import integrated_gradients, pan, schwettmann
from kn_core.method.two_stages import NeuronSet
from kn_core.models import MiniGPT4, hooks
from kn_core.models.hooks import gradients, plain
from kn_core.settings import Perturbation
from kn_core.study.experiments.single_neurons import ablate
from tests.toy_world import toy_samples

CAPTION = "A bear in a forest."
SAMPLE = next(toy_samples("bear", 1, seed=9))
HALVES = [torch.bfloat16, torch.float16]
# Largest error over the largest number, as the model rounds to 8 or 11 bits in each of its layers.
ERROR = {torch.bfloat16: 0.15, torch.float16: 0.02}


@pytest.fixture
def halved(taught_model: MiniGPT4):
    return lambda dtype: deepcopy(taught_model).to(dtype)


def captured(model: MiniGPT4) -> Capture:
    return capture(model, SAMPLE.image, SAMPLE.without, CAPTION, find_target(model, CAPTION, "bear"))


def error(found: np.ndarray | torch.Tensor, expected: np.ndarray | torch.Tensor) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("dtype", HALVES)
def test_captures_and_scores_in_half_precision_are_those_of_float32(taught_model, halved, dtype):
    model, target = halved(dtype), find_target(taught_model, CAPTION, "bear")
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    half, full = captured(model), captured(taught_model)
    for name in Capture.__annotations__:
        values = getattr(half, name)
        assert (values.dtype, values.device.type, values.requires_grad) == (torch.float32, "cpu", False)
        assert error(values, getattr(full, name)) < ERROR[dtype], name
    assert error(half.gradcam, full.gradcam) < ERROR[dtype]
    assert error(schwettmann(half), schwettmann(full)) < ERROR[dtype]
    for variant in ("released", "gated"):
        expected = pan(taught_model, full, target, variant)
        assert error(pan(model, half, target, variant), expected) < ERROR[dtype]
    dai = integrated_gradients(taught_model, SAMPLE.image, CAPTION, target, steps=5)
    assert error(integrated_gradients(model, SAMPLE.image, CAPTION, target, steps=5), dai) < 2 * ERROR[dtype]


def test_gradients_that_float16_does_not_hold_are_kept(halved, taught_model, monkeypatch):
    """Gradients of 1e-7 and less, as at the image tokens of a model of 32 layers."""
    full = deepcopy(taught_model)
    for model in (full, half := halved(torch.float16)):
        model.decoder.model.norm.weight.mul_(2.0**-16)
    expected, found = captured(full), captured(half)
    assert expected.gradient[0].abs().max() < 1e-5
    assert error(found.gradient, expected.gradient) < 0.05
    assert error(found.gradcam, expected.gradcam) < 0.05
    rough = hooks.SCALES | {torch.float16: (1.0,)}
    monkeypatch.setattr(hooks, "SCALES", rough)
    naive = captured(half).gradient
    lost = (naive == 0) & (found.gradient != 0)
    assert float(lost.float().mean()) > 0.5


def test_gradients_that_overflow_at_one_scale_are_taken_at_a_smaller_one(halved, taught_model, monkeypatch):
    half = halved(torch.float16)
    tried = []
    original = torch.autograd.grad

    def counted(*arguments, **settings):
        tried.append(1)
        return original(*arguments, **settings)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    monkeypatch.setattr(hooks, "SCALES", {torch.float16: (2.0**40, 2.0**30, 1.0)})
    assert error(captured(half).gradient, captured(taught_model).gradient) < ERROR[torch.float16]
    assert len(tried) == 4  # three scales, and float32 at once
    monkeypatch.setattr(hooks, "SCALES", {torch.float16: (2.0**40, 2.0**30)})
    with pytest.raises(FloatingPointError, match="overflow torch.float16 .* Set model.dtype to bfloat16"):
        captured(half)


def test_a_power_of_two_changes_no_digit():
    x = torch.tensor([0.1, -3.0], dtype=torch.float16, requires_grad=True)
    (found,) = gradients((x * x).sum(), [x], torch.float16)
    assert found.dtype == torch.float32
    assert found.tolist() == (2 * x).detach().float().tolist()
    assert plain(x.detach()).tolist() == x.tolist()
    double = torch.ones(1, dtype=torch.float64, requires_grad=True)
    assert gradients(double.sum(), [double], torch.float64)[0].dtype == torch.float64
    assert plain(double).dtype == torch.float64


def a_picture(model: MiniGPT4, held_out: bool = True) -> Picture:
    shown, without = model.prompts([SAMPLE.image, SAMPLE.without])
    target = find_target(model, CAPTION, "bear")
    return Picture("a", "bear", CAPTION, target, held_out, False, held_out, shown, without)


@pytest.mark.parametrize("dtype", HALVES)
def test_interventions_in_half_precision(taught_model, halved, dtype):
    model = halved(dtype)
    assert model.caption([SAMPLE.image, SAMPLE.without]) == ["A bear in a forest.", "A forest."]
    found = NeuronSet("bear", "two-stage", np.array([1, 0, 1]), np.array([5, 7, 9]), np.array([3.0, 2.0, 1.0]))
    kinds = [("noise", "image"), ("noise", "all"), ("zero", "text"), ("mean", "image"), ("patch", "image")]
    kinds.append(("weights", "all"))
    planned = [Trial(found, Setting(kind, positions, 3, 1.0, 0), "own") for kind, positions in kinds]
    mean = torch.full((3, 48), 0.5)
    half, full = (perturbation.run(one, [a_picture(one)], planned, mean, 12) for one in (model, taught_model))
    assert half["intervention"].tolist() == [kind for kind, _ in kinds]
    for column in ("clean_probability", "target_probability", "retained_probability"):
        assert half[column].to_numpy() == pytest.approx(full[column].to_numpy(), abs=ERROR[dtype])
    assert half["caption"].tolist() == full["caption"].tolist()
    assert half["perplexity"].to_numpy() == pytest.approx(full["perplexity"].to_numpy(), rel=2 * ERROR[dtype])


@pytest.mark.parametrize("dtype", HALVES)
def test_noisy_weights_come_and_go_exactly(halved, dtype):
    model = halved(dtype)
    model.w_out(1).mul_(2.0**-12)  # the squares of these are nothing in float16
    before = model.w_out(1).clone()
    found = NeuronSet("bear", "two-stage", np.array([1]), np.array([5]), np.array([1.0]))
    with noisy_weights(model, found, Setting("weights", "all", 1, 1.0, 0)):
        changed = (model.w_out(1) != before).any(dim=0)
        assert changed.nonzero().ravel().tolist() == [5]
        noise = (model.w_out(1) - before)[:, 5].float()
        assert float(noise.square().mean() / before[:, 5].float().square().mean()) == pytest.approx(1, abs=0.5)
    assert torch.equal(model.w_out(1), before)


@pytest.mark.parametrize("dtype", HALVES)
def test_single_ablations_and_tables_in_half_precision(taught_model, halved, toy_profile, dtype):
    model, target = halved(dtype), find_target(taught_model, CAPTION, "bear")
    layers, units = np.repeat([0, 1], 10), np.tile(np.arange(0, 40, 4), 2)
    half, full = (
        ablate(one, one.prompts([SAMPLE.image])[0], CAPTION, target, layers, units) for one in (model, taught_model)
    )
    assert half.dtype == float
    assert error(half, full) < 2 * ERROR[dtype]
    settings = toy_profile.identification
    maps = model.token_maps([SAMPLE.image])[0]
    pictures = SAMPLE.image, SAMPLE.without
    pair, stages = identification.score_pair(model, *pictures, CAPTION, target, SAMPLE.mask, maps, settings)
    scores = identification.scores_of(model, pair, target, stages)
    stacked = {name: score[None] for name, score in scores.items()}
    protocol = Perturbation(rivals=("schwettmann",), controls=("random", "same-norm"), draws=3, seeds=3)
    thresholds = {"delta": 0.0, "gradcam": 0.0}
    table = identification.neurons("bear", model, stacked, thresholds, settings, protocol, 0)
    assert set(table["method"]) == {"two-stage", "schwettmann", "random", "same-norm"}
    assert (table.loc[table["method"] == "two-stage", "top_tokens"].str.len() > 0).all()
