"""Stages on and off (`stages.effects`), and thresholds over a grid (`grids.best_region`, `grids.placed`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from book.ablation.grids import position
from book.ablation.stages import STAGES
from book.claims.evidence import PAPER_A, PAPER_G
from book.intervals import dots, reference_lines, rows_of_shares
from book.perturbation.readings import READ_BY
from book.style import axes_of, method_colour
from kn_core.drawing import CARD, HEAT, INK, WIDTH, title
from kn_core.study.experiments.thresholds import ARMS, BUDGET, OWN

BOTH = axes_of("suppression", "retention")
AXES = {
    "quantile": ("quantile of the activation difference", "quantile of the gradient score"),
    "raw": ("threshold of the activation difference $\\theta_a$", "threshold of the gradient score $\\theta_g$"),
}


def stages(effects: pd.DataFrame, kept: str, bounds: pd.DataFrame | None = None) -> Figure:
    """The 2 x 2 of stages on and off, with 95 % intervals: above as many neurons each, below own thresholds.

    `kept` is the reading of S_re that is drawn, `bounds` (`stages.bounds`) are lines.
    """
    metrics = axes_of("suppression", kept, "fluent")
    tried = {at: effects[effects["at"] == at] for at in (BUDGET, OWN)}
    arms = {at: [arm for arm in ARMS[::-1] if arm in set(rows["method"])] for at, rows in tried.items()}
    heights = [len(shown) for shown in arms.values()]
    size = (WIDTH, 1.7 + 0.36 * sum(heights))
    figure, axes = plt.subplots(2, 3, figsize=size, sharex=True, sharey="row", height_ratios=heights)
    for (at, rows), line in zip(tried.items(), axes, strict=True):
        neurons = rows.groupby("method")["neurons"].first()
        names = [f"{STAGES[arm]}\n{neurons[arm]:,.0f} neurons" for arm in arms[at]]
        below = None if bounds is None else bounds[bounds["at"] == at]
        for ax, metric in zip(line, metrics, strict=True):
            rows_of_shares(ax, names).tick_params(axis="y", labelsize=8)
            reference_lines(ax, below, metric, upright=True, said=ax is axes[0, 0])
            found = rows[rows["metric"] == metric].set_index("method")
            dots(ax, found, arms[at], [method_colour(arm) for arm in arms[at]])
        line[0].set_title(f"With {at}", fontsize=10, pad=20)
    for ax, words in zip(axes.flat, [*metrics.values()] * 2, strict=True):  # a telephone has them one below the other
        ax.annotate(words, (0.5, 1), (0, 5), "axes fraction", "offset points", ha="center", fontsize=9)
    if bounds is not None and len(bounds):
        figure.legend(loc="outside lower center", ncols=2)
    title(figure, _stages_finding(effects, kept))
    return figure


def _stages_finding(effects: pd.DataFrame, kept: str) -> str:
    """What the second stage does to the first's captions, at the same number of neurons."""
    at = effects[effects["at"] == BUDGET].set_index(["method", "metric"])["value"]
    said = {"suppression": "suppression", kept: f"retention {READ_BY[kept]}"}
    moves = [f"{of} from {at['stage-1', name]:.0%} to {at['two-stage', name]:.0%}" for name, of in said.items()]
    return f"With as many neurons, adding stage 2 to stage 1 takes {' and '.join(moves)}"


def grid(region: pd.DataFrame, own: pd.DataFrame) -> Figure:
    """A grid of `best_region`: suppression above, retention below, with the number of neurons in each cell.

    The region around the best cell is outlined, our thresholds (`placed`) are circles, and on a raw grid brackets show
    the paper's range.
    """
    scale, steps = region["scale"].iloc[0], _steps(region)
    size = (WIDTH, 1.6 + 2 * 0.66 * len(steps[1]))
    figure, axes = plt.subplots(2, 1, figsize=size, sharex=True, sharey=True)
    for ax, (metric, words) in zip(axes, BOTH.items(), strict=True):
        _cells(ax, region, metric, written=True)
        _own(ax, own)
        if scale == "raw":
            _paper(ax, steps)
        ax.set_title(words, fontsize=10, fontweight="normal", pad=12 if scale == "raw" else 6)
        for axis, name in ((ax.xaxis, "a"), (ax.yaxis, "g")):
            ticks = _ticks(region, name)
            axis.set_ticks(np.arange(len(ticks)) + 0.5, ticks, fontsize=8, rotation=0)
    axes[1].set_xlabel(AXES[scale][0])
    _frame(figure, axes, scale)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    title(figure, _finding(region, own))
    return figure


def _finding(region: pd.DataFrame, own: pd.DataFrame) -> str:
    if not region["best"].any():
        return "No cell suppresses and retains at once"
    best, near = region[region["best"]].iloc[0], int(region["in_region"].sum())
    found = f"The best cell suppresses {best['suppression']:.0%} and retains {best['retention']:.0%}"
    ours = f"our thresholds of {own['in_region'].sum()} of {len(own)} concepts"
    return f"{found}; the region around it holds {near} of {len(region)} cells and {ours}"


