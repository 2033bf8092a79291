"""Pictures through the constraints."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from book.style import method_colour
from kn_core.drawing import WIDTH, title


def funnel(attrition: pd.DataFrame, names: Mapping[str, str]) -> Axes:
    """Pictures left after each constraint (`pairs.attrition`), of all concepts, and what it cost; `names` words it."""
    left = attrition.groupby("constraint", sort=False)["left"].sum().astype(int)
    lost = -left.diff().fillna(0).astype(int)
    words = [names.get(str(step), str(step)) for step in left.index]
    _, ax = plt.subplots(figsize=(WIDTH, 0.65 + 0.55 * len(left)))
    ax.barh(range(len(left)), left, height=0.4, color=method_colour("two-stage"))
    for place, (said, count, gone) in enumerate(zip(words, left, lost, strict=True)):
        ax.text(0, place - 0.27, said, va="bottom")
        ax.text(count, place, f" {count:,}" + (f" (−{gone:,})" if gone else ""), va="center", fontweight="bold")
    ax.set(xlabel="pictures left", xlim=(0, 1.2 * left.iloc[0]), ylim=(len(left) - 0.6, -0.75), yticks=[])
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    costly = f"; the costliest: “{words[lost.argmax()]}”" if lost.max() > 0 else ""
    title(ax, f"{left.iloc[-1]:,} of {left.iloc[0]:,} pictures pass every constraint{costly}")
    return ax
