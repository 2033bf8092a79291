"""What a neuron at all image tokens is worth to a word, to first order and better: attribution patching and its kin.

All at the product site a, what `down_proj` reads. o is the picture, i the same without its object, D = a_o - a_i. The
caption is teacher-forced in both. y = logit(c) - logit(c') where the model writes the target c, and c' is what the run
without the object prefers there (if that is c, the next best); g = dy/da. Every score is a sum over image tokens: the
estimate of what the neuron, patched there with a_i or set to zero, takes from y. A maximum has no such meaning.

    AtP          sum D g_o               exact where y is linear in a (Nanda 2023)
    trapezoid    sum D (g_o + g_i) / 2   where it is quadratic
    IG           sum D mean_j g(alpha_j), image tokens e_i + alpha_j (e_o - e_i), alpha_j = (j - 1/2) / k
    conductance  sum_j (a_j+1 - a_j) (g_j + g_j+1) / 2 along the same runs, from i to o; over a full cut y_o - y_i
    RelP         sum D rho, rho by the rules of `relp`
    gxa          sum a_o g_o             gradient times activation: of zeroing the neuron, not patching it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from kn_core.method import relp
from kn_core.method.capture import Target
from kn_core.models.base import CaptionModel
from kn_core.models.hooks import descend, plain, precise, record, record_slopes

STEPS = 5  # k of integrated gradients
ENSEMBLE = ("atp", "ig", "relp")  # of which 'ensemble' is the mean rank

Number = Callable[[Tensor], Tensor]
"""Logits (B, 1 + C, V) -> one number, a sum over rows."""
Read = Callable[[Tensor, Tensor, int], Tensor]
"""(a layer's product (B, P, D), d number / d product (B, P, D), the layer) -> what is kept of them."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Forward passes with one caption: neurons at the image tokens, and slopes of numbers that are read, by layer."""

    product: list[Tensor]  # (B, P, D) a layer
    activation: list[Tensor]  # summed over image tokens: (B, D) a layer, float64, as what is compared cancels
    slopes: tuple[list[Tensor], ...]  # d number / d product, (B, P, D) a layer, or what was read of it; one a number
    logits: Tensor  # (B, 1 + C, V)


def run(
    model: CaptionModel,
    prompts: Tensor,
    caption: str,
    numbers: Sequence[Number] = (),
    read: Read = lambda product, slope, layer: slope,  # noqa: ARG005
) -> Runs:
    """Prompts (B, T, H) with the caption behind them: one forward pass, and one backward pass a number.

    A layer's slopes are `read` as soon as they are there, so that no two layers' need lie beside each other.
    """

    def tokens(values: Tensor) -> Tensor:
        return plain(values[:, model.image_positions])

    def keep(slope: Tensor, layer: int) -> Tensor:
        return read(product[layer], tokens(slope), layer)

    with ExitStack() as stack:
        product = stack.enter_context(record(model, "product", tokens))
        summed = stack.enter_context(
            record(model, "activation", lambda layer: tokens(layer).sum(1, dtype=torch.float64))
        )
        slopes: list[Tensor] = []
        if numbers:
            slopes = stack.enter_context(record_slopes(model, "product", keep))
        stack.enter_context(torch.set_grad_enabled(bool(numbers)))
        start = prompts.detach().requires_grad_(bool(numbers))
        logits = model.logits(start, [caption] * len(prompts))
        found = [
            descend(number(logits), start, [slopes], logits.dtype, keep=number is not numbers[-1])[0]
            for number in numbers
        ]
    return Runs(product, summed, tuple(found), logits.detach())


def rival_token(logits: Tensor, target: Target) -> int:
    """c': the likeliest token (of logits (1 + C, V)) where the target stands, or the next where that is the target."""
    best: list[int] = logits[target.position].topk(2).indices.tolist()
    return best[1] if best[0] == target.token else best[0]


def others(model: CaptionModel, caption: str, target: Target) -> tuple[list[int], list[int]]:
    """Places in the caption, and ids, of the tokens that are outside the concept's word, wherever it stands."""
    ids, spans = model.encode(caption)
    words = [found.span() for found in re.finditer(rf"\b{re.escape(target.word)}\b", caption)]
    outside = [
        place
        for place, (begin, end) in enumerate(spans)
        if not any(begin < stop and start < end for start, stop in words)
    ]
    return outside, [ids[place] for place in outside]


def _contrast(target: Target, rival: int) -> Number:
    """y = logit(c) - logit(c'), of all rows."""
    return lambda logits: (at := precise(logits[:, target.position]).sum(0))[target.token] - at[rival]


def _log_chances(places: Sequence[int], ids: Sequence[int]) -> Number:
    return lambda logits: precise(logits[:, list(places)]).log_softmax(-1)[:, range(len(ids)), list(ids)].sum()


def first_order(model: CaptionModel, prompts: Tensor, caption: str, target: Target) -> dict[str, np.ndarray]:
    """Scores (L, D) of one pair from two forward passes and two backward ones; `prompts` (2, T, H) are o and i.

    `atp` and `gxa` of y; the same of the caption's other tokens, y_other = sum of their log probabilities, as
    `atp-other` and `gxa-other`; and stage 1 with a sum in place of its maximum, `delta-sum` at the paper's own site,
    SiLU(gate x), and `delta-sum-product`. (Stage 2 with a sum is gxa of y^c: `identification.scores_of`.)
    """
    without = run(model, prompts[1:], caption)
    y = _contrast(target, rival_token(without.logits[0], target))

    def worth(product: Tensor, slope: Tensor, layer: int) -> Tensor:
        return torch.stack([((product - without.product[layer]) * slope)[0].sum(0), (product * slope)[0].sum(0)])

    shown = run(model, prompts[:1], caption, [y, _log_chances(*others(model, caption, target))], worth)
    of_word, of_others = (torch.stack(each, dim=1).numpy() for each in shown.slopes)  # (2, L, D)
    delta = torch.cat(shown.activation) - torch.cat(without.activation)
    return {
        "delta-sum": delta.to(shown.product[0].dtype).numpy(),
        "delta-sum-product": _summed(map(torch.sub, shown.product, without.product)),
        "atp": of_word[0],
        "gxa": of_word[1],
        "atp-other": of_others[0],
        "gxa-other": of_others[1],
    }


def along_the_path(
    model: CaptionModel, prompts: Tensor, caption: str, target: Target, steps: int = STEPS
) -> dict[str, np.ndarray]:
    """`trapezoid`, `ig`, `conductance` and, where the decoder is a Llama's kind, `relp` of one pair, (L, D) each.

    `steps` + 2 runs forwards and backwards, one at a time, from the picture without the object (2nd of `prompts`),
    which says what c' is, to the picture (1st), and one more for RelP.
    """
    shown, without = prompts[:1], prompts[1:]
    rival: list[int] = []

    def y(logits: Tensor) -> Tensor:
        if not rival:  # the first run
            rival.append(rival_token(logits.detach()[0], target))
        return _contrast(target, *rival)(logits)

    def on_the_way(alpha: float) -> Runs:
        return run(model, without + alpha * (shown - without), caption, [y])

    first, last = on_the_way(0), on_the_way(1)

    def taken(slopes: Iterable[Tensor], end: Runs = last, begin: Runs = first) -> np.ndarray:
        changes = map(torch.sub, end.product, begin.product)
        return _summed(change * slope for change, slope in zip(changes, slopes, strict=True))

    def between(begin: Runs, end: Runs) -> Iterator[Tensor]:
        return ((one + other) / 2 for one, other in zip(begin.slopes[0], end.slopes[0], strict=True))

    found = {"trapezoid": taken(between(first, last))}
    ig, conductance, before = np.zeros_like(found["trapezoid"]), np.zeros_like(found["trapezoid"]), first
    for step in range(steps):
        here = on_the_way((step + 0.5) / steps)
        ig += taken(here.slopes[0]) / steps
        conductance += taken(between(before, here), here, before)
        before = here
    found |= {"ig": ig, "conductance": conductance + taken(between(before, last), last, before)}
    if relp.follows(model.backbone):
        with relp.local_rules(model.backbone):
            found["relp"] = taken(run(model, shown, caption, [y]).slopes[0])
    return found


def mean_rank(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mean rank, 0 to 1 and 1 for the best, over several scores of the same shape."""
    ranks = [rankdata(score).reshape(score.shape) / score.size for score in scores.values()]
    mean: np.ndarray = np.mean(ranks, axis=0)
    return mean


def _summed(layers: Iterable[Tensor]) -> np.ndarray:
    """(1, P, D) a layer -> (L, D): what a neuron is worth at all image tokens together."""
    return np.stack([layer[0].sum(0).numpy() for layer in layers])
