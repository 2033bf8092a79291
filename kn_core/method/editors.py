"""Edits made: of neurons and pictures of a word, and what is to stay, by one of the editors of `editing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import cycle, islice
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from kn_core.concepts import mention
from kn_core.method import editing
from kn_core.method.capture import find_target
from kn_core.method.editing import Keys, Recorder, Seen
from kn_core.method.edits import Edit, EditError, digest, places
from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import CaptionModel
from kn_core.models.hooks import plain
from kn_core.pictures.sample import Sample
from kn_core.pictures.token_grid import tokens_inside
from kn_core.settings import Editor

EDITORS: tuple[Editor, ...] = get_args(Editor)


@dataclass(frozen=True, eq=False)
class Other:
    """What a swap needs of the other word: its neurons, and pictures of it."""

    neurons: NeuronSet
    pictures: Sequence[Seen]


def make(
    model: CaptionModel,
    old: str,
    new: str,
    neurons: NeuronSet,
    pictures: Sequence[Seen],
    others: Sequence[Seen] = (),
    method: Editor = "ridge",
    strength: float = 1.0,
    towards: Other | None = None,
    push: Tensor | None = None,
    layer: int = 2,
    penalty: float = 1.0,
    recorded: Recorder | None = None,
    optimised: int = 3,
) -> Edit:
    """An edit of one name into another, by `editing`'s equations. `pictures` show the word and say it; `others` stay.

    `push` (H,) is what 'ridge' writes, `editing.wanted` at a layer unless it is given: neurons behind that layer are
    left out, as they come too late. What is `recorded` of pictures already is not run again; only the first `optimised`
    pictures are run many times.
    """
    recorded, few = recorded or Recorder(model), pictures[:optimised]
    said, instead = editing.token_of(model, old), editing.token_of(model, new)
    if method == "ridge":
        neurons = neurons.where(neurons.layers <= layer)
        if not len(neurons):
            raise EditError(f"'ridge' writes up to layer {layer}, where none of the neurons is: take later layers.")
    tensors = places(neurons)
    columns = [plain(model.w_out(at)[:, unit]) for at, unit in zip(neurons.layers, neurons.units, strict=True)]
    if method == "dai":
        both = plain(model.unembed[[said, instead]])
        unit = torch.ones(both.shape[1], 1)
        update = editing.dai_update(unit, *both) / unit.norm()
        tensors |= {"written": update, "read": torch.stack(columns, dim=1).norm(dim=0, keepdim=True)}
    elif not pictures:
        raise EditError(f"'{method}' learns from pictures of '{old}' whose captions say it. Got none.")
    elif method == "fine":
        ids = model.encode(f"A {new}")[0][1:]
        tensors |= {"written": editing.fine(model, few, ids, neurons).T, "read": torch.eye(len(neurons))}
    else:
        own = editing.keys(recorded, pictures, neurons)
        if method == "unembedding":
            gamma = editing.shift_for(model, few, said, instead, own.saying, margin=2.0)
            along = editing.direction(model, said, instead)[:, None]
            tensors |= {"written": along, "read": torch.full((1, len(neurons)), gamma)}
        else:
            there = editing.keys(recorded, others, neurons)
            rest = [own.elsewhere, there.object, there.elsewhere, there.saying]  # a swap reads image tokens alone
            rest = rest if method == "ridge" else [own.around, there.object, there.around]
            read = detector(own.object, torch.cat(rest), penalty)
            if method == "ridge":
                push = editing.wanted(model, few, instead, layer) if push is None else push
                tensors |= {"written": push[:, None], "read": read[None]}
            elif towards is None:
                raise EditError(
                    f"'{method}' drives the other word's neurons: give them, and pictures of it (`towards`)."
                )
            else:
                above = threshold(*says_unseen(recorded, pictures, others, neurons, penalty))
                tensors = _swap(recorded, neurons, own, read, towards, above)
                if method == "driven":
                    tensors |= {"put": _driven(model, tensors, pictures, (old, new), optimised)}
    told = {"old": old, "new": new, "method": method, "strength": 1.0, "neurons": neurons.method}
    told |= {"pictures": [one.image_id for one in pictures], "others": len(others), "kn_core": version("kn-core")}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return Edit(model, tensors, told | {"weights": digest(model, tensors)}).scaled(strength)


def detector(of_object: Tensor, rest: Tensor, penalty: float) -> Tensor:
    """The ridge edit's read (n,) for a push of length one: 1 on the mean token of the object, little on the rest."""
    at = of_object / len(of_object) ** 0.5  # so that the penalty weighs two means
    read = editing.ridge(torch.full((len(at), 1), len(at) ** -0.5), at, editing.covariance(rest), penalty)[0]
    return (read / (of_object.double() @ read).mean()).float()


