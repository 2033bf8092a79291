"""What else could be taken out of a picture: as strong a change as its object's, of which the object is no part.

Where the scene can be drawn again, another object stands in the object's place, and is taken out exactly. Elsewhere
another region is inpainted. Of several such changes the decoy is the one whose pixels change most nearly as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from kn_core.pictures.inpaint import DILATION, dilated, inpaint
from kn_core.pictures.sample import Sample
from kn_core.settings import Inpainting

TRIED = 8  # stand-ins, or regions of one size
GROWTH = (0, 1 / 16, 1 / 8)  # of the picture's longer side, by which a region grows beyond the object's size


@dataclass(frozen=True, eq=False)
class Removal:
    """A picture, and the same without something: the concept's object, or, as a decoy, something else."""

    image: np.ndarray  # (h, w, 3) uint8
    without: np.ndarray  # (h, w, 3) uint8
    mask: np.ndarray  # (h, w) bool, where that was

    @property
    def changed(self) -> float:
        return changed(self.image, self.without)


def changed(image: np.ndarray, without: np.ndarray) -> float:
    """Mean change of a pixel, of 255."""
    return float(np.abs(image.astype(float) - without).mean())


def decoy(sample: Sample, without: np.ndarray, how: Inpainting) -> Removal | None:
    """The decoy of a picture whose object's removal leaves `without`; None where there is no room for any."""
    wanted, found = changed(sample.image, without), list(_candidates(sample, how))
    found = [each for each in found if each.changed > 0]
    return min(found, key=lambda each: abs(np.log(each.changed / max(wanted, 1e-9))), default=None)


def _candidates(sample: Sample, how: Inpainting) -> Iterator[Removal]:
    if sample.stand_ins and sample.without is not None and how.method == "exact":
        for image in sample.stand_ins(TRIED):
            yield Removal(image, sample.without, sample.mask)
        return
    hole, method = dilated(sample.mask, how.dilation or DILATION), "telea" if how.method == "exact" else how.method
    for growth in GROWTH:
        grown = dilated(hole, round(growth * max(hole.shape)))
        for place in places(hole, grown, sample.image, TRIED):
            without = inpaint(replace(sample, mask=place), method, 0, how.diffusion)
            yield Removal(sample.image, without, place)


def elsewhere(hole: np.ndarray, image: np.ndarray) -> np.ndarray | None:
    """The hole (h, w) bool at another place of the picture, as large and apart from itself; None where it fits nowhere.

    It is shifted by whole pixels, and what would leave the frame on one side comes in on the other. Of all such places
    it is the one whose pixels stand out most from what is around them, the hole left out: an empty sky would have
    nothing to lose.
    """
    return next(places(hole, hole, image, 1), None)


def places(hole: np.ndarray, shape: np.ndarray, image: np.ndarray, n: int) -> Iterator[np.ndarray]:
    """Up to n places of `shape` (h, w) bool apart from the hole, as in `elsewhere`, those that stand out most first.

    Between two of them are a quarter of the picture's sides at least, down or across.
    """
    seen, width = (~hole).astype(np.float32), image.shape[1] / 8
    weight = np.maximum(cv2.GaussianBlur(seen, (0, 0), width), 1e-6)
    around = cv2.GaussianBlur(image * seen[..., None], (0, 0), width) / weight[..., None]
    detail = np.abs(image - around).sum(axis=-1)
    overlap, lost = (_under_shifts(values, shape) for values in (hole, detail))
    free = overlap < 0.5  # half a pixel: the sums are whole numbers, up to rounding
    steps = np.indices(hole.shape)
    for _ in range(n):
        if not free.any():
            return
        shift = np.unravel_index(np.where(free, lost, -np.inf).argmax(), hole.shape)
        yield np.roll(shape, shift, axis=(0, 1))
        apart = [np.abs(at - of) for at, of in zip(steps, shift, strict=True)]
        sides = zip(apart, hole.shape, strict=True)
        free &= np.logical_or(*(np.minimum(gap, side - gap) >= side / 4 for gap, side in sides))


def _under_shifts(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The sum of `values` under the hole at every shift (down, right), around the frame's edges: all (h, w)."""
    product = np.fft.rfft2(values) * np.conj(np.fft.rfft2(hole))
    return np.fft.irfft2(product, s=hole.shape)
