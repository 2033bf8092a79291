"""Inpainting by diffusion, with a Stable Diffusion pipeline of a few thousand random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from kn_core.method import filtering
from kn_core.pictures import diffusion, diffusion_pipeline
from kn_core.pictures.diffusion import in_cells, pasted
from kn_core.pictures.diffusion_pipeline import DiffusionError, folder_of, identity, load, why_not
from kn_core.pictures.inpaint import dilated, inpaint, inpaint_all
from kn_core.pictures.sample import Sample
from kn_core.settings import Diffusion
from tests.kn_core.study.test_study import changed


def tiny_pipeline(seed: int = 0, **more) -> StableDiffusionInpaintPipeline:
    """Its latents are an eighth of the picture, as in the real one; an inpainting UNet reads nine channels."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=2,
    )
    unet = UNet2DConditionModel(
        in_channels=9,
        out_channels=4,
        sample_size=64,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    text = CLIPTextConfig(
        vocab_size=514,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False} | more
    return StableDiffusionInpaintPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tiny_tokenizer(), unet=unet, scheduler=scheduler, **parts
    )


def tiny_tokenizer() -> CLIPTokenizer:
    """Bytes, alone and at a word's end."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The pipeline as diffusers saves it."""
    where = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline().save_pretrained(where)
    return where


@pytest.fixture
def settings(folder, tmp_path, monkeypatch) -> Diffusion:
    """Settings for the tiny pipeline, and a cache of the test's own."""
    monkeypatch.setenv("KN_CACHE", str(tmp_path / "cache"))
    return Diffusion(pipeline=str(folder), resolution=32, steps=2, blend=2, batch=4)


