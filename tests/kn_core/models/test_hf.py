"""Checkpoints of transformers as caption models: tiny random ones, saved as transformers saves them, read from disk.

What an adapter gives is held against transformers' own processor, forward pass and generation on the same files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    Phi3Config,
    PreTrainedTokenizerFast,
)

from kn_core.method import rivals
from kn_core.method.capture import Target, capture
from kn_core.method.heatmap import heatmap
from kn_core.method.interventions import Setting, edits_for
from kn_core.method.two_stages import NeuronSet
from kn_core.models import checkpoints, hf, identity, load_model
from kn_core.models.checkpoints import CheckpointError
from kn_core.models.hf import one_view
from kn_core.models.hooks import intervene, record
from kn_core.profile import Profile, ProfileError, load_profile
from kn_core.settings import Checkpoint
from kn_core.study.experiments.single_neurons import ablate
from kn_core.study.pairs import StudyError
from kn_core.weights.files import WeightsError
from tests import tiny_checkpoints
from tests.kn_core.weights.test_files import LFS, PAGE
from tests.tiny_checkpoints import DECODER, FAMILIES, SIZE, TOWER, byte_level, metaspace, pictures

CAPTION = "A bear in a forest."
EVERY = pytest.mark.parametrize("family", FAMILIES, indirect=True)


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """save(name): the folder of the family's tiny checkpoint; with `key`, of one of another config or tokenizer."""
    made: dict[str, Path] = {}

    def once(name: str, *parts: Any, key: str = "") -> Path:
        if (key := key or name) not in made:
            made[key] = tiny_checkpoints.save(name, tmp_path_factory.mktemp(key), *parts)
        return made[key]

    return once


@pytest.fixture
def family(request) -> str:
    return request.param


@pytest.fixture
def make(save) -> Callable[..., hf.VisionLanguageModel]:
    """make(name): the adapter on the family's tiny checkpoint, by way of a profile; settings can be changed."""

    def load(name: str, folder: Path | None = None, **settings: Any) -> hf.VisionLanguageModel:
        return load_model(profile_of(name, folder or save(name), **settings))

    return load


@pytest.fixture(scope="module")
def shared(save) -> Callable[[str], hf.VisionLanguageModel]:
    """shared(name): as `make`, the same model every time, for tests that leave it as it was."""
    return cache(lambda name: load_model(profile_of(name, save(name))))


@pytest.fixture(scope="module")
def own_way(save) -> Callable[[str], Own]:
    return cache(lambda name: Own(name, save(name)))


def profile_of(name: str, folder: Path | str, **settings: Any) -> Profile:
    family = FAMILIES[name]
    return Profile.model_validate(
        {
            "name": "tiny",
            "concepts": ["bear"],
            "model": {
                "family": "transformers",
                "checkpoint": str(folder),
                "before": family.before,
                "after": family.after,
                "device": "cpu",
                **settings,
            },
            "data": {"source": "coco"},
            "inpainting": {"method": "telea"},
            "filtering": {"constraints": ["named"]},
            "identification": {"threshold_a": {"quantile": 0.5}, "threshold_g": {"quantile": 0.5}},
        }
    )


class Own:
    """transformers' own way: its processor, its prompt with all image tokens written out, its forward pass."""

    def __init__(self, name: str, folder: Path) -> None:
        self.family, self.views = FAMILIES[name], name in ("idefics3", "smolvlm")
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

    def inputs(self, images: list[np.ndarray], caption: str = "") -> dict[str, torch.Tensor]:
        text = self.family.before + "<image>" * self.family.side**2 + self.family.after + caption
        ids = torch.tensor([self.tokenizer(text, add_special_tokens=False).input_ids] * len(images))
        found = self.family.processor()([[image] for image in images], return_tensors="pt")
        pixels = found["pixel_values"]
        return {"input_ids": ids, "pixel_values": pixels if self.views else pixels.reshape(-1, 3, SIZE, SIZE)}


