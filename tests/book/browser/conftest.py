"""A neuron browser of three concepts and seven neurons whose every number is known, on a grid of four rows of two."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from book.browser import plain, records, shards
from book.browser.records import Records, Shown
from book.press.neuron_links import BROWSER, CODE
from kn_core.method.two_stages import NeuronSet
from kn_core.study.experiments.ladder import THIRD

PAGE = """<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>Neurons</title>
<meta name="viewport" content="width=device-width"><main><h1>Neurons</h1>{}</main></html>"""
CONCEPTS = ["bear", "bus", "dog"]
SETS = {  # the first is everybody's, (2, 7) of bear and bus, the others of one concept
    "two-stage": {"bear": [(1, 5), (2, 7), (0, 1)], "bus": [(1, 5), (2, 7), (3, 2)], "dog": [(1, 5), (3, 9), (0, 4)]},
    THIRD: {"bear": [(0, 1), (2, 8)], "bus": [(3, 2)], "dog": [(3, 9)]},
    "dai": {"bear": [(2, 0)], "bus": [(2, 0)], "dog": [(1, 5)]},
}
ALL = sorted({at for of in SETS.values() for neurons in of.values() for at in neurons})
SAID = {  # method, intervention, n, sigma -> caption, probability after
    ("two-stage", "noise", 3, 2.0): ("A thing, in a forest.", 0.25),
    ("two-stage", "noise", 3, 5.0): ("The The The", 0.02),
    ("random", "noise", 3, 5.0): ("A bear in a field.", 0.8),
    (THIRD, "zero", 2, math.nan): ("A forest.", 0.01),
    (THIRD, "zero", 1, math.nan): ("A “tree” in a forest.", 0.4),
}


def neurons(method: str, concept: str, at: list[tuple[int, int]]) -> NeuronSet:
    layers, units = np.array(at).T
    return NeuronSet(concept, method, layers, units, np.linspace(1, 0.5, len(at)))


def value(measure: str, concept: str, layer: int, unit: int) -> float:
    """What every neuron has: falling over units, growing over layers, another for each concept and measure."""
    sign = -1 if measure == "third" and concept == "dog" else 1
    return (
        sign * (1 + list(records.MEASURES).index(measure)) * (0.001 + layer + unit / 8 + CONCEPTS.index(concept) / 16)
    )


@pytest.fixture(scope="session")
def found() -> Records:
    rng = np.random.default_rng(0)
    shown = []
    for concept in CONCEPTS:
        for i in range(2):
            image, without = rng.integers(0, 255, (2, 16, 24, 3), dtype=np.uint8)
            mask = np.zeros((16, 24), bool)
            mask[4:12, 6:18] = True
            said = f"A {concept} in a forest.", "A forest."
            shown.append(Shown(f"{concept}/{i}", concept, image, without, mask, *said))
    rows = [
        (concept, f"{concept}/0", *done, caption.replace("bear", concept), 0.9, after, math.nan)
        for concept in CONCEPTS
        for done, (caption, after) in SAID.items()
    ]
    rows.append(("dog", "bear/0", "two-stage", "noise", 3, 5.0, "A bear.", 0.9, 0.7, 0.5))
    mapped = np.array([at for at in ALL if at != (2, 0)])
    measured = {
        concept: {
            name: np.array([[value(name, concept, layer, unit) for unit in range(10)] for layer in range(4)])
            for name in records.MEASURES
        }
        for concept in CONCEPTS
    }
    exact = pd.DataFrame({"layer": [1, 0], "unit": [5, 1], "removed": [-0.5, 0.25], "patched": [math.nan, 0.125]})
    return Records(
        "toy",
        3,
        ("noise", 3, 5.0),
        CONCEPTS,
        shown,
        {name: {concept: neurons(name, concept, at) for concept, at in of.items()} for name, of in SETS.items()},
        measured,
        {concept: {"delta": 2.0, "gradcam": 1.0} for concept in CONCEPTS},
        {concept: exact if concept == "bear" else exact[:0] for concept in CONCEPTS},
        {(1, 5): [",", " a"], (0, 1): [" paw", "bear"]},
        pd.DataFrame(rows, columns=records.COLUMNS),
        {"two-stage": np.array([[0.9, 0.5, 0.4], [0.3, 0.8, math.nan], [0.1, 0.2, 0.7]])},
        mapped,
        {name: rng.normal(size=(6, len(mapped), 4, 2)).astype(np.float16) for name in ("delta", "gradcam")},
        [rng.normal(size=(count, len(mapped))) for count in (3, 2, 3)],
    )


@pytest.fixture(scope="session")
def site(found, tmp_path_factory) -> Path:
    """A folder with the page, its code, shards and pictures, as the rendered book has them."""
    folder = tmp_path_factory.mktemp("site")
    shards.write(found, folder / BROWSER)
    for name in CODE:
        shutil.copyfile(Path(plain.__file__).parent / name, folder / BROWSER / name)
    (folder / "neurons.html").write_text(PAGE.format(plain.page(found)), encoding="utf-8")
    return folder