def picture(image_id: str = "7", height: int = 48, width: int = 64, seed: int = 0) -> Sample:
    """Noise, with an object of one colour in it."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[16:30, 20:40] = True
    image[mask] = (200, 30, 30)
    return Sample(image_id, "bear", image, mask)


def paint(sample: Sample, settings: Diffusion, dilation: int = 4) -> np.ndarray:
    return inpaint(sample, "diffusion", dilation, settings)


def change(settings: Diffusion, **values) -> Diffusion:
    return Diffusion.model_validate(settings.model_dump() | values)


# What is painted


def test_pixels_outside_the_hole_stay_as_they_are_and_the_object_goes(settings):
    sample = picture()
    before = sample.image.copy()
    painted, hole = paint(sample, settings), dilated(sample.mask, 4)
    assert painted.shape == sample.image.shape and painted.dtype == np.uint8
    assert (painted[~hole] == before[~hole]).all() and (sample.image == before).all()
    assert (painted[sample.mask] != (200, 30, 30)).any(axis=-1).all()


def test_white_is_painted_what_is_in_the_hole_is_not_looked_at_and_what_is_around_is(settings):
    sample, hole = picture(), dilated(picture().mask, 4)
    painted = paint(sample, settings)
    other = np.where(sample.mask[..., None], np.uint8(90), sample.image)  # another object at the same place
    other = paint(Sample("7", "bear", other, sample.mask), settings)
    assert (other == painted).all()
    around = np.where(hole[..., None], sample.image, 255 - sample.image)
    around = paint(Sample("7", "bear", around, sample.mask), settings)
    assert (around[sample.mask] != painted[sample.mask]).mean() > 0.5


def test_the_pipeline_gets_the_hole_white_at_its_own_size(settings, monkeypatch):
    asked = []

    def call(self, prompt, image, mask_image, height, width, strength, negative_prompt, **more):
        asked.append((prompt, negative_prompt, height, width, strength, np.asarray(mask_image[0]), image[0].size))
        return SimpleNamespace(images=np.full((len(image), height, width, 3), 0.5), nsfw_content_detected=None)

    pipeline = type("Pipeline", (), {"__call__": call})()
    monkeypatch.setattr(diffusion, "load", lambda settings: pipeline)
    painted = paint(picture(), change(settings, negative_prompt="bear"), dilation=0)
    ((prompt, negative, height, width, strength, mask, size),) = asked
    assert (prompt, negative, height, width, strength, size) == ([""], ["bear"], 24, 32, 1.0, (32, 24))
    # Rows 16-30 and columns 20-40 of 48 x 64 are rows 8-15, columns 10-20 of 24 x 32: cells 1 and 1-2.
    assert (mask == np.kron([[0, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 0]], np.ones((8, 8)))).all()
    assert (painted[picture().mask] == 128).all()


def test_a_hole_thinner_than_a_latent_is_painted_all_the_same():
    hole = np.zeros((64, 64), bool)
    hole[13, 30:35] = True
    for size in ((32, 32), (64, 64), (128, 128)):
        cells = in_cells(hole, size)
        assert cells.shape == size
        whole = cells.reshape(size[0] // 8, 8, size[1] // 8, 8)
        assert (whole.any(axis=(1, 3)) == whole.all(axis=(1, 3))).all()
        back = np.asarray(Image.fromarray(cells).resize((64, 64), Image.Resampling.NEAREST))
        assert back[hole].all()


def test_the_painting_fades_in_over_the_border_and_is_whole_on_the_object():
    image = np.zeros((9, 20, 3), np.uint8)
    mask = np.zeros((9, 20), bool)
    mask[:, 12:] = True
    hole = np.zeros((9, 20), bool)
    hole[:, 6:] = True
    mixed = pasted(Sample("1", "bear", image, mask), hole, np.full((9, 20, 3), 100, np.uint8), blend=3)
    assert mixed[4, :, 0].tolist() == [0] * 6 + [25, 50, 75] + [100] * 11
    hard = pasted(Sample("1", "bear", image, mask), hole, np.full((9, 20, 3), 100, np.uint8), blend=0)
    assert hard[4, :, 0].tolist() == [0] * 6 + [100] * 14
    none = pasted(Sample("1", "bear", image, mask), mask, np.full((9, 20, 3), 100, np.uint8), blend=3)
    assert none[4, :, 0].tolist() == [0] * 12 + [100] * 8  # no border, and the object does not shine through


def test_the_noise_is_the_pictures_own_whatever_the_batch_and_its_order(settings, monkeypatch, tmp_path):
    samples = [picture(name, seed=i) for i, name in enumerate("abc")] + [picture("tall", 64, 48, seed=9)]
    together = inpaint_all(samples, "diffusion", 4, settings)
    monkeypatch.setenv("KN_CACHE", str(tmp_path / "another"))
    backwards = inpaint_all(samples[::-1], "diffusion", 4, change(settings, batch=2))[::-1]
    for one, other in zip(together, backwards, strict=True):
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other).max() <= 1  # sums are not rounded alike in batches of other sizes
    monkeypatch.setenv("KN_CACHE", str(tmp_path / "third"))
    assert (inpaint_all(samples, "diffusion", 4, settings)[0] == together[0]).all()


def test_another_seed_and_another_picture_have_other_noise(settings):
    sample = picture()
    painted = paint(sample, settings)
    for other in (
        paint(sample, change(settings, seed=1)),
        paint(Sample("8", "bear", sample.image, sample.mask), settings),
    ):
        assert (other[sample.mask] != painted[sample.mask]).mean() > 0.5


def test_a_prompt_counts_and_guidance_only_with_one(settings):
    sample = picture()
    painted = paint(sample, settings)
    assert np.abs(paint(sample, change(settings, guidance=7.5)).astype(int) - painted).max() <= 1
    assert (paint(sample, change(settings, prompt="a red bear", guidance=7.5)) != painted).any()


# The cache


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """How many pictures the pipeline painted, call by call."""
    calls, whole = [], diffusion._painted

    def count(samples, *more):
        calls.append(len(samples))
        return whole(samples, *more)

    monkeypatch.setattr(diffusion, "_painted", count)
    return calls


def test_what_was_painted_is_kept_and_only_the_rest_is_painted(settings, counted, monkeypatch):
    samples = [picture(name, seed=i) for i, name in enumerate("abc")]
    first = paint(samples[1], settings)
    found = inpaint_all(samples, "diffusion", 4, settings)
    assert counted == [1, 2]
    assert (found[1] == first).all()
    monkeypatch.setattr(diffusion, "load", lambda settings: pytest.fail("loaded for what lies in the cache"))
    again = inpaint_all(samples, "diffusion", 4, change(settings, batch=1))
    assert all((one == other).all() for one, other in zip(again, found, strict=True))
    assert counted == [1, 2]


@pytest.mark.parametrize("what", ["resolution", "blend", "prompt", "steps", "seed", "guidance", "negative_prompt"])
def test_another_setting_is_another_painting(settings, counted, what):
    paint(picture(), settings)
    paint(picture(), change(settings, **{what: {"prompt": "sand", "negative_prompt": "sand"}.get(what, 8)}))
    assert counted == [1, 1]


def test_another_hole_mask_or_pipeline_is_another_painting(settings, counted, tmp_path):
    sample = picture()
    paint(sample, settings)
    paint(sample, settings, dilation=3)
    tiny_pipeline(seed=1).save_pretrained(tmp_path / "other")
    paint(sample, change(settings, pipeline=str(tmp_path / "other")))
    assert counted == [1, 1, 1]
    assert len(list((tmp_path / "cache" / "inpainted").iterdir())) == 3


def test_a_broken_file_is_painted_again(settings, counted, tmp_path, caplog):
    painted = paint(picture(), settings)
    (file,) = (tmp_path / "cache" / "inpainted").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert (paint(picture(), settings) == painted).all()
    assert counted == [1, 1] and "painted again" in caplog.text


def test_the_pipeline_is_loaded_once(settings):
    assert load(settings) is load(change(settings, seed=5, batch=1))


def test_pairs_are_painted_in_batches_and_only_where_nothing_has_failed(settings, counted, monkeypatch, toy_profile):
    how = {"method": "diffusion", "dilation": 4, "diffusion": settings.model_dump()}
    profile = changed(toy_profile, inpainting=how, filtering={"constraints": ["one_region", "not_named_after"]})
    samples = [picture(name, seed=i) for i, name in enumerate("abcd")]
    samples[1].mask[:4] = True  # two regions
    said = iter([["A bear."] * 3, ["A wall.", "A bear.", "A wall."]])
    model = SimpleNamespace(caption=lambda images, tokens: next(said), encode=lambda text: ([1, 2], [(0, 1), (1, 7)]))
    rows = list(filtering._look_at(model, samples, profile))
    assert counted == [3]
    assert [row["reason"] for row in rows] == ["", "one_region", "not_named_after", ""]
    assert [row["caption_inpainted"] for row in rows] == ["A wall.", "", "A bear.", "A wall."]


# What cannot be used


def test_a_pipeline_that_is_not_there_is_named_with_its_files_its_licence_and_how_to_allow_it(monkeypatch, tmp_path):
    monkeypatch.setattr(diffusion_pipeline, "snapshot_download", nothing_cached)
    with pytest.raises(DiffusionError) as raised:
        paint(picture(), Diffusion())
    message = str(raised.value)
    assert "\n" not in message
    for part in ("stabilityai/stable-diffusion-2-inpainting", "unet", "OpenRAIL", "hf download", "diffusion.pipeline"):
        assert part.lower() in message.lower().replace("open rail", "openrail")
    with pytest.raises(DiffusionError, match=r"hf download someone/else --include '\*.json'.*"):
        folder_of("someone/else")
    assert why_not(Diffusion()).startswith("no complete pipeline stabilityai/")


def nothing_cached(name: str, local_files_only: bool) -> str:
    """As the hub's own function where the cache is empty."""
    assert local_files_only
    raise diffusion_pipeline.LocalEntryNotFoundError(name)


