"""Rival methods against independent computations: captum's, and the residual stream's own arithmetic."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradientXActivation
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from kn_core.method.capture import Target, capture
from kn_core.method.identification import scores_of
from kn_core.method.rivals import directly, integrated_gradients, pan, schwettmann
from kn_core.models.hooks import record
from tests.toy_world import toy_samples

CAPTION = "A pizza in a forest."


@pytest.fixture
def sample():
    return next(toy_samples("pizza", 1, seed=4))


@pytest.fixture
def target(tiny_model) -> Target:
    return Target("pizza", tiny_model.encode(CAPTION)[0][2], 2)


@pytest.fixture
def pair(tiny_model, sample, target):
    return capture(tiny_model, sample.image, sample.without, CAPTION, target)


class Logit(torch.nn.Module):
    """Embedded prompt and caption (B, t, H) -> the target's logit, or its probability, at the last position (B, 1)."""

    def __init__(self, model, target: Target, probability: bool = False) -> None:
        super().__init__()
        self.model, self.token, self.probability = model, target.token, probability

    def forward(self, embeds):
        logits = self.model.decoder(inputs_embeds=embeds).logits[:, -1]
        return (logits.softmax(-1) if self.probability else logits)[:, [self.token]]


def said(model, sample, target: Target):
    embeds = model.teacher_forced(model.prompts([sample.image]), [CAPTION])[:, : model.prompt_length + target.position]
    return embeds.detach().requires_grad_()


def test_schwettmann_and_gradcam_are_captum_s_gradient_times_activation(tiny_model, sample, target, pair):
    logit, embeds = Logit(tiny_model, target), said(tiny_model, sample, target)
    for layer in range(3):
        gate, function = (getattr(tiny_model.ffn[layer], name) for name in ("gate_proj", "act_fn"))
        before = LayerGradientXActivation(logit, gate).attribute(embeds, target=0)[0, tiny_model.image_positions]
        after = LayerGradientXActivation(logit, function).attribute(embeds, target=0)[0, tiny_model.image_positions]
        assert schwettmann(pair)[layer] == pytest.approx(before.amax(0).detach().numpy(), rel=1e-5, abs=1e-6)
        assert pair.gradcam[layer].numpy() == pytest.approx(after.detach().numpy(), rel=1e-5, abs=1e-6)


def test_dai_s_are_captum_s_integrated_gradients_of_the_last_position(tiny_model, sample, target):
    for module in tiny_model.decoder.double().modules():
        if isinstance(module, LlamaRMSNorm):  # transformers' own computes in float32, whose rounding is above 1e-5
            module.forward = partial(F.rms_norm, normalized_shape=(32,), weight=module.weight, eps=1e-6)
    probability, embeds = Logit(tiny_model, target, probability=True), said(tiny_model, sample, target).detach()
    found = integrated_gradients(tiny_model, sample.image, CAPTION, target)
    assert found.shape == (3, 48)
    last = embeds.shape[1] - 1

    for layer in range(3):
        function = tiny_model.ffn[layer].act_fn
        with record(tiny_model) as clean:
            tiny_model.decoder(inputs_embeds=embeds)
        own = clean[layer].detach()
        baseline = own.clone()
        baseline[0, last] = 0  # only the last position is scaled

        class FromLayer(torch.nn.Module):
            def forward(self, activations, function=function):
                hook = function.register_forward_hook(lambda *_: activations)
                try:
                    return probability(embeds.expand(len(activations), -1, -1))
                finally:
                    hook.remove()

        explained = IntegratedGradients(FromLayer()).attribute(
            own, baselines=baseline, target=0, n_steps=20, method="riemann_right"
        )
        assert found[layer] == pytest.approx(explained[0, last].detach().numpy(), rel=1e-5, abs=1e-9)


