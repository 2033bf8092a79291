"""Where the files of a COCO-format folder lie, in the plain layout and in the official one."""

from pathlib import Path


def folder_and_split(path: Path, split: str | None = None) -> tuple[Path, str | None]:
    """A folder as it is; of `folder/annotations/instances_<split>.json`, the folder and the split."""
    if path.is_file() and path.parent.name == "annotations" and path.name.startswith("instances_"):
        return path.parents[1], path.stem.removeprefix("instances_")
    return path, split


def layout(folder: Path, split: str | None) -> tuple[Path, Path, Path]:
    """Paths of the instances, the captions (which may not exist) and the pictures, in either layout.

    Raises FileNotFoundError where one is missing, ValueError where there are several splits and none was chosen.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no COCO folder at {folder}. Give a folder with instances.json and images/.")
    found = [split] if split else splits(folder)
    if is_plain(folder):
        instances, captions, preferred = folder / "instances.json", folder / "captions.json", "images"
    elif len(found) > 1:
        raise ValueError(
            f"{folder / 'annotations'} holds several splits: {', '.join(found)}. Choose one by the path of its file in "
            f"the folder's place, such as {official(folder, 'instances', found[0])}."
        )
    elif not found or not official(folder, "instances", found[0]).is_file():
        wanted = f"annotations/instances_{split or '<split>'}.json"
        raise FileNotFoundError(f"{folder} holds neither instances.json nor {wanted}.")
    else:
        instances, captions = (official(folder, kind, found[0]) for kind in ("instances", "captions"))
        preferred = found[0]
    candidates = picture_folders(folder, preferred)
    pictures = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if pictures is None:
        raise FileNotFoundError(f"no pictures: neither {' nor '.join(map(str, candidates))} is a folder.")
    return instances, captions, pictures


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
