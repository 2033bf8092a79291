"""A caption model: a decoder-only language model that reads image tokens as embeddings and writes a caption.

What differs between models is how a picture becomes image tokens (`image_embeds`) and where the FFN neurons are
(`ffn`); everything here is the same for all of them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, Self, cast

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from kn_core.models import decoding
from kn_core.models.packed import dense, packed
from kn_core.pictures.image_files import Picture, as_picture, check_list

Site = Literal["preactivation", "activation", "product"]
Place = Site | Literal["written", "residual"]  # where something can be read or changed
Cache = transformers.DynamicCache
Rows = tuple[Tensor, int]  # which rows of a batch are run, and of how many


class FeedForward(Protocol):
    """The modules of a feed-forward block between which its neurons are: down_proj(act_fn(w_in x)).

    In a gated block, as a Llama has it, what `down_proj` reads is act_fn(gate x) * up x. Every layer has an `act_fn` of
    its own, so that a hook on it sees that layer alone.
    """

    act_fn: nn.Module
    down_proj: nn.Linear


class CaptionModel(nn.Module, ABC):
    """A frozen decoder whose prompt is the token ids `before`, P image tokens, the token ids `after`: T in all.

    Batches need no padding: all prompts of a model have one length T, with the image tokens at the same positions.
    `first_position` is the absolute position of the first token of the forward pass that is under way (0 for a prefill,
    T, T + 1, ... while a caption is decoded with a cache), so that hooks know where they are; `rows` are those of the
    batch that it runs, and of how many, where other captions have ended (None: it runs all).

    Wherever a picture is asked for, it is a file's path, a PIL image or a uint8 array (`image_files.as_picture`).
    """

    before: Tensor  # token ids (T_before,)
    after: Tensor  # (T_after,)
    ends: Tensor  # the ids that end a caption; the first of them pads what is shorter
    prompt_sees_ahead = False  # whether the prompt's tokens attend to those after them, up to its end
    first_position: int = 0
    rows: Rows | None = None

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
        """`backbone` is the decoder without its `head`: embeddings in, hidden states out, with transformers' cache.

        `grid` is rows and columns of the map that image tokens make of a picture (`token_maps`), `batch_size` how many
        pictures go through the model at once; `ends` end a caption, where the tokenizer's end of sequence is another.
        """
        super().__init__()
        self._parts = (backbone, head)  # not modules: they are parts of a decoder that a subclass holds, by its name
        self.tokenizer, self.grid, self.batch_size = tokenizer, grid, batch_size
        self.end = int(ends[0] if ends else tokenizer.eos_token_id)
        place = cast("nn.Embedding", backbone.get_input_embeddings()).weight.device
        for name, ids in (("before", before), ("after", after), ("ends", ends or [self.end])):
            self.register_buffer(name, torch.tensor(ids, dtype=torch.long, device=place), persistent=False)
        self.image_positions = slice(len(before), len(before) + n_image_tokens)
        self.prompt_length = self.image_positions.stop + len(after)  # T

    @abstractmethod
    def image_embeds(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB arrays (h, w, 3) -> the embeddings of their image tokens (B, P, H)."""

    @property
    @abstractmethod
    def ffn(self) -> list[FeedForward]:
        """The feed-forward block of each layer."""

    @property
    def backbone(self) -> transformers.PreTrainedModel:
        return self._parts[0]

    @property
    def head(self) -> nn.Linear:
        return self._parts[1]

    @property
    def unembed(self) -> Tensor:
        """W_U, (V, H)."""
        return self.head.weight

    @property
    def cap(self) -> float | None:
        """c, where logits are c tanh(y / c) of what the unembedding gives."""
        return None

    @property
    def n_layers(self) -> int:
        return len(self.ffn)

    @property
    def ffn_width(self) -> int:
        """D, neurons a layer."""
        return self.ffn[0].down_proj.in_features

    def w_out(self, layer: int) -> Tensor:
        """The FFN's output matrix (H, D); column i is what neuron i writes."""
        module = self.ffn[layer].down_proj
        return dense(module) if packed(module) else module.weight

    def site(self, layer: int, site: Place) -> tuple[nn.Module, bool]:
        """The module at which a layer's neurons are read, and whether as its output (True) or its input (False).

        'preactivation' is gate x, what the activation function reads; 'activation' is SiLU(gate x), its output, which
        is what the paper's O^l is in a gated FFN; 'product' is SiLU(gate x) * up x, what the output matrix multiplies.
        'written' (..., H) is no neuron's: what all of the layer's write into the residual stream.
        No neuron's is 'residual', the stream (B, T, H) that a layer of a decoder like Llama's leaves.
        """
        if site == "residual":
            decoder: Any = self.backbone
            return decoder.layers[layer], True
        block = self.ffn[layer]
        module = block.down_proj if site in ("product", "written") else block.act_fn
        return module, site in ("activation", "written")

    def top_tokens(self, layers: Sequence[int], units: Sequence[int], n: int = 10) -> list[list[str]]:
        """For each neuron the n tokens that it promotes most: the largest of W_U w_out,i (Schwettmann et al. 2023)."""
        if len(layers) == 0:
            return []
        unembed = self.unembed.float()
        order = np.argsort(layers, kind="stable")  # a layer's together
        columns = [self.w_out(layers[i])[:, units[i]].to(unembed) for i in order]
        best: list[list[int]] = []
        for part in torch.stack(columns)[np.argsort(order)].split(1024):  # (n, H): logits (n, V) fit beside the model
            best += torch.topk(part @ unembed.T, n).indices.tolist()
        return [[self.token(index) for index in row] for row in best]

    def batches(self, images: Sequence[Picture]) -> Iterator[list[np.ndarray]]:
        """The pictures as uint8 RGB arrays (h, w, 3), `batch_size` at a time. Raises PictureError for what is none."""
        check_list(images)
        for start in range(0, len(images), self.batch_size):
            yield [as_picture(image) for image in images[start : start + self.batch_size]]

    def prompts(self, images: Sequence[Picture]) -> Tensor:
        """Pictures -> embedded prompts (B, T, H)."""
        with torch.no_grad():
            return torch.cat([self.around(self.image_embeds(batch)) for batch in self.batches(images)])

    def _embedded(self, images: Sequence[Picture] | Tensor) -> Tensor:
        """Embedded prompts (B, T, H) of pictures, or those that are given."""
        if not isinstance(images, Tensor):
            return self.prompts(images)
        if images.ndim != 3 or images.shape[1] != self.prompt_length:
            expected = f"embedded prompts (B, T, H) with T={self.prompt_length}; pictures come in a list"
            raise ValueError(f"a tensor must hold {expected}. Got {images.dtype} of shape {tuple(images.shape)}.")
        return images

    def around(self, image: Tensor) -> Tensor:
        """Image tokens (B, P, H) -> embedded prompts (B, T, H). Differentiable in the image tokens."""
        before, after = (self.embed_tokens(ids).expand(len(image), -1, -1) for ids in (self.before, self.after))
        return torch.cat([before, image.to(before), after], dim=1)

    def token_maps(self, images: Sequence[Picture]) -> Tensor:
        """Where in each picture each image token looks: (B, P, rows * columns), the cells of `grid` row by row.

        Token p is cell p, unless a model says otherwise: the identity.
        """
        check_list(images)
        n_tokens = self.image_positions.stop - self.image_positions.start
        return torch.eye(n_tokens).expand(len(images), -1, -1)

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

    def caption(self, images: Sequence[Picture] | Tensor, max_new_tokens: int = 24) -> list[str]:
        """Greedy captions, batched. `images` are pictures, or the embedded prompts that `prompts` made of them."""
        return self.respond(images, None, max_new_tokens)[0]

    def respond(
        self, images: Sequence[Picture] | Tensor, forced: Sequence[str] | None, max_new_tokens: int = 24
    ) -> tuple[list[str], list[Tensor]]:
        """Greedy captions as `caption` writes them and, from the same pass over the prompts, forced captions' logits.

        The logits are those of `logits(images, forced)`, one (1 + C, V) an image, at the cost of C more tokens. Without
        `forced` there are none.
        """
        check_list(images)
        if len(images) == 0:
            return [], []
        prompts = self._embedded(images)
        captions: list[str] = []
        logits: list[Tensor] = []
        for start in range(0, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            with torch.no_grad():
                cache = transformers.DynamicCache(config=self.backbone.config)
                cache.activate_past_recording()  # drafts are taken back, in layers too that see a window alone
                texts = [""] * len(batch) if forced is None else forced[start : start + self.batch_size]
                hidden = self.extend(self.teacher_forced(batch, texts), cache)[:, self.prompt_length - 1 :]
                # Contiguous, because a matrix product with a slice copies the whole unembedding first.
                scored = self.score(hidden.contiguous())  # (B, 1 + C, V), the first caption token's first
                if forced is None:
                    captions += decoding.write(self, [scored[:, 0].argmax(-1)], cache, max_new_tokens)
                else:
                    logits += scored
                    captions += decoding.continue_drafts(self, texts, scored.argmax(-1), cache, max_new_tokens)
        return captions, logits

    def logits(self, images: Sequence[Picture] | Tensor, captions: Sequence[str] | None = None) -> Tensor:
        """Next-token logits from the prompt's last position on, captions teacher-forced: (B, 1 + C, V).

        Row t predicts caption token t. C is the number of tokens of the longest; rows past a shorter one are padding.
        """
        prompts = self._embedded(images)
        embeds = self.teacher_forced(prompts, captions or [""] * len(prompts))
        return self.score(self.extend(embeds)[:, self.prompt_length - 1 :].contiguous())

    def score(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of the decoder's last hidden states (..., H), capped where the model caps them."""
        logits: Tensor = self.head(hidden)
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def perplexity(self, captions: Sequence[str]) -> np.ndarray:
        """How much each caption surprises the decoder when it sees no picture, (N,); NaN for an empty caption."""
        return decoding.perplexity(self, captions)

    def extend(
        self, embeds: Tensor, cache: Cache | None = None, rows: Rows | None = None, picture: bool = True
    ) -> Tensor:
        """Run the decoder on (B, t, E) embeddings that follow what the cache holds: last hidden states (B, t, H).

        `rows`: which rows of the batch these are, and of how many; None: all. `picture`: whether image tokens are read.
        """
        if embeds.shape[1] == 0:
            return embeds
        self.first_position, self.rows = cache.get_seq_length() if cache is not None else 0, rows
        try:
            given = self.guide(embeds, cache, picture)
            hidden = self.backbone(**given, past_key_values=cache, use_cache=cache is not None).last_hidden_state
        finally:
            self.first_position, self.rows = 0, None
        return hidden

    def guide(self, embeds: Tensor, cache: Cache | None, picture: bool) -> dict[str, Any]:  # noqa: ARG002
        """What the decoder is given with embeddings from `first_position` on: here no mask or positions beside them."""
        return {"inputs_embeds": embeds}

    def teacher_forced(self, prompts: Tensor, captions: Sequence[str]) -> Tensor:
        """Embedded prompts (B, T, H) followed by their captions: (B, T + C, H), shorter captions padded on the right.

        Padding on the right changes nothing before it, as attention is causal there.
        """
        if len(captions) != len(prompts):
            raise ValueError(f"captions must be as many as images, {len(prompts)}. Got {len(captions)}.")
        return torch.cat([prompts, self.embed_tokens(self.padded(captions))], dim=1)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids (..., T) -> input embeddings (..., T, E), what the decoder reads: E is H in most families."""
        embeddings: Any = self.backbone.get_input_embeddings()
        return embeddings(ids.to(embeddings.weight.device))

    def encode(self, caption: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a caption as it stands after the prompt, and each token's (start, end) in the text."""
        encoded = self.tokenizer(caption, add_special_tokens=False, return_offsets_mapping=True)
        return encoded.input_ids, encoded.offset_mapping

    def padded(self, captions: Sequence[str]) -> Tensor:
        """Token ids (B, C), shorter captions padded on the right."""
        ids = [torch.tensor(self.encode(caption)[0], dtype=torch.long) for caption in captions]
        return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.end)

    def token(self, index: int) -> str:
        """The text of one vocabulary entry."""
        text, piece = str(self.tokenizer.decode([index])), self.tokenizer.convert_ids_to_tokens(index)
        # A Llama's tokenizer drops the space that begins a text, and with it what tells ' bear' from 'for-bear'.
        return f" {text}" if str(piece).startswith("▁") and not text.startswith(" ") else text
