"""The picture without the object: exactly where the scene can be rendered again, painted over elsewhere."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from kn_core.pictures import diffusion
from kn_core.pictures.diffusion_pipeline import DiffusionError
from kn_core.pictures.image_files import PictureError
from kn_core.pictures.sample import Sample
from kn_core.settings import Diffusion

# (samples, their holes (h, w) bool, settings of diffusion) -> pictures (h, w, 3) uint8
Inpainter = Callable[[Sequence[Sample], Sequence[np.ndarray], Diffusion], list[np.ndarray]]

DILATION = 8  # pixels by which a mask drawn by hand grows: it misses an object's soft edge and its shadow
RADIUS = 5.0  # pixels around a point that OpenCV fills it from


def inpaint(sample: Sample, method: str, dilation: int, settings: Diffusion | None = None) -> np.ndarray:
    """The sample's picture with its concept removed, (h, w, 3) uint8.

    `method` is a key of `METHODS`. The hole is the mask grown by `dilation` pixels (an elliptic kernel), since an
    object's soft edge and its shadow reach beyond a drawn mask; pixels outside the hole stay as they are. `exact` needs
    no hole: it takes the scene rendered again without the object. `diffusion` alone reads the settings.
    """
    return inpaint_all([sample], method, dilation, settings)[0]


def take_out(
    picture: Sample, method: str | None = None, dilation: int = DILATION, settings: Diffusion | None = None
) -> np.ndarray:
    """The picture without its object, (h, w, 3) uint8, as `method` (a key of `METHODS`) paints it.

    None is `exact` for a picture that comes with its counterfactual, else `telea`. The hole is the mask grown by
    `dilation` pixels. Raises PictureError where nothing is left to paint from, or nothing changes.
    """
    exact = picture.without is not None
    try:
        painted = inpaint(picture, method or ("exact" if exact else "telea"), dilation, settings)
    except (ValueError, DiffusionError) as error:
        raise PictureError(str(error)) from None
    if np.array_equal(painted, picture.image):
        raise PictureError(f"{picture.image_id}: painted over, the object looks as before. Is the mask on the object?")
    return painted


def inpaint_all(
    samples: Sequence[Sample], method: str, dilation: int, settings: Diffusion | None = None
) -> list[np.ndarray]:
    """`inpaint` of several pictures, which diffusion paints in batches."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}. Got '{method}'.")
    holes = [dilated(sample.mask, dilation) for sample in samples]
    for sample, hole in zip(samples, holes, strict=True):
        if method != "exact" and hole.all():
            raise PictureError(
                f"image {sample.image_id}: the dilated mask covers the whole picture, nothing is left to fill it from. "
                "Use a smaller dilation, or leave the picture out."
            )
    return METHODS[method](samples, holes, settings or Diffusion())


def dilated(mask: np.ndarray, dilation: int) -> np.ndarray:
    """The mask grown by `dilation` pixels in every direction, (h, w) bool; by the longer side or more, all of the picture."""
    if dilation < 0:
        raise PictureError(f"dilation must be 0 pixels or more. Got {dilation}.")
    if dilation >= max(mask.shape):
        return np.full_like(mask, mask.any())
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * dilation + 1, 2 * dilation + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def _exact(samples: Sequence[Sample], _holes: Sequence[np.ndarray], _settings: Diffusion) -> list[np.ndarray]:
    for sample in samples:
        if sample.without is None:
            raise ValueError(
                f"image {sample.image_id} has no exact counterfactual: photographs have none, only scenes do. "
                f"Choose another method: {', '.join(name for name in METHODS if name != 'exact')}."
            )
    return [sample.without.copy() for sample in samples if sample.without is not None]


def _opencv(algorithm: int) -> Inpainter:
    def paint(samples: Sequence[Sample], holes: Sequence[np.ndarray], _settings: Diffusion) -> list[np.ndarray]:
        pairs = [(s.image, hole.astype(np.uint8)) for s, hole in zip(samples, holes, strict=True)]
        return [np.asarray(cv2.inpaint(image, hole, RADIUS, algorithm), np.uint8) for image, hole in pairs]

    return paint


METHODS: dict[str, Inpainter] = {
    "exact": _exact,
    "telea": _opencv(cv2.INPAINT_TELEA),
    "navier-stokes": _opencv(cv2.INPAINT_NS),
    "diffusion": diffusion.paint,
}
