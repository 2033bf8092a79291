"""Outlines of COCO annotations: checked against their picture's frame, then drawn as a mask.

Read as they are meant: polygons as lists of rings; one ring without its list; points in pairs, or as {x, y}; numbers as
text; run lengths, packed or not, alone or in a list.
"""

from math import isfinite
from typing import Any

import numpy as np
from pycocotools import mask as rle

from kn_core.pictures.left_out import WrongError
from kn_core.pictures.token_grid import resize_mask

LARGEST = 89_478_485  # pixels of a frame: of a picture, what Pillow opens without a warning
BEYOND = 0.05  # of a side: how far out of the picture a polygon may lead, which is cut off there

Size = tuple[int, int]  # height, width
Part = list[float] | dict[str, Any]  # a ring x, y, x, y, ... in the picture's pixels, or run lengths that bring theirs


def parts(segmentation: Any, frame: Size) -> list[Part]:
    """What an annotation's `segmentation` draws into a picture of `frame` = (height, width) pixels.

    Rings of fewer than three points fill nothing, and are passed over beside others. Raises WrongError for what is no
    outline in this frame.
    """
    given = segmentation if isinstance(segmentation, list) else [segmentation]
    if not segmentation or not given:
        raise WrongError("no mask, at most a box")
    if isinstance(given[0], dict) and not given[0].keys() & {"x", "y"}:
        return [_run_lengths(code, frame) for code in given]
    pairs = all(isinstance(point, list) and len(point) == 2 and not isinstance(point[0], list) for point in given)
    rings = [given] if pairs or not isinstance(given[0], list) else given
    found: list[Part] = [ring for ring in (_ring(points, frame) for points in rings) if ring]
    if not found:
        raise WrongError("polygon of fewer than three points")
    return found


def draw(drawn: list[Part], frame: Size, shape: Size) -> np.ndarray:
    """An outline's parts as one mask of `shape`, (h, w) bool, which is the frame or the frame scaled."""
    mask = np.zeros(shape, bool)
    for code in drawn:
        if isinstance(code, dict):
            packed = code if isinstance(code["counts"], str) else rle.frPyObjects(code, *code["size"])
            one = rle.decode(packed).astype(bool)
            mask |= one if one.shape == shape else resize_mask(one, shape)
    scale = np.array([shape[1] / frame[1], shape[0] / frame[0]])
    rings = [(np.reshape(ring, (-1, 2)) * scale).ravel().tolist() for ring in drawn if isinstance(ring, list)]
    if rings:
        mask |= rle.decode(rle.merge(rle.frPyObjects(rings, *shape))).astype(bool)
    return mask


def size(height: object, width: object) -> Size | None:
    """A frame in pixels; None for what is none, or too large a one."""
    sides = number(height), number(width)
    whole = all(side >= 1 and side.is_integer() for side in sides) and sides[0] * sides[1] <= LARGEST
    return (int(sides[0]), int(sides[1])) if whole else None


def same_proportions(one: Size, other: Size) -> bool:
    """Whether one frame is the other one scaled: whoever scaled it had to round a side to a pixel."""
    (height, width), (rows, columns) = sorted((one, other), key=lambda frame: frame[0] * frame[1], reverse=True)
    return abs(width * rows / height - columns) < 1 or abs(height * columns / width - rows) < 1


def number(value: object) -> float:
    """A number, also where it is written as text; NaN for anything else."""
    try:
        return float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else float("nan")
    except (ValueError, OverflowError):
        return float("nan")


def _ring(points: Any, frame: Size) -> list[float]:
    """x, y, x, y, ...; empty for fewer than three points."""
    if not isinstance(points, list):
        raise WrongError("segmentation that is neither polygons nor run lengths")
    if points and isinstance(points[0], list | dict):
        points = [each for point in points for each in _point(point)]
    kinds = set(map(type, points))
    flat = points if kinds <= {int, float} else [number(each) for each in points]
    # A sum is finite where all its terms are; one that is not for its size alone leads out of any picture.
    try:
        finite = isfinite(sum(flat))
    except OverflowError:
        finite = False
    if not finite:
        raise WrongError("polygon with a coordinate that is no finite number")
    if len(flat) % 2:
        raise WrongError("polygon with an odd number of coordinates")
    if len(flat) < 6:
        return []
    for along, side in ((flat[::2], frame[1]), (flat[1::2], frame[0])):
        beyond = max(2, BEYOND * side)
        if min(along) < -beyond or max(along) > side + beyond:
            raise WrongError("polygon that leads out of its picture")
    if len(flat) > 2000 and np.abs(np.diff(np.reshape(flat, (-1, 2)), axis=0)).max(1).sum() > 4 * frame[0] * frame[1]:
        raise WrongError("polygon longer than its picture has room for")  # drawing takes memory for all its length
    if max(flat) <= 1 < max(frame):
        raise WrongError("polygon within one pixel, perhaps in shares of the sides")
    return flat


def _point(point: Any) -> list[Any]:
    if isinstance(point, dict) and point.keys() >= {"x", "y"}:
        return [point["x"], point["y"]]
    if isinstance(point, list) and len(point) == 2:
        return point
    raise WrongError("polygon with a point that is no pair of coordinates")


def _run_lengths(code: Any, frame: Size) -> dict[str, Any]:
    """Run lengths of the picture's proportions that fill all of their size, column by column, zeros first."""
    sides = code.get("size") if isinstance(code, dict) else None
    own = size(*sides) if isinstance(sides, list) and len(sides) == 2 else None
    if own is None:
        raise WrongError("run lengths without a size in pixels")
    if not same_proportions(own, frame):
        raise WrongError("run lengths of other proportions than their picture's")
    counts = code.get("counts")
    if not isinstance(counts, list | str):
        raise WrongError("run lengths without counts")
    runs = _unpacked(counts) if isinstance(counts, str) else [number(each) for each in counts]
    lengths = np.asarray(runs, float)
    if not (np.isfinite(lengths) & (lengths >= 0) & (lengths == np.floor(lengths))).all():
        raise WrongError("run lengths that are no whole numbers")
    if lengths.sum() != own[0] * own[1]:
        raise WrongError("run lengths that do not add up to their size")
    return {"size": list(own), "counts": counts if isinstance(counts, str) else lengths.astype(int).tolist()}


def _unpacked(text: str) -> np.ndarray:
    """Run lengths from the text that pycocotools packs them into: 5 bits a character, the lowest first.

    The sixth bit says that more follow; from the fourth run on, each is the difference to the one before the last.
    """
    bits = np.frombuffer(text.encode("latin-1", "replace"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(bits & 32 == 0)
    if not len(bits) or bits.min() < 0 or bits.max() > 63 or ends[-1:].tolist() != [len(bits) - 1]:
        raise WrongError("run lengths in characters that pycocotools does not write")
    lengths = np.diff(ends, prepend=-1)  # characters of each run
    if lengths.max() > 7:
        raise WrongError("run lengths in characters that pycocotools does not write")
    starts = ends - lengths + 1
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((bits & 31) << shifts, starts)
    runs -= np.where(bits[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs
