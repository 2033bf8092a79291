"""BLIP-2 and InstructBLIP on tiny random weights: what transformers computes, and hooks that see their neurons."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
)

from kn_core.method.capture import capture, find_target
from kn_core.method.heatmap import heatmap
from kn_core.method.rivals import integrated_gradients
from kn_core.method.two_stages import NeuronSet
from kn_core.models import CaptionModel, blip2, hf, load_model
from kn_core.models.blip2 import Blip2
from kn_core.models.checkpoints import CheckpointError
from kn_core.models.hooks import intervene, record
from kn_core.profile import load_profile
from kn_core.settings import Checkpoint
from kn_core.study.experiments.single_neurons import ablate
from kn_core.study.pairs import StudyError
from tests.toy_world import toy_samples

SAID = "a photo of"
KINDS = ("opt", "vicuna")


@pytest.fixture(scope="session")
def begun(toy_tokenizer) -> PreTrainedTokenizerFast:
    """The toy tokenizer as OPT's: texts begin with the end-of-sequence token."""
    backend = Tokenizer.from_str(toy_tokenizer.backend_tokenizer.to_str())
    end = toy_tokenizer.eos_token_id
    template = processors.TemplateProcessing(single="<end> $A", special_tokens=[("<end>", end)])
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<end>", eos_token="<end>", clean_up_tokenization_spaces=False
    )


@pytest.fixture(scope="session")
def folders(begun, tmp_path_factory) -> dict[str, Path]:
    """A BLIP-2 with OPT and an InstructBLIP with Vicuna, as transformers saves them."""
    n = len(begun)
    tower = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    tower |= {"image_size": 16, "patch_size": 4, "initializer_range": 0.3}
    queries = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    queries |= {"encoder_hidden_size": 16, "vocab_size": n, "initializer_range": 0.3}
    text = {"vocab_size": n + 1, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    special = {"bos_token_id": begun.bos_token_id, "eos_token_id": begun.encode("\n")[-1], "pad_token_id": 0}
    opt = OPTConfig(
        **text, **special, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=64, init_std=0.3, dropout=0.0
    )
    llama = LlamaConfig(**text, **special, intermediate_size=48, initializer_range=0.3)
    shared = {"num_query_tokens": 4, "image_token_index": n}
    made = {
        "opt": Blip2ForConditionalGeneration(
            Blip2Config(vision_config=tower, qformer_config=queries, text_config=opt, **shared)
        ),
        "vicuna": InstructBlipForConditionalGeneration(
            InstructBlipConfig(vision_config=tower, qformer_config=queries, text_config=llama, **shared)
        ),
    }
    found = {}
    for kind, model in made.items():
        torch.manual_seed(3)
        with torch.no_grad():  # the queries and the class token would be 0 otherwise
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.3)
        model.generation_config.eos_token_id = special["eos_token_id"]
        found[kind] = tmp_path_factory.mktemp(kind)
        model.save_pretrained(found[kind])
        begun.save_pretrained(found[kind])
        begun.save_pretrained(found[kind] / "qformer_tokenizer")
        said = {"size": {"height": 16, "width": 16}, "resample": 3, "rescale_factor": 1 / 255}
        said |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
        (found[kind] / "preprocessor_config.json").write_text(json.dumps(said))
    return found


def settings(**changes: object) -> Checkpoint:
    given = {"family": "transformers", "checkpoint": "x", "before": "", "after": SAID, "device": "cpu"}
    return Checkpoint.model_validate(given | changes)


def loaded(folder: Path, **changes: object) -> CaptionModel:
    return hf.load_checkpoint(settings(checkpoint=str(folder), **changes))


@pytest.fixture(scope="session")
def models(folders) -> dict[str, Blip2]:
    return {kind: loaded(folder, batch_size=3) for kind, folder in folders.items()}


@pytest.fixture(params=KINDS)
def model(request, models) -> Blip2:
    return models[request.param]


@pytest.fixture
def plain(folders) -> Callable[[Blip2], torch.nn.Module]:
    """The same weights as transformers loads them, untouched by an adapter."""

    def load(model: Blip2) -> torch.nn.Module:
        opt = model.model.config.model_type == "blip-2"
        kind = Blip2ForConditionalGeneration if opt else InstructBlipForConditionalGeneration
        return kind.from_pretrained(folders["opt" if opt else "vicuna"]).eval()

    return load


def test_numbers_that_are_none_are_said_to_be(folders, tmp_path):
    folder = Path(shutil.copytree(folders["opt"], tmp_path / "copy"))
    held = load_file(folder / "model.safetensors")
    held |= {name: weight * torch.nan for name, weight in held.items() if "fc2.weight" in name}
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"blip-2: .* weights hold NaN, .*fc2.*weight among them"):
        loaded(folder)


def pictures(n: int) -> list[np.ndarray]:
    return [sample.image for sample in toy_samples("bear", n, seed=3)]


