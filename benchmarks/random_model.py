"""MiniGPT-4 with random weights, of the paper's shape or a tiny one, with a tokenizer of one token a word.

A caption's text has as many tokens as were written, and none ends before it is full: all are equally long.
"""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, Blip2VisionConfig, Blip2VisionModel, LlamaConfig, PreTrainedTokenizerFast

from kn_core.models import MiniGPT4
from kn_core.models.eva import EvaViT, eva_vit_g

SPECIAL = ("<unk>", "<s>", "</s>")
BEFORE, AFTER = 8, 26  # words around the picture, beside the beginning of sequence: 35 tokens of text, as Llama 2 makes


@dataclass(frozen=True)
class Shape:
    """A MiniGPT-4, the tokens of its captions, and the side of the square matrices that say how fast a card is."""

    tower: Blip2VisionConfig
    decoder: LlamaConfig
    written: int
    side: int


def paper() -> Shape:
    sizes = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    return Shape(eva_vit_g(), LlamaConfig(**sizes, num_attention_heads=32, rms_norm_eps=1e-5), written=100, side=8192)


def small() -> Shape:
    tower = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower |= {"image_size": 56}  # 4 x 4 patches
    decoder = {"vocab_size": 340, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    wide = {"initializer_range": 0.2}  # or the tower's and the layers' share of a logit would be nothing
    config = LlamaConfig(**decoder, **wide, num_attention_heads=4, rms_norm_eps=1e-5)
    return Shape(Blip2VisionConfig(**tower, **wide), config, written=6, side=128)


def make(shape: Shape, dtype: torch.dtype, device: str) -> MiniGPT4:
    """A MiniGPT-4 created where it is to run; of the same seed on the same kind of device, the same."""
    torch.manual_seed(0)
    vocabulary = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), shape.decoder.vocab_size))]
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=SPECIAL[0]))
    words.pre_tokenizer = WhitespaceSplit()
    unknown, begin, end = SPECIAL
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token=unknown, bos_token=begin, eos_token=end)
    with torch.device(device):
        tower = EvaViT(Blip2VisionModel(shape.tower)).to(dtype)
        decoder = AutoModelForCausalLM.from_config(shape.decoder, dtype=dtype)
        projection = torch.nn.Linear(4 * tower.width, shape.decoder.hidden_size, dtype=dtype)
    decoder.lm_head.weight.data[: len(SPECIAL)] = 0  # logits of 0 are never the largest: no caption ends
    before, after = " ".join([begin, *said(BEFORE)]), " ".join(said(AFTER))
    return MiniGPT4(tower, projection, decoder, tokenizer, before, after, cells_per_token=4, batch_size=8)


def said(n: int) -> list[str]:
    """So many words, a token each."""
    return [f"w{len(SPECIAL) + i}" for i in range(n)]
