"""What COCO json must hold before anything uses it: one look at every picture's record, annotation and caption.

What other tools write differently and mean alike is read: ids and sizes as text or as whole floats, `iscrowd` as text,
any shape of `coco_outlines`, a BOM. All else is left out by name, for one of a few reasons that are counted.
"""

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from kn_core.pictures.coco_outlines import Part, parts, size
from kn_core.pictures.left_out import LeftOut, WrongError, checked, kind

log = logging.getLogger(__name__)  # of what is left out before a picture is opened: silent where another has said it

T = TypeVar("T")
Record = dict[str, Any]  # of a picture: its id as text; height, width: int or None; resized: bool; all else as written
FLAGS = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


class CocoError(ValueError):
    """A folder cannot be read as COCO; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated object that can be drawn. `crowd`: one region for many objects that nobody told apart."""

    id: str
    image_id: str
    concept: str
    crowd: bool
    parts: list[Part]


def parse(content: bytes, path: Path, lists: Sequence[str]) -> dict[str, list[Any]]:
    """The `lists` of a COCO file, in any encoding of Unicode, with a BOM or without. Raises CocoError."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CocoError(f"{path} is not COCO json ({error}). Export it again, in UTF-8.") from None
    if not isinstance(found, dict):
        raise CocoError(f"{path} is not COCO json: it must be an object with {', '.join(lists)}. Got {kind(found)}.")
    if missing := [name for name in lists if name not in found]:
        raise CocoError(f"{path} is not COCO json: it has no {' and no '.join(missing)}.")
    for name in lists:
        if not isinstance(found[name], list):
            raise CocoError(f"{path} is not COCO json: '{name}' must be a list. Got {kind(found[name])}.")
    return {name: found[name] for name in lists}


def categories(entries: Sequence[Any], what: str, left_out: LeftOut) -> dict[str, str]:
    """Names by id, blanks at their ends and doubled ones taken off; none for an id with several names."""
    return _unique(checked(entries, what, left_out, _category), str, what, left_out)


def records(entries: Sequence[Any], what: str, left_out: LeftOut, known: Mapping[str, Record]) -> dict[str, Record]:
    """Pictures' records by id; none for an id of several pictures. What one lacks, the `known` one of its id has."""
    found = checked(entries, what, left_out, lambda entry: _record(entry, known))
    return _unique(found, lambda one: f"{one['file_name']}, {one['width']} x {one['height']}", what, left_out)


def annotations(
    entries: Sequence[Any], what: str, left_out: LeftOut, pictures: Mapping[str, Record], names: Mapping[str, str]
) -> Iterator[Annotation]:
    """The objects that can be drawn into one of the `pictures` and have one of the `names`.

    CVAT and Datumaro, which write `attributes` too, mark every brushed mask as a crowd.
    """

    def check(entry: dict[str, Any]) -> Annotation:
        one = _annotation(entry, pictures, names)
        if one.crowd and "attributes" in entry:
            why = "marked as crowds, as CVAT marks brushed masks"
            left_out.add(what, why, f"id {one.id}", "taken for single objects")
            return replace(one, crowd=False)
        return one

    return checked(entries, what, left_out, check)


def captions(
    entries: Sequence[Any], what: str, left_out: LeftOut, pictures: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Ids of `pictures` with what was said of them, which may be nothing."""
    return checked(entries, what, left_out, lambda entry: _caption(entry, pictures))


def ids(entries: Sequence[Any]) -> set[str]:
    """Every id of a list, those of refused entries too."""
    return set(checked(entries, "", LeftOut(), lambda entry: _id(entry, "id")))


def _unique(found: Iterable[tuple[str, T]], name: Callable[[T], str], what: str, left_out: LeftOut) -> dict[str, T]:
    """By id; what comes again is one, and of what differs under one id nobody can say which is meant."""
    alike: dict[str, dict[str, T]] = {}
    for each, one in found:
        alike.setdefault(each, {}).setdefault(name(one), one)
    for each, several in alike.items():
        if len(several) > 1:
            left_out.add(what, "several under one id", f"id {each} ({'; '.join(several)})")
    return {each: next(iter(several.values())) for each, several in alike.items() if len(several) == 1}


def _category(entry: dict[str, Any]) -> tuple[str, str]:
    name = entry.get("name")
    if not isinstance(name, str) or not name.strip():
        raise WrongError("no name")
    return _id(entry, "id"), " ".join(name.split())


def _record(entry: dict[str, Any], known: Mapping[str, Record]) -> tuple[str, Record]:
    image_id = _id(entry, "id")
    entry = known.get(image_id, {}) | entry
    name = entry.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise WrongError("no file_name")
    height, width = size(entry.get("height"), entry.get("width")) or (None, None)
    return image_id, entry | {"id": image_id, "height": height, "width": width, "resized": _flag(entry, "resized")}


def _annotation(entry: dict[str, Any], pictures: Mapping[str, Record], names: Mapping[str, str]) -> Annotation:
    image_id, category = _id(entry, "image_id"), _id(entry, "category_id")
    if image_id not in pictures:
        raise WrongError("image_id of no picture that is used")
    if category not in names:
        raise WrongError("category_id of no category that is used")
    frame = pictures[image_id]["height"], pictures[image_id]["width"]
    if None in frame:
        raise WrongError("its picture has no height and width in pixels")
    crowd, name = _flag(entry, "iscrowd"), f"{entry.get('id', '')!s:.60}"
    return Annotation(name, image_id, names[category], crowd, parts(entry.get("segmentation"), frame))


def _caption(entry: dict[str, Any], pictures: Collection[str]) -> tuple[str, str]:
    image_id, said = _id(entry, "image_id"), entry.get("caption")
    if image_id not in pictures:
        raise WrongError("image_id of no picture that is used")
    if not isinstance(said, str):
        raise WrongError("no caption")
    return image_id, " ".join(said.split())


def _id(entry: dict[str, Any], key: str) -> str:
    """An id as text: 1, 1.0, '1' and '1.0' are one."""
    value = entry.get(key)
    if value is None or value == "":
        raise WrongError(f"no {key}")
    if type(value) is int:
        return str(value)
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, str) and value.strip():
        return re.sub(r"^(-?\d+)\.0+$", r"\1", value.strip())
    raise WrongError(f"{key} that is no id")


def _flag(entry: dict[str, Any], key: str) -> bool:
    value = entry.get(key)
    said = str(value).strip().lower() if isinstance(value, str | int | float) else "" if value is None else "?"
    if said not in FLAGS:
        raise WrongError(f"{key} that is neither 0 nor 1")
    return FLAGS[said]
