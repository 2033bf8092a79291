"""Tidy frame in, HTML table out: the book's tables look alike, and come out the same on every build."""

from __future__ import annotations

import html
import re
from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler


def chip(verdict: object) -> str:
    """A verdict as the book shows it: the words, and the shape that book/_static/kn.css sets before them."""
    words = html.escape(str(verdict))
    return f'<span class="verdict {words.replace(" ", "-")}">{words}</span>'


def table(frame: pd.DataFrame, caption: str, formats: Mapping[str, str] | None = None) -> Styler:
    """`frame` without its index, under `caption` (which names it on its page: no two tables of a page may share one).

    Numbers are shown to three digits where `formats` (column -> '{:.2f}') says nothing else; a column `verdict` becomes
    chips; text stands flush left, numbers flush right. Wide frames scroll in a box of their own.
    """
    words: list[Hashable] = [column for column in frame.columns if not pd.api.types.is_numeric_dtype(frame[column])]
    shown = frame.style.hide(axis="index").set_caption(html.escape(caption))
    shown = shown.set_uuid(re.sub(r"\W+", "-", caption.lower())).set_table_attributes('class="dataframe"')
    shown = shown.format(precision=3, na_rep="–", escape="html")
    for column, pattern in (formats or {}).items():
        shown = shown.format(pattern, subset=[column], na_rep="–")
    if "verdict" in frame:
        shown = shown.format(chip, subset=["verdict"])
    shown = shown.set_properties(subset=words, **{"text-align": "left"})
    return shown.apply_index(lambda labels: ["text-align: left" if label in words else "" for label in labels], axis=1)


def interval(value: float, low: float, high: float, pattern: str = "{:.2f}") -> str:
    """'0.57 [0.43, 0.70]'; a count of two or more, which is its own interval, alone; a dash where there is no value."""
    if np.isnan(value):
        return "–"
    if low == value == high and value > 1:
        return f"{value:.0f}"
    return "{} [{}, {}]".format(*map(pattern.format, (value, low, high)))


def claim_rows(claims: pd.DataFrame, caption: str, pages: Mapping[str, str] | None = None) -> Styler:
    """Rows of `claims.csv` for a reader; with `pages` (claim's page -> address) a column that leads there."""
    ours = [interval(row["ours"], row["low"], row["high"]) for row in claims.to_dict("records")]
    shown = pd.DataFrame(
        {  # what matters first: on a narrow page the rest is a swipe away
            "verdict": claims["verdict"],
            "the paper says": claims["statement"],
            "printed": claims["paper"],
            "here, with 95 % interval": ours,
            "pictures": claims["n"].where(claims["n"] > 0).astype("Int64"),
            "where": claims["where"],
            "because": claims["reason"],
        }
    )
    if pages is None:
        return table(shown, caption)
    shown["settled in"] = [_link(page, pages) for page in claims["page"]]
    return table(shown, caption).format(str, subset=["settled in"])


def _link(page: str, pages: Mapping[str, str]) -> str:
    words = html.escape(page.replace("-", " "))
    return f'<a href="{html.escape(pages[page])}">{words}</a>' if page in pages else words
