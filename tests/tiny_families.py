"""Tiny random vision-language models in memory, one of each newer family, with transformers' own way to feed them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Gemma3Config,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    MistralConfig,
    PaliGemmaConfig,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen3VLConfig,
    SiglipVisionConfig,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from kn_core.models import load_model
from kn_core.models.hf import VisionLanguageModel
from tests.tiny_checkpoints import DECODER, SIZE, SQUARE, TOWER, byte_level

IMAGE = 2  # the image token's id
SIGLIP = SiglipVisionConfig(**TOWER, patch_size=8, vision_use_head=False)
AXES = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
QWEN = {"image_token_id": IMAGE, "video_token_id": 3, "vision_start_token_id": 4, "vision_end_token_id": 4}
DEPTH = {"depth": 3, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2}
TILES = [[SIZE, 2 * SIZE], [2 * SIZE, SIZE], [2 * SIZE, 2 * SIZE]]


@dataclass(frozen=True)
class Tiny:
    """How to make a family's model, what it is asked, and how transformers feeds it."""

    config: Callable[[int], Any]  # of a vocabulary size
    processor: Any
    grid: int = 4
    beside: Callable[[torch.Tensor, int], dict[str, torch.Tensor]] = lambda ids, prompt: {}  # token ids, T
    settings: dict[str, Any] = field(default_factory=dict)
    before: str | None = "<s>USER: "
    after: str | None = "\nDescribe this image. ASSISTANT:"
    size: int = SIZE  # of the square pictures that transformers' processor leaves as they are
    seed: int = 0
    own: bool = True  # whether transformers has a way of its own to feed it so


def _types(value: int) -> Callable[[torch.Tensor, int], dict[str, torch.Tensor]]:
    return lambda ids, prompt: {"token_type_ids": (ids == IMAGE).long()}


def _suffix(ids: torch.Tensor, prompt: int) -> dict[str, torch.Tensor]:
    return {"token_type_ids": (torch.arange(ids.shape[1]) >= prompt).long().expand(len(ids), -1)}


def _qwen(ids: torch.Tensor, prompt: int) -> dict[str, torch.Tensor]:
    return {"mm_token_type_ids": (ids == IMAGE).int()}


def _qwen_family(kind: type, vision: dict[str, Any], text: dict[str, Any], **settings: Any) -> Tiny:
    processor = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, temporal_patch_size=2)
    processor.size = {"shortest_edge": 64, "longest_edge": 10**6}
    return Tiny(
        lambda vocabulary: kind(
            vision_config={**DEPTH, **vision}, text_config={**DECODER, **text, "vocab_size": vocabulary}, **QWEN
        ),
        processor,
        beside=_qwen,
        settings={"pixels": SIZE, **settings},
    )


def _gemma(kind: str) -> dict[str, Any]:
    window = {} if kind == "gemma" else {"sliding_window": 64, "query_pre_attn_scalar": 8}
    return {**DECODER, "model_type": kind, **window}


def _paligemma(kind: str, **caps: float) -> Tiny:
    return Tiny(
        lambda vocabulary: PaliGemmaConfig(
            vision_config=SIGLIP,
            text_config={**_gemma(kind), **caps, "vocab_size": vocabulary},
            image_token_index=IMAGE,
            projection_dim=32,
        ),
        SiglipImageProcessorPil(**SQUARE),
        beside=_suffix,
        before="",
        after="<s>caption en\n",
        seed=5,
    )


def _llava(kind: type, tower: Any, text: Any, processor: Any, views: str) -> Tiny:
    return Tiny(
        lambda vocabulary: kind(
            vision_config=tower,
            text_config=text(**DECODER, vocab_size=vocabulary),
            image_grid_pinpoints=TILES,
            image_token_index=IMAGE,
        ),
        processor,
        grid=4 if views == "base" else 8,
        settings={"views": views},
        size=2 * SIZE,
        own=views == "all",
    )


