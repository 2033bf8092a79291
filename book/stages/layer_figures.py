"""In which layers neurons lie (the paper's Figure 2). A frame has a row a neuron with its concept and layer."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from book.stages.layers import layer_shares, with_intervals
from book.style import METHODS, concept_colours, label, method_colour
from kn_core.drawing import INK, WIDTH, figure_of, title


def kept_and_dropped(stages: pd.DataFrame, n_layers: int, ax: Axes) -> Axes:
    """Layers of the candidates that stage 2 keeps and of those that it drops; mean over concepts, 95 % interval."""
    chosen = stages[stages["candidate"]]
    for kept, colour, said in (
        (False, method_colour("stage-1"), "dropped"),
        (True, method_colour("two-stage"), "kept"),
    ):
        shares = layer_shares(chosen[chosen["kept"] == kept], n_layers)
        mean, low, high = with_intervals(shares)
        ax.plot(100 * mean, color=colour, linewidth=1.8, label=said)
        ax.fill_between(range(n_layers), 100 * low, 100 * high, color=colour, alpha=0.2, linewidth=0)
    middle = chosen.groupby(["kept", "concept"])["layer"].mean().groupby("kept").mean()
    ax.set(xlabel="layer", ylabel="share of its neurons (%)", xlim=(-0.5, n_layers - 0.5), ylim=(0, None))
    ax.legend()
    title(
        ax,
        f"What stage 2 keeps lies at layer {middle[True]:.0f} on average, what it drops at layer {middle[False]:.0f}",
    )
    return ax


def layer_histogram(
    neurons: pd.DataFrame, n_layers: int, ax: Axes, others: Mapping[str, pd.DataFrame] | None = None
) -> Axes:
    """Figure 2: the share of a concept's neurons in each layer, mean over concepts, with 95 % intervals over concepts.

    `others` are neurons to compare with, method -> frame, drawn as lines; dashed is the level of uniformly drawn ones.
    """
    mean, low, high = with_intervals(layer_shares(neurons, n_layers))
    late = np.arange(n_layers) >= n_layers / 3
    ax.bar(range(n_layers), 100 * mean, width=0.8, color=method_colour("two-stage"), label=label("two-stage"))
    ax.vlines(range(n_layers), 100 * low, 100 * high, color=INK, linewidth=1.0)
    for name, frame in (others or {}).items():
        steps = 100 * with_intervals(layer_shares(frame, n_layers))[0]
        ax.stairs(steps, np.arange(n_layers + 1) - 0.5, color=method_colour(name), linewidth=1.5, label=label(name))
    ax.axhline(100 / n_layers, color=method_colour("uniform"), linestyle="--", linewidth=1.2, label="uniform")
    ax.axvspan(-0.5, np.argmax(late) - 0.5, color="#f2f2f2", zorder=0)
    ax.text(0.01, 0.98, "first third", transform=ax.transAxes, va="top", color="#555555")
    ax.set(
        xlabel="layer",
        ylabel="share of the neurons (%)",
        xlim=(-0.5, n_layers - 0.5),
        ylim=(0, 1.12 * ax.get_ylim()[1]),
    )
    figure_of(ax).legend(ncols=2, loc="outside lower center")
    found = f"{mean[late].sum():.0%} of the neurons lie in the upper two thirds of the layers"
    title(ax, f"{found}, where {late.mean():.0%} of all neurons are")
    return ax


def methods_over_layers(neurons: pd.DataFrame, n_layers: int, per_row: int = 2) -> Figure:
    """Figure 2 for every method: a panel each, mean over concepts, 95 % intervals; dashed, the uniform level.

    `neurons` has columns concept, method, layer.
    """
    shown = [method for method in METHODS if method in set(neurons["method"])]
    rows = -(-len(shown) // per_row)
    size = (WIDTH, 0.6 + 1.45 * rows)
    figure, axes = plt.subplots(rows, per_row, figsize=size, sharex=True, sharey=True, squeeze=False)
    late = np.arange(n_layers) >= n_layers / 3
    upper = {}
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    for ax, method in zip(axes.flat, shown, strict=False):
        mean, low, high = with_intervals(layer_shares(neurons[neurons["method"] == method], n_layers))
        upper[method] = float(mean[late].sum())
        ax.bar(range(n_layers), 100 * mean, width=0.8, color=method_colour(method))
        ax.vlines(range(n_layers), 100 * low, 100 * high, color=INK, linewidth=0.7)
        ax.axhline(100 / n_layers, color=method_colour("uniform"), linestyle="--", linewidth=0.9)
        ax.axvspan(-0.5, np.argmax(late) - 0.5, color="#f2f2f2", zorder=0)
        ax.set_title(f"{label(method)}: {upper[method]:.0%}", fontsize=9, fontweight="normal")
        ax.tick_params(labelsize=8)
        ax.set(xlim=(-0.5, n_layers - 0.5))
    figure.supxlabel("layer", fontsize=10)
    figure.supylabel("share of the neurons (%)", fontsize=10)
    last, first = max(upper, key=upper.__getitem__), min(upper, key=upper.__getitem__)
    ends = (f"{upper[method]:.0%} ({label(method)})" for method in (first, last))
    title(figure, "In the upper two thirds of the layers: " + " to ".join(ends))
    return figure


def layer_strips(neurons: pd.DataFrame, n_layers: int, ax: Axes) -> Axes:
    """The share of each concept's neurons in each layer, a row a concept."""
    shares = layer_shares(neurons, n_layers)
    drawn = ax.imshow(100 * shares, cmap="Blues", aspect="auto", vmin=0, interpolation="nearest")
    ax.set_yticks(range(len(shares)), shares.index)
    figure_of(ax).colorbar(drawn, ax=ax, label="share of its neurons (%)", pad=0.02)
    ax.set(xlabel="layer")
    ax.grid(False)
    alike = np.corrcoef(shares)[np.triu_indices(len(shares), 1)].mean() if len(shares) > 1 else np.nan
    title(
        ax,
        f"The concepts’ profiles over layers correlate at {alike:.2f} on average"
        if len(shares) > 1
        else f"The neurons of “{shares.index[0]}” over layers",
    )
    return ax


def layer_scatter(neurons: pd.DataFrame, n_layers: int, ax: Axes) -> Axes:
    """Score against layer, a point a neuron of one concept."""
    concept = neurons["concept"].iloc[0]
    ax.scatter(
        neurons["layer"], neurons["score"], s=18, color=concept_colours([concept])[concept], alpha=0.75, linewidth=0
    )
    ax.set(yscale="log", xlabel="layer", ylabel="score (log scale)", xlim=(-0.5, n_layers - 0.5))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    held = neurons["layer"].value_counts()
    where = f"in {held.size} of {n_layers} layers, most in layer {held.idxmax()}"
    title(ax, f"The {len(neurons)} best neurons of “{concept}” lie {where}")
    return ax
