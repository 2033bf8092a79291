"""From scores to neurons, one choice at a time: the paper's recipe, the steps that lead away from it, the third stage.

The third stage asks whether a neuron helps to say 'bear', or helps to say anything. s is the neuron's worth to the word
(`attribution`): AtP where the set will be patched or disturbed, gradient times activation where it will be zeroed.

    within the caption   s - lambda * mean over pictures of |s_other|, s_other of the caption's other tokens
    between concepts     - the mean, or the largest, over other concepts of their positive worth on their own pictures
    between places       - mu * its positive AtP where an equal area elsewhere is inpainted, not the object
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from kn_core.method.two_stages import NeuronSet, identify, select
from kn_core.settings import Between, Identification, Intervention

Score = Literal["maxima", "sums", "product sums", "worth"]
# What the two thresholds are held against; 'maxima' are the paper's own scores, under its own thresholds.
STAGES = {"sums": ("delta-sum", "gradcam-sum"), "product sums": ("delta-sum-product", "gradcam-sum")}


@dataclass(frozen=True)
class Recipe:
    """How neurons are chosen from scores; only what is worth something to the word has contrasts."""

    score: Score = "worth"
    within: float = 0.0  # lambda
    between: Between = "none"
    places: float = 0.0  # mu


LADDER = {  # each of them one choice away from the one before; 'whole' is an alternative to 'half'
    "paper": Recipe("maxima"),
    "sums": Recipe("sums"),
    "site": Recipe("product sums"),
    "one product": Recipe(),
    "within, half": Recipe(within=0.5),
    "within, whole": Recipe(within=1.0),
    "between": Recipe(within=0.5, between="largest"),
}


def contrasts(within: Sequence[float], between: Sequence[Between], places: Sequence[float] = (0.0,)) -> list[Recipe]:
    """The third stage's settings."""
    return [Recipe("worth", *each) for each in product(within, between, places)]


def worth(intervention: Intervention) -> str:
    """Which score says, to first order, what an intervention takes from the word."""
    return "gxa" if intervention == "zero" else "atp"


def specific(
    recipe: Recipe, own: Mapping[str, np.ndarray], others: Sequence[Mapping[str, np.ndarray]], score: str
) -> np.ndarray:
    """The third stage's score (L, D). `own` and `others` are concepts' pooled `score` and `<score>-other`, (L, D) each.

    Without other concepts there is nothing between them. A contrast between places needs `elsewhere` of `own`.
    """
    found = own[score] - recipe.within * own[f"{score}-other"]
    if recipe.places:
        found = found - recipe.places * np.maximum(own["elsewhere"], 0)
    if recipe.between == "none" or not others:
        return found
    positive = np.maximum(np.stack([other[score] for other in others]), 0)
    less: np.ndarray = found - (positive.max(axis=0) if recipe.between == "largest" else positive.mean(axis=0))
    return less


def chosen_by(
    recipe: Recipe,
    concept: str,
    own: Mapping[str, np.ndarray],
    others: Sequence[Mapping[str, np.ndarray]],
    intervention: Intervention,
    settings: Identification,
) -> NeuronSet:
    """All that a recipe but the paper's leaves, the best first. `own` also holds what `STAGES` names, pooled, (L, D).

    Thresholds are the profile's quantiles: those set by hand are in units of the maxima.
    """
    if recipe.score in STAGES:
        delta, gradcam = (own[name] for name in STAGES[recipe.score])
        threshold_a = float(np.quantile(delta, settings.threshold_a.quantile))
        threshold_g = float(np.quantile(gradcam, settings.threshold_g.quantile))
        return identify(concept, delta, gradcam, threshold_a, threshold_g, settings.rank_by)
    if recipe.score == "maxima":
        raise ValueError("the paper's own neurons are those of the study: `Study.neuron_set`.")
    score = specific(recipe, own, others, worth(intervention))
    return select(concept, "third stage", np.ones(score.shape, bool), score)
