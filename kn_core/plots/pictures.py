"""Pictures: what the model sees, where the object is, what is left without it, and where neurons answer."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from kn_core.plots.style import INK, MASK, METHODS, SIGNED, WIDTH, figure_of, title
from kn_core.sample import Sample
from kn_core.stats import cluster_interval

GRAY = np.array([0.299, 0.587, 0.114])  # luma of R, G, B (ITU-R BT.601)


def _signed() -> ListedColormap:
    """Two-sided, and the more transparent the nearer to zero: where neurons say nothing the picture shows through."""
    colours = colormaps[SIGNED](np.linspace(0, 1, 256))
    colours[:, 3] = np.minimum(1, 1.6 * np.abs(np.linspace(-1, 1, 256)))
    return ListedColormap(colours, "signed")


HEATMAP = _signed()


def picture(ax: Axes, image: np.ndarray, said: str = "", mask: np.ndarray | None = None) -> Axes:
    """A picture (h, w, 3) with what is said of it below, and the outline of `mask` (h, w) where there is one."""
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
    if mask is not None:
        outline(ax, mask)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    if said:
        ax.set_xlabel(_broken(ax, said), loc="left", parse_math=False)
    return ax


def outline(ax: Axes, mask: np.ndarray, colour: str = MASK) -> Axes:
    """The border of a mask (h, w), white under colour, so that it shows on any picture."""
    height, width = mask.shape
    closed = np.pad(mask, 1).astype(float)  # else it would stay open where the object leaves the frame
    x, y = np.arange(-1, width + 1) + 0.5, np.arange(-1, height + 1) + 0.5
    for line, thickness in (("white", 2.4), (colour, 1.2)):
        ax.contour(x, y, closed, levels=[0.5], colors=[line], linewidths=[thickness])
    ax.set(xlim=(0, width), ylim=(height, 0))
    return ax


def heatmap(
    ax: Axes, image: np.ndarray, values: np.ndarray, limit: float | None = None, mask: np.ndarray | None = None
) -> Axes:
    """A map (rows, columns) over the picture (h, w, 3): a cell an image token, where and as large as the model sees it.

    `limit` is the value of full colour, by default the map's largest. The picture is grey: colour belongs to the map.
    """
    height, width = image.shape[:2]
    limit = limit or float(np.abs(values).max()) or 1.0
    picture(ax, np.repeat((160 + 0.35 * (image @ GRAY))[..., None], 3, axis=2).astype(np.uint8))
    extent = (0, width, height, 0)
    ax.imshow(values, cmap=HEATMAP, norm=Normalize(-limit, limit), extent=extent, interpolation="nearest")
    return ax if mask is None else outline(ax, mask, INK)


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
        ax.set_title(_broken(ax, heading), fontweight="normal", parse_math=False)
    mapped = ScalarMappable(Normalize(-1, 1), HEATMAP)
    figure.colorbar(mapped, ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.02, label=what)
    return figure


def localisation(found: pd.DataFrame, names: Mapping[str, str], ax: Axes) -> Axes:
    """How much of each map lies on the object (`heatmaps.localisation`), mean over pictures, 95 % intervals.

    Dashed is the object's share of the picture: what a map has that knows nothing. `names` says which maps are drawn,
    and puts them in words.
    """
    area = found.drop_duplicates(["concept", "image_id"])["area"].mean()
    for place, name in enumerate(names):
        rows = found[found["map"] == name]
        low, high = cluster_interval([group.to_numpy() for _, group in rows.groupby("concept")["inside"]])
        mean = rows.groupby("concept")["inside"].mean().mean()
        ax.plot([100 * low, 100 * high], [place, place], color=INK, linewidth=1.2)
        ax.plot(100 * mean, place, "o", color=METHODS["random" if name.startswith("random") else "two-stage"])
    ax.axvline(100 * area, color=METHODS["uniform"], linestyle="--", linewidth=1.2)
    ax.text(100 * area, -0.62, " the object’s share of the picture", va="center", color=METHODS["uniform"])
    ax.set_yticks(range(len(names)), list(names.values()))
    ax.set(
        xlabel="share of the map’s positive part that lies on the object (%)",
        xlim=(0, None),
        ylim=(len(names) - 0.5, -0.9),
    )
    ax.grid(axis="x")
    by = found.groupby(["map", "concept"])["inside"].mean().groupby("map").mean()
    kept, dropped = f"{by['kept']:.0%} of what kept neurons answer", f"{by['dropped']:.0%} of what dropped ones do"
    title(ax, f"{kept} lies on the object, and {dropped}")
    return ax


def _broken(ax: Axes, text: str) -> str:
    """The text in lines as wide as the axes."""
    spec = ax.get_subplotspec()
    inches = figure_of(ax).get_figwidth() / (spec.get_gridspec().ncols if spec else 1)
    return textwrap.fill(text, max(10, int(inches * 72 / (0.56 * 10))))
