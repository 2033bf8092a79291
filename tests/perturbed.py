"""A run of two concepts, two held-out pictures each, whose every effect can be worked out by hand.

| picture | two-stage, seeds 0 and 1 | random | the other concept's two-stage neurons |
|---|---|---|---|
| bear-1 | gone, gone | named, named | named, gone |
| bear-2 | gone, named | named, named | |
| bus-1 | gone, gone | gone, named | named, named |
| bus-2 | named, named | named, named | |
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from kn_core.profile import Profile, load_profile

CLEAN = {
    "bear-1": "A bear on green grass.",
    "bear-2": "A bear in the snow.",
    "bus-1": "A bus on green grass.",
    "bus-2": "A bus on a street.",
}
PERPLEXITY = dict(zip(CLEAN, (10.0, 20.0, 30.0, 40.0), strict=True))
GONE = {
    ("bear", "two-stage", "bear-1"): (True, True),
    ("bear", "two-stage", "bear-2"): (True, False),
    ("bus", "two-stage", "bus-1"): (True, True),
    ("bus", "two-stage", "bus-2"): (False, False),
    ("bear", "random", "bear-1"): (False, False),
    ("bear", "random", "bear-2"): (False, False),
    ("bus", "random", "bus-1"): (True, False),
    ("bus", "random", "bus-2"): (False, False),
    ("bus", "two-stage", "bear-1"): (False, True),
    ("bear", "two-stage", "bus-1"): (False, False),
}


def profile() -> Profile:
    """The embedded profile, for two concepts and the main setting of `row`."""
    settings = load_profile("embedded")
    main = settings.perturbation.model_copy(update={"sigma": 3.0})
    return settings.model_copy(update={"concepts": ("bear", "bus"), "ours": ("bus",), "perturbation": main})


def row(concept: str, method: str, image_id: str, gone: bool, seed: int = 0, **changes: Any) -> dict[str, object]:
    """One row in the main setting: 80 neurons, sigma 3, noise at image tokens."""
    of = image_id.split("-")[0]
    clean = CLEAN[image_id]
    return {
        "concept": concept,
        "method": method,
        "intervention": "noise",
        "positions": "image",
        "n": 80,
        "sigma": 3.0,
        "seed": seed,
        "image_id": image_id,
        "image_concept": of,
        "heldout": True,
        "caption": clean.replace(of, "man") if gone else clean,
        "clean_caption": clean,
        "target_present": not gone,
        "target_probability": 0.1 if gone else 0.4,
        "clean_probability": 0.5,
        "retained": 0.5 if method == "two-stage" else 1.0,
        "truths": "field",
        "retained_truth": 0.25 if method == "two-stage" else 1.0,
        "retained_probability": 0.75,
        "repetition": 0.0,
        "perplexity": 25.0,
        "clean_perplexity": PERPLEXITY[image_id],
    } | changes


def headline_rows() -> list[dict[str, object]]:
    return [row(*key, gone, seed) for key, seeds in GONE.items() for seed, gone in enumerate(seeds)]


def sweep_rows() -> list[dict[str, object]]:
    """Around the main setting, first seed: the two-stage neurons take all or nothing, random ones nothing."""
    settings: list[dict[str, Any]] = [
        {"n": 10, "gone": False},
        {"n": 160, "gone": True},
        {"sigma": 10.0, "gone": True},
        {"intervention": "zero", "sigma": math.nan, "gone": False},
        {"positions": "all", "gone": True},
    ]
    own = [key for key in GONE if key[0] == key[2].split("-")[0]]
    control = {"random": {"gone": False}}
    return [row(*key, **(setting | control.get(key[1], {}))) for setting in settings for key in own]


def perturbations() -> pd.DataFrame:
    """The main setting, the sweeps, and a picture that chose neurons, of which nothing may speak."""
    seen = row("bear", "two-stage", "bear-1", gone=False, heldout=False) | {"image_id": "bear-0"}
    return pd.DataFrame([seen, *headline_rows(), *sweep_rows()])
