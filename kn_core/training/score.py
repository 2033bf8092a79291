"""What captions of scenes get right, as the scene itself knows it: object, place, company, and every other word."""

from collections.abc import Mapping, Sequence

import numpy as np

from kn_core.concepts import content_words, names, words
from kn_core.pictures.sample import Sample
from kn_core.pictures.scenes import KINDS, SETTINGS
from kn_core.pictures.scenes.settings import Setting

PAINTED = {word for kind in KINDS.values() for drawing in kind.drawings for word in drawing.colour.split()}
DONE = {verb for kind in KINDS.values() for verb in (*kind.verbs, *(drawing.verb for drawing in kind.drawings))}
UNJUDGED = frozenset(PAINTED | DONE)  # colours, and what objects do: neither true nor false of a scene here
SCORES = ("named", "setting", "companion", "true_words", "false_words")


def score(sample: Sample, caption: str) -> dict[str, float]:
    """Of a scene's caption: `named`, `setting` and `companion` (the largest one is named), 0 or 1, NaN where there is
    none; `true_words` and `false_words`, how many other content words there are that the scene bears out, or not.
    """
    largest = next(iter(sample.others), None)
    said = content_words(caption, without=sample.concept)
    true = truth(sample)
    return {
        "named": names(caption, sample.concept),
        "setting": SETTINGS[sample.setting].named(caption),
        "companion": np.nan if largest is None else names(caption, largest),
        "true_words": sum(word in true for word in said),
        "false_words": sum(word not in true | UNJUDGED for word in said),
    }


def truth(sample: Sample) -> frozenset[str]:
    """The content words that are true of a scene beside its main object's name: what is there, and where."""
    phrases = [word for other in sample.others for word in words(other)] + _places(SETTINGS[sample.setting])
    return frozenset(word for phrase in phrases for word in content_words(phrase))


def _places(setting: Setting) -> list[str]:
    return [*setting.nouns, *setting.telling, *(phrase for stage in setting.places.values() for phrase in stage)]


def means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score over the scenes that have it."""
    return {key: float(np.nanmean([each[key] for each in scores])) if scores else np.nan for key in SCORES}
