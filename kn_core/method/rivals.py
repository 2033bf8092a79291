"""How earlier methods score a neuron for a concept, from the same pictures and gradients: (L, D) each (method.md 3).

None of them asks what the picture is like without the object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from typing import Literal

import numpy as np
import torch
import transformers
from torch import Tensor

from kn_core.method.capture import Capture, Target
from kn_core.models.base import CaptionModel
from kn_core.models.hooks import Edit, gradients, intervene, plain, precise, record

LAYERS_AT_ONCE = 2  # of integrated gradients: each copies the prefix `steps` times, 80 MB of the embedded model


def schwettmann(pair: Capture) -> np.ndarray:
    """Schwettmann et al. 2023: Z * dy^c/dZ before the activation function, the largest over image tokens."""
    score: np.ndarray = (pair.preactivation * pair.preactivation_gradient).amax(dim=1).numpy()
    return score


def pan(
    model: CaptionModel,
    pair: Capture,
    target: Target,
    variant: Literal["released", "gated"] = "released",
    direct: Callable[[int], Tensor] | None = None,
) -> np.ndarray:
    """Pan et al. 2024: what a neuron adds to the target's logit at the position that predicts it, without a gradient.

    O^l_i (W_U w_out,i)[c]. Their released code reads O as SiLU(gate x) alone; 'gated' multiplies with up x, as the
    network does, and is the neuron's true direct contribution (before the last normalisation). `direct` gives the
    second factor, where a caller keeps it for several pairs.
    """
    activation = pair.predicting if variant == "released" else pair.predicting_product
    score: np.ndarray = (activation * (direct or directly(model))(target.token)).numpy()
    return score


def directly(model: CaptionModel) -> Callable[[int], Tensor]:
    """A token -> (W_U w_out,i)[c] of every neuron (L, D), made once a token: as long as no weight is changed."""

    @cache
    def direct(token: int) -> Tensor:
        row, columns = precise(model.unembed[token]), (model.w_out(layer) for layer in range(model.n_layers))
        return torch.stack([plain(row.to(each.device) @ precise(each)) for each in columns])

    return direct


def integrated_gradients(
    model: CaptionModel,
    image: np.ndarray,
    caption: str,
    target: Target,
    layers: Sequence[int] | None = None,
    steps: int = 20,
) -> np.ndarray:
    """Dai et al. 2022: w_i / m * sum_j dP(c | (j/m) w^l) / dw_i, layer by layer.

    w^l are the activations at the position that predicts the target, P is the target's probability; `steps` is m.
    Returns (L, D), or a row for each of `layers`. Only that last position changes when its activations are scaled, so
    the keys and values of the tokens before it are computed once, and a layer costs one token in m rows, forwards and
    backwards; several layers, each with rows of its own, go together. Where the prompt's tokens see its last, and the
    target is the caption's first token, all of them are run in each row.
    """
    layers = range(model.n_layers) if layers is None else layers
    said = model.teacher_forced(model.prompts([image]), [caption])[:, : model.prompt_length + target.position].detach()
    apart = 0 if model.prompt_sees_ahead and target.position == 0 else said.shape[1] - 1
    before, last = said[:, :apart], said[:, apart:]  # (1, T - 1, H), (1, 1, H)
    prefix = transformers.DynamicCache(config=model.backbone.config)
    with torch.no_grad():
        model.extend(before, prefix)
        with record(model) as clean:
            model.extend(last, deepcopy(prefix))
    shares = torch.arange(1, steps + 1)[:, None] / steps  # (m, 1)
    scores = []
    for some in (layers[i : i + LAYERS_AT_ONCE] for i in range(0, len(layers), LAYERS_AT_ONCE)):
        own = [plain(clean[layer][0, -1]) for layer in some]  # (D,) each
        scaled = [(shares * values).requires_grad_() for values in own]  # (m, D), before it is rounded for the model
        cache = deepcopy(prefix)
        cache.batch_repeat_interleave(steps * len(some))
        edits = {layer: _put(i * steps, values) for i, (layer, values) in enumerate(zip(some, scaled, strict=True))}
        with torch.enable_grad(), intervene(model, edits):
            hidden = model.extend(last.expand(steps * len(some), -1, -1), cache)[:, -1]  # (layers * m, H)
            chance = model.score(hidden).float().softmax(-1)[:, target.token]
            found = gradients(chance.sum(), scaled, hidden.dtype)
        scores += [(values * gradient.mean(0)).numpy() for values, gradient in zip(own, found, strict=True)]
    return np.stack(scores)


def _put(first: int, values: Tensor) -> Edit:
    """Put `values` (m, D) in the place of the activations of the rows from `first` on, at the last position."""

    def edit(activations: Tensor, _: int) -> Tensor:
        after = activations[first + len(values) :]
        here = torch.cat([activations[first : first + len(values), :-1], values[:, None].to(activations)], dim=1)
        return torch.cat([activations[:first], here, after])

    return edit
