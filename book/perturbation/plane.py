"""Suppression against retention: every dose of a sweep, of every method, in the plane of the paper's two numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from book.perturbation.readings import harmonic_mean
from book.style import METHODS, READINGS, label, method_colour
from kn_core.drawing import CARD, FAINT, INK, WIDTH, figure_of, title

FLUENT = 0.8  # paper/claims.yml calls the language intact while this share of captions reads as sentences
COMPARED = ("two-stage", "random")
LINES: dict[str, Any] = {"n": "-", "sigma": "--"}
# Behind words that lie on curves; a halo around letters would draw them as outlines, which no reader can search.
PATCH: dict[str, Any] = {"facecolor": CARD, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")


def trade_off(
    curves: Mapping[str, pd.DataFrame],
    paper: Mapping[str, float],
    main: Mapping[str, float],
    kept: str,
    bounds: pd.DataFrame | None = None,
) -> Axes:
    """A line a sweep and method, discs as large as the share of fluent captions, the paper's point as a star.

    `curves` by what they sweep ('n', 'sigma'), `main` the main setting's dose of each sweep, `kept` the reading of S_re
    that is drawn. A disc is hollow where fewer than `FLUENT` of the captions read as sentences.
    """
    ax, star = _plane(kept), (paper["suppression"], paper["retention"])
    points = pd.concat([_points(curve, over, kept) for over, curve in curves.items()], ignore_index=True)
    for method, over in product(COMPARED, curves):
        rows, colour = points[(points["method"] == method) & (points["over"] == over)], method_colour(method)
        ax.plot(rows["suppression"], rows["retention"], LINES[over], color=colour, linewidth=1, alpha=0.7, zorder=2)
        face = [colour if share >= FLUENT else CARD for share in rows["fluent"]]
        ax.scatter(rows["suppression"], rows["retention"], 15 + 90 * rows["fluent"], face, edgecolors=colour, zorder=3)
        if method == "two-stage":
            _doses(ax, rows[rows["dose"] != main[over]], over)
    ours = points[(points["method"] == "two-stage") & (points["dose"] == points["over"].map(main))].iloc[:1]
    ax.scatter(ours["suppression"], ours["retention"], 260, "none", edgecolors=INK, linewidths=1.3, zorder=4)
    ax.scatter(*star, 130, INK, marker="*", zorder=4)
    ax.annotate("the paper", star, (-7, 4), textcoords="offset points", fontsize=9, ha="right")
    _bounds(ax, bounds, kept)
    ax.grid(visible=True, axis="both")
    _key(ax, list(curves))
    title(ax, _trade_off_finding(points, star))
    return ax


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


def frontier(curve: pd.DataFrame, kept: str, own: Mapping[str, float], bounds: pd.DataFrame | None = None) -> Axes:
    """Suppression against retention over the noise's strength, a line a method; a disc's area is its fluent share.

    `own` is each method's noise (`matched.own_doses`), which the title compares them under: the best of these very
    pictures would be a choice made on what it reports. `bounds` are `references.bounds`.
    """
    ax, points = _plane(kept), _points(curve, "sigma", kept)
    for place, method in enumerate(method for method in METHODS if method in set(points["method"])):
        rows, colour = points[points["method"] == method], method_colour(method)
        ax.plot(rows["suppression"], rows["retention"], color=colour, linewidth=1.3, alpha=0.9, zorder=2)
        style: Any = {"marker": MARKERS[place % len(MARKERS)], "edgecolor": CARD, "linewidth": 0.6, "zorder": 3}
        size = 8 + 60 * rows["fluent"]
        ax.scatter(rows["suppression"], rows["retention"], size, colour, label=label(method), **style)
    steps = np.linspace(0.02, 1, 50)
    for level in (0.3, 0.5, 0.7):  # all points of which the harmonic mean is this
        line = level * steps / (2 * steps - level).clip(1e-9)
        ax.plot(steps, line, color=FAINT, linewidth=0.6, linestyle=":", zorder=0)
        ax.annotate(f"{level:g}", (1.0, line[-1]), (3, 0), textcoords="offset points", fontsize=7, color=FAINT)
    _bounds(ax, bounds, kept)
    figure_of(ax).legend(loc="outside lower center", ncols=3)
    points = points[points["dose"] == points["method"].map(own)].set_index("method")
    best = harmonic_mean(points["suppression"], points["retention"]).sort_values(ascending=False)
    said = [f"{label(str(name))} {best[name]:.2f}" for name in dict.fromkeys(("two-stage", "random", best.index[0]))]
    title(ax, "Harmonic mean of both, each under its own noise: " + "; ".join(said))
    return ax


def _bounds(ax: Axes, bounds: pd.DataFrame | None, kept: str) -> None:
    """Crosses where no neuron is disturbed: nothing done, the object removed, another concept's caption."""
    if bounds is None or bounds.empty:
        return
    wide = bounds.pivot_table(index="method", columns="metric", values="value")
    for method, row in wide.iterrows():
        place = row["suppression"], row[kept]
        ax.scatter(*place, 55, INK, marker="+", linewidth=1.2, zorder=3)
        low = place[1] < 0.15  # where curves end, which the name then stands above, on a stalk
        side: Any = {"ha": "left" if place[0] < 0.5 else "right", "va": "bottom", "fontsize": 7.5, "zorder": 5}
        side |= {"bbox": PATCH}
        stalk = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "relpos": (1 if place[0] >= 0.5 else 0, 0)}
        side |= {"arrowprops": stalk} if low else {}
        above, name = (62 if low else 4), METHODS[str(method)].label
        said = fill(name, 17) if low else name  # or on a narrow drawing it would reach into the curves
        ax.annotate(said, place, (0, above), textcoords="offset points", **side)


