"""Tidy frame in, HTML table out: the book's tables look alike, and come out the same on every build."""

from __future__ import annotations

import html
import re
from collections.abc import Hashable, Mapping

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