CLIP = CLIPVisionConfig(**TOWER, patch_size=8)
NEXT = LlavaNextImageProcessorPil(
    size={"shortest_edge": SIZE},
    crop_size={"height": SIZE, "width": SIZE},
    image_grid_pinpoints=TILES,
    resample=0,  # the nearest, so that a lit cell is one in every view
)
ONEVISION = LlavaOnevisionImageProcessorPil(**SQUARE, image_grid_pinpoints=TILES, resample=0)
TINY: dict[str, Tiny] = {
    "qwen2_vl": _qwen_family(Qwen2VLConfig, {"embed_dim": 24, "hidden_size": 32, "mlp_ratio": 2}, AXES),
    "qwen2_5_vl": _qwen_family(
        Qwen2_5_VLConfig,
        {"hidden_size": 24, "intermediate_size": 32, "out_hidden_size": 32, "window_size": 16}
        | {"fullatt_block_indexes": [1]},
        AXES,
    ),
    "qwen3_vl": _qwen_family(
        Qwen3VLConfig,
        {"hidden_size": 24, "intermediate_size": 32, "out_hidden_size": 32, "num_position_embeddings": 16}
        | {"deepstack_visual_indexes": [0, 1]},
        AXES,
    ),
    "gemma3": Tiny(
        lambda vocabulary: Gemma3Config(
            vision_config=SIGLIP,
            text_config={**_gemma("gemma3_text"), "vocab_size": vocabulary, "layer_types": None},
            image_token_index=IMAGE,
            boi_token_index=3,
            eoi_token_index=4,
            mm_tokens_per_image=4,
        ),
        SiglipImageProcessorPil(**SQUARE),
        grid=2,
        beside=_types(1),
        before="<s>USER\n\n<turn>",
        after="<also-end>\n\nDescribe this image.\nASSISTANT\n",
    ),
    "paligemma": _paligemma("gemma"),
    "paligemma2": _paligemma("gemma2", final_logit_softcapping=3.0, attn_logit_softcapping=5.0),
    "llava_next-base": _llava(LlavaNextConfig, CLIP, MistralConfig, NEXT, "base"),
    "llava_next-all": _llava(LlavaNextConfig, CLIP, MistralConfig, NEXT, "all"),
    "llava_onevision-base": _llava(LlavaOnevisionConfig, SIGLIP, Qwen2Config, ONEVISION, "base"),
    "llava_onevision-all": _llava(LlavaOnevisionConfig, SIGLIP, Qwen2Config, ONEVISION, "all"),
}


def whole(name: str) -> Any:
    """The family's model of transformers; random weights, in every parameter."""
    return randomised(TINY[name].config(len(byte_level())), TINY[name].seed)


def randomised(config: Any, seed: int = 0) -> Any:
    model = AutoModelForImageTextToText.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            around = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(around + 0.25 * torch.randn(parameter.shape, generator=generator))
    model.generation_config.eos_token_id = [1]
    model.generation_config.pad_token_id = 1
    return model


def adapted(name: str, model: Any = None, **settings: Any) -> VisionLanguageModel:
    tiny = TINY[name]
    processor = SimpleNamespace(tokenizer=byte_level(), image_processor=tiny.processor)
    given = {"before": tiny.before, "after": tiny.after, **tiny.settings, **settings}
    return load_model((model or whole(name), processor), **given)


def fed(name: str, model: VisionLanguageModel, images: Sequence[np.ndarray], caption: str = "") -> dict[str, Any]:
    """transformers' own way: its processor, its prompt with all image tokens written out."""
    tiny, tokenizer = TINY[name], model.tokenizer
    n = model.image_positions.stop - model.image_positions.start
    text = f"{tiny.before}{'<image>' * n}{tiny.after}{caption}"
    ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids] * len(images))
    read = tiny.processor([[image] for image in images], return_tensors="pt")
    pixels = {key: value for key, value in read.items() if key != "batch_num_images"}  # one each
    return {"input_ids": ids, **tiny.beside(ids, model.prompt_length), **pixels}
