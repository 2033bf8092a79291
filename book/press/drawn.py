"""A figure's SVG as HTML: its text real, its colours the page's, its pictures WebP files that load when they are seen.

Matplotlib draws on white and puts pictures as PNG into the SVG. Here ink becomes `currentColor`, the card that of the
page, and a colour that one of the two grounds would swallow a variable, which `colours` gives a value in the dark.
"""

from __future__ import annotations

import base64
import colorsys
import hashlib
import html
import io
import re
from collections.abc import Callable, Iterable
from itertools import groupby, pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

from kn_core.drawing import CARD, HALO, INK

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
DARK = "#121212"  # the theme's ground
CONTRAST, IN_THE_DARK = 3.0, 4.5  # of graphics with their ground: what WCAG 1.4.11 asks for, and what faint lines need
FIXED = {"#262626", "#000000", HALO}  # seaborn's ink on cells, and outlines on pictures: their ground stays as it is
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
NEAR = 0.2  # points
TINY = 1200  # bytes of a picture that is not worth a request


def contrast(one: str, other: str) -> float:
    """Of two colours '#rrggbb', from 1 to 21 (WCAG 2)."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _channels(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def in_the_dark(colour: str) -> str:
    """The same hue, light enough for the dark ground; what was nearly white, a band or a grid, nearly that ground."""
    hue, light, saturation = colorsys.rgb_to_hls(*_channels(colour))
    if contrast(colour, CARD) < 1.35:
        return _written(hue, 0.1 + 1.1 * (1 - light), saturation / 3)
    found = colour
    while contrast(found, DARK) < IN_THE_DARK:
        light += 0.02
        found = _written(hue, light, saturation)
    return found


def _written(hue: float, light: float, saturation: float) -> str:
    return "#" + "".join(f"{round(255 * min(1, c)):02x}" for c in colorsys.hls_to_rgb(hue, min(1, light), saturation))


def colours(used: Iterable[str]) -> str:
    """Style sheet: what the colours of figures are in the dark (and not on paper)."""
    rules = "".join(f"--k-{colour[1:]}:{in_the_dark(colour)};" for colour in sorted(used))
    return f'@media screen {{ html[data-theme="dark"] {{ {rules} }} }}\n'


class Drawing:
    """One SVG of matplotlib's for a page; pictures go to `folder`, `used` gets the colours that `colours` needs."""

    def __init__(self, text: str, key: str, folder: Path, used: set[str]) -> None:
        self.root = ET.fromstring(text)  # noqa: S314 - this run drew it
        self.key, self.folder, self.used = key, folder, used
        self.ids: dict[str, int] = {}
        self.name = next((g.get("id", "")[7:] for g in self.root.iter(f"{SVG}g") if _is_named(g)), "")
        _, _, self.width, self.height = (float(part) for part in self.root.get("viewBox", "0 0 1 1").split())

    def html(self, kind: str, base: str) -> str:
        """`kind` is a class of its own, 'wide' or 'narrow'; `base` leads from the page to the site's root."""
        for waste in ("metadata", "defs"):
            for child in self.root.findall(f"{SVG}{waste}"):
                if waste == "metadata" or child.find(f"{SVG}style") is not None:
                    self.root.remove(child)
        pictures = "".join(self._pictures(self.root, base))
        self._walk(self.root, cells=False)
        for element in list(self.root.iter()):
            runs = groupby(list(element), lambda child: child.get("style"))
            element[:] = [child for style, run in runs for child in _together(style, list(run))]
        size = f"0 0 {self.width:g} {self.height:g}"
        inside = "".join(ET.tostring(child, encoding="unicode") for child in self.root)
        inside = re.sub(r' xmlns:\w+="[^"]*"|ns\d+:(?=\w)|(?<=>)\s+(?=<)', "", inside)
        pixels = self.width * 4 / 3
        return (
            f'<div class="drawing {kind}" style="max-width:{pixels:.0f}px;aspect-ratio:{self.width:g}/{self.height:g}">'
            f'{pictures}<svg viewBox="{size}" preserveAspectRatio="none">{inside}</svg></div>'
        )

    def _pictures(self, parent: ET.Element, base: str) -> Iterable[str]:
        """Take pictures out of the drawing: they lie below it, where they can wait until they are seen."""
        for child in list(parent):
            turned = re.fullmatch(r"scale\(1 -1\) translate\(0 (-[\d.]+)\)", child.get("transform", ""))
            if child.tag == f"{SVG}image" and (turned or not child.get("transform")):
                x, y, w, h = (float(child.get(side, "0")) for side in ("x", "y", "width", "height"))
                top = -y - h + abs(float(turned[1])) if turned else y
                place = zip(
                    ("left", "top", "width", "height"),
                    (x / self.width, top / self.height, w / self.width, h / self.height),
                    strict=True,
                )
                style = ";".join(f"{side}:{100 * share:.2f}%" for side, share in place)
                address = self._kept(child.get(LINK, ""), base, flipped=bool(turned))
                yield f'<img alt="" loading="lazy" src="{address}" style="{style}">'
                parent.remove(child)
            else:
                yield from self._pictures(child, base)

    def _kept(self, data: str, base: str, *, flipped: bool) -> str:
        picture: Image.Image = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if flipped else picture
        few = picture.convert("RGBA").getcolors(256) is not None or min(picture.size) < 64
        stream = io.BytesIO()
        picture.save(stream, "WEBP", lossless=few, quality=80, method=4)
        written = stream.getvalue()
        if len(written) < TINY:
            return "data:image/webp;base64," + base64.b64encode(written).decode()
        path = self.folder / f"{hashlib.sha256(written).hexdigest()[:20]}.webp"
        path.write_bytes(written)
        return f"{base}_images/{path.name}"

    def _walk(self, element: ET.Element, *, cells: bool) -> None:
        """Shorten what can be shortened, in place. Cells of a map keep their colours: they mean a number."""
        children = list(element)
        element[:] = []
        for child in children:
            own = cells or child.get("id", "").startswith("QuadMesh")
            if child.tag == f"{SVG}g" and child.find(f"{SVG}text/{SVG}tspan") is not None:
                _as_line(child)
            self._walk(child, cells=own)
            if child.get("style") == "fill:var(--kn-card)":  # the figure's own ground, or its axes'
                continue
            _shorten(child, self._id)
            last = element[-1] if len(element) else None
            if child.tag == f"{SVG}g" and not child.attrib:
                element.extend(child)
            elif child.tag == f"{SVG}g" and last is not None and (last.tag, last.attrib) == (child.tag, child.attrib):
                last.extend(child)
            elif child.tag != f"{SVG}g" or len(child):
                element.append(child)
        self._restyle(element, cells=cells)

    def _id(self, name: str) -> str:
        """A short one, of this drawing alone."""
        return f"{self.key}{self.ids.setdefault(name, len(self.ids))}"

    def _restyle(self, element: ET.Element, *, cells: bool) -> None:
        if style := element.get("style"):
            style = re.sub(r"font-family:[^;]*;?\s*", "", style)
            style = re.sub(r"(?<=font: )(.*?\d[\d.]*px)[^;]*", r"\1 sans-serif", style)
            is_text = element.tag in (f"{SVG}text", f"{SVG}tspan")
            if not cells:
                style = re.sub(r"#[0-9a-f]{6}", lambda colour: self._themed(colour[0], is_text), style)
            element.set("style", re.sub(r"\s*([:;])\s*", r"\1", style).rstrip(";"))

    def _themed(self, colour: str, is_text: bool) -> str:
        if colour == INK:
            return "currentColor"
        if colour == CARD:
            return "#fff" if is_text else "var(--kn-card)"
        if colour in FIXED or (contrast(colour, DARK) >= IN_THE_DARK and contrast(colour, CARD) >= 1.35):
            return colour
        self.used.add(colour)
        return f"var(--k-{colour[1:]},{colour})"


