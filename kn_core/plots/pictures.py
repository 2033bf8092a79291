"""Pictures: what the model sees, where the object is, what is left without it, and where neurons answer."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from kn_core.plots.style import MASK, SIGNED, WIDTH
from kn_core.sample import Sample

GRAY = np.array([0.299, 0.587, 0.114])  # luma of R, G, B (ITU-R BT.601)


def _signed() -> ListedColormap:
    """Two-sided, and the more transparent the nearer to zero: where neurons say nothing the picture shows through."""
    colours = colormaps[SIGNED](np.linspace(0, 1, 256))
    colours[:, 3] = np.minimum(1, 1.6 * np.abs(np.linspace(-1, 1, 256)))
    return ListedColormap(colours, "signed")


HEATMAP = _signed()


def picture(ax: Axes, image: np.ndarray, said: str = "", mask: np.ndarray | None = None, heading: str = "") -> Axes:
    """A picture (h, w, 3) with what is said of it below, and the outline of `mask` (h, w) where there is one."""
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
    if mask is not None:
        outline(ax, mask)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    if heading:
        ax.set_title(_broken(ax, heading), fontsize=10, fontweight="normal", parse_math=False)
    if said:
        ax.set_xlabel(_broken(ax, said), loc="left", parse_math=False)
    return ax


def outline(ax: Axes, mask: np.ndarray) -> Axes:
    """The border of a mask (h, w), white under colour, so that it shows on any picture."""
    height, width = mask.shape
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    for colour, thickness in (("white", 2.6), (MASK, 1.3)):
        ax.contour(x, y, mask.astype(float), levels=[0.5], colors=[colour], linewidths=[thickness])
    return ax


def heatmap(
    ax: Axes, image: np.ndarray, values: np.ndarray, limit: float | None = None, mask: np.ndarray | None = None
) -> Axes:
    """A map (rows, columns) over the picture (h, w, 3): every image token a cell of its own, where and as large as the model sees it.

    `limit` is the value of full colour, by default the map's largest. The picture is grey: colour belongs to the map.
    """
    height, width = image.shape[:2]
    limit = limit or float(np.abs(values).max()) or 1.0
    picture(ax, np.repeat((160 + 0.35 * (image @ GRAY))[..., None], 3, axis=2).astype(np.uint8))
    extent = (0, width, height, 0)
    ax.imshow(values, cmap=HEATMAP, norm=Normalize(-limit, limit), extent=extent, interpolation="nearest")
    return ax if mask is None else outline(ax, mask)


def scale(figure: Figure, axes: Sequence[Axes], limit: float, what: str) -> None:
    """The colour scale of heatmaps that share a limit, below them."""
    mapped = ScalarMappable(Normalize(-limit, limit), HEATMAP)
    figure.colorbar(mapped, ax=axes, location="bottom", shrink=0.6, aspect=40, label=what, pad=0.02)


def examples(rows: Sequence[tuple[Sample, np.ndarray, str, str, str]]) -> Figure:
    """A row a pair: the picture, its object outlined, the picture without it, and what the model says of both.

    `rows` holds (sample, inpainted picture, caption, caption without the object, heading).
    """
    shapes = [sample.mask.shape for sample, *_ in rows]
    tall = [WIDTH / 3 * height / width + 0.95 for height, width in shapes]
    figure, axes = plt.subplots(len(rows), 3, figsize=(WIDTH, sum(tall)), squeeze=False, height_ratios=tall)
    for (left, middle, right), (sample, inpainted, caption, without, heading) in zip(axes, rows, strict=True):
        picture(left, sample.image, f"“{caption}”" if caption else "", heading=heading)
        picture(middle, sample.image, f"{sample.area_fraction:.0%} of the frame", sample.mask)
        picture(right, inpainted, f"“{without}”" if without else "")
    for ax, heading in zip(axes[0], ("", "where the object is", "without the object"), strict=True):
        if heading:
            ax.set_title(heading, fontsize=10, fontweight="normal")
    return figure


def gallery(
    pictures: Sequence[tuple[Sample, Sequence[np.ndarray]]], headings: Sequence[str], what: str, across: int = 1
) -> Figure:
    """Pictures with their maps beside them: `across` times (the picture, a map under each of `headings`) a row.

    One colour scale for the maps of a picture would hide weak ones, one a map would flatter them: it is one a picture.
    """
    panels = 1 + len(headings)
    n_rows = -(-len(pictures) // across)
    size = WIDTH / (panels * across)
    figure, axes = plt.subplots(n_rows, panels * across, figsize=(WIDTH, n_rows * (size + 0.1) + 1.0), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for place, (sample, maps) in enumerate(pictures):
        row = axes[place // across, panels * (place % across) :][:panels]
        limit = max(float(np.abs(values).max()) for values in maps)
        picture(row[0], sample.image, mask=sample.mask)
        for ax, values in zip(row[1:], maps, strict=True):
            heatmap(ax, sample.image, values, limit, sample.mask)
    for place in range(min(across, len(pictures))):
        for ax, heading in zip(axes[0, panels * place :], ("", *headings), strict=False):
            ax.set_title(_broken(ax, heading), fontsize=10, fontweight="normal", parse_math=False)
    scale(figure, axes.ravel().tolist(), 1, what)
    return figure


def _broken(ax: Axes, text: str) -> str:
    """The text in lines as wide as the axes."""
    figure, spec = ax.get_figure(root=True), ax.get_subplotspec()
    assert isinstance(figure, Figure)
    inches = figure.get_figwidth() / (spec.get_gridspec().ncols if spec else 1)
    return textwrap.fill(text, max(10, int(inches * 72 / (0.56 * 10))))