def test_a_path_that_does_not_exist_is_no_name_on_the_hub(tmp_path):
    with pytest.raises(DiffusionError, match="nowhere' is no folder, and the hub's cache does not hold it"):
        folder_of(str(tmp_path / "nowhere"))


def test_a_name_in_the_hubs_cache_is_found_there(folder, monkeypatch):
    monkeypatch.setattr(diffusion_pipeline, "snapshot_download", lambda name, local_files_only: str(folder))
    assert folder_of("someone/tiny") == folder
    assert identity(Diffusion(pipeline="someone/tiny")) == identity(Diffusion(pipeline=str(folder)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda where: (where / "model_index.json").unlink(), "must hold a model_index.json"),
        (lambda where: (where / "model_index.json").write_text("{"), "must hold a model_index.json"),
        (lambda where: shutil.rmtree(where / "vae"), "is incomplete: it has no vae/. It takes"),
        (
            lambda where: (where / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
            r"is incomplete: it has no unet/\*\.safetensors",
        ),
        (
            lambda where: (where / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"short"),
            "cannot be loaded: ",
        ),
    ],
    ids=["no index", "broken index", "no part", "no weights", "broken weights"],
)
def test_a_pipeline_that_is_not_whole_is_named(folder, settings, tmp_path, spoil, message):
    where = Path(shutil.copytree(folder, tmp_path / "spoilt"))
    spoil(where)
    with pytest.raises(DiffusionError, match=message):
        paint(picture(), change(settings, pipeline=str(where)))