@EVERY
def test_image_tokens_and_logits_are_transformers_own(shared, own_way, family):
    model, own, images = shared(family), own_way(family), pictures(2)
    inputs = own.inputs(images)
    pixels = inputs["pixel_values"].reshape(2, 3, SIZE, SIZE)
    assert torch.allclose(model.preprocess(images), pixels, atol=1e-5)
    with torch.no_grad():
        expected = own.model(**inputs, output_hidden_states=True)
        prompts, logits = model.prompts(images), model.logits(images)
    assert prompts.shape[1] == model.prompt_length == inputs["input_ids"].shape[1]
    places = (inputs["input_ids"][0] == 2).nonzero().ravel().tolist()
    assert places == list(range(model.image_positions.start, model.image_positions.stop))
    assert torch.allclose(prompts, expected.hidden_states[0], atol=1e-4)
    assert torch.allclose(logits, expected.logits[:, -1:], atol=1e-4)
    said = own.inputs(images, " " * (not model.tokenizer.decode(model.after).endswith("\n")) + CAPTION)
    with torch.no_grad():
        forced = own.model(**said).logits[:, model.prompt_length - 1 :]
        assert torch.allclose(model.logits(images, [CAPTION, CAPTION]), forced, atol=1e-4)
    assert forced.std() > 0.1


