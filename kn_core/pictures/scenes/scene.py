"""Pictures whose every pixel is known: open drawings on drawn scenery, from a seed."""

import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from kn_core.pictures.sample import Sample
from kn_core.pictures.scenes.drawings import Placed, layer, picture_of
from kn_core.pictures.scenes.indoors import tabletop
from kn_core.pictures.scenes.kinds import KINDS, ROLES, Kind
from kn_core.pictures.scenes.layout import lay_out
from kn_core.pictures.scenes.page import Page
from kn_core.pictures.scenes.phrases import captions
from kn_core.pictures.scenes.settings import SETTINGS, Setting
from kn_core.pictures.scenes.stand_in import stand_ins


class SceneError(ValueError):
    """No scene can be drawn as asked; the message says what can."""


@lru_cache(maxsize=8)
def _background(svg: str, size: int) -> np.ndarray:
    return np.asarray(picture_of(svg, size).convert("RGB"), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Scene:
    """Objects on drawn scenery, painted from back to front: what stands nearer hides what stands behind.

    The shadow belongs to the object, so it goes when the object goes; but it is no part of the object's mask, as it
    would not be in a photograph that people have annotated.
    """

    seed: tuple[int, ...]
    setting: str
    scenery: str  # SVG
    objects: tuple[Placed, ...]  # back to front
    main: int  # which of them the scene is about
    table: bool  # whether there is a table
    size: int = 256  # pixels a side

    def render(self, without: int | None = None) -> np.ndarray:
        """The picture, uint8 (size, size, 3); `without` an object and its shadow, all else the same pixel for pixel."""
        if without is not None and not 0 <= without < len(self.objects):
            raise IndexError(f"the scene has objects 0 to {len(self.objects) - 1}. Got {without}.")
        canvas = _background(self.scenery, self.size).copy()  # (size, size, 3)
        for index, placed in enumerate(self.objects):
            if index != without:
                colour, opacity, shadow = layer(placed, self.size)
                canvas *= 1 - shadow[..., None]
                canvas += opacity[..., None] * (colour - canvas)
        picture: np.ndarray = np.rint(canvas).astype(np.uint8)
        return picture

    def mask(self, index: int) -> np.ndarray:
        """bool (size, size): the pixels that the object fills by more than half, where no nearer object covers it."""
        visible = layer(self.objects[index], self.size)[1].copy()
        for nearer in self.objects[index + 1 :]:
            visible *= 1 - layer(nearer, self.size)[1]
        return visible > 0.5

    def captions(self, without: int | None = None) -> tuple[str, ...]:
        """Five phrasings of what the scene shows, the main object first; `without` an object, of what is left."""
        rng = np.random.default_rng([*self.seed, 1 if without is None else 2 + without])
        seen = [self.objects[k] for k in self.order if k != without]
        said = captions(rng, SETTINGS[self.setting], seen, table=self.table, main=without != self.main)
        return tuple(f"{phrase[0].upper()}{phrase[1:]}." for phrase in said)

    @property
    def order(self) -> list[int]:
        """The objects' places: the main one's, then the others', the largest first."""
        return sorted(range(len(self.objects)), key=lambda k: (k != self.main, -self.objects[k].area))

    def sample(self, image_id: str, role: str = "") -> Sample:
        """The scene as a sample of its main object, with its exact counterfactual."""
        main, *others = (self.objects[k] for k in self.order)
        put_up = ("dining table",) if self.table and self.setting != "table" else ()
        return Sample(
            image_id,
            main.kind,
            self.render(),
            self.mask(self.main),
            (*(placed.kind for placed in others), *put_up),
            self.captions(),
            without=self.render(without=self.main),
            stand_ins=self.stand_ins,
            setting=self.setting,
            drawing=main.drawing.outline,
            role=role if len(KINDS[main.kind].outlines()) > 1 else "",
        )

    def stand_ins(self, n: int) -> list[np.ndarray]:
        """The picture with another object in the main one's place, uint8 (size, size, 3): up to n, each of a kind."""
        rng = np.random.default_rng([*self.seed, 99])
        others = stand_ins(self.objects, self.main, SETTINGS[self.setting], self.table, n, rng)
        return [replace(self, objects=objects).render() for objects in others]


def scene(
    seed: Sequence[int],
    concept: str,
    n_objects: int | None = None,
    companion: str | None = None,
    size: int = 256,
    role: str = "",
) -> Scene:
    """One scene; its every pixel follows from the arguments.

    `concept` is the main object's kind, `n_objects` how many there are (None: one to three), `companion` the kind of
    one that comes along whether it would by chance or not, `role` what the main object's drawing is for (`Kind`).
    Raises ValueError for a kind that is not known.
    """
    rng = np.random.default_rng([*seed, 0])
    main, planted = kind_of(concept), [] if companion is None else [kind_of(companion)]
    if planted:
        rng.random()  # as where a companion came with a probability, so that all that follows is drawn as ever
    if main in planted:
        raise ValueError(f"a companion must be of another kind. Got {concept} beside {companion}.")
    count = int(rng.choice([1, 2, 3], p=[0.14, 0.46, 0.4])) if n_objects is None else n_objects
    if not (1 if n_objects is None else len(planted) + 1) <= count <= 3:
        raise ValueError(f"n_objects must be 1 to 3, and 2 or 3 where a companion is planted. Got {count}.")
    setting = _choose_setting(rng, main, planted)
    kinds = [main, *planted]
    while len(kinds) < count:
        kinds.append(_by_chance(rng, setting, kinds))
    stages = [setting.stage(kind.stage) for kind in kinds]
    table = stages[0] == "table" and "ground" not in stages
    if not table:  # what belongs on a table lies on the ground then
        stages = ["ground" if stage == "table" else stage for stage in stages]
    page = _page(rng, setting, stages)
    setting.draw(page)
    if table:
        tabletop(page, page.horizon)
    placed = lay_out(rng, kinds, stages, page, role)
    objects = sorted(placed, key=lambda one: one.nearness)
    return Scene(tuple(seed), setting.name, str(page), tuple(objects), objects.index(placed[0]), table, size)


def namespaced(seed: int, concept: str, index: int) -> tuple[int, int, int]:
    """The seed of scene `index` about a concept in the namespace `seed`; numpy's SeedSequence keeps any two apart."""
    return seed, zlib.crc32(concept.encode()), index


def study_scene(seed: int, concept: str, index: int, size: int = 256) -> Scene:
    """Scene `index` of `samples`."""
    return scene(namespaced(seed, concept, index), concept, 2 + index // 2 % 2, size=size, role=ROLES[index % 2])


def samples(concept: str, n: int, seed: int, only: Container[str] | None = None, size: int = 256) -> Iterator[Sample]:
    """Scenes 0 to n - 1 about a concept, with their exact counterfactuals; `seed` is a namespace (see the package).

    Each shows two or three objects. The even ones are of drawings that choose neurons, the odd ones of drawings that
    neurons are tried on, where the kind has several.

    `only` are the ids of those that are wanted; None: all. Others are not drawn.
    """
    for index in range(n):
        image_id = f"scene-{concept}-{index:06d}"
        if only is None or image_id in only:
            yield study_scene(seed, concept, index, size).sample(image_id, ROLES[index % 2])


def kind_of(name: str) -> Kind:
    """The kind of that name. Raises SceneError that lists the known ones."""
    if name not in KINDS:
        raise SceneError(f"no scenes show {name!r}. The {len(KINDS)} kinds are {', '.join(sorted(KINDS))}.")
    return KINDS[name]


def _choose_setting(rng: np.random.Generator, main: Kind, planted: Sequence[Kind]) -> Setting:
    """By the main kind's weights; a planted companion has a say, but can come along to where it never is by itself."""
    weights = np.array([main.settings.get(name, 0.0) for name in SETTINGS])
    for kind in planted:
        weights *= [kind.settings.get(name, 0.0 if name == "table" else 0.05) for name in SETTINGS]
    return list(SETTINGS.values())[rng.choice(len(weights), p=weights / weights.sum())]


def _by_chance(rng: np.random.Generator, setting: Setting, kinds: Sequence[Kind]) -> Kind:
    """Something that may well be here beside the others; every kind comes once."""
    on_table = setting.stage(kinds[0].stage) == "table"
    here = [kind for kind in KINDS.values() if kind not in kinds and setting.name in kind.settings]
    fitting = [kind for kind in here if (setting.stage(kind.stage) == "table") == on_table]
    # a poor picture shows one thing as a dot or the other as a wall, so what is of similar size comes more often
    ratios = np.log([kind.metres / kinds[0].metres for kind in fitting])
    weights = np.array([kind.settings[setting.name] for kind in fitting]) * np.exp(-(ratios**2) / 2)
    return fitting[rng.choice(len(fitting), p=weights / weights.sum())]


def _page(rng: np.random.Generator, setting: Setting, stages: Sequence[str]) -> Page:
    """An empty page whose horizon and shore leave room on the first of the stages, the main object's."""
    horizon = float(rng.uniform(*setting.horizon))
    if stages[0] == "sky":
        horizon = min(horizon + 22, 80)
    shore = horizon + (100 - horizon) * float(rng.uniform(0.2, 0.34))
    if stages[0] == "water":
        shore = 100.0 if "ground" not in stages and rng.random() < 0.5 else float(rng.uniform(84, 90))
    return Page(rng, horizon, shore)
