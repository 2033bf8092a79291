"""What the method asks of a caption model: where its image tokens are, where its FFN neurons are, what it says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Site = Literal["preactivation", "activation", "product"]


class FeedForward(Protocol):
    """The modules of a feed-forward block between which its neurons are: down_proj(act_fn(w_in x)).

    In a gated block, as a Llama has it, what `down_proj` reads is act_fn(gate x) * up x. Every layer has an `act_fn` of
    its own, so that a hook on it sees that layer alone.
    """

    act_fn: nn.Module
    down_proj: nn.Linear


class CaptionModel(nn.Module, ABC):
    """A frozen decoder that reads image tokens and writes a caption.

    Batches need no padding: all prompts of a model have one length T, with the P image tokens at the same positions.
    `first_position` is the absolute position of the first token of the forward pass that is under way (0 for a prefill,
    T, T + 1, ... while a caption is decoded with a cache), so that hooks know where they are; `rows` are those of the
    batch that it runs, and of how many, where other captions have ended (None: it runs all).
    """

    grid: tuple[int, int]  # rows, columns of the map that image tokens make of a picture; see `token_maps`
    image_positions: slice  # where in the prompt the image tokens are
    prompt_length: int  # T
    batch_size: int  # pictures that go through the model at once
    first_position: int = 0
    rows: tuple[Tensor, int] | None = None

    @abstractmethod
    def prompts(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB pictures -> embedded prompts (B, T, H)."""

    def token_maps(self, images: Sequence[np.ndarray]) -> Tensor:
        """Where in each picture each image token looks: (B, P, rows * columns), the cells of `grid` row by row.

        Token p is cell p, unless a model says otherwise: the identity.
        """
        n_tokens = self.image_positions.stop - self.image_positions.start
        return torch.eye(n_tokens).expand(len(images), -1, -1)

    @abstractmethod
    def caption(self, images: Sequence[np.ndarray] | Tensor, max_new_tokens: int = 24) -> list[str]:
        """Greedy captions, batched. `images` are pictures, or the embedded prompts that `prompts` made of them."""

    @abstractmethod
    def respond(
        self, images: Sequence[np.ndarray] | Tensor, forced: Sequence[str] | None, max_new_tokens: int = 24
    ) -> tuple[list[str], list[Tensor]]:
        """Greedy captions as `caption` writes them and, from the same pass over the prompts, forced captions' logits.

        The logits are those of `logits(images, forced)`, one (1 + C, V) an image, at the cost of C more tokens. Without
        `forced` there are none.
        """

    @abstractmethod
    def logits(self, images: Sequence[np.ndarray] | Tensor, captions: Sequence[str] | None = None) -> Tensor:
        """Next-token logits from the prompt's last position on, captions teacher-forced: (B, 1 + C, V).

        Row t predicts caption token t. C is the number of tokens of the longest; rows past a shorter one are padding.
        """

    @abstractmethod
    def perplexity(self, captions: Sequence[str]) -> np.ndarray:
        """How much each caption surprises the decoder when it sees no picture, (N,); NaN for an empty caption."""

    @abstractmethod
    def encode(self, caption: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a caption as it stands after the prompt, and each token's (start, end) in the text."""

    @abstractmethod
    def token(self, index: int) -> str:
        """The text of one vocabulary entry."""

    @property
    @abstractmethod
    def ffn(self) -> list[FeedForward]:
        """The feed-forward block of each layer."""

    @property
    def n_layers(self) -> int:
        return len(self.ffn)

    @property
    def ffn_width(self) -> int:
        """D, neurons a layer."""
        return int(self.w_out(0).shape[1])

    def w_out(self, layer: int) -> Tensor:
        """The FFN's output matrix (H, D); column i is what neuron i writes."""
        return self.ffn[layer].down_proj.weight

    @property
    @abstractmethod
    def unembed(self) -> Tensor:
        """W_U, (V, H)."""

    def site(self, layer: int, site: Site) -> tuple[nn.Module, bool]:
        """The module at which a layer's neurons are read, and whether as its output (True) or its input (False).

        'preactivation' is gate x, what the activation function reads; 'activation' is SiLU(gate x), its output, which
        is what the paper's O^l is in a gated FFN; 'product' is SiLU(gate x) * up x, what the output matrix multiplies.
        """
        block = self.ffn[layer]
        module = block.down_proj if site == "product" else block.act_fn
        return module, site == "activation"

    def top_tokens(self, layers: Sequence[int], units: Sequence[int], n: int = 10) -> list[list[str]]:
        """For each neuron the n tokens that it promotes most: the largest of W_U w_out,i (Schwettmann et al. 2023)."""
        if len(layers) == 0:
            return []
        unembed = self.unembed.float()
        columns = [self.w_out(layer)[:, unit].to(unembed) for layer, unit in zip(layers, units, strict=True)]
        best: list[list[int]] = []
        for part in torch.stack(columns).split(1024):  # (n, H), in parts whose logits (n, V) fit beside the model
            best += torch.topk(part @ unembed.T, n).indices.tolist()
        return [[self.token(index) for index in row] for row in best]
