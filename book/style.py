"""What stands for what, everywhere in the book: methods and controls, metrics, concepts; their names and colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

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


@dataclass(frozen=True)
class Method:
    """How the book shows a method, a control, or a score that is no method's."""

    label: str  # in tables
    colour: str
    kind: Literal["ours", "subset", "stage", "rival", "control", "reference"]
    legend: str = ""  # in figures, where it is another one

    @property
    def in_figures(self) -> str:
        return self.legend or self.label


# In the order of Tables I and II, which figures follow. Colours: Okabe and Ito's palette and some more, told apart
# under protanopia and deuteranopia too.
METHODS = {
    "two-stage": Method("both stages", "#0072b2", "ours", "two-stage neurons"),
    "two-stage-best": Method("of these, the best by the gradient", "#00304f", "subset"),
    "stage-1": Method("stage 1 alone", "#e69f00", "stage"),
    "stage-2": Method("stage 2 alone", "#009e73", "stage"),
    "schwettmann": Method("Schwettmann et al.", "#d55e00", "rival"),
    "pan-released": Method("Pan et al. (released)", "#bbcc66", "rival"),
    "pan-gated": Method("Pan et al. (gated)", "#554400", "rival"),
    "dai": Method("Dai et al.", "#56b4e9", "rival"),
    "random": Method("random, same layers", FAINT, "control"),
    "uniform": Method("random, any layer", "#555555", "control"),
    "same-activation": Method("random, same activation", "#b74fd6", "control"),
    "any-layer-same-activation": Method("random, same activation, any layer", "#7b2d8b", "control"),
    "same-norm": Method("random, same output size", "#550055", "control"),
    "gradcam-sum": Method("stage 2's score, summed over tokens", "#00523c", "reference", "stage 2, summed"),
    "activation": Method("mean activation", "#b0b0b0", "reference"),
}


@dataclass(frozen=True)
class Reading:
    """How the book shows a metric of `kn_core.measures.metrics`."""

    label: str  # in tables
    axis: str = ""  # in figures
    side: Literal["suppression", "retention", "others", "language"] = "language"  # others: of other pictures
    low_is_good: bool = False


READINGS = {
    "suppression": Reading("Sₛₑ, caption", "suppression $S_{se}$", "suppression"),
    "suppression_probability": Reading("Sₛₑ, probability", side="suppression"),
    "bleu_suppression": Reading("BLEU", side="suppression"),
    "rouge_suppression": Reading("ROUGE-L", side="suppression"),
    "bertscore_suppression": Reading("BERTScore", side="suppression"),
    "retention": Reading("Sᵣₑ, caption", "retention $S_{re}$", "retention"),
    "retention_probability": Reading("Sᵣₑ, probability", side="retention"),
    "bleu_retention": Reading("BLEU", side="retention"),
    "rouge_retention": Reading("ROUGE-L", side="retention"),
    "bertscore_retention": Reading("BERTScore", side="retention"),
    "retention_others": Reading("Sᵣₑ, other pictures", side="others"),
    "selectivity": Reading("selectivity", side="others"),
    "fluent": Reading("fluent captions", "fluent captions"),
    "log_perplexity": Reading("log perplexity", low_is_good=True),
    "repetition": Reading("repetition", low_is_good=True),
}


def methods_of(*kinds: str) -> tuple[str, ...]:
    """The methods of these kinds, in the order of `METHODS`."""
    return tuple(name for name, method in METHODS.items() if method.kind in kinds)


def readings_of(side: str) -> tuple[str, ...]:
    """The metrics of one side of Table II, in the order of `READINGS`."""
    return tuple(name for name, reading in READINGS.items() if reading.side == side)


def axes_of(*metrics: str) -> dict[str, str]:
    """How axes of figures name these metrics."""
    return {name: READINGS[name].axis for name in metrics}


def concept_colours(concepts: Iterable[str]) -> dict[str, str]:
    """A colour for each concept: its own where it has one, whatever it is drawn with; else the next spare one."""
    concepts = list(dict.fromkeys(concepts))
    strangers = [concept for concept in concepts if concept not in CONCEPTS]
    given = CONCEPTS | {concept: SPARE[i % len(SPARE)] for i, concept in enumerate(strangers)}
    return {concept: given[concept] for concept in concepts}


def method_colour(method: str) -> str:
    """The colour of a method or control. Raises KeyError for one that has none yet: give it one here."""
    return METHODS[method].colour


def label(method: str) -> str:
    """A method as a legend names it."""
    return METHODS[method].in_figures if method in METHODS else method


def by_concept(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each concept's rows, concepts in the frame's own order."""
    for concept, rows in frame.groupby("concept", sort=False):
        yield str(concept), rows
