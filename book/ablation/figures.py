"""Thresholds over a grid, stages on and off. Frames are those of `kn_core.plateau` and `kn_core.sensitivity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from book.ablation.thresholds import STAGES, position
from book.claims.evidence import PAPER_A, PAPER_G
from book.style import axes_of, method_colour
from kn_core.drawing import CARD, HEAT, INK, WIDTH, title
from kn_core.study.experiments.thresholds import ARMS, BUDGET, OWN

METRICS = axes_of("suppression", "retention")
FLUENT = axes_of("suppression", "retention", "fluent")
MARKERS = dict(zip(ARMS, "sv^o", strict=True))
OURS = method_colour("two-stage")
AXES = {
    "quantile": ("quantile of the activation difference", "quantile of the gradient score"),
    "raw": ("threshold of the activation difference $\\theta_a$", "threshold of the gradient score $\\theta_g$"),
}


def heatmaps(region: pd.DataFrame, own: pd.DataFrame) -> Figure:
    """A grid of `plateau.plateau`: suppression above, retention below, with the number of neurons in each cell.

    The plateau is outlined, our thresholds (`plateau.placed`) are circles, and on a raw grid brackets show the paper's
    range.
    """
    scale, steps = region["scale"].iloc[0], _steps(region)
    height = 1.6 + 2 * 0.5 * len(steps[1])
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, height), sharex=True, sharey=True)
    for ax, (metric, words) in zip(axes, METRICS.items(), strict=True):
        _cells(ax, region, metric, steps, written=True)
        _own(ax, own)
        if scale == "raw":
            _paper(ax, steps)
        ax.set_title(words, fontsize=10, fontweight="normal", pad=12 if scale == "raw" else 6)
        ax.set_xticks(range(len(steps[0])), _ticks(region, "a"), fontsize=8)
        ax.set_yticks(range(len(steps[1])), _ticks(region, "g"), fontsize=8)
    axes[1].set_xlabel(AXES[scale][0])
    figure.supylabel(AXES[scale][1], fontsize=10)
    _bar(figure, axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    title(figure, _finding(region, own))
    return figure


def by_concept(regions: Mapping[str, pd.DataFrame], own: pd.DataFrame) -> Figure:
    """The same, small: suppression and retention of each concept side by side, its own plateau, its own thresholds.

    `regions[concept]` is its grid of `plateau.plateau`, `own` has a row for each.
    """
    steps = _steps(next(iter(regions.values())))
    rows = -(-len(regions) // 3)
    shown = min(3, len(regions))
    size = (WIDTH, 1.5 + max(1.3 * rows, 1.9))
    figure, axes = plt.subplots(rows, 2 * shown, figsize=size, sharex=True, sharey=True, squeeze=False)
    pairs = axes.reshape(rows * shown, 2)
    for (concept, region), pair in zip(regions.items(), pairs, strict=False):
        for ax, metric in zip(pair, METRICS, strict=True):
            _cells(ax, region, metric, steps, written=False)
            _own(ax, own[own["concept"] == concept])
            ax.set_xticks([0, len(steps[0]) - 1], [f"{step:g}" for step in (steps[0][0], steps[0][-1])], fontsize=8)
            ax.set_yticks([0, len(steps[1]) - 1], [f"{step:g}" for step in (steps[1][0], steps[1][-1])], fontsize=8)
        pair[0].set_title(f"{concept}\n$S_{{se}}$", fontsize=9)
        pair[1].set_title("$S_{re}$", fontsize=9)
    for ax in pairs[len(regions) :].ravel():
        ax.set_axis_off()
    scale = next(iter(regions.values()))["scale"].iloc[0]
    figure.supxlabel(AXES[scale][0], fontsize=10)
    figure.supylabel(AXES[scale][1], fontsize=10)
    _bar(figure, axes)
    inside = int(own["plateau"].sum())
    title(figure, f"Our thresholds lie on their own concept’s plateau in {inside} of {len(own)} concepts")
    return figure


def stages(effects: pd.DataFrame) -> Figure:
    """The 2 x 2 of `sensitivity.effects`, with 95 % intervals: above as many neurons each, below own thresholds."""
    tried = {at: set(effects[effects["at"] == at]["method"]) for at in (BUDGET, OWN)}
    rows = {at: [arm for arm in ARMS[::-1] if arm in arms] for at, arms in tried.items()}
    heights = [len(arms) for arms in rows.values()]
    size = (WIDTH, 1.5 + 0.36 * sum(heights))
    figure, axes = plt.subplots(2, 3, figsize=size, sharex=True, sharey="row", height_ratios=heights)
    for (at, arms), line in zip(rows.items(), axes, strict=True):
        of_at = effects[effects["at"] == at]
        neurons = of_at.groupby("method")["neurons"].first()
        for ax, metric in zip(line, FLUENT, strict=True):
            found = of_at[of_at["metric"] == metric].set_index("method").reindex(arms)
            for place, (arm, row) in enumerate(found.iterrows()):
                colour = method_colour(str(arm))
                ax.hlines(place, row["low"], row["high"], color=colour, linewidth=2, alpha=0.55)
                ax.plot(row["value"], place, MARKERS[str(arm)], color=colour, markersize=5.5)
            ax.set(xlim=(-0.05, 1.05), ylim=(-0.6, len(arms) - 0.4))
            ax.xaxis.set_major_formatter(PercentFormatter(1))
            ax.tick_params(axis="x", labelsize=8)
            ax.grid(visible=True, axis="x")
            ax.grid(visible=False, axis="y")
        names = [f"{STAGES[arm]}\n{neurons[arm]:,.0f} neurons" for arm in arms]
        line[0].set_yticks(range(len(arms)), names, fontsize=8)
        line[0].set_title(f"With {at}", fontsize=10, pad=20 if at == BUDGET else 6)
    for ax, words in zip(axes[0], FLUENT.values(), strict=True):
        ax.annotate(words, (0.5, 1), (0, 5), "axes fraction", "offset points", ha="center", fontsize=9)
    title(figure, _stages_finding(effects))
    return figure


def _stages_finding(effects: pd.DataFrame) -> str:
    """What the second stage does to the first's captions, at the same number of neurons."""
    at = effects[effects["at"] == BUDGET].set_index(["method", "metric"])["value"]
    moves = []
    for metric in METRICS:
        before, after = at["stage-1", metric], at["two-stage", metric]
        moves.append(f"{metric} from {before:.0%} to {after:.0%}")
    return f"With as many neurons, adding stage 2 to stage 1 takes {' and '.join(moves)}"


