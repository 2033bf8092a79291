"""All methods beside each other: what noise on their neurons does, at one dose, at every dose, among random draws.

Frames come from `kn_core.comparison` and `metrics.summarise`.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book.style import METHODS, axes_of, label, method_colour
from kn_core.drawing import CARD, FAINT, INK, WIDTH, figure_of, title

SIDES = axes_of("suppression", "retention")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")


def methods(same: pd.DataFrame, own: pd.DataFrame, paper: Mapping[str, float]) -> Figure:
    """Suppression and retention of every method, with 95 % intervals: under one noise, and each under its own.

    `same` and `own` have columns method, metric, value, low, high; rows are drawn in the order of `same`.
    """
    order = list(dict.fromkeys(same["method"]))[::-1]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.9 + 0.34 * len(order)), sharey=True)
    for ax, (metric, heading) in zip(axes, SIDES.items(), strict=True):
        for frame, marker, shift in ((same, "o", 0.14), (own, "D", -0.14)):
            rows = frame[frame["metric"] == metric].set_index("method").reindex(order)
            for place, (method, row) in enumerate(rows.iterrows()):
                colour = method_colour(str(method))
                ax.hlines(place + shift, row["low"], row["high"], color=colour, linewidth=1.4)
                face = colour if marker == "o" else CARD
                ax.plot(row["value"], place + shift, marker, color=colour, markerfacecolor=face, markersize=5)
        ax.axvline(paper[metric], color=INK, linestyle="--", linewidth=0.9, zorder=0, label="the paper's method")
        ax.set_yticks(range(len(order)), [label(method) for method in order])
        ax.set(xlim=(-0.03, 1.03))
        ax.xaxis.set_major_formatter(PercentFormatter(1))
        ax.set_title(heading, fontsize=10, fontweight="normal")
        ax.grid(visible=True, axis="x")
    for marker, face, said in (("o", INK, "the same noise"), ("D", CARD, "its own dose")):
        axes[0].plot([], [], marker, color=INK, markerfacecolor=face, markersize=5, linestyle="none", label=said)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    title(figure, _best_finding(same))
    return figure


def _best_finding(table: pd.DataFrame) -> str:
    """Which method has the best balance of the two, the harmonic mean, under the same noise."""
    wide = table.pivot_table(index="method", columns="metric", values="value")[list(SIDES)]
    balance = (2 * wide.prod(axis=1) / wide.sum(axis=1)).fillna(0.0).sort_values(ascending=False)
    best, ours = str(balance.index[0]), list(balance.index).index("two-stage") + 1
    both = wide.to_dict("index")[best]
    found = f"{label(best)}: {both['suppression']:.0%} suppressed, {both['retention']:.0%} retained"
    place = "" if ours == 1 else f"; two-stage neurons come {_ordinal(ours)} of {len(balance)}"
    return f"Best balance under one noise, {found}{place}"


def _ordinal(place: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{place}{endings.get(place % 10, 'th') if not 10 < place % 100 < 14 else 'th'}"


def frontier(curve: pd.DataFrame, ax: Axes) -> Axes:
    """Suppression against retention over the noise's strength, a line a method; a disc's area is its fluent share."""
    for place, method in enumerate(method for method in METHODS if method in set(curve["method"])):
        rows = curve[curve["method"] == method]
        wide = rows.pivot_table(index="sigma", columns="metric", values="value").sort_index()
        colour = method_colour(str(method))
        ax.plot(wide["suppression"], wide["retention"], color=colour, linewidth=1.3, alpha=0.9, zorder=2)
        marker = MARKERS[place % len(MARKERS)]
        ax.scatter(
            wide["suppression"],
            wide["retention"],
            s=8 + 60 * wide["fluent"],
            color=colour,
            marker=marker,
            edgecolor=CARD,
            linewidth=0.6,
            label=label(str(method)),
            zorder=3,
        )
    steps = np.linspace(0.02, 1, 200)
    for level in (0.3, 0.5, 0.7):
        ax.plot(
            steps, level * steps / (2 * steps - level).clip(1e-9), color=FAINT, linewidth=0.6, linestyle=":", zorder=0
        )
        ax.annotate(
            f"{level:g}", (1.0, level / (2 - level)), (3, 0), textcoords="offset points", fontsize=7, color=FAINT
        )
    ax.set(xlabel=SIDES["suppression"], ylabel=SIDES["retention"], xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    figure_of(ax).legend(loc="outside lower center", ncols=3)
    title(ax, _frontier_finding(curve))
    return ax


def _frontier_finding(curve: pd.DataFrame) -> str:
    wide = curve.pivot_table(index=["method", "sigma"], columns="metric", values="value")
    balance = (2 * wide["suppression"] * wide["retention"] / (wide["suppression"] + wide["retention"])).fillna(0.0)
    best = balance.rename("balance").reset_index().nlargest(1, "balance").to_dict("records")[0]
    found = f"The best harmonic mean of both, {best['balance']:.2f}"
    return f"{found}, is that of {label(best['method'])} at σ = {best['sigma']:g}"


def among_controls(draws: pd.DataFrame, ours: pd.DataFrame) -> Figure:
    """Every draw of every control as a dot, the two-stage neurons as a line: columns of `comparison.control_draws`.

    `ours` is `comparison.among_controls`.
    """
    controls = list(dict.fromkeys(draws["control"]))[::-1]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.3 + 0.42 * len(controls)), sharey=True)
    rng = np.random.default_rng(0)  # only so that dots do not hide each other
    for ax, (metric, heading) in zip(axes, SIDES.items(), strict=True):
        for place, control in enumerate(controls):
            values = draws[(draws["control"] == control) & (draws["metric"] == metric)]["value"]
            height = place + rng.uniform(-0.18, 0.18, len(values))
            ax.scatter(values, height, s=16, color=method_colour(control), alpha=0.7, linewidth=0)
        value = ours.loc[ours["metric"] == metric, "value"].iloc[0]
        ax.axvline(value, color=method_colour("two-stage"), linewidth=1.8)
        at = ("data", "axes fraction")
        ax.annotate("two-stage", (value, 1), (3, -9), at, "offset points", fontsize=8, color=method_colour("two-stage"))
        ax.set_yticks(range(len(controls)), [label(control) for control in controls])
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(controls) - 0.3))
        ax.xaxis.set_major_formatter(PercentFormatter(1))
        ax.set_title(heading, fontsize=10, fontweight="normal")
        ax.grid(visible=True, axis="x")
    rows = ours[ours["metric"] == "suppression"]
    beaten, drawn = int((rows["percentile"] * rows["draws"]).sum()), int(rows["draws"].sum())
    title(figure, f"Two-stage neurons suppress more than {beaten} of {drawn} random draws")
    return figure
