"""Neurons through the two stages, and the tests of either. Frames are those of `scores`, `stage_1`, `stage_2`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from book.style import by_concept, method_colour
from kn_core.drawing import CARD, FAINT, INK, MASK, WIDTH, figure_of, title

CARD_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
PAPER = "#f3e9c6"  # the band of the paper's thresholds
KINDS = {"own": ("the concept’s own", method_colour("two-stage"), "o"), "companion": ("the companion’s", MASK, "s")}


def _band(ax: Axes, x: np.ndarray, curves: np.ndarray) -> None:
    """The median of curves (n, x) and the band between the lowest and the highest; one curve is its own median."""
    look: Any = {"step": "post", "color": method_colour("two-stage"), "alpha": 0.25, "linewidth": 0}
    if len(curves) > 1:
        ax.fill_between(x, curves.min(axis=0), curves.max(axis=0), label=f"all {len(curves)} concepts", **look)
    said = "their median" if len(curves) > 1 else None
    ax.step(x, np.median(curves, axis=0), where="post", color=method_colour("two-stage"), linewidth=1.5, label=said)


def distribution(scored: pd.DataFrame, thresholds: Mapping[str, float]) -> Axes:
    """Neurons by pooled difference on a logarithmic count, concepts as a band; each one's threshold is dotted."""
    _, ax = plt.subplots()
    edges = np.histogram_bin_edges(scored["delta"], 60)
    counts = np.array([np.histogram(rows["delta"], edges)[0] for _, rows in by_concept(scored)])
    _band(ax, edges, np.c_[counts, counts[:, -1]])
    for place, threshold in enumerate(thresholds.values()):
        said = None if place else "thresholds"
        ax.axvline(threshold, color=INK, linewidth=0.7, linestyle=":", label=said)
    ax.set(yscale="log", ylim=(0.8, None))
    ax.set(xlabel="activation difference, pooled over pictures", ylabel="neurons (log scale)")
    ax.legend(loc="upper right")
    middle, far = scored["delta"].median(), scored["delta"].max()
    title(ax, f"Half of the neurons move by less than {middle:.2g}; the strongest by {far:.2g}")
    return ax


def candidates(scored: pd.DataFrame, thresholds: Mapping[str, float], paper: Mapping[float, float]) -> Axes:
    """Candidates that each threshold would leave, concepts as a band; dots: our thresholds, shaded: the paper's range.

    `paper` has the ends of that range and what they leave (`stage_1.paper_leaves`).
    """
    (low, high), (_, ax) = paper, plt.subplots()
    ax.axvspan(low, high, color=PAPER, zorder=0)
    place: Any = {"ha": "center", "va": "top", "transform": ax.get_xaxis_transform()}
    ax.text(np.sqrt(low * high), 0.97, "the paper’s\nthresholds", **place)
    nearest, farthest = min(0.1, *thresholds.values()), 1.1 * max(scored["delta"].max(), high)
    at = np.unique(np.r_[np.geomspace(nearest, farthest, 400), low, high])
    left = [len(rows) - np.searchsorted(np.sort(rows["delta"]), at) for _, rows in by_concept(scored)]
    _band(ax, at, np.array(left))
    counts = scored.groupby("concept", sort=False)["candidate"].sum()
    dots = [thresholds[str(concept)] for concept in counts.index]
    ax.plot(dots, counts, "o", color=INK, markersize=4, label="at our thresholds")
    ax.set(xscale="log", yscale="log", xlim=(nearest, farthest), ylim=(0.8, None))
    ax.set(xlabel="threshold of the activation difference", ylabel="candidates")
    ax.legend(loc="lower left")
    most, fewest = paper.values()
    title(ax, f"At the paper’s thresholds {fewest:,.0f} to {most:,.0f} candidates a concept would be left here")
    return ax


