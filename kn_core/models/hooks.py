"""Read a model's FFN neurons, or change them, while it runs.

    with record(model) as activations:
        model.logits(images)
    activations[3]  # (B, T, D), layer 3

    with intervene(model, {3: edit}):
        captions = model.caption(images)

Hooks are removed when the block is left, in reverse order, also by an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # models that try themselves out when they are loaded use these hooks
    from kn_core.models.base import CaptionModel, Place


Edit = Callable[[Tensor, int], Tensor]
"""(activations (B, T, D), absolute position of the first of the T tokens) -> changed activations, same shape."""


@contextmanager
def record(
    model: CaptionModel, site: Place = "activation", keep: Callable[[Tensor], Tensor] = lambda values: values
) -> Iterator[list[Tensor]]:
    """Collect every layer's activations of the last forward pass, in a list by layer; empty before the first.

    Each is (B, T, D), in the model's own precision: of every picture, at every token of prompt and caption that the
    pass reads, of every FFN neuron. `site` says what of a neuron is read: 'activation' is SiLU(gate x), the paper's O^l
    (section II-C); 'preactivation' is gate x; 'product' is what the output matrix reads (`CaptionModel.site`). They are
    the tensors of the graph itself: gradients can be taken with respect to them. While a caption is decoded with a
    cache, T is 1 and rows whose captions have ended are left out. `keep` makes of a layer's, as soon as they are there,
    what is kept instead: with `plain` of some tokens, no more than one layer's lie beside the model.

    As baukit's `nethook` does it: hooks in a context, gone when it is left, also by an error.

    >>> from kn_core.models.hooks import record
    >>> with record(model) as activations:
    ...     logits = model.logits([picture])
    >>> len(activations) == model.n_layers
    True
    >>> tuple(activations[0].shape) == (1, model.prompt_length, model.ffn_width)
    True
    >>> image_tokens = activations[0][0, model.image_positions]  # (P, D)
    """
    found = [torch.empty(0)] * model.n_layers

    def see(activations: Tensor, layer: int) -> None:
        found[layer] = keep(activations)

    with ExitStack() as stack:
        for layer in range(model.n_layers):
            _attach(stack, model, layer, site, partial(see, layer=layer))
        yield found


@contextmanager
def record_slopes(model: CaptionModel, site: Place, keep: Callable[[Tensor, int], Tensor]) -> Iterator[list[Tensor]]:
    """Collect what is kept of d number / d activations, layer by layer, while `descend` goes back through a pass.

    `keep` is given a layer's and which layer it is, and must be linear in them. The activations are not held, nor is
    any layer's gradient longer than the step that needs it.
    """
    found = [torch.empty(0)] * model.n_layers

    def see(activations: Tensor, layer: int) -> None:
        def slope(gradient: Tensor) -> None:
            found[layer] = keep(gradient, layer)

        activations.register_hook(slope)

    with ExitStack() as stack:
        for layer in range(model.n_layers):
            _attach(stack, model, layer, site, partial(see, layer=layer))
        yield found


@contextmanager
def intervene(model: CaptionModel, edits: Mapping[int, Edit], site: Place = "activation") -> Iterator[None]:
    """Run every forward pass with the activations of the given layers changed by their edits.

    `edits` gives a layer, counted from 0, an `Edit`: (activations (B, T, D), absolute position of the first of the T
    tokens) -> activations of the same shape. It is called once a pass: T is all of the prompt and what is forced after
    it, then 1 for each token that is written. It sees the whole batch: rows whose captions have ended are zeros, and
    what it makes of them is dropped. It must not change in place what it is given. `site` as in `record`.

    Raises ValueError for a layer that there is not, and, when the model runs, for an edit that changes the shape.
    The paper's section II-D disturbs its neurons so; its own interventions are made by `interventions.edits_for`.

    >>> from kn_core.models.hooks import intervene
    >>> def without_neuron_7(activations, first):
    ...     changed = activations.clone()
    ...     changed[..., 7] = 0
    ...     return changed
    >>> before = model.logits([picture])
    >>> with intervene(model, {0: without_neuron_7}):
    ...     after = model.logits([picture])
    >>> bool((after != before).any())
    True
    >>> bool((model.logits([picture]) == before).all())  # nothing stays behind
    True
    """
    if stray := [layer for layer in edits if not 0 <= layer < model.n_layers]:
        raise ValueError(f"layers must be in 0..{model.n_layers - 1}. Got {stray}.")

    def change(activations: Tensor, edit: Edit) -> Tensor:
        if model.rows is None:
            changed = edit(activations, model.first_position)
        else:
            rows, of = model.rows
            batch = activations.new_zeros(of, *activations.shape[1:])
            batch[rows] = activations
            changed = edit(batch, model.first_position)[rows]
        if changed.shape != activations.shape:
            raise ValueError(f"an edit must keep shape {tuple(activations.shape)}. Got {tuple(changed.shape)}.")
        return changed

    with ExitStack() as stack:
        for layer, edit in edits.items():
            _attach(stack, model, layer, site, partial(change, edit=edit))
        yield


def _attach(
    stack: ExitStack, model: CaptionModel, layer: int, site: Place, see: Callable[[Tensor], Tensor | None]
) -> None:
    """Call `see` with the activations at a site, and let what it returns take their place, until the stack unwinds."""
    module, as_output = model.site(layer, site)
    if as_output:

        def after(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return see(output)

        stack.callback(module.register_forward_hook(after).remove)
    else:

        def before(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor] | None:
            changed = see(arguments[0])
            return None if changed is None else (changed,)

        stack.callback(module.register_forward_pre_hook(before).remove)


# Tried in turn until no gradient overflows: what grows backwards through the layers is the model's own.
SCALES = {torch.float16: (2.0**14, 2.0**10, 2.0**6, 2.0**2, 2.0**-2)}


def precise(values: Tensor) -> Tensor:
    """The same numbers in float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def plain(values: Tensor) -> Tensor:
    """Numbers without a graph, on the CPU, in float32 at least: what numpy and the equations are given."""
    return precise(values.detach().cpu())  # half as many bytes on the way