def inputs(model: Blip2, images: list[np.ndarray], text: str = "") -> dict[str, torch.Tensor]:
    """What transformers' own processor would make of pictures and text."""
    ids = [model.model.config.image_token_id] * 4 + model.tokenizer(text or SAID).input_ids
    given = {"input_ids": torch.tensor([ids] * len(images)), "pixel_values": model.preprocess(images)}
    if model.model.config.model_type == "instructblip":
        given["qformer_input_ids"] = torch.tensor([model.tokenizer(SAID).input_ids] * len(images))
    return given


def test_prompts_and_logits_are_those_of_transformers(model, plain):
    images, caption = pictures(4), "bear in a forest"
    expected = plain(model)(**inputs(model, images, f"{SAID} {caption}")).logits
    found = model.logits(images, [caption] * 4)
    assert (model.image_positions, model.grid) == (slice(0, 4), (4, 4))
    assert model.prompt_length == 4 + len(model.tokenizer(SAID).input_ids)
    assert found.shape[1] == 1 + len(model.encode(caption)[0])
    assert torch.allclose(found, expected[:, model.prompt_length - 1 :], atol=1e-4)
    assert len({tuple(row) for row in found[:, 0].round(decimals=2).tolist()}) == 4  # pictures matter


@pytest.mark.parametrize("end", [None, 0])
def test_captions_are_those_of_transformers_greedy_generation(model, plain, end):
    images, own = pictures(4), plain(model)
    if end is not None:  # one that random weights do write
        written = model.logits(images[:1])[0, 0].argmax().item()
        own.generation_config.eos_token_id = written
        model.ends, before = torch.tensor([written]), model.ends
    expected = []
    for image in images:
        given = inputs(model, [image])
        ids = own.generate(**given, do_sample=False, num_beams=1, max_new_tokens=9, pad_token_id=0)[0]
        ids = ids[len(given["input_ids"][0]) :] if len(ids) > 9 else ids
        expected.append(model.tokenizer.decode(ids, skip_special_tokens=True).strip())
    found = model.caption(images, 9)
    if end is not None:
        model.ends = before
        padded = model.tokenizer.decode([written])
        assert [text.split(padded)[0].strip() for text in found] == [t.split(padded)[0].strip() for t in expected]
        assert found[0].strip() == model.tokenizer.decode([written]).strip() or not found[0]
    else:
        assert found == expected
        assert len(set(found)) > 1


def test_the_cache_numbers_positions_as_a_whole_pass_does(model):
    images, captions = pictures(4), ["bear in a forest", "bus", "", "pizza in a beach"]
    together = model.logits(images, captions)
    texts, cached = model.respond(images, captions, 5)
    for text, row, whole in zip(captions, cached, together, strict=True):
        n = 1 + len(model.encode(text)[0])
        assert torch.allclose(row[:n], whole[:n], atol=1e-4)
    assert texts == model.caption(images, 5)


def test_a_caption_is_tokenised_as_it_stands_after_the_prompt(model):
    caption = "bear in a forest"
    ids, spans = model.encode(caption)
    assert model.tokenizer(f"{SAID} {caption}").input_ids == [*model.after.tolist(), *ids]
    assert caption[slice(*spans[0])] == "bear"
    assert "".join(model.token(i) for i in ids) == f" {caption}"
    assert find_target(model, caption, "bear").position == 0
    assert model.encode("") == ([], [])


def test_hooks_see_every_layers_neurons(model, plain):
    images = pictures(2)
    opt = model.model.config.model_type == "blip-2"
    own, seen = plain(model), []
    layers = own.language_model.model.decoder.layers if opt else own.language_model.model.layers
    act = [layer.activation_fn if opt else layer.mlp.act_fn for layer in layers]
    for module in act:
        module.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    own(**inputs(model, images))
    for site in ("preactivation", "activation", "product"):
        with record(model, site) as found, torch.no_grad():
            model.logits(images)
        assert [tuple(layer.shape) for layer in found] == [(2, model.prompt_length, 48)] * 3
        if site == "activation" or (site == "product" and opt):
            for layer, expected in zip(found, seen, strict=True):
                assert torch.allclose(layer, expected.view_as(layer), atol=1e-4)
    assert (model.n_layers, model.ffn_width, model.w_out(0).shape) == (3, 48, (32, 48))


def test_a_neuron_at_zero_is_one_that_is_not_there(model, folders, plain):
    images, own = pictures(2), plain(model)
    opt = model.model.config.model_type == "blip-2"
    with torch.no_grad():
        layers = own.language_model.model.decoder.layers if opt else own.language_model.model.layers
        (layers[1].fc2 if opt else layers[1].mlp.down_proj).weight[:, 7] = 0
    expected = own(**inputs(model, images)).logits[:, -1]

    def off(activations, first):
        changed = activations.clone()
        changed[..., 7] = 0
        return changed

    before = model.logits(images)[:, 0]
    with intervene(model, {1: off}):
        found = model.logits(images)[:, 0]
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, before, atol=1e-4)


