"""Sets and their complements, patched: against runs whose products are exchanged by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kn_core.method.bounds import best_layer, mean_differences, without_direction, word_states
from kn_core.method.capture import find_target
from kn_core.method.complements import complement, gap, gaps, learned_mask, naming, perplexities
from kn_core.method.interventions import inpainted_activations
from kn_core.method.perturbation import Picture
from kn_core.models.hooks import record
from tests.toy_world import toy_samples

CAPTION = "A pizza in a forest."


@pytest.fixture
def picture(tiny_model) -> Picture:
    sample = next(toy_samples("pizza", 1, seed=4))
    target = find_target(tiny_model, CAPTION, "pizza")
    shown, without = tiny_model.prompts([sample.image, sample.without])
    return Picture("p", "pizza", CAPTION, target, True, False, True, shown, without)


@pytest.fixture
def at(tiny_model, picture):
    return naming(tiny_model, picture)


def by_hand(model, at, kept: np.ndarray) -> float:
    """y with hooks of our own on `down_proj`."""
    image = model.image_positions

    def hook(layer):
        def change(_, arguments):
            (read,) = (each.clone() for each in arguments)
            for unit in np.flatnonzero(~kept[layer]):
                read[0, image, unit] = at.without[layer][:, unit]
            return (read,)

        return change

    handles = [block.down_proj.register_forward_pre_hook(hook(layer)) for layer, block in enumerate(model.ffn)]
    with torch.no_grad():
        logits = model.head(model.backbone(inputs_embeds=at.said, use_cache=False).last_hidden_state[0, -1])
    for handle in handles:
        handle.remove()
    return float(logits[at.token] - logits[at.other])


def test_the_run_without_the_object_says_what_is_put_in_and_what_it_would_say(tiny_model, picture, at):
    recorded = inpainted_activations(tiny_model, picture.prompt_inpainted[None], "product")[0]
    assert torch.allclose(at.without, recorded, atol=1e-6)
    logits = tiny_model.logits(picture.prompt_inpainted[None], [CAPTION])[0, picture.target.position]
    likely = logits.topk(2).indices.tolist()
    assert at.token == picture.target.token != at.other
    assert at.other == (likely[1] if likely[0] == at.token else likely[0])
    assert at.y_without == pytest.approx(float(logits[at.token] - logits[at.other]), abs=1e-5)


def test_a_set_alone_and_all_but_the_set(tiny_model, at):
    kept = np.random.default_rng(0).random((5, 3, 48)) < np.array([0, 1.1, 0.1, 0.5, 0.9])[:, None, None]
    found = gaps(tiny_model, at, list(kept))
    assert found == pytest.approx([by_hand(tiny_model, at, each) for each in kept], abs=1e-4)
    assert found[1] == pytest.approx(float(gap(tiny_model, at, {})), abs=1e-5)
    assert np.ptp(found) > 0.05  # it does matter
    tiny_model.batch_size = 2
    assert gaps(tiny_model, at, list(kept)) == pytest.approx(found, abs=1e-5)


def test_the_last_layers_image_tokens_reach_no_word(tiny_model, at):
    last = np.ones((3, 48), bool)
    last[2] = False
    assert by_hand(tiny_model, at, last) == pytest.approx(float(gap(tiny_model, at, {})), abs=1e-5)
    assert 2 not in complement(tiny_model, at.without, torch.from_numpy(~last)[None])


def test_a_mask_between_zero_and_one_mixes(tiny_model, at):
    ones = torch.ones(1, 3, 48)
    whole, half, none = (complement(tiny_model, at.without, share * ones) for share in (1, 0.5, 0))
    values = torch.randn(1, at.said.shape[1], 48)
    image, put = tiny_model.image_positions, at.without[1]
    assert torch.equal(whole[1](values, 0), values)
    assert torch.equal(none[1](values, 0)[0, image], put)
    assert torch.allclose(half[1](values, 0)[0, image], (values[0, image] + put) / 2, atol=1e-6)
    assert torch.equal(half[1](values, 0)[0, image.stop :], values[0, image.stop :])


def test_a_learnt_mask_takes_more_away_than_the_first_gradient_does(tiny_model, at):
    score = learned_mask(tiny_model, [at], 12, 8)
    assert sorted(score.ravel()) == [*range(-143, 1)]
    mask = torch.ones(1, 3, 48, requires_grad=True)
    with torch.enable_grad():
        gap(tiny_model, at, complement(tiny_model, at.without, mask)).sum().backward()
    rng = np.random.default_rng(0)

    def left(ranking):
        return gaps(tiny_model, at, [np.argsort(np.argsort(-ranking.ravel())).reshape(3, 48) >= 12])[0]

    clean, by_gradient = float(gap(tiny_model, at, {})), left(mask.grad[0].numpy())
    assert left(score) <= by_gradient + 0.02 < clean
    assert left(score) < min(left(rng.random((3, 48))) for _ in range(20))


def test_a_captions_perplexity_without_a_neuron(tiny_model, picture):
    found = perplexities(tiny_model, picture, np.array([0, 2]), np.array([7, 5]))
    ids = torch.tensor(tiny_model.encode(CAPTION)[0])
    chances = tiny_model.logits(picture.prompt[None], [CAPTION])[0, : len(ids)].log_softmax(-1)
    assert found[0] == pytest.approx(float((-chances[range(len(ids)), ids].mean()).exp()), rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-5) and found[1] != pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("positive", [True, False])
def test_a_direction_is_taken_out_of_the_image_tokens(tiny_model, positive):
    stream, along = torch.randn(2, tiny_model.prompt_length + 3, 32), torch.randn(32)
    changed, image = without_direction(tiny_model, along, positive)(stream, 0), tiny_model.image_positions
    before, after = stream @ along, changed @ along
    expected = before[:, image].clamp(max=0) if positive else torch.zeros_like(before[:, image])
    assert torch.allclose(after[:, image], expected, atol=1e-4)
    assert torch.equal(changed[:, : image.start], stream[:, : image.start])
    one = torch.randn(2, 1, 32)
    assert torch.equal(without_direction(tiny_model, along, positive)(one, tiny_model.prompt_length), one)


def test_bounds_read_their_directions_where_they_act(tiny_model, picture, at):
    inside = np.zeros(16, bool)
    inside[[3, 5]] = True
    prompts, without = picture.prompt[None], picture.prompt_inpainted[None]
    added = mean_differences(tiny_model, prompts, without, [inside])
    streams = []
    for embeds in (prompts, without):
        with record(tiny_model, "residual") as found, torch.no_grad():
            tiny_model.backbone(inputs_embeds=embeds, use_cache=False)
        streams.append(found[1][0, tiny_model.image_positions][inside])
    assert torch.allclose(added[1], (streams[0] - streams[1]).mean(0), atol=1e-5)
    assert word_states(tiny_model, "pizza").shape == added.shape == (3, 32)
    left = [
        float(gap(tiny_model, at, {layer: without_direction(tiny_model, added[layer], False)}, 1, "residual"))
        for layer in (0, 1)
    ]
    assert best_layer(tiny_model, [at], added, [0, 1], False) == int(np.argmin(left))
