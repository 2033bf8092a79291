"""Tidy frame in, HTML table out: the book's tables look alike, and come out the same on every build."""

from __future__ import annotations

import html
import re
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from book.style import METHODS, READINGS
from book.words import indexed, interval

P_HOLM = "p (Holm)"  # heading of p-values that are corrected for the rows of their table
HERE = "here [95\u00a0%]"  # heading of our value with its interval


# What a verdict is called where nothing was printed that could be reproduced.
OF_OURS = {"reproduced": "shown", "same direction": "leaning", "not reproduced": "not shown"}


def chip(verdict: object, *, ours: bool = False) -> str:
    """A verdict as the book shows it: the words, and the shape that book/_static/kn.css sets before them."""
    words = html.escape(str(verdict))
    said = OF_OURS.get(words, words) if ours else words
    return f'<span class="verdict {words.replace(" ", "-")}">{said}</span>'


def mark(verdict: object, *, ours: bool = False) -> str:
    """The shape of a verdict alone, its words for who points at it or has it read out."""
    words = html.escape(str(verdict))
    said = OF_OURS.get(words, words) if ours else words
    return f'<span class="verdict shape {words.replace(" ", "-")}" title="{said}"><span>{said}</span></span>'


def counted(caption: str, frame: pd.DataFrame) -> str:
    """A caption with the number of pictures behind a frame's rows, where it has a column `n_images`."""
    return f"{caption}; {of}" if (of := n_pictures(frame)) else caption


def n_pictures(frame: pd.DataFrame) -> str:
    """'n = 18 to 108 pictures', of the frame's column `n_images`, or of its pictures; nothing where it has neither."""
    if {"concept", "image_id"} <= set(frame):
        return f"n\u00a0=\u00a0{len(frame[['concept', 'image_id']].drop_duplicates())} pictures"
    counts = frame["n_images"].to_numpy(float) if "n_images" in frame else np.empty(0)
    counts = counts[counts > 0]  # none of a row that is over concepts alone
    if not counts.size:
        return ""
    least, most = f"{counts.min():.0f}", f"{counts.max():.0f}"
    return f"n\u00a0=\u00a0{most if least == most else f'{least} to {most}'} pictures"


def n_neurons(frame: pd.DataFrame) -> str:
    """'n = 396 neurons', of a frame with columns concept, layer and unit: a neuron counts once for each concept."""
    return f"n\u00a0=\u00a0{len(frame[['concept', 'layer', 'unit']].drop_duplicates())} neurons"


def marks(verdicts: pd.DataFrame, caption: str, ours: Sequence[bool] = ()) -> Styler:
    """A column of names, then columns of verdicts as `mark`s under upright headings: many fit side by side.

    `ours`: which rows are claims of this book, whose verdicts are called otherwise.
    """
    columns: list[Hashable] = list(verdicts.columns[1:])
    upright = ["writing-mode: vertical-rl; text-align: left" if name in columns else "" for name in verdicts]
    shown = table(verdicts, caption).format(mark, subset=columns)
    of_book = [place for place, own in zip(verdicts.index, ours, strict=bool(ours)) if own]
    shown = shown.format(partial(mark, ours=True), subset=(of_book, columns)) if of_book else shown
    return shown.apply_index(lambda _: upright, axis=1)


def table(frame: pd.DataFrame, caption: str, formats: Mapping[str, str] | None = None) -> Styler:
    """`frame` without its index, under `caption` (which names it on its page: no two tables of a page may share one).

    Numbers are shown to three digits where `formats` (column -> '{:.2f}') says nothing else, p-values never as zero;
    a column `verdict` becomes chips; text stands flush left, numbers flush right. Wide frames scroll in their own box.
    Columns `layer` and `unit` become one, as L9/200, which leads to the neuron's card (`press.neuron_links`).
    """
    if {"layer", "unit"} <= set(frame.columns):
        named = [f"L{layer}/{unit}" for layer, unit in zip(frame["layer"], frame["unit"], strict=True)]
        frame = frame.assign(layer=named).drop(columns="unit").rename(columns={"layer": "neuron"})
    words: list[Hashable] = [column for column in frame.columns if not pd.api.types.is_numeric_dtype(frame[column])]
    shown = frame.style.hide(axis="index").set_caption(html.escape(caption))
    shown = shown.set_uuid(re.sub(r"\W+", "-", caption.lower())).set_table_attributes('class="dataframe"')
    shown = shown.format(precision=3, na_rep="–", escape="html")
    for column, pattern in (formats or {}).items():
        shown = shown.format(pattern, subset=[column], na_rep="–")
    if P_HOLM in frame:
        shown = shown.format(lambda p: p_value(p) if isinstance(p, float) else str(p), subset=[P_HOLM])
    if "verdict" in frame:
        shown = shown.format(chip, subset=["verdict"])
    if not len(frame.columns):  # nothing to say: pandas has no style for it
        return shown
    shown = shown.set_properties(subset=words, **{"text-align": "left"})
    return shown.apply_index(lambda labels: ["text-align: left" if label in words else "" for label in labels], axis=1)


