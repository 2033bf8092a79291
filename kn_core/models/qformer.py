"""A Q-Former (Li et al. 2023, BLIP-2) in the place of the linear layer, as in the first MiniGPT-4.

Learnt queries look at the tower's cells by cross-attention; each becomes one image token. No token belongs to a cell
of the picture any more: `token_maps` says where each query has looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kn_core.models.minigpt4 import MiniGPT4
from kn_core.models.rollout import Attentions, record_attention, rollout
from kn_core.pictures.image_files import Picture


def regions(n_queries: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of regions, one a query, that tile the grid: tall ones rather than wide ones, as many rows."""
    rows, columns = grid
    for down in range(rows, 0, -1):
        across, left = divmod(n_queries, down)
        if not left and not rows % down and across and not columns % across:
            return down, across
    raise ValueError(f"{n_queries} queries cannot tile a grid of {rows} x {columns} cells in equal regions.")


def region_means(n_queries: int, grid: tuple[int, int]) -> Tensor:
    """The matrix (P, cells) that takes the mean over each query's region."""
    down, across = regions(n_queries, grid)
    row, column = (
        torch.eye(regions_).repeat_interleave(n // regions_, 1) for regions_, n in ((down, grid[0]), (across, grid[1]))
    )
    member = torch.kron(row, column)
    return member / member.sum(1, keepdim=True)


N_QUERIES = 32
LAYERS = 4  # of which every second looks at the picture, as in BLIP-2


class QFormerProjection(nn.Module):
    """Cells of a tower (B, cells, width) -> queries -> image tokens (B, P, H).

    A convolutional tower does not tell its cells' places; a cell's row and column, one-hot, are appended to its
    features, as position embeddings are part of the features of BLIP-2's own tower.
    """

    places: Tensor  # (cells, rows + columns)

    def __init__(
        self,
        width: int,
        hidden: int,
        grid: tuple[int, int],
        n_queries: int = N_QUERIES,
        inner: int = 256,
        layers: int = LAYERS,
        heads: int = 4,
    ) -> None:
        super().__init__()
        config = transformers.Blip2QFormerConfig(
            hidden_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=2 * inner,
            encoder_hidden_size=width + sum(grid),
            cross_attention_frequency=2,
            hidden_dropout_prob=0.0,  # the loss of a batch is a function of the batch
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=1e-5,
        )
        config._attn_implementation = "eager"  # the one that gives attention weights; `token_maps` reads them
        self.qformer = transformers.Blip2QFormerModel(config)
        self.queries = nn.Parameter(torch.randn(n_queries, inner))
        self.linear = nn.Linear(inner, hidden)
        self.grid = grid
        rows, columns = (torch.eye(n) for n in grid)
        places = torch.cat([rows.repeat_interleave(grid[1], 0), columns.repeat(grid[0], 1)], dim=1)
        self.register_buffer("places", places, persistent=False)

    def look(self, features: Tensor) -> Tensor:
        """(B, cells, width) -> what the queries have seen, (B, P, inner)."""
        places = self.places.expand(len(features), -1, -1)
        cells = torch.cat([features, places], dim=-1)
        queries = self.queries.expand(len(features), -1, -1)
        seen: Tensor = self.qformer(query_embeds=queries, encoder_hidden_states=cells).last_hidden_state
        return seen

    def forward(self, features: Tensor) -> Tensor:
        tokens: Tensor = self.linear(self.look(features))
        return tokens

    def attentions(self, features: Tensor) -> Attentions:
        """What looks at what while the queries read these features."""
        with torch.no_grad(), record_attention(self.qformer.encoder.layer) as found:
            self.look(features)
        return found

    def maps(self, features: Tensor) -> Tensor:
        """Where each query looks, (B, P, cells), rows sum to 1: by rollout, weighted by what each look adds.

        Plain rollout counts every block alike, and in a Q-Former most add next to nothing (section 7 of the book).
        """
        return rollout(self.attentions(features), weighted=True)


class QFormerMiniGPT4(MiniGPT4):
    """MiniGPT-4 with a Q-Former between tower and decoder. `grid` is the tower's: that of the queries' maps."""

    projection: QFormerProjection

    @staticmethod
    def n_image_tokens(projection: nn.Module, grid: tuple[int, int], width: int, hidden: int) -> int:
        if not isinstance(projection, QFormerProjection):
            raise ValueError(f"projection must be a QFormerProjection. Got {type(projection).__name__}.")
        expected = (hidden, width + sum(grid), grid)
        found = projection.linear.out_features, projection.qformer.config.encoder_hidden_size, projection.grid
        if found != expected:
            raise ValueError(f"the Q-Former must have (H, width with places, grid)={expected}. Got {found}.")
        return len(projection.queries)

    def token_maps(self, images: Sequence[Picture]) -> Tensor:
        return torch.cat([self.projection.maps(self.features(batch)).cpu() for batch in self.batches(images)])


def load_qformer(path: Path, width: int, hidden: int, grid: tuple[int, int]) -> QFormerProjection:
    """The trained Q-Former from a safetensors file of `QFormerProjection`'s parameters."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FileNotFoundError(
            f"No usable Q-Former at {path} ({error}). Train one with `python -m kn_core.training`."
        ) from None
    projection = QFormerProjection(width, hidden, grid)
    projection.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return projection
