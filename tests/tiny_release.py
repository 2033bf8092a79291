"""A random MiniGPT-4 of a few kilobytes, in the files and names in which the real one was released.

And what those files say, computed with torch operations alone (`image_embeds`, `decoder_logits`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import Blip2VisionConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

WIDTH, HEADS, BLOCKS, MLP = 8, 2, 2, 12
HIDDEN, LAYERS, FFN, DECODER_HEADS = 32, 2, 48, 4

# As EVA ViT-g, but for depth and width; the original file has a block more than is used.
VISION = Blip2VisionConfig(
    hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=BLOCKS, num_attention_heads=HEADS, initializer_range=0.2
)

SENTENCES = [
    *("A bear in a forest.", "A giraffe, a bus and a pizza."),
    *("[INST] <Img>", "</Img> Describe this image. [/INST]"),
]


def tower_state(seed: int = 0) -> dict[str, Tensor]:
    """eva_vit_g.pth: names of the original, three blocks, the final norm and a head that nobody uses."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, around: float = 0.0) -> Tensor:
        return around + 0.3 * torch.randn(shape, generator=generator)

    state = {
        "cls_token": random(1, 1, WIDTH),
        "pos_embed": random(1, 257, WIDTH),
        "patch_embed.proj.weight": random(WIDTH, 3, 14, 14) / 8,
        "patch_embed.proj.bias": random(WIDTH),
        "norm.weight": random(WIDTH, around=1),
        "norm.bias": random(WIDTH),
        "head.weight": random(10, WIDTH),
    }
    for i in range(BLOCKS + 1):
        state |= {
            f"blocks.{i}.norm1.weight": random(WIDTH, around=1),
            f"blocks.{i}.norm1.bias": random(WIDTH),
            f"blocks.{i}.attn.q_bias": random(WIDTH),
            f"blocks.{i}.attn.v_bias": random(WIDTH),
            f"blocks.{i}.attn.qkv.weight": random(3 * WIDTH, WIDTH),
            f"blocks.{i}.attn.proj.weight": random(WIDTH, WIDTH),
            f"blocks.{i}.attn.proj.bias": random(WIDTH),
            f"blocks.{i}.norm2.weight": random(WIDTH, around=1),
            f"blocks.{i}.norm2.bias": random(WIDTH),
            f"blocks.{i}.mlp.fc1.weight": random(MLP, WIDTH),
            f"blocks.{i}.mlp.fc1.bias": random(MLP),
            f"blocks.{i}.mlp.fc2.weight": random(WIDTH, MLP),
            f"blocks.{i}.mlp.fc2.bias": random(WIDTH),
        }
    return state


def projection_state(seed: int = 1) -> dict[str, Tensor]:
    """What `model` of the released checkpoint holds."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "llama_proj.weight": 0.2 * torch.randn(HIDDEN, 4 * WIDTH, generator=generator),
        "llama_proj.bias": 0.2 * torch.randn(HIDDEN, generator=generator),
    }


def tokenizer(sentences: Sequence[str] = SENTENCES) -> LlamaTokenizer:
    """Byte-fallback BPE with '▁' for spaces and one before each text, as Llama 2's."""
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, show_progress=False)
    trained.train_from_iterator(sentences, trainer)
    learnt = json.loads(trained.to_str())["model"]
    return LlamaTokenizer(vocab=learnt["vocab"], merges=[tuple(merge) for merge in learnt["merges"]])


def write(folder: Path, sentences: Sequence[str] = SENTENCES, layers: int = LAYERS, ffn: int = FFN) -> Path:
    """The three parts, under the names that the profile `minigpt4-llama2` gives them."""
    torch.save(tower_state(), folder / "eva_vit_g.pth")
    junk = {"optimizer": {"state": {0: {"step": 5}}, "param_groups": [{"lr": 1e-5}]}, "config": {"run": {}}, "epoch": 4}
    torch.save({"model": projection_state(), **junk}, folder / "pretrained_minigpt4_llama2_7b.pth")
    words = tokenizer(sentences)
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=HIDDEN,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=DECODER_HEADS,
        rms_norm_eps=1e-5,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    decoder = LlamaForCausalLM(config)
    decoder.lm_head.weight.data[3:259] = 0  # it writes pieces of words, not single bytes, which captions would not show
    decoder.generation_config = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.9, eos_token_id=2
    )  # as Llama's
    decoder.save_pretrained(folder / "Llama-2-7b-chat-hf")
    words.save_pretrained(folder / "Llama-2-7b-chat-hf")
    as_on_the_hub(folder / "Llama-2-7b-chat-hf" / "tokenizer.json")
    return folder


