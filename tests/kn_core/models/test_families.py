"""Newer families, end to end: what an adapter gives is held against transformers' processor, forward and generation."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CONFIG_MAPPING, LlamaConfig, VipLlavaConfig
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from kn_core.method import rivals
from kn_core.method.capture import Target, capture
from kn_core.method.heatmap import heatmap
from kn_core.method.interventions import Setting, edits_for
from kn_core.method.model_check import check
from kn_core.method.two_stages import NeuronSet
from kn_core.models import load_model
from kn_core.models.checkpoints import CheckpointError
from kn_core.models.hf import ADAPTERS, VisionLanguageModel
from kn_core.models.hf.known import KNOWN
from kn_core.models.hf.many_views import token_map
from kn_core.models.hooks import intervene, record
from tests.tiny_checkpoints import DECODER, FAMILIES, SIZE, SQUARE, byte_level, pictures
from tests.tiny_families import CLIP, TINY, adapted, fed, randomised, whole

CAPTION = "A bear in a forest."
EVERY = pytest.mark.parametrize("name", TINY)
shared = cache(adapted)
own = cache(whole)


def of_size(name: str, n: int) -> list[np.ndarray]:
    """Pictures that the family's own processor leaves as large as they are."""
    return [np.asarray(Image.fromarray(each).resize((TINY[name].size,) * 2)) for each in pictures(n)]


@pytest.mark.parametrize("name", [name for name, tiny in TINY.items() if tiny.own])
def test_logits_are_the_models_own_with_and_without_a_cache_batched_and_single(name):
    model, images = shared(name), of_size(name, 2)
    said = CAPTION if model._lead.endswith("\n") else f" {CAPTION}"
    inputs = fed(name, model, images, said)
    ours = model.own_inputs(images, CAPTION)
    assert inputs.keys() == ours.keys()
    assert all(torch.allclose(ours[key].float(), value.float(), atol=1e-5) for key, value in inputs.items())
    with torch.no_grad():
        expected = own(name)(**inputs).logits[:, model.prompt_length - 1 :]
        found = model.logits(images, [CAPTION, CAPTION])
        single = model.logits(images[1:], [CAPTION])
        _, cached = model.respond(images, [CAPTION, ""], 3)
    assert expected.std() > 0.3 and (expected[0] - expected[1]).abs().max() > 0.01
    for logits, rows in (
        (found, expected),
        (single, expected[1:]),
        (cached[0], expected[0]),
        (cached[1][:1], expected[1, :1]),
    ):
        assert torch.allclose(logits, rows, atol=5e-4)
    assert np.isfinite(model.perplexity([CAPTION])).all()


@EVERY
def test_captions_are_transformers_greedy_generation(name):
    model, images = shared(name), of_size(name, 3)
    written = []
    for image in images:
        inputs = model.own_inputs([image]) | (fed(name, model, [image]) if TINY[name].own else {})
        if not TINY[name].own:  # `generate` takes no features of a view alone, but the embeddings that hold them
            inputs = {"inputs_embeds": model.prompts([image])}
        ids = own(name).generate(**inputs, do_sample=False, max_new_tokens=10)[0]
        written.append(
            model.tokenizer.decode(
                ids[-10 if "inputs_embeds" in inputs else inputs["input_ids"].shape[1] :], skip_special_tokens=True
            ).strip()
        )
    assert model.caption(images, 10) == written
    assert any(written)
    assert [model.caption([image], 10)[0] for image in images] == written


