"""One picture with the object that its concept names, where the object is, and what people say of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from kn_core.concepts import noun
from kn_core.pictures.image_files import Picture, PictureError, as_mask, as_picture, box_mask

Box = tuple[float, float, float, float]

# Pixels a side of a reader's picture: inpainting more costs minutes, and a model looks at a few hundred of them.
MAX_SIDE = 1024


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture that shows a concept. Scenes and COCO give the same type, so nothing downstream asks which it is.

    `without` is the exact counterfactual, the same scene rendered without the object; photographs have none. Raises
    ValueError where shapes or types do not fit.

    >>> mask = np.zeros((4, 6), bool)
    >>> mask[1:3, 2:5] = True
    >>> Sample("mine", "dog", np.zeros((4, 6, 3), np.uint8), mask).area_fraction
    0.25
    """

    image_id: str
    concept: str
    image: np.ndarray  # (h, w, 3) uint8, RGB
    mask: np.ndarray  # (h, w) bool, the union of the concept's visible instances
    others: tuple[str, ...] = ()  # the other objects that are annotated in the picture
    references: tuple[str, ...] = ()  # what people (COCO) or templates (scenes) say of it
    n_instances: int = 1
    without: np.ndarray | None = None  # (h, w, 3) uint8
    # n -> up to n pictures like it with another object in the concept's place; photographs have none
    stand_ins: Callable[[int], Sequence[np.ndarray]] | None = None
    setting: str = ""  # where a scene plays, one of `scenes.SETTINGS`
    drawing: str = ""  # which drawing of its kind a scene's main object is, whatever its paint
    role: str = ""  # 'select' or 'held_out' where the drawing is kept for one of the two
    resized: bool = False  # the source squashed it to a square: good for training, not for figures

    def __post_init__(self) -> None:
        height, width = self.image.shape[:2]
        if self.image.shape != (height, width, 3) or self.image.dtype != np.uint8:
            raise ValueError(f"image must be uint8 (h, w, 3). Got {self.image.dtype} {self.image.shape}.")
        if self.mask.shape != (height, width) or self.mask.dtype != np.bool_:
            raise ValueError(f"mask must be bool {(height, width)}. Got {self.mask.dtype} {self.mask.shape}.")

    @property
    def area_fraction(self) -> float:
        """Share of the frame that the concept's visible pixels fill, in [0, 1]."""
        return float(self.mask.mean())

    @property
    def things(self) -> tuple[str, ...]:
        """What there is to name beside the concept: the other objects, then the setting where it is known."""
        return (*self.others, self.setting) if self.setting else self.others


def open_picture(picture: Picture, word: str, *, box: Box | None = None, mask: Picture | None = None) -> Sample:
    """A picture and the object that its caption is to name, marked by a box or by a mask.

    `picture` is a path, a PIL image or an array (h, w, 3) uint8; `box` is (x, y, width, height) in its pixels, from the
    top left; `mask` a path, a PIL image or an array (h, w) of its shape, where the object is bright or opaque.
    A picture of more than `MAX_SIDE` pixels a side is scaled down to that, and its mask with it. Articles do not belong
    to the word: 'a dog' is 'dog'.

    Raises PictureError for what is no such picture, word, mask or box, and for a mask too small to survive scaling.
    Warns (MaskWarning) of a mask that looks like none.

    >>> square = np.zeros((40, 60, 3), np.uint8)
    >>> open_picture(square, word="dog", box=(20, 10, 30, 20)).area_fraction
    0.25
    """
    if (box is None) == (mask is None):
        raise PictureError("The object must be marked by a box or by a mask, one of the two.")
    try:
        concept = noun(word)
    except ValueError:
        raise PictureError(
            f"The word must be a noun that the caption is to hold, such as 'dog'. Got '{word}'."
        ) from None
    name = Path(picture).name if isinstance(picture, (str, Path)) else "picture"
    image = as_picture(picture)
    height, width = image.shape[:2]
    if mask is None:
        assert box is not None
        marked = box_mask(box, (height, width))
    else:
        marked = as_mask(mask, (height, width))
    size = fitted((height, width))
    if size != (height, width):
        image = scaled_down(image)
        marked = cv2.resize(marked.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) >= 0.5  # of the area
        if not marked.any():
            raise PictureError(
                f"{name}: scaled down to {size[1]} x {size[0]} pixels, nothing is left of the mask. The object is too "
                "small for the model, which looks at fewer still: crop the picture around it."
            )
    return Sample(name, concept, image, marked)


def fitted(shape: tuple[int, int]) -> tuple[int, int]:
    """(h, w) that a picture of `shape` is kept at: at most `MAX_SIDE` pixels a side, with its proportions."""
    scale = min(1.0, MAX_SIDE / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def scaled_down(image: np.ndarray) -> np.ndarray:
    """A picture, (h, w, 3) uint8, at the size that it is kept at; a smaller one as it is."""
    size = fitted(image.shape[:2])
    if size == image.shape[:2]:
        return image
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))