def test_some_layers_alone_and_more_steps(tiny_model, sample, target):
    whole = integrated_gradients(tiny_model, sample.image, CAPTION, target, steps=3)
    some = integrated_gradients(tiny_model, sample.image, CAPTION, target, layers=[2, 0], steps=3)
    assert np.allclose(some, whole[[2, 0]])


def test_many_steps_add_up_to_the_change_of_the_probability(tiny_model, sample, target):
    """The axiom of completeness: scores of a layer sum to P(c | w) - P(c | 0)."""
    embeds = said(tiny_model, sample, target)
    clean = Logit(tiny_model, target, probability=True)(embeds)

    def silence(_, __, output):
        output = output.clone()
        output[:, -1] = 0
        return output

    hook = tiny_model.ffn[1].act_fn.register_forward_hook(silence)
    without = Logit(tiny_model, target, probability=True)(embeds)
    hook.remove()
    total = integrated_gradients(tiny_model, sample.image, CAPTION, target, layers=[1], steps=2000).sum()
    assert total == pytest.approx((clean - without).item(), rel=2e-2)


def test_pan_s_gated_scores_add_up_to_what_the_layer_writes_for_the_word(tiny_model, sample, target, pair):
    written = []
    hooks = [
        block.register_forward_hook(lambda _, __, output: written.append(output[0, -1])) for block in tiny_model.ffn
    ]
    tiny_model.decoder(inputs_embeds=said(tiny_model, sample, target))
    for hook in hooks:
        hook.remove()
    direct = [(output @ tiny_model.unembed[target.token]).item() for output in written]
    assert pan(tiny_model, pair, target, "gated").sum(axis=1) == pytest.approx(direct, rel=1e-5)


def test_pan_s_score_is_what_the_layer_no_longer_writes_for_the_word_without_the_neuron(
    tiny_model, sample, target, pair
):
    read = []
    hooks = [block.register_forward_pre_hook(lambda _, x: read.append(x[0][0, -1])) for block in tiny_model.ffn]
    tiny_model.decoder(inputs_embeds=said(tiny_model, sample, target))
    for hook in hooks:
        hook.remove()
    gated, released = (pan(tiny_model, pair, target, variant) for variant in ("gated", "released"))
    for layer, (block, x) in enumerate(zip(tiny_model.ffn, read, strict=True)):
        rounding = 1e-5 * float(np.abs(gated[layer]).max())
        product = F.silu(block.gate_proj(x)) * block.up_proj(x)  # (D,)
        without = product.expand(48, -1) * (1 - torch.eye(48))  # row i lacks neuron i
        lost = (block.down_proj(product) - block.down_proj(without)) @ tiny_model.unembed[target.token]
        assert gated[layer] == pytest.approx(lost.detach().numpy(), rel=1e-5, abs=rounding)
        assert released[layer] * block.up_proj(x).detach().numpy() == pytest.approx(gated[layer], rel=1e-5)


def test_nothing_is_left_behind(tiny_model, sample, target, pair):
    integrated_gradients(tiny_model, sample.image, CAPTION, target, steps=2)
    assert tiny_model.first_position == 0
    for block in tiny_model.ffn:
        assert not block.act_fn._forward_hooks
        assert not block.act_fn._forward_pre_hooks
        assert not block.down_proj._forward_pre_hooks


def test_what_neurons_write_for_a_word_is_read_once_for_both_variants_and_all_pairs(
    tiny_model, target, pair, monkeypatch
):
    alone, read, w_out = (
        {v: pan(tiny_model, pair, target, v) for v in ("gated", "released")},
        [],
        type(tiny_model).w_out,
    )
    monkeypatch.setattr(type(tiny_model), "w_out", lambda self, layer: read.append(layer) or w_out(self, layer))
    direct = directly(tiny_model)
    for _ in range(2):
        found = scores_of(tiny_model, pair, target, {}, direct)
        assert all((found[f"pan-{variant}"] == score).all() for variant, score in alone.items())
    assert read == list(range(tiny_model.n_layers))
