"""The neuron browser's data as classic scripts: `KN.add("core", {...});`, which a page may load from a folder too.

A browser that reads a file from a folder may fetch nothing and import no module; a script it may add. So what the page
shows first is one script, and the rest comes when it is asked for: the third stage's neurons, other methods', captions,
and the maps of each layer. Numbers have three digits; a map's cell is one letter (`letters`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from book.browser import records
from book.browser.records import Records, Sets
from kn_core.fingerprint import writing
from kn_core.method.two_stages import NeuronSet
from kn_core.study.experiments.ladder import THIRD

LEVELS = 15
LETTERS = "ONMLKJIHGFEDCBA.abcdefghijklmno"  # -LEVELS to LEVELS
MOST_CELLS = 4_000_000  # of maps in all: some 1.2 MB compressed
SIDE = 224  # of a picture, in pixels
BINS = 32  # of a measure, in the atlas's background
TOKENS = 5


def letters(values: np.ndarray, most: float) -> str:
    """Values as letters, one each: the root of their share of `most`, in steps of 1 / LEVELS; '.' is nothing."""
    share = np.sqrt(np.abs(values, dtype=float).ravel() / most) if most > 0 else np.zeros(values.size)
    levels = np.rint(LEVELS * np.minimum(share, 1)).astype(int) * np.where(values.ravel() < 0, -1, 1)
    return "".join(LETTERS[LEVELS + level] for level in levels)


def rounded(value: float) -> float | None:
    """Three digits; None for what was not measured."""
    return None if np.isnan(value) else float(f"{value:.3g}")


@dataclass(frozen=True)
class Group:
    """Neurons that travel together: numbered from `start` on, in the order of `at` (n, 2), layer and unit."""

    name: str
    start: int
    at: np.ndarray
    methods: tuple[str, ...]


def groups(sets: Sets) -> list[Group]:
    """The neurons of the two stages, those that only the third has, those that only other methods have."""
    numbered: dict[tuple[int, int], int] = {}
    found = []
    named = {"core": ("two-stage",), "third": (THIRD,), "rest": tuple(set_ for set_ in sets if set_ not in FIRST)}
    for name, methods in named.items():
        start = len(numbered)
        for neuron in _by_rank(sets[method][concept] for method in methods for concept in sets[method]):
            numbered.setdefault(neuron, len(numbered))
        at = np.array(list(numbered)[start:], dtype=int).reshape(-1, 2)
        found.append(Group(name, start, at, methods))
    return found


FIRST = ("two-stage", THIRD)


def _by_rank(sets: Iterable[NeuronSet]) -> list[tuple[int, int]]:
    ranked = [
        (rank, *at) for of in sets for rank, at in enumerate(zip(of.layers.tolist(), of.units.tolist(), strict=True))
    ]
    return [(layer, unit) for _, layer, unit in sorted(ranked)]


def write(found: Records, folder: Path) -> dict[str, int]:
    """Write every shard and picture of the browser; the size of each file in bytes, by name.

    What lay in `folder` and is no longer made is gone.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    of = groups(found.sets)
    number = {tuple(neuron): group.start + i for group in of for i, neuron in enumerate(group.at.tolist())}
    density = {name: _density([scores[name] for scores in found.measured.values()]) for name in records.MEASURES}
    mapped = _maps(found, number)
    for group in of:
        data = _neurons(group, found) | {"sets": _numbers(found, group.methods, number)}
        if group.name == "core":
            data["density"] = {
                "bins": BINS,
                "measures": {name: one | {"maps": one["maps"][:1]} for name, one in density.items()},
            }
            data |= _world(found) | {
                "mapped": list(mapped),
                "pictures": [_picture(found, i, folder) for i in range(len(found.shown))],
            }
        if group.name == "third":
            data["densities"] = {name: one["maps"] for name, one in density.items()}
        _shard(folder, group.name, data)
    _shard(folder, "said", _captions(found))
    for layer, maps in mapped.items():
        _shard(folder, f"layer-{layer}", {"maps": maps})
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir())}


def _shard(folder: Path, name: str, data: Mapping[str, Any]) -> None:
    with writing(folder / f"{name}.js") as temporary:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        temporary.write_text(f'KN.add("{name}",{text});\n', encoding="utf-8")


def _neurons(group: Group, found: Records) -> dict[str, Any]:
    neurons = list(map(tuple, group.at.tolist()))
    effects = {
        which: [
            {(int(layer), int(unit)): effect for layer, unit, effect in rows[["layer", "unit", which]].to_numpy(float)}
            for rows in found.exact.values()
        ]
        for which in ("removed", "patched")
    }
    return {
        "start": group.start,
        "neurons": [
            {"layer": at[0], "unit": at[1], "tokens": found.promoted.get(at, [])[:TOKENS]}
            | {name: [rounded(scores[name][at]) for scores in found.measured.values()] for name in records.MEASURES}
            | {which: _where_known([of.get(at, np.nan) for of in each]) for which, each in effects.items()}
            for at in neurons
        ],
    }


def _where_known(values: Sequence[float]) -> list[float | None]:
    """Values, a concept each; none at all where none was measured."""
    return [] if np.isnan(values).all() else list(map(rounded, values))


def _numbers(found: Records, methods: Sequence[str], number: Mapping[Any, int]) -> dict[str, Any]:
    """Each method's neurons of each concept, by number, the best first."""
    empty = NeuronSet("", "", np.empty(0, int), np.empty(0, int), np.empty(0))
    by_method = {method: [found.sets[method].get(concept, empty) for concept in found.concepts] for method in methods}
    return {
        method: [[number[at] for at in zip(one.layers.tolist(), one.units.tolist(), strict=True)] for one in of]
        for method, of in by_method.items()
    }


