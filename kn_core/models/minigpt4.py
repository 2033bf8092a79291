"""MiniGPT-4's architecture (Zhu et al. 2023): vision tower -> one linear layer -> Llama, both networks frozen.

The parts come from the profile: EfficientNet-Lite0 and SmolLM2-135M in the embedded profile, EVA ViT-g and Llama-2-7B
in the paper's. The code is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from kn_core.models.base import CaptionModel, FeedForward
from kn_core.models.towers import Tower


class MiniGPT4(CaptionModel):
    """`cells_per_token` neighbouring cells of a row of the tower's grid make one image token; in the paper, four.

    The prompt is `before`, the image tokens, `after`; its segments are tokenised one by one.
    """

    before: Tensor  # token ids (T_before,)
    after: Tensor  # (T_after,)

    def __init__(
        self,
        tower: Tower,
        projection: nn.Linear,
        decoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        before: str,
        after: str,
        cells_per_token: int = 1,
        batch_size: int = 16,
    ) -> None:
        super().__init__()
        rows, columns = tower.grid
        if columns % cells_per_token:
            raise ValueError(f"cells_per_token must divide the tower's {columns} columns. Got {cells_per_token}.")
        expected, shape = (decoder.config.hidden_size, tower.width * cells_per_token), tuple(projection.weight.shape)
        if shape != expected:
            raise ValueError(f"projection.weight must have shape (H, width)={expected}. Got {shape}.")
        self.tower, self.projection, self._decoder, self.tokenizer = tower, projection, decoder, tokenizer
        self.cells_per_token, self.batch_size = cells_per_token, batch_size
        self.grid = (rows, columns // cells_per_token)
        self.register_buffer("before", self._ids(before), persistent=False)
        self.register_buffer("after", self._ids(after), persistent=False)
        first = len(self.before)
        self.image_positions = slice(first, first + self.grid[0] * self.grid[1])
        self.prompt_length = self.image_positions.stop + len(self.after)
        self.end = int(tokenizer.eos_token_id)
        self.requires_grad_(False).eval()

    def _ids(self, text: str) -> Tensor:
        return torch.tensor(self.tokenizer(text, add_special_tokens=False).input_ids, dtype=torch.long)

    @property
    def decoder(self) -> PreTrainedModel:
        return self._decoder

    @property
    def ffn(self) -> list[FeedForward]:
        return [layer.mlp for layer in self._decoder.model.layers]

    @property
    def unembed(self) -> Tensor:
        return self._decoder.get_output_embeddings().weight

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids (..., T) -> input embeddings (..., T, H)."""
        return self._decoder.get_input_embeddings()(ids)

    def features(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB pictures -> what the projection reads, (B, P, cells_per_token * width)."""
        with torch.no_grad():
            pixels = self.tower.preprocess(images).to(self.projection.weight.device)
            cells = self.tower(pixels)  # (B, rows * columns, width)
        return cells.reshape(len(cells), -1, self.cells_per_token * self.tower.width)

    def prompts_from_features(self, features: Tensor) -> Tensor:
        """(B, P, width) -> embedded prompts (B, T, H). Differentiable in the projection."""
        image = self.projection(features).to(self.unembed.dtype)  # (B, P, H)
        before, after = (self.embed_tokens(ids).expand(len(image), -1, -1) for ids in (self.before, self.after))
        return torch.cat([before, image, after], dim=1)

    def prompts(self, images: Sequence[np.ndarray]) -> Tensor:
        batches = [images[i : i + self.batch_size] for i in range(0, len(images), self.batch_size)]
        with torch.no_grad():
            return torch.cat([self.prompts_from_features(self.features(batch)) for batch in batches])

    def caption(self, images: Sequence[np.ndarray] | Tensor, max_new_tokens: int = 24) -> list[str]:
        return self.respond(images, None, max_new_tokens)[0]

    def respond(
        self, images: Sequence[np.ndarray] | Tensor, forced: Sequence[str] | None, max_new_tokens: int = 24
    ) -> tuple[list[str], list[Tensor]]:
        if len(images) == 0:
            return [], []
        prompts = images if isinstance(images, Tensor) else self.prompts(images)
        captions: list[str] = []
        logits: list[Tensor] = []
        for start in range(0, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            with torch.no_grad():
                cache = DynamicCache(config=self._decoder.config)
                last = self.extend(batch, cache)[:, -1:]  # (B, 1, H), from which the first caption token is read
                if forced is not None:
                    texts = forced[start : start + self.batch_size]
                    hidden = torch.cat([last, self.extend(self._embed_captions(texts), cache)], dim=1)
                    logits += self._decoder.lm_head(hidden)
                    cache.crop(self.prompt_length - cache.get_seq_length())
                captions += self._decode(last, cache, max_new_tokens)
        return captions, logits

    def extend(self, embeds: Tensor, cache: DynamicCache) -> Tensor:
        """Run the decoder on (B, t, H) embeddings that follow what the cache holds: last hidden states (B, t, H)."""
        if embeds.shape[1] == 0:
            return embeds
        self.first_position = cache.get_seq_length()
        try:
            hidden = self._decoder.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
        finally:
            self.first_position = 0
        return hidden

    def _decode(self, last: Tensor, cache: DynamicCache, max_new_tokens: int) -> list[str]:
        """Greedy decoding from the prompt's last hidden states (B, 1, H). Rows that have ended go on as padding."""
        written: list[Tensor] = []
        running = torch.ones(len(last), dtype=torch.bool, device=last.device)
        while True:
            # Contiguous, because a matrix product with a slice copies the whole unembedding first.
            ids = self._decoder.lm_head(last[:, -1].contiguous()).argmax(-1)  # (B,)
            ids = torch.where(running, ids, self.end)
            written.append(ids)
            running = running & (ids != self.end)
            if len(written) == max_new_tokens or not running.any():
                break
            last = self.extend(self.embed_tokens(ids[:, None]), cache)
        texts = self.tokenizer.batch_decode(torch.stack(written, dim=1), skip_special_tokens=True)
        return [text.strip() for text in texts]

    def encode(self, caption: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self.tokenizer(caption, add_special_tokens=False, return_offsets_mapping=True)
        return encoded.input_ids, encoded.offset_mapping

    def token(self, index: int) -> str:
        return str(self.tokenizer.decode([index]))

    def logits(self, images: Sequence[np.ndarray] | Tensor, captions: Sequence[str] | None = None) -> Tensor:
        prompts = images if isinstance(images, Tensor) else self.prompts(images)
        embeds = self.teacher_forced(prompts, captions or [""] * len(prompts))
        hidden = self._decoder.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return self._decoder.lm_head(hidden[:, self.prompt_length - 1 :].contiguous())

    def perplexity(self, captions: Sequence[str]) -> np.ndarray:
        surprise: list[float] = []
        for start in range(0, len(captions), self.batch_size):
            texts = captions[start : start + self.batch_size]
            prompt = self.embed_tokens(torch.cat([self.before, self.after])).expand(len(texts), -1, -1)
            with torch.no_grad():
                embeds = torch.cat([prompt, self._embed_captions(texts)], dim=1)
                hidden = self._decoder.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
                chances = self._decoder.lm_head(hidden[:, prompt.shape[1] - 1 :].contiguous()).float().log_softmax(-1)
            for text, row in zip(texts, chances, strict=True):
                ids = torch.tensor(self.encode(text)[0], dtype=torch.long, device=row.device)
                surprise.append(float(-row[: len(ids)].gather(1, ids[:, None]).mean()))  # NaN without tokens
        return np.exp(np.array(surprise))

    def teacher_forced(self, prompts: Tensor, captions: Sequence[str]) -> Tensor:
        """Embedded prompts (B, T, H) followed by their captions: (B, T + C, H), shorter captions padded on the right.

        Padding on the right changes nothing before it: attention is causal.
        """
        if len(captions) != len(prompts):
            raise ValueError(f"captions must be as many as images, {len(prompts)}. Got {len(captions)}.")
        return torch.cat([prompts, self._embed_captions(captions)], dim=1)

    def _embed_captions(self, captions: Sequence[str]) -> Tensor:
        ids = [torch.tensor(self.encode(caption)[0], dtype=torch.long) for caption in captions]
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.end)
        return self.embed_tokens(padded.to(self.before.device))


def load_projection(path: Path, width: int, hidden: int) -> nn.Linear:
    """The trained linear layer from a safetensors file with `weight` (H, width) and `bias` (H,)."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FileNotFoundError(
            f"No usable projection at {path} ({error}). Train one with `python -m kn_core.train_projection`."
        ) from None
    layer = nn.Linear(width, hidden)
    layer.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return layer


def load_decoder(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A transformers causal LM and its tokenizer from a local folder, in float32."""
    decoder = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return decoder, AutoTokenizer.from_pretrained(folder, local_files_only=True)
