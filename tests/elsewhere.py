"""An accelerator that is not there: tensors that are on the CPU, but say and behave as if they were on another device.

    with accelerator():
        there = to_accelerator(model)
        there.logits(images)     # an error where a tensor of the CPU meets one of the device, as on a real one

As on a real device, numpy cannot read them, a number (0-d tensor) of the CPU may meet them, and they may be indexed by
tensors of the CPU. Whatever is made with `device=` one of theirs is there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("xla", 0)  # a name that nothing here asks after


class There(Tensor):
    """A tensor of the accelerator."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class _Accelerator(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: tuple[Any, ...] = (), settings: Any = None
    ) -> Any:
        settings = dict(settings or {})
        name = getattr(function, "__name__", "")
        first = arguments[0] if arguments else None
        if function == Tensor.device.__get__:
            return DEVICE if isinstance(first, There) else function(*arguments)
        if function == Tensor.is_cpu.__get__:
            return not isinstance(first, There)
        if isinstance(first, There) and name in ("numpy", "__array__"):
            raise TypeError("can't convert a tensor of the accelerator to numpy. Use Tensor.cpu() first.")
        if name == "cpu":
            return _here(first)
        if name == "__deepcopy__" and isinstance(first, There):
            return _there(first.detach().clone())
        if name == "to":
            return self._to(function, arguments, settings)
        if name == "grad":  # a graph may cross devices, and a gradient is where its tensor is
            found = function(*arguments, **settings)
            return tuple(_there(g) if isinstance(x, There) else g for g, x in zip(found, arguments[1], strict=True))
        place = settings.get("device")
        if place is not None and torch.device(place) == DEVICE:
            return _there(function(*arguments, **settings | {"device": "cpu"}))
        meeting = arguments[:1] + arguments[2:] if name in ("__getitem__", "__setitem__") else arguments
        tensors = [each for each in tree_flatten((meeting, settings))[0] if isinstance(each, Tensor)]
        there = [each for each in tensors if isinstance(each, There)]
        if there and any(each.dim() and not isinstance(each, There) for each in tensors):
            shapes = [(tuple(each.shape), isinstance(each, There)) for each in tensors]
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found two: {shapes}")
        found = function(*arguments, **settings)
        return tree_map(lambda each: _there(each) if isinstance(each, Tensor) else each, found) if there else found

    def _to(self, function: Callable[..., Any], arguments: tuple[Any, ...], settings: dict[str, Any]) -> Tensor:
        """Where `to` moves a tensor: to that of another one, or to a device that it names, else nowhere."""
        first, *others = arguments
        there, kept = isinstance(first, There), []
        for other in [*others, *settings.values()]:
            if isinstance(other, Tensor):
                there = isinstance(other, There)
                kept.append(other.dtype)
            elif isinstance(other, (str, torch.device)):
                there = torch.device(other) == DEVICE
            elif isinstance(other, torch.dtype):
                kept.append(other)
        found = first.type(kept[0]) if kept else first
        return _there(found) if there else _here(found)


def _there(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, There) else tensor.as_subclass(There)


def _here(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor) if isinstance(tensor, There) else tensor


@contextmanager
def accelerator() -> Iterator[None]:
    with _Accelerator():
        yield


def to_accelerator(model: nn.Module) -> nn.Module:
    """The same module, its parameters and buffers on the accelerator."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = _there(parameter.detach())  # type: ignore[assignment]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = _there(buffer)
    return model
