"""Both stages neuron by neuron, as one tidy frame: what the figures and tables on stages 1 and 2 are made of."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from book.claims.evidence import PAPER_A
from book.tables import table
from kn_core.concepts import words
from kn_core.measures.overlap import overlap
from kn_core.method.two_stages import stage_1, stage_2
from kn_core.pictures.sample import Sample
from kn_core.study.experiments.heatmaps import heatmaps, shown
from kn_core.study.study import Study


def thresholds(study: Study) -> pd.DataFrame:
    """Our Table IV, a row a concept: both thresholds, how many neurons there are, pass stage 1, pass both stages."""
    rows = []
    for concept in study.studied():
        pooled, found = study.pooled(concept), study.thresholds(concept)
        candidates = stage_1(pooled["delta"], found["delta"])
        kept = stage_2(candidates, pooled["gradcam"], found["gradcam"])
        rows.append((concept, found["delta"], found["gradcam"], candidates.size, candidates.sum(), kept.sum()))
    return pd.DataFrame(rows, columns=["concept", "θ_a", "θ_g", "neurons", "pass stage 1", "pass both"])


def between_concepts(
    neurons: pd.DataFrame, budget: int, shape: Sequence[int], method: str = "two-stage"
) -> pd.DataFrame:
    """`overlap` of the concepts' best neurons by a method; column `concept` for `one`.

    `neurons` has the columns concept, method, layer, unit, rank of `neurons.parquet`.
    """
    best = neurons[(neurons["method"] == method) & (neurons["rank"] < budget)]
    sets = {
        name: set(zip(rows["layer"], rows["unit"], strict=True)) for name, rows in best.groupby("concept", sort=False)
    }
    return overlap(sets, shape).rename(columns={"one": "concept"})


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


def mapped(
    study: Study, concepts: Sequence[str], names: Sequence[str], n: int = 1
) -> list[tuple[Sample, list[np.ndarray]]]:
    """The first `n` mapped pictures of each concept with their maps of these names: what plots.gallery draws."""
    return [
        (study.sample(concept, image_id), [heatmaps(study, concept)[name][place] for name in names])
        for concept in concepts
        for place, image_id in enumerate(shown(study, concept)[:n])
    ]


def mapped_singly(
    study: Study, concepts: Sequence[str], name: str, n: int = 1
) -> list[tuple[Sample, list[np.ndarray]]]:
    """The same with the maps of single neurons: `name` is 'best candidates' or 'best kept'."""
    return [(sample, list(maps[0])) for sample, maps in mapped(study, concepts, [name], n)]


def neuron_table(neurons: pd.DataFrame, caption: str) -> Styler:
    """Rows of `neurons.parquet` with the tokens that they promote, as code; a space is written ␣."""
    columns = ["concept", "layer", "unit", "score", "delta", "n_images"]
    shown = neurons[columns].rename(columns={"delta": "difference", "n_images": "pictures"})
    shown["promotes"] = [" ".join(map(_code, tokens(written))) for written in neurons["top_tokens"]]
    if (shown["concept"] == shown["concept"].iloc[0]).all():
        shown = shown.drop(columns="concept")
    narrow = {"max-width": "16rem"}  # else it is cut off beside the numbers
    return table(shown, caption).format(str, subset=["promotes"]).set_properties(subset=["promotes"], **narrow)


def _code(token: str) -> str:
    visible = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return f"<code>{html.escape(visible)}</code>"
