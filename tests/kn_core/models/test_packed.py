"""Weights of 8 and 4 bits, and a model that is spread: the same method, with numbers that are close or the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from torch import nn

from kn_core.method.capture import Target, capture
from kn_core.method.interventions import Setting, noisy_weights
from kn_core.method.two_stages import NeuronSet
from kn_core.models import load_model, packed
from kn_core.models.hooks import intervene
from tests import tiny_checkpoints
from tests.tiny_checkpoints import FAMILIES, pictures
from tests.tiny_families import adapted, whole

CAPTION = "A bear in a forest."


def captured(model):
    ids, _ = model.encode(CAPTION)
    return capture(model, *pictures(2), CAPTION, Target("bear", ids[1], 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A LLaVA whose decoder's matrices have sizes that 4-bit blocks divide."""
    config = FAMILIES["llava"].config(340)
    for name, size in (("hidden_size", 64), ("intermediate_size", 128), ("num_key_value_heads", 4), ("head_dim", 16)):
        setattr(config.text_config, name, size)
    return tiny_checkpoints.save("llava", tmp_path_factory.mktemp("llava"), config)


@pytest.mark.parametrize(("bits", "error"), [("8-bit", 0.02), ("4-bit", 0.2)])
@pytest.mark.filterwarnings("ignore")  # of bitsandbytes
def test_gradients_reach_activations_through_packed_weights(folder, bits, error):
    pytest.importorskip("bitsandbytes", reason="kn-core[packed] is not installed")
    asked = {"before": FAMILIES["llava"].before, "after": FAMILIES["llava"].after, "device": "cpu"}
    full, model = load_model(folder, **asked), load_model(folder, bits=bits, **asked)
    assert packed.packed(model.ffn[0].down_proj) and not packed.packed(model.head)
    assert model.ffn_width == 128
    for layer in range(3):
        expected = full.w_out(layer)
        assert (model.w_out(layer) - expected).abs().max() < error * expected.abs().max()
        told = model.w_out(layer)[:, 7]
        assert torch.allclose(
            told, model.ffn[layer].down_proj(nn.functional.one_hot(torch.tensor([7]), 128).float())[0]
        )
    for module, own in zip(model.model.modules(), full.model.modules(), strict=True):
        if isinstance(own, nn.Linear) and packed.packed(module):
            own.weight.data = packed.dense(module).clone()
    one, other = captured(full), captured(model)  # but for rounding to 8 bits, which is what LLM.int8 reads, too
    for name in ("original", "gradient", "gradcam"):
        a, b = getattr(one, name).flatten(), getattr(other, name).flatten()
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > (0.98 if bits == "8-bit" else 0.99999), name
    with intervene(model, {0: lambda values, _: values * 0}):  # whose hook the output weights do not see
        assert torch.equal(model.w_out(0)[:, 7], model.w_out(0)[:, 7])
        assert model.w_out(0).any()
    assert model.top_tokens([0, 2, 0], [7, 3, 9], 2)[0] == model.top_tokens([0], [7], 2)[0]
    chosen = NeuronSet("bear", "x", np.array([0]), np.array([1]), np.array([1.0]))
    setting = Setting("weights", "all", 1, 1.0, 0)
    with pytest.raises(ValueError, match="packed weights take no noise"), noisy_weights(model, chosen, setting):
        pass


def test_without_the_package_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(packed, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"8-bit weights need bitsandbytes: `pip install kn-core\[packed\]`"):
        packed.how("8-bit", torch.float32)


@pytest.mark.parametrize("name", ["qwen3_vl", "gemma3"])
def test_a_model_that_accelerate_has_spread_gives_the_same_numbers(name):
    """On one device, as there are no two: hooks of accelerate's wrap every module, and ours must still see it."""
    model = whole(name)
    plain, images = adapted(name, whole(name)), pictures(2)
    places = {part: "cpu" for part, _ in model.model.named_children()}
    dispatch_model(
        model, {f"model.{part}": place for part, place in places.items()} | {"lm_head": "cpu"}, force_hooks=True
    )
    spread = adapted(name, model)
    assert hasattr(model.lm_head, "_hf_hook")
    assert spread.caption(images, 6) == plain.caption(images, 6)
    assert torch.equal(captured(spread).gradcam, captured(plain).gradcam)


def test_a_checkpoint_is_spread_over_what_there_is(folder):
    asked = {"before": FAMILIES["llava"].before, "after": FAMILIES["llava"].after}
    spread, plain = (load_model(folder, device=device, **asked) for device in ("spread", "cpu"))
    assert torch.equal(spread.logits(pictures(1)), plain.logits(pictures(1)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["qwen3_vl", "paligemma"])
def test_halves_are_close(name, dtype):
    half, full = adapted(name, whole(name).to(getattr(torch, dtype))), adapted(name)
    one, other = captured(full), captured(half)
    assert half.before.dtype == torch.long and half.unembed.dtype == getattr(torch, dtype)
    pair = torch.stack([one.gradcam.flatten(), other.gradcam.flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.98