LEAST = 3  # tokens that an object fills at least


def says(recorded: Recorder, pictures: Sequence[Seen], neurons: NeuronSet, read: Tensor) -> Tensor:
    """s (pictures,): the `LEAST`-th largest r . k of each picture's image tokens, which says whether it shows c."""
    layers, units = torch.tensor(neurons.layers), torch.tensor(neurons.units)
    image = recorded.model.image_positions
    every = [(recorded(one)[layers, :, units].T[image].float() @ read).topk(LEAST).values[-1] for one in pictures]
    return torch.stack([torch.empty(()), *every])[1:]


def says_unseen(
    recorded: Recorder, own: Sequence[Seen], others: Sequence[Seen], neurons: NeuronSet, penalty: float, parts: int = 5
) -> tuple[Tensor, Tensor]:
    """`says` of pictures of c and of others, by readings fitted without them: a part of each is left out in turn.

    What fitted a reading is told apart by it better than any other picture, and a threshold between would be too high.
    A single picture of c cannot be left out.
    """
    parts, found = min(parts, len(own)), (torch.empty(len(own)), torch.empty(len(others)))
    for part in range(parts):
        mine, rest = (
            [one for place, one in enumerate(shown) if place % parts != part or parts == 1] for shown in (own, others)
        )
        at, there = (editing.keys(recorded, shown, neurons) for shown in (mine, rest))
        read = detector(at.object, torch.cat([at.around, there.object, there.around]), penalty)
        for shown, into in zip((own, others), found, strict=True):
            into[part::parts] = says(recorded, shown[part::parts], neurons, read)
    return found


def threshold(own: Tensor, others: Tensor) -> float:
    """tau = argmin P(s <= tau | c) + P(s > tau | not c), over pictures that chose the edit; 0 is another, too.

    Of the gaps between neighbouring s that do equally well it is the middle of the widest.
    """
    others = torch.cat([others, torch.zeros(1)])
    levels = torch.cat([own, others]).unique()
    if len(levels) < 2:
        return float(levels[0])
    middles, gaps = (levels[1:] + levels[:-1]) / 2, levels[1:] - levels[:-1]
    lost = (own[:, None] <= middles).float().mean(0) + (others[:, None] > middles).float().mean(0)
    return float(middles[torch.where(lost <= lost.min() + 1e-6, gaps, -1.0).argmax()])


def _swap(
    recorded: Recorder, neurons: NeuronSet, own: Keys, read: Tensor, towards: Other, above: float
) -> dict[str, Tensor]:
    """c's neurons as they are off the object, c' neurons as on their own; those of both are c'."""
    mine = set(zip(neurons.layers.tolist(), neurons.units.tolist(), strict=True))
    theirs = list(zip(towards.neurons.layers.tolist(), towards.neurons.units.tolist(), strict=True))
    extra = [place for place, at in enumerate(theirs) if at not in mine]
    there = editing.keys(recorded, towards.pictures, towards.neurons).object.mean(dim=0)
    put = torch.cat([own.around.mean(dim=0), there[extra]])
    for place, at in enumerate(zip(neurons.layers.tolist(), neurons.units.tolist(), strict=True)):
        if at in theirs:
            put[place] = there[theirs.index(at)]
    both = NeuronSet(
        *(neurons.concept, neurons.method),
        np.concatenate([neurons.layers, towards.neurons.layers[extra]]),
        np.concatenate([neurons.units, towards.neurons.units[extra]]),
        np.zeros(len(put)),
    )
    reads = torch.cat([read, torch.zeros(len(extra))])
    return places(both) | {
        "put": put,
        "read": reads,
        "above": torch.tensor([above]),
        "near": torch.tensor([min(above, above / 2)]),
        "least": torch.tensor([LEAST]),
    }


