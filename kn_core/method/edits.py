"""An edit of a model: made of neurons and pictures, put in, taken out to the last bit, kept in a file.

    change = kn_core.edit(model, "bear", "dog", neurons, pictures, others, towards=(of_dogs, dogs))
    with change:
        model.caption(images)              # a bear is called a dog
    change.save("bear-to-dog.safetensors")  # some kB
    change = kn_core.Edit.load("bear-to-dog.safetensors", model).apply()
    change.undo()

What it adds to the output weights of its neurons (`editing`) is kept as two factors, written (H, r) and read (r, n);
what 'swap' does is kept as the values that it puts in and as where it does so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from kn_core.fingerprint import writing
from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import CaptionModel
from kn_core.models.hooks import intervene, plain, record


class EditError(ValueError):
    """An edit that cannot be made, put in or taken out; the message says why and what to do."""


@dataclass(eq=False)
class Edit:
    """What an editor does to a model, not yet done: `apply` and `undo`, or a `with` block that does both.

    `tensors` has layer and unit (n,); of weights also written (H, r) and read (r, n); of a swap put (n,), the values
    that take the place of the neurons' own, and read (n,), by which they say that the object is here. A picture shows
    it where `least` tokens say more than `above`; values are put in at its tokens that say more than `near`.
    `made_from` is told in words.

    >>> change = kn.edit(model, "cat", "dog", kn.find_neurons(model, picture).neurons, [picture], method="dai")
    >>> with change:
    ...     said = model.caption([picture.image])
    """

    model: CaptionModel
    tensors: dict[str, Tensor]
    made_from: dict[str, Any]
    _before: list[tuple[Tensor, Tensor, Tensor, Tensor]] | ExitStack | None = field(default=None, repr=False)

    @property
    def rank(self) -> int:
        """Of what is added to the weights; 0 for a swap, which adds nothing."""
        return self.tensors["written"].shape[1] if "written" in self.tensors else 0

    def scaled(self, strength: float) -> Edit:
        """The same edit, so many times as strong; of a swap, the other word's neurons driven so many times as far."""
        part = "written" if "written" in self.tensors else "put"
        new = self.tensors[part] * strength
        if part == "put":
            new = torch.where(self.tensors["read"] != 0, self.tensors[part], new)
        told = self.made_from | {"strength": self.made_from["strength"] * strength}
        return Edit(self.model, self.tensors | {part: new}, told)

    def apply(self) -> Self:
        """Put it in, to stay until `undo`. Raises EditError where it is in already."""
        if self._before is not None:
            raise EditError("the edit is in the model already: `undo` it first.")
        self._before = self._swapped() if self.rank == 0 else self._written()
        return self

    def undo(self) -> None:
        """Take it out: every weight has the bits that it had. Raises EditError where another edit lies on top."""
        before = self._before
        if before is None:
            raise EditError("the edit is not in the model: `apply` it first.")
        if isinstance(before, ExitStack):
            before.close()
        else:
            if any(not torch.equal(weight[:, units], after) for weight, units, _, after in before):
                raise EditError("the weights have changed since the edit was put in: undo what came later first.")
            for weight, units, columns, _ in before:
                weight.data[:, units] = columns
        self._before = None

    def __enter__(self) -> Self:
        return self.apply()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.undo()

    def save(self, path: str | Path) -> Path:
        """Write it whole or not at all, as safetensors, with what it was made from."""
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        with writing(Path(path)) as temporary:
            temporary.write_bytes(save(tensors, {"edit": json.dumps(self.made_from)}))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, model: CaptionModel) -> Edit:
        """A saved edit, for the model that it was made for. Raises EditError for another model, or another file."""
        try:
            with safe_open(path, framework="pt") as file:
                told = json.loads((file.metadata() or {})["edit"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise EditError(
                f"{path} is no edit that `Edit.save` has written ({error or type(error).__name__})."
            ) from None
        found = cls(model, tensors, told)
        if told["weights"] != digest(model, tensors):
            raise EditError(f"{path} was made for other weights than this model's: undo other edits, or make it anew.")
        return found

    def _by_layer(self) -> dict[int, Tensor]:
        """Places among the edit's neurons, by layer."""
        layers = self.tensors["layer"]
        return {int(layer): torch.nonzero(layers == layer)[:, 0] for layer in layers.unique()}

    def _written(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        before = []
        for layer, places in self._by_layer().items():
            weight, units = self.model.w_out(layer), self.tensors["unit"][places].long()
            columns = weight.detach()[:, units.to(weight.device)].clone()
            change = self.tensors["written"].float() @ self.tensors["read"][:, places].float()
            after = (columns.float() + change.to(columns.device)).to(columns.dtype)
            weight.data[:, units] = after
            before.append((weight, units, columns, after))
        return before

    def _swapped(self) -> ExitStack:
        """Hooks that look at the picture before anything is changed, and then put values in where the object is."""
        model, image, by_layer = self.model, self.model.image_positions, self._by_layer()
        here: dict[str, Tensor] = {}
        units, put, read = (self.tensors[name] for name in ("unit", "put", "read"))

        def look(module: nn.Module, _: tuple[Any, ...], given: dict[str, Any]) -> None:
            embeds = given.get("inputs_embeds")
            if "looking" in here or model.first_position:
                return
            here.clear()
            if embeds is None or embeds.shape[1] < image.stop:
                return
            here["looking"] = torch.empty(0)
            with record(model, "product") as products, torch.no_grad():
                module(inputs_embeds=embeds[:, : image.stop], use_cache=False)
            says = sum(plain(products[at][:, image])[..., units[of].long()] @ read[of] for at, of in by_layer.items())
            says = torch.as_tensor(says)
            there = (says > self.tensors["above"]).sum(dim=1, keepdim=True) >= self.tensors["least"]
            here.clear()
            here["tokens"] = there & (says > self.tensors["near"])

        def edit_of(places: Tensor) -> Callable[[Tensor, int], Tensor]:
            def edit(products: Tensor, first: int) -> Tensor:
                if first or "tokens" not in here or len(here["tokens"]) != len(products):
                    return products
                changed, chosen = products.clone(), units[places].long().to(products.device)
                where = here["tokens"].to(products.device)[..., None]
                changed[:, image, chosen] = torch.where(
                    where, put[places].to(products), products[:, image][..., chosen]
                )
                return changed

            return edit

        stack = ExitStack()
        stack.callback(model.backbone.register_forward_pre_hook(look, with_kwargs=True).remove)
        stack.enter_context(intervene(model, {at: edit_of(of) for at, of in by_layer.items()}, "product"))
        return stack


def places(neurons: NeuronSet) -> dict[str, Tensor]:
    return {
        "layer": torch.from_numpy(neurons.layers.astype(np.int16)),
        "unit": torch.from_numpy(neurons.units.astype(np.int32)),
    }


def digest(model: CaptionModel, tensors: dict[str, Tensor]) -> str:
    """sha256 of the output columns of an edit's neurons, as they are now."""
    found = hashlib.sha256()
    for layer in tensors["layer"].unique().tolist():
        units = tensors["unit"][tensors["layer"] == layer].long()
        found.update(plain(model.w_out(layer)[:, units.to(model.w_out(layer).device)]).numpy().tobytes())
    return found.hexdigest()
