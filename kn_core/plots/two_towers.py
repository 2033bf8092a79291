"""Two vision towers before one decoder, side by side."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from kn_core.plots.style import INK, METHODS, WIDTH, title
from kn_core.two_towers import DIFFERENCE
from kn_core.two_towers_page import QUANTITIES

COLOURS = (METHODS["two-stage"], METHODS["stage-1"])  # the towers, in the order of the frame


def towers(compared: pd.DataFrame) -> Figure:
    """Each quantity of `two_towers.compare` with either tower, with 95 % intervals."""
    figure, ax = plt.subplots(figsize=(WIDTH, 4.6))
    names = [name for name in QUANTITIES if name in set(compared["quantity"])]
    shown = [tower for tower in compared["tower"].unique() if tower != DIFFERENCE]
    for place, (tower, colour) in enumerate(zip(shown, COLOURS, strict=True)):
        rows = compared[compared["tower"] == tower].set_index("quantity").loc[names]
        heights = [i + 0.15 * (2 * place - 1) for i in range(len(names))]
        ax.hlines(heights, rows["low"], rows["high"], color=colour, linewidth=1.8)
        ax.plot(rows["value"], heights, "os"[place], color=colour, label=tower)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(names)), [QUANTITIES[name] for name in names])
    ax.invert_yaxis()
    ax.grid(visible=True, axis="x")
    ax.set(xlabel="share, or difference of shares")
    figure.legend(loc="outside lower center", ncols=2)
    apart = compared[compared["tower"] == DIFFERENCE].set_index("quantity").loc[names]
    moved = int(((apart["low"] > 0) | (apart["high"] < 0)).sum())
    title(figure, f"{moved} of {len(names)} quantities differ between the towers")
    return figure
