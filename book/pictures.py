"""Pictures: what the model sees, where the object is, what is left without it, and where neurons answer."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from kn_core.drawing import HEATMAP, SPANNING, WIDTH, heatmap, picture, wrapped
from kn_core.pictures.sample import Sample


def examples(rows: Sequence[tuple[Sample, np.ndarray, str, str, str]]) -> Figure:
    """A row a pair: the picture, its object outlined, the picture without it, and what the model says of both.

    `rows` holds (sample, inpainted picture, caption, caption without the object, heading).
    """
    tall = [WIDTH / 3 * min(1.4, sample.mask.shape[0] / sample.mask.shape[1]) + 0.8 for sample, *_ in rows]
    figure, axes = plt.subplots(len(rows), 3, figsize=(WIDTH, sum(tall)), squeeze=False, height_ratios=tall)
    for (left, middle, right), (sample, inpainted, caption, without, heading) in zip(axes, rows, strict=True):
        picture(left, sample.image, f"“{caption}”" if caption else "not captioned")
        picture(middle, sample.image, f"{sample.concept}: {sample.area_fraction:.0%} of the frame", sample.mask)
        picture(right, inpainted, f"“{without}”" if without else "not captioned")
        lines = textwrap.wrap(heading, int(WIDTH * 72 / (0.63 * 9)))
        left.set_title("\n" * (len(lines) - 1) + " ", fontsize=9)  # room for the heading, which spans the row
        above = left.annotate("\n".join(lines), (0, 1), (0, 5), "axes fraction", "offset points", size=9, weight="bold")
        above.set_in_layout(False)
        above.set_gid(SPANNING)
    return figure


Panel = tuple[str, np.ndarray, str]  # heading, picture (h, w, 3), what the model says of it


def captioned(panels: Sequence[Panel], mask: np.ndarray | None = None, columns: int = 4) -> Figure:
    """Pictures side by side with what the model says of each; `mask` outlines the object in the first."""
    rows, (height, width) = -(-len(panels) // columns), panels[0][1].shape[:2]
    size = (WIDTH, rows * (WIDTH / columns * min(1.4, height / width) + 0.85))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax, (heading, image, said) in zip(axes.flat, panels, strict=False):
        picture(ax, image, f"“{said}”", mask if ax is axes.flat[0] else None)
        ax.set_title(heading, fontsize=9)
    return figure


def gallery(
    pictures: Sequence[tuple[Sample, Sequence[np.ndarray]]], headings: Sequence[str], what: str, shared: bool = True
) -> Figure:
    """A row a picture: itself with the object outlined, then its maps under `headings`; `what` is what colours mean.

    The maps of a picture share one scale, so that a faint one is faint; not if `shared` is False, for different scores.
    """
    panels = 1 + len(headings)
    tall = WIDTH / panels * max(min(1.4, sample.mask.shape[0] / sample.mask.shape[1]) for sample, _ in pictures) + 0.05
    size = (WIDTH, len(pictures) * tall + 0.9)
    figure, axes = plt.subplots(len(pictures), panels, figsize=size, squeeze=False)
    for row, (sample, maps) in zip(axes, pictures, strict=True):
        picture(row[0], sample.image, mask=sample.mask)
        limit = max(float(np.abs(values).max()) for values in maps) if shared else None
        for ax, values in zip(row[1:], maps, strict=True):
            heatmap(ax, sample.image, values, limit, sample.mask)
    for ax, heading in zip(axes[0, 1:], headings, strict=True):
        ax.set_title(wrapped(ax, heading), fontweight="normal", parse_math=False)
    mapped = ScalarMappable(Normalize(-1, 1), HEATMAP)
    figure.colorbar(mapped, ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.02, label=what)
    return figure


def hero(sample: Sample, without: np.ndarray, heat: np.ndarray, said: tuple[str, str, str], n: int) -> Figure:
    """A picture, the same without its object, and where the concept's `n` best neurons answer in it (rows, columns).

    `said` are the model's captions: of the picture, of the one without the object, of the picture under noise on them.
    """
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.1))
    headings = ("what the model sees", f"the {sample.concept} taken out", "where neurons answer")
    notes = ("it says", "it says", f"with noise on {n} of them")
    picture(axes[0], sample.image)
    picture(axes[1], without)
    heatmap(axes[2], sample.image, heat, mask=sample.mask)
    for ax, heading, note, caption in zip(axes, headings, notes, said, strict=True):
        ax.set_title(heading, fontsize=10, fontweight="bold", parse_math=False)
        words = textwrap.fill(f"“{caption}”" if caption else "(nothing)", 24)
        ax.set_xlabel(f"{note}\n{words}", loc="left", parse_math=False)
    return figure


def data_address(image: np.ndarray, side: int = 256) -> str:
    """A picture (h, w, 3) uint8 as an address that holds it: WebP of at most `side` pixels a side."""
    small, file = Image.fromarray(image), io.BytesIO()
    small.thumbnail((side, side))
    small.save(file, "WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
