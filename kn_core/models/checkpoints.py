"""Checkpoints as transformers saves them: where one lies, whether it is whole, what it is fed, what tells it apart.

Nothing is downloaded. What is missing is named, with what to do.
"""

from __future__ import annotations

import json
import logging
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

from kn_core.fingerprint import at_home
from kn_core.models import packed
from kn_core.models.base import CaptionModel
from kn_core.models.towers import resize
from kn_core.profile import ProfileError
from kn_core.settings import Checkpoint
from kn_core.weights import files, local
from kn_core.weights.local import device

log = logging.getLogger(__name__)


SETTINGS = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"),
)
"""What transformers reads of a checkpoint beside the weights, where it is there."""


PACKED = ("bitsandbytes",)  # the ways to pack weights through which gradients pass and neurons can be read


class CheckpointError(ProfileError):
    """A checkpoint that is not what the profile or its adapter takes it for; the message says what was found."""


def find(name: str) -> Path:
    """The folder of a checkpoint: a local one, or the one that a name on the hub has in the hub's cache.

    Raises FileNotFoundError where there is none, or where files are missing that a model is loaded from: config.json,
    tokenizer.json, the image processor's settings, and every file of weights; WeightsError where one holds something
    else.
    """
    fetch = (
        f"`hf download {name}` fetches one from the hub; its model card says how large it is and under which licence"
    )
    folder = at_home(name)
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
    files.check([*(path for name in SETTINGS if (path := folder / name).is_file()), *local.shards(folder)], fetch)
    return folder


def identity(name: str) -> str:
    """What tells a checkpoint's files from others in a fraction of a second: `files.digest` of JSON and weights."""
    folder = find(name)
    return files.digest([*folder.glob("*.json"), *folder.glob("*.jinja"), *local.shards(folder)], tensors=True)


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
    def of(cls, found: Found, size: int, any_size: bool = False) -> Preprocessing:
        """As the image processor's settings say. Raises CheckpointError where they do not make size x size pixels.

        `any_size`: they say between which numbers of pixels it keeps a picture's own size.
        """
        said, name = found.image_processor, f"The image processor of {found.name}"
        rescales, normalises = said.get("do_rescale", True), said.get("do_normalize", True)
        needed = ["resample", *["rescale_factor"] * rescales, *["image_mean", "image_std"] * normalises]
        if missing := [key for key in needed if key not in said]:
            raise CheckpointError(f"{name} must say how pictures are preprocessed. It lacks {', '.join(missing)}.")
        # What comes last decides: a crop, or the side of Idefics3's tiles, or else the size.
        keys = ["crop_size"] * said.get("do_center_crop", False) + ["max_image_size", "size"]
        last = next((said[key] for key in keys if said.get(key)), size)
        sides = set(last.values()) if isinstance(last, Mapping) else {last}
        if sides != {size} and not any_size:
            raise CheckpointError(f"{name} must make pictures of {size} x {size} pixels, as config.json. Got {last}.")
        return cls(
            size,
            said["rescale_factor"] if rescales else 1.0,
            tuple(said["image_mean"]) if normalises else (0.0,) * 3,
            tuple(said["image_std"]) if normalises else (1.0,) * 3,
            Image.Resampling(said["resample"]),
        )


@dataclass(frozen=True)
class Found:
    """A model of transformers with what reads pictures and texts for it, from a folder or from memory."""

    name: str  # what messages call it
    model: Any  # a PreTrainedModel with methods that only those which see pictures have
    tokenizer: transformers.PreTrainedTokenizerBase
    image_processor: Mapping[str, Any]  # its settings, as in preprocessor_config.json
    chat_template: str | None
    qformer_tokenizer: transformers.PreTrainedTokenizerBase | None = None  # an InstructBLIP's second


def load(folder: Path, settings: Checkpoint) -> Found:
    """The checkpoint in a folder, of the precision and on the device that the profile asks for."""
    dtype = getattr(torch, settings.dtype)
    place = settings.device if settings.device == "spread" else device(settings.device)
    if place == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("model.device: 'cuda' needs an accelerator, and torch sees none. Set 'cpu' or 'auto'.")
    config = files.read_json(folder / "config.json")
    files.check_unquantised(config, str(folder), PACKED)
    how: dict[str, Any] = {"dtype": dtype}
    if settings.bits != "all":
        how["quantization_config"] = packed.how(settings.bits, dtype)
    if place == "spread" or "quantization_config" in {**how, **config}:  # these are not moved afterwards
        how["device_map"] = "auto" if place == "spread" else {"": place}
    model = read(transformers.AutoModelForImageTextToText, folder, **how)
    packed.settle(model)
    if "device_map" not in how:
        model = model.to(place)
    return beside(folder, model)


