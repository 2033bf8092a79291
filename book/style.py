"""What all figures share: one colour a concept and a method, the theme, titles that state a finding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from book import words
from kn_core.drawing import FAINT

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
LABELS = words.METHODS | {
    "two-stage": "two-stage neurons",
    "gradcam-sum": "stage 2, summed",
    "activation": "mean activation",
}


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


def by_concept(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each concept's rows, concepts in the frame's own order."""
    for concept, rows in frame.groupby("concept", sort=False):
        yield str(concept), rows
