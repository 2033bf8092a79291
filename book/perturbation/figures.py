"""What interventions do to captions: over the dose, setting by setting, concept by concept, method by method.

Frames are those of `readings` and `methods`, with columns metric, value, low, high and what they are by. `kept` is the
reading of S_re that is drawn (`summaries.main_retention`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from book.intervals import dots, reference_lines, rows_of_shares
from book.style import axes_of, label, method_colour
from kn_core.drawing import FAINT, INK, WIDTH, title

COMPARED = {"two-stage": ("o", 0.13), "random": ("s", -0.13)}  # marker, and how far above the middle of its row
MARKERS = {"two-stage": "o", "random": "s", "direction": "^"}  # over a dose
OVER = {"n": "neurons disturbed", "sigma": "noise σ (activation units)"}


def dose_response(curve: pd.DataFrame, over: str, main: float, kept: str, bounds: pd.DataFrame | None = None) -> Figure:
    """Metrics against the dose `over` ('n' or 'sigma'), a panel each, with 95 % intervals; `main` is the headline's.

    `bounds` are `references.bounds`: what removal of the object itself and another concept's caption give, as lines.
    """
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.9), sharex=True, sharey=True)
    doses = sorted(curve[over].unique())
    for ax, (metric, heading) in zip(axes, axes_of("suppression", kept, "fluent").items(), strict=True):
        for method, marker in MARKERS.items():
            rows = curve[(curve["metric"] == metric) & (curve["method"] == method)].sort_values(over)
            if rows.empty:
                continue
            colour = method_colour(method)
            ax.plot(rows[over], rows["value"], f"{marker}-", markersize=4, color=colour, label=label(method))
            ax.fill_between(rows[over], rows["low"], rows["high"], color=colour, alpha=0.18, linewidth=0)
        ax.axvline(main, color=FAINT, linewidth=0.8, linestyle=":", zorder=0)
        reference_lines(ax, bounds, metric)
        ax.set(xscale="log", ylim=(-0.03, 1.03))
        ax.set_xticks(doses, [f"{dose:g}" for dose in doses], fontsize=8)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        ax.set_title(heading, fontsize=10, fontweight="normal")
    axes[1].set_xlabel(OVER[over])
    _legend(figure)
    title(figure, _dose_finding(curve[curve["metric"] == "suppression"].sort_values(over), over))
    return figure


def _dose_finding(rows: pd.DataFrame, over: str) -> str:
    """'From 10 to 400 neurons, suppression goes from 6% to 33%; random neurons reach 31% at most'."""
    doses, ours = rows[rows["method"] == "two-stage"][[over, "value"]].to_numpy().T
    control = rows[rows["method"] == "random"]["value"].max()
    if len(doses) < 2:
        return f"Two-stage neurons suppress {ours[0]:.0%}, random ones {control:.0%}"
    swept = f"{doses[0]:g} to {doses[-1]:g} neurons" if over == "n" else f"σ = {doses[0]:g} to {doses[-1]:g}"
    goes = f"From {swept}, suppression goes from {ours[0]:.0%} to {ours[-1]:.0%}"
    return f"{goes}; random neurons reach {control:.0%} at most"


def compared(
    curve: pd.DataFrame, over: str, names: Mapping[str, str], kept: str, bounds: pd.DataFrame | None = None
) -> Figure:
    """Interventions or positions compared: dots with 95 % intervals, a panel a metric, a row a value of `over`.

    `names` has the values and what they are called, the lowest row first; one that was not tried has no row. `bounds`
    are lines.
    """
    shown = {value: name for value, name in names.items() if value in set(curve[over])}
    figure = _against_random(curve, over, shown, axes_of("suppression", kept, "fluent"), bounds)
    _legend(figure)
    title(figure, _compared_finding(curve[curve["metric"] == "suppression"], over, names))
    return figure


def _compared_finding(rows: pd.DataFrame, over: str, names: Mapping[str, str]) -> str:
    """'“zero” suppresses most, 52% (random neurons 2%); “patch” least, 15% (0%)'."""
    ours, control = (dict(rows[rows["method"] == method][[over, "value"]].to_numpy()) for method in COMPARED)
    most, least = max(ours, key=ours.__getitem__), min(ours, key=ours.__getitem__)
    found = f"“{names[most]}” suppresses most, {ours[most]:.0%} (random neurons {control[most]:.0%})"
    last = f"; “{names[least]}” least, {ours[least]:.0%} ({control[least]:.0%})"
    return found if most == least else found + last


def by_concept(
    frame: pd.DataFrame,
    paper: Mapping[str, float],
    kept: str,
    ours: Sequence[str] = (),
    bounds: pd.DataFrame | None = None,
) -> Figure:
    """Suppression and retention of each concept against its control; the paper's mean and `bounds` as lines.

    Concepts in `ours`, which the paper's digest does not name, carry an asterisk.
    """
    rows = frame[frame["metric"] == "suppression"]
    both = rows.pivot_table(index="concept", columns="method", values=["value", "low"])
    both = both.sort_values(("value", "two-stage"))
    shown = {str(name): f"{name} *" if name in ours else str(name) for name in both.index}
    figure = _against_random(frame, "concept", shown, axes_of("suppression", kept), bounds)
    _papers(figure, paper, "the paper's mean")
    _legend(figure)
    above = int((both["low", "two-stage"] > both["value", "random"]).sum())
    where = f"In {above} of {len(both)} concepts"
    title(figure, f"{where} the interval of suppression lies above the random neurons' value")
    return figure


def methods(same: pd.DataFrame, own: pd.DataFrame, paper: Mapping[str, float], kept: str) -> Figure:
    """Suppression and retention of every method, with 95 % intervals: under one noise, and under one of its own.

    `same` is of `methods.compare`, `own` of `methods.compare_own`; rows are drawn in the order of `same`.
    """
    order = list(dict.fromkeys(same["method"]))[::-1]
    colours = [method_colour(method) for method in order]
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.9 + 0.34 * len(order)), sharey=True)
    for ax, (metric, heading) in zip(axes, axes_of("suppression", kept).items(), strict=True):
        rows_of_shares(ax, [label(method) for method in order], heading)
        here, there = (frame[frame["metric"] == metric].set_index("method") for frame in (same, own))
        dots(ax, here, order, colours, shift=0.14)
        dots(ax, there, order, colours, shift=-0.14, marker="D", hollow=True)
    legend = (("o", False, "the same noise"), ("D", True, "its own dose"))
    for marker, hollow, said in legend if len(own) else legend[:1]:
        dots(axes[0], same.iloc[:0], [], INK, marker=marker, hollow=hollow, said=said)
    _papers(figure, paper, "the paper's method")
    _legend(figure)
    title(figure, _against_random_finding(same, kept))
    return figure


def _against_random_finding(table: pd.DataFrame, kept: str) -> str:
    """What the two-stage neurons and random ones do under the same noise: the page's main comparison."""
    wide = table.pivot_table(index="method", columns="metric", values="value")
    said = [
        f"{label(method)} {wide['suppression'][method]:.0%} and {wide[kept][method]:.0%}"
        for method in ("two-stage", "random")
        if method in wide.index
    ]
    return "Suppressed and retained under one noise: " + "; ".join(said)


