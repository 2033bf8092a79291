"""Neurons that sets have in common, beside what chance would give: concepts, pictures or methods against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

Neuron = tuple[int, int]
"""(layer, unit)"""


def overlap(sets: Mapping[Any, AbstractSet[Neuron]], shape: Sequence[int]) -> pd.DataFrame:
    """What each two of the labelled sets have in common, pair by pair; `shape` is the model's (L, D).

    Columns one, other, shared, jaccard (shared over both together; NaN where both are empty), expected (how many two
    sets of these sizes share when drawn uniformly, the mean of the hypergeometric distribution), p (its chance of as
    many or more), expected_layers (the same mean when both are drawn with their own number of neurons in each layer:
    sharing layers is not sharing neurons).
    """
    n_layers, width = shape
    for name, held in sets.items():
        if stray := [(layer, unit) for layer, unit in held if not (0 <= layer < n_layers and 0 <= unit < width)]:
            raise ValueError(f"neurons must lie in {n_layers} layers of {width}. Got {stray[:3]} in the set '{name}'.")
    layers = {name: np.bincount([layer for layer, _ in held], minlength=n_layers) for name, held in sets.items()}
    total, records = n_layers * width, []
    for one, other in combinations(sets, 2):
        sizes, shared = (len(sets[one]), len(sets[other])), len(sets[one] & sets[other])
        jaccard = shared / (sum(sizes) - shared) if any(sizes) else np.nan
        p = float(hypergeom.sf(shared - 1, total, *sizes))
        by_layer = float(layers[one] @ layers[other]) / width
        records.append((one, other, shared, jaccard, sizes[0] * sizes[1] / total, p, by_layer))
    return pd.DataFrame(records, columns=["one", "other", "shared", "jaccard", "expected", "p", "expected_layers"])
