"""What a page of the book does with its study: its concepts, its words, its tables and figures, its claims.

page = Page("stage-1", profile, concept)
page.say({"kept": 37})                                 # {glue:text}`kept` in the text
page.table(counts, "How many neurons each stage leaves", "stages")
page.figure(figures.funnel(frame), "funnel")           # drawn below the cell, and kept as SVG and PDF
page.settled()                                         # the claims that this page decides
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from myst_nb import glue
from pandas.io.formats.style import Styler

from book import claims_table, tables
from book.narrow import narrow
from kn_core.concepts import slug
from kn_core.drawing import figure_of, set_theme
from kn_core.fingerprint import writing
from kn_core.profile import load_profile
from kn_core.study.study import Study

FORMATS = ("pdf", "svg")  # of a figure, for papers and for the book
SAVED = "saved:"  # before the name of a table, among the words that a notebook keeps
COUNTED = "counted:"  # before the name of a figure, whose pictures were counted


class Page:
    """The page `name` (its file in `book/`, without the suffix) of a profile's book, for one concept or for all.

    What it keeps lies under `results/<profile>/tables` and `figures`; of one concept, with `-<concept>` at the end.
    """

    def __init__(self, name: str, profile: str, concept: str | None = None, study: Study | None = None) -> None:
        """`study`: the page's, where that of the profile is not meant; `concept` may be one that it does not list."""
        set_theme()
        self.name, self.concept = name, concept
        settings = load_profile(profile)
        self.study = study or Study(settings.with_concept(concept) if concept else settings)
        began = time.perf_counter()
        self.study.store.begins = lambda artefact: sys.stderr.write(
            f"{name}: {artefact}, after {time.perf_counter() - began:.0f} s\n"
        )
        self.suffix = f"-{slug(concept)}" if concept else ""

    @cached_property
    def concepts(self) -> list[str]:
        """The concepts that the page speaks of."""
        return [self.concept] if self.concept else self.study.studied()

    @property
    def selection(self) -> str:
        """How many pictures chose the page's neurons, for `figure`."""
        pairs = self.study.pairs()
        chose = pairs[(pairs["role"] == "select") & pairs["concept"].isin(self.concepts)]
        return f"{tables.n_pictures(chose)}, which chose the neurons"

    def say(self, words: Mapping[str, object], prefix: str = "") -> None:
        """Make each of the words known to the text, as `{glue:text}` of its key behind the prefix."""
        for key, value in words.items():
            glue(f"{prefix}{key}", str(value), display=False)

    def save(self, frame: pd.DataFrame, name: str) -> None:
        """Keep a frame as `tables/<name>.csv`."""
        file = f"{name}{self.suffix}.csv"
        with writing(self.study.folder / "tables" / file) as temporary:
            frame.to_csv(temporary, index=False)
        glue(f"{SAVED}{file}", file, display=False)  # the page's first lines lead to it (`press.book`)

    def table(
        self,
        frame: pd.DataFrame,
        caption: str,
        name: str = "",
        formats: Mapping[str, str] | None = None,
        shown: pd.DataFrame | None = None,
    ) -> Styler:
        """A frame for a reader (`tables.table`), kept under `name` where it has one; `shown` stands in for it.

        The caption says of how many pictures it is, where the frame has a column `n_images`.
        """
        if name:
            self.save(frame, name)
        return tables.table(frame if shown is None else shown, tables.counted(caption, frame), formats)

    def figure(self, drawn: Figure | Axes, name: str, of: pd.DataFrame | str = "", *, preview: bool = False) -> None:
        """Keep a figure as `figures/<name>.svg` and `.pdf`, and show the first below the cell.

        `of`: the frame that is drawn, or words, for how many pictures it is of: its caption ends with that. `preview`:
        as `.png` too, for where the book is spoken of.
        """
        if counted := tables.n_pictures(of) if isinstance(of, pd.DataFrame) else of:
            glue(f"{COUNTED}{name}", counted, display=False)  # `press.book` ends the caption with it
        figure = drawn if isinstance(drawn, Figure) else figure_of(drawn)
        path = save_figure(self.study, figure, f"{name}{self.suffix}", preview=preview)
        plt.close(figure)  # else the notebook would draw it once more
        display({"image/svg+xml": path.read_text(encoding="utf-8")}, raw=True)  # type: ignore[no-untyped-call]

    def settled(self) -> Styler | str:
        """The claims that the page settles, with verdicts; of one concept alone none is decided."""
        if self.concept:
            return f"Not decided by '{self.concept}' alone."
        return tables.claim_rows(claims_table.settled(self.study, self.name), "The claims that this page settles")


def save_figure(study: Study, figure: Figure, name: str, *, preview: bool = False) -> Path:
    """`results/<profile>/figures/<name>.svg` and `.pdf`, and `.png`, which knows its own words; the path of the first.

    `<name>-narrow.svg` is for telephones: the book finds it by the figure's id, which is its name. The figure is laid
    out once.
    """
    words = [text.get_text() for ax in figure.axes for text in (ax.title, ax.xaxis.label) if text.get_text()]
    known: dict[str, dict[str, Any]] = {"png": {"Description": " ".join(words)}}
    known |= {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    figure.set_gid(f"figure:{name}")
    _save(study, narrow(figure), f"{name}-narrow.svg", known["svg"])
    for suffix in ("png", *FORMATS) if preview else FORMATS:
        path = _save(study, figure, f"{name}.{suffix}", known[suffix])
        figure.set_layout_engine("none")
    return path


def _save(study: Study, figure: Figure, name: str, known: dict[str, Any]) -> Path:
    path = study.folder / "figures" / name
    with writing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], bbox_inches="tight", metadata=known)
    return path