def among_controls(draws: pd.DataFrame, ours: pd.DataFrame, kept: str, bounds: pd.DataFrame | None = None) -> Figure:
    """Every draw of every control as a dot (`methods.control_draws`), the two-stage neurons and `bounds` as lines.

    `ours` is `methods.among_controls`.
    """
    controls = list(dict.fromkeys(draws["control"]))[::-1]
    colours = {control: method_colour(control) for control in controls}
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.3 + 0.42 * len(controls)), sharey=True)
    for ax, (metric, heading) in zip(axes, axes_of("suppression", kept).items(), strict=True):
        rows = draws[draws["metric"] == metric]
        sns.swarmplot(rows, x="value", y="control", order=controls, hue="control", palette=colours, size=4, ax=ax)
        rows_of_shares(ax, [label(control) for control in controls], heading).set(xlabel="", ylabel="")
        value = ours.loc[ours["metric"] == metric, "value"].iloc[0]
        ax.axvline(value, color=method_colour("two-stage"), linewidth=1.8)
        at = ("data", "axes fraction")
        ax.annotate("two-stage", (value, 1), (3, -9), at, "offset points", fontsize=8, color=method_colour("two-stage"))
        reference_lines(ax, bounds, metric, upright=True)
    if bounds is not None and len(bounds):
        _legend(figure)
    held = draws.merge(ours[["control", "metric", "value"]], on=["control", "metric"], suffixes=("", "_ours"))
    held = held[held["metric"] == "suppression"]
    less = held["value"] < held["value_ours"]
    title(figure, f"Two-stage neurons suppress more than {less.sum()} of {len(less)} random draws")
    return figure


def _against_random(
    frame: pd.DataFrame, by: str, rows: Mapping[str, str], metrics: Mapping[str, str], bounds: pd.DataFrame | None
) -> Figure:
    """A panel a metric, a row for each of `rows` (value of `by` -> name): two-stage neurons above random ones."""
    size = (WIDTH, 1.5 + 0.36 * len(rows))
    figure, axes = plt.subplots(1, len(metrics), figsize=size, sharex=True, sharey=True)
    for ax, (metric, heading) in zip(axes, metrics.items(), strict=True):
        rows_of_shares(ax, list(rows.values()), heading)
        for method, (marker, shift) in COMPARED.items():
            found = frame[(frame["metric"] == metric) & (frame["method"] == method)].set_index(by)
            dots(ax, found, list(rows), method_colour(method), marker=marker, shift=shift, said=label(method))
        reference_lines(ax, bounds, metric, upright=True)
    return figure


def _papers(figure: Figure, paper: Mapping[str, float], said: str) -> None:
    for ax, metric in zip(figure.axes, ("suppression", "retention"), strict=True):
        ax.axvline(paper[metric], color=INK, linewidth=0.9, zorder=1, label=said)


def _legend(figure: Figure) -> None:
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
