"""Tiny random vision-language models as transformers saves them, one of each family that there is an adapter for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Idefics3Config,
    InternVLConfig,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
    SmolVLMConfig,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tests.toy_world import SAID

SIZE = 32  # pixels a side
MARKS = ["<s>", "<end>", "<image>", "<turn>", "<also-end>"]


def byte_level(begins: bool = True, marks: Sequence[str] = MARKS) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the special tokens of a chat format; it begins texts with the first, if asked to add any."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[AddedToken(mark, special=True) for mark in marks],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([*sorted(SAID), " A bear"], trainer)
    return _whole(bpe, begins, marks)


def metaspace() -> PreTrainedTokenizerFast:
    """As Llama 2's: a text's first word gets a space before it, '▁'."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Metaspace(prepend_scheme="first")
    special = [AddedToken(mark, special=True) for mark in [*MARKS, "<unk>"]]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, show_progress=False)
    bpe.train_from_iterator([*sorted(SAID), "USER ASSISTANT: Describe this image.\n"], trainer)
    return _whole(bpe, begins=True)


def _whole(bpe: Tokenizer, begins: bool, marks: Sequence[str] = MARKS) -> PreTrainedTokenizerFast:
    """The first mark begins texts, the second ends them, the third is the image token."""
    begin, end, *others = marks
    if begins:
        special = [(begin, bpe.token_to_id(begin))]
        bpe.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=begin if begins else None,
        eos_token=end,
        additional_special_tokens=others,
        clean_up_tokenization_spaces=False,
    )


DECODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
TOWER: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
}
ONCE = {"do_image_splitting": False, "size": {"longest_edge": SIZE}, "max_image_size": {"longest_edge": SIZE}}
SQUARE = {"size": {"height": SIZE, "width": SIZE}}


@dataclass(frozen=True)
class Family:
    """How to make a tiny checkpoint of a family, and what it is like."""

    config: Callable[[int], Any]  # of a vocabulary size
    processor: Callable[[], Any]
    out: str  # the attention's last layer in the tower
    side: int = 4  # tokens
    merged: int = 1  # patches along a token's side
    begins: bool = True
    before: str = "<s>USER: "
    after: str = "\nDescribe this image. ASSISTANT:"

    @property
    def patch(self) -> int:
        return SIZE // (self.side * self.merged)


def clip_processor() -> LlavaImageProcessorPil:
    crop = {"height": SIZE, "width": SIZE}
    return LlavaImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=crop, do_center_crop=True)


FAMILIES = {
    "llava": Family(
        lambda vocabulary: LlavaConfig(
            vision_config=CLIPVisionConfig(**TOWER, patch_size=8),
            text_config=LlamaConfig(**DECODER, vocab_size=vocabulary),
            image_token_index=2,
        ),
        clip_processor,
        "out_proj",
    ),
    "llava-siglip-mistral": Family(
        lambda vocabulary: LlavaConfig(
            vision_config=SiglipVisionConfig(**TOWER, patch_size=8, vision_use_head=False),
            text_config=MistralConfig(**DECODER, vocab_size=vocabulary, sliding_window=64),
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            image_token_index=2,
        ),
        lambda: SiglipImageProcessorPil(**SQUARE),
        "out_proj",
    ),
    "internvl-qwen2": Family(
        lambda vocabulary: InternVLConfig(
            vision_config=InternVLVisionConfig(**TOWER, patch_size=4),
            text_config=Qwen2Config(**DECODER, vocab_size=vocabulary),
            image_token_id=2,
        ),
        lambda: GotOcr2ImageProcessorPil(**SQUARE, crop_to_patches=False),
        "projection_layer",
        merged=2,
        begins=False,
        before="<turn>user\n",
        after="\nDescribe this image.<turn>\nassistant\n",
    ),
    "internvl-qwen3": Family(
        lambda vocabulary: InternVLConfig(
            vision_config=InternVLVisionConfig(**TOWER, patch_size=[4, 4]),
            text_config=Qwen3Config(**DECODER, vocab_size=vocabulary),
            image_token_id=2,
        ),
        lambda: GotOcr2ImageProcessorPil(**SQUARE, crop_to_patches=False),
        "projection_layer",
        merged=2,
        begins=False,
        before="<turn>user\n",
        after="\nDescribe this image.<turn>\nassistant\n",
    ),
    "idefics3": Family(
        lambda vocabulary: Idefics3Config(
            vision_config={**TOWER, "patch_size": 4},
            text_config=LlamaConfig(**DECODER, vocab_size=vocabulary),
            scale_factor=2,
            image_token_id=2,
        ),
        lambda: Idefics3ImageProcessorPil(**ONCE),
        "out_proj",
        merged=2,
        before="<s>User:<turn>",
        after="<turn>Describe this image.<also-end>\nAssistant:",
    ),
    "smolvlm": Family(
        lambda vocabulary: SmolVLMConfig(
            vision_config={**TOWER, "patch_size": 2},
            text_config=LlamaConfig(**DECODER, vocab_size=vocabulary),
            scale_factor=4,
            image_token_id=2,
        ),
        lambda: SmolVLMImageProcessorPil(**ONCE),
        "out_proj",
        merged=4,
        begins=False,
        before="<turn>User:<turn>",
        after="<turn>Describe this image.<also-end>\nAssistant:",
    ),
}


def save(name: str, folder: Path, config: Any = None, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """A checkpoint of a family as transformers writes it; random weights, in every parameter."""
    family = FAMILIES[name]
    tokenizer = tokenizer or byte_level(family.begins)
    model = AutoModelForImageTextToText.from_config(config or family.config(len(tokenizer)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            around = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(around + 0.3 * torch.randn(parameter.shape, generator=generator))
    model.generation_config.eos_token_id = [1, 4]
    model.generation_config.pad_token_id = 1
    for part in (model, tokenizer, family.processor()):
        part.save_pretrained(folder)
    return folder


def pictures(n: int, seed: int = 0) -> list[np.ndarray]:
    """Sixteen patches of some colour each, with noise on them, 48 x 48 pixels."""
    rng = np.random.default_rng(seed)
    colours = np.kron(rng.integers(0, 236, (n, 4, 4, 3)), np.ones((1, 12, 12, 1), int))
    return list((colours + rng.integers(0, 20, colours.shape)).astype(np.uint8))
