"""What people would say of a scene: templates, grammatical and plain, the main object first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kn_core.pictures.scenes.drawings import Placed
from kn_core.pictures.scenes.kinds import KINDS
from kn_core.pictures.scenes.settings import Setting

UNCOUNTED = {"broccoli"}


def captions(
    rng: np.random.Generator, setting: Setting, objects: Sequence[Placed], *, table: bool, main: bool
) -> Iterator[str]:
    """Five captions of what is seen, the first object first.

    `main` is false where the object that the scene was about is missing: then the place may come first, as in
    'a snowy field with a tree'.
    """
    if not objects:
        yield from _nothing(rng, setting, table)
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
            yield _sentence(f"there is {subject} {where}{tail}")
        elif k == 4 and not main:
            yield _sentence(f"{_place(rng, setting, table)} with {_listed([_named(seen) for seen in objects])}")
        elif k == 4 and others and together:
            yield _sentence(f"{_listed([subject, *(_named(other) for other in others)])} {where}")
        elif k == 4:
            yield _sentence(f"a picture of {subject} {where}{tail}")
        else:
            yield _sentence(f"{subject} {verb} {where}{tail}")


def _nothing(rng: np.random.Generator, setting: Setting, table: bool) -> Iterator[str]:
    views = setting.empty
    if table and "table" not in setting.places:
        views = (f"an empty table {setting.places['ground'][0]}", "a table with nothing on it")
    for k in range(5):
        opening = ("", "", "", "there is ", "a picture of ")[k]
        yield _sentence(opening + (views[k] if k < len(views) else _pick(rng, views)))


def _place(rng: np.random.Generator, setting: Setting, table: bool) -> str:
    if table and "table" not in setting.places:
        return f"a table {setting.places['ground'][0]}"
    return _pick(rng, setting.nouns)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _named(placed: Placed, *, colour: bool = False) -> str:
    phrase = f"{placed.drawing.colour} {placed.kind}" if colour and placed.drawing.colour else placed.kind
    if placed.kind in UNCOUNTED:
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _listed(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1] if phrases else ""


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."
