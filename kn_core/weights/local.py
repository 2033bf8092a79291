"""Weights that a reader brings: where they lie, which of them are missing, what tells them from others.

They are large or need consent to a licence, so nothing is downloaded. A name is a path, absolute or under the folder
`KN_MODELS`, or that of a repository on the hub, whose files are taken from the hub's cache.
"""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from kn_core.fingerprint import at_home
from kn_core.weights import files
from kn_core.weights.files import WeightsError


@dataclass(frozen=True)
class Source:
    """One part of a model that the reader brings, and what an error says of it."""

    setting: str  # the key of the profile that names it
    name: str  # its value
    what: str
    gigabytes: float
    get: str  # where from, and how
    licence: str
    needs: Callable[[Path], list[Path]]  # its files, given the file or folder that the name led to


def find(sources: Sequence[Source]) -> dict[str, Path]:
    """The file or folder of each source, by its setting.

    Raises one WeightsError that names everything missing, or one that names the files that hold something else.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    for source in sources:
        places = _places(source.name)
        path = next((place for place in places if place.exists()), None)
        lacking = [str(needed) for needed in source.needs(path) if not needed.is_file()] if path else []
        if path and not lacking:
            found[source.setting] = path
            continue
        looked = ["the hub's cache"] * _is_repository(source.name)
        looked += [str(place) for place in places] or ["KN_MODELS, which is not set"]
        seen = f"missing: {', '.join(lacking)}" if lacking else f"looked at: {' and '.join(looked)}"
        missing.append(
            f"  {source.setting}: '{source.name}', {source.what}, {source.gigabytes:g} GB\n"
            f"    {seen}\n    get it: {source.get}\n    licence: {source.licence}"
        )
    if missing:
        raise WeightsError(
            "These weights are not on this machine. They are yours to fetch, as they are large and have licences of "
            "their own:\n" + "\n".join(missing) + "\nPut them into one folder and set KN_MODELS to it, or write their "
            "paths into the profile; a hub repository is also found in the hub's cache."
        )
    for source in sources:
        files.check(source.needs(found[source.setting]), source.get)
    return found


def _places(name: str) -> list[Path]:
    """Where a name may lead, the first that exists being meant."""
    path, folder = at_home(name), os.environ.get("KN_MODELS")
    if path.is_absolute():
        return [path]
    places = [at_home(folder) / each for each in dict.fromkeys((name, path.name))] if folder else []
    if _is_repository(name):
        with suppress(LocalEntryNotFoundError):  # the error of `find` says so
            places.append(Path(snapshot_download(name, local_files_only=True)))
    return places


def _is_repository(name: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None


def shards(folder: Path, module: str = "") -> list[Path]:
    """The safetensors files of a checkpoint folder; they need not exist.

    Where it has an index, only those that hold parts of a submodule of that name, if it names any, else all. Raises
    WeightsError for an index that is none.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    names: dict[str, str] = files.read_json(index)["weight_map"]
    of_module = {file for name, file in names.items() if f".{module}." in f".{name}"}
    return [folder / file for file in sorted(of_module or set(names.values()))]


def device(name: str) -> str:
    """'auto' as the accelerator that there is, or the CPU; any other name as it is. Its convolutions keep float32."""
    torch.backends.cudnn.allow_tf32 = False  # else 11 bits embed patches
    if name != "auto":
        return name
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found else "cpu"
