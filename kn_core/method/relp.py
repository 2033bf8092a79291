"""RelP: relevance by one backward pass in which three local rules make a Llama's blocks linear (2508.21258).

What a rule stops carries no gradient, so that the gradient times what flows in is conserved from layer to layer:

    RMSNorm    x * stop(1 / sqrt(mean x^2 + eps)) * w
    SiLU       z * stop(sigmoid z)
    gate * up  u -> u / 2 + stop(u / 2), each of the two factors gets half

Linear layers and attention are as they are, and so is every number that the model computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3")  # decoders of RMSNorms and gated blocks, as a Llama has them


def follows(decoder: Any) -> bool:
    """Whether the rules are those of this decoder's blocks."""
    config = getattr(decoder, "config", None)
    return getattr(config, "model_type", "") in LIKE_LLAMA and getattr(config, "hidden_act", "") == "silu"


@contextmanager
def local_rules(decoder: Any) -> Iterator[None]:
    """Within the block, gradients of a Llama-like decoder follow the three rules; its modules are left as they were.

    Hooks that are set within the block see what the rules make: what `down_proj` reads has its whole relevance. Raises
    ValueError for a decoder whose blocks are others.
    """
    if not follows(decoder):
        raise ValueError(
            f"RelP's rules are those of a Llama's blocks: decoders of type {', '.join(LIKE_LLAMA)} with SiLU. "
            f"Got {decoder.config.model_type} with {getattr(decoder.config, 'hidden_act', 'no gate')}: leave RelP out."
        )
    with ExitStack() as stack:
        for module in decoder.modules():
            if hasattr(module, "variance_epsilon"):  # an RMSNorm, whatever the family calls it
                stack.callback(module.register_forward_hook(_norm).remove)
        for layer in decoder.layers:
            stack.callback(layer.mlp.act_fn.register_forward_hook(_silu).remove)
            stack.callback(layer.mlp.down_proj.register_forward_pre_hook(_product).remove)
        yield


def _norm(module: Any, arguments: tuple[Tensor, ...], _: Tensor) -> Tensor:
    x = arguments[0]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    size = torch.rsqrt(wide.square().mean(-1, keepdim=True) + module.variance_epsilon)
    normed: Tensor = module.weight * (wide * size.detach()).to(x.dtype)
    return normed


def _silu(_: nn.Module, arguments: tuple[Tensor, ...], __: Tensor) -> Tensor:
    return arguments[0] * torch.sigmoid(arguments[0]).detach()


def _product(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
    half = arguments[0] / 2
    return (half + half.detach(),)