def _plane(kept: str) -> Axes:
    _, ax = plt.subplots(figsize=(WIDTH, 4.6))
    ax.set(xlim=(-0.04, 1.08), xlabel="suppression $S_{se}$ (the concept is no longer named)")
    ax.set(ylim=(-0.04, 1.08), ylabel=f"{READINGS[kept].axis} (share that stays)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    return ax


def _points(curve: pd.DataFrame, over: str, kept: str) -> pd.DataFrame:
    """One row a point of the plane: method, over, dose, suppression, retention (the reading `kept`), fluent."""
    wide = curve.pivot_table(index=["method", over], columns="metric", values="value", dropna=False).reset_index()
    wide = wide.assign(dose=wide[over], over=over, retention=wide[kept])
    return wide[["method", "over", "dose", "suppression", "retention", "fluent"]].dropna()


def _doses(ax: Axes, rows: pd.DataFrame, over: str) -> None:
    """Doses beside their discs, of the two sweeps on either side."""
    name, shift, side = ("n", (-9, -4), "right") if over == "n" else ("σ", (6, 6), "left")
    told: list[tuple[float, float]] = []
    for row in rows.to_dict("records"):
        place = (row["suppression"], row["retention"])
        if any(math.dist(place, other) < 0.06 for other in told):  # one would stand on the other
            continue
        told.append(place)
        text: Any = {"textcoords": "offset points", "ha": side, "fontsize": 7.5, "bbox": PATCH, "zorder": 5}
        ax.annotate(f"{name} = {row['dose']:g}", place, shift, **text)


def _key(ax: Axes, swept: Sequence[str]) -> None:
    handles = [Line2D([], [], color=method_colour(name), marker="o", label=label(name)) for name in COMPARED]
    names = {"n": "number of neurons swept", "sigma": "noise swept"}
    handles += [Line2D([], [], color=FAINT, linestyle=LINES[over], label=names[over]) for over in swept]
    plain: Any = {"color": "none", "markeredgecolor": INK, "linestyle": "", "marker": "o"}
    handles.append(Line2D([], [], markersize=12, label="main setting", **plain))
    handles.append(Line2D([], [], markersize=6, label=f"under {FLUENT:.0%} fluent", **plain))
    figure_of(ax).legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
