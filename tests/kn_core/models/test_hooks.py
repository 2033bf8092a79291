"""Reading and changing activations: what is seen, what is changed, and that nothing stays behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kn_core.models.hooks import descend, intervene, plain, record, record_slopes
from tests.toy_world import toy_samples

IMAGES = list(np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8))


def hooks_on(model) -> int:
    """How many forward hooks and pre-hooks the model carries."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("site", ["preactivation", "activation", "product"])
def test_recorded_activations_are_those_computed_by_hand(tiny_model, site):
    inputs = []
    handles = [block.register_forward_pre_hook(lambda _, x: inputs.append(x[0])) for block in tiny_model.ffn]
    with record(tiny_model, site) as activations:
        tiny_model.logits(IMAGES)
    for handle in handles:
        handle.remove()
    assert [tuple(layer.shape) for layer in activations] == [(2, tiny_model.prompt_length, 48)] * 3
    for block, x, seen in zip(tiny_model.ffn, inputs, activations, strict=True):
        gate = block.gate_proj(x)
        by_hand = {"preactivation": gate, "activation": F.silu(gate), "product": F.silu(gate) * block.up_proj(x)}
        assert torch.equal(seen, by_hand[site])
    assert hooks_on(tiny_model) == 0


def test_recorded_activations_are_the_graphs_own_and_the_last_passes(tiny_model):
    with record(tiny_model) as activations:
        assert all(layer.numel() == 0 for layer in activations)
        tiny_model.logits(IMAGES)
        prompts = tiny_model.prompts(IMAGES[:1]).requires_grad_()
        logits = tiny_model.logits(prompts)
        gradients = torch.autograd.grad(logits[0, 0, 5], activations)
    assert [gradient.shape for gradient in gradients] == [(1, tiny_model.prompt_length, 48)] * 3
    assert gradients[0].abs().sum() > 0


def test_what_is_kept_of_a_layer_goes_as_soon_as_it_is_there(tiny_model):
    """Values and slopes on the way are those of a pass that holds them all, and hold nothing of the graph."""
    seen: list[str] = []

    def first(values: torch.Tensor, _: int = 0) -> torch.Tensor:
        seen.append(f"{len(seen)}")
        return plain(values[0, 0])

    prompts = tiny_model.prompts(IMAGES[:1]).requires_grad_()
    with record(tiny_model) as whole:
        y = tiny_model.logits(prompts)[0, 0, 5]
        expected = torch.autograd.grad(y, whole)
    with record(tiny_model, keep=first) as kept, record_slopes(tiny_model, "activation", first) as slopes:
        y = tiny_model.logits(prompts)[0, 0, 5]
        assert len(seen) == 3
        (found,) = descend(y, prompts, [slopes], y.dtype, keep=True)
        (again,) = descend(y, prompts, [slopes], y.dtype)  # for another number, and the first stays
    assert len(seen) == 9 and all(map(torch.equal, found, again))
    for layer in range(3):
        assert torch.equal(kept[layer], whole[layer][0, 0].detach())
        assert torch.equal(found[layer], expected[layer][0, 0])
        assert kept[layer].grad_fn is None and found[layer].grad_fn is None
    assert hooks_on(tiny_model) == 0


@pytest.mark.parametrize("site", ["preactivation", "activation", "product"])
def test_hooks_are_removed_also_by_an_exception(tiny_model, site):
    for enter in (lambda: record(tiny_model, site), lambda: intervene(tiny_model, {0: lambda a, _: a}, site)):
        with enter():
            assert hooks_on(tiny_model) > 0
        assert hooks_on(tiny_model) == 0
        with pytest.raises(KeyboardInterrupt), enter():
            raise KeyboardInterrupt
        assert hooks_on(tiny_model) == 0


def test_hooks_are_removed_in_reverse_order_when_attaching_or_running_fails(tiny_model, monkeypatch):
    removed = []
    for layer, block in enumerate(tiny_model.ffn):
        register = block.act_fn.register_forward_hook

        def spied(hook, layer=layer, register=register):
            handle = register(hook)
            original = handle.remove
            monkeypatch.setattr(handle, "remove", lambda: (removed.append(layer), original()), raising=False)
            return handle

        monkeypatch.setattr(block.act_fn, "register_forward_hook", spied)
    with pytest.raises(ZeroDivisionError), intervene(tiny_model, {0: lambda a, _: a, 1: lambda a, _: 1 / 0, 2: None}):
        tiny_model.logits(IMAGES)
    assert removed == [2, 1, 0]
    assert hooks_on(tiny_model) == 0
    assert tiny_model.first_position == 0