def beside(folder: Path, model: Any) -> Found:
    """A model with what lies beside its weights in its folder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    pictures = files.read_json(folder / "preprocessor_config.json")
    pictures = pictures or files.read_json(folder / "processor_config.json").get("image_processor", {})
    second, qformer_tokenizer = folder / "qformer_tokenizer", None
    if (second / "tokenizer.json").is_file():
        qformer_tokenizer = transformers.AutoTokenizer.from_pretrained(second, local_files_only=True)
    return Found(str(folder), model, tokenizer, pictures, _chat_template(folder, tokenizer), qformer_tokenizer)


def read(kind: Any, folder: Path, **how: Any) -> Any:
    """The model of a folder by one of transformers' classes.

    Raises CheckpointError where weights are missing or of another shape. Those that it has no use for are warned of.
    """
    described = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):  # before memory is taken for what config.json asks for by mistake
        wanted = sum(weight.numel() for weight in kind.from_config(described).parameters())
    held = sum(files.n_numbers(path) for path in local.shards(folder))
    if wanted > 3 * held:
        raise CheckpointError(
            f"{folder}: config.json describes a {described.model_type} of {wanted:,} numbers, and the files of weights "
            f"hold {held:,}. They must be of one checkpoint, as transformers saves it: older ones describe their parts "
            "elsewhere, and are published in that form too."
        )
    model, loaded = kind.from_pretrained(
        folder, local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True, **how
    )
    family = model.config.model_type
    if missing := sorted(loaded["missing_keys"]):
        raise CheckpointError(
            f"{folder} lacks {len(missing)} weights of its {family}, {', '.join(missing[:3])} among them: they would "
            "be random numbers. Config and weights must be of one checkpoint, as transformers saves it."
        )
    if mismatched := sorted(loaded["mismatched_keys"]):
        name, found, expected = mismatched[0]
        raise CheckpointError(
            f"{folder} must hold the weights of the {family} that its config.json describes. {len(mismatched)} are of "
            f"another shape: {name} is {tuple(found)} in the files, {tuple(expected)} by config.json. Take that which "
            "came with them."
        )
    if unused := sorted(loaded["unexpected_keys"]):
        log.warning("%s: a %s has no use for %d of its weights, such as %s", folder, family, len(unused), unused[0])
    return model


def ramp() -> np.ndarray:
    """A picture that is dark above and light below, uint8 (64, 64, 3)."""
    return np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 64, 3))


def check_numbers(model: CaptionModel, name: str) -> None:
    """Look at one picture. Raises CheckpointError where the logits are no finite numbers, or all the same."""
    if model.before.is_meta:  # has shapes alone
        return
    with torch.no_grad():
        logits = model.logits([ramp()])
    if logits.isfinite().all() and logits.min() < logits.max():
        return
    if nan := [key for key, weight in model.named_parameters() if weight.isnan().any()]:
        fault = f"{len(nan)} of its weights hold NaN, {nan[0]} among them: fetch its files again"
    elif logits.isfinite().all():
        fault = "every token is as likely as any other, as with weights that are zeros: fetch its files again"
    else:
        fault = "numbers overflow, in a weight or on the way. Set model.dtype to bfloat16, or to float32"
    kind = str(logits.dtype).removeprefix("torch.")
    raise CheckpointError(f"{name}: logits must be finite numbers that differ. In {kind} they are not: {fault}.")


def hold(model: transformers.PreTrainedModel, processor: Any) -> Found:
    """A model in memory, where and of the precision that it is, with its processor."""
    name = type(model).__name__
    config = model.config.to_dict()
    if config.get("quantization_config", {}).get("quant_method") != "gguf":  # of which transformers makes plain weights
        files.check_unquantised(config, name, PACKED)
    packed.settle(model)
    if not model.can_generate():
        raise CheckpointError(f"the model must write text, as a ...ForConditionalGeneration does. Got {name}.")
    templates = [getattr(each, "chat_template", None) for each in (processor, processor.tokenizer)]
    return Found(
        name,
        model,
        processor.tokenizer,
        json.loads(processor.image_processor.to_json_string()),
        _first(templates),
        getattr(processor, "qformer_tokenizer", None),
    )


def _chat_template(folder: Path, tokenizer: transformers.PreTrainedTokenizerBase) -> str | None:
    """In transformers' own order: versions of it put a processor's template into files that no tokenizer reads."""
    raw = folder / "chat_template.jinja"
    return _first(
        [
            files.read_json(folder / "processor_config.json").get("chat_template"),
            raw.read_text() if raw.is_file() else None,
            files.read_json(folder / "chat_template.json").get("chat_template"),
            tokenizer.chat_template,
        ]
    )


def _first(templates: Sequence[Any]) -> str | None:
    """The first chat template that there is, a text; of several by name, the default."""
    found = next(filter(None, templates), None)
    return found.get("default") if isinstance(found, Mapping) else found
