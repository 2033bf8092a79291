"""Pictures through the constraints, neurons through the two stages. Frames are those of `filtering` and `stages`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import NullLocator

from book.style import by_concept, concept_colours, method_colour
from kn_core.drawing import figure_of, title

CARD_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
PAPER = "#f3e9c6"  # the band of the paper's thresholds


def funnel(attrition: pd.DataFrame, ax: Axes, names: Mapping[str, str] | None = None) -> Axes:
    """Pictures left after each constraint (`filtering.attrition`), stacked by concept; `names` words constraints."""
    left = attrition.pivot_table("left", "constraint", "concept")
    steps, concepts = attrition["constraint"].unique(), attrition["concept"].unique()
    left = left.loc[steps, concepts].astype(int)  # both in the frame's order
    total, before, words = left.sum(axis=1), np.zeros(len(left)), {step: step for step in steps} | dict(names or {})
    for concept, colour in concept_colours(concepts).items():
        ax.barh(range(len(steps)), left[concept], left=before, height=0.4, color=colour, label=concept)
        before = before + left[concept].to_numpy()
    for place, (step, count) in enumerate(total.items()):
        ax.text(0, place - 0.27, words[step], va="bottom")
        ax.text(count, place, f" {count:,}", va="center", fontweight="bold")
    ax.set(xlabel="pictures left", xlim=(0, 1.1 * total.iloc[0]), ylim=(len(steps) - 0.6, -0.75), yticks=[])
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    if len(concepts) > 1:
        figure_of(ax).legend(ncols=5, loc="outside lower center", handlelength=1, columnspacing=1)
    lost = -total.diff().dropna()
    costly = f"; the costliest: “{words[lost.idxmax()]}”" if lost.max() > 0 else ""
    title(ax, f"{total.iloc[-1]:,} of {total.iloc[0]:,} pictures pass every constraint{costly}")
    return ax


def distribution(stages: pd.DataFrame, thresholds: Mapping[str, float], ax: Axes, score: str = "delta") -> Axes:
    """Neurons by pooled score, a line a concept on a logarithmic count; its threshold is dotted."""
    colours = concept_colours(stages["concept"].unique())
    edges = np.linspace(stages[score].min(), stages[score].max(), 61)
    for concept, group in by_concept(stages):
        counts = np.histogram(group[score], edges)[0].astype(float)
        ax.stairs(np.where(counts > 0, counts, np.nan), edges, color=colours[concept], linewidth=1.3, label=concept)
        ax.axvline(thresholds[concept], color=colours[concept], linewidth=0.8, linestyle=":")
    middle, far = stages[score].median(), stages[score].max()
    ax.set(yscale="log", xlabel="activation difference, pooled over pictures", ylabel="neurons (log scale)")
    ax.legend(ncols=2 if len(colours) > 5 else 1)
    title(ax, f"Half of the neurons move by less than {middle:.2g}; the strongest by {far:.2g}")
    return ax


def candidates(stages: pd.DataFrame, thresholds: Mapping[str, float], paper: tuple[float, float], ax: Axes) -> Axes:
    """Candidates that each threshold would leave, a line a concept; dots: our thresholds, band: the `paper`'s range."""
    colours = concept_colours(stages["concept"].unique())
    ax.axvspan(*paper, color=PAPER, zorder=0)
    ax.text(
        np.sqrt(paper[0] * paper[1]),
        0.97,
        "the paper’s\nthresholds",
        ha="center",
        va="top",
        transform=ax.get_xaxis_transform(),
    )
    left = []
    for concept, group in by_concept(stages):
        falling = np.sort(group["delta"])[::-1]
        ax.plot(falling, np.arange(1, len(falling) + 1), color=colours[concept], linewidth=1.3, label=concept)
        ax.plot(thresholds[concept], (falling > thresholds[concept]).sum(), "o", color=colours[concept])
        left.append([(falling > bound).sum() for bound in paper])
    low = min(0.1, *thresholds.values())
    ax.set(xscale="log", yscale="log", xlim=(low, 1.1 * max(stages["delta"].max(), paper[1])), ylim=(0.8, None))
    ax.set(xlabel="threshold of the activation difference", ylabel="candidates")
    ax.legend(loc="lower left", ncols=2 if len(colours) > 5 else 1)
    most, fewest = np.mean(left, axis=0)
    title(ax, f"At the paper’s thresholds {fewest:,.0f} to {most:,.0f} candidates a concept would be left here")
    return ax


