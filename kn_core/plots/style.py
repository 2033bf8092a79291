"""What all figures share: one colour a concept and a method, the theme, titles that state a finding."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kn_core import tables

WIDTH = 6.0  # inches: 576 px in the book; text of 10 pt is still some 9 px on a telephone of 390 px
INK, FAINT, CARD = (
    "#222222",
    "#8c8c8c",
    "#ffffff",
)  # text, what a finding is compared with, the card that figures lie on
MASK = "#d55e00"  # outlines of masks, on any picture
HEAT, SIGNED = "magma", "RdBu_r"  # sequential and two-sided maps; both keep their order for colour-blind readers

# Concepts: Paul Tol's palette of twelve; what is drawn together in the book comes from the same nine.
CONCEPTS = {
    "bear": "#882255",
    "bed": "#aa4499",
    "bus": "#332288",
    "banana": "#ddcc77",
    "giraffe": "#999933",
    "pizza": "#cc6677",
    "cat": "#44aa99",
    "dog": "#117733",
    "train": "#88ccee",
    "toilet": "#661100",
}
SPARE = ("#6699cc", "#aa4466", "#e08214", "#5d5d5d", "#b2abd2", "#35978f")

# Methods and controls: Okabe and Ito's palette and some more, told apart under protanopia and deuteranopia too.
METHODS = {
    "two-stage": "#0072b2",
    "stage-1": "#e69f00",
    "stage-2": "#009e73",
    "schwettmann": "#d55e00",
    "pan-released": "#bbcc66",
    "pan-gated": "#554400",
    "dai": "#56b4e9",
    "random": FAINT,
    "same-activation": "#b74fd6",
    "same-norm": "#550055",
    "uniform": "#555555",
    "gradcam-sum": "#00523c",
    "activation": "#b0b0b0",
}
LABELS = tables.METHODS | {
    "two-stage": "two-stage neurons",
    "gradcam-sum": "stage 2, summed",
    "activation": "mean activation",
}

RC: Any = {  # matplotlib types its settings one by one
    "figure.figsize": (WIDTH, 3.6),
    "figure.dpi": 150,
    "figure.facecolor": CARD,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": CARD,
    "savefig.dpi": 200,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b0b0b0",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.hashsalt": "kn_core",  # the same bytes on every run
    "svg.fonttype": "path",
}


def theme() -> AbstractContextManager[None]:
    """The book's look, within a block."""
    return mpl.rc_context(RC)


def set_theme() -> None:
    """The book's look, from here on."""
    mpl.rcParams.update(RC)


def concept_colours(concepts: Iterable[str]) -> dict[str, str]:
    """A colour for each concept: its own where it has one, whatever it is drawn with; else the next spare one."""
    concepts = list(dict.fromkeys(concepts))
    strangers = [concept for concept in concepts if concept not in CONCEPTS]
    given = CONCEPTS | {concept: SPARE[i % len(SPARE)] for i, concept in enumerate(strangers)}
    return {concept: given[concept] for concept in concepts}


def method_colour(method: str) -> str:
    """The colour of a method or control. Raises KeyError for one that has none yet: give it one here."""
    return METHODS[method]


def label(method: str) -> str:
    """A method as a legend names it."""
    return LABELS.get(method, method)


def figure_of(ax: Axes) -> Figure:
    """The figure that axes lie on."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def by_concept(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each concept's rows, concepts in the frame's own order."""
    for concept, rows in frame.groupby("concept", sort=False):
        yield str(concept), rows


def title(where: Axes | Figure, finding: str) -> None:
    """Set a finding above axes or a whole figure, flush left, broken before it runs past the right edge."""
    if isinstance(where, Figure):
        where.suptitle(_broken(finding, where.get_figwidth()), x=0.01, ha="left", parse_math=False)
        return
    spec = where.get_subplotspec()
    share = (spec.colspan.stop - spec.colspan.start) / spec.get_gridspec().ncols if spec else 1
    where.set_title(_broken(finding, 0.92 * share * figure_of(where).get_figwidth()), parse_math=False)


def _broken(text: str, inches: float) -> str:
    points = float(mpl.rcParams["axes.titlesize"])
    return textwrap.fill(text, max(12, int(inches * 72 / (0.63 * points))))  # 0.63: the bold font's mean width in ems
