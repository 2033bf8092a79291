"""Caption models, put together from the parts that a profile names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, overload

import torch
import transformers
from pydantic import ValidationError
from torch import nn
from transformers.utils.logging import disable_progress_bar

from kn_core.fingerprint import at_home, digest
from kn_core.models import checkpoints, hf, released
from kn_core.models.base import CaptionModel
from kn_core.models.eva import EvaViT
from kn_core.models.linear import by_onednn
from kn_core.models.minigpt4 import MiniGPT4, load_decoder, load_projection
from kn_core.models.qformer import QFormerMiniGPT4, QFormerProjection, load_qformer
from kn_core.models.towers import Dinov2Small, EfficientNetLite0
from kn_core.profile import Profile, ProfileError, load_profile, profile_names
from kn_core.settings import Checkpoint, Model
from kn_core.weights import PROJECTIONS, local, wheels
from kn_core.weights.local import device

TOWERS: dict[str, type[EfficientNetLite0] | type[Dinov2Small]] = {
    "efficientnet-lite0": EfficientNetLite0,
    "dinov2-small": Dinov2Small,
}

__all__ = [
    "PROJECTIONS",
    "TOWERS",
    "CaptionModel",
    "MiniGPT4",
    "QFormerMiniGPT4",
    "identity",
    "load_model",
]


Source = Profile | str | Path | tuple[transformers.PreTrainedModel, Any]


@overload
def load_model(source: Profile, projection: Path | None) -> MiniGPT4: ...


@overload
def load_model(source: Source, **settings: Any) -> CaptionModel: ...


def load_model(
    source: Source, projection: Literal["profile"] | Path | None = "profile", **settings: Any
) -> CaptionModel:
    """A caption model, frozen, in evaluation mode, from whatever says which.

    `source` is a `Profile`, a profile's name or YAML file; or a checkpoint as transformers saves it, by its folder or
    its name in the hub's cache; or a pair (model, processor) of transformers in memory, which then is the model itself,
    not a copy. A name that is a profile's is that profile's; './name' is the folder beside it.

    A checkpoint's chat template says how it is asked. `settings` are for a checkpoint that no profile speaks of:
    `before`, `after`, `prompt`, `batch_size` and, from a folder, `dtype`, `bits`, `device` (`settings.Checkpoint`).
    `projection` is for a profile whose model is put together here: the profile's own, a safetensors file, or None for
    an untrained layer to be trained.

    Packaged weights are fetched at the first call (see `weights`); a checkpoint is never downloaded. Raises TypeError
    for anything else, ProfileError for a profile or settings that make no sense, CheckpointError for a checkpoint that
    no adapter reads (`hf.ADAPTERS`), FileNotFoundError or WeightsError where files are missing, with what to do.

    >>> from kn_core.models import load_model
    >>> model = load_model("embedded")
    >>> model.grid, model.n_layers, model.ffn_width
    ((8, 8), 30, 1536)
    >>> len(model.caption([picture]))
    1
    """
    disable_progress_bar()  # transformers draws one for weights that are on disk, too
    match _named(source, settings) if isinstance(source, str | Path) else source:
        case Profile() as profile:
            if settings:
                given = ", ".join(settings)
                raise ProfileError(f"a profile holds its own settings. Got {given} beside '{profile.name}'.")
            if projection == "profile" and isinstance(profile.model, Checkpoint):
                return by_onednn(hf.load_checkpoint(profile.model))
            return by_onednn(_put_together(profile.parts, projection))
        case Checkpoint() as checkpoint:
            return by_onednn(hf.load_checkpoint(checkpoint))
        case (transformers.PreTrainedModel() as model, processor) if hasattr(processor, "image_processor"):
            if stray := settings.keys() & {"dtype", "device", "bits"}:
                raise TypeError(f"a model in memory has its own {', '.join(sorted(stray))}. Set before, after, prompt.")
            return by_onednn(hf.adopt(model, processor, _checkpoint(type(model).__name__, settings)))
    kinds = ", ".join(type(each).__name__ for each in (source if isinstance(source, tuple | list) else [source]))
    raise TypeError(
        "load_model takes a Profile, the name of one or its YAML file, a checkpoint's folder or name on the hub, or a "
        f"pair (model, processor) of transformers. Got {kinds}."
    )


def _named(name: str | Path, settings: dict[str, Any]) -> Profile | Checkpoint:
    """What a name means: a profile, else a checkpoint if it is a folder or, with a slash, may be one on the hub."""
    text = str(name)
    ours = text in profile_names() or text.endswith((".yaml", ".yml"))
    if ours or not (at_home(text).is_dir() or "/" in text):
        return load_profile(name)
    return _checkpoint(text, settings)


def _checkpoint(name: str, settings: dict[str, Any]) -> Checkpoint:
    try:
        return Checkpoint.model_validate({"family": "transformers", "checkpoint": name} | settings)
    except ValidationError as error:
        told = [f"{e['loc'][0]}: {e['msg']}, got {e['input']!r:.80}" for e in error.errors()]
        raise ProfileError(f"The settings of {name} make no sense: {'; '.join(told)}.") from None


def _put_together(parts: Model, projection: Literal["profile"] | Path | None) -> MiniGPT4:
    """Tower, projection and decoder that a profile names."""
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
    texts = (parts.before, parts.after)
    model = family(tower, layer, decoder, tokenizer, *texts, parts.cells_per_token, parts.batch_size)
    if found:  # what a reader brings may be damaged, or overflow
        checkpoints.check_numbers(model, parts.decoder)
    return model


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
    return frozenset(json.loads(path.read_bytes())["image_ids"])
