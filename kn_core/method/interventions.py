"""What can be done to a neuron set while the model runs (section II-D of the paper, and stricter ways).

An intervention replaces the activations of the chosen neurons at the chosen positions of the prompt and caption:

    noise    O + sigma * e, e ~ N(0, 1)      the paper's
    zero     0
    mean     the neuron's mean activation at the image tokens of other concepts' pictures
    patch    its activations at the same image tokens of the picture without the object; by default those of the
             product SiLU(gate x) * up x, as at the activation site the up-branch keeps what it knows of the object
    weights  what it writes instead of what it says: w_out,i + sigma * rms(w_out,i) * e, as Pan et al. 2024 do
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import CaptionModel, Site
from kn_core.models.hooks import Edit, intervene, plain, record
from kn_core.models.packed import packed
from kn_core.settings import Intervention, Positions

NEEDS_IMAGE_POSITIONS = ("mean", "patch")


@dataclass(frozen=True)
class Setting:
    """One intervention: what is done, where, how strongly."""

    intervention: Intervention
    positions: Positions
    n: int  # neurons
    sigma: float  # of the noise: in units of activation, for 'weights' of the column's root mean square; else nan
    seed: int
    site: Site = "activation"  # where the neuron is read and changed (`CaptionModel.site`)

    def __post_init__(self) -> None:
        if self.intervention in NEEDS_IMAGE_POSITIONS and self.positions != "image":
            raise ValueError(f"'{self.intervention}' is defined at image positions. Got positions '{self.positions}'.")
        if self.intervention == "weights" and self.positions != "all":
            raise ValueError(f"'weights' changes what is written at all positions. Got positions '{self.positions}'.")


def edits_for(
    model: CaptionModel,
    neurons: NeuronSet,
    setting: Setting,
    image_ids: Sequence[str],
    replacement: Tensor | None = None,
    max_new_tokens: int = 24,
) -> dict[int, Edit]:
    """The edits of a batch of pictures, one a layer that has neurons; `intervene` applies them.

    Noise belongs to (seed, picture, layer): it does not depend on what else is in the batch. `replacement` is (L, D)
    for 'mean' and (B, L, P, D) for 'patch'. For 'weights' see `noisy_weights`.
    """
    if setting.intervention == "weights":
        raise ValueError("'weights' edits no activation. Use `noisy_weights`.")
    if (setting.intervention in NEEDS_IMAGE_POSITIONS) != (replacement is not None):
        raise ValueError(f"'mean' and 'patch' need a replacement, others take none. Got '{setting.intervention}'.")
    length = model.prompt_length + max_new_tokens + 64  # a forced caption may be longer than a written one
    made: dict[int, Edit] = {}
    for layer, units in neurons.top(setting.n).by_layer().items():
        whole = len(units) == model.ffn_width  # a layer as it lies, without a list of its neurons
        chosen = slice(None) if whole else torch.from_numpy(units)
        if setting.intervention == "noise":
            noise = torch.stack([_noise(setting.seed, image, layer, length, len(units)) for image in image_ids])
            made[layer] = _edit(model, chosen, setting.positions, _add(setting.sigma * noise))
        elif setting.intervention == "zero":
            made[layer] = _edit(model, chosen, setting.positions, lambda values, _: torch.zeros_like(values))
        elif setting.intervention == "mean":
            assert replacement is not None
            made[layer] = _edit(model, chosen, "image", _put(replacement[layer, chosen]))
        else:
            assert replacement is not None
            made[layer] = _edit(model, chosen, "image", _put(replacement[:, layer][..., chosen]))
    return made


def side_by_side(groups: Sequence[tuple[int, dict[int, Edit]]]) -> dict[int, Edit]:
    """One batch for several interventions: each group's edits on its own rows. A group is (number of rows, edits)."""
    counts, of_group = [count for count, _ in groups], [edits for _, edits in groups]

    def edit_of(layer: int) -> Edit:
        def edit(activations: Tensor, first: int) -> Tensor:
            parts = activations.split(counts)
            changed = [
                edits[layer](part, first) if layer in edits else part
                for edits, part in zip(of_group, parts, strict=True)
            ]
            same = all(new is old for new, old in zip(changed, parts, strict=True))  # as behind the image tokens
            return activations if same else torch.cat(changed)

        return edit

    return {layer: edit_of(layer) for layer in sorted(set().union(*of_group))}


