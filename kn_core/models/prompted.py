"""Captions, logits and perplexities of a decoder-only language model that reads image tokens as embeddings.

What differs between models is how a picture becomes image tokens (`image_embeds`) and where the FFN neurons are
(`ffn`); everything here is the same for all of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from kn_core.models.base import CaptionModel


class PromptedDecoder(CaptionModel):
    """The prompt is the token ids `before`, P image tokens, the token ids `after`.

    `backbone` is the decoder without its head: embeddings in, hidden states out, with transformers' cache.
    """

    before: Tensor  # token ids (T_before,)
    after: Tensor  # (T_after,)
    ends: Tensor  # the ids that end a caption; the first of them pads what is shorter

    def __init__(
        self,
        backbone: PreTrainedModel,
        head: nn.Linear,
        tokenizer: PreTrainedTokenizerBase,
        before: Sequence[int],
        after: Sequence[int],
        n_image_tokens: int,
        grid: tuple[int, int],
        batch_size: int = 16,
        ends: Sequence[int] = (),
    ) -> None:
        """`ends` are the ids that end a caption, where they are others than the tokenizer's own end of sequence."""
        super().__init__()
        # Not registered as modules: they are parts of a decoder that a subclass holds, under its own name.
        self._parts: tuple[PreTrainedModel, nn.Linear] = (backbone, head)
        self.tokenizer, self.grid, self.batch_size = tokenizer, grid, batch_size
        self.register_buffer("before", torch.tensor(before, dtype=torch.long), persistent=False)
        self.register_buffer("after", torch.tensor(after, dtype=torch.long), persistent=False)
        self.image_positions = slice(len(before), len(before) + n_image_tokens)
        self.prompt_length = self.image_positions.stop + len(after)
        self.end = int(ends[0] if ends else tokenizer.eos_token_id)
        self.register_buffer("ends", torch.tensor(ends or [self.end], dtype=torch.long), persistent=False)

    @property
    def backbone(self) -> PreTrainedModel:
        return self._parts[0]

    @property
    def head(self) -> nn.Linear:
        return self._parts[1]

    @property
    def unembed(self) -> Tensor:
        return self.head.weight

    @abstractmethod
    def image_embeds(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB pictures -> the embeddings of their image tokens (B, P, H)."""

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids (..., T) -> input embeddings (..., T, H)."""
        return self.backbone.get_input_embeddings()(ids)

    def around(self, image: Tensor) -> Tensor:
        """Image tokens (B, P, H) -> embedded prompts (B, T, H). Differentiable in the image tokens."""
        before, after = (self.embed_tokens(ids).expand(len(image), -1, -1) for ids in (self.before, self.after))
        return torch.cat([before, image.to(before.dtype), after], dim=1)

    def prompts(self, images: Sequence[np.ndarray]) -> Tensor:
        batches = [images[i : i + self.batch_size] for i in range(0, len(images), self.batch_size)]
        with torch.no_grad():
            return torch.cat([self.around(self.image_embeds(batch)) for batch in batches])

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
                cache = DynamicCache(config=self.backbone.config)
                last = self.extend(batch, cache)[:, -1:]  # (B, 1, H), from which the first caption token is read
                if forced is not None:
                    texts = forced[start : start + self.batch_size]
                    hidden = torch.cat([last, self.extend(self._embed_captions(texts), cache)], dim=1)
                    logits += self.head(hidden)
                    cache.crop(self.prompt_length - cache.get_seq_length())
                captions += self._decode(last, cache, max_new_tokens)
        return captions, logits

    def extend(self, embeds: Tensor, cache: DynamicCache) -> Tensor:
        """Run the decoder on (B, t, H) embeddings that follow what the cache holds: last hidden states (B, t, H)."""
        if embeds.shape[1] == 0:
            return embeds
        self.first_position = cache.get_seq_length()
        try:
            hidden = self.backbone(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
        finally:
            self.first_position = 0
        return hidden

    def _decode(self, last: Tensor, cache: DynamicCache, max_new_tokens: int) -> list[str]:
        """Greedy decoding from the prompt's last hidden states (B, 1, H). Rows that have ended go on as padding."""
        written: list[Tensor] = []
        running = torch.ones(len(last), dtype=torch.bool, device=last.device)
        while True:
            # Contiguous, because a matrix product with a slice copies the whole unembedding first.
            ids = self.head(last[:, -1].contiguous()).argmax(-1)  # (B,)
            ids = torch.where(running, ids, self.end)
            written.append(ids)
            running = running & ~torch.isin(ids, self.ends)
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
        hidden = self.backbone(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return self.head(hidden[:, self.prompt_length - 1 :].contiguous())

    def perplexity(self, captions: Sequence[str]) -> np.ndarray:
        surprise: list[float] = []
        for start in range(0, len(captions), self.batch_size):
            texts = captions[start : start + self.batch_size]
            prompt = self.embed_tokens(torch.cat([self.before, self.after])).expand(len(texts), -1, -1)
            with torch.no_grad():
                embeds = torch.cat([prompt, self._embed_captions(texts)], dim=1)
                hidden = self.backbone(inputs_embeds=embeds, use_cache=False).last_hidden_state
                chances = self.head(hidden[:, prompt.shape[1] - 1 :].contiguous()).float().log_softmax(-1)
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
