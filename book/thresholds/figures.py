"""Thresholds: those of the run beside the paper's, and what share of false ones each would leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from book.claims.evidence import PAPER_A, PAPER_G
from book.stages.figures import PAPER
from book.style import by_concept, concept_colours, concept_dashes
from book.thresholds.rules import RULES
from kn_core.drawing import FAINT, INK, WIDTH, title
from kn_core.study.experiments.null_thresholds import OWN

AXES = {
    "difference": "threshold $\\theta_a$ of the difference",
    "contrast": "threshold $T$ of the contrast $W$",
}


def false_shares(curves: pd.DataFrame, rules: pd.DataFrame, q: float, names: Mapping[str, str]) -> Figure:
    """The estimated share of false ones over both kinds of threshold (`rules.curves`), with the place of each rule.

    `rules` is `rules.of_all`, q what rules from the null allow; `names` says what the legend calls each rule.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.6), sharey=True)
    colours, dashes = concept_colours(curves["concept"]), concept_dashes(curves["concept"].unique())
    for ax, (scale, words) in zip(axes, AXES.items(), strict=True):
        for concept, rows in by_concept(curves[curves["scale"] == scale]):
            ax.plot(
                rows["threshold"], rows["false_share"], color=colours[concept], linestyle=dashes[concept], linewidth=1.2
            )
        for name in names:
            placed = rules[(rules["rule"] == name) & (rules["scale"] == scale) & (rules["candidates"] > 0)]
            look: Any = {"marker": RULES[name].marker, "edgecolors": INK, "linewidths": 0.6, "zorder": 3}
            ax.scatter(placed["threshold"], placed["false_share"], 26, placed["concept"].map(colours), **look)
        ax.axhline(q, color=FAINT, linestyle="--", linewidth=1)
        ax.set(xscale="log", xlabel=words, ylim=(0, 1.03))
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    axes[0].axvspan(*PAPER_A, color=PAPER, zorder=0)
    axes[0].set_ylabel("estimated share of false candidates")
    lines = [
        Line2D([], [], color=colour, linestyle=dashes[concept], label=concept) for concept, colour in colours.items()
    ]
    plain: Any = {"linestyle": "", "markerfacecolor": "none", "markeredgecolor": INK}
    marks = [Line2D([], [], marker=RULES[name].marker, label=words, **plain) for name, words in names.items()]
    marks.append(Line2D([], [], color=FAINT, linestyle="--", label=f"{q:.0%} false"))
    figure.legend(handles=[*lines, *marks], loc="outside lower center", ncols=3, fontsize=8)
    own = rules[rules["rule"] == OWN]["false_share"]
    found = f"{own.min():.0%} to {own.max():.0%} of a concept’s candidates are estimated to be false"
    title(figure, f"At the {names[OWN]}, {found}")
    return figure


def table_4(found: pd.DataFrame) -> Figure:
    """Both thresholds of every concept (`neurons.thresholds`), the paper's range a band behind them."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.5 + 0.27 * len(found)), sharey=True)
    inside = []
    for ax, key, words, scale, paper in (
        (axes[0], "θ_a", "activation difference $\\theta_a$", "linear", PAPER_A),
        (axes[1], "θ_g", "gradient score $\\theta_g$", "log", PAPER_G),
    ):
        ax.axvspan(*paper, color=PAPER, zorder=0, label="the paper's range")
        ax.set_xscale(scale)
        colours = {"hue": "concept", "palette": concept_colours(found["concept"]), "edgecolor": INK, "legend": False}
        sns.stripplot(found, x=key, y="concept", jitter=False, size=6, linewidth=1, ax=ax, zorder=3, **colours)
        ax.set(xlabel=words, ylabel="")
        ax.grid(visible=True, axis="x")
        inside.append(int(found[key].between(*paper).sum()))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
    of = f"{inside[0]} of {len(found)} thresholds of the difference and {inside[1]} of the gradient score"
    title(figure, f"In the paper's range lie {of}")
    return figure
