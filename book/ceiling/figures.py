"""How much passes through neurons, layer by layer and set by set. Frames are those of `ceiling.curves`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book.style import METHODS, SPARE, label, method_colour
from kn_core.drawing import CARD, INK, WIDTH, title
from kn_core.study.experiments.curves import KEPT, REMOVED, UNIFORM

SIDES = {KEPT: "share of y with the set alone at work", REMOVED: "share of y without the set"}


def layer_profile(layers: pd.DataFrame, everything: tuple[float, float, float]) -> Axes:
    """The share of the object's y that is lost with a window of layers patched; a line for all layers (its ends).

    Beside it the share of the two-stage neurons that lie there: Figure 2, window by window.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 3.4))
    width = layers["last"] - layers["first"] + 1
    middle = layers["first"] + width / 2 - 0.5
    ax.bar(
        middle,
        layers["value"],
        width=0.94 * width,
        color=method_colour("two-stage"),
        label="of y, lost with them patched",
    )
    ax.plot(middle, layers["holds"], "D", color=CARD, markeredgecolor=INK, label="of the two-stage neurons, there")
    ax.vlines(middle, layers["low"], layers["high"], color=INK, linewidth=0.9)
    ax.axhline(everything[0], color=INK, linewidth=1.2, linestyle="--", label="all layers")
    ax.axhspan(everything[1], everything[2], color=INK, alpha=0.08, linewidth=0)
    ax.axhline(0, color=INK, linewidth=0.6)
    ax.set(xlabel="layers patched together", ylabel="share")
    ax.set_xticks(middle, layers["window"].str.removeprefix("layers "), rotation=45 if len(layers) > 5 else 0)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside lower center", ncols=3)
    first, last = layers.sort_values("first").iloc[[0, -1]].to_dict("records")
    lost = f"{first['value']:.0%} of what the object adds to its word"
    beside = f"; {last['window']}: {last['value']:.0%}" if len(layers) > 1 else ""
    title(ax, f"With {first['window']} patched, {lost} is lost{beside}")
    return ax


def curves(points: pd.DataFrame, budget_share: float) -> Figure:
    """Both sides of every ranking's curve over the share of neurons (`curves.points`); a dotted line at the budget."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6), sharex=True, sharey=True)
    known = [name for name in METHODS if name in set(points["ranking"])]
    spare = dict(zip(sorted(set(points["ranking"]).difference(known)), SPARE, strict=False))
    for ax, (side, said) in zip(axes, SIDES.items(), strict=True):
        of_side = points[points["side"] == side]
        for name in (*known, *spare):
            rows, colour = of_side[of_side["ranking"] == name], spare.get(name) or method_colour(name)
            by = rows.groupby("share")
            if name == UNIFORM:
                if len(rows):
                    low, high = by["value"].min(), by["value"].max()
                    ax.fill_between(low.index, low, high, color=colour, alpha=0.35, linewidth=0, label=label(name))
                    ax.plot(by["value"].mean(), color=colour, linewidth=1)
                continue
            ax.plot(rows["share"], rows["value"], "o-", color=colour, markersize=3, linewidth=1.6, label=label(name))
            ax.fill_between(rows["share"], rows["low"], rows["high"], color=colour, alpha=0.12, linewidth=0)
        for level in (0, 1):
            ax.axhline(level, color=INK, linewidth=0.6)
        ax.axvline(budget_share, color=INK, linewidth=0.8, linestyle=":")
        ax.set(xscale="log", xlabel="share of the neurons")
        ax.set_title(said, fontsize=9, fontweight="normal")
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:.1%}" if value < 0.01 else f"{value:.0%}")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2)
    best = points[(points["side"] == REMOVED) & (points["share"] == budget_share)]
    taken = 1 - best.groupby("ranking")["value"].mean()
    order = dict.fromkeys(name for name in ("two-stage", UNIFORM, str(taken.idxmax())) if name in taken)
    title(figure, "Sets of one size take away: " + "; ".join(f"{label(name)} {taken[name]:.0%}" for name in order))
    return figure
