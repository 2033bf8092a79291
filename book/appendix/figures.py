"""What stands around the results: neurons that concepts share, thresholds beside the paper's, the training log."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book.stages.figures import PAPER
from book.style import concept_colours, method_colour
from kn_core.drawing import CARD, HEAT, INK, WIDTH, title


def overlap(pairs: pd.DataFrame) -> Axes:
    """`overlap.between_concepts` as a triangle of shared neurons; the shade is the Jaccard index."""
    names = list(dict.fromkeys([*pairs["concept"], *pairs["other"]]))
    n, top = len(names), max(float(pairs["jaccard"].max()), 1e-9)
    figure, ax = plt.subplots(figsize=(WIDTH, 1.6 + 0.36 * n))
    jaccard = np.full((n - 1, n - 1), np.nan)
    for row in pairs.to_dict("records"):
        x, y = names.index(row["concept"]), names.index(row["other"]) - 1
        jaccard[y, x] = row["jaccard"]
        ink = CARD if row["jaccard"] > 0.4 * top else INK
        ax.text(x, y, f"{row['shared']}", ha="center", va="center", color=ink, fontsize=9)
    image = ax.imshow(jaccard, cmap=f"{HEAT}_r", vmin=0, vmax=1.25 * top, aspect="auto")
    ax.set_xticks(range(n - 1), names[:-1], rotation=30, ha="right")
    ax.set_yticks(range(n - 1), names[1:])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=ax, shrink=0.8, label="Jaccard index")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    most = pairs.sort_values("jaccard").iloc[-1]
    chance = f"sets drawn from their layers would share {most['expected_layers']:.1f}"
    title(ax, f"“{most['concept']}” and “{most['other']}” have most in common, {most['shared']} neurons; {chance}")
    return ax


def thresholds(found: pd.DataFrame, paper: Mapping[str, tuple[float, float]]) -> Figure:
    """Both thresholds of every concept (`outcomes.thresholds`), the paper's range a band behind them."""
    names = {"θ_a": "activation difference $\\theta_a$", "θ_g": "gradient score $\\theta_g$"}
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.5 + 0.27 * len(found)), sharey=True)
    colours = concept_colours(found["concept"])
    for ax, (key, words) in zip(axes, names.items(), strict=True):
        ax.axvspan(*paper[key], color=PAPER, zorder=0, label="the paper's range")
        ax.scatter(
            found[key], range(len(found)), 36, [colours[name] for name in found["concept"]], edgecolors=INK, zorder=3
        )
        ax.set(xlabel=words, xscale="log" if key == "θ_g" else "linear")
        ax.grid(visible=True, axis="x")
    axes[0].set_yticks(range(len(found)), found["concept"])
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
    inside = [int(found[key].between(*paper[key]).sum()) for key in names]
    of = f"{inside[0]} of {len(found)} thresholds of the difference and {inside[1]} of the gradient score"
    title(figure, f"In the paper's range lie {of}")
    return figure


def training(log: pd.DataFrame) -> Figure:
    """The projection's training log: loss, and the share of validation pictures whose target is named, over all steps.

    The log's steps start anew with every phase of the training; here they go on.
    """
    phase = (log["step"] == 0).cumsum()
    before = log.groupby(phase)["step"].max().cumsum().shift(fill_value=0)  # steps of the phases before each
    log = log.assign(step=log["step"] + phase.map(before))
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.7))
    colour, rows = method_colour("two-stage"), log[log["loss"] > 0]  # before step 0 there is no loss
    left.plot(rows["step"], rows["loss"], color=colour)
    left.set(xlabel="step", ylabel="loss", ylim=(0, None))
    for name, words, style in (("scenes_named", "scenes", "-"), ("photos_named", "photographs", "--")):
        right.plot(log["step"], log[name], style, color=colour, label=words)
    right.set(xlabel="step", ylabel="target named", ylim=(-0.03, 1.03))
    right.yaxis.set_major_formatter(PercentFormatter(1))
    right.legend(loc="lower right")
    last = log.iloc[-1]
    title(
        figure,
        f"After {last['step']:,.0f} steps the target is named in {last['scenes_named']:.0%} of validation scenes and "
        f"{last['photos_named']:.0%} of held-out photographs",
    )
    return figure
