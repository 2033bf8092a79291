"""From one name to another: what a set of neurons must write, or be, for pictures of a bear to be told as a dog's.

W = down_proj (H, D_f), k = what it reads of the neurons S (product SiLU(gate x) * up x), c the word, c' the other.

    Dai et al.   w_i += (-l1 e_c / |e_c| + l2 e_c' / |e_c'|) |w_i|                             e: the words' embeddings
    unembedding  w_i += gamma s (u_c' - u_c)     s: the final norm's weight, gamma: for a wanted margin where c is said
    ridge        dW_S = R K_S^T (K_S K_S^T + lambda C_SS)^-1, the minimiser of |R - dW K|^2 + lambda tr(dW C dW^T)
    FiNE         w_i += delta_i, by Adam (Pan et al. 2503.01090)
    swap         no weight: the word's neurons are as without it, c's neurons as c' drives them, where S sees the object

K (n, tokens) are keys of the object's image tokens in selection pictures, C = mean k k^T over what is to stay. R is one
direction v at all of these tokens, found by AlphaEdit's optimisation (`wanted`) at an early layer: an edit of rank one.
The neurons of S may lie in several layers; they are solved for together, as all write into one stream. With S all
neurons of a layer this is ROME or MEMIT in kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kn_core.method.capture import find_target
from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import CaptionModel
from kn_core.models.hooks import intervene, plain, record


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture with its caption, and where it shows and says the word: what an edit learns from, or leaves alone."""

    image_id: str
    prompt: Tensor  # (T, H)
    caption: str
    position: int  # of the caption's token that begins the word; -1: it does not say it
    inside: Tensor  # (P,) bool, image tokens on the object


@dataclass(frozen=True, eq=False)
class Keys:
    """What neurons S say of pictures: (tokens, n) each."""

    object: Tensor  # at the object's image tokens
    around: Tensor  # at the other image tokens
    elsewhere: Tensor  # at all that are not the object's, of prompt and caption too
    saying: Tensor  # where the word is about to be said, (pictures, n)


def token_of(model: CaptionModel, word: str) -> int:
    """The token that begins a word within a caption."""
    caption = f"A {word}"
    target = find_target(model, caption, word)
    if target is None:
        raise ValueError(f"'{word}' is no word that a caption can name: give a noun such as 'dog'.")
    return target.token


class Recorder:
    """What all neurons say of a picture and its caption (L, tokens, D), run once; the `most` last used stay, halved."""

    def __init__(self, model: CaptionModel, most: int = 48) -> None:
        self.model, self.most = model, most
        self._kept: dict[tuple[str, str], Tensor] = {}

    def __call__(self, one: Seen) -> Tensor:
        key = one.image_id, one.caption
        if key in self._kept:
            self._kept[key] = self._kept.pop(key)  # the last asked for are kept longest
        else:
            embeds = self.model.teacher_forced(one.prompt[None], [one.caption])
            with record(self.model, "product") as products, torch.no_grad():
                self.model.extend(embeds)
            found = torch.stack([plain(layer[0]).clamp(-6e4, 6e4).half() for layer in products])
            self._kept = dict([*self._kept.items()][-self.most + 1 :]) | {key: found}
        return self._kept[key]


def keys(recorded: Recorder, pictures: Sequence[Seen], neurons: NeuronSet) -> Keys:
    """What the neurons' output weights read, captions forced."""
    model = recorded.model
    layers, units = torch.tensor(neurons.layers), torch.tensor(neurons.units)
    parts: dict[str, list[Tensor]] = {"object": [], "around": [], "elsewhere": [], "saying": []}
    for one in pictures:
        said = recorded(one)[layers, :, units].T.float()  # (tokens, n)
        shows = torch.zeros(len(said), dtype=torch.bool)
        shows[model.image_positions] = one.inside
        parts["object"].append(said[shows])
        parts["around"].append(said[model.image_positions][~one.inside])
        if one.position >= 0:
            at = model.prompt_length - 1 + one.position
            parts["saying"].append(said[at][None])
            shows[at] = True  # neither left alone nor the object
        parts["elsewhere"].append(said[~shows])
    return Keys(**{name: torch.cat([torch.empty(0, len(neurons)), *each]) for name, each in parts.items()})


