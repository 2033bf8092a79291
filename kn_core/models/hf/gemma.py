"""Gemma 3, PaliGemma and PaliGemma 2: decoders in which a part of the prompt sees itself both ways.

In Gemma 3 image tokens see one another, in PaliGemma all of the prompt does, its text too. The mask is the one that the
model makes for the first pass of its own generation; captions after it are causal. PaliGemma counts positions from 1,
and where a Gemma 2 caps logits, so does what is read here, and gradients go through the cap. Activations are
GELU(gate x), by its tanh approximation.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

from kn_core.models import chat
from kn_core.models.checkpoints import CheckpointError, Found, Preprocessing
from kn_core.models.hf.one_view import squares
from kn_core.models.hf.vision_language import VisionLanguageModel
from kn_core.settings import Checkpoint

TOWERS = ("siglip_vision_model",)


class BothWays(VisionLanguageModel):
    """A model whose mask follows from a type for each token."""

    def guide(self, embeds: Tensor, cache: transformers.DynamicCache | None, picture: bool) -> dict[str, Any]:
        if self.first_position:
            return {"inputs_embeds": embeds}
        mask = self.model.create_masks_for_generate(
            self.model.config, embeds, None, cache, None, token_type_ids=self._types(embeds, picture)
        )
        return {"inputs_embeds": embeds, "attention_mask": mask}

    def _types(self, embeds: Tensor, picture: bool) -> Tensor:
        """(B, t), 1 for an image token."""
        place = torch.arange(embeds.shape[1], device=embeds.device)
        image = (place >= self.image_positions.start) & (place < self.image_positions.stop)
        return (image & picture).long().expand(len(embeds), -1)

    def beside(self, ids: Tensor) -> dict[str, Tensor]:
        return {"token_type_ids": self._types(ids[..., None], True)}


class PaliGemma(BothWays):
    prompt_sees_ahead = True
    begins = False  # but for the text's beginning of sequence, which stands behind the image tokens

    @property
    def cap(self) -> float | None:
        return getattr(self.backbone.config, "final_logit_softcapping", None)

    def guide(self, embeds: Tensor, cache: transformers.DynamicCache | None, picture: bool) -> dict[str, Any]:
        places = torch.arange(embeds.shape[1], device=embeds.device) + self.first_position + 1
        return {**super().guide(embeds, cache, picture), "position_ids": places[None]}

    def _types(self, embeds: Tensor, picture: bool) -> Tensor:
        """(B, t), 0 in the prompt and 1 in a caption."""
        prompt = self.prompt_length - (0 if picture else self.image_positions.stop - self.image_positions.start)
        return (torch.arange(embeds.shape[1], device=embeds.device) >= prompt).long().expand(len(embeds), -1)


def gemma3(found: Found, settings: Checkpoint) -> VisionLanguageModel:
    """One token for as many patches as `mm_tokens_per_image` leaves; pan and scan, which is optional, is left out."""
    config, tokenizer = found.model.config, found.tokenizer
    tower = config.vision_config
    patches, tokens = tower.image_size // tower.patch_size, round(config.mm_tokens_per_image**0.5)
    if tokens**2 != config.mm_tokens_per_image or patches % tokens:
        raise CheckpointError(
            f"gemma3: mm_tokens_per_image must be a square whose side divides {patches} patches. "
            f"Got {config.mm_tokens_per_image}."
        )
    size, side = squares(config, TOWERS, patches // tokens)
    begin, end = (str(tokenizer.convert_ids_to_tokens(getattr(config, f"{key}_token_index"))) for key in ("boi", "eoi"))
    before, after = chat.prompt_texts(found, settings, (f"\n\n{begin}", f"{end}\n\n"), begin)
    preprocess = Preprocessing.of(found, size)
    return BothWays(found.model, tokenizer, preprocess, before, after, (side, side), settings.batch_size)


def paligemma(found: Found, settings: Checkpoint) -> VisionLanguageModel:
    """Image tokens, the beginning of sequence, a task, as 'caption en', and a line's end; there is no chat template."""
    config, tokenizer = found.model.config, found.tokenizer
    if settings.before:
        raise CheckpointError(f"paligemma: model.before must be '': image tokens come first. Got {settings.before!r}.")
    size, side = squares(config, TOWERS, 1)
    task = settings.prompt if "prompt" in settings.model_fields_set else "caption en"
    after = f"{tokenizer.bos_token}{task}\n" if settings.after is None else settings.after
    if config.text_config.model_type == "gemma2":  # whose caps other attention leaves out
        found.model.set_attn_implementation({"text_config": "eager"})
    preprocess = Preprocessing.of(found, size)
    return PaliGemma(found.model, tokenizer, preprocess, "", after, (side, side), settings.batch_size)


ADAPTERS = {"gemma3": gemma3, "paligemma": paligemma}
