"""Scores held against what single neurons really do. Frames come from `kn_core.ablations`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from book.style import METHODS, label, method_colour
from kn_core.drawing import CARD, INK, WIDTH, title
from kn_core.measures.stats import cluster_interval

OVER = {"all": ("o", 0.14, "all neurons that were switched off"), "random": ("D", -0.14, "random ones alone")}


def correlations(rho: pd.DataFrame) -> Figure:
    """Spearman's rho of each method's score with the exact effect, mean over concepts with 95 % intervals.

    `rho` has a row a concept, method and `over` ('all' or 'random').
    """
    order = [method for method in METHODS if method in set(rho["method"])][::-1]
    figure, ax = plt.subplots(figsize=(WIDTH, 1.1 + 0.34 * len(order)))
    means: dict[tuple[str, str], float] = {}
    for over, (marker, shift, _) in OVER.items():
        for place, method in enumerate(order):
            values = rho[(rho["method"] == method) & (rho["over"] == over)]["rho"].dropna().to_numpy(float)
            if not len(values):
                continue
            means[method, over] = float(values.mean())
            low, high = cluster_interval([np.array([value]) for value in values])
            colour = method_colour(method)
            ax.hlines(place + shift, low, high, color=colour, linewidth=1.4)
            face = colour if over == "all" else CARD
            ax.plot(values.mean(), place + shift, marker, color=colour, markerfacecolor=face, markersize=5)
    for marker, _, said in OVER.values():
        face = INK if marker == "o" else CARD
        ax.plot([], [], marker, color=INK, markerfacecolor=face, markersize=5, linestyle="none", label=said)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(order)), [label(method) for method in order])
    ax.set(xlabel="Spearman’s ρ with the exact effect")
    ax.grid(visible=True, axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    best, value = max(
        ((method, value) for (method, over), value in means.items() if over == "all"), key=lambda one: one[1]
    )
    title(figure, f"The score that ranks neurons best by what they do: {label(best)}, ρ = {value:.2f}")
    return figure


def effects(neurons: pd.DataFrame, rho: pd.DataFrame, per_row: int = 3) -> Figure:
    """Rank of the score against the exact effect, a panel a method; neurons drawn at random are open circles.

    `neurons` has columns concept, method, score, effect, stratum ('top' or 'random'); `rho` is as in `correlations`,
    and its mean over concepts stands above each panel.
    """
    shown = [method for method in METHODS if method in set(neurons["method"])]
    mean = rho[rho["over"] == "all"].groupby("method")["rho"].mean()
    rows = -(-len(shown) // per_row)
    size = (WIDTH, 0.6 + 1.9 * rows)
    figure, axes = plt.subplots(rows, per_row, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    for ax, method in zip(axes.flat, shown, strict=False):
        own = neurons[neurons["method"] == method].dropna(subset=["score"])
        rank = own.groupby("concept")["score"].rank(pct=True)
        random, colour = own["stratum"] == "random", method_colour(method)
        ax.scatter(rank[~random], own["effect"][~random], s=9, color=colour, alpha=0.55, linewidth=0)
        ax.scatter(
            rank[random], own["effect"][random], s=9, facecolor="none", edgecolor=colour, alpha=0.7, linewidth=0.6
        )
        ax.axhline(0, color=INK, linewidth=0.6)
        ax.set_title(f"{label(method)}\nρ = {mean[method]:.2f}", fontsize=9, fontweight="normal")
        ax.set_yscale("symlog", linthresh=0.05)
        ax.set_yticks([-1, -0.1, 0, 0.1, 1], ["−1", "−0.1", "0", "0.1", "1"])
        ax.yaxis.set_minor_locator(NullLocator())
        ax.tick_params(labelsize=8)
    figure.supxlabel("rank of the score within its concept", fontsize=10)
    figure.supylabel("logit lost without the neuron", fontsize=10)
    one = neurons.drop_duplicates(["concept", "layer", "unit"])["effect"]
    title(figure, f"{(one.abs() > 0.1).mean():.0%} of the neurons move the word’s logit by more than 0.1 alone")
    return figure
