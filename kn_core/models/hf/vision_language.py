"""A vision-language model of transformers as a caption model: what all families have in common.

Tower, projector and decoder are transformers' own; what is added is where the neurons are, read from the module tree
and tried out, and where on the picture each token lies, read from the config and held against what the model returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self, cast, get_args

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from kn_core.models import chat, checkpoints
from kn_core.models.base import CaptionModel, FeedForward, Site
from kn_core.models.checkpoints import CheckpointError, Preprocessing
from kn_core.models.hooks import record


class VisionLanguageModel(CaptionModel):
    """A model of transformers as a caption model: one picture, P image tokens on a grid of rows x columns.

    The model's own chat format stands in `before` and `after`, special tokens too. Both are tokenised as one text with
    the image token between them, and so is a caption after them: 'ASSISTANT:' is followed by ' A', not by 'A'.
    """

    begins = True  # whether the prompt does with the beginning of sequence, where the tokenizer's texts do
    model: Any  # a PreTrainedModel with methods that only those which see pictures have

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        preprocess: Preprocessing,
        before: str,
        after: str,
        grid: tuple[int, int],
        batch_size: int = 16,
        n_tokens: int | None = None,
    ) -> None:
        """`n_tokens`: P, where it is not rows x columns."""
        self.family = str(model.config.model_type)
        image = int(model.config.image_token_id)
        first, last = chat.prompt_ids(tokenizer, image, before, after, self.begins)
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = [ends] if isinstance(ends, int) else ends or ()
        head = cast("nn.Linear", model.get_output_embeddings())
        n = n_tokens or grid[0] * grid[1]
        decoder: transformers.PreTrainedModel = cast("Any", model).get_decoder()
        super().__init__(decoder, head, tokenizer, first, last, n, grid, batch_size, ends)
        self.model, self.preprocess = model, preprocess
        self._ffn = gated_blocks(self.backbone, self.family)
        self._image, self._before_text = image, before
        self._lead, self._lead_ids = self._leading(after, last)
        self.requires_grad_(False).eval()
        self._try_out()

    def _leading(self, after: str, ids: Sequence[int]) -> tuple[str, list[int]]:
        """What stands before a caption, from the image token on, as text and as token ids."""
        # Where the answer begins on the line of its speaker's name, chat formats put a space between them.
        speaks = bool(ids) and not after[-1].isspace() and ids[-1] not in self.tokenizer.all_special_ids
        token = str(self.tokenizer.convert_ids_to_tokens(self._image))
        return token + after + (" " if speaks else ""), [self._image, *ids]

    def _ids_after(self, text: str) -> list[int]:
        return chat.prompt_ids(self.tokenizer, self._image, self._before_text, text, self.begins)[1]

    def asking(self, after: str) -> Self:
        other = super().asking(after)
        other._lead, other._lead_ids = self._leading(after, self._ids_after(after))
        return other

    @property
    def ffn(self) -> list[FeedForward]:
        return self._ffn

    def image_embeds(self, images: Sequence[np.ndarray]) -> Tensor:
        with torch.no_grad():
            found = self.features(self.pixels(images))  # of each picture (P, E)
        wide = self.embed_tokens(self.before[:0]).shape[-1]
        expected = [(self.image_positions.stop - self.image_positions.start, wide)] * len(images)
        if (shapes := [tuple(tokens.shape) for tokens in found]) != expected:
            raise CheckpointError(
                f"{self.family}: {len(images)} pictures must give image tokens (P, H)={expected[0]} each, on a grid of "
                f"{self.grid[0]} x {self.grid[1]}. Got {shapes[:3]}."
            )
        return torch.stack(found)  # (B, P, E)

    def pixels(self, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """What transformers' own processor makes of pictures that are squares."""
        return {"pixel_values": self.preprocess(images).to(self.model.device, self.model.dtype)}  # (B, 3, size, size)

    def features(self, pixels: dict[str, Tensor]) -> list[Tensor]:
        """What the decoder reads of each picture: B times (P, E)."""
        return list(self.model.get_image_features(**pixels).pooler_output)

    def beside(self, ids: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """What the model's own forward pass needs with token ids (B, T) of a prompt and caption and with the pixels."""
        return {}

    def own_inputs(self, images: Sequence[np.ndarray], caption: str = "") -> dict[str, Any]:
        """What transformers' own forward pass is given for these pictures, each with this caption after it."""
        n = self.image_positions.stop - self.image_positions.start
        ids = [*self.before.tolist(), *[self._image] * n, *self.after.tolist(), *self.encode(caption)[0]]
        tokens = torch.tensor([ids] * len(images), device=self.model.device)
        return {"input_ids": tokens, **self.beside(tokens), **self.pixels(images)}

    def encode(self, caption: str) -> tuple[list[int], list[tuple[int, int]]]:
        if not caption:
            return [], []
        encoded = self.tokenizer(self._lead + caption, add_special_tokens=False, return_offsets_mapping=True)
        n, skipped = len(self._lead_ids), len(self._lead)
        if encoded.input_ids[:n] != self._lead_ids:
            raise ValueError(f"the caption must not change how the prompt before it is tokenised. Got {caption!r}.")
        spans = [(max(start - skipped, 0), max(end - skipped, 0)) for start, end in encoded.offset_mapping[n:]]
        return encoded.input_ids[n:], spans

    def _try_out(self) -> None:
        """One picture: is the grid full, do hooks see (B, T, D), are the logits the model's own?"""
        if self.before.is_meta:  # has shapes alone
            return
        checkpoints.check_numbers(self, self.family)
        picture = [checkpoints.ramp()]
        with ExitStack() as stack, torch.no_grad():
            seen = {site: stack.enter_context(record(self, site)) for site in get_args(Site)}
            logits = self.logits(picture)[:, -1]
            expected = (1, self.prompt_length, self.backbone.config.intermediate_size)
            for site, layers in seen.items():
                if stray := {tuple(layer.shape) for layer in layers} - {expected}:
                    raise CheckpointError(
                        f"{self.family}: the {site} of a {self.backbone.config.model_type} layer must have shape "
                        f"(B, T, D)={expected}. Got {sorted(stray)}."
                    )
            own = self.model(**self.own_inputs(picture), use_cache=False, logits_to_keep=1).logits[:, -1]
        if not torch.allclose(own.float(), logits.float(), rtol=1e-3, atol=1e-3):
            raise CheckpointError(
                f"{self.family}: logits must be the decoder's last states times the output embeddings. The model's own "
                f"differ by up to {float((own - logits).abs().max()):.3g}: it scales or caps them, or its decoder is "
                "given positions or a mask of its own."
            )


def gated_blocks(decoder: transformers.PreTrainedModel, family: str) -> list[FeedForward]:
    """The feed-forward block of each layer, found in the module tree by what it is made of: act_fn and down_proj.

    Raises CheckpointError where a layer has no such block or several (a mixture of experts), or layers share one
    activation module, on which a hook would see them all.
    """
    kind = decoder.config.model_type
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise CheckpointError(
            f"{family}: its decoder, a {kind}, must hold its layers in `layers`. "
            f"Got {', '.join(name for name, _ in decoder.named_children())}."
        )
    blocks: list[FeedForward] = []
    for number, layer in enumerate(layers):
        found = [module for module in layer.modules() if _is_block(module)]
        if len(found) != 1:
            inside = found or [module for name, module in layer.named_children() if "attn" not in name]
            names = ", ".join(f"{type(m).__name__}({', '.join(n for n, _ in m.named_children())})" for m in inside[:3])
            raise CheckpointError(
                f"{family}: layer {number} of its decoder, a {kind}, must have one feed-forward block that is made of "
                f"modules act_fn and down_proj. Got {len(found)}; there is {names}."
            )
        blocks.append(cast("FeedForward", found[0]))
    if len({id(block.act_fn) for block in blocks}) != len(blocks):
        raise CheckpointError(
            f"{family}: every layer of its decoder, a {kind}, must have an act_fn of its own. Some are shared."
        )
    return blocks


def _is_block(module: nn.Module) -> bool:
    return isinstance(getattr(module, "act_fn", None), nn.Module) and isinstance(
        getattr(module, "down_proj", None), nn.Linear
    )
