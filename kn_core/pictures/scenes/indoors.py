"""Scenery under a roof, and the table, which can stand anywhere."""

from __future__ import annotations

import numpy as np

from kn_core.pictures.scenes.page import Page


def _wall(p: Page, *colours: str) -> None:
    wall = p.pick(*colours)
    p.box(0, 0, 100, 100, wall)
    style = p.rng.integers(4)
    if style == 0:
        for x in np.arange(p.between(0, 10), 101, 10).tolist():
            p.box(x, 0, 4, 100, "#ffffff", opacity=0.18)
    elif style == 1:
        for row, y in enumerate(np.arange(4, 100, 9).tolist()):
            for x in np.arange(4 if row % 2 else 0, 101, 9).tolist():
                p.disc(x, y, 0.9, "#ffffff", opacity=0.35)
    elif style == 2:
        p.box(0, p.horizon - 22, 100, 100, "#ffffff", opacity=0.3)
        p.box(0, p.horizon - 23, 100, 1.3, "#ffffff", opacity=0.7)


def _picture(p: Page, x: float, y: float) -> None:
    w, h = p.between(11, 17), p.between(11, 16)
    p.box(x, y, w, h, p.pick("#b98a5e", "#8f6f55", "#f5efe2"))
    p.box(x + 1.3, y + 1.3, w - 2.6, h - 2.6, p.pick("#cfe6ef", "#f7e3cf"))
    peak = f"M{x + 1.3} {y + h - 1.3}l{(w - 2.6) * 0.4} {-h * 0.45}l{(w - 2.6) * 0.6} {h * 0.45}Z"
    p.path(peak, p.pick("#9cbf8f", "#c79a8b", "#8fa9c4"))


def room(p: Page) -> None:
    _wall(p, "#f3dcc3", "#d5e4d6", "#d9e2ef", "#f2d7d3", "#e6dcec", "#f4e8c8")
    h = p.horizon
    left = p.maybe(0.5)
    if p.maybe(0.75):
        x, y = p.between(8, 20) if left else p.between(55, 66), p.between(6, 12)
        w, tall = p.between(20, 28), p.between(24, 30)
        p.window(x, y, w, tall)
        if p.maybe(0.6):
            curtain = p.pick("#e79a86", "#8fb5a9", "#a7a3cf", "#e8c06f")
            for side, d in ((x - 5, 1), (x + w + 5, -1)):
                p.path(f"M{side} {y - 3}h{d * 8}q{-d * 1} {tall * 0.6} {-d * 6} {tall + 8}h{-d * 2}Z", curtain)
            p.box(x - 8, y - 4, w + 16, 1.2, "#8f6f55", radius=0.6)
    if p.maybe(0.7):
        _picture(p, p.between(62, 78) if left else p.between(8, 22), p.between(10, 18))
    p.box(0, h - 2.2, 100, 2.6, "#ffffff", opacity=0.85)
    p.floor(h, p.pick("#d8ac79", "#c99b6c", "#e2c295", "#b98d66"), "#a97c50")
    if p.maybe(0.6):
        rug, y = p.pick("#c96f5f", "#6f94a8", "#8a9d6a", "#a783a5", "#e0b45f"), (h + 100) / 2 + 3
        p.disc(50, y, 44, rug, ry=(100 - h) * 0.36)
        p.disc(50, y, 39, "#ffffff", ry=(100 - h) * 0.3, opacity=0.25)


def kitchen(p: Page) -> None:
    h = p.horizon
    p.box(0, 0, 100, 100, p.pick("#f1ead9", "#e3ecec", "#f6e7d3"))
    for y in np.arange(h - 40, h, 5).tolist():
        p.line(f"M0 {y:.1f}H100", "#ffffff", 0.5)
    for x in np.arange(p.between(0, 5), 101, 7).tolist():
        p.line(f"M{x:.1f} {h - 40:.1f}V{h:.1f}", "#ffffff", 0.5)
    cupboard, knob = p.pick("#8fb3a5", "#e6b98a", "#a9bfd6", "#d99a83", "#f5f1e6"), "#fff6df"
    gap = p.between(25, 45)
    for x in (gap - 46, gap - 23, gap + 32, gap + 55, gap + 78):
        p.box(x, -2, 22, h * 0.36, cupboard, radius=0.8)
        p.box(x + 2, -2, 18, h * 0.36 - 2.5, "#ffffff", radius=0.6, opacity=0.18)
        p.disc(x + 18, h * 0.29, 0.9, knob)
    p.window(gap + 3, 4, 25, h * 0.38)
    counter = h - 20
    p.box(0, counter, 100, 21, cupboard)
    for x in np.arange(p.between(-20, 0), 101, 24).tolist():
        p.box(x + 1.5, counter + 5, 21, 14, "#ffffff", radius=0.6, opacity=0.18)
        p.disc(x + 12, counter + 7, 0.9, knob)
    p.box(0, counter - 1, 100, 3.4, p.pick("#b58a62", "#8d8781", "#d9cdbd"))
    if p.maybe(0.5):
        for x in (8, 15, 22):
            p.box(x, counter - 6, 5, 5, p.pick("#e3eef0", "#e7c9a0"), radius=0.8)
            p.box(x - 0.3, counter - 7, 5.6, 1.5, "#b08968", radius=0.6)
    p.floor(h, p.pick("#e9dcc6", "#dbe1df", "#e6cfb4"), "#c2b39b", rows=4)