def as_on_the_hub(path: Path) -> None:
    """Llama 2's tokenizer.json puts '▁' for spaces by a normalizer, as older versions of transformers wrote it."""
    spaces = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    normalizer = {"type": "Sequence", "normalizers": spaces}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": normalizer, "pre_tokenizer": None}))


def patch_features(images: Sequence[np.ndarray], state: Mapping[str, Tensor]) -> Tensor:
    """The tower as published, over the original file: (B, 257, width) behind the last block that is used."""
    squares = [np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)) for image in images]
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2) / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    x = F.conv2d((pixels - mean) / std, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + state["pos_embed"]
    for i in range(BLOCKS):

        def of(name: str, i: int = i) -> Tensor:
            return state[f"blocks.{i}.{name}"]

        normed = F.layer_norm(x, (WIDTH,), of("norm1.weight"), of("norm1.bias"), 1e-6)
        bias = torch.cat([of("attn.q_bias"), torch.zeros(WIDTH), of("attn.v_bias")])
        qkv = F.linear(normed, of("attn.qkv.weight"), bias)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        weights = (q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(mixed, of("attn.proj.weight"), of("attn.proj.bias"))
        normed = F.layer_norm(x, (WIDTH,), of("norm2.weight"), of("norm2.bias"), 1e-6)
        wide = F.linear(normed, of("mlp.fc1.weight"), of("mlp.fc1.bias"))
        wide = 0.5 * wide * (1 + torch.erf(wide / math.sqrt(2)))
        x = x + F.linear(wide, of("mlp.fc2.weight"), of("mlp.fc2.bias"))
    return x


def image_embeds(images: Sequence[np.ndarray], tower: Mapping[str, Tensor], projection: Mapping[str, Tensor]) -> Tensor:
    """Four neighbouring patches to an image token: (B, 64, H)."""
    x = patch_features(images, tower)
    centred = x - x.mean(-1, keepdim=True)
    x = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()  # a LayerNorm without weights
    tokens = x[:, 1:].reshape(len(x), 64, 4 * WIDTH)
    return tokens @ projection["llama_proj.weight"].T + projection["llama_proj.bias"]


def decoder_logits(embeds: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Llama over embeddings (B, T, H): logits (B, T, V)."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight

    x, length, size = embeds, embeds.shape[1], HIDDEN // DECODER_HEADS
    angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, size, 2) / size)  # (T, size / 2)
    cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
    future = torch.full((length, length), -math.inf).triu(1)

    def rotate(x: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat([-right, left], -1) * sin

    for i in range(LAYERS):

        def of(name: str, i: int = i) -> Tensor:
            return state[f"model.layers.{i}.{name}.weight"]

        normed = norm(x, of("input_layernorm"))
        q, k, v = (
            (normed @ of(f"self_attn.{name}_proj").T).unflatten(-1, (DECODER_HEADS, size)).transpose(1, 2)
            for name in "qkv"
        )
        weights = (rotate(q) @ rotate(k).transpose(-2, -1) / math.sqrt(size) + future).softmax(-1)
        x = x + (weights @ v).transpose(1, 2).flatten(2) @ of("self_attn.o_proj").T
        normed = norm(x, of("post_attention_layernorm"))
        gate = normed @ of("mlp.gate_proj").T
        x = x + (gate * torch.sigmoid(gate) * (normed @ of("mlp.up_proj").T)) @ of("mlp.down_proj").T
    return norm(x, state["model.norm.weight"]) @ state["lm_head.weight"].T
