"""Counts of operations and numbers by hand, against torch's own count on nets of a few hundred weights."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Blip2VisionConfig, Blip2VisionModel, DynamicCache, LlamaConfig, LlamaForCausalLM

from book.appendix.roofline import Decoder, Load, Machine, ViT
from book.appendix.workload import CAPTIONERS
from kn_core.models.towers import EfficientNetLite0

SHAPE = Decoder(layers=3, hidden=8, ffn=12, heads=4, kv_heads=2, vocabulary=20)


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).requires_grad_(False)


def counted(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_a_pass_by_hand():
    # A layer: queries and output 2 x 8 x 8, keys and values 2 x 8 x 4, gate, up and down 3 x 8 x 12.
    matrices = 128 + 64 + 288
    assert SHAPE.weights == 3 * (matrices + 16) + 8 + 2 * 160
    assert SHAPE.cached == 3 * 2 * 4
    # 5 tokens: 2 x 5 x matrices and 2 x (5 x 5 x 8) x 2 of attention a layer; the head at one of them.
    assert SHAPE.forward(5, read=1) == Load(3 * (10 * matrices + 800) + 320, 3 * matrices + 160, layers=3)
    # One more token of two rows behind 5: keys and values of 5 tokens come from memory for each row.
    assert SHAPE.forward(1, read=1, past=5, rows=2) == Load(
        2 * 3 * (2 * matrices + 4 * 6 * 8) + 2 * 320, 3 * matrices + 160 + 2 * 5 * 24, layers=3
    )


@pytest.mark.parametrize("rows", [1, 3])
def test_forward_passes_as_torch_counts_them(llama, rows):
    ids = torch.zeros(rows, 5, dtype=torch.long)
    with torch.no_grad():
        found = counted(lambda: llama(ids, logits_to_keep=2))
        assert found == SHAPE.forward(5, read=2, rows=rows).operations
        cache = DynamicCache(config=llama.config)
        llama(ids, past_key_values=cache)
        found = counted(lambda: llama(ids[:, :1], past_key_values=cache))
    assert found == SHAPE.forward(1, read=1, past=5, rows=rows).operations
    assert SHAPE.weights == sum(weight.numel() for weight in llama.parameters())


@pytest.mark.parametrize("lowest", [0, 1])
def test_the_backward_pass_as_torch_counts_it(llama, lowest):
    """To the activations of every layer from `lowest` on, as `neurons.capture` and `rivals` ask for it."""
    embeds = llama.get_input_embeddings()(torch.zeros(2, 5, dtype=torch.long))
    logits, seen = watched(llama, embeds, logits_to_keep=2)
    found = counted(lambda: torch.autograd.grad(logits[:, 0, 7].sum(), seen[lowest:]))
    assert found == SHAPE.backward(5, read=2, rows=2, lowest=lowest).operations

    cache = DynamicCache(config=llama.config)
    with torch.no_grad():
        llama(inputs_embeds=embeds, past_key_values=cache)
    logits, seen = watched(llama, embeds[:, :1], past_key_values=cache)
    found = counted(lambda: torch.autograd.grad(logits[:, 0, 7].sum(), seen[lowest:]))
    assert found == SHAPE.backward(1, read=1, past=5, rows=2, lowest=lowest).operations


def watched(llama, embeds, **more):
    """Logits, and the activations of every layer, through which they can be differentiated."""
    seen = []
    hooks = [
        layer.mlp.act_fn.register_forward_hook(lambda module, read, made: seen.append(made))
        for layer in llama.model.layers
    ]
    logits = llama(inputs_embeds=embeds.detach().clone().requires_grad_(), **more).logits
    for hook in hooks:
        hook.remove()
    return logits, seen


def test_a_vision_transformer_as_torch_counts_it():
    config = Blip2VisionConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=6,
        patch_size=2,
        attn_implementation="eager",
    )
    model, shape = Blip2VisionModel(config).requires_grad_(False), ViT(layers=2, width=8, mlp=12, patches=9, patch=2)
    pixels = torch.zeros(3, 3, 6, 6)
    found = counted(lambda: model.encoder(inputs_embeds=model.embeddings(pixels)))
    assert found == shape.forward(3).operations
    parts = [*model.embeddings.parameters(), *model.encoder.parameters()]
    assert shape.weights == sum(weight.numel() for weight in parts)


def test_the_embedded_tower_as_torch_counts_it():
    tower, shape = EfficientNetLite0().eval(), CAPTIONERS["embedded"].tower
    with torch.no_grad():
        assert counted(lambda: tower(torch.zeros(1, 3, 256, 256))) == shape.forward(1).operations
    assert shape.weights == sum(weight.numel() for weight in tower.parameters())


def test_a_machine_is_as_slow_as_the_slower_of_its_two_limits():
    machine = Machine("toy", operations=100, bandwidth=10, memory=0, width=2)
    assert machine.seconds(Load(1000, 10)) == 10  # 1000 / 100 operations; 20 bytes at 10 a second would take 2
    assert machine.seconds(Load(100, 10)) == 2
    slow = Machine("toy", operations=100, bandwidth=10, memory=0, width=2, launch=5)
    assert slow.seconds(Load(1000, 10, layers=4), share=0.5) == 20  # 10 s at the peak
    assert slow.seconds(Load(1000, 10, layers=5), share=0.5) == 25  # which five launches outlast
