"""One picture with the object that its concept names, where the object is, and what people say of it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture that shows a concept. Scenes and COCO give the same type, so nothing downstream asks which it is.

    `without` is the exact counterfactual, the same scene rendered without the object; photographs have none.
    """

    image_id: str
    concept: str
    image: np.ndarray  # (h, w, 3) uint8, RGB
    mask: np.ndarray  # (h, w) bool, the union of the concept's visible instances
    others: tuple[str, ...] = ()  # the other objects that are annotated in the picture
    references: tuple[str, ...] = ()  # what people (COCO) or templates (scenes) say of it
    n_instances: int = 1
    without: np.ndarray | None = None  # (h, w, 3) uint8
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