@EVERY
def test_captions_are_transformers_greedy_generation(shared, own_way, family):
    model, own, images = shared(family), own_way(family), pictures(4)
    for image, caption in zip(images, model.caption(images, 12), strict=True):
        inputs = own.inputs([image])
        ids = own.model.generate(**inputs, do_sample=False, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
        assert caption == model.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert len(set(model.caption(images, 12))) > 1


@EVERY
def test_one_lit_patch_is_one_changed_token_in_its_place(make, family):
    """Attention in the tower mixes patches; without it, what is left shows where each token comes from."""
    model, made = make(family), FAMILIES[family]
    modules = model.model.named_modules()
    outs = [module for name, module in modules if "vision" in name and name.endswith(f".{made.out}")]
    assert len(outs) == TOWER["num_hidden_layers"]
    with torch.no_grad():
        for module in outs:
            module.weight.zero_()
    assert model.grid == (made.side, made.side)
    n = SIZE // made.patch
    lit = np.full((n, n, SIZE, SIZE, 3), 20, np.uint8)
    for row, column in np.ndindex(n, n):
        lit[row, column, row * made.patch : (row + 1) * made.patch, column * made.patch : (column + 1) * made.patch] = (
            250
        )
    dark = model.prompts([np.full((SIZE, SIZE, 3), 20, np.uint8)])
    changed = ((model.prompts(list(lit.reshape(-1, SIZE, SIZE, 3))) - dark).abs() > 1e-5).any(-1)  # (n * n, T)
    for (row, column), tokens in zip(np.ndindex(n, n), changed, strict=True):
        place = model.image_positions.start + row // made.merged * made.side + column // made.merged
        assert tokens.nonzero().ravel().tolist() == [place]


def target_of(model, caption: str = CAPTION) -> Target:
    ids, spans = model.encode(caption)
    place = next(i for i, (_, end) in enumerate(spans) if end > caption.index("bear"))
    return Target("bear", ids[place], place)


@EVERY
def test_one_backward_pass_gives_every_neurons_activation_and_gradient(shared, family):
    model, (image, inpainted) = shared(family), pictures(2)
    target = target_of(model)
    pair = capture(model, image, inpainted, CAPTION, target)
    n = model.grid[0] * model.grid[1]
    assert pair.original.shape == pair.inpainted.shape == pair.gradient.shape == (3, n, 48)
    assert (model.n_layers, model.ffn_width) == (3, 48)
    with torch.no_grad(), record(model) as activations:
        model.logits([inpainted])
    without = torch.stack([layer[0, model.image_positions] for layer in activations])
    assert torch.allclose(pair.inpainted, without, atol=1e-5)

    layer, token, unit = 1, n // 2, int(pair.gradient[1, n // 2].abs().argmax())
    step, place = 1e-2, model.image_positions.start + n // 2

    def logit(by: float) -> float:
        def edit(values, _):
            values = values.clone()
            values[:, place, unit] += by
            return values

        with torch.no_grad(), intervene(model, {layer: edit}):
            return model.logits([image], [CAPTION])[0, target.position, target.token].item()

    slope = (logit(step) - logit(-step)) / (2 * step)
    assert pair.gradient[layer, token, unit].item() == pytest.approx(slope, rel=0.02, abs=1e-3)
    assert (pair.gradient[:-1] != 0).any()
    assert (pair.gradient[-1] == 0).all()  # the last layer's image tokens reach no word

    best = NeuronSet("bear", "two-stage", np.array([0, 1]), np.array([3, unit]), np.array([2.0, 1.0]))
    expected = (pair.gradcam[0, :, 3] + pair.gradcam[1, :, unit]).numpy().reshape(model.grid) / 2
    assert heatmap(pair.gradcam, best, model.grid) == pytest.approx(expected)


@EVERY
def test_noise_at_the_image_tokens_changes_what_is_said_until_it_is_taken_away(shared, family):
    model, (image,) = shared(family), pictures(1)
    prompt = model.prompts([image])
    neurons = NeuronSet("bear", "two-stage", np.arange(40) % 2, np.arange(40), np.zeros(40))
    edits = edits_for(model, neurons, Setting("noise", "image", 40, 5.0, 0), ["one"])
    before, said = model.logits(prompt, [CAPTION]), model.caption(prompt, 8)
    with torch.no_grad(), intervene(model, edits), record(model) as noisy:
        assert (model.logits(prompt, [CAPTION]) - before).abs().amax() > 0.05
    with record(model) as clean:
        assert torch.equal(model.logits(prompt, [CAPTION]), before)
    assert model.caption(prompt, 8) == said
    changed = (noisy[0] != clean[0]).any(-1)[0].nonzero().ravel().tolist()
    assert changed == list(range(model.image_positions.start, model.image_positions.stop))


@EVERY
def test_an_ablation_is_what_a_whole_run_without_the_neuron_gives(shared, family):
    model, (image,) = shared(family), pictures(1)
    prompt, target = model.prompts([image])[0], target_of(model)
    layers, units = np.array([2, 0, 1, 0, 2]), np.array([5, 7, 9, 40, 47])
    found = ablate(model, prompt, CAPTION, target, layers, units, "all")

    def logit(edits) -> float:
        with torch.no_grad(), intervene(model, edits):
            return model.logits(prompt[None], [CAPTION])[0, target.position, target.token].item()

    def off(unit: int):
        def edit(values, _):
            values = values.clone()
            values[..., unit] = 0
            return values

        return edit

    clean = logit({})
    expected = [clean - logit({layer: off(unit)}) for layer, unit in zip(layers, units, strict=True)]
    assert found == pytest.approx(expected, abs=2e-5)
    assert np.abs(expected).max() > 1e-2


@EVERY
def test_rival_methods_run_and_agree_with_the_residual_stream(shared, family):
    model, (image, inpainted) = shared(family), pictures(2)
    target = target_of(model)
    pair = capture(model, image, inpainted, CAPTION, target)
    assert rivals.schwettmann(pair).shape == (3, 48)
    written = []
    hooks = [block.register_forward_hook(lambda _, __, out: written.append(out)) for block in model.ffn]
    with torch.no_grad():
        model.logits([image], [CAPTION])
    for hook in hooks:
        hook.remove()
    place = model.prompt_length - 1 + target.position
    direct = [(out[0, place] @ model.unembed[target.token]).item() for out in written]
    assert rivals.pan(model, pair, target, "gated").sum(axis=1) == pytest.approx(direct, rel=1e-4, abs=1e-4)
    dai = rivals.integrated_gradients(model, image, CAPTION, target, layers=[1], steps=200)

    def silence(values, first):
        values = values.clone()
        values[:, place - first] = 0
        return values

    def chance(edits) -> float:
        with torch.no_grad(), intervene(model, edits):
            return model.logits([image], [CAPTION])[0, target.position].softmax(-1)[target.token].item()

    total = chance({}) - chance({1: silence})  # the axiom of completeness
    assert dai.sum() == pytest.approx(total, rel=0.05, abs=1e-4)


@EVERY
def test_batches_change_nothing(make, shared, family):
    images, captions = pictures(3), [CAPTION, "", "A pizza."]
    whole, single = shared(family), make(family, batch_size=1)
    assert whole.caption(images, 8) == single.caption(images, 8)
    assert torch.allclose(whole.prompts(images), single.prompts(images), atol=1e-5)
    logits = whole.logits(images, captions)
    for row, (image, caption) in enumerate(zip(images, captions, strict=True)):
        one = single.logits([image], [caption])[0]
        assert torch.allclose(logits[row, : len(one)], one, atol=1e-4)
    assert np.isnan(whole.perplexity(captions)).tolist() == [False, True, False]


# What a picture is, and what a caption


def test_a_picture_is_squashed_whole_whatever_its_shape(shared):
    model = shared("llava")
    tall = np.zeros((96, 48, 3), np.uint8)
    tall[:24] = 255  # the upper quarter
    pixels = model.preprocess([tall])
    assert pixels.shape == (1, 3, SIZE, SIZE)
    mean, std = (torch.tensor(getattr(model.preprocess, name))[:, None, None] for name in ("mean", "std"))
    light = (pixels[0] * std + mean).mean(0)
    assert light[: SIZE // 4 - 2].min() > 0.99
    assert light[SIZE // 4 + 2 :].max() < 0.01


def test_a_caption_is_tokenised_as_it_stands_behind_the_prompt(shared):
    said, asked = shared("smolvlm"), shared("internvl-qwen2")  # 'Assistant:' on the line, and a line of its own
    pieces = {model: [model.token(index) for index in model.encode(CAPTION)[0]] for model in (said, asked)}
    assert pieces[said][0] == " A"
    assert pieces[asked][0] == "A"
    for model in (said, asked):
        ids, spans = model.encode(CAPTION)
        assert "".join(pieces[model]).strip() == CAPTION
        assert [CAPTION[start:end].strip() for start, end in spans] == [piece.strip() for piece in pieces[model]]
        assert model.encode("") == ([], [])
        whole = model.tokenizer(model._lead + CAPTION, add_special_tokens=False).input_ids
        assert whole[-len(ids) :] == ids


def test_no_word_of_the_prompt_is_taken_for_a_texts_first(make, save):
    tokenizer = metaspace()
    folder = save("llava", FAMILIES["llava"].config(len(tokenizer)), tokenizer, key="llava-metaspace")
    model, own = make("llava", folder), Own("llava", folder)
    text = FAMILIES["llava"].before + "<image>" * 16 + FAMILIES["llava"].after + " " + CAPTION
    expected = own.tokenizer(text, add_special_tokens=False).input_ids
    found = [*model.before.tolist(), *[2] * 16, *model.after.tolist(), *model.encode(CAPTION)[0]]
    assert found == expected
    alone = tokenizer(FAMILIES["llava"].after, add_special_tokens=False).input_ids
    assert model.after.tolist() != alone  # so it does matter
    assert model.token(model.encode(CAPTION)[0][0]) == " A"
    assert tokenizer.convert_ids_to_tokens(model.encode(CAPTION)[0][:1]) == ["▁A"]


def test_asked_in_other_words_it_is_the_model_that_was_made_with_them(make):
    one, other = make("llava"), make("llava")
    words = FAMILIES["llava"].after.replace("ASSISTANT", "USER") if "ASSISTANT" in FAMILIES["llava"].after else " say: "
    asked = one.asking(words)
    assert one.after.tolist() == other.after.tolist() != asked.after.tolist()
    whole = [*asked.before.tolist(), *asked.after.tolist(), *asked.encode(CAPTION)[0]]
    text = FAMILIES["llava"].before + "<image>" + words
    lead = asked.tokenizer(text, add_special_tokens=False).input_ids
    assert [token for token in lead if token != one._image] == whole[: len(lead) - 1]


def test_every_end_that_the_generation_config_names_ends_a_caption(make):
    model = make("llava")
    assert model.ends.tolist() == [1, 4]
    prompts = model.prompts(pictures(8))
    with torch.no_grad():
        firsts = model.logits(prompts)[:, 0].argmax(-1).tolist()
    row = next(row for row, first in enumerate(firsts) if first not in model.tokenizer.all_special_ids)
    word = model.token(firsts[row]).strip()
    assert model.caption(prompts[[row]], 6) != [word]
    model.ends[1] = firsts[row]
    assert model.caption(prompts[[row]], 6) == [word]


def test_half_precision_stays_close(make):
    images = pictures(2)
    with torch.no_grad():
        full = make("llava").logits(images)
        half = make("llava", dtype="bfloat16").logits(images)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()


# What must not pass for a model


def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_what_is_missing_is_named_with_what_to_do(make, save, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=r"No checkpoint 'some/where': .* `hf download some/where`"):
        make("llava", Path("some/where"))
    with pytest.raises(FileNotFoundError, match=r"No checkpoint '/no/folder/there'"):
        make("llava", Path("/no/folder/there"))
    folder = copy(save("llava"), tmp_path)
    (folder / "tokenizer.json").unlink()
    change(folder / "config.json")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(FileNotFoundError, match="incomplete: no tokenizer.json, model-00002-of-00002.safetensors in"):
        make("llava", folder)


def test_a_checkpoint_in_the_hubs_cache_is_found_by_its_name(make, save, tmp_path, monkeypatch):
    repository = tmp_path / "models--tiny--llava"
    revision = "0123456789" * 4
    shutil.copytree(save("llava"), repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    images = pictures(1)
    assert torch.equal(make("llava", Path("tiny/llava")).prompts(images), make("llava").prompts(images))


def test_a_family_without_an_adapter(make, save, tmp_path):
    folder = copy(save("llava"), tmp_path)
    change(folder / "config.json", model_type="llava_llama")
    told = (
        r"No adapter for the model_type 'llava_llama' of .*copy: .* looked for among .*gemma3, idefics3, .*page 'Add a"
    )
    with pytest.raises(CheckpointError, match=told):
        make("llava", folder)


def test_the_class_token_lies_on_no_patch(make, save, tmp_path):
    folder = copy(save("llava"), tmp_path)
    change(folder / "config.json", vision_feature_select_strategy="full")
    with pytest.raises(CheckpointError, match="must be 'default', which drops the class token"):
        make("llava", folder)


def test_the_grid_is_held_against_what_the_model_returns(make):
    model = make("llava")
    model.image_positions = slice(model.image_positions.start, model.image_positions.start + 20)
    with pytest.raises(CheckpointError, match=r"must give image tokens \(P, H\)=\(20, 32\) .* Got \[\(16, 32"):
        model.prompts(pictures(1))


def test_a_tower_whose_tokens_lie_on_no_patch(make, save, tmp_path, monkeypatch):
    folder = copy(save("idefics3"), tmp_path)
    monkeypatch.setitem(
        hf.ADAPTERS, "idefics3", partial(one_view.adapt, shuffle=lambda _: 1, towers=("clip_vision_model",))
    )
    with pytest.raises(CheckpointError, match="whose tokens lie on patches, clip_vision_model. Got idefics3_vision"):
        make("idefics3", folder)


def test_a_decoder_without_gated_blocks_that_can_be_read(make, save):
    tokenizer = byte_level()
    phi = Phi3Config(**DECODER, vocab_size=len(tokenizer))
    config = FAMILIES["llava"].config(len(tokenizer))
    config.text_config = phi
    folder = save("llava", config, tokenizer, key="llava-phi3")
    message = r"llava: layer 0 of its decoder, a phi3, must have one .* act_fn and down_proj. Got 0; there is Phi3MLP\("
    with pytest.raises(CheckpointError, match=message):
        make("llava", folder)


def test_layers_that_share_an_activation_function(make):
    model = make("llava")
    shared = nn.SiLU()
    for block in model.ffn[1:]:
        block.act_fn = shared
    with pytest.raises(CheckpointError, match="every layer of its decoder, a llama, must have an act_fn of its own"):
        hf.gated_blocks(model.backbone, "llava")


def test_neurons_that_are_not_where_the_hooks_look(make):
    model = make("llava")
    model.backbone.config.intermediate_size = 47
    with pytest.raises(CheckpointError, match=r"preactivation of a llama layer must have shape \(B, T, D\)=.* 47\)"):
        model._try_out()


def test_logits_that_are_more_than_states_times_output_embeddings(make):
    model = make("llava")
    model.model.register_forward_hook(lambda _, __, out: replace(out, logits=3 * torch.tanh(out.logits / 3)))
    with pytest.raises(CheckpointError, match="it scales or caps them"):
        model._try_out()


def reweigh(folder: Path, part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change every weight of a checkpoint whose name holds `part`."""
    held = load_file(folder / "model.safetensors")
    changed = {name: change(weight.clone()) if part in name else weight for name, weight in held.items()}
    save_file(changed, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("dtype", "part", "change", "message"),
    [
        ("float32", "fc1.weight", lambda weight: weight * torch.nan, "of its weights hold NaN, .*fc1.weight among"),
        ("float16", "weight", lambda weight: weight * 1e5, "In float16 .*overflow.*Set model.dtype to bfloat16"),
        ("float32", "", torch.zeros_like, "every token is as likely as any other"),
    ],
)
def test_numbers_that_are_none_are_said_to_be(make, save, tmp_path, dtype, part, change, message):
    folder = copy(save("llava"), tmp_path)
    reweigh(folder, part, change)
    with pytest.raises(CheckpointError, match=message):
        make("llava", folder, dtype=dtype)


def test_numbers_beyond_float16_are_read_in_bfloat16(make, save, tmp_path):
    folder = copy(save("llava"), tmp_path)
    reweigh(folder, "mlp", lambda weight: weight * 1000)
    with pytest.raises(CheckpointError, match="Set model.dtype to bfloat16"):
        make("llava", folder, dtype="float16")
    assert make("llava", folder, dtype="bfloat16").caption(pictures(1), 4)


LARGER = {**DECODER, "model_type": "llama", "vocab_size": 500}
OLDER = {"vision_config": None, "text_config": None, "mm_vision_tower": "openai/clip-vit-large-patch14-336"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", LFS, "model.safetensors must be weights .*Got a pointer of Git LFS.*`hf download"),
        ("config.json", PAGE, "config.json must be settings, .* Got a web page"),
        ("tokenizer.json", b"", "tokenizer.json must be settings, .* Got an empty file"),
        ("preprocessor_config.json", b"[]", "preprocessor_config.json must be settings, .* Got a list"),
        ("generation_config.json", b"\xef\xbb\xbf{}", "generation_config.json .* byte order mark"),
        ("model.safetensors.index.json", b"{}", "Got an index without 'weight_map'"),
        ("config.json", {"image_token_index": None, "image_token_id": None}, "cannot be loaded by transformers"),
        ("config.json", OLDER, r"describes a llava of 7,0[\d,]+ numbers, and the files .* hold 56,608"),
        ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised .*gptq.*bfloat16"),
        ("config.json", {"text_config": LARGER}, "lm_head.weight is .* in the files, .500, 32. by"),
        ("tokenizer.json", {"model": {"type": "none of them"}}, "cannot be loaded by transformers"),
        ("preprocessor_config.json", {"image_mean": 3, "resample": 99}, "cannot be loaded by transformers"),
    ],
)  # fmt: skip
def test_files_that_are_not_what_their_names_say_are_one_sentence(make, save, tmp_path, capfd, file, content, message):
    folder = copy(save("llava"), tmp_path)
    if isinstance(content, bytes):
        (folder / file).write_bytes(content)
    else:
        said = json.loads((folder / file).read_text()) | content
        parts = ("vision_config", "text_config")
        kept = {key: value for key, value in said.items() if value is not None or key not in parts}
        (folder / file).write_text(json.dumps(kept))
    with pytest.raises((CheckpointError, WeightsError), match=message) as raised:
        make("llava", folder)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_quantised_model_in_memory_is_refused(save):
    model = AutoModelForImageTextToText.from_pretrained(save("llava"))
    model.config.quantization_config = {"quant_method": "gptq"}
    processor = SimpleNamespace(tokenizer=byte_level(), image_processor=FAMILIES["llava"].processor())
    with pytest.raises(WeightsError, match="LlavaForConditionalGeneration is quantised .*gptq"):
        load_model((model, processor))


def test_weights_without_a_use_are_said_in_a_line(make, save, tmp_path, caplog):
    folder = copy(save("llava"), tmp_path)
    held = load_file(folder / "model.safetensors")
    save_file(held | {"some.lora_A.weight": torch.ones(2)}, folder / "model.safetensors", {"format": "pt"})
    make("llava", folder)
    (record,) = [each for each in caplog.records if each.name.startswith("kn_core")]
    assert record.getMessage().endswith("has no use for 1 of its weights, such as some.lora_A.weight")


def test_weights_that_are_missing_are_not_made_up(make, save, tmp_path):
    folder = copy(save("llava"), tmp_path)
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "linear_2.weight" in name)
    del weights[gone]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights of its llava, .*linear_2.weight among"):
        make("llava", folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"before": "USER: "}, "model.before must begin with '<s>'"),
        ({"before": "<s><image>"}, "the adapter, which puts it between them. It is there 2 times"),
        ({"after": "<image> say"}, "It is there 2 times"),
    ],
)
def test_a_prompt_that_is_not_the_models(make, settings, message):
    with pytest.raises(CheckpointError, match=message):
        make("llava", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_size": {"height": 24, "width": 24}}, r"must make pictures of 32 x 32 pixels.* Got {'height': 24"),
        ({"image_mean": None}, ""),
    ],
)
def test_pictures_that_are_not_the_towers(make, save, tmp_path, settings, message):
    folder = copy(save("llava"), tmp_path)
    path = folder / "preprocessor_config.json"
    if message:
        change(path, **settings)
    else:
        said = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in said.items() if key not in settings}))
        message = "must say how pictures are preprocessed. It lacks image_mean"
    with pytest.raises(CheckpointError, match=message):
        make("llava", folder)


def test_settings_of_the_processor_as_newer_checkpoints_keep_them(make, save, tmp_path):
    folder = copy(save("llava"), tmp_path)
    said = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": said}))
    images = pictures(1)
    assert torch.equal(make("llava", folder).prompts(images), make("llava").prompts(images))


def test_decoders_whose_single_neurons_cannot_be_ablated(make):
    model = make("llava")
    (prompt,), target = model.prompts(pictures(1)), target_of(model)
    model.backbone.config.sliding_window = 8
    with pytest.raises(ValueError, match="must fit into the llama's window of 8"):
        ablate(model, prompt, CAPTION, target, np.array([0]), np.array([0]))
    model.backbone.config.model_type = "gemma2"
    with pytest.raises(StudyError, match="in decoders of type llama, mistral, qwen2, qwen3. This one is gemma2"):
        ablate(model, prompt, CAPTION, target, np.array([0]), np.array([0]))


def test_a_checkpoints_identity_follows_its_weights_and_files(save, tmp_path):
    folder = copy(save("llava"), tmp_path)
    one = identity(profile_of("llava", save("llava")))
    assert identity(profile_of("llava", folder)) == one == checkpoints.identity(str(folder))
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    two = identity(profile_of("llava", folder))
    change(folder / "generation_config.json", eos_token_id=5)
    assert len({one, two, identity(profile_of("llava", folder))}) == 3


def test_a_checkpoint_has_no_projection_to_be_replaced(save):
    with pytest.raises(ProfileError, match="is a checkpoint .* it has no parts"):
        load_model(profile_of("llava", save("llava")), projection=None)


@pytest.mark.parametrize("name", ["llava-1.5-7b"])
def test_profiles_of_checkpoints_are_complete(name):
    profile = load_profile(name)
    assert isinstance(profile.model, Checkpoint)
    assert profile.model.before is None or profile.model.before.startswith("<s>")
    assert profile.long.perturbation.draws >= 20
