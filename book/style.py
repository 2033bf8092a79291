"""What stands for what, everywhere in the book: methods and controls, metrics, concepts; their names and colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from kn_core.drawing import FAINT

# Concepts: after Paul Tol's palette of twelve, each with a contrast of 3 to white (`press.drawn` sees to the dark).
# Nine hues are too many to be told apart by hue alone: lines have dashes of their own too (`concept_dashes`).
CONCEPTS = {
    "bear": "#882255",
    "bed": "#aa4499",
    "bus": "#332288",
    "banana": "#a8871f",
    "giraffe": "#8f8f2b",
    "pizza": "#cc6677",
    "cat": "#2a9484",
    "dog": "#117733",
    "train": "#3d8fc0",
    "toilet": "#661100",
}
DASHES: Any = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (2.5, 1)))
SPARE = ("#5f92c6", "#aa4466", "#c86f0c", "#5d5d5d", "#8073ac", "#35978f")


@dataclass(frozen=True)
class Method:
    """How the book shows a method, a control, or a score that is no method's."""

    label: str  # in tables
    colour: str
    kind: Literal["ours", "subset", "stage", "rival", "at text", "control", "bound", "ranking", "reference"]
    legend: str = ""  # in figures, where it is another one

    @property
    def in_figures(self) -> str:
        return self.legend or self.label


# In the order of Tables I and II, which figures follow. Colours: Okabe and Ito's palette and some more, told apart
# under protanopia and deuteranopia too.
METHODS = {
    "two-stage": Method("both stages", "#0072b2", "ours", "two-stage neurons"),
    "two-stage-best": Method("of these, the best by the gradient", "#00304f", "subset"),
    "stage-1": Method("stage 1 alone", "#c98000", "stage"),
    "stage-2": Method("stage 2 alone", "#009e73", "stage"),
    "schwettmann": Method("Schwettmann et al.", "#d55e00", "rival"),
    "pan-released": Method("Pan et al. (released)", "#849133", "rival"),
    "pan-gated": Method("Pan et al. (gated)", "#554400", "rival"),
    "dai": Method("Dai et al.", "#2f93cf", "rival"),
    "pan-released-text": Method("Pan et al. (released), at text", "#8a9a3b", "at text"),
    "pan-gated-text": Method("Pan et al. (gated), at text", "#7d6a1f", "at text"),
    "dai-text": Method("Dai et al., at text", "#2f7fb0", "at text"),
    "random-text": Method("random, same layers, at text", "#8f8f8f", "at text"),
    "random": Method("random, same layers", FAINT, "control"),
    "stage-1-layers": Method("random, layers of stage 1", "#8a6d3b", "control"),
    "uniform": Method("random, any layer", "#555555", "control"),
    "same-activation": Method("random, same activation", "#b74fd6", "control"),
    "any-layer-same-activation": Method("random, same activation, any layer", "#7b2d8b", "control"),
    "same-norm": Method("random, same output size", "#550055", "control"),
    "direction": Method("random direction, same length", "#a05a2c", "control"),
    "nothing": Method("nothing done", "#111111", "bound"),
    "removal": Method("the object taken out of the picture", "#111111", "bound"),
    "chance": Method("another concept's caption", "#8c8c8c", "bound"),
    "gradcam-sum": Method("stage 2's score, summed over tokens", "#7f1d4e", "reference", "stage 2, summed"),
    "activation": Method("mean activation", "#958395", "reference"),
    "atp": Method("attribution patching", "#00523c", "ranking"),
    "gxa": Method("activation × gradient, summed", "#7a8b00", "ranking"),
    "mask": Method("learnt mask", "#cc79a7", "ranking"),
}


@dataclass(frozen=True)
class Reading:
    """How the book shows a metric of `kn_core.measures.metrics`."""

    label: str  # in tables
    axis: str = ""  # in figures
    side: Literal["suppression", "retention", "others", "language"] = "language"  # others: of other pictures
    low_is_good: bool = False


READINGS = {
    "suppression": Reading("suppression, caption", "suppression $S_{se}$", "suppression"),
    "suppression_fluent": Reading("suppression, in fluent captions", side="suppression"),
    "suppression_probability": Reading("suppression, probability", side="suppression"),
    "bleu_suppression": Reading("BLEU", side="suppression"),
    "rouge_suppression": Reading("ROUGE-L", side="suppression"),
    "bertscore_suppression": Reading("BERTScore", side="suppression"),
    "retention_truth": Reading("retention, truth", "retention $S_{re}$ of what is true", "retention"),
    "retention": Reading("retention, caption", "retention $S_{re}$", "retention"),
    "retention_probability": Reading("retention, probability", side="retention"),
    "bleu_retention": Reading("BLEU", side="retention"),
    "rouge_retention": Reading("ROUGE-L", side="retention"),
    "bertscore_retention": Reading("BERTScore", side="retention"),
    "retention_others": Reading("retention, other pictures", side="others"),
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


def concept_dashes(concepts: Iterable[str]) -> dict[str, Any]:
    """Dashes for each concept's line, the second code beside its colour."""
    given = {concept: DASHES[i % len(DASHES)] for i, concept in enumerate(CONCEPTS)}
    return {concept: given.get(concept, DASHES[0]) for concept in concepts}


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
