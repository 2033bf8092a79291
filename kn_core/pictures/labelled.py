"""A folder of labelled pictures, as people's tools leave them, as COCO annotations of one concept.

COCO json of any name, so the exports of CVAT, Label Studio and Roboflow; labelme's json beside each picture; or
`name.jpg` with its mask `name.mask.png`. A label is the concept where it is one of its words, in any case: 'Zebras' is
a zebra. Boxes without an outline are taken for the outline. What is wrong is left out by name, as by `CocoFolder`,
which reads what is made here.
"""

from __future__ import annotations

import base64
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from kn_core.concepts import words
from kn_core.fingerprint import writing
from kn_core.pictures import coco_checks
from kn_core.pictures.coco_checks import CocoError
from kn_core.pictures.coco_layout import PLAIN, located
from kn_core.pictures.coco_outlines import Size, number, size
from kn_core.pictures.image_files import MaskWarning, PictureError, as_mask, open_picture
from kn_core.pictures.left_out import LeftOut, WrongError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MASK = ".mask"  # between a picture's name and the suffix of its mask's
LISTS = ("images", "annotations", "categories")
FORMATS = "COCO json, a labelme json beside each picture, or name.jpg with name.mask.png"


def gathered(folder: Path, concept: str, made: Path) -> list[str]:
    """Write what a folder says of a concept as COCO json into `made`; in lines, what is not used, or not as it is.

    `folder` may be a COCO json file. Pictures stay where they are; one that lies in its labelme json alone is written
    beside `made`. Raises CocoError where there is nothing of the concept, with the labels that there are.
    """
    left_out, notes = LeftOut(), list[str]()
    if not folder.exists():
        raise CocoError(f"no folder {folder}. Name one that holds pictures and {FORMATS}.")
    found = _coco(folder, made.parent, notes) or _beside(folder, concept, made.parent, left_out, notes)
    if not found["images"]:
        told = "; ".join(left_out.lines())
        raise CocoError(f"{folder} holds no labelled pictures: {told or 'neither pictures nor json'}. Give {FORMATS}.")
    paths = [Path(str(one.get("file_name", "(no file_name)"))) for one in _objects(found["images"])]
    if not any(path.is_file() for path in paths):
        raise CocoError(f"none of the {len(paths)} pictures that {folder} names is there, first: {paths[0]}.")
    labels = {_label(each): str(each["name"]) for each in found["categories"] if _label(each)}
    named = set(words(concept))
    if not named & labels.keys():
        known = ", ".join(sorted(labels.values()))
        told = f"The labels: {known}. Say --concept with one of them." if known else ""
        lacks = [f"{line}." for line in left_out.lines()]
        raise CocoError(" ".join(filter(None, [f"no label of {folder} names '{concept}'.", told, *lacks])))
    for each in found["categories"]:
        if _label(each) in named:
            each["name"] = concept
    with writing(made) as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")
    return [*left_out.lines(), *notes]


def _label(category: object) -> str:
    name = category.get("name") if isinstance(category, dict) else None
    return " ".join(normalize("NFC", name).replace("_", " ").lower().split()) if isinstance(name, str) else ""


def _coco(folder: Path, ours: Path, notes: list[str]) -> dict[str, list[Any]] | None:
    """The folder's COCO json, its pictures by their whole paths and its boxes as outlines; None where there is none."""
    files = [folder] if folder.is_file() else [*_coco_files(folder, ours)]
    if not files:
        return None
    file, *others = files
    if others:
        unread = ", ".join(str(other.relative_to(folder)) for other in others)
        notes.append(f"read: {file}; not read: {unread} (--images takes a file too)")
    content, layout = coco_checks.parse(file.read_bytes(), file, LISTS), located(file)
    names = Counter(_last(one) for one in _objects(content["images"]))
    for one in _objects(content["images"]):
        if isinstance(name := one.get("file_name"), str) and name.strip():
            path = layout.picture(name, alone=names[_last(one)] == 1).absolute()
            one["file_name"] = str(path)
            if not (one.get("height") and one.get("width")):
                with suppress(PictureError):  # `CocoFolder` says what is wrong with it
                    one["height"], one["width"] = open_picture(path).shape[:2]
    without = [one for one in _objects(content["annotations"]) if not one.get("segmentation")]
    boxed = [one for one in without if _is_box(one.get("bbox"))]
    for one in boxed:
        one["segmentation"] = [_corners(*map(number, one["bbox"]))]
    if boxed:
        notes.append(f"{len(boxed)} of {len(content['annotations'])} objects have a box alone, taken for their outline")
    return {name: content[name] for name in LISTS}


