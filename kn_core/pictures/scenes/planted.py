"""Scenes in which a concept always has a companion, and what is left of them without one of the two, or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kn_core.pictures.scenes import KINDS, scene
from kn_core.pictures.scenes.scene import namespaced


@dataclass(frozen=True, eq=False)
class Planted:
    """A scene of a concept and its companion. What is gone is named 'concept', 'companion' or 'both'."""

    image_id: str
    image: np.ndarray  # (h, w, 3) uint8
    without: Mapping[str, np.ndarray]  # the same scene rendered without what is gone, (h, w, 3) uint8
    masks: Mapping[str, np.ndarray]  # where that was seen, (h, w) bool


def planted(concept: str, companion: str, n: int, seed: int) -> Iterator[Planted]:
    """Scenes 0 to n - 1 that show the two and nothing else; `seed` is a namespace (see `pictures.scenes`)."""
    for index in range(n):
        made = scene(namespaced(seed, concept, index), concept, n_objects=2, confounds={concept: companion})
        one, other = made.main, 1 - made.main
        without = {"concept": made.render(without=one), "companion": made.render(without=other)}
        without["both"] = replace(made, objects=()).render()
        masks = {"concept": made.mask(one), "companion": made.mask(other), "both": made.mask(one) | made.mask(other)}
        yield Planted(f"planted-{concept}-{index:06d}", made.render(), without, masks)


def likely_companion(concept: str, others: Sequence[str]) -> str:
    """The one of `others` that is most often where the concept is, the first of equals: what could well come along."""

    def shared_places(other: str) -> float:  # overlap of the two kinds' settings as distributions, in [0, 1]
        weights = pd.DataFrame([KINDS[kind].settings for kind in (concept, other)]).fillna(0)
        return float(weights.div(weights.sum(axis=1), axis=0).min().sum())

    return max(others, key=shared_places)