def stability(scored: pd.DataFrame) -> Axes:
    """Share of a concept's candidates that pass stage 1 in at least so many of its pictures, concepts as a band."""
    chosen, (_, ax) = scored[scored["candidate"]], plt.subplots()
    at_least = np.linspace(0, 1, 101)
    passing = [(rows["share"].to_numpy()[:, None] >= at_least - 1e-9).mean(axis=0) for _, rows in by_concept(chosen)]
    _band(ax, 100 * at_least, 100 * np.array(passing))
    ax.set(xlabel="in at least so many of the pictures (%)", xlim=(0, 100))
    ax.set(ylabel="candidates that pass (%)", ylim=(0, 102))
    if len(passing) > 1:
        ax.legend(loc="lower left")
    by = chosen.groupby("concept", sort=False)["share"]
    mean, always = by.mean().mean(), by.agg(lambda share: (share > 1 - 1e-9).mean()).mean()
    title(ax, f"A candidate passes in {mean:.0%} of its concept’s pictures on average; {always:.0%} pass in all")
    return ax


def regions(means: pd.DataFrame) -> Axes:
    """What the object's removal does to a concept's neurons, beside that of as much of the picture elsewhere.

    `means` are `stage_1.region_means`: a row a concept; hollow, the object as the study takes it out and a decoy that
    changes the picture as much. In grey, random neurons.
    """
    by = means.pivot_table(["difference", "random"], "concept", "region", sort=False)
    rows, (_, ax) = np.arange(len(by)), plt.subplots(figsize=(WIDTH, 1.6 + 0.3 * len(by)))
    said = {"difference": ("the object inpainted", "as much elsewhere"), "random": ("random neurons, likewise", None)}
    for which, colour, size in (("difference", MASK, 42), ("random", FAINT, 16)):
        values, (here, elsewhere) = by[which], said[which]
        ax.hlines(rows, values["other"], values["object"], color=colour, linewidth=1.2, alpha=0.6)
        ax.scatter(values["object"], rows, size, colour, label=here, zorder=3)
        ax.scatter(values["other"], rows, size, colour, marker="X", label=elsewhere, zorder=3)
    for region, marker, label in (("removed", "o", "the object taken out"), ("decoy", "X", "a decoy taken out")):
        if region in by["difference"]:
            hollow: Any = {"edgecolors": MASK, "marker": marker, "label": label, "zorder": 2}
            ax.scatter(by["difference"][region], rows, 42, CARD, **hollow)
    ax.set(xlabel="activation difference", xlim=(0, None))
    _rows(ax, list(by.index))
    matched = {"removed", "decoy"} <= set(by["difference"])
    own, other = ("removed", "decoy") if matched else ("object", "other")
    both = by["difference"][[own, other]].dropna()
    done = "Taking out something else that changes a picture as much" if matched else "Inpainting as much elsewhere"
    title(ax, f"{done} moves the object’s neurons {both[other].mean() / both[own].mean():.0%} as far as the object")
    return ax


def quadrants(scored: pd.DataFrame, thresholds: Mapping[str, float]) -> Axes:
    """Gradient score against activation difference, every neuron of one concept, with the count in each quadrant.

    `thresholds` has 'delta' and 'gradcam'. Axes are linear around zero and logarithmic beyond.
    """
    _, ax = plt.subplots(figsize=(WIDTH, 4.2))
    for axis, name in (("x", "delta"), ("y", "gradcam")):
        round_ones, limit = np.outer(10.0 ** np.arange(-6, 4), [1, 2, 5]).ravel(), thresholds[name]
        ticks = [0, limit, *round_ones[(round_ones > 1.6 * limit) & (round_ones < scored[name].max())]]
        getattr(ax, f"set_{axis}scale")("asinh", linear_width=limit)
        getattr(ax, f"set_{axis}ticks")(ticks, [f"{tick:.2g}" for tick in ticks], minor=False)
        getattr(ax, f"{axis}axis").set_minor_locator(NullLocator())
    density: Any = {"norm": LogNorm(0.5), "vmin": None, "vmax": None, "cmap": "Greys", "rasterized": True, "cbar": True}
    labelled = {"label": "neurons in a cell", "pad": 0.02}
    sns.histplot(scored, x="delta", y="gradcam", bins=70, ax=ax, cbar_kws=labelled, **density)
    for draw, name in ((ax.axvline, "delta"), (ax.axhline, "gradcam")):
        draw(thresholds[name], color=method_colour("two-stage"), linewidth=1.2)
    for right, up, said in ((1, 1, "kept"), (1, 0, "dropped by stage 2"), (0, 1, "never candidates"), (0, 0, "")):
        count = int(((scored["candidate"] == right) & (scored["carries"] == up)).sum())
        place: Any = {"ha": "right" if right else "left", "va": "top" if up else "bottom", "transform": ax.transAxes}
        x, y = 0.98 if right else 0.02, 0.97 if up else 0.03
        ax.text(x, y, f"{count:,}\n{said}".strip(), **place, fontweight="bold", bbox=CARD_BOX)
    ax.set(xlabel="activation difference, pooled", ylabel="gradient score $g_c$, pooled")
    ax.grid(False)
    ax.margins(0)
    rank, concept = scored["delta"].corr(scored["gradcam"], method="spearman"), scored["concept"].iloc[0]
    share = scored["kept"].sum() / scored["candidate"].sum()
    title(ax, f"{concept}: stage 2 keeps {share:.0%} of the candidates; the scores’ rank correlation is {rank:.2f}")
    return ax