def _together(style: str | None, run: list[ET.Element]) -> list[ET.Element]:
    """Neighbours of one style in a group that has it for them, where that is shorter."""
    if not style or len(run) < 3:
        return run
    group = ET.Element(f"{SVG}g", {"style": style})
    for child in run:
        del child.attrib["style"]
    group.extend(run)
    return [group]


def _shorten(element: ET.Element, short_id: Callable[[str], str]) -> None:
    for name, value in list(element.attrib.items()):
        if name == "id" and element.tag == f"{SVG}g":
            del element.attrib[name]
        elif name == "id":
            element.set(name, short_id(value))
        elif name == LINK:
            element.set("href", "#" + short_id(element.attrib.pop(name)[1:]))
        elif name == "clip-path":
            element.set(name, f"url(#{short_id(value[5:-1])})")
        elif name == "transform" and value.startswith("rotate(-0"):
            del element.attrib[name]
        elif name in ("d", "x", "y", "transform", "points", "width", "height"):
            short = NUMBER.sub(_rounded, value)
            element.set(name, _path(short) if name == "d" else short)
    if element.text and not element.text.strip():
        element.text = None
    element.tail = None if not (element.tail or "").strip() else element.tail


def _rounded(number: re.Match[str]) -> str:
    value = float(number[0])
    return f"{value:.4g}" if abs(value) < 0.1 else f"{value:.2f}".rstrip("0").rstrip(".")


