"""Gradients of one number through a frozen decoder, whatever its precision, as plain numbers.

A neuron's gradient is often below 6e-8, the smallest number that float16 holds. As in mixed-precision training
(Micikevicius et al. 2018), the number is multiplied by a power of two before the backward pass and the gradients are
divided by it afterwards, in float32: that changes no digit, but keeps what would have become 0. bfloat16 has float32's
range and needs none of it; its gradients have its three digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Tried in turn until no gradient overflows: what grows backwards through the layers is the model's own.
SCALES = {torch.float16: (2.0**14, 2.0**10, 2.0**6, 2.0**2, 2.0**-2)}


def precise(values: Tensor) -> Tensor:
    """The same numbers in float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def plain(values: Tensor) -> Tensor:
    """Numbers without a graph, on the CPU, in float32 at least: what numpy and the equations are given."""
    return precise(values.detach()).cpu()


def gradients(number: Tensor, of: Sequence[Tensor], precision: torch.dtype) -> list[Tensor]:
    """d number / d tensor for each tensor, in float32 at least, on the tensor's own device.

    `precision` is that of the decoder between them. Raises FloatingPointError where float16 holds the gradients at no
    scale.
    """
    scales = SCALES.get(precision, (1.0,))
    for scale in scales:
        found = torch.autograd.grad(precise(number) * scale, list(of), retain_graph=scale != scales[-1])
        if precision not in SCALES or all(bool(each.isfinite().all()) for each in found):
            return [precise(each) / scale for each in found]
    raise FloatingPointError(
        f"the gradients of {len(found)} tensors overflow {precision} even when scaled down to {scales[-1]:g}. Set "
        "model.dtype to bfloat16, or to float32, in the profile."
    )
