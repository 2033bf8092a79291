"""What interventions do to captions: dose-response, suppression against retention, settings compared, by concept.

Frames come from `kn_core.outcomes`: rows of `metrics.summarise`, with columns metric, value, low, high and what they
are by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator, PercentFormatter

from book.style import axes_of, label, method_colour
from kn_core.drawing import CARD, FAINT, INK, WIDTH, title

FLUENT = 0.8  # paper/claims.yml calls the language intact while this share of captions reads as sentences
COMPARED = ("two-stage", "random")
MARKERS = {"two-stage": "o", "random": "s"}
METRICS = axes_of("suppression", "retention", "fluent")
LINES: dict[str, Any] = {"n": "-", "sigma": "--"}
OVER = {"n": "neurons disturbed", "sigma": "noise σ (activation units)"}


def dose_response(curve: pd.DataFrame, over: str, main: float, metrics: Sequence[str] = tuple(METRICS)) -> Figure:
    """Metrics against the dose `over` ('n' or 'sigma'), a panel each, with 95 % intervals; `main` is the headline's."""
    figure, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 2.9), sharex=True, sharey=True, squeeze=False)
    for ax, metric in zip(axes[0], metrics, strict=True):
        for method in COMPARED:
            rows = curve[(curve["metric"] == metric) & (curve["method"] == method)].sort_values(over)
            colour = method_colour(method)
            ax.plot(rows[over], rows["value"], f"{MARKERS[method]}-", markersize=4, color=colour, label=label(method))
            ax.fill_between(rows[over], rows["low"], rows["high"], color=colour, alpha=0.18, linewidth=0)
        ax.axvline(main, color=FAINT, linewidth=0.8, linestyle=":", zorder=0)
        doses = sorted(curve[over].unique())
        ax.set(xscale="log", ylim=(-0.03, 1.03), xticks=doses)
        ax.set_xticks(doses, [f"{dose:g}" for dose in doses], fontsize=8)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.set_title(METRICS[metric], fontsize=10, fontweight="normal")
    axes[0, len(metrics) // 2].set_xlabel(OVER[over])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    title(figure, _dose_finding(curve, over))
    return figure


def _dose_finding(curve: pd.DataFrame, over: str) -> str:
    """'From 10 to 400 neurons, suppression goes from 6% to 33%; random neurons reach 31% at most'."""
    rows = curve[curve["metric"] == "suppression"].sort_values(over)
    doses, ours = rows[rows["method"] == "two-stage"][[over, "value"]].to_numpy().T
    control = rows[rows["method"] == "random"]["value"].max()
    if len(doses) < 2:
        return f"Two-stage neurons suppress {ours[0]:.0%}, random ones {control:.0%}"
    swept = f"{doses[0]:g} to {doses[-1]:g} neurons" if over == "n" else f"σ = {doses[0]:g} to {doses[-1]:g}"
    return (
        f"From {swept}, suppression goes from {ours[0]:.0%} to {ours[-1]:.0%}; "
        f"random neurons reach {control:.0%} at most"
    )


def trade_off(curves: Mapping[str, pd.DataFrame], paper: tuple[float, float], main: Mapping[str, float]) -> Axes:
    """The suppression-retention plane: a line a sweep and method, discs as large as the share of fluent captions.

    `curves` by what they sweep ('n', 'sigma'), `paper` is (S_se, S_re), `main` the main setting's dose of each sweep. A
    disc is hollow where fewer than `FLUENT` of the captions read as sentences.
    """
    _, ax = plt.subplots(figsize=(WIDTH, 4.6))
    points = pd.concat([_points(curve, over) for over, curve in curves.items()], ignore_index=True)
    for method, over in product(COMPARED, curves):
        rows, colour = points[(points["method"] == method) & (points["over"] == over)], method_colour(method)
        ax.plot(rows["suppression"], rows["retention"], LINES[over], color=colour, linewidth=1, alpha=0.7, zorder=2)
        face = [colour if share >= FLUENT else CARD for share in rows["fluent"]]
        ax.scatter(rows["suppression"], rows["retention"], 15 + 90 * rows["fluent"], face, edgecolors=colour, zorder=3)
        if method == "two-stage":
            _doses(ax, rows[rows["dose"] != main[over]], over)
    ours = points[(points["method"] == "two-stage") & (points["dose"] == points["over"].map(main))].iloc[:1]
    ax.scatter(ours["suppression"], ours["retention"], 260, "none", edgecolors=INK, linewidths=1.3, zorder=4)
    ax.scatter(*paper, 130, INK, marker="*", zorder=4)
    ax.annotate("the paper", paper, (-7, -12), textcoords="offset points", fontsize=9, ha="right")
    ax.set(xlim=(-0.04, 1.08), ylim=(-0.04, 1.08))
    ax.set(
        xlabel="suppression $S_{se}$ (the concept is no longer named)",
        ylabel="retention $S_{re}$ (other words that stay)",
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    ax.grid(visible=True, axis="both")
    _key(ax, list(curves))
    title(ax, _trade_off_finding(points, paper))
    return ax


def _points(curve: pd.DataFrame, over: str) -> pd.DataFrame:
    """One row a point of the plane: method, over, dose, suppression, retention, fluent."""
    wide = curve.pivot_table(index=["method", over], columns="metric", values="value", dropna=False).reset_index()
    return wide.rename(columns={over: "dose"}).assign(over=over)[["method", "over", "dose", *METRICS]].dropna()


def _doses(ax: Axes, rows: pd.DataFrame, over: str) -> None:
    """Doses beside their discs, of the two sweeps on either side."""
    name, shift, side = ("n", (-9, -4), "right") if over == "n" else ("σ", (6, 6), "left")
    halo = [withStroke(linewidth=2.5, foreground=CARD)]
    for row in rows.to_dict("records"):
        place = (row["suppression"], row["retention"])
        text: Any = {"textcoords": "offset points", "ha": side, "fontsize": 7.5, "path_effects": halo, "zorder": 5}
        ax.annotate(f"{name} = {row['dose']:g}", place, shift, **text)


def _key(ax: Axes, swept: Sequence[str]) -> None:
    handles = [Line2D([], [], color=method_colour(name), marker="o", label=label(name)) for name in COMPARED]
    names = {"n": "number of neurons swept", "sigma": "noise swept"}
    handles += [Line2D([], [], color=FAINT, linestyle=LINES[over], label=names[over]) for over in swept]
    plain: Any = {"color": "none", "markeredgecolor": INK, "linestyle": ""}
    handles += [
        Line2D([], [], marker="o", markersize=12, label="main setting", **plain),
        Line2D([], [], marker="o", markersize=6, label=f"under {FLUENT:.0%} fluent", **plain),
    ]
    ax.figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)


def _trade_off_finding(points: pd.DataFrame, paper: tuple[float, float]) -> str:
    ours = points[points["method"] == "two-stage"]
    both = ours[(ours["suppression"] >= paper[0]) & (ours["retention"] >= paper[1])]
    if both.empty:
        return "No setting reaches the paper's suppression and its retention at once"
    fluent = both[both["fluent"] >= FLUENT]
    if fluent.empty:
        return "The paper's suppression and retention are reached at once only where captions fall apart"
    best = fluent.sort_values("suppression").iloc[-1]
    dose = f"{best['dose']:g} neurons" if best["over"] == "n" else f"σ = {best['dose']:g}"
    return f"With {dose}, suppression and retention reach the paper's values together, and captions stay fluent"


def compared(curve: pd.DataFrame, over: str, order: Sequence[str], names: Mapping[str, str] | None = None) -> Figure:
    """Interventions or positions compared: dots with 95 % intervals, a panel a metric, a row a value of `over`."""
    shown = [value for value in order if value in set(curve[over])]
    figure, axes = plt.subplots(1, len(METRICS), figsize=(WIDTH, 1.5 + 0.42 * len(shown)), sharex=True, sharey=True)
    for ax, (metric, words) in zip(axes, METRICS.items(), strict=True):
        _dots(ax, curve[curve["metric"] == metric], over, shown)
        ax.set_title(words, fontsize=10, fontweight="normal")
    axes[0].set_yticks(range(len(shown)), [(names or {}).get(value, value) for value in shown])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    title(figure, _compared_finding(curve[curve["metric"] == "suppression"], over, names or {}))
    return figure


def _compared_finding(rows: pd.DataFrame, over: str, names: Mapping[str, str]) -> str:
    """'“zero” suppresses most, 52% (random neurons 2%); “patch” least, 15% (0%)'."""
    ours, control = (dict(rows[rows["method"] == method][[over, "value"]].to_numpy()) for method in COMPARED)
    most, least = max(ours, key=ours.__getitem__), min(ours, key=ours.__getitem__)
    found = f"“{names.get(most, most)}” suppresses most, {ours[most]:.0%} (random neurons {control[most]:.0%})"
    if most == least:
        return found
    return f"{found}; “{names.get(least, least)}” least, {ours[least]:.0%} ({control[least]:.0%})"


def by_concept(frame: pd.DataFrame, paper: Mapping[str, float], ours: Sequence[str] = ()) -> Figure:
    """Table II as a figure: suppression and retention of each concept against its control, the paper's mean as a line.

    Concepts in `ours`, which the paper's digest does not name, carry an asterisk.
    """
    two_stage = frame[(frame["method"] == "two-stage") & (frame["metric"] == "suppression")]
    order = two_stage.sort_values("value")["concept"].tolist()
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.5 + 0.3 * len(order)), sharex=True, sharey=True)
    for ax, metric in zip(axes, ("suppression", "retention"), strict=True):
        _dots(ax, frame[frame["metric"] == metric], "concept", order)
        ax.axvline(paper[metric], color=INK, linewidth=0.9, linestyle="--", zorder=1, label="the paper's mean")
        ax.set_title(METRICS[metric], fontsize=10, fontweight="normal")
    axes[0].set_yticks(range(len(order)), [f"{name} *" if name in ours else name for name in order])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    control = frame[(frame["method"] == "random") & (frame["metric"] == "suppression")].set_index("concept")["value"]
    beaten = int((two_stage.set_index("concept")["low"] > control).sum())
    title(
        figure, f"In {beaten} of {len(order)} concepts the interval of suppression lies above the random neurons' value"
    )
    return figure


def _dots(ax: Axes, rows: pd.DataFrame, over: str, order: Sequence[str]) -> None:
    """A dot with its interval for each value of `over` and method, the methods side by side on the value's row."""
    for shift, method in ((0.13, "two-stage"), (-0.13, "random")):
        chosen = rows[rows["method"] == method].set_index(over).reindex(list(order))
        y = np.arange(len(order)) + shift
        colour = method_colour(method)
        ax.hlines(y, chosen["low"], chosen["high"], color=colour, linewidth=2, alpha=0.55, zorder=2)
        ax.scatter(chosen["value"], y, 26, colour, marker=MARKERS[method], zorder=3, label=label(method))
    ax.set(xlim=(-0.04, 1.04), ylim=(-0.6, len(order) - 0.4))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
