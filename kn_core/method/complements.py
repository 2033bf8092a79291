"""A set of neurons alone at work, or alone out of work: all others, or these, as they are without the object.

Patching is done at the image tokens, of the product SiLU(gate x) * up x, which is all that a neuron says: with the
values of a recorded run of the picture without the object. Its reading is y, how far the logit of the word c is above
that of c', the token that the run without the object prefers in its place (the next best, where that is c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kn_core.method.perturbation import Picture
from kn_core.models.base import CaptionModel, Place
from kn_core.models.hooks import Edit, intervene, record


@dataclass(frozen=True, eq=False)
class Naming:
    """A picture at the place where its caption is about to name the object."""

    said: Tensor  # (1, T, H), the prompt and the caption up to the word
    token: int  # c
    other: int  # c'
    without: Tensor  # (L, P, D), products at the image tokens of the picture without the object
    y_without: float  # y of that picture


def naming(model: CaptionModel, picture: Picture) -> Naming:
    """What a curve needs of a picture, in one run of the picture without the object."""
    prompts = torch.stack([picture.prompt, picture.prompt_inpainted])
    end = model.prompt_length + picture.target.position
    said = model.teacher_forced(prompts, [picture.caption] * 2)[:, :end].detach()
    with record(model, "product") as products, torch.no_grad():
        logits = _last_logits(model, said[1:])[0]
    without = torch.stack([layer[0, model.image_positions] for layer in products])
    c = picture.target.token
    best = logits.topk(2).indices.tolist()
    other = int(best[1] if best[0] == c else best[0])
    return Naming(said[:1], c, other, without, float(logits[c] - logits[other]))


def gap(model: CaptionModel, at: Naming, edits: Mapping[int, Edit], rows: int = 1, site: Place = "product") -> Tensor:
    """y of the picture under edits, (rows,), each of which may be edited in its own way."""
    with intervene(model, edits, site):
        logits = _last_logits(model, at.said.expand(rows, -1, -1))
    return logits[:, at.token] - logits[:, at.other]


def gaps(model: CaptionModel, at: Naming, kept: Sequence[np.ndarray]) -> np.ndarray:
    """y, (n,), with all neurons patched but those of `kept[i]`, bool (L, D) each. Many sets share a batch."""
    found = [np.empty(0)]
    for start in range(0, len(kept), model.batch_size):
        some = torch.from_numpy(np.stack(kept[start : start + model.batch_size]))
        with torch.no_grad():
            found.append(gap(model, at, complement(model, at.without, some), len(some)).cpu().numpy())
    return np.concatenate(found)


def complement(model: CaptionModel, without: Tensor, kept: Tensor) -> dict[int, Edit]:
    """Edits of a batch that put `without` (L, P, D) in the place of every neuron that is not kept, at image tokens.

    `kept` (B, L, D) is bool, or a share of each neuron between 0 and 1. The last layer is left as it is: what its image
    tokens say reaches no word.
    """

    def edit_of(layer: int) -> Edit:
        def edit(activations: Tensor, _: int) -> Tensor:
            image = model.image_positions
            values, other = activations[:, image], without[layer].to(activations)
            mask = kept[:, layer, None].to(values.device)
            learnt = mask.dtype != torch.bool
            mixed = torch.lerp(other, values, mask.to(values)) if learnt else torch.where(mask, values, other)
            return torch.cat([activations[:, : image.start], mixed, activations[:, image.stop :]], dim=1)

        return edit

    learnt = kept.dtype != torch.bool
    return {layer: edit_of(layer) for layer in range(model.n_layers - 1) if learnt or not kept[:, layer].all()}


def learned_mask(model: CaptionModel, pictures: Sequence[Naming], n: int, steps: int, rate: float = 0.3) -> np.ndarray:
    """A score of every neuron, (L, D), by a mask that is learnt to take the word away with few neurons.

    m in [0, 1] a neuron, a <- m a + (1 - m) a_i, minimises mean y + mu sum(1 - m) by Adam from m = 1. mu is the n-th
    largest gradient at the start, so that some n neurons are worth their price. Neurons are ranked by how long and how
    far they were off, then by their last gradient; the score falls from 0 by 1 a rank.
    """
    mask = torch.ones(pictures[0].without.shape[::2], requires_grad=True)  # (L, D)
    adam = torch.optim.Adam([mask], lr=rate)
    off, price = torch.zeros_like(mask), None
    for _ in range(steps):
        adam.zero_grad()
        for at in pictures:
            with torch.enable_grad():
                y = gap(model, at, complement(model, at.without, mask[None])).sum()
            (y / len(pictures)).backward()
        assert mask.grad is not None
        slope = mask.grad.clone()
        price = slope.flatten().topk(n).values[-1] if price is None else price
        mask.grad -= price
        adam.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
            off += 1 - mask
    order = np.lexsort((-slope.flatten().numpy(), -off.detach().flatten().numpy()))
    score = np.empty(mask.numel())
    score[order] = -np.arange(len(order))
    return score.reshape(mask.shape)


def perplexities(model: CaptionModel, picture: Picture, layers: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Perplexity of a picture's caption with each neuron at zero at the image tokens, (n,), after that of none."""
    kept = np.ones((1 + len(layers), model.n_layers, model.ffn_width), bool)
    kept[np.arange(1, 1 + len(layers)), layers, units] = False
    nothing = torch.zeros(model.n_layers, 1, 1)
    ids, found = torch.tensor(model.encode(picture.caption)[0]), []
    for start in range(0, len(kept), model.batch_size):
        some = torch.from_numpy(kept[start : start + model.batch_size])
        with torch.no_grad(), intervene(model, complement(model, nothing, some), "product"):
            prompts = picture.prompt[None].expand(len(some), -1, -1)
            logits = model.logits(prompts, [picture.caption] * len(some))[:, : len(ids)]
        chances = logits.float().log_softmax(-1).cpu().gather(2, ids.expand(len(some), -1)[..., None])[..., 0]
        found.append((-chances.mean(1)).exp().numpy())
    return np.concatenate(found)


def _last_logits(model: CaptionModel, embeds: Tensor) -> Tensor:
    """Logits at the last position, (B, V)."""
    return model.score(model.extend(embeds)[:, -1]).float()
