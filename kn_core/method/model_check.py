"""Is a model what its adapter takes it for? Tried out on a picture of coloured squares.

What is wrong here would be wrong of every neuron: hooks that see another layer, a grid with rows for columns, logits
that are not the model's own, gradients that stop on the way, an intervention that leaves something behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
import transformers
from torch import Tensor

from kn_core.method.interventions import Setting, edits_for, noisy_weights
from kn_core.method.two_stages import NeuronSet
from kn_core.models import load_model
from kn_core.models.base import CaptionModel, Site
from kn_core.models.hooks import gradients, intervene, record

BLOCKS = 8  # at most so many along a side of the grid are lit, one at a time
STEPS = 5  # tokens that are written with and without a cache
CLOSE = {torch.float32: 2e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # of the largest logit


@dataclass(frozen=True)
class Finding:
    """One thing that was tried: whether it is as it must be (None: it cannot be told), and what was seen."""

    subject: str
    right: bool | None
    seen: str

    def __str__(self) -> str:
        return f"{'----' if self.right is None else 'ok  ' if self.right else 'WRONG'} {self.subject}: {self.seen}"


def check(model: CaptionModel) -> Iterator[Finding]:
    """Each finding as soon as it is made. Takes some 80 pictures through the tower and a dozen runs of the decoder."""
    yield Finding("model", True, f"{model.n_layers} layers of {model.ffn_width} neurons, {_tokens(model)}")
    image = squares(model.grid, np.random.default_rng(0))
    for try_out in (hooks, neurons, grid, logits, cache, slopes, noise):
        try:
            yield try_out(model, image)
        except Exception as error:  # of whatever is wrong in the model
            yield Finding(try_out.__name__, False, f"{type(error).__name__}: {error}")


def _tokens(model: CaptionModel) -> str:
    tokens = model.image_positions
    return f"{tokens.stop - tokens.start} image tokens on a grid of {model.grid[0]} x {model.grid[1]}"


def squares(grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A picture of a square of some colour in each cell, uint8 (h, w, 3)."""
    side = max(8, 256 // max(grid))
    return np.kron(rng.integers(0, 256, (*grid, 3)), np.ones((side, side, 1), int)).astype(np.uint8)


def hooks(model: CaptionModel, image: np.ndarray) -> Finding:
    """Every site of every layer is a module of its own that runs once, and holds (B, T, D); act_fn lies between two."""
    expected, read = (1, model.prompt_length, model.ffn_width), {}
    for site in get_args(Site):
        modules = [model.site(layer, site)[0] for layer in range(model.n_layers)]
        runs = dict.fromkeys(map(id, modules), 0)

        def count(module: torch.nn.Module, *_: Any, runs: dict[int, int] = runs) -> None:
            runs[id(module)] += 1

        with ExitStack() as stack, torch.no_grad():
            for module in modules:
                stack.callback(module.register_forward_hook(count).remove)
            read[site] = stack.enter_context(record(model, site))
            model.logits([image])
        if len(runs) < len(modules) or set(runs.values()) != {1}:
            told = f"{len(runs)} modules for {len(modules)} layers, which run {sorted(set(runs.values()))} times a pass"
            return Finding("hooks", False, f"{site}: {told}; each layer must have one of its own that runs once")
        if stray := {tuple(layer.shape) for layer in read[site]} - {expected}:
            return Finding("hooks", False, f"{site} must have shape (B, T, D)={expected}. Got {sorted(stray)}")
    with torch.no_grad():
        made = [block.act_fn(before) for block, before in zip(model.ffn, read["preactivation"], strict=True)]
    if not all(map(torch.equal, made, read["activation"])):
        return Finding("hooks", False, "what is read as activation must be act_fn of what is read as preactivation")
    return Finding("hooks", True, "each layer's sites are its own and run once a pass")


def neurons(model: CaptionModel, image: np.ndarray) -> Finding:
    """A neuron of the other sign takes twice what it writes, its product times w_out, out of its own layer alone."""
    layer = (model.n_layers - 1) // 2

    def turned(values: Tensor, _: int) -> Tensor:
        return torch.cat([values[..., :unit], -values[..., unit : unit + 1], values[..., unit + 1 :]], dim=-1)

    def run() -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        with record(model) as seen, record(model, "product") as read, record(model, "written") as written:
            model.logits(prompt)
        return seen, read, written

    with torch.no_grad():
        prompt = model.prompts([image])
        before, product, written = run()
        unit = int(product[layer][0].abs().amax(0).argmax())  # one that speaks
        with intervene(model, {layer: turned}):
            after, _, without = run()
        lost = 2 * product[layer][..., unit : unit + 1] * model.w_out(layer)[:, unit].to(product[layer])
    dense = torch.allclose(written[layer] - without[layer], lost, atol=_close(written[layer]), rtol=0.05)
    below = all(torch.equal(a, b) for a, b in zip(before[:layer], after[:layer], strict=True))
    above = any(not torch.equal(a, b) for a, b in zip(before[layer + 1 :], after[layer + 1 :], strict=True))
    if not dense:
        return Finding("neurons", False, f"unit {unit} of layer {layer} does not write its product times w_out")
    if not below or not above:
        where = "a layer below it" if not below else "no layer above it"
        return Finding("neurons", False, f"with unit {unit} of layer {layer} of the other sign, {where} changes")
    return Finding("neurons", True, f"unit {unit} of layer {layer} writes its product times its output weights")


def _close(values: Tensor) -> float:
    return CLOSE.get(values.dtype, 1e-5) * float(values.abs().max())


def grid(model: CaptionModel, image: np.ndarray) -> Finding:
    """Of a dark picture one block of cells is lit: the tokens that change most must be those that look there.

    Attention in the tower may carry light anywhere, in a right model too: meanwhile it adds nothing. What else mixes
    cells, as convolutions do, stays. The centre of what changes a token must lie where its map says, within its own
    radius and half a block. A model whose tokens change at lights all over the grid cannot be told from a wrong one.
    """
    maps = model.token_maps([image])[0].double()  # (P, rows * columns)
    dark = np.full_like(image, 20)
    if not torch.equal(maps, model.token_maps([dark])[0].double()):
        return Finding("grid", None, "tokens have no place of their own: where they look follows from the picture")
    across = [min(cells, BLOCKS) for cells in model.grid]
    rows, columns = (np.arange(cells) * n // cells for cells, n in zip(model.grid, across, strict=True))
    block = rows[:, None] * across[1] + columns  # of each cell, (rows, columns)
    where = np.kron(block, np.ones([pixels // cells for pixels, cells in zip(image.shape, model.grid, strict=False)]))
    lit = [np.where((where == number)[..., None], np.uint8(250), dark) for number in range(block.max() + 1)]
    with ExitStack() as stack:
        for module in _attention(model):
            stack.callback(module.register_forward_hook(_nothing).remove)
        change = _change(model, lit, dark)
    if not change.any():  # what shows a picture to tokens is attention
        change = _change(model, lit, dark)
    placed, places = maps.sum(1) > 0, torch.from_numpy(np.indices(across).reshape(2, -1).T * 1.0)  # (blocks, 2)
    weight = (change / change.mean(1, keepdim=True).clamp(min=1e-12)).T[placed] ** 4  # (tokens, blocks)
    weight = weight / weight.sum(1, keepdim=True)  # NaN for a token that never changes
    centres = weight @ places
    radius = (weight @ places.square() - centres.square()).sum(1).clamp(min=0).sqrt()
    spread = float(radius.nanmedian() / places.var(0, correction=0).sum().sqrt().clamp(min=1e-12))
    expected = maps[placed] / maps[placed].sum(1, keepdim=True) @ places[block.ravel()]  # (tokens, 2)

    def there(expected: Tensor) -> float:
        """The share of tokens that change where these places say."""
        return float(((centres - expected).abs().amax(1) <= 0.5 + radius).double().mean())

    seen = f"{there(expected):.0%} of {len(expected)} tokens change where their cell is lit"
    if spread > 0.5:
        return Finding("grid", None, f"{seen}; it cannot be told, as they change wherever light is")
    if there(expected) >= 0.95:
        return Finding("grid", True, seen)
    last = torch.tensor(across) - 1
    turned = {"with rows for columns": expected.flip(1)}
    turned["upside down"], turned["left for right"] = ((expected - last * axis).abs() for axis in torch.eye(2))
    seen += "".join(f"; {name}, {there(other):.0%} would" for name, other in turned.items() if there(other) >= 0.95)
    return Finding("grid", False, seen)


def _attention(model: CaptionModel) -> Iterator[torch.nn.Module]:
    """The attention modules of what sees, each as a whole."""
    inside, decoder = "/", set(model.backbone.modules())
    for name, module in model.named_modules():
        if module not in decoder and re.search("atte?n", type(module).__name__.lower()) and not name.startswith(inside):
            inside = f"{name}."
            yield module


def _nothing(_: torch.nn.Module, __: Any, output: Any) -> Any:
    return (_nothing(_, __, output[0]), *output[1:]) if isinstance(output, tuple) else torch.zeros_like(output)


def _change(model: CaptionModel, lit: list[np.ndarray], dark: np.ndarray) -> Tensor:
    """How far each image token goes from that of the dark picture, (lit, P)."""
    moved = model.prompts(lit) - model.prompts([dark])
    far: Tensor = moved[:, model.image_positions].double().norm(dim=-1)
    return far.cpu()


def logits(model: CaptionModel, image: np.ndarray) -> Finding:
    """transformers' own forward pass on the whole prompt and caption, and on two pictures at once."""
    images, caption = [image, image[::-1].copy()], "a picture of"
    with torch.no_grad():
        found = model.logits(images, [caption] * 2)
        single = torch.cat([model.logits([each], [caption]) for each in images])
        own = getattr(model, "own_inputs", None)
        given: Any = model
        whole = given.model(**own(images, caption), use_cache=False).logits if own else found
    apart = float((found - single).abs().max())
    differs = float((found - whole[:, -found.shape[1] :]).abs().max())
    told = f"a batch differs from single pictures by {apart:.2g}"
    told += f", from the model's own forward pass by {differs:.2g}" if own else "; there is no other forward pass"
    return Finding("logits", max(apart, differs) < _close(found), f"{told}; logits are up to {found.abs().max():.3g}")


def cache(model: CaptionModel, image: np.ndarray) -> Finding:
    """Token by token with a cache, and each time anew without."""
    worst, largest = 0.0, 0.0
    with torch.no_grad():
        embeds = model.prompts([image])
        kept = transformers.DynamicCache(config=model.backbone.config)
        new = embeds
        for _ in range(STEPS):
            one = model.score(model.extend(new, kept)[:, -1])
            other = model.score(model.extend(embeds)[:, -1])
            worst, largest = max(worst, float((one - other).abs().max())), max(largest, _close(other))
            new = model.embed_tokens(other.argmax(-1)[:, None])
            embeds = torch.cat([embeds, new.to(embeds)], dim=1)
    return Finding("cache", worst < largest, f"{STEPS} tokens with and without it differ by {worst:.2g}")


def slopes(model: CaptionModel, image: np.ndarray) -> Finding:
    """d logit / d activations at the image tokens, of every other neuron, against a small step along itself."""
    if model.unembed.dtype != torch.float32:
        return Finding("slopes", None, "finite differences need float32: load the model in it, or a smaller one")
    told, tokens, right = [], model.image_positions, True
    with record(model) as seen, torch.enable_grad():
        y = model.logits(model.prompts([image]).requires_grad_())[0, 0]
        token = int(y.argmax())
        found = gradients(y[token], list(seen), y.dtype)
    y = y.detach()
    for layer in sorted({0, (model.n_layers - 1) // 2}):
        slope = found[layer][0, tokens].clone()
        slope[:, ::2] = 0
        expected = float(slope.square().sum())
        small = 0.01 * float(y.std()), 0.02 * float(seen[layer].detach().norm()) * expected**0.5  # of the logit, of O
        step = min(small) / max(expected, 1e-30)

        def logit(by: float, layer: int = layer, slope: Tensor = slope) -> float:
            def edit(values: Tensor, _: int) -> Tensor:
                values = values.clone()
                values[:, tokens] += by * slope
                return values

            with torch.no_grad(), intervene(model, {layer: edit}):
                return float(model.logits([image])[0, 0, token])

        wide, measured = ((logit(by) - logit(-by)) / (2 * by) for by in (step, step / 4))
        unsure = 8e-6 * float(y.abs().max()) / step + abs(wide - measured) / 3  # rounding, and how bent it is
        right = right and expected > 0 and abs(measured - expected) < 0.02 * expected + unsure
        told.append(f"layer {layer} {expected:.3g}, by a step {measured:.3g}")
    return Finding("slopes", right, "; ".join(told))


def noise(model: CaptionModel, image: np.ndarray) -> Finding:
    """Noise at the image tokens, then noise in the weights: it is seen, there alone, and nothing stays behind."""
    units = np.arange(min(model.ffn_width, 40))
    chosen = NeuronSet("", "", np.zeros(len(units), int), units, np.zeros(len(units)))
    with torch.no_grad():
        prompt = model.prompts([image])
        with record(model) as clean:
            before = model.logits(prompt)
        edits = edits_for(model, chosen, Setting("noise", "image", len(units), 10.0, 0), ["checked"])
        with intervene(model, edits), record(model) as noisy:
            during = model.logits(prompt)
        weights = model.w_out(0).clone()
        with noisy_weights(model, chosen, Setting("weights", "all", len(units), 10.0, 0)):
            heavy = model.logits(prompt)
        restored = torch.equal(model.logits(prompt), before) and torch.equal(model.w_out(0), weights)
    changed = (noisy[0] != clean[0]).any(-1)[0].nonzero().ravel().tolist()
    tokens = list(range(model.image_positions.start, model.image_positions.stop))
    for wrong, told in (
        (not restored, "logits or weights are not what they were before"),
        (changed != tokens, f"{len(changed)} tokens of layer 0 changed, and {len(tokens)} are image tokens"),
        (torch.equal(during, before) or torch.equal(heavy, before), "it changes no logit"),
    ):
        if wrong:
            return Finding("noise", False, told)
    return Finding("noise", True, f"at {len(tokens)} image tokens and in weights, gone without a trace")


def report(findings: Sequence[Finding]) -> str:
    """One line that says how it went."""
    wrong = [each.subject for each in findings if each.right is False]
    if wrong:
        return f"{len(wrong)} of {len(findings)} are wrong: {', '.join(wrong)}. Do not trust what it says of neurons."
    return f"{sum(each.right is True for each in findings)} of {len(findings)} are right, none is wrong."


def tell(name: str, settings: Sequence[str]) -> int:
    """Print the findings on what `load_model` loads, with settings such as 'dtype=bfloat16'; 1 if any is wrong."""
    found = []
    for finding in check(load_model(name, **dict(each.partition("=")[::2] for each in settings))):
        print(finding, flush=True)
        found.append(finding)
    print(report(found))
    return int(any(finding.right is False for finding in found))
