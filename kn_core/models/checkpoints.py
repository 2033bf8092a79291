"""Checkpoints as transformers saves them: where one lies, whether it is whole, what it is fed, what tells it apart.

Nothing is downloaded. What is missing is named, with what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from PIL import Image
from torch import Tensor

from kn_core.models.towers import resize
from kn_core.profile import Checkpoint, ProfileError
from kn_core.weights import local
from kn_core.weights.local import device


class CheckpointError(ProfileError):
    """A checkpoint that is not what the profile or its adapter takes it for; the message says what was found."""


def find(name: str) -> Path:
    """The folder of a checkpoint: a local one, or the one that a name on the hub has in the hub's cache.

    Raises FileNotFoundError where there is none, or where files are missing that a model is loaded from: config.json,
    tokenizer.json, the image processor's settings, and every file of weights.
    """
    fetch = (
        f"`hf download {name}` fetches one from the hub; its model card says how large it is and under which licence"
    )
    folder = Path(name).expanduser()
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except (HFValidationError, LocalEntryNotFoundError):
            raise FileNotFoundError(
                f"No checkpoint '{name}': it is no folder here and not in the hub's cache. Set model.checkpoint to the "
                f"folder of one, or put it into the cache: {fetch}."
            ) from None
    wanted = {
        "config.json": ("config.json",),
        "tokenizer.json": ("tokenizer.json",),
        "preprocessor_config.json": ("preprocessor_config.json", "processor_config.json"),
    }
    missing = [meant for meant, names in wanted.items() if not any((folder / name).is_file() for name in names)]
    if missing := [*missing, *(path.name for path in local.shards(folder) if not path.is_file())]:
        raise FileNotFoundError(
            f"The checkpoint '{name}' is incomplete: no {', '.join(missing)} in {folder}. Put them there ({fetch})."
        )
    return folder


def identity(name: str) -> str:
    """What tells a checkpoint's files from others in a fraction of a second: `files.digest` of JSON and weights."""
    folder = find(name)
    return local.digest([*folder.glob("*.json"), *local.shards(folder)])


@dataclass(frozen=True)
class Preprocessing:
    """Pictures as a checkpoint's tower reads them, each resized as a whole to a square.

    transformers' own processors crop a picture that is not square, or pad it, or cut it into tiles. Here it is squashed
    instead, in one step, so that masks squashed alike (`coco.cells`) lie on it. On square pictures both are the same.
    """

    size: int  # pixels a side
    scale: float  # the factor of pixel values 0..255
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: Image.Resampling

    def __call__(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB pictures of any size -> (B, 3, size, size) float32."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (resize(images, self.size, self.resample) * self.scale - mean) / std

    @classmethod
    def of(cls, folder: Path, size: int) -> Preprocessing:
        """As the checkpoint's files say. Raises CheckpointError where they are not about pictures of size x size."""
        path = folder / "preprocessor_config.json"
        if path.is_file():
            said: dict[str, Any] = json.loads(path.read_text())
        else:
            path = folder / "processor_config.json"
            said = json.loads(path.read_text()).get("image_processor", {})
        rescales, normalises = said.get("do_rescale", True), said.get("do_normalize", True)
        needed = ["resample", *["rescale_factor"] * rescales, *["image_mean", "image_std"] * normalises]
        if missing := [key for key in needed if key not in said]:
            raise CheckpointError(f"{path} must say how pictures are preprocessed. It lacks {', '.join(missing)}.")
        # What comes last decides: a crop, or the side of Idefics3's tiles, or else the size.
        keys = ["crop_size"] * said.get("do_center_crop", False) + ["max_image_size", "size"]
        last = next((said[key] for key in keys if said.get(key)), size)
        sides = set(last.values()) if isinstance(last, Mapping) else {last}
        if sides != {size}:
            raise CheckpointError(f"{path} must make pictures of {size} x {size} pixels, as config.json. Got {last}.")
        return cls(
            size,
            said["rescale_factor"] if rescales else 1.0,
            tuple(said["image_mean"]) if normalises else (0.0,) * 3,
            tuple(said["image_std"]) if normalises else (1.0,) * 3,
            Image.Resampling(said["resample"]),
        )


def load(
    folder: Path, settings: Checkpoint
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """The network, of the precision and on the device that the profile asks for, and its tokenizer."""
    place = device(settings.device)
    if place == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("model.device: 'cuda' needs an accelerator, and torch sees none. Set 'cpu' or 'auto'.")
    read: Any = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=getattr(torch, settings.dtype), local_files_only=True, output_loading_info=True
    )
    model, loaded = read
    if missing := sorted(loaded["missing_keys"]):
        raise CheckpointError(
            f"{folder} lacks {len(missing)} weights of its {model.config.model_type}, {', '.join(missing[:3])} among "
            "them: they would be random numbers."
        )
    return model.to(place), transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def prompt_ids(
    tokenizer: transformers.PreTrainedTokenizerBase, image_token: int, before: str, after: str
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt's texts before and after the image tokens, tokenised as one text around them.

    Some tokenizers treat a text's first word apart, so that `after` on its own would not be what the model was trained
    on. Nothing is added: a beginning-of-sequence token that the tokenizer would have added stands in `before`.
    """
    text = f"{before}{tokenizer.convert_ids_to_tokens(image_token)}{after}"
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    if (n := ids.count(image_token)) != 1:
        raise CheckpointError(
            f"model.before and model.after must leave the image token {image_token} to the adapter, which puts it "
            f"between them. It is there {n} times."
        )
    begin = tokenizer.bos_token_id
    if begin is not None and tokenizer("a").input_ids[0] == begin != ids[0]:
        raise CheckpointError(
            f"model.before must begin with '{tokenizer.bos_token}', as all of this model's texts do. Got {before!r}."
        )
    place = ids.index(image_token)
    return ids[:place], ids[place + 1 :]