def bathroom(p: Page) -> None:
    h, split = p.horizon, p.horizon * p.between(0.25, 0.4)
    tile = p.pick("#bfe0e2", "#cfe0f0", "#d5e8d4", "#f0dcd6")
    p.box(0, 0, 100, 100, p.pick("#f6f2ea", "#eef4f5"))
    p.box(0, split, 100, h - split, tile)
    offset = p.between(0, 8)
    for x in np.arange(offset, 101, 8).tolist():
        p.line(f"M{x:.1f} {split:.1f}V{h:.1f}", "#ffffff", 0.6)
    for y in np.arange(split, h, 8).tolist():
        p.line(f"M0 {y:.1f}H100", "#ffffff", 0.6)
    p.box(0, split - 1, 100, 1.8, "#ffffff")
    left = p.maybe(0.5)
    x = p.between(8, 16) if left else p.between(64, 70)
    if p.maybe(0.7):
        p.box(x, 8, 22, 28, p.pick("#c9a77a", "#ffffff", "#9cb4bd"), radius=11)
        p.box(x + 1.8, 9.8, 18.4, 24.4, "#e2f0f5", radius=9.2)
        p.line(f"M{x + 6} 26L{x + 13} 14M{x + 10} 28L{x + 15} 20", "#ffffff", 1, opacity=0.8)
    x = p.between(66, 76) if left else p.between(8, 16)
    p.box(x - 1, 24, 16, 1.2, "#a8b3b8", radius=0.6)
    p.box(x + 1, 24, 12, p.between(16, 22), p.pick("#e9a08c", "#f2cf7d", "#8fb5c9", "#a9c78f"), radius=0.6)
    p.box(x + 1, 34, 12, 1.6, "#ffffff", opacity=0.6)
    p.floor(h, p.pick("#e5e3df", "#d8dfe3", "#e8ddcf"), "#bfc4c6", rows=4)
    if p.maybe(0.5):
        p.disc(50, (h + 100) / 2 + 2, 32, p.pick("#8fb5c9", "#e3a79a", "#b7cf9b"), ry=(100 - h) * 0.3, opacity=0.85)


def table(p: Page) -> None:
    _wall(p, "#cfe0d3", "#f1d9b9", "#cddcea", "#f0cdc6", "#dcd2e8", "#f3e6bd", "#b7d4d1")
    if p.maybe(0.45):
        p.window(p.between(8, 60), p.between(4, 9), p.between(22, 30), p.between(24, 32))
    elif p.maybe(0.6):
        _picture(p, p.between(10, 70), p.between(8, 16))


def tabletop(p: Page, edge: float) -> None:
    """A table across the lower part of the page, its far edge at y = edge: bare wood, or a striped or checked cloth."""
    p.box(0, edge + 1.2, 100, 100 - edge, "#000000", opacity=0.12)
    if p.maybe(0.5):
        p.floor(edge, p.pick("#d9a974", "#c98f5d", "#e3bf8f", "#b77f55"), "#8f623c", boards=5)
        p.box(0, edge, 100, 1.1, "#ffffff", opacity=0.3)
        return
    p.box(0, edge, 100, 100 - edge, p.pick("#fbf6ec", "#f4f1ea", "#fdf3e3"))
    dye = p.pick("#e58e7e", "#86b2cf", "#9cc08a", "#e9c05f", "#b79bcb")
    for k in range(-12, 24, 2):
        near, far = 50 + (k * 9 - 54) * 1.4, 50 + (k * 9 - 54) * 0.75
        p.path(f"M{far:.1f} {edge:.1f}h6.75L{near + 12.6:.1f} 101H{near:.1f}Z", dye, opacity=0.45)
    if p.maybe(0.6):
        for k in range(0, 8, 2):
            y, below = (edge + (101 - edge) * (j / 8) ** 1.3 for j in (k, k + 1))
            p.box(0, y, 100, below - y, dye, opacity=0.45)
    p.box(0, edge, 100, 0.9, dye)
