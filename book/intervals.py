"""Values with their 95 % intervals, a row each: how most figures compare methods, settings and concepts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from book.style import label
from kn_core.drawing import CARD, INK

REFERENCES = {"removal": "--", "chance": ":"}  # what lies between them is a method's doing


def rows_of_shares(ax: Axes, names: Sequence[str], heading: str = "") -> Axes:
    """Axes with a named row for each of `names`, the first at the bottom, and shares from 0 to 1 across."""
    ax.set(xlim=(-0.04, 1.04), ylim=(-0.6, len(names) - 0.4))
    ax.set_yticks(range(len(names)), names)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
    ax.set_title(heading, fontsize=10, fontweight="normal")
    return ax


def dots(
    ax: Axes,
    found: pd.DataFrame,
    order: Sequence[str],
    colours: str | Sequence[str],
    *,
    marker: str = "o",
    shift: float = 0.0,
    hollow: bool = False,
    said: str | None = None,
) -> Axes:
    """A dot and its interval on each row, `shift` above its middle; `said` is what the legend calls them.

    `found` has the columns value, low, high and what `order` names as its index; a row that it lacks stays empty.
    `colours` is one for all, or one a row.
    """
    rows, y = found.reindex(list(order)), np.arange(len(order)) + shift
    ax.hlines(y, rows["low"], rows["high"], colors=colours, linewidth=2, alpha=0.55, zorder=2)
    face = CARD if hollow else colours
    ax.scatter(rows["value"], y, 26, face, marker=marker, edgecolors=colours, zorder=3, label=said)
    return ax


def reference_lines(
    ax: Axes, bounds: pd.DataFrame | None, metric: str, *, upright: bool = False, said: bool = True
) -> None:
    """Thin lines where removal of the object itself and another concept's caption have a metric (`references.bounds`).

    `upright`: shares run across. `said`: the legend names them.
    """
    if bounds is None:
        return
    for method, style in REFERENCES.items():
        for value in bounds[(bounds["method"] == method) & (bounds["metric"] == metric)]["value"]:
            drawn = ax.axvline if upright else ax.axhline
            drawn(value, color=INK, linewidth=0.8, linestyle=style, zorder=1, label=label(method) if said else "_")