def test_both_stages_in_one_backward_pass(model):
    sample = next(toy_samples("bear", 1, seed=3))
    target = find_target(model, "bear", "bear")
    pair = capture(model, sample.image, sample.without, "bear", target)
    assert pair.delta.shape == (3, 4, 48)
    layer, query = 0, 2
    unit = int(pair.gradient[layer, query].abs().argmax())
    step = 1e-2

    def nudged(by):
        def edit(activations, first):
            changed = activations.clone()
            changed[0, query, unit] += by
            return changed

        with intervene(model, {layer: edit}), torch.no_grad():
            return float(model.logits([sample.image], ["bear"])[0, 0, target.token])

    slope = (nudged(step) - nudged(-step)) / (2 * step)
    assert slope == pytest.approx(float(pair.gradient[layer, query, unit]), rel=0.05, abs=1e-3)
    neurons = NeuronSet("bear", "x", np.array([layer]), np.array([unit]), np.array([1.0]))
    maps = model.token_maps([sample.image])[0]
    heat = heatmap(pair.gradcam, neurons, model.grid, maps)
    assert heat.shape == (4, 4)
    assert np.allclose(heat.ravel(), (pair.gradcam[layer, :, unit] @ maps).numpy(), atol=1e-5)


def test_queries_look_at_patches_and_an_instruction_has_a_part_in_it(models):
    images = pictures(4)
    for model in models.values():
        maps = model.token_maps(images)
        assert maps.shape == (4, 4, 16)
        assert torch.allclose(maps.sum(-1), torch.ones(4, 4), atol=1e-5)
        assert torch.allclose(maps[3:], model.token_maps(images[3:]), atol=1e-5)
        assert not torch.allclose(maps[0], maps[1], atol=1e-4)
    instructed = models["vicuna"]
    before, other = instructed.token_maps(images), {"qformer_input_ids": torch.tensor([[5, 9, 5]])}
    instructed._instruction, kept = other, instructed._instruction
    try:
        assert not torch.allclose(instructed.token_maps(images), before, atol=1e-4)
    finally:
        instructed._instruction = kept


def test_dai_scores_read_opt_too(models):
    image, model = pictures(1)[0], models["opt"]
    target = find_target(model, "bear", "bear")
    scores = integrated_gradients(model, image, "bear", target, layers=[2], steps=4)
    assert scores.shape == (1, 48)
    assert np.isfinite(scores).all()
    assert scores.any()


def test_single_neurons_are_ablated_in_llamas_alone(models):
    for kind, model in models.items():
        prompt, target = model.prompts(pictures(1))[0], find_target(model, "bear", "bear")
        place = model, prompt, "bear", target, np.array([1, 2]), np.array([7, 3])
        if kind == "opt":
            with pytest.raises(StudyError, match="decoders of type llama, mistral, qwen2, qwen3. This one is opt"):
                ablate(*place)
        else:
            assert ablate(*place).shape == (2,)


def test_what_the_adapter_cannot_read_is_refused(folders, tmp_path):
    with pytest.raises(CheckpointError, match="model.before must be '': this model's queries come before all text"):
        loaded(folders["opt"], before="Look: ")
    for file in folders["vicuna"].glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(FileNotFoundError, match="lacks qformer_tokenizer/tokenizer.json"):
        loaded(tmp_path)
    decoder = torch.nn.Module()
    decoder.config = type("Config", (), {"model_type": "t5"})
    with pytest.raises(CheckpointError, match="must be causal, opt or llama .Vicuna.. Got t5"):
        blip2._decoder(decoder)


def test_the_profile_asks_for_what_the_loader_gives():
    profile = load_profile("blip2-opt-2.7b")
    assert isinstance(profile.model, Checkpoint)
    assert profile.model.before == ""
    assert set(blip2.ADAPTERS) == {"blip-2", "instructblip"}


def test_one_in_memory_can_be_taken_twice(model, plain, begun):
    read = Path(model.model.name_or_path) / "preprocessor_config.json"
    pictures_of = SimpleNamespace(to_json_string=read.read_text)
    processor = SimpleNamespace(tokenizer=begun, image_processor=pictures_of, qformer_tokenizer=begun)
    own, images = plain(model), pictures(2)
    for _ in range(2):
        again = load_model((own, processor), after=SAID)
        with record(again) as found:
            torch.testing.assert_close(again.logits(images), model.logits(images))  # one by oneDNN, one by MKL
        assert found[0].shape == (2, again.prompt_length, 48)


def test_asked_nothing_it_is_asked_the_prompt(folders):
    model = load_model(folders["vicuna"], device="cpu")
    assert isinstance(model, Blip2)
    assert (model.before.tolist(), model.tokenizer.decode(model.after)) == ([], f"<end>{model._said.strip()}")
    assert model._said == "Provide a one-sentence caption for the provided image. "
