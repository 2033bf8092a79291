"""Where the queries of a Q-Former look: attention rollout (Abnar & Zuidema 2020) from its queries to the picture.

A query has no place in a picture. What it holds came by cross-attention, from cells of the tower, and by
self-attention, from other queries that had looked at cells before; rollout follows both back.

Rollout takes it that an attention block adds as much to a query as the query holds already. `Attentions` also has what
it really adds (Kobayashi et al. 2021), for a rollout that does not give weight to looks that change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Attentions:
    """Attention weights of a Q-Former's layers, each averaged over heads.

    `own` are among the N positions of the Q-Former, queries first and then an instruction's tokens: (B, N, N) a layer.
    `cross` are of the P queries to the C features of the tower, (B, P, C), or None in a layer that does not look.
    `own_share` (B, N) and `cross_share` (B, P) are the length of what each block adds to a position, over that and the
    length of what the position held before.
    """

    own: list[Tensor] = field(default_factory=list)
    cross: list[Tensor | None] = field(default_factory=list)
    own_share: list[Tensor] = field(default_factory=list)
    cross_share: list[Tensor | None] = field(default_factory=list)


@contextmanager
def record_attention(layers: nn.ModuleList) -> Iterator[Attentions]:
    """Collect the attention weights of the next forward pass. The Q-Former must run with eager attention."""
    n = len(layers)
    found = Attentions([torch.empty(0)] * n, [None] * n, [torch.empty(0)] * n, [None] * n)

    def look(_: nn.Module, __: tuple[Tensor, ...], output: tuple[Tensor, Tensor], place: list[Any], i: int) -> None:
        if output[1] is None:
            raise ValueError("rollout needs attention weights: load the Q-Former with attn_implementation='eager'.")
        place[i] = output[1].detach().float().mean(1)

    def add(block: Any, arguments: tuple[Tensor, Tensor], place: list[Any], i: int) -> None:
        attended, held = arguments
        added, before = (each.detach().float().norm(dim=-1) for each in (block.dense(attended), held))
        place[i] = added / (added + before)

    with ExitStack() as stack:
        for i, layer in enumerate(layers):
            blocks: dict[str, tuple[Any, Any]] = {
                "attention": (found.own, found.own_share),
                "crossattention": (found.cross, found.cross_share),
            }
            for name, (weights, share) in blocks.items():
                if hasattr(layer, name):
                    block: Any = getattr(layer, name)
                    seen = block.attention.register_forward_hook(partial(look, place=weights, i=i))
                    mixed = block.output.register_forward_pre_hook(partial(add, place=share, i=i))
                    stack.callback(seen.remove)
                    stack.callback(mixed.remove)
        yield found


def rollout(found: Attentions, weighted: bool = False) -> Tensor:
    """The share of each query that comes from each of the tower's features, (B, P, C); rows sum to 1.

    Each attention is averaged with the identity, for the residual connection around it (Abnar & Zuidema 2020, eq. 1);
    if `weighted`, mixed with it by the share of what it adds. What remains of the learnt queries themselves says
    nothing of the picture and is left out before rows are scaled.
    """
    looks = [weights for weights in found.cross if weights is not None]
    if not looks:
        raise ValueError("rollout needs a layer with cross-attention. Got none.")
    n_queries, n_features = looks[0].shape[1:]
    reach = found.own[0].new_zeros(*found.own[0].shape[:2], n_features)  # (B, N, C), of each position to each feature
    for layer, (among, to_features) in enumerate(zip(found.own, found.cross, strict=True)):
        new: Tensor | float = _column(found.own_share[layer]) if weighted else 0.5
        reach = (1 - new) * reach + new * (among @ reach)
        if to_features is not None:
            new = _column(found.cross_share[layer]) if weighted else 0.5
            looked = (1 - new) * reach[:, :n_queries] + new * to_features
            reach = torch.cat([looked, reach[:, n_queries:]], dim=1)
    maps = reach[:, :n_queries]
    return maps / maps.sum(-1, keepdim=True)


def _column(share: Tensor | None) -> Tensor:
    """(B, N) -> (B, N, 1), a share a row of an attention."""
    if share is None:
        raise ValueError("a layer with cross-attention must say how much it adds (cross_share). Got none.")
    return share[..., None]
