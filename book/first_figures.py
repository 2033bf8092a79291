"""The first page's small figures, set into its cards as SVG, which `press.drawn` makes the page's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from book.perturbation.matched import Doses
from book.style import method_colour
from kn_core.drawing import FAINT, INK

SIZE = (1.9, 1.5)  # inches
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
}
SHOWN = {"random": ("s-", "random"), "two-stage": ("o-", "both stages")}


def svg(figure: Figure) -> str:
    """A figure as matplotlib writes it, without what stands before its first tag."""
    out = StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def over_noise(doses: Doses, paper: float) -> Figure:
    """S_se over the noise."""
    figure, ax = _axes()
    for method, (style, name) in SHOWN.items():
        if method in doses.means:
            x, y = doses.sigma[method], doses.means[method][0, :, 0]
            ax.plot(x, y, style, color=method_colour(method), markersize=3, linewidth=1.4)
            ours = method == "two-stage"  # above its end; the other's name under the bend before its end
            place: Any = {"xytext": (0, 4), "ha": "right"} if ours else {"xytext": (5, -2), "ha": "left", "va": "top"}
            end = -1 if ours else max(-2, -len(x))
            ax.annotate(name, (x[end], y[end]), textcoords="offset points", color=_ink(method), **place)
    ax.axhline(paper, color=INK, linewidth=0.8, linestyle="--")
    ax.annotate("the paper", (0, paper), (0, 2), textcoords="offset points")
    ax.set(xlabel="noise σ", ylim=(-0.03, 1.12), yticks=[0, 0.5, 1])
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def who_silences_whom(found: pd.DataFrame, concepts: Sequence[str]) -> Figure:
    """`ownership.silenced` as a map without numbers."""
    wide = found.pivot_table(index="concept", columns="image_concept", values="probability")
    shown = wide.reindex(index=list(concepts), columns=list(concepts)).clip(0, 1)
    figure, ax = _axes()
    ax.pcolormesh(shown.to_numpy(), cmap="magma_r", vmin=0, vmax=1, edgecolors="white", linewidth=0.4)
    ax.set(aspect="equal", xticks=[], xlabel="pictures of")
    ax.set_yticks(np.arange(len(shown)) + 0.5, list(shown.index), fontsize=6.5)
    ax.invert_yaxis()
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


def plane(doses: Doses, paper: Mapping[str, float]) -> Figure:
    """S_re against S_se over the noise, and the paper's point."""
    figure, ax = _plane(paper, xytext=(0, -6), ha="center", va="top")
    for place, (method, (style, name)) in enumerate(SHOWN.items()):
        if method in doses.means:
            x, y = doses.means[method][0].T
            ax.plot(x, y, style, color=method_colour(method), markersize=3, linewidth=1.4)
            ax.text(0.98, 0.99 - 0.12 * place, name, color=_ink(method), transform=ax.transAxes, ha="right", va="top")
    return figure


def third(doses: Doses, chosen: pd.DataFrame, paper: Mapping[str, float]) -> Figure:
    """The recipe and the third stage (`third_stage.main` by metric) in the same plane."""
    figure, ax = _plane(paper, xytext=(-6, 0), ha="right", va="center")
    (recipe, *_), (kept, *_) = doses.at_main("two-stage")
    here = float(chosen["value"]["suppression"]), float(chosen["value"][doses.retention])
    ax.annotate("", here, (recipe, kept), arrowprops={"arrowstyle": "->", "color": FAINT, "shrinkA": 4, "shrinkB": 4})
    for (x, y), method, said in (((recipe, kept), "two-stage", "recipe"), (here, "gradcam-sum", "third stage")):
        ax.plot(x, y, "o", color=method_colour(method), markersize=5)
        place: Any = {"xytext": (4, 5), "va": "bottom"} if y > paper["retention"] else {"xytext": (4, -5), "va": "top"}
        ax.annotate(said, (x, y), textcoords="offset points", ha="right", color=_ink(method), **place)
    return figure


def _axes() -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        return figure, figure.add_subplot()


def _plane(paper: Mapping[str, float], **place: Any) -> tuple[Figure, Axes]:
    figure, ax = _axes()
    ax.plot(paper["suppression"], paper["retention"], "*", color=INK, markersize=9)
    point = paper["suppression"], paper["retention"]
    ax.annotate("the paper", point, textcoords="offset points", **place)
    ax.set(xlabel="name taken away", ylabel="rest kept", xlim=(-0.03, 1.03), ylim=(-0.03, 1.2))
    ax.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    return figure, ax


def _ink(method: str) -> str:
    return INK if method == "random" else method_colour(method)
