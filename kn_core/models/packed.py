"""Weights of 8 or 4 bits (bitsandbytes): how they are made at loading, and what a neuron of theirs writes.

Gradients reach activations through packed weights, which need none themselves. Only the decoder's are packed: tower and
connector are small.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
import transformers
from torch import Tensor, nn

BLOCK = 1024  # neurons at once
AS_THEY_ARE = ("lm_head", "visual", "vision_tower", "vision_model", "multi_modal_projector", "connector", "qformer")


def how(bits: str, dtype: torch.dtype) -> Any:
    """transformers' setting for '8-bit' (LLM.int8, Dettmers et al. 2022) or '4-bit' weights (NF4, QLoRA, 2023).

    Raises ModuleNotFoundError where bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ModuleNotFoundError(
            f"{bits} weights need bitsandbytes: `pip install kn-core[packed]`, or set model.bits to 'all'."
        )
    kept = list(AS_THEY_ARE)
    if bits == "8-bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=kept
    )


def settle(model: nn.Module) -> None:
    """Keep bitsandbytes from rearranging 4-bit weights on a processor at the first pass: gradients cannot read them."""
    for each in model.modules():
        module: Any = each
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def packed(module: nn.Linear) -> bool:
    """Whether a module's weights are no plain numbers."""
    return not module.weight.is_floating_point()


@lru_cache(maxsize=4)
def dense(module: nn.Linear) -> Tensor:
    """The weights (H, D) of a packed module, read-only: what it writes for each neuron alone, past any hook."""
    near: Any = module
    place, found = module.weight.device, []
    with torch.no_grad():
        for start in range(0, module.in_features, BLOCK):
            alone = torch.zeros(min(BLOCK, module.in_features - start), module.in_features, device=place)
            alone[:, start:].fill_diagonal_(1)
            found.append(near.forward(alone.to(torch.float16 if place.type == "cuda" else torch.float32)))
    weights = torch.cat(found).T
    return weights if module.bias is None else weights - module.bias[:, None]