def _world(found: Records) -> dict[str, Any]:
    """What the page is about: concepts, methods, the model's size, whom sets silence, where all neurons lie."""
    concepts, measured, (how, n, sigma) = found.concepts, found.measured, found.main
    n_layers, width = next(iter(measured.values()))["delta"].shape
    return {
        "profile": found.profile,
        "concepts": concepts,
        "layers": n_layers,
        "width": width,
        "budget": found.budget,
        "methods": {method: records.said(method) for method in found.sets},
        "measures": records.MEASURES,
        "charts": records.CHARTS,
        "main": [how, n, rounded(sigma)],
        "grid": list(found.maps["delta"].shape[2:]),
        "levels": LEVELS,
        "letters": LETTERS,
        "thresholds": {
            name: [rounded(found.limits[concept][name]) for concept in concepts] for name in ("delta", "gradcam")
        },
        "silencing": {
            method: [[rounded(share) for share in row] for row in matrix.tolist()]
            for method, matrix in found.silencing.items()
        },
    }


def _density(scores: Sequence[np.ndarray]) -> dict[str, Any]:
    """Where all neurons lie: layer by score, how many as a digit (the logarithm), of their largest and each concept.

    The scale is linear up to `bend`, below which 95 % of all sizes lie, and logarithmic beyond.
    """
    every = np.stack(scores)
    bend = float(np.quantile(np.abs(every), 0.95)) or 1.0
    bent = np.arcsinh(every / bend)
    low, high = float(bent.min()), float(bent.max())
    high += 0.05 * (high - low) or 1.0  # so that the first dot is whole
    place = np.clip(((bent - low) / (high - low) * BINS).astype(int), 0, BINS - 1)  # (concepts, L, D)
    maps = []
    for bins in (place.max(axis=0), *place):
        counts = np.stack([np.bincount(row, minlength=BINS) for row in bins])  # (L, BINS)
        maps.append("".join(map(str, np.minimum(9, np.ceil(np.log2(counts + 1))).astype(int).ravel().tolist())))
    return {"bend": rounded(bend), "low": low, "high": high, "maps": maps}


def _picture(found: Records, number: int, folder: Path) -> dict[str, Any]:
    """Write a picture with and without its object; what is said of it, its shape, and the object's outline."""
    one, file = found.shown[number], f"picture-{number}"
    for name, image in ((file, one.image), (f"{file}-without", one.without)):
        small = Image.fromarray(image)
        small.thumbnail((SIDE, SIDE))
        with writing(folder / f"{name}.webp") as temporary:
            small.save(temporary, "WEBP", quality=70, method=6)
    known = {"id": one.image_id, "concept": found.concepts.index(one.concept), "file": file}
    known["shape"] = [one.image.shape[1], one.image.shape[0]]
    return known | {"said": one.said, "without": one.said_without, "outline": _outline(one.mask)}


def _outline(mask: np.ndarray) -> str:
    """The mask's outline as an SVG path in hundredths of the picture."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    height, width = mask.shape
    path = ""
    for contour in found:
        points = np.rint(cv2.approxPolyDP(contour, 0.006 * max(mask.shape), True)[:, 0] * [1000 / width, 1000 / height])
        path += "M" + "L".join(f"{x / 10:g} {y / 10:g}" for x, y in points) + "Z"
    return path


def _captions(found: Records) -> dict[str, Any]:
    """`records.captions` by concept and picture, each by number: what was done there, by number and dose."""
    place = {one.image_id: i for i, one in enumerate(found.shown)}
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in found.captions.sort_values(["n", "sigma"], kind="stable").to_dict("records"):
        key = f"{found.concepts.index(row.pop('concept'))}/{place[row.pop('image_id')]}"
        numbers = {name: rounded(row[name]) for name in ("sigma", "before", "after", "kept")}
        rows.setdefault(key, []).append({str(name): value for name, value in row.items()} | numbers)
    return {"labels": {method: records.said(method) for method in found.captions["method"].unique()}, "rows": rows}


def _maps(found: Records, number: Mapping[Any, int]) -> dict[int, Any]:
    """By layer: the maps of its neurons, and stage 1's difference on the pictures that chose them.

    A neuron has maps on all pictures of the concepts in whose sets it is, and on the first of every other concept; they
    share one scale, so that a faint map is faint. Where that makes too many cells, the neurons that stand highest in
    some list have maps, and the others none.
    """
    of = [one.concept for one in found.shown]
    left, cells = MOST_CELLS, int(np.prod(found.maps["delta"].shape[2:])) * len(found.maps)
    by_layer: dict[int, Any] = {}
    for i in sorted(range(len(found.mapped)), key=lambda i: number[tuple(found.mapped[i].tolist())]):
        layer, unit = found.mapped[i].tolist()
        owners = {
            name for method in FIRST for name, neurons in found.sets[method].items() if _holds(neurons, layer, unit)
        }
        on = [place for place, name in enumerate(of) if name in owners or of.index(name) == place]
        left -= len(on) * cells
        if left < 0:
            break
        entry: dict[str, Any] = {"on": on}
        for name, maps in found.maps.items():
            of_one = maps[on, i].astype(float)
            most = float(np.abs(of_one).max())
            entry[name] = [rounded(most), letters(of_one, most)]
        most = float(max(np.abs(values[:, i]).max() for values in found.chosen_on))
        entry["strip"] = [rounded(most), *(letters(values[:, i], most) for values in found.chosen_on)]
        by_layer.setdefault(layer, {})[number[layer, unit]] = entry
    return by_layer


def _holds(neurons: NeuronSet, layer: int, unit: int) -> bool:
    return bool(((neurons.layers == layer) & (neurons.units == unit)).any())
