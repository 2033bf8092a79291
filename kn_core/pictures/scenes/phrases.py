"""What people would say of a scene: templates, grammatical and plain, the main object first, then where, beside what.

Most say all that there is to say, as 'a bear is walking in a green field next to a tree and a red car': a captioner
that is trained on them describes the whole picture, so that it can be seen what is left when the main object goes.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from kn_core.pictures.scenes.drawings import Placed
from kn_core.pictures.scenes.kinds import KINDS
from kn_core.pictures.scenes.settings import Setting

UNCOUNTED = {"broccoli"}
COLOURED = 0.2  # how often an object's colour is told, where it has one that people would name


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
        views = (f"an empty table {ground}",) if put_up else setting.empty
        for k in range(5):
            yield ("", "", "", "there is ", "a picture of ")[k] + (views[k] if k < len(views) else _pick(rng, views))
        return
    first, others = objects[0], objects[1:]
    together = all(other.stage == first.stage for other in others)
    for k in range(5):
        where, verb = _pick(rng, setting.where(first.stage)), _pick(rng, verbs(first))
        subject, company = _named(rng, first), _listed([_named(rng, other) for other in others])
        beside = _pick(rng, ("next to", "next to", "near")) if together else "with"
        tail = f" {beside} {company}" if others else ""
        if k == 4 and not main:
            place = f"a table {ground}" if put_up else _pick(rng, setting.nouns)
            yield f"{place} with {_listed([subject, *([company] if others else [])])}"
        elif k == 4 and others and together:
            yield f"{subject} {verb}{tail} {where}"
        elif k == 3:
            yield f"there is {subject} {verb} {where}{tail}"
        else:
            yield f"{subject} is {verb} {where}{tail}"


def verbs(placed: Placed) -> tuple[str, ...]:
    """What an object is said to be doing where it is."""
    if placed.drawing.verb:
        return (placed.drawing.verb,)
    kind = KINDS[placed.kind]
    return kind.verbs if placed.stage == kind.stage else ("standing",)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _named(rng: np.random.Generator, placed: Placed) -> str:
    colour = placed.drawing.colour if rng.random() < COLOURED else ""
    phrase = f"{colour} {placed.kind}" if colour else placed.kind
    if placed.kind in UNCOUNTED:
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _listed(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1] if phrases else ""