def _last(record: dict[str, Any]) -> str:
    return str(record.get("file_name")).replace("\\", "/").rpartition("/")[2]


def _is_box(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4


def _files(folder: Path, ours: Path) -> list[Path]:
    """Those that lie in a folder or where it links to, but not what an earlier run wrote into `ours`."""
    found, seen = [], {os.path.realpath(ours)}
    for top, inner, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(top)) in seen:
            inner.clear()
            continue
        seen.add(real)
        found += [Path(top, name) for name in names if not name.startswith(".")]
    return [path for path in sorted(found) if path.is_file()]


def _coco_files(folder: Path, ours: Path) -> Iterator[Path]:
    """The json files of a folder that are COCO's, the usual places first."""
    usual = [folder / name for name in PLAIN]
    rest = [*sorted((folder / "annotations").glob("instances_*.json")), *_files(folder, ours)]
    for file in dict.fromkeys((*usual, *rest)):
        raw = file.read_bytes() if file.suffix.lower() == ".json" and file.is_file() else b""
        if b'"annotations"' in raw and b'"categories"' in raw:
            yield file


def _beside(folder: Path, concept: str, ours: Path, left_out: LeftOut, notes: list[str]) -> dict[str, list[Any]]:
    """Pictures with a labelme json or a mask beside them."""
    files = _files(folder, ours)
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    labels: dict[str, int] = {}
    used: set[Path] = set()

    def add(path: Path, size: tuple[int, int], objects: list[tuple[str, Any]]) -> None:
        longer = f"{path.parent.name}-{path.stem}-{len(records) + 1}"
        image_id = path.stem if all(one["id"] != path.stem for one in records) else longer
        record = {"id": image_id, "file_name": str(path.absolute()), "height": size[0], "width": size[1]}
        records.append(record | {"displayed": True})
        used.add(path)
        for label, outline in objects:
            category = labels.setdefault(label, len(labels) + 1)
            ids = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category}
            annotations.append(ids | {"segmentation": outline, "iscrowd": 0})

    for file in (path for path in files if path.suffix.lower() == ".json"):
        content = _json(file)
        if content is None:
            left_out.add("files", "no json, or not the whole of one", file.name)
        elif not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            left_out.add("files", "neither COCO's json nor labelme's", file.name)
        elif picture := _labelme_picture(file, content, ours / "pictures" / "-".join(file.relative_to(folder).parts)):
            try:
                frame = _frame(content, picture)
            except PictureError as error:
                left_out.add("files", f"{error}".rstrip("."), file.name)
                continue
            shapes = []
            for one in _objects(content["shapes"]):
                try:
                    shapes.append((f"{one.get('label')!s:.60}", _outline(one, frame)))
                except WrongError as wrong:
                    left_out.add("shapes", str(wrong), file.name)
            add(picture, frame, shapes)
        else:
            left_out.add("files", "no picture of its name", f"{file.name} ({content.get('imagePath')})")
    stems = {path: normalize("NFC", path.stem) for path in files if path.suffix.lower() != ".json"}
    masks: dict[tuple[Path, str], Path] = {}
    for path, stem in stems.items():
        if stem.lower().endswith(MASK) and masks.setdefault((path.parent, stem[: -len(MASK)]), path) != path:
            left_out.add("masks", "another one of its picture", path.name)
    for path, stem in stems.items():
        if path.suffix.lower() in PICTURES and path not in used and not stem.lower().endswith(MASK):
            if (mask := masks.pop((path.parent, stem), None)) is None:
                left_out.add("pictures", "neither a json nor a mask beside it", path.name)
                continue
            try:
                image = open_picture(path)
                with warnings.catch_warnings(record=True) as doubts:
                    warnings.simplefilter("always", MaskWarning)
                    code = _run_lengths(as_mask(mask, image.shape[:2]))
            except PictureError as error:
                why = str(error).removeprefix(f"{path}: ").removeprefix(f"{mask}: ").rstrip(".")
                of_mask = str(error).startswith(f"{mask}: ") and not why.startswith("the mask")
                left_out.add("pictures", f"its mask is {why}" if of_mask else why, path.name)
                continue
            notes += [str(doubt.message).rpartition(f"{path.parent}/")[2].rstrip(".") for doubt in doubts]
            add(path, (image.shape[0], image.shape[1]), [(concept, code)])
    for mask in masks.values():
        left_out.add("masks", f"no picture for it of {', '.join(PICTURES)}", mask.name)
    categories = [{"id": number, "name": label} for label, number in labels.items()]
    return {"images": records, "annotations": annotations, "categories": categories}


