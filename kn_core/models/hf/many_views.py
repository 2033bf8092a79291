"""LLaVA-NeXT and LLaVA-OneVision: a picture small and whole, its base view, and large and cut into tiles of that size.

`Checkpoint.views` says what the decoder reads: 'base', n x n tokens, or 'all', these and the m x m of the large picture
row by row, a token that ends a line behind each row. A token that ends a line lies on no cell. The grid is that of the
finest view that is read, and a base token lies on all cells that it covers, in equal shares: a heatmap then is the sum
over the views that cover a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from kn_core.models import chat
from kn_core.models.checkpoints import CheckpointError, Found, Preprocessing
from kn_core.models.hf.one_view import squares
from kn_core.models.hf.vision_language import VisionLanguageModel
from kn_core.pictures.image_files import Picture, check_list
from kn_core.settings import Checkpoint


class BaseView(VisionLanguageModel):
    """The base view alone and, as the model packs a picture without tiles, one token that ends it."""

    def features(self, pixels: dict[str, Tensor]) -> list[Tensor]:
        core, config = self.model.model, self.model.config
        hidden = core.vision_tower(**pixels, output_hidden_states=True).hidden_states
        layers = config.vision_feature_layer
        found = torch.cat([hidden[layer] for layer in ([layers] if isinstance(layers, int) else layers)], dim=-1)
        if config.vision_feature_select_strategy == "default":
            found = found[:, 1:]
        tokens = core.multi_modal_projector(found)
        ended = core.image_newline.expand(len(tokens), 1, -1).to(tokens)
        return list(torch.cat([tokens, ended], dim=1))

    def own_inputs(self, images: Sequence[np.ndarray], caption: str = "") -> dict[str, Any]:
        given = super().own_inputs(images, caption)
        with torch.no_grad():
            tokens: Any = self.features({"pixel_values": given.pop("pixel_values")})
        return {**given, "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=tokens)}}

    def token_maps(self, images: Sequence[Picture]) -> Tensor:
        check_list(images)
        return token_map(self.grid[0]).expand(len(images), -1, -1)


class AllViews(VisionLanguageModel):
    """The base view and the tiles of a picture resized to a square of several."""

    def pixels(self, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """(B, 1 + tiles, 3, size, size), and the large picture's size, (B, 2)."""
        size = self.preprocess.size
        n = self.grid[0] // self._side
        large = replace(self.preprocess, size=n * size)(images).unflatten(3, (n, size)).unflatten(2, (n, size))
        tiles = large.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # of (B, 3, n, size, n, size)
        views = torch.cat([self.preprocess(images)[:, None], tiles], dim=1).to(self.model.device, self.model.dtype)
        return {"pixel_values": views, "image_sizes": torch.tensor([[n * size] * 2] * len(images))}

    @property
    def _side(self) -> int:
        tower = self.model.config.vision_config
        return int(tower.image_size // tower.patch_size)

    def token_maps(self, images: Sequence[Picture]) -> Tensor:
        check_list(images)
        return token_map(self._side, self.grid[0]).expand(len(images), -1, -1)


def token_map(base: int, large: int | None = None) -> Tensor:
    """The place of each token, (P, cells): of a base view of base x base tokens, and of a large picture's, if any.

    Cells are the large picture's large x large, or else the base view's.
    """
    if large is None:
        return torch.cat([torch.eye(base**2), torch.zeros(1, base**2)])
    times = large // base
    share = torch.eye(base).repeat_interleave(times, dim=1) / times  # (base, large)
    rows = torch.eye(large**2).unflatten(0, (large, large))
    ended = torch.cat([rows, torch.zeros(large, 1, large**2)], dim=1).flatten(0, 1)
    return torch.cat([torch.kron(share, share), ended])


def adapt(found: Found, settings: Checkpoint) -> VisionLanguageModel:
    """With `settings.views`, and `settings.pixels` for the large picture's side, else the smallest that has tiles."""
    config = found.model.config
    size, side = squares(config, ("clip_vision_model", "siglip_vision_model"), 1)
    preprocess = Preprocessing.of(found, size)
    before, after = chat.prompt_texts(found, settings, ("", ""))
    given = found.model, found.tokenizer, preprocess, before, after
    if settings.views == "base":
        return BaseView(*given, (side, side), settings.batch_size, side**2 + 1)
    sizes = sorted(height for height, width in config.image_grid_pinpoints if height == width and height > size)
    wanted = settings.pixels or next(iter(sizes), 0)
    if wanted not in sizes:
        raise CheckpointError(
            f"{config.model_type}: model.pixels must be the side of a square that the checkpoint cuts into tiles, one "
            f"of {', '.join(map(str, sizes)) or 'none'}. Got {settings.pixels}."
        )
    large = side * wanted // size
    return AllViews(*given, (large, large), settings.batch_size, side**2 + large * (large + 1))


ADAPTERS = dict.fromkeys(("llava_next", "llava_onevision"), adapt)