def direction_edits(
    model: CaptionModel, neurons: NeuronSet, setting: Setting, image_ids: Sequence[str], prompts: Tensor
) -> dict[int, Edit]:
    """The same push in a direction that means nothing: edits of what layers write, site 'written', a control of noise.

    At each image token of the embedded prompts (B, T, H) a layer writes, beside what it writes, a vector of random
    direction as long as what the setting's noise on its neurons writes there (`written_by_noise`).
    """
    if setting.intervention != "noise" or setting.positions != "image":
        raise ValueError(f"directions are as long as what noise at image tokens writes. Got {setting}.")
    made, first = {}, model.image_positions.start
    everything = torch.arange(prompts.shape[-1])
    for layer, lengths in written_by_noise(model, neurons, setting, image_ids, prompts).items():
        size = lengths.shape[1], prompts.shape[-1]
        drawn = torch.stack([_noise(setting.seed, f"direction, {one}", layer, *size) for one in image_ids])
        push = lengths[..., None] * drawn / drawn.norm(dim=-1, keepdim=True)  # (B, P, H)
        made[layer] = _edit(model, everything, "image", _push(push, first))
    return made


def written_by_noise(
    model: CaptionModel, neurons: NeuronSet, setting: Setting, image_ids: Sequence[str], prompts: Tensor
) -> dict[int, Tensor]:
    """How long what noise on the neurons writes is, at each image token, in the very run that it disturbs: (B, P).

    Noise e on SiLU(gate x) writes sum_i e_i (up x)_i w_out,i; the up-branch is the product over its other factor.
    """
    image, lengths = model.image_positions, {}
    with (
        torch.no_grad(),
        intervene(model, edits_for(model, neurons, setting, image_ids), setting.site),
        record(model, "activation") as activations,
        record(model, "product") as products,
    ):
        model.logits(prompts)
    for layer, units in neurons.top(setting.n).by_layer().items():
        chosen = torch.from_numpy(units)
        drawn = [_noise(setting.seed, one, layer, image.stop, len(units))[image] for one in image_ids]
        added = setting.sigma * torch.stack(drawn)  # (B, P, n)
        if setting.site == "activation":  # never zero there, as it holds the noise
            added = added * (plain(products[layer][:, image]) / plain(activations[layer][:, image]))[..., chosen]
        lengths[layer] = (added @ plain(model.w_out(layer)[:, chosen]).T).norm(dim=-1)
    return lengths


@contextmanager
def noisy_weights(model: CaptionModel, neurons: NeuronSet, setting: Setting) -> Iterator[None]:
    """Within the block, the output columns w_out,i of the chosen neurons carry noise; afterwards they are as before."""
    before = []
    try:
        for layer, units in neurons.top(setting.n).by_layer().items():
            weight = model.w_out(layer)
            if packed(model.ffn[layer].down_proj):
                raise ValueError("packed weights take no noise. Load it with bits 'all', or leave 'weights' out.")
            chosen = torch.from_numpy(units).to(weight.device)
            columns = weight.detach()[:, chosen]  # (H, n), a copy
            noise = _noise(setting.seed, "w_out", layer, len(columns), len(units)).to(columns.device)
            before.append((weight, chosen, columns))
            size = columns.float().square().mean(0).sqrt()  # small weights have no square in half precision
            weight.data[:, chosen] = (columns + setting.sigma * size * noise).to(columns.dtype)
        yield
    finally:
        for weight, chosen, columns in before:
            weight.data[:, chosen] = columns


def inpainted_activations(model: CaptionModel, prompts: Tensor, site: Site = "activation") -> Tensor:
    """O' at the image tokens of embedded prompts (B, T, H): (B, L, P, D), on the CPU."""
    with record(model, site) as activations, torch.no_grad():
        model.logits(prompts)
    return torch.stack([plain(layer[:, model.image_positions]) for layer in activations], dim=1)


Change = Callable[[Tensor, slice], Tensor]
"""(values (B, t, n) of the chosen neurons, the absolute positions of the t tokens) -> new values."""


def _edit(model: CaptionModel, units: Tensor | slice, positions: Positions, change: Change) -> Edit:
    image = model.image_positions

    def edit(activations: Tensor, first: int) -> Tensor:
        last = first + activations.shape[1]
        if positions == "image":
            spans = [slice(max(first, image.start), min(last, image.stop))]
        elif positions == "text":
            spans = [slice(first, min(last, image.start)), slice(max(first, image.stop), last)]
        else:
            spans = [slice(first, last)]
        spans = [span for span in spans if span.start < span.stop]
        if not spans:
            return activations
        changed = activations.clone()
        for span in spans:
            here = slice(span.start - first, span.stop - first)
            changed[:, here, units] = change(activations[:, here, units], span).to(changed.dtype)
        return changed

    return edit


def _add(noise: Tensor) -> Change:
    return lambda values, span: values + noise[:, span].to(values)


def _push(push: Tensor, first: int) -> Change:
    """Add (B, P, H), whose first token stands at position `first`."""
    return lambda values, span: values + push[:, span.start - first : span.stop - first].to(values)


def _put(values: Tensor) -> Change:
    return lambda old, _: values.to(old).expand_as(old)


def _noise(seed: int, image_id: str, layer: int, length: int, n: int) -> Tensor:
    rng = np.random.default_rng([seed, zlib.crc32(image_id.encode()), layer])
    return torch.from_numpy(rng.standard_normal((length, n), dtype=np.float32))
