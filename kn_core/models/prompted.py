"""Captions, logits and perplexities of a decoder-only language model that reads image tokens as embeddings.

What differs between models is how a picture becomes image tokens (`image_embeds`) and where the FFN neurons are
(`ffn`); everything here is the same for all of them.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import transformers
from torch import Tensor, nn

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
        backbone: transformers.PreTrainedModel,
        head: nn.Linear,
        tokenizer: transformers.PreTrainedTokenizerBase,
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
        self._parts: tuple[transformers.PreTrainedModel, nn.Linear] = (backbone, head)
        self.tokenizer, self.grid, self.batch_size = tokenizer, grid, batch_size
        self.register_buffer("before", torch.tensor(before, dtype=torch.long), persistent=False)
        self.register_buffer("after", torch.tensor(after, dtype=torch.long), persistent=False)
        self.image_positions = slice(len(before), len(before) + n_image_tokens)
        self.prompt_length = self.image_positions.stop + len(after)
        self.end = int(ends[0] if ends else tokenizer.eos_token_id)
        self.register_buffer("ends", torch.tensor(ends or [self.end], dtype=torch.long), persistent=False)

    @property
    def backbone(self) -> transformers.PreTrainedModel:
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

    def asking(self, after: str) -> Self:
        """The same model, sharing its weights, with another text after the image tokens."""
        other, ids = copy.copy(self), self._ids_after(after)
        other._buffers = {**self._buffers, "after": torch.tensor(ids, device=self.after.device)}
        other.prompt_length = self.image_positions.stop + len(ids)
        return other

    def _ids_after(self, text: str) -> list[int]:
        """Token ids of a text as it stands after the image tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids (..., T) -> input embeddings (..., T, H)."""
        embeddings: Any = self.backbone.get_input_embeddings()
        return embeddings(ids.to(embeddings.weight.device))

    def around(self, image: Tensor) -> Tensor:
        """Image tokens (B, P, H) -> embedded prompts (B, T, H). Differentiable in the image tokens."""
        before, after = (self.embed_tokens(ids).expand(len(image), -1, -1) for ids in (self.before, self.after))
        return torch.cat([before, image.to(before), after], dim=1)

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
                cache = transformers.DynamicCache(config=self.backbone.config)
                texts = [""] * len(batch) if forced is None else forced[start : start + self.batch_size]
                hidden = self.extend(self.teacher_forced(batch, texts), cache)[:, self.prompt_length - 1 :]
                # Contiguous, because a matrix product with a slice copies the whole unembedding first.
                scored = self.head(hidden.contiguous())  # (B, 1 + C, V), the first caption token's first
                if forced is None:
                    captions += self._write([scored[:, 0].argmax(-1)], cache, max_new_tokens)
                else:
                    logits += scored
                    captions += self._decode(texts, scored.argmax(-1), cache, max_new_tokens)
        return captions, logits

    def extend(
        self, embeds: Tensor, cache: transformers.DynamicCache, rows: tuple[Tensor, int] | None = None
    ) -> Tensor:
        """Run the decoder on (B, t, H) embeddings that follow what the cache holds: last hidden states (B, t, H).

        `rows` says which rows of the batch these are, and of how many; None: all.
        """
        if embeds.shape[1] == 0:
            return embeds
        self.first_position, self.rows = cache.get_seq_length(), rows
        try:
            hidden = self.backbone(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
        finally:
            self.first_position, self.rows = 0, None
        return hidden

    def _decode(
        self, drafts: Sequence[str], likeliest: Tensor, cache: transformers.DynamicCache, max_new_tokens: int
    ) -> list[str]:
        """Greedy decoding that begins where the first caption of the batch leaves its draft, so often never.

        The cache holds the prompts and the drafts; `likeliest` (B, 1 + C) are the tokens that the model would have
        written at each step of its draft. As long as they are the draft's own, the draft is the greedy caption.
        """
        likeliest = torch.where(torch.isin(likeliest, self.ends.to(likeliest.device)), self.end, likeliest)
        padded = self._pad(drafts).to(likeliest.device)  # (B, C)
        wanted = nn.functional.pad(padded, (0, 1), value=self.end)  # (B, 1 + C)
        agreed = (likeliest == wanted).cumprod(1)  # 1 as long as the greedy caption is the draft
        lengths = torch.tensor([len(self.encode(draft)[0]) for draft in drafts], device=likeliest.device)
        ended = agreed.gather(1, lengths[:, None])[:, 0].bool()  # the end token was agreed on, too
        steps = int(agreed.sum(1)[~ended].min()) if not ended.all() else max_new_tokens
        as_drafted = self._read(padded[:, :max_new_tokens])
        if steps >= max_new_tokens:
            return as_drafted
        cache.crop(self.prompt_length + steps - cache.get_seq_length())
        ids = torch.where(ended, self.end, likeliest[:, steps])
        written = self._write([*padded[:, :steps].unbind(1), ids], cache, max_new_tokens)
        return [draft if done else new for draft, new, done in zip(as_drafted, written, ended.tolist(), strict=True)]

    def _write(self, written: list[Tensor], cache: transformers.DynamicCache, max_new_tokens: int) -> list[str]:
        """Go on with captions of which these tokens are written, the last not yet read.

        Captions that end leave the batch, and the cache; their rows are padded.
        """
        rows = torch.arange(len(written[-1]))  # on the processor, where tensors of any device take their indices from
        while True:
            last = written[-1][rows]
            going = ~torch.isin(last, self.ends.to(last.device)).cpu()
            if len(written) == max_new_tokens or not going.any():
                return self._read(torch.stack(written, dim=1))
            if not going.all():
                cache.batch_select_indices(going.nonzero()[:, 0])
                rows, last = rows[going], last[going]
            hidden = self.extend(self.embed_tokens(last[:, None]), cache, (rows, len(written[-1])))  # (b, 1, H)
            ids = torch.full_like(written[-1], self.end)
            ids[rows] = self.head(hidden[:, -1].contiguous()).argmax(-1).to(ids.device)
            written.append(ids)

    def _read(self, ids: Tensor) -> list[str]:
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def encode(self, caption: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self.tokenizer(caption, add_special_tokens=False, return_offsets_mapping=True)
        return encoded.input_ids, encoded.offset_mapping

    def token(self, index: int) -> str:
        text, piece = str(self.tokenizer.decode([index])), self.tokenizer.convert_ids_to_tokens(index)
        # A Llama's tokenizer drops the space that begins a text, and with it what tells ' bear' from 'for-bear'.
        return f" {text}" if str(piece).startswith("▁") and not text.startswith(" ") else text

    def logits(self, images: Sequence[np.ndarray] | Tensor, captions: Sequence[str] | None = None) -> Tensor:
        prompts = images if isinstance(images, Tensor) else self.prompts(images)
        embeds = self.teacher_forced(prompts, captions or [""] * len(prompts))
        hidden = self.backbone(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return self.head(hidden[:, self.prompt_length - 1 :].contiguous())

    def perplexity(self, captions: Sequence[str]) -> np.ndarray:
        surprise = np.empty(len(captions))
        ids = [torch.tensor(self.encode(caption)[0], dtype=torch.long) for caption in captions]
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # batches of one length hold little padding
        prompt = self.embed_tokens(torch.cat([self.before, self.after]))[None]
        for start in range(0, len(ids), self.batch_size):
            rows = by_length[start : start + self.batch_size]
            with torch.no_grad():
                cache = transformers.DynamicCache(config=self.backbone.config)
                asked = self.extend(prompt, cache)[:, -1:].expand(len(rows), -1, -1)  # once: it is the same for all
                cache.batch_repeat_interleave(len(rows))
                said = self.extend(self._embed_captions([captions[i] for i in rows]), cache)
                logits = self.head(torch.cat([asked, said], dim=1))
            for i, row in zip(rows, logits, strict=True):
                chances = row[: len(ids[i])].float().log_softmax(-1).cpu()
                surprise[i] = -chances.gather(1, ids[i][:, None]).mean()  # NaN without tokens
        return np.exp(surprise)

    def teacher_forced(self, prompts: Tensor, captions: Sequence[str]) -> Tensor:
        """Embedded prompts (B, T, H) followed by their captions: (B, T + C, H), shorter captions padded on the right.

        Padding on the right changes nothing before it: attention is causal.
        """
        if len(captions) != len(prompts):
            raise ValueError(f"captions must be as many as images, {len(prompts)}. Got {len(captions)}.")
        return torch.cat([prompts, self._embed_captions(captions)], dim=1)

    def _embed_captions(self, captions: Sequence[str]) -> Tensor:
        return self.embed_tokens(self._pad(captions).to(self.before.device))

    def _pad(self, captions: Sequence[str]) -> Tensor:
        """Token ids (B, C), shorter captions padded on the right."""
        ids = [torch.tensor(self.encode(caption)[0], dtype=torch.long) for caption in captions]
        return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.end)
