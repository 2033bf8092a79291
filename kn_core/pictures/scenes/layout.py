"""Where the objects of a scene go: on their stage, as large as distance makes them, not in each other's way."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from kn_core.pictures.scenes.drawings import Drawing, Placed
from kn_core.pictures.scenes.kinds import Kind
from kn_core.pictures.scenes.page import Page

COARSE = 64  # cells a side of the grid on which it is measured who hides whom
AREA = 0.09, (0.34, 0.26, 0.22)  # range of the main object's share of the frame; the upper end for 0, 1, 2 companions
COMPANION = 0.4  # a companion's largest area, as a share of the main object's: the scene is about that one
SPAN = 0.92, 0.75, 0.66  # its largest width, likewise
LEAST = 0.25, 0.18  # longest side of the first companion and of the second, at least: what is there can be named


def lay_out(
    rng: np.random.Generator, kinds: Sequence[Kind], stages: Sequence[str], page: Page, role: str = ""
) -> list[Placed]:
    """The main object, of a drawing for the role, first; then, for each companion, the first of forty tries that hides
    little, or the best of them.

    Every try is a little smaller, so that in a full picture something fits in the end.
    """
    placed = [_main(rng, kinds[0], stages[0], page, role, company=len(kinds) - 1)]
    for kind, stage in zip(kinds[1:], stages[1:], strict=True):
        tries: list[tuple[float, Placed]] = []
        while len(tries) < 40:
            least, shrink = LEAST[len(placed) - 1], 0.98 ** len(tries)
            candidate = _companion(rng, placed[0], kinds[0], kind, stage, page, least, shrink)
            tries.append((_hidden([*placed, candidate]), candidate))
            if tries[-1][0] < rng.uniform(0, 0.2) + 0.01 * len(tries):
                break
        placed.append(min(tries, key=lambda scored: scored[0])[1])
    return placed


def _look(rng: np.random.Generator, kind: Kind, stage: str, role: str = "") -> dict[str, Any]:
    return {
        "kind": kind.name,
        "stage": stage,
        "drawing": kind.drawing(rng, role),
        "flip": bool(rng.random() < 0.5),
        "hue": float(rng.uniform(-0.08, 0.08)),
        "light": float(rng.uniform(0.92, 1.04)),
    }


def _band(stage: str, page: Page) -> tuple[float, float]:
    """The range of bases, as shares of the frame, for what is on a stage."""
    horizon, shore = page.horizon / 100, min(page.shore / 100, 0.97)
    if stage == "sky":
        return 0.12, horizon - 0.04
    if stage == "water":
        return min(horizon + 0.05, shore - 0.01), shore - 0.01
    if stage == "table":
        return horizon + 0.07, 0.96
    return min(max(horizon + 0.06, shore + 0.04), 0.96), 0.97


def _main(rng: np.random.Generator, kind: Kind, stage: str, page: Page, role: str, company: int) -> Placed:
    look = _look(rng, kind, stage, role)
    across, up = look["drawing"].aspect
    low, high = _band(stage, page)
    area = np.exp(rng.uniform(np.log(AREA[0]), np.log(AREA[1][company])))
    side = float(min(np.sqrt(area / look["drawing"].fill), SPAN[company] / across, (high - 0.03) / up))
    near = np.clip((side * up - 0.15) / 0.6 + rng.uniform(-0.25, 0.25), 0, 1)  # what is large is near
    y = float(max(low + near * (high - low), side * up + 0.03))
    side, y = _on_surface(look["drawing"], side, y, page)
    free = 0.48 - side * across / 2
    return Placed(x=0.5 + float(rng.uniform(-free, free)), y=y, side=side, **look)


def _companion(
    rng: np.random.Generator,
    main: Placed,
    main_kind: Kind,
    kind: Kind,
    stage: str,
    page: Page,
    least: float,
    shrink: float,
) -> Placed:
    """Anywhere on its stage, as large as its distance and the square root of its real size make it.

    True sizes would leave a cat beside a bus a dot.
    """
    look = _look(rng, kind, stage)
    low, high = _band(stage, page)
    y = float(rng.uniform(low, high))
    eye = page.horizon / 100 - 0.15  # above the drawn horizon, so that depth changes sizes gently
    depth = 1.0 if "sky" in (stage, main.stage) else (y - eye) / (main.y - eye)
    largest = main.side * float(np.sqrt(COMPANION * main.drawing.fill / look["drawing"].fill))
    side = float(np.clip(main.side * np.sqrt(kind.metres / main_kind.metres) * depth, least, largest)) * shrink
    if stage == "sky":
        side = min(side, 0.3, high - 0.05)
        y = max(y, side * look["drawing"].aspect[1] + 0.03)
    side, y = _on_surface(look["drawing"], side, y, page)
    return Placed(x=float(rng.uniform(0.06, 0.94)), y=y, side=side, **look)


def _on_surface(drawing: Drawing, side: float, y: float, page: Page) -> tuple[float, float]:
    """Side and base such that what lies flat does not reach beyond the far edge of what it lies on."""
    if not drawing.lies:
        return side, y
    edge = page.horizon / 100 + 0.02
    side = min(side, (0.97 - edge) / drawing.aspect[1])
    return side, max(y, edge + side * drawing.aspect[1])


def _hidden(objects: Sequence[Placed]) -> float:
    """The largest share of an object that another hides or the frame cuts off; that of the first counts double."""
    shapes = []
    for placed in objects:
        left, top, _, _ = placed.box(COARSE)
        wide = Image.new("L", (3 * COARSE, 3 * COARSE))  # the frame and as much again on every side
        wide.paste(placed.silhouette(COARSE), (left + COARSE, top + COARSE))
        shapes.append(np.asarray(wide) > 127)
    frame = slice(COARSE, 2 * COARSE)
    shares = []
    for placed, shape in zip(objects, shapes, strict=True):
        nearer = [s for o, s in zip(objects, shapes, strict=True) if o.nearness > placed.nearness]
        visible = shape & ~np.logical_or.reduce(nearer) if nearer else shape
        shares.append(1 - visible[frame, frame].sum() / max(shape.sum(), 1))
    return float(max(2 * shares[0], *shares))
