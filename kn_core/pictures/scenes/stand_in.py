"""Another object in the main one's place: as large, on the same ground, and of a kind that may well be there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kn_core.pictures.scenes.drawings import Placed
from kn_core.pictures.scenes.kinds import KINDS, Kind
from kn_core.pictures.scenes.settings import Setting

MARGIN = 0.02  # of the frame, that stays free beside and above


def stand_ins(
    objects: Sequence[Placed], main: int, setting: Setting, table: bool, n: int, rng: np.random.Generator
) -> list[tuple[Placed, ...]]:
    """The scene's objects with another in the place of `main`: up to n such, each of another kind that is not there."""
    gone, there = objects[main], {placed.kind for placed in objects}

    def fits(kind: Kind) -> bool:
        stage = setting.stage(kind.stage)
        stage = "ground" if stage == "table" and not table else stage  # as in `scene`
        return kind.name not in there and setting.name in kind.settings and stage == gone.stage

    kinds = [kind for kind in KINDS.values() if fits(kind)]
    chosen = [kinds[place] for place in rng.permutation(len(kinds))[:n]]
    return [(*objects[:main], _in_place_of(gone, kind, rng), *objects[main + 1 :]) for kind in chosen]


def _in_place_of(gone: Placed, kind: Kind, rng: np.random.Generator) -> Placed:
    """One of the kind's drawings over as much of the picture, within the frame."""
    drawing = kind.drawings[rng.integers(len(kind.drawings))]
    across, up = drawing.aspect
    side = gone.side * float(np.sqrt(gone.drawing.fill / drawing.fill))
    side = min(side, (1 - 2 * MARGIN) / across, (gone.y - MARGIN) / up)
    free = side * across / 2 + MARGIN
    x = float(np.clip(gone.x, free, 1 - free))
    return replace(gone, kind=kind.name, drawing=drawing, side=side, x=x, flip=bool(rng.random() < 0.5))
