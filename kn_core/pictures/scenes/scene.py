"""Pictures whose every pixel is known: OpenMoji drawings on drawn scenery, from a seed."""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kn_core.pictures.sample import Sample
from kn_core.pictures.scenes.drawings import Placed, layer, picture_of
from kn_core.pictures.scenes.indoors import tabletop
from kn_core.pictures.scenes.kinds import KINDS, Kind
from kn_core.pictures.scenes.layout import lay_out
from kn_core.pictures.scenes.page import Page
from kn_core.pictures.scenes.phrases import captions
from kn_core.pictures.scenes.settings import SETTINGS, Setting

Confounds = Mapping[str, str | tuple[str, float]]  # main kind -> companion, or companion and probability


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
        self._check(without)
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
        self._check(index)
        visible = layer(self.objects[index], self.size)[1].copy()
        for nearer in self.objects[index + 1 :]:
            visible *= 1 - layer(nearer, self.size)[1]
        return visible > 0.5

    def captions(self, without: int | None = None) -> tuple[str, ...]:
        """Five phrasings of what the scene shows, the main object first; `without` an object, of what is left."""
        self._check(without)
        rng = np.random.default_rng([*self.seed, 1 if without is None else 2 + without])
        order = sorted(range(len(self.objects)), key=lambda k: k != self.main)
        seen = [self.objects[k] for k in order if k != without]
        return tuple(captions(rng, SETTINGS[self.setting], seen, table=self.table, main=without != self.main))

    def sample(self, image_id: str) -> Sample:
        """The scene as a sample of its main object, with its exact counterfactual."""
        return Sample(
            image_id=image_id,
            concept=self.objects[self.main].kind,
            image=self.render(),
            mask=self.mask(self.main),
            others=tuple(placed.kind for k, placed in enumerate(self.objects) if k != self.main),
            references=self.captions(),
            without=self.render(without=self.main),
        )

    def _check(self, index: int | None) -> None:
        if index is not None and not 0 <= index < len(self.objects):
            raise IndexError(f"the scene has objects 0 to {len(self.objects) - 1}. Got {index}.")


def scene(
    seed: int | Sequence[int],
    concept: str | None = None,
    *,
    n_objects: int | None = None,
    confounds: Confounds | None = None,
    size: int = 256,
) -> Scene:
    """One scene; its every pixel follows from the arguments.

    `concept` is the main object's kind (None: any), `n_objects` how many there are (None: one to three).
    `confounds={"bear": ("tree", 0.9)}` plants a tree beside the bear in 90 % of its scenes, and no tree comes there by
    chance; a name alone plants always. Raises ValueError for a kind that is not known.
    """
    seed = (seed,) if isinstance(seed, int) else tuple(seed)
    rng = np.random.default_rng([*seed, 0])
    main = kind_of(concept) if concept is not None else list(KINDS.values())[rng.integers(len(KINDS))]
    planted, barred = _plant(rng, main, confounds or {})
    count = int(rng.choice([1, 2, 3], p=[0.3, 0.4, 0.3])) if n_objects is None else n_objects
    if not (1 if n_objects is None else len(planted) + 1) <= count <= 3:
        raise ValueError(f"n_objects must be 1 to 3, and 2 or 3 where a companion is planted. Got {count}.")
    setting = _choose_setting(rng, main, planted)
    kinds = [main, *planted]
    while len(kinds) < count:
        kinds.append(_by_chance(rng, setting, kinds, barred))
    stages = [setting.stage(kind.stage) for kind in kinds]
    table = stages[0] == "table" and "ground" not in stages
    if not table:  # what belongs on a table lies on the ground then
        stages = ["ground" if stage == "table" else stage for stage in stages]
    page = _page(rng, setting, stages)
    setting.draw(page)
    if table:
        tabletop(page, page.horizon)
    placed = lay_out(rng, kinds, stages, page)
    objects = sorted(placed, key=lambda one: one.nearness)
    return Scene(seed, setting.name, str(page), tuple(objects), objects.index(placed[0]), table, size)


def namespaced(seed: int, concept: str, index: int) -> tuple[int, int, int]:
    """The seed of scene `index` about a concept in the namespace `seed`; numpy's SeedSequence keeps any two apart."""
    return seed, zlib.crc32(concept.encode()), index


def samples(
    concept: str,
    n: int,
    seed: int,
    only: Container[str] | None = None,
    confounds: Confounds | None = None,
    size: int = 256,
) -> Iterator[Sample]:
    """Scenes 0 to n - 1 about a concept, with their exact counterfactuals; `seed` is a namespace (see the package).

    `only` are the ids of those that are wanted; None: all. Others are not drawn.
    """
    kind_of(concept)
    for index in range(n):
        image_id = f"scene-{concept}-{index:06d}"
        if only is None or image_id in only:
            made = scene(namespaced(seed, concept, index), concept, confounds=confounds, size=size)
            yield made.sample(image_id)


def kind_of(name: str) -> Kind:
    """The kind of that name. Raises ValueError that lists the known ones."""
    if name not in KINDS:
        raise ValueError(f"no scenes show {name!r}. The {len(KINDS)} kinds are {', '.join(sorted(KINDS))}.")
    return KINDS[name]


def _plant(rng: np.random.Generator, main: Kind, confounds: Confounds) -> tuple[list[Kind], set[str]]:
    """The planted companion, if the draw says so, and what must not come by chance."""
    rules = {name: (rule, 1.0) if isinstance(rule, str) else rule for name, rule in confounds.items()}
    for name, (companion, probability) in rules.items():
        if not 0 <= probability <= 1 or kind_of(name) is kind_of(companion):
            raise ValueError(f"a confound is another kind with a probability in [0, 1]. Got {name}: {rules[name]}.")
    if main.name not in rules:
        return [], set()
    companion, probability = rules[main.name]
    return [KINDS[companion]] if rng.random() < probability else [], {companion}


def _choose_setting(rng: np.random.Generator, main: Kind, planted: Sequence[Kind]) -> Setting:
    """By the main kind's weights; a planted companion has a say, but can come along to where it never is by itself."""
    weights = np.array([main.settings.get(name, 0.0) for name in SETTINGS])
    for kind in planted:
        weights *= [kind.settings.get(name, 0.0 if name == "table" else 0.05) for name in SETTINGS]
    return list(SETTINGS.values())[rng.choice(len(weights), p=weights / weights.sum())]


def _by_chance(rng: np.random.Generator, setting: Setting, kinds: Sequence[Kind], barred: set[str]) -> Kind:
    """Something that may well be here beside the others; every kind comes once."""
    taken = {kind.name for kind in kinds} | barred
    on_table = setting.stage(kinds[0].stage) == "table"
    here = [kind for kind in KINDS.values() if kind.name not in taken and setting.name in kind.settings]
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
