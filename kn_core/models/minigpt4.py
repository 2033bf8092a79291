"""MiniGPT-4's architecture (Zhu et al. 2023): vision tower -> one linear layer -> Llama, both networks frozen.

The parts come from the profile: EfficientNet-Lite0 and SmolLM2-135M in the embedded profile, EVA ViT-g and Llama-2-7B
in the paper's. The code is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kn_core.models.base import CaptionModel, FeedForward
from kn_core.models.checkpoints import read
from kn_core.models.towers import Tower
from kn_core.weights import files
from kn_core.weights.files import WeightsError


class MiniGPT4(CaptionModel):
    """`cells_per_token` neighbouring cells of a row of the tower's grid make one image token; in the paper, four.

    The prompt is `before`, the image tokens, `after`, each tokenised by itself (`segment`).
    """

    def __init__(
        self,
        tower: Tower,
        projection: nn.Module,
        decoder: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        before: str,
        after: str,
        cells_per_token: int = 1,
        batch_size: int = 16,
    ) -> None:
        rows, columns = tower.grid
        if columns % cells_per_token:
            raise ValueError(f"cells_per_token must divide the tower's {columns} columns. Got {cells_per_token}.")
        grid, width = (rows, columns // cells_per_token), tower.width * cells_per_token
        n_tokens = self.n_image_tokens(projection, grid, width, decoder.config.hidden_size)
        first, last = (segment(tokenizer, text) for text in (before, after))
        super().__init__(decoder.model, decoder.lm_head, tokenizer, first, last, n_tokens, grid, batch_size)
        self.tower, self.projection, self._decoder = tower, projection, decoder
        self.cells_per_token = cells_per_token
        self.requires_grad_(False).eval()

    def _ids_after(self, text: str) -> list[int]:
        return segment(self.tokenizer, text)

    @staticmethod
    def n_image_tokens(projection: nn.Module, grid: tuple[int, int], width: int, hidden: int) -> int:
        """P: one token a cell of the grid. Raises ValueError for a projection that does not fit tower and decoder."""
        shape = tuple(projection.weight.shape) if isinstance(projection, nn.Linear) else type(projection).__name__
        if shape != (hidden, width):
            raise ValueError(f"projection.weight must have shape (H, width)={(hidden, width)}. Got {shape}.")
        return grid[0] * grid[1]

    @property
    def decoder(self) -> transformers.PreTrainedModel:
        return self._decoder

    @property
    def ffn(self) -> list[FeedForward]:
        return [layer.mlp for layer in self._decoder.model.layers]

    def features(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB pictures -> what the projection reads, (B, P, cells_per_token * width)."""
        with torch.no_grad():
            pixels = self.tower.preprocess(images).to(next(self.projection.parameters()))
            cells = self.tower(pixels)  # (B, rows * columns, width)
        return cells.reshape(len(cells), -1, self.cells_per_token * self.tower.width)

    def image_embeds(self, images: Sequence[np.ndarray]) -> Tensor:
        tokens: Tensor = self.projection(self.features(images))
        return tokens

    def prompts_from_features(self, features: Tensor) -> Tensor:
        """(B, P, width) -> embedded prompts (B, T, H). Differentiable in the projection."""
        return self.around(self.projection(features))


def load_projection(path: Path, width: int, hidden: int) -> nn.Linear:
    """The trained linear layer from a safetensors file with `weight` (H, width) and `bias` (H,)."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FileNotFoundError(
            f"No usable projection at {path} ({error}). Train one with `python -m kn_core.training`."
        ) from None
    layer = nn.Linear(width, hidden)
    layer.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return layer


def segment(tokenizer: transformers.PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a part of a prompt, without special tokens but those that the text spells out.

    What stands between beginnings of sequence ('<s>' in a Llama's text) is tokenised by itself, as MiniGPT-4 does it: a
    Llama's tokenizer puts a space before each such part, which some versions of it leave out behind a special token.
    """
    begin = tokenizer.bos_token
    ids: list[int] = []
    for i, part in enumerate(text.split(begin) if begin else [text]):
        ids += [tokenizer.bos_token_id] if i else []
        ids += tokenizer(part, add_special_tokens=False).input_ids if part else []
    return ids


def load_decoder(
    folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """A transformers causal LM and its tokenizer from a local folder.

    `device` is torch's name of one, or 'spread': over all accelerators, layer by layer. Raises WeightsError where they
    are too small for it, as the method reads the weights themselves, which offloaded layers do not hold.
    """
    place: str | dict[str, str] = "auto" if device == "spread" else {"": device}
    files.check_unquantised(files.read_json(folder / "config.json"), str(folder))
    with files.reading(f"The decoder {folder}"):
        decoder = read(transformers.AutoModelForCausalLM, folder, dtype=dtype, device_map=place)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if any(parameter.is_meta for parameter in decoder.parameters()):
        raise WeightsError(
            f"{folder} does not fit into the accelerators that there are in {dtype}: some layers would be fetched for "
            "each use. Set model.dtype to a half precision, or model.device to 'cpu', in the profile."
        )
    return decoder, tokenizer