def drops(found: pd.DataFrame) -> Axes:
    """The share of either's neurons that stage 2 drops (`stage_2.drops`), a row a concept, with 95 % intervals."""
    concepts = list(found["concept"].unique())
    _, ax = plt.subplots(figsize=(WIDTH, 1.5 + 0.32 * len(concepts)))
    for shift, (kind, (words, colour, marker)) in zip((-0.14, 0.14), KINDS.items(), strict=True):
        rows = found[found["kind"] == kind]
        places = np.array([concepts.index(name) for name in rows["concept"]]) + shift
        ax.hlines(places, rows["low"], rows["high"], color=colour, linewidth=2, alpha=0.55)
        ax.scatter(rows["value"], places, 26, colour, marker=marker, label=words, zorder=3)
    if concepts[-1] == "all":
        ax.axhline(len(concepts) - 1.5, color=INK, linewidth=0.6)
    ax.set(xlabel="share of the candidates that stage 2 drops")
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _rows(ax, concepts)
    dropped = found[found["concept"] == concepts[-1]].set_index("kind")["value"]
    of_each = f"{dropped['companion']:.0%} of the companion’s neurons, {dropped['own']:.0%} of the concept’s own"
    title(ax, f"Stage 2 drops {of_each}")
    return ax


def _rows(ax: Axes, names: list[str]) -> None:
    """A row each, from above, and the figure's legend below them."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
    figure_of(ax).legend(loc="outside lower center", ncols=2)


def on_object(found: pd.DataFrame, names: Mapping[str, str], area: float) -> Axes:
    """How much of each map lies on the object (`neurons.on_object`), mean over concepts, 95 % intervals.

    Dashed is the object's share of the picture, `area`: what a map has that knows nothing. `names` says which maps are
    drawn, and puts them in words.
    """
    _, ax = plt.subplots(figsize=(WIDTH, 2.9))
    rows, level = 100 * found.set_index("map").loc[list(names)], 100 * area
    colours = [method_colour("random" if name.startswith("random") else "two-stage") for name in names]
    ax.hlines(range(len(rows)), rows["low"], rows["high"], color=INK, linewidth=1.2)
    ax.scatter(rows["value"], range(len(rows)), 36, colours, zorder=3)
    ax.axvline(level, color=method_colour("uniform"), linestyle="--", linewidth=1.2)
    ax.text(level, -0.62, " the object’s share", va="center", color=method_colour("uniform"))
    ax.set_yticks(range(len(names)), list(names.values()))
    ax.set(xlabel="share of the map’s positive part that lies on the object (%)", xlim=(0, None))
    ax.set_ylim(len(names) - 0.5, -0.9)
    ax.grid(axis="x")
    kept, random = (f"{rows['value'][name]:.0f}%" for name in ("kept", "random"))
    title(ax, f"{kept} of what kept neurons answer lies on the object, and {random} of what random ones do")
    return ax
