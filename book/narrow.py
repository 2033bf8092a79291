"""A figure drawn again for a telephone: panels below one another, the legend under them, words broken to fit."""

from __future__ import annotations

import textwrap
from copy import deepcopy
from itertools import pairwise

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryFormatter
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FixedFormatter, FuncFormatter

from kn_core.drawing import SPANNING, figure_of

WIDTH = 3.75  # inches: 360 px
TITLE, TEXT = 10.0, 9.0  # points
FEW = 6  # columns of cells that two panels have room for side by side
LINE = 0.14  # inches of a row's name


def narrow(figure: Figure) -> Figure:
    """A copy of a figure that was not saved yet, `WIDTH` wide.

    Pictures, and maps of `FEW` columns, stay side by side; other panels are stacked.
    """
    copy = deepcopy(figure)
    plt.close(copy)  # else it would be shown too
    wide, tall = copy.get_size_inches()
    panels = [ax for ax in copy.axes if ax.get_visible() and ax.get_subplotspec() is not None]
    panels = [ax for ax in panels if ax.get_label() != "<colorbar>"]
    beside = max((ax.get_subplotspec().get_gridspec().ncols for ax in panels), default=1)  # type: ignore[union-attr]
    of_pictures = any(ax.images for ax in panels)
    if beside > 1 and not of_pictures:
        cells = [len(ax.get_xticks()) for ax in panels for drawn in ax.collections if isinstance(drawn, QuadMesh)]
        of_few = 0 < max(cells, default=0) <= FEW
        _stack(copy, panels, tall, 2 if of_few else 1)
        beside = 4 if of_few else 1  # names of rows and the colours' scale take as much room as two panels
    elif of_pictures:
        copy.set_size_inches(WIDTH, tall * WIDTH / wide)
    else:
        copy.set_size_inches(WIDTH, tall)
    missing = sum(_reword(ax, beside) for ax in panels)
    if not of_pictures:
        copy.set_figheight(copy.get_figheight() + missing)
    else:  # whose words take more lines than they did
        lines: dict[int, int] = {}
        for ax in panels:
            row = ax.get_subplotspec().rowspan.start  # type: ignore[union-attr]
            said = ax.get_title(loc="left"), ax.get_title(loc="center"), ax.get_xlabel()
            lines[row] = max(lines.get(row, 0), sum(1 + text.count("\n") for text in said if text))
        copy.set_figheight(copy.get_figheight() + 0.1 * sum(lines.values()))
    if copy._suptitle is not None:  # type: ignore[attr-defined]
        copy._suptitle.set_text(_broken(copy._suptitle.get_text(), WIDTH, TITLE, 0.6))  # type: ignore[attr-defined]
        copy._suptitle.set_fontsize(TITLE)  # type: ignore[attr-defined]
    for legend in copy.legends:
        _relegend(legend)
    return copy


def _stack(figure: Figure, panels: list[Axes], tall: float, beside: int) -> None:
    """So many panels a row, each as tall as its row was (or half), with the labels that its neighbours had for it."""
    rows = max(ax.get_subplotspec().get_gridspec().nrows for ax in panels)  # type: ignore[union-attr]
    grid = figure.add_gridspec(-(-len(panels) // beside), beside)
    for place, ax in enumerate(panels):
        ax.set_subplotspec(grid[divmod(place, beside)])
        ax.tick_params(labelleft=place % beside == 0, labelbottom=True)
    named = [ax for ax in panels if ax.get_xlabel()]
    if beside == 1 and len(named) == 1 and named[0] is not panels[-1]:  # the name of all panels' axis
        panels[-1].set_xlabel(named[0].get_xlabel())
        named[0].set_xlabel("")
    each = 0.4 + (tall - 0.9) / rows / beside
    figure.set_size_inches(WIDTH, grid.nrows * each + 0.9)


def _reword(ax: Axes, beside: int) -> float:
    """Words of one panel broken to fit; how many inches its rows' names want that it lacks."""
    room = WIDTH / beside
    for heading in ax.texts:
        if heading.get_gid() == SPANNING:
            heading.set_text(_broken(heading.get_text(), WIDTH, TEXT, 0.62))
            ax.set_title("\n" * heading.get_text().count("\n") + " ", loc="left")
    for where in ("left", "center", "right"):
        if text := ax.get_title(loc=where):
            old = {"left": ax._left_title, "center": ax.title, "right": ax._right_title}[where]  # type: ignore[attr-defined]
            size = min(TITLE if beside == 1 else 8.0, old.get_fontsize())
            old.set_fontsize(size)
            if text.strip():
                old.set_text(_broken(text, room, size, 0.62 if old.get_fontweight() == "bold" else 0.56))
    for label in (ax.xaxis.label, ax.yaxis.label):
        if text := label.get_text():
            size = min(TEXT if beside == 1 else 8.0, float(label.get_fontsize()))
            label.set_fontsize(size)
            tall = ax.get_position().height * float(figure_of(ax).get_figheight())
            length = room if label is ax.xaxis.label else max(1.6, tall)
            label.set_text(_broken(text, length, size, 0.52 if "$" not in text else 0.42))
    if legend := ax.get_legend():
        _relegend(legend)
    return _ticks(ax)


def _ticks(ax: Axes) -> float:
    """Long names of rows in lines of some 20 letters, of columns upright; half of numbers that would touch."""
    names = [label.get_text() for label in ax.get_yticklabels()] if _named(ax.yaxis) else []
    if any(len(name) > 17 for name in names) and ax.yaxis.get_visible():
        names = [textwrap.fill(name, 20) for name in names]
        ax.set_yticks(ax.get_yticks(), names)
    ax.tick_params(labelsize=8)
    across = [label.get_text() for label in ax.get_xticklabels()]
    if sum(map(len, across)) > 34 and len(across) > 5:
        if _named(ax.xaxis) and any(name[:1].isalpha() for name in across):
            ax.set_xticks(ax.get_xticks(), across, rotation=90, ha="center")
        elif ax.get_xscale() == "linear":
            ax.set_xticks(ax.get_xticks()[::2], across[::2])
    lines = [1 + name.count("\n") for name in names]
    if max(lines, default=1) == 1:
        return 0.0
    apart = max((one + other) / 2 for one, other in pairwise([*lines, 1]))
    tall = ax.get_position().height * float(figure_of(ax).get_figheight())
    return max(0.0, LINE * apart * len(lines) - tall)


def _named(axis: Axis) -> bool:
    """Whether its ticks were given in words, and are no numbers that matplotlib writes (powers of ten as formulas)."""
    return isinstance(axis.get_major_formatter(), (FixedFormatter, FuncFormatter, StrCategoryFormatter))


def _relegend(legend: Legend) -> None:
    """As many columns as there is room for: matplotlib lays a legend out as it makes it, and not again."""
    entries, heading = [text.get_text() for text in legend.get_texts()], legend.get_title().get_text()
    longest = max(map(len, entries), default=1)
    legend.set_ncols(max(1, min(len(entries), int(WIDTH * 72 / (8 * (0.56 * longest + 4))))))
    legend.prop.set_size(8)
    legend._fontsize = 8  # type: ignore[attr-defined]
    legend._init_legend_box(list(legend.legend_handles), entries)  # type: ignore[attr-defined]
    legend._legend_box.set_offset(legend._findoffset)  # type: ignore[attr-defined]
    if heading:
        legend.set_title(heading)


def _broken(text: str, inches: float, points: float, em: float) -> str:
    return textwrap.fill(" ".join(text.split()), max(12, int(inches * 72 / (em * points))))
