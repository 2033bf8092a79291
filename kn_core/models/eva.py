"""EVA ViT-g/14 (Fang et al. 2023), the tower of BLIP-2 and MiniGPT-4, from either form in which it was released.

    EvaViT.load(Path("eva_vit_g.pth"))      # as LAVIS ships it: 40 blocks, of which the first 39 are used
    EvaViT.load(Path("blip2-opt-2.7b"))     # a checkpoint folder of transformers that holds a BLIP-2 vision model

MiniGPT-4 takes the residual stream behind the last block, without the final norm, and normalises it itself, without
weights: what it calls `ln_vision` is neither trained nor saved in its Llama 2 variant, and stays as it was initialised.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from safetensors import safe_open
from torch import Tensor, nn

from kn_core.models.towers import resize
from kn_core.weights import files
from kn_core.weights.files import WeightsError
from kn_core.weights.local import shards

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

NAMES = {  # of the original file, a block's after its number
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def eva_vit_g() -> transformers.Blip2VisionConfig:
    """EVA ViT-g as BLIP-2 uses it, which is the default: 39 blocks of width 1408, 16 heads, MLP 6144, patch 14."""
    return transformers.Blip2VisionConfig()


class EvaViT(nn.Module):
    """224 px -> 16 x 16 patches of 1408, behind MiniGPT-4's LayerNorm; the class token is dropped."""

    def __init__(self, vision: transformers.Blip2VisionModel) -> None:
        super().__init__()
        config: Any = vision.config
        self.size, self.width = config.image_size, config.hidden_size
        side = self.size // config.patch_size
        self.grid = (side, side)
        self.embeddings, self.encoder = vision.embeddings, vision.encoder

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype = torch.float32) -> EvaViT:
        """From the original file or a checkpoint folder (`files_of`). Raises WeightsError for any other."""
        config, state = _of_folder(path) if path.is_dir() else (eva_vit_g(), _of_original(path))
        _check_size(path, state)
        with torch.device("meta"):
            tower = cls(transformers.Blip2VisionModel(config))
        expected = {name: tuple(tensor.shape) for name, tensor in tower.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if found != expected:
            wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            listed = "; ".join(f"{n} {found.get(n, 'missing')}, expected {expected.get(n, 'none')}" for n in wrong[:5])
            raise WeightsError(f"{path} holds no EVA ViT-g: {len(wrong)} of its tensors do not fit. {listed}.")
        tower.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
        return tower.requires_grad_(False).eval()

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        return (resize(images, self.size) / 255 - mean) / std

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.encoder(inputs_embeds=self.embeddings(pixels)).last_hidden_state[:, 1:]  # (B, 256, 1408)
        return F.layer_norm(hidden.float(), (self.width,)).to(hidden)


def files_of(path: Path) -> list[Path]:
    """The files that `EvaViT.load` reads; they need not exist."""
    return [path / "config.json", *shards(path, "vision_model")] if path.is_dir() else [path]


def renamed(original: Mapping[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """Tensors of the original file under transformers' names: the embeddings and the first `blocks` blocks.

    The query and value biases make one bias with the key's, which is 0. Later blocks, the final norm and heads are left
    out; an unknown name in what is used keeps its own, so that it fits nowhere.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in original.items():
        part = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if part and int(part[1]) < blocks:
            prefix, inner = f"encoder.layers.{part[1]}.", part[2]
        elif not part and name.startswith(("cls_token", "pos_embed", "patch_embed.", "rel_pos")):
            prefix, inner = "", name
        else:
            continue
        if inner == "attn.v_bias":
            continue
        if inner == "attn.q_bias":
            value = original.get(name.replace("q_bias", "v_bias"))
            if value is None:
                raise WeightsError(f"{name} has no v_bias beside it: not the original EVA ViT-g.")
            state[f"{prefix}self_attn.qkv.bias"] = torch.cat([tensor, torch.zeros_like(value), value])
            continue
        stem, dot, last = inner.rpartition(".")
        stem, end = (inner, "") if inner in NAMES else (stem, dot + last)
        state[f"{prefix}{NAMES.get(stem, stem)}{end}"] = tensor
    return state


def _of_original(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise WeightsError(f"{path} cannot be read as weights ({error}). Is it the whole file?") from None
    return renamed(state, eva_vit_g().num_hidden_layers)


def _of_folder(folder: Path) -> tuple[transformers.Blip2VisionConfig, dict[str, Tensor]]:
    """The vision model of a checkpoint folder, of a whole BLIP-2 or on its own: its config and tensors."""
    with files.reading(f"The tower {folder}"):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    used = r"((?:embeddings|encoder\.layers)\..+)"
    pattern = rf"(?:.*\.)?vision_model\.{used}" if hasattr(config, "vision_config") else used
    state: dict[str, Tensor] = {}
    for path in shards(folder, "vision_model"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if inner := re.fullmatch(pattern, name):
                    state[inner[1]] = file.get_tensor(name)
    return getattr(config, "vision_config", config), state


def _check_size(path: Path, state: Mapping[str, Tensor]) -> None:
    """One mistake has a message of its own: BLIP-2's COCO checkpoints hold another tower, tuned at 364 px."""
    eva: Any = eva_vit_g()
    wanted, positions = (eva.image_size // eva.patch_size) ** 2 + 1, state.get("embeddings.position_embedding")
    if positions is not None and positions.shape[1] != wanted:
        raise WeightsError(
            f"{path}: the tower must be one for {eva.image_size} px, with {wanted} positions. Got "
            f"{positions.shape[1]}. The BLIP-2 checkpoints tuned on COCO changed the tower, to 364 px; take one that "
            "was not, such as blip2-opt-2.7b."
        )