def covariance(k: Tensor) -> Tensor:
    """C = mean k k^T of keys (tokens, n): (n, n)."""
    c: Tensor = k.T @ k / len(k)
    return c


def ridge(residuals: Tensor, k: Tensor, c: Tensor, penalty: float) -> Tensor:
    """dW_S (H, n) = R K^T (K K^T + lambda C)^-1, of residuals (tokens, H) and keys (tokens, n), c (n, n).

    In double precision; a trace's millionth on the diagonal keeps neurons that say nothing from dividing by zero.
    """
    k, residuals, c = k.double(), residuals.double(), c.double()
    system = k.T @ k + penalty * c
    system += 1e-6 * system.diagonal().mean() * torch.eye(len(system), dtype=system.dtype)
    solved: Tensor = torch.linalg.solve(system, k.T @ residuals)
    return solved.T


def dai_update(columns: Tensor, old: Tensor, new: Tensor, less: float = 1.0, more: float = 8.0) -> Tensor:
    """What Dai et al. (2022, section 4.5) add to output columns (H, n): (H, n), from two words' embeddings (H,)."""
    along: Tensor = more * new / new.norm() - less * old / old.norm()
    sizes: Tensor = columns.norm(dim=0)
    return along[:, None] * sizes


def direction(model: CaptionModel, old: int, new: int) -> Tensor:
    """s (u_c' - u_c), (H,): along it the logit of c' rises above that of c."""
    norm = getattr(model.backbone, "norm", None) or getattr(model.backbone, "final_layer_norm", None)
    unembed = plain(model.unembed[[old, new]])
    scale = torch.ones(1) if norm is None else plain(norm.weight)
    along: Tensor = scale * (unembed[1] - unembed[0])
    return along


def shift_for(
    model: CaptionModel, pictures: Sequence[Seen], old: int, new: int, saying: Tensor, margin: float
) -> float:
    """gamma: what brings the mean of logit(c') - logit(c) where the word is said to `margin`, other layers unmoved.

    A column's shift by gamma s (u_c' - u_c) adds gamma k |s (u_c' - u_c)|^2 / sigma to that difference, sigma the root
    mean square of the stream that the final norm divides by. `saying` (pictures, n) are the keys there.
    """
    along, differences, sizes = direction(model, old, new), [], []
    for one in pictures:
        at = model.prompt_length - 1 + one.position
        with record(model, "residual") as streams, torch.no_grad():
            embeds = model.teacher_forced(one.prompt[None], [one.caption])[:, : at + 1]
            last = model.extend(embeds)[0, -1]
            logits = plain(model.score(last))
        differences.append(float(logits[new] - logits[old]))
        sizes.append(float(plain(streams[-1][0, -1]).square().mean().sqrt()))
    lacking = margin - sum(differences) / len(differences)
    gain = float(saying.sum(1).mean() * along.square().sum()) / (sum(sizes) / len(sizes))
    return lacking / gain


def wanted(
    model: CaptionModel,
    pictures: Sequence[Seen],
    new: int,
    layer: int,
    steps: int = 8,
    rate: float = 0.1,
    enough: float = 0.98,
) -> Tensor:
    """v (H,): what, written by a layer at the object's image tokens, makes c' follow where the word was said.

    Adam on the mean negative log probability of c', as AlphaEdit finds its targets, over all pictures together; steps
    are in units of the stream's own size, and end where c' has the probability `enough`.
    """
    embeds, last = up_to_the_word(model, pictures)
    inside = torch.stack([one.inside for one in pictures]).to(embeds.device)[..., None]
    with record(model, "residual") as streams, torch.no_grad():
        model.extend(embeds[:, : model.image_positions.stop])
    there = streams[layer][:, model.image_positions][inside[..., 0]]
    size = there.norm(dim=-1).median() / there.shape[-1] ** 0.5
    step = torch.zeros_like(there[0], requires_grad=True)
    adam = torch.optim.Adam([step], lr=rate)
    for _ in range(steps):
        adam.zero_grad()
        with torch.enable_grad(), intervene(model, {layer: added(model, inside * (size * step))}, "residual"):
            hidden = model.extend(embeds)
            loss = -model.score(hidden[torch.arange(len(hidden)), last]).float().log_softmax(-1)[:, new].mean()
        if float(loss.detach().exp()) * enough <= 1:
            break
        loss.backward()
        adam.step()
    return plain(size * step)


