"""A model on another device than the CPU gives the same numbers, and none of them stays there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import dispatch_model

from kn_core.method import identification, perturbation
from kn_core.method.capture import Capture, capture, find_target
from kn_core.method.interventions import Setting, inpainted_activations, noisy_weights
from kn_core.method.perturbation import Picture, Trial
from kn_core.method.rivals import integrated_gradients
from kn_core.method.two_stages import NeuronSet
from kn_core.models import MiniGPT4
from kn_core.settings import Perturbation
from kn_core.study.experiments.single_neurons import ablate
from tests.elsewhere import DEVICE, There, accelerator, to_accelerator
from tests.toy_world import toy_samples

SAMPLE = next(toy_samples("bear", 1, seed=9))
CAPTION = "A bear in a forest."
FOUND = NeuronSet("bear", "two-stage", np.array([1, 0, 1]), np.array([5, 7, 9]), np.array([3.0, 2.0, 1.0]))


@pytest.fixture
def models(make_model):
    """The same model here and there; what runs in the test runs with the accelerator."""
    here, there = make_model(), make_model()
    with accelerator():
        yield here, to_accelerator(there)


def captured(model: MiniGPT4) -> Capture:
    return capture(model, SAMPLE.image, SAMPLE.without, CAPTION, find_target(model, CAPTION, "bear"))


def test_the_accelerator_is_one(models):
    _, there = models
    ids = there.before.cpu()
    assert there.unembed.device == DEVICE
    with pytest.raises(RuntimeError, match="add: expected all tensors to be on the same device"):
        there.unembed + torch.ones(there.unembed.shape)
    with pytest.raises(TypeError, match="can't convert a tensor of the accelerator to numpy"):
        there.unembed.numpy()
    assert isinstance(there.unembed[ids] * torch.tensor(2.0), There)
    assert isinstance(torch.ones(2, device=there.unembed.device), There)
    assert not isinstance(there.unembed.cpu(), There)
    assert isinstance(torch.ones(2).to(there.unembed), There)


def test_prompts_captions_logits_and_perplexities(models):
    here, there = models
    images, captions = [SAMPLE.image, SAMPLE.without], [CAPTION, "A bus."]
    assert there.prompts(images).device == there.logits(images, captions).device == DEVICE
    assert torch.equal(there.prompts(images).cpu(), here.prompts(images))
    assert torch.equal(there.logits(images, captions).cpu(), here.logits(images, captions))
    assert there.respond(images, captions, 6)[0] == here.respond(images, captions, 6)[0]
    assert there.perplexity(captions) == pytest.approx(here.perplexity(captions))
    assert there.top_tokens([0, 2], [3, 4]) == here.top_tokens([0, 2], [3, 4])


def test_captures_and_rivals(models):
    here, there = models
    one, other = captured(here), captured(there)
    for name in Capture.__annotations__:
        assert not isinstance(getattr(other, name), There)
        assert torch.equal(getattr(other, name), getattr(one, name))
    target = find_target(here, CAPTION, "bear")
    scores = [integrated_gradients(model, SAMPLE.image, CAPTION, target, steps=3) for model in models]
    assert np.array_equal(*scores)


def a_picture(model: MiniGPT4) -> Picture:
    shown, without = model.prompts([SAMPLE.image, SAMPLE.without])
    return Picture("a", "bear", CAPTION, find_target(model, CAPTION, "bear"), True, False, True, shown, without)


def test_interventions(models):
    kinds = [("noise", "image"), ("noise", "all"), ("zero", "text"), ("mean", "image"), ("patch", "image")]
    planned = [Trial(FOUND, Setting(*kind, 3, 2.0, 0), "own") for kind in [*kinds, ("weights", "all")]]
    mean = torch.full((3, 48), 0.5)
    frames = [perturbation.run(model, [a_picture(model)], planned, mean, 8) for model in models]
    pd.testing.assert_frame_equal(*frames)
    _, there = models
    before = there.w_out(1).clone()
    with noisy_weights(there, FOUND, Setting("weights", "all", 3, 1.0, 0)):
        assert not torch.equal(there.w_out(1), before)
    assert torch.equal(there.w_out(1), before)


def test_ablations_and_the_table_of_neurons(models, toy_profile):
    layers, units = np.array([0, 1, 1, 2]), np.array([3, 5, 7, 9])
    target, settings = find_target(models[0], CAPTION, "bear"), toy_profile.identification
    protocol = Perturbation(rivals=("pan-released",), controls=("random", "same-norm"), draws=3, seeds=3)
    effects, tables = [], []
    for model in models:
        prompt = model.prompts([SAMPLE.image])[0]
        effects.append(ablate(model, prompt, CAPTION, target, layers, units, "all"))
        maps = model.token_maps([SAMPLE.image])[0]
        pictures = SAMPLE.image, SAMPLE.without
        pair, stages = identification.score_pair(model, *pictures, CAPTION, target, SAMPLE.mask, maps, settings)
        scores = identification.scores_of(model, pair, target, stages)
        stacked = {name: score[None] for name, score in scores.items()}
        limits = {"delta": 0.1, "gradcam": 0.1}
        tables.append(identification.neurons("bear", model, stacked, limits, settings, protocol, 0))
    assert np.array_equal(*effects)
    pd.testing.assert_frame_equal(*tables)


def test_activations_without_the_object(models):
    found = [inpainted_activations(model, model.prompts([SAMPLE.image])) for model in models]
    assert not isinstance(found[1], There)
    assert torch.equal(*found)


def test_a_decoder_that_accelerate_has_spread(make_model):
    """On one device, as there are no two: its hooks wrap every module's forward pass, and ours must still see it."""
    plain, spread = make_model(), make_model()
    places = dict.fromkeys(["model.embed_tokens", *(f"model.layers.{i}" for i in range(3)), "model.norm"], "cpu")
    dispatch_model(spread.decoder, places | {"model.rotary_emb": "cpu", "lm_head": "cpu"}, force_hooks=True)
    assert all(hasattr(module, "_hf_hook") for module in (spread.head, *spread.decoder.model.layers))
    images = [SAMPLE.image, SAMPLE.without]
    assert spread.respond(images, [CAPTION, "A bus."], 6)[0] == plain.respond(images, [CAPTION, "A bus."], 6)[0]
    one, other = captured(plain), captured(spread)
    assert all(torch.equal(getattr(other, name), getattr(one, name)) for name in Capture.__annotations__)
    target = find_target(plain, CAPTION, "bear")
    scores = [integrated_gradients(model, SAMPLE.image, CAPTION, target, steps=3) for model in (plain, spread)]
    assert np.array_equal(*scores)
    effects = [
        ablate(m, m.prompts(images)[0], CAPTION, target, np.array([0, 2]), np.array([3, 9])) for m in (plain, spread)
    ]
    assert np.array_equal(*effects)