def stability(stages: pd.DataFrame, ax: Axes) -> Axes:
    """Share of a concept's candidates that pass stage 1 in at least so many of its pictures, a line a concept."""
    chosen = stages[stages["candidate"]]
    colours = concept_colours(stages["concept"].unique())
    at_least = np.linspace(0, 1, 101)
    for concept, group in by_concept(chosen):
        passing = (group["share"].to_numpy()[:, None] >= at_least - 1e-9).mean(axis=0)
        ax.plot(
            100 * at_least, 100 * passing, color=colours[concept], drawstyle="steps-pre", linewidth=1.5, label=concept
        )
    by = chosen.groupby("concept", sort=False)["share"]
    always = by.agg(lambda share: (share > 1 - 1e-9).mean()).mean()
    ax.set(
        xlabel="in at least so many of the pictures (%)",
        ylabel="candidates that pass (%)",
        xlim=(0, 100),
        ylim=(0, 102),
    )
    ax.legend(loc="lower left", ncols=2 if len(colours) > 5 else 1)
    mean = by.mean().mean()
    title(ax, f"A candidate passes in {mean:.0%} of its concept’s pictures on average; {always:.0%} pass in all")
    return ax


def quadrants(stages: pd.DataFrame, thresholds: Mapping[str, float], ax: Axes) -> Axes:
    """Gradient score against activation difference, every neuron of one concept, with the count in each quadrant.

    `thresholds` has 'delta' and 'gradcam'. Axes are linear around zero and logarithmic beyond.
    """
    bins = [_asinh_bins(stages[name].to_numpy(), thresholds[name]) for name in ("delta", "gradcam")]
    counts = np.histogram2d(stages["delta"], stages["gradcam"], bins)[0].T
    for axis, name, edges in zip("xy", ("delta", "gradcam"), bins, strict=True):
        round_ones = np.outer(10.0 ** np.arange(-6, 4), [1, 2, 5]).ravel()
        ticks = [0, thresholds[name], *round_ones[(round_ones > 1.6 * thresholds[name]) & (round_ones < edges[-1])]]
        getattr(ax, f"set_{axis}scale")("asinh", linear_width=thresholds[name])
        getattr(ax, f"set_{axis}ticks")(ticks, [f"{tick:.2g}" for tick in ticks], minor=False)
        getattr(ax, f"{axis}axis").set_minor_locator(NullLocator())
    shown = ax.pcolormesh(*bins, np.where(counts > 0, counts, np.nan), cmap="Greys", norm=LogNorm(0.5), rasterized=True)
    figure_of(ax).colorbar(shown, ax=ax, label="neurons in a cell", pad=0.02)
    for draw, name in ((ax.axvline, "delta"), (ax.axhline, "gradcam")):
        draw(thresholds[name], color=method_colour("two-stage"), linewidth=1.2)
    moves, carries = stages["delta"] > thresholds["delta"], stages["gradcam"] > thresholds["gradcam"]
    for right, up, said in ((1, 1, "kept"), (1, 0, "dropped by stage 2"), (0, 1, "never candidates"), (0, 0, "")):
        count = int(((moves == right) & (carries == up)).sum())
        place: Any = {"ha": "right" if right else "left", "va": "top" if up else "bottom"}
        x, y = 0.98 if right else 0.02, 0.97 if up else 0.03
        words = f"{count:,} {said}".strip()
        ax.text(x, y, words, **place, transform=ax.transAxes, fontweight="bold", bbox=CARD_BOX)
    ax.set(xlabel="activation difference, pooled", ylabel="gradient score $g_c$, pooled")
    ax.grid(False)
    rank = stages["delta"].corr(stages["gradcam"], method="spearman")
    share = (moves & carries).sum() / moves.sum()
    concept = stages["concept"].iloc[0]
    title(ax, f"{concept}: stage 2 keeps {share:.0%} of the candidates; the scores’ rank correlation is {rank:.2f}")
    return ax


def _asinh_bins(values: np.ndarray, width: float, n: int = 70) -> np.ndarray:
    """Edges that are evenly spaced on an asinh axis."""
    low, high = np.arcsinh(np.array([values.min(), values.max()]) / width)
    edges: np.ndarray = width * np.sinh(np.linspace(low, high + 1e-6, n + 1))
    return edges
