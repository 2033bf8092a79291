"""Where the queries of a Q-Former look: attention rollout (Abnar & Zuidema 2020) from its queries to the picture.

A query has no place in a picture. What it holds came by cross-attention, from cells of the tower, and by
self-attention, from other queries that had looked at cells before; rollout follows both back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """

    own: list[Tensor] = field(default_factory=list)
    cross: list[Tensor | None] = field(default_factory=list)


@contextmanager
def record_attention(layers: nn.ModuleList) -> Iterator[Attentions]:
    """Collect the attention weights of the next forward pass. The Q-Former must run with eager attention."""
    found = Attentions([torch.empty(0)] * len(layers), [None] * len(layers))

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: tuple[Tensor, Tensor], place: list[Any], i: int) -> None:
        if output[1] is None:
            raise ValueError("rollout needs attention weights: load the Q-Former with attn_implementation='eager'.")
        place[i] = output[1].detach().float().mean(1)

    with ExitStack() as stack:
        for i, layer in enumerate(layers):
            for name, place in (("attention", found.own), ("crossattention", found.cross)):
                if hasattr(layer, name):
                    block: Any = getattr(layer, name)
                    handle = block.attention.register_forward_hook(partial(keep, place=place, i=i))
                    stack.callback(handle.remove)
        yield found


def rollout(own: Sequence[Tensor], cross: Sequence[Tensor | None]) -> Tensor:
    """The share of each query that comes from each of the tower's features, (B, P, C); rows sum to 1.

    Each attention is averaged with the identity, for the residual connection around it (Abnar & Zuidema 2020, eq. 1).
    What remains of the learnt queries themselves says nothing of the picture and is left out before rows are scaled.
    """
    looks = [weights for weights in cross if weights is not None]
    if not looks:
        raise ValueError("rollout needs a layer with cross-attention. Got none.")
    n_queries, n_features = looks[0].shape[1:]
    reach = own[0].new_zeros(*own[0].shape[:2], n_features)  # (B, N, C), of each position to each feature
    for among, to_features in zip(own, cross, strict=True):
        reach = (reach + among @ reach) / 2
        if to_features is not None:
            looked = (reach[:, :n_queries] + to_features) / 2
            reach = torch.cat([looked, reach[:, n_queries:]], dim=1)
    maps = reach[:, :n_queries]
    return maps / maps.sum(-1, keepdim=True)