def by_concept(regions: Mapping[str, pd.DataFrame], own: pd.DataFrame) -> Figure:
    """The same, small: suppression and retention of each concept side by side, its own region, its own thresholds.

    `regions[concept]` is its grid of `best_region`, `own` has a row for each.
    """
    first = next(iter(regions.values()))
    rows, shown = -(-len(regions) // 3), min(3, len(regions))
    size = (WIDTH, 1.5 + max(1.3 * rows, 1.9))
    figure, axes = plt.subplots(rows, 2 * shown, figsize=size, sharex=True, sharey=True, squeeze=False)
    pairs = axes.reshape(rows * shown, 2)
    for (concept, region), pair in zip(regions.items(), pairs, strict=False):
        for ax, metric in zip(pair, BOTH, strict=True):
            _cells(ax, region, metric)
            _own(ax, own[own["concept"] == concept])
            for axis, steps in zip((ax.xaxis, ax.yaxis), _steps(region), strict=True):
                ends = [f"{steps[0]:g}", f"{steps[-1]:g}"]
                axis.set_ticks([0.5, len(steps) - 0.5], ends, fontsize=8, rotation=0)
        pair[0].set_title(f"{concept}\nsuppression", fontsize=8)
        pair[1].set_title("retention", fontsize=8)
    for ax in pairs[len(regions) :].ravel():
        ax.set_axis_off()
    scale = first["scale"].iloc[0]
    figure.supxlabel(AXES[scale][0], fontsize=10)
    _frame(figure, axes, scale)
    ours = f"{own['in_region'].sum()} of {len(own)} concepts"
    title(figure, f"Our thresholds lie in the region around their own concept’s best cell in {ours}")
    return figure


def _steps(region: pd.DataFrame) -> tuple[list[float], list[float]]:
    return sorted(region["a"].unique()), sorted(region["g"].unique())


def _ticks(region: pd.DataFrame, axis: str) -> list[str]:
    """Each step, and below it what it is on the other scale, mean over concepts."""
    raw = region["scale"].iloc[0] == "raw"
    other = region.groupby(axis)[f"quantile_{axis}" if raw else f"threshold_{axis}"].mean()
    return [f"{step:g}\n(q {at:.3f})" if raw else f"{step:g}\n({at:.2g})" for step, at in other.items()]


def _cells(ax: Axes, region: pd.DataFrame, metric: str, written: bool = False) -> None:
    """One metric over the grid, from 0 to 1; cells without neurons are blank. The border of its region is drawn."""
    cells = region.assign(said=[_said(row, metric) for row in region.to_dict("records")])
    value, near, said = (
        cells.pivot_table(index="g", columns="a", values=of, aggfunc="first", dropna=False)
        for of in (metric, "in_region", "said")
    )
    style: Any = {"cmap": colormaps[HEAT].with_extremes(under=CARD), "cbar": False, "fmt": ""}
    style |= {"annot": said if written else None, "annot_kws": {"fontsize": 8, "linespacing": 1.4}}
    sns.heatmap(value.fillna(-1), vmin=0, vmax=1, ax=ax, rasterized=not written, **style)
    for text, share in zip(ax.texts, value.to_numpy().ravel(), strict=False):  # seaborn writes white on coral
        text.set_color("black" if np.isnan(share) or share > 0.6 else "white")
    ax.invert_yaxis()
    ax.set(xlabel="", ylabel="")
    edges = np.pad(near.to_numpy(bool), 1)
    lines = [((x - 1, y), (x, y)) for y, x in np.argwhere(np.diff(edges, axis=0))]
    lines += [((x, y - 1), (x, y)) for y, x in np.argwhere(np.diff(edges, axis=1))]
    border: Any = {"linewidths": 2.5, "capstyle": "projecting", "clip_on": False, "zorder": 3}
    ax.add_collection(LineCollection(lines, colors=method_colour("two-stage"), **border), autolim=False)


def _said(cell: Mapping[Any, Any], metric: str) -> str:
    """What is written in a cell, with room for a circle in between."""
    value = "–" if np.isnan(cell[metric]) else f"{cell[metric]:.0%}"
    return f"{value}\n\nn = {cell['n_neurons']:,.0f}"


def _own(ax: Axes, own: pd.DataFrame) -> None:
    """Our thresholds as circles; those beyond the grid stand at its edge."""
    x, y = ((own[axis] + 0.5).clip(*limits) for axis, limits in zip("xy", (ax.get_xlim(), ax.get_ylim()), strict=True))
    halo = [withStroke(linewidth=3, foreground=CARD)]
    style: Any = {"edgecolors": INK, "linewidths": 1.3, "path_effects": halo, "clip_on": False, "zorder": 4}
    ax.scatter(x, y, 34, "none", label="our thresholds", **style)


def _paper(ax: Axes, steps: tuple[Sequence[float], Sequence[float]]) -> None:
    """Brackets above and to the right of a raw grid, over the paper's thresholds."""
    across, up = (
        [position(of_axis, end, "raw") + 0.5 for end in ends]
        for of_axis, ends in zip(steps, (PAPER_A, PAPER_G), strict=True)
    )
    style: Any = {"color": INK, "linewidth": 2.2, "clip_on": False, "solid_capstyle": "butt", "markersize": 6}
    ax.plot(across, [1.035] * 2, marker="|", label="the paper's range", transform=ax.get_xaxis_transform(), **style)
    ax.plot([1.012] * 2, up, marker="_", transform=ax.get_yaxis_transform(), **style)


def _frame(figure: Figure, axes: np.ndarray, scale: str) -> None:
    """What is up, and the colours' scale, for all panels together."""
    figure.supylabel(AXES[scale][1], fontsize=10)
    shade = ScalarMappable(Normalize(0, 1), HEAT)
    figure.colorbar(shade, ax=axes, format=PercentFormatter(1), shrink=0.7, aspect=30, pad=0.03)
