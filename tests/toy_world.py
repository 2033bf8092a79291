"""A toy world of three coloured squares on two grays, and a tower that sees it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from functools import partial

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from kn_core.models.towers import resize
from kn_core.pictures.sample import Sample

COLOURS = {"bear": (230, 30, 30), "pizza": (30, 200, 30), "bus": (30, 30, 230)}
SETTINGS = {"forest": 40, "beach": 150}  # gray levels
SAID = [f"A {concept} in a {setting}." for concept in COLOURS for setting in SETTINGS] + ["A forest.", "A beach."]


class ToyTower(nn.Module):
    """The mean colour of each cell, so that one lit patch is one lit feature."""

    size, width = 16, 3

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.grid = (cells, cells)

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        return resize(images, self.size) / 255

    def forward(self, pixels: Tensor) -> Tensor:
        cells = F.avg_pool2d(pixels, self.size // self.grid[0])
        return cells.flatten(2).transpose(1, 2)


DESCRIBED = {  # what a card's report says of a layer's captions of scenes
    "roles": {"select": 1, "held_out": 0},
    "setting": 0.5,
    "companion": 0.25,
    "true_words": 4.2,
    "false_words": 0.3,
}


def toy_samples(concept: str, n: int, seed: int, only: Container[str] | None = None) -> Iterator[Sample]:
    """Squares of the concept's colour that fill a quarter of a gray picture; without them, the plain picture."""
    for index in range(n):
        if only is not None and f"toy-{concept}-{index}" not in only:
            continue
        rng = np.random.default_rng([seed, list(COLOURS).index(concept), index])
        setting = list(SETTINGS)[index % 2]
        without = np.full((16, 16, 3), SETTINGS[setting], np.uint8) + rng.integers(0, 20, (16, 16, 1), dtype=np.uint8)
        mask = np.zeros((16, 16), bool)
        top, left = rng.integers(0, 9, 2)
        mask[top : top + 8, left : left + 8] = True
        image = np.where(mask[..., None], np.uint8(COLOURS[concept]), without)
        said = f"A {concept} in a {setting}."
        others = [np.where(mask[..., None], np.uint8(COLOURS[other]), without) for other in COLOURS if other != concept]
        known = {"references": (said,), "without": without, "stand_ins": partial(_first, others)}
        yield Sample(f"toy-{concept}-{index}", concept, image, mask, **known)


def _first(pictures: list[np.ndarray], n: int) -> list[np.ndarray]:
    return pictures[:n]
