"""Scores held against what single neurons really do."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from book.intervals import dots
from book.style import METHODS, label, method_colour
from kn_core.drawing import INK, WIDTH, title

DRAWN = 250  # neurons a panel: thousands, a line of the page each, weigh more than the page may
OVER = {"all": ("o", 0.14, "all neurons that were switched off"), "random": ("D", -0.14, "random ones alone")}


def correlations(rho: pd.DataFrame) -> Figure:
    """Spearman's rho of each method's score with the exact effect (`exact_effects.correlations`)."""
    order = [method for method in METHODS if method in set(rho["method"])][::-1]
    figure, ax = plt.subplots(figsize=(WIDTH, 1.1 + 0.34 * len(order)))
    found = rho.rename(columns={"rho": "value"}).set_index("method")
    colours = list(map(method_colour, order))
    for over, (marker, shift, said) in OVER.items():
        hollow = over != "all"
        dots(ax, found[found["over"] == over], order, colours, marker=marker, shift=shift, hollow=hollow)
        face = "none" if hollow else INK
        ax.scatter([], [], s=26, facecolors=face, marker=marker, edgecolors=INK, label=said)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(order)), [label(method) for method in order])
    ax.set(xlabel="Spearman’s ρ with the exact effect")
    ax.grid(visible=True, axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    best = found[found["over"] == "all"]["value"]
    ours = "stage-2" if "stage-2" in best else "two-stage"  # whose score is the same, of fewer neurons
    best = best.drop("two-stage", errors="ignore") if ours == "stage-2" else best
    paper = f"The gradient score ranks neurons by what they do with ρ = {best[ours]:.2f}"
    title(figure, f"{paper}; the best score, {label(str(best.idxmax()))}, with {best.max():.2f}")
    return figure


def effects(neurons: pd.DataFrame, rho: pd.DataFrame, per_row: int = 3) -> Figure:
    """Rank of the score against the exact effect, a panel a method; neurons drawn at random are open circles.

    `neurons` has columns concept, method, score, effect, stratum ('top' or 'random'); `rho` is as in `correlations`,
    and stands above each panel. At most `DRAWN` neurons are drawn in each.
    """
    shown = [method for method in METHODS if method in set(neurons["method"])]
    mean = rho[rho["over"] == "all"].set_index("method")["rho"].reindex(shown)
    rank = neurons.groupby(["concept", "method"])["score"].rank(pct=True)
    rows = -(-len(shown) // per_row)
    size = (WIDTH, 0.6 + 1.9 * rows)
    figure, axes = plt.subplots(rows, per_row, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    for ax, method in zip(axes.flat, shown, strict=False):
        own, colour = (
            neurons[neurons["method"] == method].assign(rank=rank).dropna(subset=["score"]),
            method_colour(method),
        )
        own = own.sample(min(DRAWN, len(own)), random_state=0)
        top, random = own[own["stratum"] == "top"], own[own["stratum"] == "random"]
        ax.scatter(top["rank"], top["effect"], s=9, color=colour, alpha=0.55, linewidth=0)
        ax.scatter(random["rank"], random["effect"], s=9, facecolor="none", edgecolor=colour, alpha=0.7, linewidth=0.6)
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
