"""In which layers neurons lie: shares of each layer, tests between methods, a control for activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from book.claims.rules import Measurement
from book.style import METHODS, methods_of
from book.tables import P_HOLM
from book.words import CHANGE, interval, told
from kn_core.measures.stats import GAP, each_alone, estimate, holm, paired_permutation
from kn_core.study.study import Study


def layer_shares(neurons: pd.DataFrame, n_layers: int) -> pd.DataFrame:
    """Share of each concept's neurons in each layer: a row a concept, a column a layer, rows sum to 1."""
    shares = pd.crosstab(neurons["concept"], neurons["layer"], normalize="index")
    return shares.reindex(index=neurons["concept"].unique(), columns=range(n_layers), fill_value=0)


def over_layers(neurons: Mapping[str, pd.DataFrame], n_layers: int) -> pd.DataFrame:
    """`layer_shares` of several methods' neurons, means over concepts with 95 % intervals.

    Columns method, layer, value, low, high: a row a method and layer. One concept alone has no interval.
    """
    rows = []
    for method, found in neurons.items():
        shares = layer_shares(found, n_layers)
        rows += [(method, layer, *estimate(shares[layer]).ends) for layer in shares]
    return pd.DataFrame(rows, columns=["method", "layer", "value", "low", "high"])


def is_late(layers: pd.Series, n_layers: int) -> pd.Series:
    """Whether layers are in the upper two thirds."""
    return layers >= n_layers / 3


def any_layer_same_activation(study: Study, concepts: Sequence[str], draws: int = 20, near: int = 50) -> pd.DataFrame:
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


def of_any_layer(study: Study, concept: str | None) -> pd.DataFrame:
    """Every method's best neurons that act at image tokens, without controls that keep the two-stage ones' layers."""
    neurons, budget = study.neurons(concept), study.profile.identification.budget
    bound = neurons["method"].isin(["random", "stage-1-layers", "same-activation", "same-norm", *methods_of("at text")])
    return neurons[(neurons["draw"] == 0) & (neurons["rank"] < budget) & ~bound]


def late_by_method(neurons: pd.DataFrame, n_layers: int) -> pd.DataFrame:
    """Share of each method's neurons in the upper two thirds of the layers, tested against the two-stage method's.

    `neurons` has columns concept, method, layer. Columns method, late, low, high, difference (two-stage minus the
    method, concept by concept), p_holm (sign flips over concepts, Holm over methods; NaN for the two-stage method).
    """
    late = neurons.assign(late=is_late(neurons["layer"], n_layers))
    by_concept = late.pivot_table(index="method", columns="concept", values="late", sort=False)
    ours, records = by_concept.loc["two-stage"], []
    for method, shares in by_concept.iterrows():
        gap = ours - shares
        p = np.nan if method == "two-stage" else paired_permutation(each_alone(gap.to_numpy(float)))
        records.append((method, *estimate(shares).ends, gap.mean(), p))
    found = pd.DataFrame(records, columns=["method", "late", "low", "high", "difference", "p"])
    return found.assign(p_holm=holm(found["p"])).drop(columns="p")


def in_table(late: pd.DataFrame) -> pd.DataFrame:
    """`late_by_method` for a reader."""
    shown = pd.DataFrame({"method": [METHODS[method].label for method in late["method"]]})
    shown["share [95 %]"] = [interval(*row) for row in late[["late", "low", "high"]].itertuples(index=False)]
    return shown.assign(**{"difference": late["difference"], P_HOLM: late["p_holm"]})


def beside_activation(found: pd.DataFrame, control: pd.DataFrame, n_layers: int) -> str:
    """Whether more of the best are in the upper two thirds than of those of `any_layer_same_activation`."""
    ours, theirs = (is_late(each["layer"], n_layers).groupby(each["concept"]).mean() for each in (found, control))
    gap = estimate((ours - theirs).dropna(), within=GAP)
    less, more = "activation alone does not explain it", "activation alone would put more of them there"
    said = told(gap.low, gap.high, less, more, "activation alone could explain it", "too few concepts to tell")
    ends = interval(*gap.ends, CHANGE)
    return f"The share of the best less that of random ones with their activation is {ends}: {said}."


def in_words(over: pd.DataFrame, late: Measurement, n_layers: int) -> dict[str, str]:
    """The share of each method's neurons in the upper two thirds of `over_layers`; `late` is the claim's."""
    upper = over[is_late(over["layer"], n_layers)].groupby("method")["value"].sum()
    return {
        **{str(method): f"{share:.0%}" for method, share in upper.items()},
        "late": f"{late.value:.0%}",
        "uniform": f"{late.baseline:.0%}",
        "interval": interval(late.value, late.low, late.high),
        "layers": f"{n_layers}",
    }
