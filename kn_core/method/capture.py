"""What both stages need of one pair of pictures: activations, and the gradient of the logit of the word."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kn_core.concepts import mention
from kn_core.models.base import CaptionModel, Site
from kn_core.models.hooks import Landing, descend, precise, record, record_slopes


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
    in float32 at least, wherever and in whatever precision the model is, and goes there a layer at a time.
    """

    land = Landing()

    def tokens(layer: Tensor) -> Tensor:
        return land(layer[0, model.image_positions])  # (P, D), a layer at a time

    def whole(layers: list[Tensor]) -> Tensor:
        return precise(torch.stack(layers))  # (L, ...)

    prompts = model.prompts([image, inpainted]).detach()
    with record(model, site, tokens) as without, torch.no_grad():
        model.logits(prompts[1:])
    last = model.prompt_length - 1 + target.position  # predicts the target
    with ExitStack() as stack:
        seen = {place: stack.enter_context(record(model, place, tokens)) for place in {site, "preactivation"}}
        there = [
            stack.enter_context(record(model, place, lambda layer: land(layer[0, last])))
            for place in ("activation", "product")
        ]
        slopes = [
            stack.enter_context(record_slopes(model, place, lambda slope, _: tokens(slope)))
            for place in (site, "preactivation")
        ]
        stack.enter_context(torch.enable_grad())
        start = prompts[:1].requires_grad_()
        logits = model.logits(start, [caption])
        found = descend(logits[0, target.position, target.token], start, slopes, logits.dtype, land.wait)
    return Capture(
        original=whole(seen[site]),
        inpainted=whole(without),
        gradient=whole(found[0]),
        preactivation=whole(seen["preactivation"]),
        preactivation_gradient=whole(found[1]),
        predicting=whole(there[0]),
        predicting_product=whole(there[1]),
    )
