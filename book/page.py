"""What a page of the book does with its study: its concepts, its words, its tables and figures, its claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from book import tables
from kn_core.fingerprint import writing
from kn_core.study.study import Study


def save_table(study: Study, frame: pd.DataFrame, name: str) -> Path:
    """`results/<profile>/tables/<name>.csv`."""
    path = study.folder / "tables" / f"{name}.csv"
    with writing(path) as temporary:
        frame.to_csv(temporary, index=False)
    return path


def save_figure(study: Study, figure: Figure, name: str) -> Path:
    """`results/<profile>/figures/<name>.svg` and `.png`; the path of the first.

    The figure is laid out once: what is drawn of it afterwards, by the notebook too, looks the same.
    """
    for suffix in ("png", "svg"):
        path = study.folder / "figures" / f"{name}.{suffix}"
        with writing(path) as temporary:
            figure.savefig(
                temporary, format=suffix, bbox_inches="tight", metadata={"Date": None} if suffix == "svg" else None
            )
        figure.set_layout_engine("none")
    return path


Studies = Mapping[str, Study]  # two of them, by what tells them apart


@dataclass(frozen=True, eq=False)
class Page:
    """What a page shows of two studies.

    Its tables and figures are saved beside the first study, as `<prefix>_<name><ending>`.
    """

    prefix: str
    notice: str
    words: Mapping[str, str]
    frames: Mapping[str, pd.DataFrame]
    readable: Mapping[str, pd.DataFrame]
    studies: Studies
    ending: str = ""

    def table(self, name: str, caption: str) -> Styler:
        """One of the tables, whose frame is also saved."""
        save_table(self._first, self.frames[name], f"{self.prefix}_{name}{self.ending}")
        return tables.table(self.readable[name], caption)

    def save_figure(self, figure: Figure, name: str) -> None:
        save_figure(self._first, figure, f"{self.prefix}_{name}{self.ending}")

    @property
    def _first(self) -> Study:
        return next(iter(self.studies.values()))
