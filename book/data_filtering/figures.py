"""Pictures through the constraints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from book.style import concept_colours
from kn_core.drawing import WIDTH, figure_of, title


def funnel(attrition: pd.DataFrame, names: Mapping[str, str]) -> Axes:
    """Pictures left after each constraint (`pairs.attrition`), stacked by concept; `names` words constraints."""
    left = attrition.pivot_table("left", "constraint", "concept", sort=False)  # both in the frame's order
    total, words = left.sum(axis=1).astype(int), [names.get(step, step) for step in left.index]
    colours: Any = concept_colours(map(str, left))
    _, ax = plt.subplots(figsize=(WIDTH, 0.65 + 0.55 * (1 + len(left))))
    left.plot.barh(ax=ax, stacked=True, width=0.4, color=colours, legend=False)
    for place, (said, count) in enumerate(zip(words, total, strict=True)):
        ax.text(0, place - 0.27, said, va="bottom")
        ax.text(count, place, f" {count:,}", va="center", fontweight="bold")
    ax.set(xlabel="pictures left", ylabel="", xlim=(0, 1.1 * total.iloc[0]), ylim=(len(left) - 0.6, -0.75), yticks=[])
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    if left.shape[1] > 1:
        figure_of(ax).legend(ncols=5, loc="outside lower center", handlelength=1, columnspacing=1)
    lost = -total.diff().fillna(0).to_numpy()
    costly = f"; the costliest: “{words[lost.argmax()]}”" if lost.max() > 0 else ""
    title(ax, f"{total.iloc[-1]:,} of {total.iloc[0]:,} pictures pass every constraint{costly}")
    return ax
