"""Families that read a picture once, at a fixed size: LLaVA-1.5, InternVL, Idefics3 and SmolVLM.

What else is a `llava` with a CLIP or SigLIP tower, an InternVL 3 or 3.5, a SmolVLM2 is read by the same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import transformers
from torch import Tensor

from kn_core.models import chat
from kn_core.models.checkpoints import CheckpointError, Found, Preprocessing
from kn_core.models.hf.vision_language import VisionLanguageModel
from kn_core.settings import Checkpoint

Marks = Callable[[transformers.PreTrainedTokenizerBase], tuple[str, str]]
"""What a family's processor writes around the image tokens of a single view, by the names of its tokenizer."""


class OneOfSeveralViews(VisionLanguageModel):
    """A tower that takes several views of a picture, (B, views, 3, size, size), and is given one."""

    def pixels(self, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
        return {"pixel_values": super().pixels(images)["pixel_values"][:, None]}


def squares(config: Any, towers: Sequence[str], merged: int) -> tuple[int, int]:
    """Pixels and tokens along a picture's side, one token for each `merged` x `merged` patches of the tower.

    Raises CheckpointError for another tower than those whose tokens lie on patches, and for patches left over.
    """
    tower, kind = config.vision_config, config.model_type
    if tower.model_type not in towers:
        raise CheckpointError(
            f"{kind}: the tower must be one whose tokens lie on patches, {' or '.join(towers)}. Got {tower.model_type}."
        )
    if getattr(config, "vision_feature_select_strategy", "default") == "full" and "siglip" not in tower.model_type:
        raise CheckpointError(
            f"{kind}: vision_feature_select_strategy must be 'default', which drops the class token, as that lies on "
            "no patch. Got 'full'."
        )
    (height, width), (patch, _) = (_pair(getattr(tower, key)) for key in ("image_size", "patch_size"))
    side, left = divmod(height // patch, merged)
    if height != width or left:
        raise CheckpointError(
            f"{kind}: pictures must be square, and {merged} x {merged} patches of {patch} pixels must tile them. "
            f"Got {height} x {width} pixels."
        )
    return height, side


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def adapt(
    found: Found,
    settings: Checkpoint,
    shuffle: Callable[[Any], int],
    towers: Sequence[str],
    marks: Marks = lambda _: ("", ""),
    family: type[VisionLanguageModel] = VisionLanguageModel,
) -> VisionLanguageModel:
    """One image token for each `shuffle` x `shuffle` patches, row by row."""
    size, side = squares(found.model.config, towers, shuffle(found.model.config))
    preprocess = Preprocessing.of(found, size)
    before, after = chat.prompt_texts(found, settings, marks(found.tokenizer))
    return family(found.model, found.tokenizer, preprocess, before, after, (side, side), settings.batch_size)


def _internvl_marks(tokenizer: transformers.PreTrainedTokenizerBase) -> tuple[str, str]:
    return getattr(tokenizer, "start_image_token", "<img>"), getattr(tokenizer, "end_image_token", "</img>")


def _idefics_marks(tokenizer: transformers.PreTrainedTokenizerBase) -> tuple[str, str]:
    fake = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
    return fake + getattr(tokenizer, "global_image_token", "<global-img>"), fake


ADAPTERS = {
    "llava": partial(adapt, shuffle=lambda _: 1, towers=("clip_vision_model", "siglip_vision_model")),
    "internvl": partial(
        adapt,
        shuffle=lambda config: round(1 / config.downsample_ratio),
        towers=("internvl_vision",),
        marks=_internvl_marks,
    ),
    **{
        kind: partial(
            adapt,
            shuffle=lambda config: config.scale_factor,
            towers=(f"{kind}_vision",),
            marks=_idefics_marks,
            family=OneOfSeveralViews,
        )
        for kind in ("idefics3", "smolvlm")
    },
}