def lit(size: int, n: int) -> list[np.ndarray]:
    """Dark squares with one of n x n cells lit in each, row by row, and one without."""
    found = np.full((n * n + 1, size, size, 3), 20, np.uint8)
    cell = size // n
    for i, (row, column) in enumerate(np.ndindex(n, n)):
        found[i, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = 250
    return list(found)


@EVERY
def test_one_lit_cell_is_seen_by_the_tokens_in_its_place(name):
    """Attention in the tower mixes patches; without it, what is left shows where each token comes from."""
    model = adapted(name)
    with torch.no_grad():
        for path, module in model.model.named_modules():
            if path.endswith(("self_attn.out_proj", "attn.proj")) and ("vision" in path or "visual" in path):
                module.weight.zero_()
    n, start = model.grid[0], model.image_positions.start
    *shown, dark = model.prompts(lit(TINY[name].size, n))
    places = model.token_maps(lit(SIZE, 1)[:1])[0] > 0  # (P, cells)
    for cell, prompt in enumerate(shown):
        changed = ((prompt - dark).abs() > 1e-5).any(-1).nonzero().ravel() - start
        assert changed.tolist() == places[:, cell].nonzero().ravel().tolist()


def target_of(model: VisionLanguageModel) -> Target:
    ids, spans = model.encode(CAPTION)
    place = next(i for i, (_, end) in enumerate(spans) if end > CAPTION.index("bear"))
    return Target("bear", ids[place], place)


@EVERY
def test_one_backward_pass_and_interventions_that_leave_nothing_behind(name):
    model, (image, without) = shared(name), pictures(2)
    target, tokens = target_of(model), model.image_positions
    prompt = model.prompts([image])
    pair = capture(model, image, without, CAPTION, target)
    assert pair.original.shape == pair.gradient.shape == (3, tokens.stop - tokens.start, 48)
    with torch.no_grad(), record(model) as seen:
        clean = model.logits(prompt, [CAPTION])
    assert torch.allclose(pair.original[1], seen[1][0, tokens], atol=1e-5)

    layer, token = 1, 2
    unit = int(pair.gradient[layer, token].abs().argmax())

    def logit(by: float) -> float:
        def edit(values: torch.Tensor, _: int) -> torch.Tensor:
            values = values.clone()
            values[:, tokens.start + token, unit] += by
            return values

        with torch.no_grad(), intervene(model, {layer: edit}):
            return model.logits(prompt, [CAPTION])[0, target.position, target.token].item()

    slope = (logit(1e-2) - logit(-1e-2)) / 2e-2
    assert pair.gradient[layer, token, unit].item() == pytest.approx(slope, rel=0.03, abs=1e-3)
    assert pair.gradient[0].abs().amax() > 1e-3
    neurons = NeuronSet("bear", "two-stage", np.arange(40) % 2, np.arange(40), np.zeros(40))
    maps = model.token_maps([image])[0]
    found = heatmap(pair.gradcam, neurons, model.grid, maps)
    expected = torch.stack([pair.gradcam[i % 2, :, i] for i in range(40)]).mean(0) @ maps
    assert found.ravel() == pytest.approx(expected.numpy(), abs=1e-5)

    noise = edits_for(model, neurons, Setting("noise", "image", 40, 5.0, 0), ["one"])
    with torch.no_grad():
        with intervene(model, noise):
            assert (model.logits(prompt, [CAPTION]) - clean).abs().max() > 0.02
        assert torch.equal(model.logits(prompt, [CAPTION]), clean)


@pytest.mark.parametrize("name", ["qwen3_vl", "paligemma"])
def test_integrated_gradients_are_complete(name):
    """The scores of a layer sum to what all of its neurons at that position add, also where the prompt sees its end."""
    model, (image,) = shared(name), pictures(1)
    ids, _ = model.encode(CAPTION)
    for target in (Target("bear", ids[0], 0), target_of(model)):
        scores = rivals.integrated_gradients(model, image, CAPTION, target, layers=[1], steps=200)
        place = model.prompt_length - 1 + target.position

        def silence(values: torch.Tensor, first: int, place: int = place) -> torch.Tensor:
            values = values.clone()
            values[:, place - first] = 0
            return values

        def chance(edits: Any, target: Target = target) -> float:
            with torch.no_grad(), intervene(model, edits):
                return model.logits([image], [CAPTION])[0, target.position].softmax(-1)[target.token].item()

        assert scores.sum() == pytest.approx(chance({}) - chance({1: silence}), rel=0.05, abs=1e-4)


def test_drafts_are_taken_back_behind_a_window_that_is_full():
    config = TINY["gemma3"].config(len(byte_level()))
    config.text_config.sliding_window = 12
    model, images = adapted("gemma3", randomised(config)), pictures(2)
    written, (said, logits) = model.caption(images, 10), model.respond(images, [CAPTION, "A bear."], 10)
    assert said == written != [CAPTION, "A bear."]
    with torch.no_grad():
        assert torch.allclose(logits[0], model.logits(images[:1], [CAPTION])[0], atol=5e-4)


def test_capped_logits_and_their_gradients_stay_under_the_cap():
    model, images = shared("paligemma2"), pictures(2)
    with torch.no_grad():
        raw, capped = model.head(model.extend(model.prompts(images))[:, -1]), model.logits(images)[:, 0]
    assert raw.abs().max() > 3 > capped.abs().max()
    assert torch.allclose(capped, 3 * torch.tanh(raw / 3), atol=1e-5)
    assert model.model.config.get_text_config()._attn_implementation == "eager"  # whose attention is capped, too


def test_a_prompt_asked_otherwise_is_numbered_anew():
    model = shared("qwen2_vl")
    model.logits(pictures(1))
    asked = model.asking(" say: ")
    other = adapted("qwen2_vl", own("qwen2_vl"), after=" say: ")
    assert torch.equal(asked.logits(pictures(1)), other.logits(pictures(1)))


def kind(config: Any) -> tuple[str, str, str]:
    return config.model_type, config.vision_config.model_type, config.get_text_config().model_type


def test_what_is_known_to_load_is_what_is_tried():
    tried = {kind(each.config(340)) for each in (*TINY.values(), *FAMILIES.values())}
    tried |= {("blip-2", "blip_2_vision_model", "opt"), ("instructblip", "instructblip_vision_model", "llama")}
    assert {known[1:] for known in KNOWN} == tried - {("llava", "siglip_vision_model", "mistral")}  # which has no name
    assert {known.model_type for known in KNOWN} == ADAPTERS.keys()
    assert [name for name in CONFIG_MAPPING if "onevision" in name] == ["llava_onevision"]  # no 1.5


def test_the_pages_adapter_is_one_that_works(monkeypatch):
    page = Path(__file__, "../../../../book/add-a-model.md").resolve().read_text()
    written = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "ADAPTERS[" in code)
    monkeypatch.setattr("kn_core.models.hf.ADAPTERS", dict(ADAPTERS))
    exec(written, {})
    text = LlamaConfig(**DECODER, vocab_size=340)
    config = VipLlavaConfig(
        vision_config=CLIP, text_config=text, image_token_index=2, vision_feature_layers=[-1, -2], image_seq_length=16
    )
    tower = LlavaImageProcessorPil(size=SQUARE["size"], crop_size=SQUARE["size"])
    processor = SimpleNamespace(tokenizer=byte_level(), image_processor=tower)
    model = load_model((randomised(config), processor), before="<s>USER: ", after="\nSay:")
    found = list(check(model))
    assert [finding.right for finding in found] == [True] * 8, "\n".join(map(str, found))


def test_views_that_cover_a_cell_are_summed():
    base, fine = token_map(2), token_map(2, 4)
    assert base.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert fine.shape == (4 + 4 * 5, 16)
    assert fine[1].reshape(4, 4).tolist() == [[0, 0, 0.25, 0.25], [0, 0, 0.25, 0.25], [0] * 4, [0] * 4]
    assert fine.sum(1).tolist() == [1] * 4 + [1, 1, 1, 1, 0] * 4
    assert fine[4:].sum(0).tolist() == [1] * 16


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("qwen2_vl", {"pixels": 30}, "model.pixels must be a multiple of 8, .*. Got 30: set 32"),
        ("llava_next-all", {"pixels": 48}, "that the checkpoint cuts into tiles, one of 64. Got 48"),
        ("paligemma", {"before": "Look: "}, "model.before must be '': image tokens come first. Got 'Look: '"),
    ],
)
def test_settings_that_a_family_cannot_follow(name, settings, message):
    with pytest.raises(CheckpointError, match=message):
        adapted(name, own(name), **settings)
