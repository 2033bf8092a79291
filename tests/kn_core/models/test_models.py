"""The caption model: where its image tokens are, and that its captions and logits are the decoder's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from kn_core.models import MiniGPT4
from kn_core.models.minigpt4 import load_projection
from kn_core.models.towers import EfficientNetLite0, resize
from kn_core.pictures.image_files import PictureError
from tests.toy_world import ToyTower, toy_samples


def noise(n: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8))


@pytest.mark.parametrize(("cells", "cells_per_token", "grid"), [(4, 1, (4, 4)), (16, 4, (16, 4)), (4, 2, (4, 2))])
def test_one_lit_cell_is_one_changed_token(make_model, cells, cells_per_token, grid):
    model = make_model(cells=cells, cells_per_token=cells_per_token)
    assert model.grid == grid
    places = [(row, column) for row in range(cells) for column in range(cells)]
    lit, side = np.zeros((len(places), 16, 16, 3), np.uint8), 16 // cells
    for picture, (row, column) in zip(lit, places, strict=True):
        picture[row * side : (row + 1) * side, column * side : (column + 1) * side] = 255
    dark = model.prompts([np.zeros((16, 16, 3), np.uint8)])
    changed = (model.prompts(list(lit)) != dark).any(-1)  # (cells, T)
    first = model.image_positions.start
    for row_of_changes, (row, column) in zip(changed, places, strict=True):
        assert row_of_changes.nonzero().ravel().tolist() == [first + row * grid[1] + column // cells_per_token]


def test_the_prompt_is_its_text_around_the_projected_cells(tiny_model):
    (image,) = noise(1)
    before, after = (tiny_model.encode(text)[0] for text in ("See ", " say: "))
    cells = torch.from_numpy(image.reshape(4, 4, 4, 4, 3).mean((1, 3)) / 255).float().reshape(16, 3)
    embed = tiny_model.embed_tokens
    expected = torch.cat([embed(torch.tensor(before)), tiny_model.projection(cells), embed(torch.tensor(after))])
    assert torch.allclose(tiny_model.prompts([image])[0], expected, atol=1e-6)
    assert tiny_model.image_positions == slice(len(before), len(before) + 16)
    assert tiny_model.prompt_length == len(before) + 16 + len(after)


def test_logits_are_those_of_a_plain_forward_pass(tiny_model):
    images, caption = noise(2), "A bear."
    ids = torch.tensor(tiny_model.encode(caption)[0])
    logits = tiny_model.logits(images, [caption, caption])
    assert logits.shape == (2, 1 + len(ids), len(tiny_model.tokenizer))
    embeds = torch.cat([tiny_model.prompts(images), tiny_model.embed_tokens(ids).expand(2, -1, -1)], dim=1)
    plain = tiny_model.decoder(inputs_embeds=embeds).logits[:, tiny_model.prompt_length - 1 :]
    assert torch.allclose(logits, plain, atol=1e-5)
    assert torch.allclose(tiny_model.logits(images), plain[:, :1], atol=1e-5)


def test_captions_are_those_of_transformers_greedy_generation(taught_model, tiny_model):
    samples = [*toy_samples("bear", 2, seed=5), *toy_samples("bus", 2, seed=5)]
    for model in (taught_model, tiny_model):
        images = [sample.image for sample in samples] + [sample.without for sample in samples] + noise(2)
        expected = []
        for prompt in model.prompts(images):  # one at a time: the longest caption of a batch pads the others
            ids = model.decoder.generate(
                inputs_embeds=prompt[None], do_sample=False, max_new_tokens=12, pad_token_id=model.end
            )
            expected.append(model.tokenizer.decode(ids[0], skip_special_tokens=True).strip())
        assert model.caption(images, 12) == expected
        assert model.caption(model.prompts(images), 12) == expected


def test_the_taught_model_is_one_that_tests_can_learn_from(taught_model):
    bear, pizza = (next(toy_samples(concept, 1, seed=7)) for concept in ("bear", "pizza"))
    assert taught_model.caption([bear.image, pizza.image, bear.without]) == [
        "A bear in a forest.",
        "A pizza in a forest.",
        "A forest.",
    ]
    assert taught_model.caption([bear.image], max_new_tokens=2) == ["A bear"]


def test_batching_changes_neither_captions_nor_logits(make_model, taught_model):
    images = noise(5) + [sample.image for sample in toy_samples("pizza", 3, seed=5)]
    captions = ["A bear.", "", "A pizza in a forest.", "x", "A bus."] + ["A pizza."] * 3
    for model in (make_model(), taught_model):
        whole = model.caption(images, 12), model.logits(images, captions), model.prompts(images)
        one = [model.logits([image], [caption])[0] for image, caption in zip(images, captions, strict=True)]
        model.batch_size = 3
        assert model.caption(images, 12) == whole[0]
        assert torch.allclose(model.prompts(images), whole[2], atol=1e-6)
        model.batch_size = 16
        for together, alone in zip(whole[1], one, strict=True):
            assert torch.allclose(together[: len(alone)], alone, atol=1e-5)


@pytest.mark.parametrize("batch_size", [16, 2])
def test_a_response_holds_the_caption_and_the_forced_captions_logits(taught_model, batch_size, monkeypatch):
    monkeypatch.setattr(taught_model, "batch_size", batch_size)
    images = [sample.image for sample in toy_samples("bear", 3, seed=5)] + noise(2)
    forced = ["A pizza in a forest.", "A bear.", "", "A giraffe on a train.", "A bus."]
    captions, logits = taught_model.respond(images, forced, 12)
    assert captions == taught_model.caption(images, 12)
    assert len(logits) == 5
    expected = taught_model.logits(images, forced)
    for text, found, wanted in zip(forced, logits, expected, strict=True):
        rows = 1 + len(taught_model.encode(text)[0])
        assert torch.allclose(found[:rows], wanted[:rows], atol=1e-4)


@pytest.mark.parametrize("max_new_tokens", [1, 3, 12])
def test_a_forced_caption_that_is_the_models_own_is_not_written_again(taught_model, max_new_tokens, monkeypatch):
    images = [next(toy_samples(concept, 1, seed=5)).image for concept in ("bear", "pizza", "bus")]
    expected = taught_model.caption(images, max_new_tokens)
    whole = taught_model.caption(images, 12)
    for forced in (whole, [whole[0], "A bear.", whole[2]], ["x", *whole[1:]], [f"{whole[0]} A bus.", whole[1], ""]):
        assert taught_model.respond(images, forced, max_new_tokens)[0] == expected
    seen = []
    monkeypatch.setattr(taught_model, "extend", lambda *a, real=taught_model.extend: (seen.append(a[0]), real(*a))[1])
    taught_model.respond(images, whole, 12)
    assert len(seen) == 1  # prompts with forced captions


def test_forced_captions_without_a_word_are_no_special_case(tiny_model):
    captions, logits = tiny_model.respond(noise(2), ["", ""], 4)
    assert captions == tiny_model.caption(noise(2), 4)
    assert torch.allclose(torch.stack(logits), tiny_model.logits(noise(2)), atol=1e-5)


def test_pictures_may_be_files_images_or_arrays(taught_model, tmp_path):
    array = next(toy_samples("bear", 1, seed=7)).image
    image = Image.fromarray(array)
    image.save(tmp_path / "bear.png")
    same = [array, image, tmp_path / "bear.png", str(tmp_path / "bear.png"), image.convert("RGBA")]
    assert taught_model.caption(same) == ["A bear in a forest."] * 5
    assert (taught_model.prompts(same) == taught_model.prompts([array])).all()
    assert torch.equal(taught_model.logits(same[1:2]), taught_model.logits([array]))
    assert taught_model.respond(same[2:3], ["A bus."])[0] == ["A bear in a forest."]


def test_one_picture_without_a_list_and_tensors_that_are_no_prompts_are_refused(tiny_model, tmp_path):
    (array,) = noise(1)
    for ask in (tiny_model.caption, tiny_model.logits, tiny_model.prompts, tiny_model.token_maps):
        for single in (array, Image.fromarray(array), "bear.png", tmp_path / "bear.png"):
            with pytest.raises(PictureError, match=r"pictures come in a list, also a single one: \[picture\]. Got"):
                ask(single)
    with pytest.raises(ValueError, match=r"embedded prompts \(B, T, H\) with T=\d+; .* Got torch.uint8 of shape"):
        tiny_model.caption(torch.from_numpy(array))


def test_no_pictures_have_no_captions(tiny_model):
    assert tiny_model.caption([]) == []
    assert tiny_model.respond([], []) == ([], [])


def test_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary(tiny_model):
    with torch.no_grad():
        tiny_model.unembed.zero_()
    found = tiny_model.perplexity(["A bear.", "", "A pizza in a forest."])
    assert found[[0, 2]] == pytest.approx(len(tiny_model.tokenizer), rel=1e-5)
    assert np.isnan(found[1])


def test_perplexity_by_hand_and_whatever_else_is_in_the_batch(tiny_model):
    ids = torch.tensor(tiny_model.encode("A bear.")[0])
    prompt = torch.cat([tiny_model.before, tiny_model.after])
    logits = tiny_model.decoder(torch.cat([prompt, ids])[None]).logits[0]
    chances = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, ids[:, None])
    expected = float(torch.exp(-chances.mean()))
    assert tiny_model.perplexity(["A bear."]) == pytest.approx([expected], rel=1e-4)
    assert tiny_model.perplexity(["A pizza in a forest.", "A bear."])[1] == pytest.approx(expected, rel=1e-4)


def test_perplexities_keep_their_captions_order_in_batches_by_length(make_model):
    model, captions = make_model(), ["A pizza in a forest.", "", "A bear.", "A giraffe on a beach."]
    one_by_one = [float(model.perplexity([caption])[0]) for caption in captions]
    model.batch_size = 2
    assert model.perplexity(captions) == pytest.approx(one_by_one, rel=1e-4, nan_ok=True)


def test_the_tokens_that_a_neuron_promotes_by_hand(tiny_model):
    with torch.no_grad():
        tiny_model.unembed.zero_()
        for token, value in ((70, 2.0), (71, 1.0), (72, 3.0)):
            tiny_model.unembed[token, 4] = value
        tiny_model.w_out(1)[:, 5] = 0
        tiny_model.w_out(1)[4, 5] = 1  # neuron (1, 5) writes along axis 4
        tiny_model.w_out(2)[:, 6] = 0
        tiny_model.w_out(2)[4, 6] = -1
        tiny_model.unembed[73, 4] = -1.0
    token = tiny_model.token
    assert tiny_model.top_tokens([1, 2], [5, 6], n=3)[0] == [token(72), token(70), token(71)]
    assert tiny_model.top_tokens([1, 2], [5, 6], n=1)[1] == [token(73)]
    assert tiny_model.top_tokens([], []) == []


def test_shapes_of_the_neurons(tiny_model):
    assert (tiny_model.n_layers, tiny_model.ffn_width) == (3, 48)
    assert tiny_model.w_out(0).shape == (32, 48)
    assert tiny_model.unembed.shape == (len(tiny_model.tokenizer), 32)
    assert not any(parameter.requires_grad for parameter in tiny_model.parameters())
    assert not tiny_model.training


def test_parts_that_do_not_fit_are_refused(tiny_model):
    parts = tiny_model.decoder, tiny_model.tokenizer, "See ", " say: "
    with pytest.raises(ValueError, match=r"must have shape \(H, width\)=\(32, 3\). Got \(32, 6\)"):
        MiniGPT4(ToyTower(4), nn.Linear(6, 32), *parts)
    with pytest.raises(ValueError, match="cells_per_token must divide the tower's 4 columns. Got 3."):
        MiniGPT4(ToyTower(4), nn.Linear(9, 32), *parts, cells_per_token=3)
    with pytest.raises(ValueError, match="captions must be as many as images, 2. Got 1."):
        tiny_model.logits(noise(2), ["A bear."])


def test_a_projection_is_loaded_whole_or_not_at_all(tmp_path):
    path = tmp_path / "layer.safetensors"
    with pytest.raises(FileNotFoundError, match="Train one with `python -m kn_core.training`"):
        load_projection(path, 3, 32)
    layer = nn.Linear(3, 32)
    save_file({name: tensor.detach().half() for name, tensor in layer.state_dict().items()}, path)
    loaded = load_projection(path, 3, 32)
    assert torch.equal(loaded.weight, layer.weight.half().float())
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        load_projection(path, 4, 32)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FileNotFoundError, match="No usable projection"):
        load_projection(path, 3, 32)


def test_pictures_are_squashed_not_cropped():
    left = np.zeros((8, 32, 3), np.uint8)
    left[:, :16] = 200
    resized = resize([left], 16)
    assert resized.shape == (1, 3, 16, 16)
    assert torch.equal(resized[0, :, :, 0], torch.full((3, 16), 200.0))
    assert torch.equal(resized[0, :, :, -1], torch.zeros(3, 16))


def test_the_embedded_tower_sees_eight_by_eight_cells():
    torch.manual_seed(0)
    tower = EfficientNetLite0().eval()
    with torch.no_grad():
        cells = tower(tower.preprocess([np.full((40, 60, 3), 127, np.uint8)]))
    assert cells.shape == (1, 64, 1280)
    assert (tower.size, tower.grid, tower.width) == (256, (8, 8), 1280)
