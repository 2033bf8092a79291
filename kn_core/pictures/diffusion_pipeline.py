"""Where a diffusion pipeline lies, whether it is whole, and how it is loaded: never by a download."""

import inspect
import json
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from kn_core.fingerprint import at_home
from kn_core.settings import Diffusion
from kn_core.weights import files, local

INSTALL = "pip install -e '.[paper]'"
DOWNLOAD = "hf download {} --include '*.json' --include '*.txt' --include '*/*.safetensors'"
COPY = "sd2-community/stable-diffusion-2-inpainting"  # of the default, which is said to be withdrawn


class DiffusionError(RuntimeError):
    """A picture cannot be inpainted by diffusion; the message is one line that says why and what to do."""


def folder_of(pipeline: str) -> Path:
    """The folder that holds a pipeline, given by its path or by its name on the hub. Raises DiffusionError.

    It must be whole: model_index.json and, for every part named there, a folder that is not empty and has weights where
    it has a model.
    """
    folder = at_home(pipeline)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(pipeline, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            fault = "is no folder, and the hub's cache does not hold it"
            raise DiffusionError(f"'{pipeline}' {fault}. {_advice(pipeline)}") from None
    try:
        index = json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError):
        fault = "is no pipeline: it must hold a model_index.json that can be read"
        raise DiffusionError(f"{folder} {fault}. {_advice(pipeline)}") from None
    parts = [name for name, made in index.items() if isinstance(made, list) and made[0] is not None]
    if missing := [file for name in parts for file in _missing(folder / name)]:
        raise DiffusionError(f"{folder} is incomplete: it has no {', '.join(missing)}. {_advice(pipeline)}")
    return folder


def identity(settings: Diffusion) -> str:
    """A digest of a pipeline's files, so that another one under the same name is another. Raises DiffusionError."""
    found = folder_of(settings.pipeline).rglob("*")
    return files.digest([path for path in found if path.suffix in (".json", ".txt", ".safetensors")])


def look(settings: Diffusion) -> None:
    """Raises DiffusionError where the pipeline or what runs it is not there."""
    folder_of(settings.pipeline)
    if find_spec("diffusers") is None:
        raise not_installed()


def why_not(settings: Diffusion) -> str:
    """What keeps this machine from painting a few pictures by the way, in words; '' where nothing does.

    Without an accelerator it would take hours, and is not done unless the profile's `device` says so.
    """
    if find_spec("diffusers") is None:
        return f"diffusers is not installed ({INSTALL})"
    try:
        folder_of(settings.pipeline)
    except DiffusionError:
        return f"no complete pipeline {settings.pipeline} is on this machine (inpainting.diffusion.pipeline)"
    if settings.device == "auto" and not torch.accelerator.is_available():
        return "this machine has no accelerator (inpainting.diffusion.device: cpu goes without, in minutes a picture)"
    return ""


def placed(settings: Diffusion) -> tuple[str, torch.dtype]:
    """Where the pipeline runs, and in which precision."""
    place = local.device(settings.device)
    fitting = "float32" if place == "cpu" else "float16"
    dtype: torch.dtype = getattr(torch, fitting if settings.dtype == "auto" else settings.dtype)
    return place, dtype


def load(settings: Diffusion) -> Any:
    """The pipeline, read once a process. Raises DiffusionError.

    A safety checker is there where the folder holds one, and does its work; none is taken out or put in.
    """
    return _load(folder_of(settings.pipeline), identity(settings), *placed(settings))


@lru_cache(maxsize=1)
def _load(folder: Path, _identity: str, device: str, dtype: torch.dtype) -> Any:
    try:
        from diffusers import DiffusionPipeline
        from diffusers.utils.logging import disable_progress_bar
    except ModuleNotFoundError:
        raise not_installed() from None
    disable_progress_bar()  # of the parts as they are read
    half_only = all(".fp16." in path.name for path in folder.glob("*/*.safetensors"))
    safe = {"use_safetensors": True, "local_files_only": True}  # the other format is pickle, which runs code
    try:
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype, variant="fp16" if half_only else None, **safe)
    except (OSError, ValueError, ImportError) as error:
        raise DiffusionError(f"{folder} cannot be loaded: {' '.join(str(error).split())}") from None
    if not {"image", "mask_image"} <= set(inspect.signature(pipeline.__call__).parameters):
        raise DiffusionError(
            f"{folder} is no inpainting pipeline: {type(pipeline).__name__} takes no image with a mask_image. Name "
            f"another in inpainting.diffusion.pipeline, such as {COPY}."
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def not_installed() -> DiffusionError:
    return DiffusionError(f"inpainting by diffusion needs diffusers, which is not installed: {INSTALL}.")


def _missing(part: Path) -> list[str]:
    if not any(part.glob("*")):
        return [f"{part.name}/"]
    bare = (part / "config.json").exists() and not any(part.glob("*.safetensors"))
    return [f"{part.name}/*.safetensors"] if bare else []


def _advice(pipeline: str) -> str:
    """Which files, where from, under which licence, and how to allow it."""
    default = Diffusion().pipeline
    on_hub = pipeline if re.fullmatch(r"[\w.-]+/[\w.-]+", pipeline) and not Path(pipeline).exists() else default
    withdrawn = f" (its makers are said to have withdrawn it; {COPY} is a copy)" if on_hub == default else ""
    return (
        "It takes model_index.json and the folders scheduler, text_encoder, tokenizer, unet and vae, with weights as "
        "safetensors; of Stable Diffusion 2 these are 5 GB, under the CreativeML Open RAIL++-M licence, which forbids "
        "some uses. Nothing is downloaded on its own: to allow it, read the licence and run "
        f"`{DOWNLOAD.format(on_hub)}`{withdrawn}. Or name a folder, or another inpainting pipeline, in "
        "inpainting.diffusion.pipeline."
    )
