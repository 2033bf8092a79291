"""Both stages neuron by neuron, as one tidy frame: what the figures and tables on stages 1 and 2 are made of."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kn_core.concepts import words
from kn_core.study import Study

STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


def stages(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """Every neuron of every concept: both pooled scores, and whether it passes.

    Columns: concept, layer, unit, delta, gradcam, share (of the concept's selection pictures in which it passes stage
    1), candidate (passes stage 1), kept (passes both). L * D rows a concept.
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
    frame["kept"] = frame["candidate"] & (frame["gradcam"] > threshold["gradcam"])
    frame.insert(0, "concept", concept)
    return frame


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """How many neurons each stage leaves: columns concept, neurons, candidates, kept, dropped (share of candidates)."""
    by = frame.groupby("concept", sort=False)
    found = by.agg(neurons=("layer", "size"), candidates=("candidate", "sum"), kept=("kept", "sum")).reset_index()
    found["dropped"] = 1 - found["kept"] / found["candidates"]
    return found


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
    """The n best two-stage neurons of each concept, with the tokens they promote and how many name the concept (own)."""
    best = neurons[(neurons["method"] == "two-stage") & (neurons["rank"] < n)].copy()
    best["promotes"] = best["top_tokens"].map(tokens)
    best["own"] = [len(own_words(row.top_tokens, row.concept)) for row in best.itertuples()]
    return best.sort_values(["concept", "rank"], kind="stable").drop(columns=["top_tokens", "method", "draw"])
