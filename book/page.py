"""What a page of the book does with its study: its concepts, its words, its tables and figures, its claims.

page = Page("stage-1", profile, concept)
page.say({"kept": 37})                                 # {glue:text}`kept` in the text
page.table(counts, "How many neurons each stage leaves", "stages")
page.figure(figures.funnel(frame), "funnel")           # drawn below the cell, and kept as SVG and PNG
page.settled()                                         # the claims that this page decides
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from myst_nb import glue
from pandas.io.formats.style import Styler

from book import claims_table, tables
from kn_core.concepts import slug
from kn_core.drawing import figure_of, set_theme
from kn_core.fingerprint import writing
from kn_core.profile import load_profile
from kn_core.study.study import Study


class Page:
    """The page `name` (its file in `book/`, without the suffix) of a profile's book, for one concept or for all.

    What it keeps lies under `results/<profile>/tables` and `figures`; of one concept, with `-<concept>` at the end.
    """

    def __init__(self, name: str, profile: str, concept: str | None = None, study: Study | None = None) -> None:
        """`study`: the page's, where that of the profile is not meant."""
        set_theme()
        self.name, self.concept = name, concept
        self.study = study or Study(load_profile(profile))
        self.suffix = f"-{slug(concept)}" if concept else ""

    @cached_property
    def concepts(self) -> list[str]:
        """The concepts that the page speaks of."""
        return [self.concept] if self.concept else self.study.studied()

    def say(self, words: Mapping[str, object], prefix: str = "") -> None:
        """Make each of the words known to the text, as `{glue:text}` of its key behind the prefix."""
        for key, value in words.items():
            glue(f"{prefix}{key}", str(value), display=False)

    def save(self, frame: pd.DataFrame, name: str) -> None:
        """Keep a frame as `tables/<name>.csv`."""
        with writing(self.study.folder / "tables" / f"{name}{self.suffix}.csv") as temporary:
            frame.to_csv(temporary, index=False)

    def table(
        self,
        frame: pd.DataFrame,
        caption: str,
        name: str = "",
        formats: Mapping[str, str] | None = None,
        shown: pd.DataFrame | None = None,
    ) -> Styler:
        """A frame for a reader (`tables.table`), kept under `name` where it has one; `shown` stands in for it."""
        if name:
            self.save(frame, name)
        return tables.table(frame if shown is None else shown, caption, formats)

    def figure(self, drawn: Figure | Axes, name: str) -> None:
        """Keep a figure as `figures/<name>.svg` and `.png`; the notebook draws it below the cell."""
        save_figure(self.study, drawn if isinstance(drawn, Figure) else figure_of(drawn), f"{name}{self.suffix}")

    def settled(self) -> Styler | str:
        """The claims that the page settles, with verdicts; of one concept alone none is decided."""
        if self.concept:
            return f"Not decided by '{self.concept}' alone."
        return tables.claim_rows(claims_table.settled(self.study, self.name), "The claims that this page settles")


def save_figure(study: Study, figure: Figure, name: str) -> Path:
    """`results/<profile>/figures/<name>.svg` and `.png`, which knows its own words; the path of the first.

    The figure is laid out once: what is drawn of it afterwards, by the notebook too, looks the same.
    """
    words = [text.get_text() for ax in figure.axes for text in (ax.title, ax.xaxis.label) if text.get_text()]
    for suffix in ("png", "svg"):
        path = study.folder / "figures" / f"{name}.{suffix}"
        with writing(path) as temporary:
            known = {"Date": None} if suffix == "svg" else {"Description": " ".join(words)}
            figure.savefig(temporary, format=suffix, bbox_inches="tight", metadata=known)
        figure.set_layout_engine("none")
    return path