def _labelme_picture(file: Path, content: dict[str, Any], embedded: Path) -> Path | None:
    """The picture of a labelme json: where it says, beside it by its name, or out of the json itself."""
    said = str(content.get("imagePath") or "").replace("\\", "/")
    beside = [file.with_suffix(suffix) for suffix in (*PICTURES, *map(str.upper, PICTURES))]
    for path in (file.parent / said, file.parent / said.rpartition("/")[2], *beside):
        if os.path.isfile(path) and path.suffix != ".json":  # noqa: PTH113 (of any name, one too long as well)
            return path
    if isinstance(data := content.get("imageData"), str):
        with suppress(ValueError), writing(path := embedded.with_suffix(".png")) as temporary:
            temporary.write_bytes(base64.b64decode(data))
            return path
    return None


def _frame(content: dict[str, Any], picture: Path) -> Size:
    """The frame (h, w) that a labelme json's points lie in: what it says, else the picture's, as it is displayed."""
    if said := size(content.get("imageHeight"), content.get("imageWidth")):
        return said
    image = open_picture(picture)
    return image.shape[0], image.shape[1]


def _outline(shape: dict[str, Any], frame: Size) -> Any:
    """What a labelme shape outlines, as COCO's segmentation. Raises WrongError for lines, points and what is none."""
    kind, given = shape.get("shape_type") or "polygon", shape.get("points") or []
    pairs = isinstance(given, list) and all(isinstance(each, list) and len(each) == 2 for each in given)
    points = [(number(each[0]), number(each[1])) for each in given] if pairs else [(np.nan, np.nan)]
    if not np.isfinite(points).all():
        raise WrongError("points that are no pairs of finite numbers")
    if kind == "mask" and isinstance(shape.get("mask"), str) and len(points) == 2:
        try:
            with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
                levels = np.asarray(image.convert("L")) > 0
        except Exception as error:  # each of Pillow's decoders has its own
            raise WrongError("mask that is no picture") from error
        (left, top), (right, bottom) = np.round(points)
        differs = np.subtract((bottom - top, right - left), levels.shape)  # its last pixel may count or not
        if min(left, top) < 0 or right > frame[1] or bottom > frame[0] or np.abs(differs).max() > 1:
            raise WrongError("mask that does not fill the frame which is said of it")
        whole, left, top = np.zeros(frame, bool), int(left), int(top)
        there = whole[top : top + levels.shape[0], left : left + levels.shape[1]]
        there |= levels[: there.shape[0], : there.shape[1]]
        return _run_lengths(whole)
    if kind == "rectangle" and len(points) == 2:
        (x, y), (right, bottom) = points
        return [_corners(min(x, right), min(y, bottom), abs(right - x), abs(bottom - y))]
    if kind == "circle" and len(points) == 2:
        (x, y), radius = points[0], float(np.hypot(*np.subtract(points[1], points[0])))
        turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        ring = np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], axis=1)
        return [np.clip(ring, 0, (frame[1], frame[0])).ravel().tolist()]
    if kind in ("polygon", "rectangle", "oriented_rectangle") and len(points) >= 3:
        return [[side for point in points for side in point]]
    raise WrongError(f"a {kind!s:.20} of {len(points)} points is no outline")


def _corners(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    code = run_lengths.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": code["size"], "counts": code["counts"].decode()}


def _json(file: Path) -> Any:
    """What a json file holds, in any encoding of Unicode; None for what is none."""
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError):
        return None


def _objects(entries: list[Any]) -> Iterator[dict[str, Any]]:
    return (each for each in entries if isinstance(each, dict))