def test_a_pipeline_that_takes_no_mask_is_refused(folder, settings, tmp_path):
    where = Path(shutil.copytree(folder, tmp_path / "text"))
    index = json.loads((where / "model_index.json").read_text()) | {"_class_name": "StableDiffusionPipeline"}
    (where / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(DiffusionError, match="no inpainting pipeline: StableDiffusionPipeline takes no image with a"):
        paint(picture(), change(settings, pipeline=str(where)))


def test_without_diffusers_it_says_what_to_install(settings, monkeypatch):
    def absent(name):
        raise diffusion.PackageNotFoundError(name)

    monkeypatch.setattr(diffusion, "version", absent)
    with pytest.raises(DiffusionError, match=r"diffusers, which is not installed: pip install -e '\.\[paper\]'"):
        paint(picture(), settings)
    monkeypatch.setattr(diffusion_pipeline, "find_spec", lambda name: None)
    assert why_not(settings).startswith("diffusers is not installed")


def test_by_the_way_it_runs_on_an_accelerator_or_where_the_profile_says_so(settings, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert "no accelerator" in why_not(settings)
    assert why_not(change(settings, device="cpu")) == ""
    assert diffusion_pipeline.placed(settings) == ("cpu", torch.float32)
    assert diffusion_pipeline.placed(change(settings, device="cuda:1")) == ("cuda:1", torch.float16)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    assert why_not(settings) == "" and diffusion_pipeline.placed(settings) == ("cuda", torch.float16)
    assert diffusion_pipeline.placed(change(settings, dtype="bfloat16")) == ("cuda", torch.bfloat16)


def test_a_covered_picture_is_an_error_before_anything_is_loaded(settings, monkeypatch):
    monkeypatch.setattr(diffusion, "load", lambda settings: pytest.fail("loaded"))
    with pytest.raises(ValueError, match="covers the whole picture"):
        paint(picture(), settings, dilation=90)


def tiny_checker(threshold: float) -> dict:
    """A safety checker that takes everything for unsafe, or nothing, with its feature extractor."""
    vision = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=CLIPTextConfig().to_dict(),
        vision_config=CLIPVisionConfig(**vision, image_size=32, patch_size=16).to_dict(),
        projection_dim=8,
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.fill_(threshold)
    checker.special_care_embeds_weights.fill_(threshold)
    extractor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return {"safety_checker": checker, "feature_extractor": extractor, "requires_safety_checker": True}


def test_a_safety_checker_is_kept_and_what_it_blacks_out_is_an_error(settings, tmp_path, monkeypatch):
    for name, threshold in (("strict", -2.0), ("lenient", 2.0)):
        tiny_pipeline(**tiny_checker(threshold)).save_pretrained(tmp_path / name)
    lenient = paint(picture(), change(settings, pipeline=str(tmp_path / "lenient")))
    assert (lenient == paint(picture(), settings)).all()  # the same weights without a checker
    strict = change(settings, pipeline=str(tmp_path / "strict"))
    assert load(strict).safety_checker is not None
    with pytest.raises(DiffusionError, match="image 7, painted by .*strict with seed 0, came back black: .*checker"):
        paint(picture(), strict)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "values that are no numbers.*bfloat16"), (0.0, "came back black: nothing was painted")],
)
def test_numbers_that_half_precision_loses_and_black_are_errors(settings, monkeypatch, value, message):
    def call(self, image, mask_image, height, width, **more):
        return SimpleNamespace(images=np.full((1, height, width, 3), value))

    monkeypatch.setattr(diffusion, "load", lambda settings: type("Pipeline", (), {"__call__": call})())
    with pytest.raises(DiffusionError, match=message):
        paint(picture(), settings)
