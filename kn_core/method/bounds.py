"""What can be done to a word without asking neurons: a direction is taken out of the residual stream at image tokens.

ProjectAway (Jiang et al. 2025, 2410.02762) takes out what points along the word, h - max(0, h.t / |t|^2) t, where t is
the hidden state of the word in a text without a picture; difference of means takes out r, what the object adds on
average, h - (h.r) r / |r|^2. Both at one layer. Held against what a set of neurons does, they say what could be hoped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kn_core.method.complements import Naming, gap
from kn_core.method.interventions import side_by_side
from kn_core.models.base import CaptionModel
from kn_core.models.hooks import Edit, plain, record


def without_direction(model: CaptionModel, direction: Tensor, positive: bool) -> Edit:
    """Take a direction (H,) out of the stream at the image tokens; only where it points along it, if `positive`."""

    def edit(stream: Tensor, first: int) -> Tensor:
        here = slice(max(0, model.image_positions.start - first), max(0, model.image_positions.stop - first))
        along = direction.to(stream)
        share = stream[:, here] @ along / (along @ along)  # (B, P)
        changed = stream.clone()
        changed[:, here] -= (share.clamp(min=0) if positive else share)[..., None] * along
        return changed

    return edit


def word_states(model: CaptionModel, word: str) -> Tensor:
    """The hidden state of a word, after the prompt without its image tokens, behind each layer: (L, H)."""
    ids = torch.tensor(model.encode(f" {word}")[0], device=model.before.device)
    embeds = model.embed_tokens(torch.cat([model.before, model.after, ids]))[None]
    with record(model, "residual") as streams, torch.no_grad():
        model.extend(embeds, picture=False)
    return torch.stack([plain(stream[0, -1]) for stream in streams])


def mean_differences(model: CaptionModel, prompts: Tensor, without: Tensor, inside: Sequence[np.ndarray]) -> Tensor:
    """What the object adds to the stream behind each layer, (L, H), mean over pictures of the mean over its tokens.

    `prompts` (B, T, H) and the same `without` the object; `inside` (P,) bool a picture says which tokens are its own.
    """
    found = []
    for embeds in (prompts, without):
        with record(model, "residual") as streams, torch.no_grad():
            model.extend(embeds)
        found.append(torch.stack([plain(stream[:, model.image_positions]) for stream in streams]))  # (L, B, P, H)
    added = found[0] - found[1]
    each = [added[:, i, torch.from_numpy(tokens)].mean(dim=1) for i, tokens in enumerate(inside)]
    return torch.stack(each).mean(dim=0)


def best_layer(
    model: CaptionModel, pictures: Sequence[Naming], directions: Tensor, layers: Sequence[int], positive: bool
) -> int:
    """The layer of `layers` at which taking its direction, of (L, H), out leaves the smallest mean y."""
    edits = [(1, {layer: without_direction(model, directions[layer], positive)}) for layer in layers]
    with torch.no_grad():
        left = torch.stack([gap(model, at, side_by_side(edits), len(layers), "residual") for at in pictures]).mean(0)
    return int(layers[int(left.argmin())])
