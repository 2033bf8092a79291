"""In which layers neurons lie (the paper's Figure 2). Frames are those of `layers`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from book.stages.layers import is_late
from book.style import METHODS, concept_colours, label, method_colour
from kn_core.drawing import INK, WIDTH, figure_of, title


def kept_and_dropped(over: pd.DataFrame) -> Axes:
    """Layers of the candidates that stage 2 keeps and of those that it drops; mean over concepts, 95 % interval.

    `over` is `layers.over_layers` of 'dropped' and 'kept'.
    """
    _, ax = plt.subplots()
    for said, colour in (("dropped", method_colour("stage-1")), ("kept", method_colour("two-stage"))):
        rows = over[over["method"] == said]
        ax.plot(rows["layer"], 100 * rows["value"], color=colour, linewidth=1.8, label=said)
        ax.fill_between(rows["layer"], 100 * rows["low"], 100 * rows["high"], color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel="layer", ylabel="share of its neurons (%)", xlim=(-0.5, over["layer"].max() + 0.5), ylim=(0, None))
    ax.legend()
    middle = (over["layer"] * over["value"]).groupby(over["method"]).sum()
    kept, dropped = (f"{middle[said]:.0f}" for said in ("kept", "dropped"))
    title(ax, f"What stage 2 keeps lies at layer {kept} on average, what it drops at layer {dropped}")
    return ax


def layer_histogram(over: pd.DataFrame) -> Axes:
    """Figure 2: the share of a concept's neurons in each layer, mean over concepts, with 95 % intervals over concepts.

    `over` is `layers.over_layers` of the two-stage method, drawn as bars, and of others, drawn as lines; dashed is the
    level of uniformly drawn neurons.
    """
    (_, ax), n_layers = plt.subplots(figsize=(WIDTH, 4.2)), over["layer"].max() + 1
    _bars(ax, over[over["method"] == "two-stage"], n_layers, label("two-stage"))
    for name, rows in over[over["method"] != "two-stage"].groupby("method", sort=False):
        edges, colour = np.arange(n_layers + 1) - 0.5, method_colour(str(name))
        ax.stairs(100 * rows["value"], edges, color=colour, linewidth=1.5, label=label(str(name)))
    ax.text(0.01, 0.98, "first third", transform=ax.transAxes, va="top", color="#555555")
    ax.set(xlabel="layer", ylabel="share of the neurons (%)", ylim=(0, 1.12 * ax.get_ylim()[1]))
    figure_of(ax).legend(ncols=2, loc="outside lower center")
    late = over[is_late(over["layer"], n_layers)]
    found = f"{late[late['method'] == 'two-stage']['value'].sum():.0%} of the neurons lie in the upper two thirds"
    title(ax, f"{found} of the layers, where {late['layer'].nunique() / n_layers:.0%} of all neurons are")
    return ax


def methods_over_layers(over: pd.DataFrame, late: pd.DataFrame, per_row: int = 2) -> Figure:
    """Figure 2 for every method: a panel each, mean over concepts, 95 % intervals; dashed, the uniform level.

    `over` is `layers.over_layers`, `late` the share in the upper two thirds (`layers.late_by_method`).
    """
    upper, n_layers = late.set_index("method")["late"], over["layer"].max() + 1
    shown = [method for method in METHODS if method in set(over["method"])]
    rows = -(-len(shown) // per_row)
    size = (WIDTH, 0.6 + 1.45 * rows)
    figure, axes = plt.subplots(rows, per_row, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    for ax, method in zip(axes.flat, shown, strict=False):
        _bars(ax, over[over["method"] == method], n_layers, "", method_colour(method))
        ax.set_title(f"{label(method)}: {upper[method]:.0%}", fontsize=9, fontweight="normal")
        ax.tick_params(labelsize=8)
    figure.supxlabel("layer", fontsize=10)
    figure.supylabel("share of the neurons (%)", fontsize=10)
    others = [upper[method] for method in shown if method != "two-stage"]
    beside = f"; by other methods, {min(others):.0%} to {max(others):.0%}" if others else ""
    title(
        figure,
        f"Of the best two-stage neurons {upper['two-stage']:.0%} lie in the upper two thirds of the layers{beside}",
    )
    return figure


def _bars(ax: Axes, rows: pd.DataFrame, n_layers: int, name: str, colour: str = method_colour("two-stage")) -> None:
    """One method's shares with intervals, the level of uniformly drawn neurons, and the first third shaded."""
    ax.bar(rows["layer"], 100 * rows["value"], width=0.8, color=colour, label=name)
    ax.vlines(rows["layer"], 100 * rows["low"], 100 * rows["high"], color=INK, linewidth=0.9)
    ax.axhline(100 / n_layers, color=method_colour("uniform"), linestyle="--", linewidth=1.2, label=name and "uniform")
    ax.axvspan(-0.5, np.ceil(n_layers / 3) - 0.5, color="#f2f2f2", zorder=0)
    ax.set_xlim(-0.5, n_layers - 0.5)


def layer_strips(shares: pd.DataFrame) -> Axes:
    """The share of each concept's neurons in each layer (`layers.layer_shares`), a row a concept."""
    _, ax = plt.subplots(figsize=(WIDTH, 1.6 + 0.28 * len(shares)))
    bar = {"label": "share of its neurons (%)", "pad": 0.02}
    sns.heatmap(100 * shares, cmap="Blues", vmin=0, xticklabels=5, cbar_kws=bar, ax=ax)
    ax.set(xlabel="layer", ylabel="")
    ax.tick_params(axis="y", rotation=0)
    alike = np.corrcoef(shares)[np.triu_indices(len(shares), 1)].mean() if len(shares) > 1 else np.nan
    several = f"The concepts’ profiles over layers correlate at {alike:.2f} on average"
    title(ax, several if len(shares) > 1 else f"The neurons of “{shares.index[0]}” over layers")
    return ax


def layer_scatter(neurons: pd.DataFrame, n_layers: int, ax: Axes) -> Axes:
    """Score against layer, a point a neuron of one concept."""
    concept = neurons["concept"].iloc[0]
    dots = {"s": 18, "color": concept_colours([concept])[concept], "alpha": 0.75, "linewidth": 0}
    sns.scatterplot(neurons, x="layer", y="score", ax=ax, **dots)
    ax.set(yscale="log", xlabel="layer", ylabel="score (log scale)", xlim=(-0.5, n_layers - 0.5))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    held = neurons["layer"].value_counts()
    where = f"in {held.size} of {n_layers} layers, most in layer {held.idxmax()}"
    title(ax, f"The {len(neurons)} best neurons of “{concept}” lie {where}")
    return ax
