"""Where the files of a COCO-format folder lie, in the plain layout and in the official one."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from unicodedata import normalize
from urllib.parse import unquote

from kn_core.pictures.coco_checks import CocoError

# The plain layout's; Roboflow's; Label Studio's; FiftyOne's, whose pictures lie in data/
PLAIN = ("instances.json", "_annotations.coco.json", "result.json", "labels.json")
FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")  # of letters with accents: what a Mac writes is the second


@dataclass(frozen=True)
class Layout:
    """Where the files of one COCO folder lie."""

    folder: Path
    instances: Path
    captions: Path  # which may not exist
    pictures: Path  # which may not exist, where names in the annotations are relative to their file or to the folder

    def picture(self, file_name: str, *, alone: bool) -> Path:
        """The picture that a record names; where it is nowhere, where it should be.

        A name is relative to the pictures, to the folder or to the annotations' file, with slashes of either kind, or
        as part of an address. `alone`: no other record's file is called so, whatever folder it names.
        """
        slashed = file_name.replace("\\", "/")
        names = dict.fromkeys((file_name, slashed, unquote(slashed), *(normalize(form, slashed) for form in FORMS)))
        places = dict.fromkeys((self.pictures, self.folder, self.instances.parent, self.folder / "data"))
        tried = [place / name for name in names for place in places]
        if alone:
            tried += [place / unquote(PurePosixPath(slashed).name) for place in places]
        return next((path for path in tried if os.path.isfile(path)), self.pictures / slashed)  # noqa: PTH113


def located(path: Path, split: str | None = None) -> Layout:
    """The files of a folder in either layout, of one split's instances file, or of a json file beside its pictures.

    Raises FileNotFoundError where one is missing, CocoError where there are several splits and none was chosen.
    """
    if path.is_file():
        if not (path.parent.name == "annotations" and path.name.startswith("instances_")):
            return _plain(path)
        path, split = path.parents[1], path.stem.removeprefix("instances_")
    if not path.is_dir():
        raise FileNotFoundError(f"no COCO folder at {path}. Give a folder with instances.json and images/.")
    if single := next((path / name for name in PLAIN if (path / name).is_file()), None):
        return _plain(single)
    found = [split] if split else splits(path)
    if len(found) > 1:
        raise CocoError(
            f"{path / 'annotations'} holds several splits: {', '.join(found)}. Choose one by the path of its file in "
            f"the folder's place, such as {official(path, 'instances', found[0])}."
        )
    if not found or not official(path, "instances", found[0]).is_file():
        wanted = f"annotations/instances_{split or '<split>'}.json"
        raise FileNotFoundError(
            f"{path} holds neither instances.json nor {wanted}. If the json file is called otherwise, give its path."
        )
    instances, captions = (official(path, kind, found[0]) for kind in ("instances", "captions"))
    return Layout(path, instances, captions, _pictures(path, found[0]))


def _plain(instances: Path) -> Layout:
    folder = instances.parent
    return Layout(folder, instances, folder / "captions.json", _pictures(folder, "images"))


def _pictures(folder: Path, preferred: str) -> Path:
    candidates = picture_folders(folder, preferred)
    return next((candidate for candidate in candidates if candidate.is_dir()), candidates[0])


def is_plain(folder: Path) -> bool:
    """Whether a folder has the plain layout, which has no splits."""
    return (folder / "instances.json").is_file()


def official(folder: Path, kind: str, split: str) -> Path:
    """The official place of the annotations of one kind, 'instances' or 'captions'."""
    return folder / "annotations" / f"{kind}_{split}.json"


def splits(folder: Path) -> list[str]:
    """The splits with instances in the official layout."""
    return sorted(path.stem.removeprefix("instances_") for path in (folder / "annotations").glob("instances_*.json"))


def picture_folders(folder: Path, preferred: str) -> tuple[Path, ...]:
    """Where pictures may lie, the usual place first; `preferred` is the split or, in the plain layout, 'images'."""
    return folder / preferred, folder / "images" / preferred, folder / "images"
