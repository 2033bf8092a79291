"""BLIP-2 (Li et al. 2023) and InstructBLIP (Dai et al. 2023) of transformers: ViT -> Q-Former -> OPT or Vicuna.

Their image tokens are queries, which no patch belongs to: `token_maps` is where each has looked. OPT's feed-forward
blocks have no gate: activations are ReLU(fc1 x), and what fc2 reads is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from kn_core.models.base import CaptionModel, FeedForward
from kn_core.models.checkpoints import CheckpointError, Found, Preprocessing, check_numbers
from kn_core.models.rollout import record_attention, rollout
from kn_core.pictures.image_files import Picture
from kn_core.settings import Checkpoint


class Blip2(CaptionModel):
    """A BLIP-2 or InstructBLIP as a caption model: P queries, then the text `after`, begun as the decoder's texts are.

    So do transformers' processors put them. InstructBLIP's Q-Former reads that text too, by its own tokenizer.
    """

    model: Any  # transformers' own, of either family

    def __init__(
        self,
        model: Any,
        tokenizer: transformers.PreTrainedTokenizerBase,
        preprocess: Preprocessing,
        after: str,
        batch_size: int = 16,
        qformer_tokenizer: transformers.PreTrainedTokenizerBase | None = None,
    ) -> None:
        config, decoder = model.config, model.language_model
        side = config.vision_config.image_size // config.vision_config.patch_size
        prompt: list[int] = tokenizer(after).input_ids
        begin = config.text_config.bos_token_id
        if begin is not None and prompt[:1] != [begin]:
            raise CheckpointError(f"texts must begin with the token {begin}, as the decoder's do. Got {prompt[:3]}.")
        backbone, blocks = _decoder(decoder)
        ends = _ends(model)
        n_queries = int(config.num_query_tokens)
        super().__init__(
            backbone, decoder.get_output_embeddings(), tokenizer, [], prompt, n_queries, (side, side), batch_size, ends
        )
        self.model, self.preprocess, self._ffn = model, preprocess, blocks
        self._said = after if not after or after[-1].isspace() else f"{after} "  # before a caption
        self._instruction: dict[str, Tensor] = {}
        if qformer_tokenizer is not None:
            self._instruction = {"qformer_input_ids": torch.tensor([qformer_tokenizer(after).input_ids])}
        model.qformer.config._attn_implementation = "eager"  # the one that gives attention weights
        self.requires_grad_(False).eval()

    @property
    def ffn(self) -> list[FeedForward]:
        return self._ffn

    def image_embeds(self, images: Sequence[np.ndarray]) -> Tensor:
        pixels = self.preprocess(images).to(self.model.device, self.model.dtype)
        read = {name: ids.expand(len(images), -1).to(self.model.device) for name, ids in self._instruction.items()}
        with torch.no_grad():
            found: Tensor = self.model.get_image_features(pixel_values=pixels, **read).pooler_output
        return found  # (B, P, H)

    def token_maps(self, images: Sequence[Picture]) -> Tensor:
        """By weighted rollout. The tower's class token lies on no patch: what queries take from it is left out."""
        maps = []
        for batch in self.batches(images):
            with record_attention(self.model.qformer.encoder.layer) as found:
                self.image_embeds(batch)
            on_patches = rollout(found, weighted=True)[:, :, 1:]
            maps.append((on_patches / on_patches.sum(-1, keepdim=True)).cpu())
        return torch.cat(maps)

    def encode(self, caption: str) -> tuple[list[int], list[tuple[int, int]]]:
        if not caption:
            return [], []
        encoded = self.tokenizer(self._said + caption, return_offsets_mapping=True)
        n, skipped = len(self.after), len(self._said)
        if encoded.input_ids[:n] != self.after.tolist():
            raise ValueError(f"the caption must not change how the prompt before it is tokenised. Got {caption!r}.")
        spans = [(max(start - skipped, 0), max(end - skipped, 0)) for start, end in encoded.offset_mapping[n:]]
        return encoded.input_ids[n:], spans


class OPTFeedForward:
    """An OPT layer's feed-forward block, activation_fn between fc1 and fc2, by the names of a Llama's.

    OPT runs it on (B * T, H). Its modules are wrapped, so that they, and hooks on them, see (B, T, ...).
    """

    def __init__(self, layer: Any) -> None:
        # A model in memory may have been wrapped before.
        inner = [getattr(module, "inner", module) for module in (layer.activation_fn, layer.fc2)]
        self.act_fn: nn.Module = inner[0]
        self.down_proj: nn.Linear = inner[1]
        self.leading = torch.Size()  # (B, T) of the forward pass that is under way

        def enter(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self.leading = arguments[0].shape[:2]

        layer.register_forward_pre_hook(enter)
        layer.activation_fn, layer.fc2 = (_Unflattened(module, self) for module in (self.act_fn, self.down_proj))


class _Unflattened(nn.Module):
    def __init__(self, inner: nn.Module, block: OPTFeedForward) -> None:
        super().__init__()
        self.inner, self.block = inner, block

    def forward(self, flat: Tensor) -> Tensor:
        """(B * T, n) -> (B, T, n) for `inner`, and back."""
        found: Tensor = self.inner(flat.unflatten(0, self.block.leading))
        return found.flatten(0, 1)


def _decoder(decoder: Any) -> tuple[transformers.PreTrainedModel, list[FeedForward]]:
    """The decoder without its head, and the feed-forward blocks of its layers."""
    kind = decoder.config.model_type
    if kind == "opt":
        return decoder.model.decoder, [OPTFeedForward(layer) for layer in decoder.model.decoder.layers]
    if kind == "llama":
        return decoder.model, [layer.mlp for layer in decoder.model.layers]
    raise CheckpointError(f"the decoder of a BLIP-2 must be causal, opt or llama (Vicuna). Got {kind}.")


def _ends(model: Any) -> list[int]:
    """Ids that end a caption: the checkpoint's generation settings', else its decoder's. BLIP-2's OPT ends a line."""
    generation = getattr(model.generation_config, "eos_token_id", None)
    ends = model.config.text_config.eos_token_id if generation is None else generation
    return [ends] if isinstance(ends, int) else list(ends)


def adapt(found: Found, settings: Checkpoint) -> Blip2:
    """A `blip-2` or an `instructblip`, asked `after`, else `prompt`, as neither has a chat template to put it into.

    Raises CheckpointError where the checkpoint is not what this adapter reads.
    """
    if settings.before:
        raise CheckpointError(
            f"model.before must be '': this model's queries come before all text. Got {settings.before!r}."
        )
    reads = found.qformer_tokenizer if found.model.config.model_type == "instructblip" else None
    if found.model.config.model_type == "instructblip" and reads is None:
        raise FileNotFoundError(
            f"The checkpoint in {found.name} lacks qformer_tokenizer/tokenizer.json, by which its Q-Former reads the "
            "instruction. `hf download` fetches it with the rest."
        )
    preprocess = Preprocessing.of(found, found.model.config.vision_config.image_size)
    asked = settings.prompt if settings.after is None else settings.after
    made = Blip2(found.model, found.tokenizer, preprocess, asked, settings.batch_size, reads)
    check_numbers(made, found.model.config.model_type)
    return made


ADAPTERS = {"blip-2": adapt, "instructblip": adapt}
"""config.json's model_type -> what makes a caption model of such a checkpoint (`hf.ADAPTERS`)."""
