"""How much memory a run takes at its peak, told before it: shapes alone are run, on the meta device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental._config
import transformers
from torch import Tensor, nn

from kn_core.models import checkpoints, eva, hf, released
from kn_core.models.base import CaptionModel
from kn_core.models.minigpt4 import MiniGPT4
from kn_core.profile import Profile
from kn_core.settings import Checkpoint, Model
from kn_core.weights import local

SHARE = {"all": 1.0, "8-bit": 0.5, "4-bit": 0.28}  # of a decoder matrix in half precision; its scales are counted


@dataclass(frozen=True)
class Memory:
    """Bytes. A run takes the weights and the larger of the two others; a tower's pass, which keeps nothing, is less."""

    weights: int
    pair: int  # what a backward pass keeps of a picture's prompt and caption, and its logits
    captions: int  # keys, values, one layer's activations and logits of a whole batch's prompts and captions

    @property
    def peak(self) -> int:
        return self.weights + max(self.pair, self.captions)

    def __str__(self) -> str:
        weights, pair, captions, peak = (each / 1e9 for each in (self.weights, self.pair, self.captions, self.peak))
        return (
            f"about {peak:.2f} GB at the peak: {weights:.2f} of weights, and {pair:.2f} for a backward pass or "
            f"{captions:.2f} for a batch of captions"
        )


def predict(model: CaptionModel, max_new_tokens: int = 24, bits: str = "all") -> Memory:
    """Of a model on the meta device, or of one that is there."""
    decoder, batch = model.backbone, model.batch_size
    dtype: Any = decoder.get_input_embeddings().weight.dtype
    read = int(model.embed_tokens(model.before[:0]).shape[-1])  # E
    length = model.prompt_length + max_new_tokens
    with torch.device("meta"):
        twin = type(decoder)(decoder.config).to(dtype).requires_grad_(False)  # type: ignore[arg-type]
        prompt = torch.empty(1, length, read, dtype=dtype, requires_grad=True)
    size = torch.finfo(dtype).bits // 8
    held = {id(weight): weight.nbytes for weight in model.parameters()}
    matrices = [module.weight for module in decoder.modules() if isinstance(module, nn.Linear)]
    share = SHARE[bits] * 2 / size if bits != "all" else 1.0
    saved = sum(held.values()) - round(sum(weight.nbytes for weight in matrices) * (1 - share))
    parts, model._parts = model._parts, (twin, model.head)
    try:
        kept = _kept(model, prompt, {weight.untyped_storage()._cdata for weight in twin.parameters()})
    finally:
        model._parts = parts
    text: Any = decoder.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    logits = model.unembed.shape[0] * (1 + max_new_tokens) * size
    cache = 2 * model.n_layers * heads * width * length * size
    layer = (3 * model.ffn_width + 4 * text.hidden_size) * length * size
    return Memory(saved, kept + 2 * logits, batch * (cache + layer + logits))


def _kept(model: CaptionModel, prompt: Tensor, weights: set[int]) -> int:
    """Bytes of all tensors but weights that a pass keeps for its way back, each storage once.

    On the meta device attention is as wide as the prompt is long, and squared; kernels of devices keep no such square,
    unless attention is eager.
    """
    storages: dict[int, Any] = {}
    length, eager = prompt.shape[1], model.backbone.config._attn_implementation == "eager"

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and (eager or tensor.shape[-2:] != (length, length)):
            storages[storage._cdata] = storage
        return tensor

    given = model.guide(prompt, None, True)
    if prompt.is_meta and not given.keys() & {"attention_mask", "position_ids"}:  # which would be made from numbers
        given["attention_mask"] = torch.zeros(1, 1, length, length, dtype=prompt.dtype, device=prompt.device)
    settings: Any = torch.fx.experimental._config
    every = settings.patch(meta_nonzero_assume_all_nonzero=True)  # DeepStack's mask, and it is
    with every, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
        model.backbone(**given, use_cache=False)
    return sum(storage.nbytes() for storage in storages.values())


def foretold(profile: Profile) -> Iterator[str]:
    """A line for weights that the reader brings, before they are read; none for packaged ones."""
    settings = profile.model
    if isinstance(settings, Model) and settings.files is None:
        return
    found = predict(outline(settings), settings.max_new_tokens, getattr(settings, "bits", "all"))
    free = ""
    if torch.cuda.is_available() and settings.device != "cpu":
        cards = range(torch.cuda.device_count())
        room = sum(torch.cuda.mem_get_info(card)[0] for card in cards) / 1e9
        free = f"; {room:.2f} GB are free"
        if found.peak > room * 1e9:
            packed = "model.bits to 8-bit, " if isinstance(settings, Checkpoint) else ""
            free += f". Set model.batch_size lower, {packed}or model.device to spread"
    yield f"memory: {found}{free}"


def outline(settings: Checkpoint | Model) -> CaptionModel:
    """A model that the reader brings, without its weights: shapes alone, on the meta device."""
    dtype = getattr(torch, settings.dtype)
    if isinstance(settings, Model):
        return _parts(settings, local.find(released.sources(settings))["model.files.decoder"], dtype)
    folder = checkpoints.find(settings.checkpoint)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return hf.adapter(config.model_type, str(folder))(checkpoints.beside(folder, model), settings)


def _parts(parts: Model, folder: Path, dtype: torch.dtype) -> MiniGPT4:
    config: Any = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        tower = eva.EvaViT(transformers.Blip2VisionModel(eva.eva_vit_g())).to(dtype)
        decoder = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        layer = nn.Linear(tower.width * parts.cells_per_token, config.hidden_size, dtype=dtype)
    texts = (parts.before, parts.after)
    return MiniGPT4(tower, layer, decoder, tokenizer, *texts, parts.cells_per_token, parts.batch_size)
