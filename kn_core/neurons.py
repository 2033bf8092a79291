"""The paper's two stages: equations on arrays, and the capture of what they need from a pair of pictures.

Letters: L layers, P image tokens, D FFN width. A neuron is (layer, unit). Equations are those of Sato & Takagi 2025,
section II-C; what the paper leaves open is an argument, and the profile says which value is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_core.concepts import mention
from kn_core.gradients import gradients, plain
from kn_core.hooks import record
from kn_core.models.base import CaptionModel, Site

Reduction = Literal["any", "same", "mean", "mask"]
Pooling = Literal["mean", "max", "min"]


@dataclass(frozen=True, eq=False)
class NeuronSet:
    """Neurons of one concept found by one method, the best first."""

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

    def by_layer(self) -> dict[int, np.ndarray]:
        """Units of each layer that has any."""
        return {int(layer): self.units[self.layers == layer] for layer in np.unique(self.layers)}

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> NeuronSet:
        """The neurons of one concept and method from `neurons.parquet`'s columns."""
        frame = frame.sort_values("rank")
        concept, method = (frame[key].unique() for key in ("concept", "method"))
        if len(concept) != 1 or len(method) != 1:
            raise ValueError(f"one concept and one method expected. Got {list(concept)} and {list(method)}.")
        columns = (frame[key].to_numpy() for key in ("layer", "unit", "score"))
        return cls(str(concept[0]), str(method[0]), *columns)


@dataclass(frozen=True)
class Target:
    """Where a caption names the concept: the word, its first sub-token c, and that token's index t0 in the caption."""

    word: str
    token: int
    position: int


def find_target(model: CaptionModel, caption: str, concept: str) -> Target | None:
    """The first mention of the concept in a caption, or None."""
    found = mention(caption, concept)
    if found is None:
        return None
    ids, spans = model.encode(caption)
    position = next(i for i, (_, end) in enumerate(spans) if end > found.start())
    return Target(found.group(), ids[position], position)


@dataclass(frozen=True, eq=False)
class Capture:
    """What one pair of pictures says of every neuron, at the image tokens."""

    original: Tensor  # O'_o (L, P, D), activations on the picture
    inpainted: Tensor  # O'_i (L, P, D), on the picture without the object
    gradient: Tensor  # dy^c / dO'_o (L, P, D)
    # What rival methods read of the picture (`rivals`).
    preactivation: Tensor  # Z (L, P, D), what the activation function reads
    preactivation_gradient: Tensor  # dy^c / dZ (L, P, D)
    predicting: Tensor  # SiLU(gate x) at the position that predicts the target, (L, D)
    predicting_product: Tensor  # SiLU(gate x) * up x there, (L, D)

    @property
    def delta(self) -> Tensor:
        """Stage 1: the activation difference O'_o - O'_i, signed, (L, P, D)."""
        return self.original - self.inpainted

    @property
    def gradcam(self) -> Tensor:
        """Stage 2: g_c = O'_o * dy^c/dO'_o, element by element, (L, P, D)."""
        return self.original * self.gradient


def capture(
    model: CaptionModel,
    image: np.ndarray,
    inpainted: np.ndarray,
    caption: str,
    target: Target,
    site: Site = "activation",
) -> Capture:
    """Activations of both pictures, and the gradient of the target token's logit with respect to every neuron at once.

    `caption` is what the model says of the picture, teacher-forced; y^c is read where the model writes the target.
    Attention is causal, so nothing after the target matters, and O' at the image tokens does not depend on the caption.
    Cost: two forward passes and one backward pass, whatever the number of neurons. Everything returned is on the CPU,
    in float32 at least, wherever and in whatever precision the model is.
    """

    def at(layers: Sequence[Tensor], positions: int | slice) -> Tensor:
        return torch.stack([plain(layer[0, positions]) for layer in layers])

    prompts = model.prompts([image, inpainted]).detach()
    with record(model, site) as activations, torch.no_grad():
        model.logits(prompts[1:])
    without = at(activations, model.image_positions)  # (L, P, D)
    with ExitStack() as stack:
        seen = {place: stack.enter_context(record(model, place)) for place in get_args(Site)}
        stack.enter_context(torch.enable_grad())
        logits = model.logits(prompts[:1].requires_grad_(), [caption])
        read = [*seen[site], *seen["preactivation"]]
        slopes = gradients(logits[0, target.position, target.token], read, logits.dtype)
    last = model.prompt_length - 1 + target.position  # predicts the target
    return Capture(
        original=at(seen[site], model.image_positions),
        inpainted=without,
        gradient=at(slopes[: model.n_layers], model.image_positions),
        preactivation=at(seen["preactivation"], model.image_positions),
        preactivation_gradient=at(slopes[model.n_layers :], model.image_positions),
        predicting=at(seen["activation"], last),
        predicting_product=at(seen["product"], last),
    )


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


def heatmap(score: Tensor, neurons: NeuronSet, grid: tuple[int, int], maps: Tensor | None = None) -> np.ndarray:
    """Where in the picture the neurons answer: the mean of their scores (L, P, D) at each image token, (rows, columns).

    `grid` is the model's own, `CaptionModel.grid`: MiniGPT-4's tokens are strips, 16 rows of 4, not squares. `maps`
    (P, rows * columns), `CaptionModel.token_maps` of the picture, says where each token looks, and the map is the sum
    of these maps weighed by the tokens' scores; without it token p is cell p.
    """
    n_tokens, n_cells = score.shape[1], grid[0] * grid[1]
    if maps is None and n_cells != n_tokens:
        raise ValueError(f"grid must hold the score's {n_tokens} image tokens. Got {grid[0]} x {grid[1]}.")
    if maps is not None and maps.shape != (n_tokens, n_cells):
        raise ValueError(f"maps must have shape (P, rows * columns)={(n_tokens, n_cells)}. Got {tuple(maps.shape)}.")
    if not len(neurons):
        raise ValueError(f"a heatmap needs at least one neuron. Got none of '{neurons.concept}'.")
    mean: np.ndarray = score.numpy()[neurons.layers, :, neurons.units].mean(axis=0)  # (P,)
    on_cells: np.ndarray = mean if maps is None else mean @ maps.numpy()
    return on_cells.reshape(grid)
