"""What stands around the results: neurons that concepts share, the training log."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book.style import method_colour
from kn_core.drawing import HEAT, WIDTH, title


def overlap(pairs: pd.DataFrame) -> Axes:
    """`between_concepts` as a triangle of shared neurons; the shade is the Jaccard index. Of one concept: nothing."""
    if pairs.empty:
        _, ax = plt.subplots(figsize=(WIDTH, 0.8))
        ax.set_axis_off()
        title(ax, "One concept alone has no neurons in common with another")
        return ax
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
    chance = f"sets drawn from their layers, {pairs['expected_layers'].mean():.1f}"
    title(ax, f"Two concepts share {pairs['shared'].median():g} neurons in the median; {chance}")
    return ax


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
