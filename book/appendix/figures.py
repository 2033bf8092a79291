"""What stands around the results: neurons that concepts share, thresholds beside the paper's, the training log."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book.claims.evidence import PAPER_A, PAPER_G
from book.stages.figures import PAPER
from book.style import concept_colours, method_colour
from kn_core.drawing import HEAT, INK, WIDTH, title


def overlap(pairs: pd.DataFrame) -> Axes:
    """`between_concepts` as a triangle of shared neurons; the shade is the Jaccard index."""
    names = list(dict.fromkeys([*pairs["concept"], *pairs["other"]]))
    shared, jaccard = (
        pairs.pivot_table(of, "other", "concept").reindex(index=names[1:], columns=names[:-1])
        for of in ("shared", "jaccard")
    )
    _, ax = plt.subplots(figsize=(WIDTH, 1.6 + 0.36 * len(names)))
    most = pairs.sort_values("jaccard").iloc[-1]
    bar = {"shrink": 0.8, "label": "Jaccard index", "format": PercentFormatter(1)}
    limits = {"vmin": 0, "vmax": 1.25 * max(most["jaccard"], 1e-9)}
    numbers = {"annot": shared, "fmt": ".0f", "annot_kws": {"fontsize": 9}}
    sns.heatmap(jaccard, cmap=f"{HEAT}_r", cbar_kws=bar, ax=ax, **limits, **numbers)
    ax.set(xlabel="", ylabel="")
    ax.tick_params(axis="x", rotation=30)
    ax.tick_params(axis="y", rotation=0)
    ax.grid(visible=False)
    chance = f"sets drawn from their layers would share {most['expected_layers']:.1f}"
    title(ax, f"“{most['concept']}” and “{most['other']}” have most in common, {most['shared']} neurons; {chance}")
    return ax


def thresholds(found: pd.DataFrame) -> Figure:
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