def added(model: CaptionModel, push: Tensor) -> Callable[[Tensor, int], Tensor]:
    """An edit that adds (B, P, H) at the image tokens."""

    def edit(stream: Tensor, first: int) -> Tensor:
        image = model.image_positions
        if first >= image.stop:
            return stream
        return torch.cat([stream[:, : image.start], stream[:, image] + push.to(stream), stream[:, image.stop :]], dim=1)

    return edit


@contextmanager
def _writing(model: CaptionModel, by_layer: Mapping[int, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Within the block each layer also writes k_S delta, of units (n,) and delta (n, H), which may carry gradients."""

    def hook(units: Tensor, delta: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        return lambda _, read, wrote: wrote + (read[0][..., units].to(delta) @ delta).to(wrote)

    with ExitStack() as stack:
        for layer, pair in by_layer.items():
            stack.callback(model.ffn[layer].down_proj.register_forward_hook(hook(*pair)).remove)
        yield


def fine(
    model: CaptionModel,
    pictures: Sequence[Seen],
    new: Sequence[int],
    neurons: NeuronSet,
    steps: int = 50,
    rate: float = 5e-3,
    enough: float = 0.9,
) -> Tensor:
    """FiNE's delta (n, H), one vector a neuron (2503.01090): the other word's tokens `new` where the word was said.

    The loss is the mean over pictures of the largest negative log probability of its tokens + the divergence of what
    is foretold before it from what the model foretells unedited + 10 times -log(1 - p) of its saying it twice, and .1
    times the mean |delta_i|. Ends where every picture's least token has the probability `enough`.
    """
    base, last = up_to_the_word(model, pictures)
    target = model.embed_tokens(torch.tensor(list(new), device=base.device))
    padded = torch.cat([base, torch.zeros_like(base[:, : len(new)])], dim=1)
    rows = torch.arange(len(base))
    for place in range(len(new)):
        padded[rows, last + 1 + place] = target[place]
    start = model.prompt_length - 1

    def foretold() -> Tensor:
        hidden = model.extend(padded)[:, start:]
        logits: Tensor = model.score(hidden.contiguous()).float()
        return logits.log_softmax(-1)

    with torch.no_grad():
        before = foretold()
    delta = torch.zeros(len(neurons), base.shape[-1], device=base.device, requires_grad=True)
    layers = torch.tensor(neurons.layers)
    adam = torch.optim.Adam([delta], lr=rate)
    for _ in range(steps):
        adam.zero_grad()
        by_layer = {
            layer: (torch.from_numpy(units).to(base.device), delta[layers == layer])
            for layer, units in neurons.by_layer().items()
        }
        with torch.enable_grad(), _writing(model, by_layer):
            after = foretold()
            loss, least = delta.norm(dim=1).mean() * 0.1, torch.tensor(0.0)
            for row, position in enumerate((last - start).tolist()):
                lost = -torch.stack([after[row, position + i, token] for i, token in enumerate(new)]).min()
                drift = (before[row, :position].exp() * (before[row, :position] - after[row, :position])).sum()
                twice = -torch.log1p(-after[row, position + len(new), new[0]].exp().clamp(max=1 - 1e-6))
                loss = loss + (lost + drift + 10 * twice) / len(padded)
                least = torch.maximum(least, lost.detach().cpu())
        if float((-least).exp()) > enough:
            break
        loss.backward()
        adam.step()
    return plain(delta)


def up_to_the_word(model: CaptionModel, pictures: Sequence[Seen]) -> tuple[Tensor, Tensor]:
    """Embedded prompts and captions up to the word (B, T', H), padded on the right, and each one's last place (B,)."""
    if silent := [one.image_id for one in pictures if one.position < 0]:
        raise ValueError(f"pictures must have captions that say the word. Got {', '.join(silent)}, which do not.")
    lengths = torch.tensor([model.prompt_length + one.position for one in pictures])
    embeds = model.teacher_forced(torch.stack([one.prompt for one in pictures]), [one.caption for one in pictures])
    embeds = embeds.detach()[:, : int(lengths.max())].clone()
    for row, length in enumerate(lengths.tolist()):
        embeds[row, length:] = 0
    return embeds, lengths - 1
