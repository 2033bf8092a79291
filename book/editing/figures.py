"""Success against locality of every edit, and the matrix of all pairs."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book.editing.readings import AIMS, BY, EDITORS
from kn_core.drawing import FAINT, INK, WIDTH, title

COLOURS = {
    "driven": "#332288",
    "swap": "#0072b2",
    "ridge": "#d55e00",
    "unembedding": "#009e73",
    "dai": "#56b4e9",
    "fine": "#cc79a7",
}
MARKERS = ("o", "x", "s", "D", "^", "v")  # by set of neurons


def plane(found: pd.DataFrame) -> Figure:
    """`readings.means`: renamed across, others unchanged up, doses of one edit joined, aims dotted."""
    wide = found.pivot_table("value", BY, "metric").reset_index()
    figure, ax = plt.subplots(figsize=(WIDTH, 3.8))
    sets = list(dict.fromkeys(found["neurons"]))
    for (editor, which), rows in wide.groupby(["editor", "neurons"], sort=False):
        editor, rows, marker = str(editor), rows.sort_values("generality"), MARKERS[sets.index(which) % len(MARKERS)]
        ax.plot(rows["generality"], rows["locality"], color=COLOURS[editor], lw=1, alpha=0.6)
        ax.scatter(rows["generality"], rows["locality"], 34, COLOURS[editor], marker=marker, zorder=3)
    for editor in dict.fromkeys(found["editor"]):
        ax.plot([], [], color=COLOURS[editor], label=EDITORS[editor])
    for which in sets:
        ax.scatter([], [], 34, INK, marker=MARKERS[sets.index(which) % len(MARKERS)], label=which)
    ax.axvline(AIMS["generality"], color=FAINT, ls=":", lw=1)
    ax.axhline(AIMS["locality"], color=FAINT, ls=":", lw=1)
    ax.set(
        xlim=(-0.04, 1.04),
        ylim=(-0.04, 1.06),
        xlabel="held-out captions with the new name",
        ylabel="others’ captions unchanged",
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside lower center", ncols=4)
    there = wide[(wide["generality"] >= AIMS["generality"]) & (wide["locality"] >= AIMS["locality"])]
    title(ax, f"{len(there)} of {len(wide)} edits rename and leave alone as far as was aimed for")
    return figure


def matrix(wide: pd.DataFrame) -> Figure:
    """`readings.matrix` as cells."""
    figure, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.42 * len(wide)))
    ax.imshow(np.ma.masked_invalid(wide.to_numpy(float)), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(wide.to_numpy(float)):
        if not np.isnan(value):
            ink = "white" if value < 0.6 else "black"  # the cell's, whatever the page's
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
    ax.set_xticks(range(len(wide.columns)), wide.columns, rotation=45, ha="right")
    ax.set_yticks(range(len(wide)), wide.index)
    ax.set(xlabel="new name", ylabel="edited concept")
    ax.grid(visible=False)
    shares = wide.to_numpy(float)
    shares = shares[~np.isnan(shares)]
    most, none = int((shares > 0.5).sum()), int((shares == 0).sum())
    title(ax, f"Of {len(shares)} pairs, {most} rename more than half of the held-out captions and {none} rename none")
    return figure
