"""The two tests of the stages: another region inpainted, and a companion planted. Frames are those of `spurious`."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from book.style import method_colour
from kn_core.drawing import CARD, FAINT, INK, MASK, WIDTH, figure_of, picture, title
from kn_core.measures.stats import cluster_interval
from kn_core.pictures.scenes.planted import Planted

KINDS = {"own": ("the concept’s own", method_colour("two-stage"), "o"), "companion": ("the companion’s", MASK, "s")}


def regions(frame: pd.DataFrame, ax: Axes) -> Axes:
    """What the object's removal does to a concept's neurons, beside that of as much of the picture elsewhere.

    A row a concept, means over its pictures; a hollow dot where the object is exactly gone. In grey, random neurons.
    """
    by = frame.pivot_table(["difference", "random"], "concept", "region", sort=False)
    rows = np.arange(len(by))
    for which, colour, size in (("difference", MASK, 42), ("random", FAINT, 16)):
        values = by[which]
        ax.hlines(rows, values["other"], values["object"], color=colour, linewidth=1.2, alpha=0.6)
        words = {"object": "the object inpainted", "other": "as much elsewhere"} if which == "difference" else {}
        ax.scatter(
            values["object"], rows, size, colour, label=words.get("object", "random neurons, likewise"), zorder=3
        )
        ax.scatter(values["other"], rows, size, colour, marker="X", label=words.get("other"), zorder=3)
    if "exact" in by["difference"]:
        ax.scatter(
            by["difference"]["exact"], rows, 42, CARD, edgecolors=MASK, label="the object exactly gone", zorder=2
        )
    ax.set_yticks(rows, by.index)
    ax.set(xlabel="activation difference", xlim=(0, None), ylim=(len(rows) - 0.4, -0.6))
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
    figure_of(ax).legend(loc="outside lower center", ncols=2)
    ratio = by["difference"]["other"].mean() / by["difference"]["object"].mean()
    title(ax, f"Inpainting as much elsewhere moves the object’s neurons {ratio:.0%} as far as inpainting the object")
    return ax


def dropped(shares: pd.DataFrame, ax: Axes) -> Axes:
    """The share of either's neurons that stage 2 drops (`separation.shares`), a row a concept, with 95 % intervals."""
    concepts = list(shares["concept"].unique())
    rows = [*concepts, "all"] if len(concepts) > 1 else concepts
    means = {}
    for shift, (kind, (words, colour, marker)) in zip((-0.14, 0.14), KINDS.items(), strict=True):
        of_kind = shares[shares["kind"] == kind]
        clusters = {name: group["share"].to_numpy() for name, group in of_kind.groupby("concept", sort=False)}
        means[kind] = float(np.mean([values.mean() for values in clusters.values()]))
        for place, row in enumerate(rows):
            chosen = list(clusters.values()) if row == "all" else [clusters[row]] if row in clusters else []
            if chosen:
                value, at = np.mean([values.mean() for values in chosen]), place + shift
                ax.hlines(at, *cluster_interval(chosen), color=colour, linewidth=2, alpha=0.55)
                ax.scatter(value, at, 26, colour, marker=marker, label=words if place == 0 else None, zorder=3)
    if len(rows) > len(concepts):
        ax.axhline(len(concepts) - 0.5, color=INK, linewidth=0.6)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlabel="share of the candidates that stage 2 drops", ylim=(len(rows) - 0.4, -0.6))
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
    figure_of(ax).legend(loc="outside lower center", ncols=2)
    title(
        ax,
        f"Stage 2 drops {means['companion']:.0%} of the companion’s neurons, {means['own']:.0%} of the concept’s own",
    )
    return ax


def renders(scene: Planted, captions: Mapping[str, str], concept: str, companion: str) -> Figure:
    """A planted scene whole, without either, and without both, and what the model says of each (`spurious.example`)."""
    headings = {"": "both", "concept": f"no {concept}", "companion": f"no {companion}", "both": "neither"}
    figure, axes = plt.subplots(1, len(headings), figsize=(WIDTH, WIDTH / len(headings) + 1.2))
    for ax, (gone, heading) in zip(axes, headings.items(), strict=True):
        picture(ax, scene.without[gone] if gone else scene.image, f"“{captions[gone]}”")
        ax.set_title(heading, fontsize=10)
    return figure
