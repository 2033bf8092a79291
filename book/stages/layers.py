"""In which layers neurons lie: shares of each layer, tests between methods, a control for activation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kn_core.measures.stats import cluster_interval, each_alone, holm, paired_permutation
from kn_core.study.study import Study


def layer_shares(neurons: pd.DataFrame, n_layers: int) -> pd.DataFrame:
    """Share of each concept's neurons in each layer: a row a concept, a column a layer, rows sum to 1."""
    shares = pd.crosstab(neurons["concept"], neurons["layer"], normalize="index")
    return shares.reindex(index=neurons["concept"].unique(), columns=range(n_layers), fill_value=0)


def with_intervals(shares: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over concepts (rows), and its 95 % bootstrap interval; NaN where there is one concept alone."""
    ends = np.array([cluster_interval([np.array([value]) for value in shares[layer]]) for layer in shares])
    return shares.mean().to_numpy(), ends[:, 0], ends[:, 1]


def same_activation(study: Study, concepts: Sequence[str], draws: int = 20, near: int = 50) -> pd.DataFrame:
    """A control for layers: for each of a concept's best neurons, others of the same mean activation, of any layer.

    Each is drawn from the `near` next larger and smaller mean activations at image tokens, over the concept's selection
    pictures. Columns concept, layer; `draws` rows a neuron.
    """
    frames = []
    for concept in concepts:
        activation = study.scores(concept)["activation"].mean(axis=0)  # (L, D)
        order = activation.ravel().argsort()
        best = study.neuron_set(concept).top(study.profile.identification.budget)
        place = order.argsort()[best.layers * activation.shape[1] + best.units]  # (n,)
        first = np.clip(place - near, 0, activation.size - 2 * near - 1)
        drawn = first + np.random.default_rng(study.profile.data.seed).integers(2 * near, size=(draws, len(best)))
        drawn = order[drawn + (drawn >= place)]  # (draws, n), never the neuron itself
        frames.append(pd.DataFrame({"concept": concept, "layer": (drawn // activation.shape[1]).ravel()}))
    return pd.concat(frames, ignore_index=True)


def late_by_method(neurons: pd.DataFrame, n_layers: int) -> pd.DataFrame:
    """Share of each method's neurons in the upper two thirds of the layers, tested against the two-stage method's.

    `neurons` has columns concept, method, layer. Columns method, late, low, high, difference (two-stage minus the
    method, concept by concept), p_holm (sign flips over concepts, Holm over methods; NaN for the two-stage method).
    """
    upper = neurons.assign(late=neurons["layer"] >= n_layers / 3)
    by_concept = upper.pivot_table(index="method", columns="concept", values="late", sort=False)
    ours = by_concept.loc["two-stage"]
    records = []
    for method, shares in by_concept.iterrows():
        gap = ours - shares
        low, high = cluster_interval(each_alone(shares))
        p = np.nan if method == "two-stage" else paired_permutation(each_alone(gap.to_numpy(float)))
        records.append((method, shares.mean(), low, high, gap.mean(), p))
    found = pd.DataFrame(records, columns=["method", "late", "low", "high", "difference", "p"])
    return found.assign(p_holm=holm(found["p"])).drop(columns="p")
