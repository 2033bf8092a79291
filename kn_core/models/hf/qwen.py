"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: towers that read any size, and positions of three axes.

Every picture is read at one square size (`Checkpoint.pixels`), so that all prompts have one length. An image token is
merged from 2 x 2 patches and is numbered by time, row and column; texts go on from the largest number. A Qwen2.5-VL's
tower attends within windows, which changes the order of its patches inside it and not that of its tokens.

Qwen3-VL adds features of several of its tower's layers to what the first decoder layers leave at the image tokens
(DeepStack, Meng et al. 2024). A prompt carries them beside the embeddings: E = (1 + K) H, zeros where there is text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import transformers
from torch import Tensor

from kn_core.models import chat
from kn_core.models.checkpoints import CheckpointError, Found, Preprocessing
from kn_core.models.hf.vision_language import VisionLanguageModel
from kn_core.settings import Checkpoint

PIXELS = 448  # a side, where no profile says how many: some 200 tokens, as many as a LLaVA's or fewer


class QwenVL(VisionLanguageModel):
    """A model whose decoder is given positions (3, B, T), the ones that `get_rope_index` makes of a whole prompt."""

    _numbers: Tensor  # (3, T), of the prompt; what follows it goes on by one

    def guide(self, embeds: Tensor, cache: transformers.DynamicCache | None, picture: bool) -> dict[str, Any]:  # noqa: ARG002
        first, length = self.first_position, embeds.shape[1]
        numbers = torch.arange(first + length, device=embeds.device).expand(3, -1)
        if picture:
            prompt = self._numbers_of_prompt().to(embeds.device)
            numbers = torch.cat([prompt, numbers[:, : max(first + length - prompt.shape[1], 0)] + prompt.max() + 1], 1)
        return {
            **self._split(embeds),
            "position_ids": numbers[:, None, first : first + length].expand(-1, len(embeds), -1),
        }

    def _split(self, embeds: Tensor) -> dict[str, Any]:
        return {"inputs_embeds": embeds}

    def _numbers_of_prompt(self) -> Tensor:
        if "_numbers" not in self.__dict__:
            with torch.no_grad():
                image = torch.full((self.image_positions.stop - len(self.before),), self._image)
                ids = torch.cat([self.before.cpu(), image, self.after.cpu()])[None]
                core: Any = self.model.model
                self._numbers = core.get_rope_index(ids, **self.beside(ids), image_grid_thw=self._grids(1))[0][:, 0]
        return self._numbers

    def asking(self, after: str) -> Self:
        other = super().asking(after)
        other.__dict__.pop("_numbers", None)
        return other

    def beside(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": (ids == self._image).int()}

    def _grids(self, n: int) -> Tensor:
        """Time, rows and columns of patches, (n, 3)."""
        merged = int(self.model.config.vision_config.spatial_merge_size)
        return torch.tensor([[1, *(side * merged for side in self.grid)]] * n)

    def pixels(self, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Patches (B * rows * columns * merged^2, pixels), those that become one token beside one another."""
        tower, (rows, columns) = self.model.config.vision_config, self.grid
        merged, patch, frames = tower.spatial_merge_size, tower.patch_size, tower.temporal_patch_size
        whole = super().pixels(images)["pixel_values"].unflatten(3, (columns, merged, patch))
        whole = whole.unflatten(2, (rows, merged, patch))  # (B, 3, rows, merged, patch, columns, merged, patch)
        cut = whole.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None].expand(*[-1] * 6, frames, -1, -1)
        grids = self._grids(len(images)).to(self.model.device)
        return {"pixel_values": cut.flatten(5).flatten(0, 4), "image_grid_thw": grids}


class Qwen3VL(QwenVL):
    """A model that reads the tower's features again in its first K layers."""

    @property
    def _deep(self) -> int:
        return len(self.model.config.vision_config.deepstack_visual_indexes)

    def features(self, pixels: dict[str, Tensor]) -> list[Tensor]:
        found = self.model.get_image_features(**pixels)
        return [torch.cat(each, dim=-1) for each in zip(found.pooler_output, *found.deepstack_features, strict=True)]

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeds = super().embed_tokens(ids)
        return torch.nn.functional.pad(embeds, (0, self._deep * embeds.shape[-1]))

    def _split(self, embeds: Tensor) -> dict[str, Any]:
        read, *deep = embeds.chunk(1 + self._deep, dim=-1)
        everywhere = torch.ones(read.shape[:2], dtype=torch.bool, device=read.device)
        added = [each.flatten(0, 1) for each in deep]  # zeros are added to texts
        return {"inputs_embeds": read, "visual_pos_masks": everywhere, "deepstack_visual_embeds": added}


def adapt(found: Found, settings: Checkpoint) -> QwenVL:
    """A Qwen-VL whose pictures are squares of `settings.pixels`."""
    config = found.model.config
    tower, size = config.vision_config, settings.pixels or PIXELS
    token = tower.patch_size * tower.spatial_merge_size
    if size % token:
        nearest = max(round(size / token), 1) * token
        raise CheckpointError(
            f"{config.model_type}: model.pixels must be a multiple of {token}, an image token's side. Got {size}: set "
            f"{nearest}."
        )
    preprocess = Preprocessing.of(found, size, any_size=True)
    before, after = chat.prompt_texts(found, settings, ("", ""))
    family = Qwen3VL if config.model_type == "qwen3_vl" else QwenVL
    grid = (size // token, size // token)
    return family(found.model, found.tokenizer, preprocess, before, after, grid, settings.batch_size)


ADAPTERS = dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), adapt)