def test_an_intervention_at_image_positions_changes_those_alone(tiny_model):
    image = tiny_model.image_positions
    before = tiny_model.logits(IMAGES)
    with record(tiny_model) as clean:
        tiny_model.logits(IMAGES)

    def zero(activations, first):
        changed = activations.clone()
        changed[:, image, 7] = 0
        return changed

    with intervene(tiny_model, {1: zero}), record(tiny_model) as found:
        changed_logits = tiny_model.logits(IMAGES)
    assert torch.equal(found[0], clean[0])
    expected = clean[1].clone()
    expected[:, image, 7] = 0
    assert torch.equal(found[1], expected)
    assert torch.equal(found[2][:, : image.start], clean[2][:, : image.start])  # attention is causal
    assert not torch.equal(found[2][:, image], clean[2][:, image])
    assert not torch.equal(changed_logits, before)
    assert torch.equal(tiny_model.logits(IMAGES), before)


def test_the_preactivation_site_is_what_the_activation_function_reads(tiny_model):
    with (
        intervene(tiny_model, {1: lambda a, _: torch.full_like(a, 2.0)}, "preactivation"),
        record(tiny_model) as activations,
    ):
        tiny_model.logits(IMAGES)
    assert torch.equal(activations[1], F.silu(torch.full_like(activations[1], 2.0)))


def test_the_product_site_is_what_the_output_matrix_reads(tiny_model):
    with intervene(tiny_model, {layer: lambda a, _: torch.zeros_like(a) for layer in range(3)}, "product"):
        seen = []
        handles = [block.register_forward_hook(lambda _, __, y: seen.append(y)) for block in tiny_model.ffn]
        tiny_model.logits(IMAGES)
        for handle in handles:
            handle.remove()
    assert all((output == 0).all() for output in seen)


def test_layers_that_do_not_exist_and_edits_that_change_the_shape_are_refused(tiny_model):
    with (
        pytest.raises(ValueError, match=r"layers must be in 0..2. Got \[3, -1\]"),
        intervene(tiny_model, {3: None, -1: None}),
    ):
        pass
    length = tiny_model.prompt_length
    with (
        pytest.raises(ValueError, match=rf"an edit must keep shape \(2, {length}, 48\). Got \(2, {length}, 47\)."),
        intervene(tiny_model, {0: lambda activations, _: activations[..., :-1]}),
    ):
        tiny_model.logits(IMAGES)
    assert hooks_on(tiny_model) == 0


def test_an_edit_knows_the_position_of_what_it_sees(taught_model):
    passes = []

    def look(activations, first):
        passes.append((first, activations.shape[1]))
        return activations

    length = taught_model.prompt_length
    with intervene(taught_model, {1: look}):
        taught_model.caption(IMAGES[:1], max_new_tokens=3)
        assert passes == [(0, length), (length, 1), (length + 1, 1)]
        passes.clear()
        taught_model.respond(IMAGES[:1], ["A bear."], max_new_tokens=3)
        # Prompt with forced caption, and from where the caption leaves it.
        assert passes == [(0, length + 3), (length + 1, 1)]
        passes.clear()
        taught_model.logits(IMAGES[:1], ["A bear."])
        assert passes == [(0, length + 3)]
    assert taught_model.first_position == 0


def test_an_edit_sees_its_own_rows_also_when_captions_of_the_batch_have_ended(taught_model):
    """Row 1 says 'A forest.' and is done first; what is done to rows 0 and 2 afterwards is still theirs."""
    bear, pizza = (next(toy_samples(concept, 1, seed=7)) for concept in ("bear", "pizza"))
    images, added = [bear.image, bear.without, pizza.image], torch.tensor([-0.5, 0.0, 9.0])
    seen = []

    def add(rows):
        def edit(activations, first):
            seen.append((len(activations), first, activations.flatten(1).any(1).tolist()))
            return activations + added[rows][:, None, None] * (first >= taught_model.prompt_length + 2)

        return edit

    with intervene(taught_model, {1: add([0, 1, 2])}):
        together = taught_model.caption(images, 12)
    assert [batch for batch, _, _ in seen] == [3] * len(seen)
    assert [True, False, True] in [running for _, _, running in seen]
    alone = []
    for row, image in enumerate(images):
        with intervene(taught_model, {1: add([row])}):
            alone += taught_model.caption([image], 12)
    assert together == alone
    assert together[2] != taught_model.caption(images[2:], 12)[0]
    assert taught_model.rows is None