def _finding(region: pd.DataFrame, own: pd.DataFrame) -> str:
    if not region["best"].any():
        return "No cell suppresses and retains at once"
    best, near = region[region["best"]].iloc[0], int(region["plateau"].sum())
    found = f"The best cell suppresses {best['suppression']:.0%} and retains {best['retention']:.0%}"
    ours = f"{own['plateau'].sum()} of {len(own)} concepts"
    return f"{found}; {near} of {len(region)} cells are on its plateau, and our thresholds of {ours}"


def _steps(region: pd.DataFrame) -> tuple[list[float], list[float]]:
    return sorted(region["a"].unique()), sorted(region["g"].unique())


def _ticks(region: pd.DataFrame, axis: str) -> list[str]:
    """Each step, and below it what it is on the other scale, mean over concepts."""
    raw = region["scale"].iloc[0] == "raw"
    other = region.groupby(axis)[f"quantile_{axis}" if raw else f"threshold_{axis}"].mean()
    return [f"{step:g}\n(q {at:.3f})" if raw else f"{step:g}\n({at:.2g})" for step, at in other.items()]


def _cells(ax: Axes, region: pd.DataFrame, metric: str, steps: tuple[list[float], list[float]], written: bool) -> None:
    """One metric over the grid, from 0 to 1; cells without neurons are blank. The plateau's border is drawn."""
    wide = region.pivot_table(index="g", columns="a", values=metric, dropna=False)
    ax.imshow(wide, cmap=HEAT, vmin=0, vmax=1, origin="lower", aspect="auto", interpolation="nearest")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    near = region.pivot_table(index="g", columns="a", values="plateau", aggfunc="first").to_numpy(bool)
    padded = np.pad(near, 1)
    for y, x in np.ndindex(padded.shape[0] - 1, padded.shape[1] - 1):  # borders, where a cell and its neighbour differ
        if padded[y, x + 1] != padded[y + 1, x + 1] and x < near.shape[1]:
            ax.plot([x - 0.5, x + 0.5], [y - 0.5] * 2, color=OURS, linewidth=2.5, clip_on=False, zorder=3)
        if padded[y + 1, x] != padded[y + 1, x + 1] and y < near.shape[0]:
            ax.plot([x - 0.5] * 2, [y - 0.5, y + 0.5], color=OURS, linewidth=2.5, clip_on=False, zorder=3)
    if written:
        for row in region.to_dict("records"):
            x, y = steps[0].index(row["a"]), steps[1].index(row["g"])
            value = "–" if np.isnan(row[metric]) else f"{row[metric]:.0%}"
            ink = INK if np.isnan(row[metric]) or row[metric] > 0.6 else CARD
            for height, words in ((y + 0.29, value), (y - 0.31, f"n = {row['n_neurons']:,.0f}")):  # room for a circle
                ax.text(x, height, words, ha="center", va="center", fontsize=8, color=ink)


def _own(ax: Axes, own: pd.DataFrame) -> None:
    """Our thresholds as circles; those beyond the grid stand at its edge."""
    ends = [(-0.5, float(np.ptp(limits)) - 0.5) for limits in (ax.get_xlim(), ax.get_ylim())]
    x, y = (own[axis].clip(*limits) for axis, limits in zip("xy", ends, strict=True))
    halo = [withStroke(linewidth=3, foreground=CARD)]
    style: Any = {"edgecolors": INK, "linewidths": 1.3, "path_effects": halo, "clip_on": False, "zorder": 4}
    ax.scatter(x, y, 34, "none", label="our thresholds", **style)


def _paper(ax: Axes, steps: tuple[Sequence[float], Sequence[float]]) -> None:
    """Brackets above and to the right of a raw grid, over the paper's thresholds."""
    (left, right), (low, high) = (
        [position(of_axis, end, "raw") for end in ends] for of_axis, ends in zip(steps, (PAPER_A, PAPER_G), strict=True)
    )
    style: Any = {"color": INK, "linewidth": 2.2, "clip_on": False, "solid_capstyle": "butt", "markersize": 6}
    ax.plot(
        [left, right], [1.035] * 2, transform=ax.get_xaxis_transform(), **style, marker="|", label="the paper's range"
    )
    ax.plot([1.012] * 2, [low, high], transform=ax.get_yaxis_transform(), **style, marker="_")


def _bar(figure: Figure, axes: np.ndarray) -> None:
    shade = ScalarMappable(Normalize(0, 1), HEAT)
    figure.colorbar(shade, ax=axes, format=PercentFormatter(1), shrink=0.7, aspect=30, pad=0.03)