def p_value(p: float) -> str:
    """'0.012', '< 0.001', or a dash where there is none."""
    return "–" if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def claim_rows(claims: pd.DataFrame, caption: str, pages: Mapping[str, str] | None = None) -> Styler:
    """Rows of `claims.csv` for a reader; with `pages` (claim's page -> address) each leads to where it is settled."""
    rows, by = claims.to_dict("records"), set(claims["by"])
    printed = by != {"this book"}
    said = "what is claimed" if len(by) > 1 else f"{next(iter(by), 'the paper')} says"
    shown = pd.DataFrame(
        {  # what matters first: on a narrow page the rest is a swipe away
            "verdict": [
                f"{chip(row['verdict'], ours=row['by'] == 'this book')}<small>{html.escape(row['reason'])}</small>"
                for row in rows
            ],
            said: [_statement(row, pages or {}) for row in rows],
            "printed": claims["paper"].tolist(),
            HERE: [_ours(row) for row in rows],
        }
    )
    shown = shown if printed else shown.drop(columns="printed")
    styled = table(shown, caption).format(str, subset=["verdict", said, HERE])
    return styled.set_properties(subset=[said, HERE], **{"min-width": "10.5rem"})


def _statement(row: Mapping[Hashable, Any], pages: Mapping[str, str]) -> str:
    """What the paper says, and below where it says so and which figure of which page shows it."""
    page, words = row["page"], html.escape(row["page"].replace("-", " "))
    address = f"{pages[page]}#{row['figure']}" if page in pages and row.get("figure") else pages.get(page, "")
    settled = f'; see <a href="{html.escape(address)}">{words}</a>' if address else ""
    return f"{html.escape(indexed(row['statement']))}<small>{html.escape(row['where'])}{settled}</small>"


def _ours(row: Mapping[Hashable, Any]) -> str:
    counted = f"; n\u00a0=\u00a0{row['n']}" if row["n"] not in (0, row["ours"]) else ""  # a count says it itself
    long = f"<br>{html.escape(_own_words(row))}" if row.get("long") else ""
    what = f"<small>{html.escape(indexed(row['measured']))}{counted}{long}</small>"
    return html.escape(interval(row["ours"], row["low"], row["high"])) + what


def _own_words(row: Mapping[Hashable, Any]) -> str:
    """What the long version came to; of a claim of ours, as such verdicts are called."""
    said = str(row["long"])
    for word, ours in OF_OURS.items() if row["by"] == "this book" else ():
        if f": {word}," in said:
            return said.replace(f": {word},", f": {ours},")
    return said


def methods(
    comparison: pd.DataFrame,
    metrics: Sequence[str],
    caption: str,
    beside: Mapping[str, Mapping[str, float]] | None = None,
) -> Styler:
    """`methods.compare` as methods x `metrics`: the best value of a metric bold, ties with it marked '='.

    A dagger marks methods that differ from the two-stage one at 5 % after Holm, a double one those that differ by
    concepts too. `beside` has more columns: heading -> the share of each method that has one. The caption ends with
    how many pictures the values are of.
    """
    cells = {(row["method"], row["metric"]): _cell(row) for row in comparison.to_dict("records")}
    tried = list(dict.fromkeys(comparison["method"]))
    shown = pd.DataFrame({"neurons of": [METHODS[name].label for name in tried]})
    for metric in metrics:
        label = READINGS[metric].label  # 'suppression, caption', where the table's caption says that it is suppression
        shown[label.partition(", ")[2] or label] = [cells.get((name, metric), "–") for name in tried]
    for heading, shares in (beside or {}).items():
        shown[heading] = [f"{shares[name]:.0%}" if name in shares else "–" for name in tried]
    said = counted(caption, comparison[comparison["metric"].isin(metrics)])
    return table(shown, said).format(str, subset=list(shown.columns[1:]))


def _cell(row: Mapping[Hashable, Any]) -> str:
    value = f"{row['value']:.2f}"
    marked = f"<strong>{value}</strong>" if row["best"] else f"{value} =" if row["tie"] else value
    dagger = "‡" if row["p_concepts_holm"] < 0.05 else "†" if row["p_holm"] < 0.05 else ""
    return f"{marked}{dagger}<small>[{row['low']:.2f},\u00a0{row['high']:.2f}]</small>"