def _path(data: str) -> str:
    """A path without needless blanks; of a long line, no points that the line would pass by anyway."""
    parts = re.findall(r"[A-Za-z][^A-Za-z]*", data.replace("\n", " "))
    if len(parts) > 60 and {part[0] for part in parts} <= set("MLz"):
        starts = [place for place, part in enumerate(parts) if part[0] == "M"] + [len(parts)]
        parts = [part for one, end in pairwise(starts) for part in _straightened(parts[one:end])]
    return "".join(part[0] + " ".join(part[1:].split()) for part in parts)


def _straightened(parts: list[str]) -> list[str]:
    """The points of one line that lie farther than `NEAR` from the straight one between their neighbours' ends."""
    points = np.array([part[1:].split() for part in parts if part[0] != "z"], float)  # (n, 2)
    kept, todo = {0, len(points) - 1}, [(0, len(points) - 1)]
    while todo:
        one, other = todo.pop()
        if other - one < 2:
            continue
        along, between = points[other] - points[one], points[one + 1 : other] - points[one]
        length = float(np.hypot(*along))
        off = np.abs(along[0] * between[:, 1] - along[1] * between[:, 0]) / length if length else np.hypot(*between.T)
        if off.max() > NEAR:
            middle = one + 1 + int(off.argmax())
            kept.add(middle)
            todo += [(one, middle), (middle, other)]
    return [parts[place] for place in sorted(kept)] + [part for part in parts if part[0] == "z"]


def _is_named(group: ET.Element) -> bool:
    return group.get("id", "").startswith("figure:")


def _as_line(group: ET.Element) -> None:
    """A formula's letters, which matplotlib places one by one, as one line in runs of equal height and size."""
    text = group.find(f"{SVG}text")
    assert text is not None
    letters = []
    for span in text.iter(f"{SVG}tspan"):
        style, y = span.get("style", ""), float((span.get("y") or "0").split()[0])
        for x, letter in zip((span.get("x") or "0").split(), span.text or "", strict=False):
            letters.append((float(x), y, style, letter))
    letters.sort(key=lambda letter: letter[0])
    text[:] = []
    level = 0.0
    for place, (_, y, style, letter) in enumerate(letters):
        if place == 0 or (y, style) != letters[place - 1][1:3]:
            span = ET.SubElement(text, f"{SVG}tspan", {"style": style})
            if y != level:
                span.set("dy", f"{y - level:.2f}")
            span.text, level = "", y
        span.text = (span.text or "") + letter.replace("\xa0", " ")


def figure(image: str, key: str, site: Path, base: str, alt: str, narrow: Path | None, used: set[str]) -> str | None:
    """What stands for `<img src=image>` in a page, `image` from the site's root; None if it is no drawing of ours."""
    text = (site / image).read_text(encoding="utf-8")
    if not is_ours(text):
        return None
    wide = Drawing(text, f"{key}w", site / "_images", used)
    beside = narrow / f"{wide.name}-narrow.svg" if narrow and wide.name else None
    drawings = wide.html("only", base)
    if beside and beside.exists():
        slim = Drawing(beside.read_text(encoding="utf-8"), f"{key}n", site / "_images", used)
        drawings = drawings.replace("drawing only", "drawing wide", 1) + slim.html("narrow", base)
    return f'<div class="drawn" role="group" aria-label="{html.escape(alt)}">{drawings}</div>'


def is_ours(svg: str) -> bool:
    """Whether matplotlib drew it, rather than a theme its signs."""
    return "matplotlib" in svg[:2000]
