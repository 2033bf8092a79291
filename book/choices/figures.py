"""The ladder, the third stage over the number of neurons, and attributions against exact patches."""

from __future__ import annotations

from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from book.choices.attributions import READ, SCORES
from book.choices.ladder import DONE, STEPS, name, order
from book.choices.third_stage import smallest
from book.intervals import dots, reference_lines, rows_of_shares
from book.perturbation.readings import READ_BY
from book.style import READINGS
from kn_core.drawing import FAINT, INK, WIDTH, title
from kn_core.study.experiments.ladder import CONTROL, PAPER

LOOKS = {"noise": ("s", "#d55e00"), "mean": ("s", "#d55e00"), "zero": ("o", "#0072b2"), "patch": ("D", "#009e73")}
HEADS = {"suppression": "suppression", "retention_truth": "retention,\ntruth", "retention": "retention,\nwords"}
HEADS |= {"retention_probability": "retention,\nprobability", "fluent": "fluent"}


def ladder(effects: pd.DataFrame, kept: str, bounds: pd.DataFrame | None = None) -> Figure:
    """`ladder.effects`: a row a step, from the paper's recipe down; a mark an intervention, random neurons hollow.

    `kept` is the reading of S_re that is drawn beside that by probability; `bounds` (`references.bounds`) are lines.
    """
    metrics = ("suppression", kept, "retention_probability", "fluent")
    steps = list(dict.fromkeys(step for step, _ in order(effects)))[::-1]
    tried = list(dict.fromkeys(effects["intervention"]))
    size = (WIDTH, 1.5 + 0.36 * len(steps))
    figure, axes = plt.subplots(1, len(metrics), figsize=size, sharex=True, sharey=True)
    names = [fill(name(step), 30) for step in steps]
    for ax, metric in zip(axes, metrics, strict=True):
        rows_of_shares(ax, names, HEADS[metric]).tick_params(axis="y", labelsize=8)
        ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        reference_lines(ax, bounds, metric, upright=True, said=ax is axes[0])
        of = effects[effects["metric"] == metric]
        for place, how in enumerate(tried):
            marker, colour = LOOKS[how]
            shift = 0.16 * (len(tried) - 1) / 2 - 0.16 * place
            mine = of[of["intervention"] == how].set_index("step")
            chosen, random = mine[mine["whose"] == "chosen"], mine[mine["whose"] == CONTROL]
            dots(ax, chosen, steps, colour, marker=marker, shift=shift, said=DONE[how] if ax is axes[0] else None)
            ax.scatter(random.reindex(steps)["value"], range(len(steps)), 12, "none", edgecolors=FAINT, zorder=1)
    axes[0].scatter([], [], 12, "none", edgecolors=FAINT, label="random, same layers")
    figure.legend(loc="outside lower center", ncols=3)
    cells = effects[effects["whose"] == "chosen"].set_index(["step", "intervention", "metric"])["value"]
    ends = [(PAPER, tried[0]), (list(STEPS)[-1], tried[1] if len(tried) > 1 else tried[0])]
    first, last = ([cells.get((*end, metric), float("nan")) for metric in metrics[:2]] for end in ends)
    ends_said = [f"{a:.0%} and {b:.0%}" for a, b in zip(first, last, strict=True)]
    title(figure, f"The paper's recipe and the last choice: suppression {ends_said[0]}, retention {ends_said[1]}")
    return figure


def budgets(by_n: pd.DataFrame, paper: dict[str, float], kept: str, bounds: pd.DataFrame | None = None) -> Figure:
    """`third_stage.by_budget`: suppression and retention over the number of neurons, the paper's own values dotted.

    `kept` is the reading of S_re that the paper's is held against, and of `bounds` (`references.bounds`), its lines.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 3.0))
    least, dotted = smallest(by_n, kept), {"suppression": paper["suppression"], kept: paper["retention"]}
    colours = {
        "suppression": "#0072b2",
        "retention_truth": "#009e73",
        "retention": "#d55e00",
        "retention_probability": "#c98000",
        "fluent": "#555555",
    }
    for metric, colour in colours.items():
        if metric not in set(by_n["metric"]):
            continue
        rows = by_n[by_n["metric"] == metric].sort_values("n")
        ax.plot(rows["n"], rows["value"], "o-", markersize=4, color=colour, label=READINGS[metric].label)
        ax.fill_between(rows["n"], rows["low"], rows["high"], color=colour, alpha=0.14, linewidth=0)
        if metric in dotted:
            ax.axhline(dotted[metric], color=colour, linewidth=0.8, linestyle=":")
    reference_lines(ax, bounds, kept, said=False)
    numbers = sorted(by_n["n"].unique())
    ax.set(xscale="log", ylim=(-0.03, 1.03), xlabel="neurons of the third stage")
    ax.set_xticks(numbers, [f"{n:g}" for n in numbers])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside lower center", ncols=4)
    found = f"{least} neurons reach" if least else f"No number from {numbers[0]:g} to {numbers[-1]:g} reaches"
    title(ax, f"{found} the paper’s suppression and, {READ_BY[kept]}, its retention at once")
    return figure


def attributions(agreement: pd.DataFrame) -> Figure:
    """`attributions.agreement`: a row a score, a panel a reading; filled over all neurons, hollow over its own best."""
    shown = [score for score in SCORES if score in set(agreement["method"])][::-1]
    figure, axes = plt.subplots(1, len(READ), figsize=(WIDTH, 1.3 + 0.3 * len(shown)), sharey=True)
    for ax, (reading, heading) in zip(axes, READ.items(), strict=True):
        of = agreement[agreement["reading"] == reading].set_index("method")
        rows_of_shares(ax, [SCORES[score] for score in shown], heading).tick_params(axis="y", labelsize=8)
        ax.set_xlim(min(0, of[["value", "low"]].min().min()) - 0.04, 1.04)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_title(heading, fontsize=9, fontweight="normal")
        dots(ax, of[of["over"] == "all"], shown, "#0072b2", shift=0.13)
        dots(ax, of[of["over"] == "own"], shown, "#d55e00", shift=-0.13, marker="D", hollow=True)
        ax.axvline(0, color=INK, linewidth=0.6)
    axes[0].scatter([], [], 26, "#0072b2", label="all patched neurons")
    axes[0].scatter([], [], 26, "none", marker="D", edgecolors="#d55e00", label="the fifth that the score puts first")
    figure.legend(loc="outside lower center", ncols=2)
    ranks = agreement[(agreement["reading"] == "spearman") & (agreement["over"] == "all")].set_index("method")["value"]
    best = str(ranks.idxmax())
    title(
        figure,
        f"Closest to exact patches: {SCORES[best]}, ρ = {ranks[best]:.2f}; the paper’s score, {ranks['gradcam']:.2f}",
    )
    return figure
