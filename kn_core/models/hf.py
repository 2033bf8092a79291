"""Vision-language models of transformers whose image tokens map onto patches and are read as plain embeddings.

LLaVA-1.5 and whatever else is a `llava` with a CLIP or SigLIP tower, InternVL, Idefics3 and SmolVLM. Tower, projector
and decoder are transformers' own; what is added is where the neurons are, read from the module tree and tried out, and
where on the picture each token lies, read from the config and held against what the model returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Self, cast, get_args

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from kn_core.models import blip2, chat, checkpoints
from kn_core.models.base import CaptionModel, FeedForward, Site
from kn_core.models.checkpoints import CheckpointError, Found, Preprocessing
from kn_core.models.hooks import record
from kn_core.settings import Checkpoint
from kn_core.weights import files


class VisionLanguageModel(CaptionModel):
    """A model of transformers as a caption model: one picture, a single view of it, rows x columns image tokens.

    The model's own chat format stands in `before` and `after`, special tokens too. Both are tokenised as one text with
    the image token between them, and so is a caption after them: 'ASSISTANT:' is followed by ' A', not by 'A'.
    """

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
        views: bool = False,
    ) -> None:
        """`views`: whether the tower takes several views of a picture, (B, views, 3, size, size); it is given one."""
        self.family = str(model.config.model_type)
        image = int(model.config.image_token_id)
        first, last = chat.prompt_ids(tokenizer, image, before, after)
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = [ends] if isinstance(ends, int) else ends or ()
        head = cast("nn.Linear", model.get_output_embeddings())
        n = grid[0] * grid[1]
        decoder: transformers.PreTrainedModel = cast("Any", model).get_decoder()
        super().__init__(decoder, head, tokenizer, first, last, n, grid, batch_size, ends)
        self.model, self.preprocess, self.views = model, preprocess, views
        self._ffn = gated_blocks(self.backbone, self.family)
        self._image, self._before_text = image, before
        self._lead, self._lead_ids = self._leading(after, last)
        self.to(model.device).requires_grad_(False).eval()
        self._try_out()

    def _leading(self, after: str, ids: Sequence[int]) -> tuple[str, list[int]]:
        """What stands before a caption, from the image token on, as text and as token ids."""
        # Where the answer begins on the line of its speaker's name, chat formats put a space between them.
        speaks = bool(ids) and not after[-1].isspace() and ids[-1] not in self.tokenizer.all_special_ids
        token = str(self.tokenizer.convert_ids_to_tokens(self._image))
        return token + after + (" " if speaks else ""), [self._image, *ids]

    def _ids_after(self, text: str) -> list[int]:
        return chat.prompt_ids(self.tokenizer, self._image, self._before_text, text)[1]

    def asking(self, after: str) -> Self:
        other = super().asking(after)
        other._lead, other._lead_ids = self._leading(after, self._ids_after(after))
        return other

    @property
    def ffn(self) -> list[FeedForward]:
        return self._ffn

    def image_embeds(self, images: Sequence[np.ndarray]) -> Tensor:
        pixels = self.preprocess(images).to(self.model.device, self.model.dtype)  # (B, 3, size, size)
        with torch.no_grad():
            features = self.model.get_image_features(pixel_values=pixels[:, None] if self.views else pixels)
        found = list(features.pooler_output)  # of each picture (P, H)
        expected = [(self.grid[0] * self.grid[1], self.backbone.config.hidden_size)] * len(images)
        if (shapes := [tuple(tokens.shape) for tokens in found]) != expected:
            raise CheckpointError(
                f"{self.family}: {len(images)} pictures must give image tokens (P, H)={expected[0]} each, on a grid of "
                f"{self.grid[0]} x {self.grid[1]}. Got {shapes[:3]}."
            )
        return torch.stack(found)  # (B, P, H)

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
        """One picture and one text: is the grid full, do hooks see (B, T, D), are the logits the model's own?"""
        checkpoints.check_numbers(self, self.family)
        texts = self.embed_tokens(torch.cat([self.before, self.after]))[None]  # (1, T, H)
        with ExitStack() as stack, torch.no_grad():
            seen = {site: stack.enter_context(record(self, site)) for site in get_args(Site)}
            logits = self.head(self.backbone(inputs_embeds=texts, use_cache=False).last_hidden_state)
            expected = (1, texts.shape[1], self.backbone.config.intermediate_size)
            for site, layers in seen.items():
                if stray := {tuple(layer.shape) for layer in layers} - {expected}:
                    raise CheckpointError(
                        f"{self.family}: the {site} of a {self.backbone.config.model_type} layer must have shape "
                        f"(B, T, D)={expected}. Got {sorted(stray)}."
                    )
            own = self.model(inputs_embeds=texts, use_cache=False).logits
        if not torch.allclose(own.float(), logits.float(), rtol=1e-3, atol=1e-3):
            raise CheckpointError(
                f"{self.family}: logits must be the decoder's last states times the output embeddings. The model's own "
                f"differ by up to {float((own - logits).abs().max()):.3g}: it scales or caps them."
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


Marks = Callable[[transformers.PreTrainedTokenizerBase], tuple[str, str]]
"""What a family's processor writes around the image tokens of a single view, by the names of its tokenizer."""


def _adapt(
    found: Found,
    settings: Checkpoint,
    shuffle: Callable[[Any], int],
    towers: Sequence[str],
    marks: Marks = lambda _: ("", ""),
    views: bool = False,
) -> VisionLanguageModel:
    """One image token for each `shuffle` x `shuffle` patches, row by row."""
    model, tokenizer = found.model, found.tokenizer
    config = model.config
    tower, kind = config.vision_config, config.model_type
    if tower.model_type not in towers:
        raise CheckpointError(
            f"{kind}: the tower must be one whose tokens lie on patches, {' or '.join(towers)}. Got {tower.model_type}."
        )
    if getattr(config, "vision_feature_select_strategy", "default") == "full" and "siglip" not in tower.model_type:
        raise CheckpointError(
            f"{kind}: vision_feature_select_strategy must be 'default', which drops the class token, as that lies on "
            "no patch. Got 'full'."
        )
    (height, width), (patch, _) = (_pair(getattr(tower, key)) for key in ("image_size", "patch_size"))
    side, left = divmod(height // patch, merged := shuffle(config))
    if height != width or left:
        raise CheckpointError(
            f"{kind}: pictures must be square, and {merged} x {merged} patches of {patch} pixels must tile them. "
            f"Got {height} x {width} pixels."
        )
    preprocess = Preprocessing.of(found, height)
    before, after = chat.prompt_texts(found, settings, marks(tokenizer))
    return VisionLanguageModel(model, tokenizer, preprocess, before, after, (side, side), settings.batch_size, views)


def _internvl_marks(tokenizer: transformers.PreTrainedTokenizerBase) -> tuple[str, str]:
    return getattr(tokenizer, "start_image_token", "<img>"), getattr(tokenizer, "end_image_token", "</img>")


def _idefics_marks(tokenizer: transformers.PreTrainedTokenizerBase) -> tuple[str, str]:
    fake = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
    return fake + getattr(tokenizer, "global_image_token", "<global-img>"), fake


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


Adapter = Callable[[Found, Checkpoint], CaptionModel]

ADAPTERS: dict[str, Adapter] = {
    "llava": partial(_adapt, shuffle=lambda _: 1, towers=("clip_vision_model", "siglip_vision_model")),
    "internvl": partial(
        _adapt,
        shuffle=lambda config: round(1 / config.downsample_ratio),
        towers=("internvl_vision",),
        marks=_internvl_marks,
    ),
    **{
        kind: partial(
            _adapt,
            shuffle=lambda config: config.scale_factor,
            towers=(f"{kind}_vision",),
            marks=_idefics_marks,
            views=True,
        )
        for kind in ("idefics3", "smolvlm")
    },
    **blip2.ADAPTERS,
}
"""config.json's model_type -> what makes a caption model of such a checkpoint."""

_BOTH_WAYS = "its image tokens attend to later ones, and here the decoder must be causal"
_VIEWS = "it reads several views of a picture, so that several tokens lie on one place"
_POSITIONS = "its image tokens are numbered by row and column, and here the decoder must number tokens in their order"
UNFIT: Mapping[str, str] = {
    **dict.fromkeys(("paligemma", "gemma3"), _BOTH_WAYS),
    **dict.fromkeys(("llava_next", "llava_onevision"), _VIEWS),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), _POSITIONS),
}
"""Families that readers will ask for, and why none of the adapters above would be right."""


def load_checkpoint(settings: Checkpoint) -> CaptionModel:
    """The checkpoint that a profile names, by the adapter of its model_type.

    Raises FileNotFoundError where files are missing, WeightsError where they hold something else, CheckpointError where
    no adapter is right for it.
    """
    folder = checkpoints.find(settings.checkpoint)
    adapter = _adapter(str(files.read_json(folder / "config.json").get("model_type")), settings.checkpoint)
    with files.reading(f"The checkpoint {folder}"):
        return adapter(checkpoints.load(folder, settings), settings)


def adopt(model: transformers.PreTrainedModel, processor: Any, settings: Checkpoint) -> CaptionModel:
    """A model in memory with its processor: itself, not a copy, frozen and in evaluation mode from now on."""
    adapter = _adapter(model.config.model_type, type(model).__name__)
    return adapter(checkpoints.hold(model, processor), settings)


def _adapter(kind: str, name: str) -> Adapter:
    if kind not in ADAPTERS:
        why = f": {UNFIT[kind]}" if kind in UNFIT else ""
        raise CheckpointError(
            f"No adapter for the model_type '{kind}' of {name}{why}. "
            f"There are adapters for {', '.join(sorted(ADAPTERS))}."
        )
    return ADAPTERS[kind]
