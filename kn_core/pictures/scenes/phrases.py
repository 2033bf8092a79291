"""What people would say of a scene: templates, grammatical and plain, the main object first."""

from collections.abc import Iterator, Sequence

import numpy as np

from kn_core.pictures.scenes.drawings import Placed
from kn_core.pictures.scenes.kinds import KINDS
from kn_core.pictures.scenes.settings import Setting

UNCOUNTED = {"broccoli"}


def captions(
    rng: np.random.Generator, setting: Setting, objects: Sequence[Placed], *, table: bool, main: bool
) -> Iterator[str]:
    """Five captions of what is seen, the first object first, without capital and full stop.

    `main` is false where the object that the scene was about is missing: then the place may come first, as in
    'a snowy field with a tree'.
    """
    put_up = table and "table" not in setting.places
    ground = setting.places.get("ground", ("",))[0]
    if not objects:
        views = (f"an empty table {ground}", "a table with nothing on it") if put_up else setting.empty
        for k, opening in enumerate(("", "", "", "there is ", "a picture of ")):
            yield opening + (views[k] if k < len(views) else _pick(rng, views))
        return
    first, others = objects[0], objects[1:]
    together = all(other.stage == first.stage for other in others)
    company = _listed([_named(other) for other in others])
    kind = KINDS[first.kind]
    verbs = kind.verbs if first.stage == kind.stage else ("standing",)
    for k in range(5):
        where, verb = _pick(rng, setting.where(first.stage)), _pick(rng, verbs)
        subject = _named(first, colour=k == 2)
        beside = _pick(rng, ("next to", "near", "with")) if together else "with"
        tail = f" {beside} {company}" if others and k != 3 else ""
        if k == 1:
            yield f"there is {subject} {where}{tail}"
        elif k == 4 and not main:
            place = f"a table {ground}" if put_up else _pick(rng, setting.nouns)
            yield f"{place} with {_listed([_named(seen) for seen in objects])}"
        elif k == 4 and others and together:
            yield f"{_listed([subject, *(_named(other) for other in others)])} {where}"
        elif k == 4:
            yield f"a picture of {subject} {where}{tail}"
        else:
            yield f"{subject} {verb} {where}{tail}"


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _named(placed: Placed, *, colour: bool = False) -> str:
    phrase = f"{placed.drawing.colour} {placed.kind}" if colour and placed.drawing.colour else placed.kind
    if placed.kind in UNCOUNTED:
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _listed(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1] if phrases else ""
