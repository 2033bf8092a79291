"""The neurons that are found: how many, what they say, where they answer in a picture, whose else they are."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from book.tables import table
from kn_core.concepts import words
from kn_core.measures.overlap import overlap
from kn_core.measures.stats import estimate
from kn_core.method.two_stages import stage_1, stage_2
from kn_core.pictures.sample import Sample
from kn_core.study.experiments.heatmaps import heatmaps, shown
from kn_core.study.study import Study


def thresholds(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """Our Table IV, a row a concept: both thresholds, how many neurons there are, pass stage 1, pass both stages."""
    rows = []
    for concept in concepts:
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


def shared(neurons: pd.DataFrame, budget: int, n_neurons: int) -> pd.DataFrame:
    """How many of each concept's best two-stage neurons are among other concepts' best.

    Columns concept, best, of another concept, of every concept, by chance (how many would be another concept's if sets
    were drawn uniformly from `n_neurons`).
    """
    best = neurons[(neurons["method"] == "two-stage") & (neurons["rank"] < budget)]
    held = best.groupby(["layer", "unit"])["concept"].transform("size")  # by how many concepts
    sizes = best["concept"].value_counts(sort=False)
    found = pd.DataFrame({"concept": sizes.index, "best": sizes.to_numpy()})
    for column, least in (("of another concept", 2), ("of every concept", max(2, len(sizes)))):
        found[column] = found["concept"].map(best[held >= least]["concept"].value_counts()).fillna(0).astype(int)
    missed = 1 - found["best"] / n_neurons  # the chance that a set misses a neuron
    found["by chance"] = found["best"] * (1 - float(np.prod(missed)) / missed)
    return found


def shared_in_words(common: pd.DataFrame) -> dict[str, str]:
    """`shared` for sentences; means over concepts."""
    return {
        "another": f"{(common['of another concept'] / common['best']).mean():.0%}",
        "every": f"{common['of every concept'].mean():.0f}",
        "chance": f"{(common['by chance'] / common['best']).mean():.1%}",
        "only": f"{(common['best'] - common['of another concept']).mean():.0f}",
    }


STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


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


def decoded_in_words(neurons: pd.DataFrame, n_layers: int, budget: int) -> dict[str, str]:
    """What two-stage neurons promote, for sentences: the ten best of each concept, and all that there are."""
    best, every = decoded(neurons, 10), decoded(neurons, len(neurons))
    above = n_layers - 1 - every[every["rank"] < budget]["layer"].mean()
    return {
        "own": f"{(best['own'] > 0).sum()}",
        "of": f"{len(best)}",
        "own-all": f"{(every['own'] > 0).sum()}",
        "all": f"{len(every):,}",
        "share-own": f"{(every['own'] > 0).mean():.2%}",
        "distinct": f"{len(best.drop_duplicates(['layer', 'unit']))}",
        "layers-above": f"{above:.0f}",
    }


def neuron_table(neurons: pd.DataFrame, caption: str) -> Styler:
    """Rows of `neurons.parquet` with the tokens that they promote, as code; a space is written ␣."""
    columns = ["concept", "layer", "unit", "score", "delta", "n_images"]
    shown = neurons[columns].rename(columns={"delta": "difference", "n_images": "pictures"})
    shown["promotes"] = [" ".join(map(_code, tokens(written))) for written in neurons["top_tokens"]]
    if (shown["concept"] == shown["concept"].iloc[0]).all():
        shown = shown.drop(columns="concept")
    narrow = {"max-width": "16rem"}  # else it is cut off beside the numbers
    return table(shown, caption).format(str, subset=["promotes"]).set_properties(subset=["promotes"], **narrow)


def rank_table(best: pd.DataFrame, n: int, caption: str) -> Styler:
    """Neurons of `decoded` that are among any concept's n best, whoever is in most lists first: their rank in each."""
    at = ["layer", "unit"]
    ranks = best.assign(rank=best["rank"] + 1).pivot_table("rank", at, "concept", sort=False)
    ranks = ranks[list(dict.fromkeys(best["concept"]))]
    ranks = ranks[(ranks <= n).any(axis=1)].assign(lists=lambda of: -of.count(axis=1), first=lambda of: of.min(axis=1))
    ranks = ranks.sort_values(["lists", "first"], kind="stable").drop(columns=["lists", "first"])
    written = best.drop_duplicates(at).set_index(at)["top_tokens"].loc[ranks.index]
    promotes = [" ".join(map(_code, tokens(one)[:5])) for one in written]
    shown = ranks.reset_index().assign(promotes=promotes)
    return table(shown, caption, dict.fromkeys(map(str, ranks), "{:.0f}")).format(str, subset=["promotes"])


def _code(token: str) -> str:
    visible = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return f"<code>{html.escape(visible)}</code>"


Mapped = tuple[Sample, list[np.ndarray]]  # a picture and its maps: a row of `pictures.gallery`


def mapped(study: Study, concepts: Sequence[str], names: Sequence[str], n: int = 1) -> list[Mapped]:
    """The first `n` mapped pictures of each concept with their maps of these names."""
    return [
        (study.sample(concept, image_id), [heatmaps(study, concept)[name][place] for name in names])
        for concept in concepts
        for place, image_id in enumerate(shown(study, concept)[:n])
    ]


def mapped_singly(study: Study, concepts: Sequence[str], name: str, n: int = 1) -> list[Mapped]:
    """The same with the maps of single neurons: `name` is 'best candidates' or 'best kept'."""
    return [(sample, list(maps[0])) for sample, maps in mapped(study, concepts, [name], n)]


def on_object(places: pd.DataFrame) -> pd.DataFrame:
    """How much of each map lies on the object: columns map, value, low, high; shares of the map's positive part.

    `places` is a frame of `heatmaps.localisation`.
    """
    by = places.groupby("map", sort=False)
    rows = [(name, *estimate(rows["inside"], rows["concept"]).ends) for name, rows in by]
    return pd.DataFrame(rows, columns=["map", "value", "low", "high"])


def on_object_in_words(places: pd.DataFrame) -> dict[str, str]:
    """The same for sentences, with the object's share of the pictures, and how many pictures are mapped."""
    shares, pictures = on_object(places).set_index("map")["value"], places.drop_duplicates(["concept", "image_id"])
    words = {f"on-{name}": f"{shares[name]:.0%}" for name in ("candidates", "dropped", "kept", "random")}
    return words | {"area": f"{pictures['area'].mean():.0%}", "mapped": f"{len(pictures)}"}
