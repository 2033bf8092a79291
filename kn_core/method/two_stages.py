"""The paper's two stages: equations on arrays, and the capture of what they need from a pair of pictures.

Letters: L layers, P image tokens, D FFN width. A neuron is (layer, unit). Equations are those of Sato & Takagi 2025,
section II-C; what the paper leaves open is an argument, and the profile says which value is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_core.method.capture import Capture

Reduction = Literal["any", "same", "mean", "mask"]
Pooling = Literal["mean", "max", "min"]


@dataclass(frozen=True, eq=False)
class NeuronSet:
    """Neurons of one concept found by one method, the best first: what is disturbed, mapped and compared.

    >>> neurons = NeuronSet("bear", "mine", np.array([9, 2]), np.array([200, 90]), np.array([0.35, 0.15]))
    >>> len(neurons), neurons.top(1).by_layer()
    (2, {9: array([200])})
    """

    concept: str
    method: str
    layers: np.ndarray  # (n,) int
    units: np.ndarray  # (n,) int
    scores: np.ndarray  # (n,) float, falling

    def __len__(self) -> int:
        return len(self.layers)

    def top(self, n: int) -> NeuronSet:
        """The n best, or all where there are fewer."""
        return NeuronSet(self.concept, self.method, self.layers[:n], self.units[:n], self.scores[:n])

    def where(self, chosen: np.ndarray) -> NeuronSet:
        """Those for which `chosen` (n,) is true, in the same order."""
        return NeuronSet(self.concept, self.method, self.layers[chosen], self.units[chosen], self.scores[chosen])

    def by_layer(self) -> dict[int, np.ndarray]:
        """Units of each layer that has any."""
        return {int(layer): self.units[self.layers == layer] for layer in np.unique(self.layers)}

    @classmethod
    def of_layers(cls, concept: str, method: str, layers: np.ndarray, width: int) -> NeuronSet:
        """All neurons of some layers, in order."""
        units = np.tile(np.arange(width), len(layers))
        return cls(concept, method, np.repeat(layers, width), units, np.zeros(len(units)))

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> NeuronSet:
        """The neurons of one concept and method from `neurons.parquet`'s columns."""
        frame = frame.sort_values("rank")
        concept, method = (frame[key].unique() for key in ("concept", "method"))
        if len(concept) != 1 or len(method) != 1:
            raise ValueError(f"one concept and one method expected. Got {list(concept)} and {list(method)}.")
        columns = (frame[key].to_numpy() for key in ("layer", "unit", "score"))
        return cls(str(concept[0]), str(method[0]), *columns)


def reduce_positions(score: Tensor, how: Reduction = "any", cells: np.ndarray | None = None) -> Tensor:
    """(L, P, D) -> (L, D): the number that a threshold is held against.

    'any' is the maximum over positions, for 'exists p with score > threshold'; 'mean' the mean; 'mask' the maximum over
    the image tokens whose cell the object mostly fills, `cells` (P,) bool. For 'same' see `image_scores`.
    """
    if how == "mean":
        return score.mean(dim=1)
    if how == "mask":
        if cells is None or not cells.any():
            raise ValueError("reduction 'mask' needs cells (P,) with at least one token inside the object.")
        score = score[:, torch.from_numpy(cells)]
    return score.amax(dim=1)


def image_scores(
    pair: Capture, how: Reduction = "any", cells: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Both stages' scores of one pair, (L, D) each: activation difference and GradCAM.

    'same' asks for one position that passes both stages: GradCAM is then read where the difference is largest, which is
    enough for such a position to exist, but not the only place where it may.
    """
    delta, gradcam = pair.delta, pair.gradcam
    if how == "same":
        best = delta.argmax(dim=1, keepdim=True)  # (L, 1, D)
        return delta.amax(dim=1).numpy(), gradcam.gather(1, best)[:, 0].numpy()
    return reduce_positions(delta, how, cells).numpy(), reduce_positions(gradcam, how, cells).numpy()


def pool_images(scores: np.ndarray, how: Pooling = "mean") -> np.ndarray:
    """The scores of a concept's images (N, L, D) -> one (L, D).

    Against a threshold, 'mean' asks for the mean over images, 'max' for any image (the union of the images' neurons),
    'min' for every image (their intersection).
    """
    pooled: np.ndarray = getattr(scores, how)(axis=0)
    return pooled


def stage_1(delta: np.ndarray, threshold_a: float) -> np.ndarray:
    """Candidates C^k = {(l, i): delta > threshold_a}, bool (L, D)."""
    return delta > threshold_a


def stage_2(candidates: np.ndarray, gradcam: np.ndarray, threshold_g: float) -> np.ndarray:
    """N_k = {(l, i) in C^k: g_c > threshold_g}, bool (L, D)."""
    return candidates & (gradcam > threshold_g)


def identify(
    concept: str,
    delta: np.ndarray,
    gradcam: np.ndarray,
    threshold_a: float,
    threshold_g: float,
    rank_by: Literal["gradcam", "delta"] = "gradcam",
) -> NeuronSet:
    """The two-stage neurons N_k from both stages' scores (L, D), of one pair or a concept's pooled: the best first."""
    survivors = stage_2(stage_1(delta, threshold_a), gradcam, threshold_g)
    return select(concept, "two-stage", survivors, {"delta": delta, "gradcam": gradcam}[rank_by])


def select(concept: str, method: str, chosen: np.ndarray, score: np.ndarray, budget: int | None = None) -> NeuronSet:
    """The chosen neurons, bool (L, D), by falling score (L, D), at most `budget`. Ties fall to the earlier layer."""
    layers, units = np.nonzero(chosen)
    order = np.argsort(-score[layers, units], kind="stable")[:budget]
    return NeuronSet(concept, method, layers[order], units[order], score[layers[order], units[order]])
