"""Linear layers that a processor multiplies by oneDNN, in float32 as before.

torch leaves float32 products to MKL, which uses half of what AMD's processors can do: by oneDNN captions and gradients
take .6 of the time there (`benchmarks/linear.py`). Sums differ in their order alone.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

M = TypeVar("M", bound=nn.Module)


class Linear(nn.Linear):
    """x W^T + b; by torch's own way where weights are trained, and in other number formats and on other devices."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name for it)
        if not _suits(input, self.weight) or (torch.is_grad_enabled() and self.weight.requires_grad):
            return super().forward(input)
        if torch.is_grad_enabled() and input.requires_grad:
            product: Tensor = _Product.apply(input, self.weight, self.bias)
            return product
        return _product(input, self.weight, self.bias)


def by_onednn(model: M) -> M:
    """The same model, its linear layers `Linear` from here on; their weights stay where they are."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
    return model


def _suits(x: Tensor, weight: Tensor) -> bool:
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu"
    return plain and x.numel() > 0 and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu")


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
    return product


class _Product(torch.autograd.Function):
    """The product, and what it makes of a gradient; none is wanted of the weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _product(gradient, weight.T, None), None, None