def seen(model: CaptionModel, samples: Sequence[Sample], word: str, max_new_tokens: int = 24) -> list[Seen]:
    """Pictures captioned, and where they show and say the word."""
    if not samples:
        return []
    prompts = model.prompts([one.image for one in samples])
    captions, maps = model.caption(prompts, max_new_tokens), model.token_maps([one.image for one in samples]).numpy()
    found = []
    for one, prompt, caption, of in zip(samples, prompts, captions, maps, strict=True):
        target, inside = find_target(model, caption, word), tokens_inside(one.mask, model.grid, of)
        found.append(Seen(one.image_id, prompt, caption, target.position if target else -1, torch.from_numpy(inside)))
    return found


def _driven(
    model: CaptionModel,
    tensors: dict[str, Tensor],
    pictures: Sequence[Seen],
    words: tuple[str, str],
    at_once: int,
    steps: int = 10,
    rate: float = 1.0,
    enough: float = 0.5,
) -> Tensor:
    """A swap's values (n,), by Adam from those that it has: what has the caption said with the new word for the old.

    The loss is `surprise` of the next few pictures at every step, so that none is learnt by heart. A step is in units
    of the median value that is put in; they end where pictures that are new to them surprise less than `enough`.
    """
    turns = cycle((one, renamed(one.caption, *words)) for one in pictures)
    size, start = tensors["put"].abs().median(), tensors["put"] * torch.where(tensors["read"] == 0, 3.0, 1.0)
    step = torch.zeros_like(start, requires_grad=True)
    adam = torch.optim.Adam([step], lr=rate)
    for _ in range(steps):
        adam.zero_grad()
        shown, wanted = zip(*islice(turns, min(at_once, len(pictures))), strict=True)
        with torch.enable_grad(), Edit(model, tensors | {"put": start + size * step}, {}):
            loss = surprise(model, shown, wanted)
        if float(loss.detach()) < enough:
            break
        loss.backward()
        adam.step()
    return (start + size * step).detach()


def renamed(caption: str, old: str, new: str) -> str:
    """A caption with the new word for the first mention of the old one: what an edit is to have said."""
    found = mention(caption, old)
    return caption[: found.start()] + new + caption[found.end() :] if found else caption


def surprise(model: CaptionModel, pictures: Sequence[Seen], captions: Sequence[str]) -> Tensor:
    """mean over pictures of -log p(word) - mean log p(t), t the caption's other tokens and its end; captions forced.

    The word is the token at `Seen.position`; where there is none, every token is one of the others.
    """
    embeds = model.teacher_forced(torch.stack([one.prompt for one in pictures]), captions).detach()
    hidden = model.extend(embeds)[:, model.prompt_length - 1 :]
    chances, loss = model.score(hidden.contiguous()).float().log_softmax(-1).cpu(), torch.zeros(())
    for one, row, caption in zip(pictures, chances, captions, strict=True):
        tokens = [*model.encode(caption)[0], model.end]
        said = -row[range(len(tokens)), tokens]
        word = torch.arange(len(said)) == one.position
        loss = loss + (said[word].sum() + said[~word].mean()) / len(pictures)
    return loss


def edit(
    model: CaptionModel,
    old: str,
    new: str,
    neurons: NeuronSet,
    pictures: Sequence[Sample],
    others: Sequence[Sample] = (),
    *,
    method: Editor = "driven",
    strength: float = 1.0,
    towards: tuple[NeuronSet, Sequence[Sample]] | None = None,
) -> Edit:
    """An edit after which the model calls what it calls `old` by the name `new`; nothing is changed yet (`Edit`).

    It is restricted to `neurons`. `pictures` show `old`, and the model says so; `others` show something else, whose
    captions are to stay. `method` is one of `EDITORS`: 'driven', which did best in the book, and 'swap', which is made
    in less time, need `towards`, neurons of the new word and pictures of it. `strength` is of the edit at its own
    measure (of 'swap', how far the new word's neurons are driven: 2 to 5). Raises EditError where that cannot be.

    >>> change = kn.edit(model, "cat", "dog", kn.find_neurons(model, picture).neurons, [picture], method="dai")
    >>> change.rank, change.made_from["old"], change.made_from["new"]
    (1, 'cat', 'dog')
    """
    if method not in EDITORS:
        raise EditError(f"method must be one of {', '.join(EDITORS)}. Got '{method}'.")
    shown = [one for one in seen(model, pictures, old) if one.position >= 0]
    other = Other(towards[0], seen(model, towards[1], new)) if towards else None
    return make(model, old, new, neurons, shown, seen(model, others, old), method, strength, other)
