"""Two models of one decoder beside each other: what noise does with either, where their neurons look and lie."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from book.intervals import dots, rows_of_shares
from book.other_models.beyond_projectors import MAPS
from book.other_models.two_studies import DIFFERENCE, QUANTITIES
from book.style import axes_of, label, method_colour
from kn_core.drawing import INK, WIDTH, title

MARKS = {"removal": ("D", -0.32), "chance": ("X", -0.47)}  # marker of what no method does, and how far below its row


def effects(compared: pd.DataFrame, bounds: Mapping[str, pd.DataFrame] | None = None) -> Figure:
    """Suppression and retention of two-stage and random neurons by model (`two_studies.compare`), with its `bounds`."""
    models = list(dict.fromkeys(compared["model"]))[-2::-1]  # all but the difference, the first on top
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.5 + 0.6 * len(models)), sharey=True)
    references = pd.concat([found.assign(model=model) for model, found in (bounds or {}).items()] or [pd.DataFrame()])
    rows = {str(quantity): found.set_index("model") for quantity, found in compared.groupby("quantity")}
    for ax, (metric, heading) in zip(axes, axes_of("suppression", "retention_truth").items(), strict=True):
        rows_of_shares(ax, models, heading)
        dots(ax, rows[metric], models, method_colour("two-stage"), shift=0.12, said=label("two-stage"))
        random = rows[f"{metric}-random"]
        dots(ax, random, models, method_colour("random"), shift=-0.12, hollow=True, said=label("random"))
        for method, (marker, shift) in MARKS.items() if bounds else ():
            known = references[(references["method"] == method) & (references["metric"] == metric)]
            dots(ax, known.set_index("model"), models, INK, marker=marker, shift=shift, said=label(method))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    over = rows["suppression-over-random"]["value"]
    found = " and ".join(f"{100 * over[model]:.0f} with the {model}" for model in models[::-1])
    title(figure, f"Points of suppression over random neurons: {found}")
    return figure


def places(means: pd.DataFrame) -> Figure:
    """Share of each map's positive part on the object by model (`maps.mean_readings` by model and map)."""
    by_model = {str(model): rows.set_index("map") for model, rows in means.groupby("model", sort=False)}
    kinds = {model: [name for name in MAPS if name in rows.index][::-1] for model, rows in by_model.items()}
    tall = [len(names) for names in kinds.values()]
    size = (WIDTH, 1.4 + 0.34 * sum(tall))
    figure, axes = plt.subplots(len(tall), 1, figsize=size, sharex=True, height_ratios=tall, squeeze=False)
    for ax, (model, rows) in zip(axes[:, 0], by_model.items(), strict=True):
        rows_of_shares(ax, [MAPS[name][0] for name in kinds[model]], model)
        inside = rows.rename(columns={"inside": "value", "inside_low": "low", "inside_high": "high"})
        colours = [method_colour("two-stage" if name == "own" else "random") for name in kinds[model]]
        dots(ax, inside, kinds[model], colours)
        ax.axvline(rows["area"].mean(), color=INK, linestyle="--", linewidth=0.9, zorder=0)
    axes[-1, 0].set_xlabel("of the map’s positive part on the object")
    found = ", ".join(f"{rows['inside']['own']:.0%} with the {model}" for model, rows in by_model.items())
    title(figure, f"Of the neurons’ heat lies on the object: {found}")
    return figure


def towers(compared: pd.DataFrame) -> Figure:
    """Each quantity of `two_studies.compare` with either tower."""
    figure, ax = plt.subplots(figsize=(WIDTH, 5.2))
    names = [name for name in QUANTITIES if name in set(compared["quantity"])][::-1]
    by_tower = {tower: rows.set_index("quantity") for tower, rows in compared.groupby("model", sort=False)}
    apart = by_tower.pop(DIFFERENCE)
    for (tower, rows), method, marker, shift in zip(
        by_tower.items(), ("two-stage", "stage-1"), "os", (0.15, -0.15), strict=True
    ):
        dots(ax, rows, names, method_colour(method), marker=marker, shift=shift, said=str(tower))
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(names)), [QUANTITIES[name] for name in names])
    ax.grid(visible=True, axis="x")
    ax.set(xlabel="share, or difference of shares")
    figure.legend(loc="outside lower center", ncols=2)
    moved = int(((apart["low"] > 0) | (apart["high"] < 0)).sum())
    title(figure, f"{moved} of {len(names)} quantities differ between the towers")
    return figure
