"""What every figure shares: the theme, a title that states a finding, a picture, its mask and a map over it."""

from __future__ import annotations

import textwrap
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

WIDTH = 7.0  # inches: 672 px, the book's column; a telephone gets a drawing of its own (`book.narrow`)
SPANNING = "spanning"  # the id of a text of a panel that is as wide as the figure
INK, FAINT, CARD = "#222222", "#8c8c8c", "#ffffff"  # text, what a finding is compared with, the card of a figure
MASK, HALO = "#d55e00", "#fefefe"  # outlines of masks, on any picture; white that stays so where the card is dark
HEAT, SIGNED = "magma", "RdBu_r"  # sequential and two-sided maps; both keep their order for colour-blind readers


RC: Any = {  # matplotlib types its settings one by one
    "figure.figsize": (WIDTH, 3.6),
    "figure.dpi": 150,
    "figure.facecolor": CARD,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": CARD,
    "savefig.dpi": 200,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b0b0b0",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.hashsalt": "kn_core",  # the same bytes on every run
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "pdf.fonttype": 42,  # and in papers
}


def theme() -> AbstractContextManager[None]:
    """The book's look, within a block."""
    return mpl.rc_context(RC)


def set_theme() -> None:
    """The book's look, from here on."""
    mpl.rcParams.update(RC)


def figure_of(ax: Axes) -> Figure:
    """The figure that axes lie on."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def title(where: Axes | Figure, finding: str) -> None:
    """Set a finding above axes or a whole figure, flush left, broken before it runs past the right edge."""
    if isinstance(where, Figure):
        where.suptitle(_broken(finding, where.get_figwidth()), x=0.01, ha="left", parse_math=False)
        return
    spec = where.get_subplotspec()
    share = (spec.colspan.stop - spec.colspan.start) / spec.get_gridspec().ncols if spec else 1
    where.set_title(_broken(finding, 0.92 * share * figure_of(where).get_figwidth()), parse_math=False)


def _broken(text: str, inches: float) -> str:
    points = float(mpl.rcParams["axes.titlesize"])
    return textwrap.fill(text, max(12, int(inches * 72 / (0.63 * points))))  # 0.63: the bold font's mean width in ems


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
        ax.set_xlabel(wrapped(ax, said), loc="left", parse_math=False)
    return ax


def outline(ax: Axes, mask: np.ndarray, colour: str = MASK) -> Axes:
    """The border of a mask (h, w), white under colour, so that it shows on any picture."""
    height, width = mask.shape
    closed = np.pad(mask, 1).astype(float)  # else it would stay open where the object leaves the frame
    x, y = np.arange(-1, width + 1) + 0.5, np.arange(-1, height + 1) + 0.5
    for line, thickness in ((HALO, 2.4), (colour, 1.2)):
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
    return ax if mask is None else outline(ax, mask, "black")


def wrapped(ax: Axes, text: str) -> str:
    """The text in lines as wide as the axes."""
    spec = ax.get_subplotspec()
    inches = figure_of(ax).get_figwidth() / (spec.get_gridspec().ncols if spec else 1)
    return textwrap.fill(text, max(10, int(inches * 72 / (0.56 * 10))))
