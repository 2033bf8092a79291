"""What captions say truly beside the concept: the other annotated objects and the setting, synonyms merged.

A thing is an object of COCO's categories or of scenes ('horse'), or a setting of scenes ('field'), which any word
names that tells it from the others: 'on the grass' says as much of a field as 'in a green field'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from kn_core.concepts import names
from kn_core.pictures.scenes.settings import SETTINGS


def says(caption: str, thing: str) -> bool:
    """Whether a caption names a thing.

    >>> says("A bear on the grass.", "field"), says("A bear on the grass.", "horse")
    (True, False)
    """
    if thing in SETTINGS:
        return SETTINGS[thing].named(caption)
    return names(caption, thing)


def named_truly(caption: str, things: Iterable[str]) -> tuple[str, ...]:
    """Of the things that a picture shows, those that a caption names, each once."""
    return tuple(thing for thing in dict.fromkeys(things) if says(caption, thing))


def truth_retention(truths: Sequence[str], perturbed: str) -> float:
    """Share of what the clean caption names truly (`named_truly`) that the perturbed one still names.

    NaN where that is nothing: there is nothing true to keep.
    """
    return float(np.mean([says(perturbed, thing) for thing in truths])) if truths else math.nan
