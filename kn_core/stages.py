"""Both stages neuron by neuron, as one tidy frame: what the figures and tables on stages 1 and 2 are made of."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kn_core.concepts import words
from kn_core.evidence import PAPER_A
from kn_core.stats import cluster_interval, each_alone, holm, paired_permutation
from kn_core.study import Study

STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


def stages(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """Every neuron of every concept: both pooled scores, and whether it passes.

    Columns: concept, layer, unit, delta, gradcam, share (of the concept's selection pictures in which it passes stage
    1), candidate (passes stage 1), carries (is above stage 2's threshold), kept (passes both). L * D rows a concept.
    """
    return pd.concat([_stages(study, concept) for concept in concepts], ignore_index=True)


def _stages(study: Study, concept: str) -> pd.DataFrame:
    pooled, threshold = study.pooled(concept), study.thresholds(concept)
    delta = study.scores(concept)["delta"]  # (N, L, D)
    layers, units = np.indices(delta.shape[1:])
    frame = pd.DataFrame({"layer": layers.ravel(), "unit": units.ravel()})
    frame["delta"], frame["gradcam"] = pooled["delta"].ravel(), pooled["gradcam"].ravel()
    frame["share"] = (delta > threshold["delta"]).mean(axis=0).ravel()
    frame["candidate"] = frame["delta"] > threshold["delta"]
    frame["carries"] = frame["gradcam"] > threshold["gradcam"]
    frame["kept"] = frame["candidate"] & frame["carries"]
    frame.insert(0, "concept", concept)
    return frame


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """How many neurons each stage leaves: columns concept, neurons, candidates, kept, dropped (share of candidates)."""
    by = frame.groupby("concept", sort=False)
    found = by.agg(neurons=("layer", "size"), candidates=("candidate", "sum"), kept=("kept", "sum")).reset_index()
    found["dropped"] = 1 - found["kept"] / found["candidates"]
    return found


def in_words(frame: pd.DataFrame) -> dict[str, str]:
    """`stages` for sentences; every number is a mean over concepts."""
    by = frame.groupby("concept", sort=False)
    size, share = by.size().mean(), by[["candidate", "carries", "kept"]].mean().mean()
    chosen, kept = (frame[frame[which]].groupby("concept", sort=False) for which in ("candidate", "kept"))
    last = chosen["layer"].agg(lambda layers: (layers == frame["layer"].max()).mean()).mean()
    many, few = (by["delta"].agg(lambda delta: (delta > end).sum()).mean() for end in PAPER_A)  # noqa: B023
    rank = np.mean([scores["delta"].corr(scores["gradcam"], method="spearman") for _, scores in by])
    return {
        "neurons": f"{size:,.0f}",
        "layers": f"{frame['layer'].max() + 1}",
        "candidates": f"{size * share['candidate']:,.0f}",
        "kept": f"{size * share['kept']:,.0f}",
        "kept-chance": f"{size * share['candidate'] * share['carries']:,.0f}",
        "lift": f"{share['kept'] / (share['candidate'] * share['carries']):.1f}",
        "dropped": f"{1 - share['kept'] / share['candidate']:.0%}",
        "last": f"{last:.0%}",
        "layer-candidates": f"{chosen['layer'].mean().mean():.0f}",
        "layer-kept": f"{kept['layer'].mean().mean():.0f}",
        "passing": f"{chosen['share'].mean().mean():.0%}",
        "passing-any": f"{by['share'].mean().mean():.0%}",
        "factor": f"{many / max(few, 1):,.0f}",
        "rank": f"{rank:.2f}",
    }


def shared(neurons: pd.DataFrame, budget: int, n_neurons: int) -> pd.DataFrame:
    """How many of each concept's best two-stage neurons are among other concepts' best.

    Columns concept, best, of another concept, of every concept, by chance (how many would be another concept's if sets
    were drawn uniformly from `n_neurons`).
    """
    best = neurons[(neurons["method"] == "two-stage") & (neurons["rank"] < budget)]
    held = best.groupby(["layer", "unit"])["concept"].transform("size")  # by how many concepts
    sizes = best["concept"].value_counts(sort=False)
    found = pd.DataFrame({"concept": sizes.index, "best": sizes.to_numpy()})
    for column, least in (("of another concept", 2), ("of every concept", len(sizes))):
        found[column] = found["concept"].map(best[held >= least]["concept"].value_counts()).fillna(0).astype(int)
    missed = 1 - found["best"] / n_neurons  # the chance that a set misses a neuron
    found["by chance"] = found["best"] * (1 - float(np.prod(missed)) / missed)
    return found


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


def tokens(written: str) -> list[str]:
    """The tokens of a `top_tokens` cell of `neurons.parquet`, the most promoted first."""
    return [ast.literal_eval(token) for token in STRING.findall(written)]


def own_words(written: str, concept: str) -> list[str]:
    """Those of a neuron's top tokens that name the concept, or begin a word that does: ' gira' counts for a giraffe."""
    named = words(concept)
    return [token for token in tokens(written) if any(_begins(token, word) for word in named)]


def _begins(token: str, word: str) -> bool:
    piece = token.strip().lower()
    return piece == word or (len(piece) >= 4 and token.startswith(" ") and word.startswith(piece))


def decoded(neurons: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n best two-stage neurons of each concept, with `own`: how many of their top tokens name the concept."""
    best = neurons[(neurons["method"] == "two-stage") & (neurons["rank"] < n)]
    own = [len(own_words(*row)) for row in zip(best["top_tokens"], best["concept"], strict=True)]
    return best.drop(columns=["method", "draw"]).assign(own=own)
