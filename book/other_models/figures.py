"""A linear layer and a Q-Former beside each other. Frames come from `kn_core.generalisation`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book.other_models.towers import DIFFERENCE, QUANTITIES
from book.style import axes_of, label, method_colour
from kn_core.drawing import CARD, INK, WIDTH, title
from kn_core.measures.stats import cluster_interval

SIDES = axes_of("suppression", "retention")
MAPS = {
    "own": "two-stage neurons",
    "exchanged": "... queries exchanged",
    "plain": "... plain rollout",
    "random": "random neurons",
    "any": "all queries alike",
    "single": "the best single query",
}


def effects(frame: pd.DataFrame) -> Figure:
    """Suppression and retention of two-stage and random neurons by model, with 95 % intervals (`effects`)."""
    models = list(dict.fromkeys(frame["model"]))[::-1]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.5 + 0.5 * len(models)), sharey=True)
    for ax, (metric, heading) in zip(axes, SIDES.items(), strict=True):
        rows = frame[frame["metric"] == metric].set_index("model").reindex(models)
        for side, method, shift in (("", "two-stage", 0.12), ("random_", "random", -0.12)):
            colour, face = method_colour(method), method_colour(method) if not side else CARD
            for place, row in enumerate(rows.to_dict("records")):
                ax.hlines(place + shift, row[f"{side}low"], row[f"{side}high"], color=colour, linewidth=1.4)
                ax.plot(row[f"{side}value"], place + shift, "o", color=colour, markerfacecolor=face, markersize=5)
            ax.plot([], [], "o", color=colour, markerfacecolor=face, linestyle="none", label=label(method))
        ax.set_yticks(range(len(models)), models)
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.5, len(models) - 0.5))
        ax.xaxis.set_major_formatter(PercentFormatter(1))
        ax.set_title(heading, fontsize=10, fontweight="normal")
        ax.grid(visible=True, axis="x")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    gaps = frame[frame["metric"] == "suppression"].set_index("model")["difference_value"]
    found = " and ".join(f"{100 * gaps[model]:.0f} with the {model}" for model in models[::-1])
    title(figure, f"Points of suppression over random neurons: {found}")
    return figure


def places(frame: pd.DataFrame) -> Figure:
    """Share of each map's positive part on the object, mean over concepts with 95 % intervals (`places`)."""
    models = list(dict.fromkeys(frame["model"]))
    kinds = {model: [name for name in MAPS if name in set(frame[frame["model"] == model]["map"])] for model in models}
    tall = [len(kinds[model]) for model in models]
    size = (WIDTH, 1.4 + 0.34 * sum(tall))
    figure, axes = plt.subplots(len(models), 1, figsize=size, sharex=True, height_ratios=tall, squeeze=False)
    means: dict[tuple[str, str], float] = {}
    for ax, model in zip(axes[:, 0], models, strict=True):
        names = kinds[model][::-1]
        for place, name in enumerate(names):
            rows = frame[(frame["model"] == model) & (frame["map"] == name)].dropna(subset=["inside"])
            clusters = [values.to_numpy(float) for _, values in rows.groupby("concept")["inside"]]
            means[model, name] = float(np.mean([values.mean() for values in clusters]))
            colour = method_colour("two-stage") if name == "own" else method_colour("random")
            ax.hlines(place, *cluster_interval(clusters), color=colour, linewidth=1.4)
            ax.plot(means[model, name], place, "o", color=colour, markersize=5)
        ax.axvline(frame[frame["model"] == model]["area"].mean(), color=INK, linestyle="--", linewidth=0.9, zorder=0)
        ax.set_yticks(range(len(names)), [MAPS[name] for name in names])
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.set_title(model, fontsize=10, fontweight="normal")
        ax.grid(visible=True, axis="x")
    axes[-1, 0].set_xlim(left=0)  # once all are drawn: they share it, and it stays as wide as it is then
    axes[-1, 0].xaxis.set_major_formatter(PercentFormatter(1))
    axes[-1, 0].set_xlabel("of the map’s positive part on the object")
    found = ", ".join(f"{means[model, 'own']:.0%} with the {model}" for model in models)
    title(figure, f"On the object lies of the neurons’ heat: {found}")
    return figure


COLOURS = (method_colour("two-stage"), method_colour("stage-1"))  # the towers, in the order of the frame


def towers(compared: pd.DataFrame) -> Figure:
    """Each quantity of `two_towers.compare` with either tower, with 95 % intervals."""
    figure, ax = plt.subplots(figsize=(WIDTH, 4.6))
    names = [name for name in QUANTITIES if name in set(compared["quantity"])]
    shown = [tower for tower in compared["tower"].unique() if tower != DIFFERENCE]
    for place, (tower, colour) in enumerate(zip(shown, COLOURS, strict=True)):
        rows = compared[compared["tower"] == tower].set_index("quantity").loc[names]
        heights = [i + 0.15 * (2 * place - 1) for i in range(len(names))]
        ax.hlines(heights, rows["low"], rows["high"], color=colour, linewidth=1.8)
        ax.plot(rows["value"], heights, "os"[place], color=colour, label=tower)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(names)), [QUANTITIES[name] for name in names])
    ax.invert_yaxis()
    ax.grid(visible=True, axis="x")
    ax.set(xlabel="share, or difference of shares")
    figure.legend(loc="outside lower center", ncols=2)
    apart = compared[compared["tower"] == DIFFERENCE].set_index("quantity").loc[names]
    moved = int(((apart["low"] > 0) | (apart["high"] < 0)).sum())
    title(figure, f"{moved} of {len(names)} quantities differ between the towers")
    return figure
