"""The picture without the object: exactly where the scene can be rendered again, painted over elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from kn_core.sample import Sample

Inpainter = Callable[[Sample, np.ndarray], np.ndarray]  # (sample, hole (h, w) bool) -> (h, w, 3) uint8

RADIUS = 5.0  # pixels around a point that OpenCV fills it from


def inpaint(sample: Sample, method: str, dilation: int) -> np.ndarray:
    """The sample's picture with its concept removed, (h, w, 3) uint8.

    `method` is a key of `METHODS`. The hole is the mask grown by `dilation` pixels (an elliptic kernel), since an
    object's soft edge and its shadow reach beyond a drawn mask; pixels outside the hole stay as they are. `exact` needs
    no hole: it takes the scene rendered again without the object.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}. Got '{method}'.")
    return METHODS[method](sample, dilated(sample.mask, dilation))


def dilated(mask: np.ndarray, dilation: int) -> np.ndarray:
    """The mask grown by `dilation` pixels in every direction, (h, w) bool."""
    if dilation < 0:
        raise ValueError(f"dilation must be 0 pixels or more. Got {dilation}.")
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * dilation + 1, 2 * dilation + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def _exact(sample: Sample, _hole: np.ndarray) -> np.ndarray:
    if sample.without is None:
        raise ValueError(
            f"image {sample.image_id} has no exact counterfactual: photographs have none, only scenes do. "
            f"Choose another method: {', '.join(name for name in METHODS if name != 'exact')}."
        )
    return sample.without.copy()


def _opencv(algorithm: int) -> Inpainter:
    def paint(sample: Sample, hole: np.ndarray) -> np.ndarray:
        if hole.all():
            raise ValueError(
                f"image {sample.image_id}: the dilated mask covers the whole picture, nothing is left to fill it from. "
                "Use a smaller dilation, or leave the picture out."
            )
        return np.asarray(cv2.inpaint(sample.image, hole.astype(np.uint8), RADIUS, algorithm), dtype=np.uint8)

    return paint


METHODS: dict[str, Inpainter] = {
    "exact": _exact,
    "telea": _opencv(cv2.INPAINT_TELEA),
    "navier-stokes": _opencv(cv2.INPAINT_NS),
}
