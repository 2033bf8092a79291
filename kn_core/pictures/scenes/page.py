"""The page that scenery is drawn on: flat, softly coloured shapes, composed as SVG text from a random generator."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np


class Page:
    """A page of 100 x 100, y down, on which shapes are laid one over the other; `str(page)` is the SVG, of any size.

    `horizon` is the y at which the ground (or the floor) begins, `shore` the y at which water gives way to land.
    """

    def __init__(self, rng: np.random.Generator, horizon: float, shore: float) -> None:
        self.rng, self.horizon, self.shore = rng, horizon, shore
        self._shapes: list[str] = []

    def __str__(self) -> str:
        shapes = "".join(self._shapes)
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">{shapes}</svg>'

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def maybe(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, *colours: str) -> str:
        """One of the colours (#rrggbb), a little changed, so that hardly two pages have the same."""
        colour = colours[int(self.rng.integers(len(colours)))]
        red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
        hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
        rgb = colorsys.hls_to_rgb(hue + self.between(-0.012, 0.012), light * self.between(0.96, 1.03), saturation)
        return "#" + "".join(f"{min(255, round(255 * channel)):02x}" for channel in rgb)

    def box(self, x: float, y: float, w: float, h: float, fill: str, *, radius: float = 0, opacity: float = 1) -> None:
        place = f'x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" rx="{radius}"'
        self._shapes.append(f'<rect {place} fill="{fill}" opacity="{opacity}"/>')

    def disc(self, x: float, y: float, rx: float, fill: str, *, ry: float | None = None, opacity: float = 1) -> None:
        ry = rx if ry is None else ry
        place = f'cx="{x:.2f}" cy="{y:.2f}" rx="{rx:.2f}" ry="{ry:.2f}"'
        self._shapes.append(f'<ellipse {place} fill="{fill}" opacity="{opacity}"/>')

    def path(self, d: str, fill: str, *, opacity: float = 1) -> None:
        self._shapes.append(f'<path d="{d}" fill="{fill}" opacity="{opacity}"/>')

    def line(self, d: str, stroke: str, width: float, *, opacity: float = 1) -> None:
        pen = f'stroke="{stroke}" stroke-width="{width}" stroke-linecap="round"'
        self._shapes.append(f'<path d="{d}" fill="none" {pen} opacity="{opacity}"/>')

    def fade(self, y: float, bottom: float, above: str, below: str) -> None:
        """A band over the whole width that runs from one colour into another."""
        name = f"f{len(self._shapes)}"
        stops = f'<stop stop-color="{above}"/><stop offset="1" stop-color="{below}"/>'
        self._shapes.append(f'<linearGradient id="{name}" x2="0" y2="1">{stops}</linearGradient>')
        self.box(0, y, 100, max(bottom - y, 0), f"url(#{name})")

    def hills(self, y: float, height: float, fill: str, *, waves: float = 1.5, opacity: float = 1) -> None:
        """A rolling skyline around y that is filled down to the page's end."""
        phase, second = self.between(0, 6.28), self.between(0, 6.28)
        xs = np.linspace(-2, 102, 40)
        t = xs / 100 * 2 * np.pi * waves
        ys = y - height * (0.5 + 0.35 * np.sin(t + phase) + 0.15 * np.sin(2.3 * t + second))
        points = " L".join(f"{a:.2f} {b:.2f}" for a, b in zip(xs, ys, strict=True))
        self.path(f"M{points} L102 101 L-2 101Z", fill, opacity=opacity)

    def peaks(self, y: float, height: float, fill: str, cap: str | None = None) -> None:
        """Mountains whose feet stand on y, with snow on the summits where `cap` names its colour."""
        x = self.between(-15, 5)
        while x < 100:
            w, h = self.between(30, 50), height * self.between(0.55, 1)
            self.path(f"M{x} {y} L{x + w / 2} {y - h} L{x + w} {y}Z", fill)
            if cap:
                top, d = y - h, 0.3
                left, right, low = x + w / 2 * (1 - d), x + w / 2 * (1 + d), top + h * d
                edge = (
                    f"L{x + w * 0.54} {low - h * 0.08} L{x + w / 2} {low + h * 0.05} L{x + w * 0.45} {low - h * 0.08}"
                )
                self.path(f"M{x + w / 2} {top} L{right} {low} {edge} L{left} {low}Z", cap)
            x += w * self.between(0.55, 0.9)

    def sky(self, above: str, below: str, *, clouds: int = 3, sun: str | None = "#fff3b8") -> None:
        self.fade(0, self.horizon + 1, above, below)
        if sun and self.maybe(0.5):
            x, y, r = self.between(10, 90), self.between(8, max(10, self.horizon * 0.4)), self.between(4, 7)
            self.disc(x, y, r * 1.7, sun, opacity=0.35)
            self.disc(x, y, r, sun)
        for _ in range(int(self.rng.integers(clouds + 1))):
            x, y, r = self.between(-5, 105), self.between(5, max(8, self.horizon * 0.65)), self.between(3, 6)
            for dx, dy, scale in ((-1.3, 0.25, 0.7), (0, -0.2, 1), (1.25, 0.2, 0.75)):
                self.disc(x + dx * r, y + dy * r, r * scale, "#ffffff", opacity=0.8)
            self.box(x - 2 * r, y + 0.1 * r, 4 * r, 0.85 * r, "#ffffff", radius=0.42 * r, opacity=0.8)

    def specks(self, top: float, n: int, colours: Sequence[str], rx: float, ry: float, *, opacity: float = 0.7) -> None:
        """Pebbles, petals or tufts: small flat ellipses that grow towards the reader."""
        for _ in range(n):
            y = self.between(min(top, 100), 100)
            scale = 0.4 + 0.9 * (y - top) / max(100 - top, 1)
            colour = colours[int(self.rng.integers(len(colours)))]
            self.disc(self.between(0, 100), y, rx * scale, colour, ry=ry * scale, opacity=opacity)

    def tufts(self, top: float, n: int, colour: str) -> None:
        for _ in range(n):
            x, y = self.between(0, 100), self.between(min(top, 100), 100)
            s = 0.7 + 1.8 * (y - top) / max(100 - top, 1)
            blades = ((-1, -1), (-0.3, 0), (0, -1.5), (0.3, 0), (1, -1))
            d = "M" + "L".join(f"{x + dx * s:.2f} {y + dy * s:.2f}" for dx, dy in blades)
            self.line(d, colour, 0.25 * s, opacity=0.8)

    def floor(self, y: float, colour: str, dark: str, *, boards: int = 9, rows: int = 0) -> None:
        """A floor (or a table) in perspective: boards that run towards the horizon and, for tiles, rows across."""
        self.box(0, y, 100, 100 - y, colour)
        for k in range(-2 * boards, 3 * boards):
            x = 50 + (100 * k / boards - 50)
            self.line(f"M{50 + (x - 50) * 0.55:.2f} {y:.2f}L{50 + (x - 50) * 1.4:.2f} 100", dark, 0.4, opacity=0.6)
        for k in range(1, rows + 1):
            depth = y + (100 - y) * (k / (rows + 1)) ** 1.4
            self.line(f"M0 {depth:.2f}L100 {depth:.2f}", dark, 0.4, opacity=0.6)

    def window(self, x: float, y: float, w: float, h: float) -> None:
        frame = "#ffffff"
        self.box(x - 1.2, y - 1.2, w + 2.4, h + 2.4, frame, radius=0.6)
        self.box(x, y, w, h, self.pick("#bfe3f7", "#cfeaf8", "#ffe3c4"))
        hill = f"M{x} {y + h}V{y + h * 0.8}Q{x + w * 0.35} {y + h * 0.55} {x + w} {y + h * 0.85}V{y + h}Z"
        self.path(hill, "#a9cf8b")
        self.box(x + w / 2 - 0.5, y, 1, h, frame)
        self.box(x, y + h / 2 - 0.5, w, 1, frame)
        self.box(x - 2, y + h + 1, w + 4, 1.6, frame, radius=0.5)