@dataclass
class Landing:
    """Brings tensors to the CPU in their own precision, while an accelerator goes on; `wait` before they are read."""

    devices: set[torch.device] = field(default_factory=set)

    def __call__(self, values: Tensor) -> Tensor:
        if not values.is_cuda:
            return values.detach().cpu()
        self.devices.add(values.device)
        return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values.detach(), non_blocking=True)

    def wait(self) -> None:
        for device in self.devices:
            torch.accelerator.synchronize(device)


def gradients(number: Tensor, of: Sequence[Tensor], precision: torch.dtype) -> list[Tensor]:
    """d number / d tensor for each tensor, in float32 at least, on the tensor's own device.

    `precision` is that of the decoder between them. Raises FloatingPointError where float16 holds the gradients at no
    scale.
    """
    found: list[Tensor] = []

    def seen() -> list[Tensor]:
        return found

    def back(scaled: Tensor, again: bool) -> None:
        found[:] = torch.autograd.grad(scaled, list(of), retain_graph=again)

    return _at_some_scale(number, back, seen, precision)


def descend(
    number: Tensor,
    start: Tensor,
    slopes: Sequence[list[Tensor]],
    precision: torch.dtype,
    landed: Callable[[], None] = lambda: None,
    keep: bool = False,
) -> list[list[Tensor]]:
    """Go back from a number to where the pass began, and give what `record_slopes` kept on the way, as `gradients`.

    `landed` is waited for before that is read; `keep` leaves the graph for another number.
    """

    def back(scaled: Tensor, again: bool) -> None:
        torch.autograd.grad(scaled, start, retain_graph=keep or again)
        landed()

    found = iter(_at_some_scale(number, back, lambda: [each for layers in slopes for each in layers], precision))
    return [[next(found) for _ in layers] for layers in slopes]


def _at_some_scale(
    number: Tensor, back: Callable[[Tensor, bool], None], seen: Callable[[], list[Tensor]], precision: torch.dtype
) -> list[Tensor]:
    scales = SCALES.get(precision, (1.0,))
    for scale in scales:
        back(precise(number) * scale, scale != scales[-1])
        found = seen()
        if precision not in SCALES or all(bool(precise(each).sum().isfinite()) for each in found):
            return [precise(each) / scale for each in found]
    raise FloatingPointError(
        f"the gradients of {len(found)} tensors overflow {precision} even when scaled down to {scales[-1]:g}. Set "
        "model.dtype to bfloat16, or to float32, in the profile."
    )
