"""A study's neurons, switched off one at a time on pictures that chose none: the truth that scores are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from book import words
from book.claims.rules import Measurement
from book.style import METHODS
from kn_core.measures.overlap import overlap
from kn_core.measures.stats import cluster_interval
from kn_core.method.two_stages import select
from kn_core.study.experiments.prompts import neurons
from kn_core.study.experiments.single_neurons import (
    REFERENCE,
    effects,
    rank_correlation,
)
from kn_core.study.study import Study


def correlations(study: Study, concepts: list[str]) -> pd.DataFrame:
    """`rank_correlation` of every concept and method: columns concept, method, over, rho, n."""
    return rank_correlation(pd.concat([effects(study, concept) for concept in concepts], ignore_index=True))


def by_method(rho: pd.DataFrame) -> pd.DataFrame:
    """Mean over concepts with its 95 % interval: columns method, over, rho, low, high, n_concepts."""
    records = []
    for (method, over), rows in rho.dropna(subset=["rho"]).groupby(["method", "over"], sort=False):
        low, high = cluster_interval([np.array([value]) for value in rows["rho"]])
        records.append((method, over, float(rows["rho"].mean()), low, high, len(rows)))
    return pd.DataFrame(records, columns=["method", "over", "rho", "low", "high", "n_concepts"])


def measured(study: Study) -> list[Measurement]:
    """How well stage 2's score ranks neurons by their effect, over all that were switched off."""
    found = by_method(correlations(study, study.studied())).set_index(["method", "over"])
    if ("stage-2", "all") not in found.index:
        return []
    row = found.to_dict("index")["stage-2", "all"]
    return [Measurement("gradient_rank_correlation", row["rho"], row["low"], row["high"], int(row["n_concepts"]))]


def in_words(neurons: pd.DataFrame, mean: pd.DataFrame) -> dict[str, str]:
    """`effects` and `by_method` for sentences."""
    one = neurons.drop_duplicates(["concept", "layer", "unit"])
    largest = one.nlargest(1, "effect").to_dict("records")[0]
    overall = mean[mean["over"] == "all"].to_dict("records")
    rho = {f"rho-{row['method']}": words.interval(row["rho"], row["low"], row["high"]) for row in overall}
    best = max((row for row in overall if row["method"] not in REFERENCE), key=lambda row: row["rho"])["method"]
    return rho | {
        "ablated": f"{one.groupby('concept').size().median():.0f}",
        "median-effect": f"{one['effect'].abs().median():.3f}",
        "largest-effect": f"{largest['effect']:.2f}",
        "largest-where": f"layer {largest['layer']}, unit {largest['unit']}, for “{largest['concept']}”",
        "best": METHODS[best].label,
        "rho-best": rho[f"rho-{best}"],
        "sum-name": REFERENCE["gradcam-sum"],
    }


def localised(found: pd.DataFrame, maps: Mapping[str, str]) -> pd.DataFrame:
    """`heatmaps.localisation` for a reader: a row a map, its three readings as means over concepts with intervals."""
    readings = {"iou": "IoU", "pointing": "pointing", "inside": "on the object"}
    shown = []
    for name, shown_as in maps.items():
        row = {"map of": shown_as}
        for column, heading in readings.items():
            rows = found[found["map"] == name].dropna(subset=[column])
            clusters = [values.to_numpy(float) for _, values in rows.groupby("concept")[column]]
            row[heading] = words.interval(float(np.mean([c.mean() for c in clusters])), *cluster_interval(clusters))
        shown.append(row)
    return pd.DataFrame(shown)


def across_images(study: Study, concepts: Sequence[str], budget: int) -> pd.DataFrame:
    """Best neurons of single pictures by the score of stage 2, pair by pair: `single_pictures`, and concept."""
    frames = [single_pictures(study.scores(name)["gradcam"], budget).assign(concept=name) for name in concepts]
    return pd.concat(frames, ignore_index=True)


def overlap_in_words(alike: pd.DataFrame) -> dict[str, str]:
    """`across_images` for sentences: medians over pairs of pictures of a concept, then over concepts."""
    by = alike.groupby("concept")[["shared", "jaccard", "expected"]].median().median()
    return {
        "shared-images": f"{by['shared']:g}",
        "jaccard-images": f"{by['jaccard']:.2f}",
        "expected-images": f"{by['expected']:.2f}",
    }


def single_pictures(scores: np.ndarray, budget: int) -> pd.DataFrame:
    """`overlap` of the `budget` best neurons of each picture of a concept, had it chosen alone; column `image`.

    `scores` (N, L, D) is what a method selects by, picture by picture; -inf where a neuron may not be chosen, such as
    one that does not pass stage 1. Pictures are named by their place, 0 to N - 1.
    """
    sets = {}
    for image, score in enumerate(scores):
        best = select(str(image), "", np.isfinite(score), score, budget)
        sets[image] = set(zip(best.layers.tolist(), best.units.tolist(), strict=True))
    return overlap(sets, scores.shape[1:]).rename(columns={"one": "image"})


def across_prompts(study: Study, concepts: list[str]) -> pd.DataFrame:
    """What a concept's sets under two wordings share: `overlap.overlap`, and columns concept, prompt, n_images."""
    shape = study.scores(concepts[0])["delta"].shape[1:]
    found = [pd.DataFrame(columns=["concept", "prompt", "n_images", *overlap({}, shape)])]
    for concept in concepts:
        for prompt, rows in neurons(study, concept).groupby("prompt", sort=False):
            sets = {
                asked: set(zip(of["layer"], of["unit"], strict=True)) for asked, of in rows.groupby("asked", sort=False)
            }
            n_images = int(rows["n_images"].iloc[0])
            found.append(overlap(sets, shape).assign(concept=concept, prompt=str(prompt), n_images=n_images))
    return pd.concat([rows for rows in found if len(rows)] or found, ignore_index=True)


def prompts_in_words(alike: pd.DataFrame) -> dict[str, str]:
    """`across_prompts` for sentences: means over concepts of the means over wordings, with 95 % intervals."""
    if alike.empty:
        nothing = dict.fromkeys(("shared-prompts", "jaccard-prompts", "expected-prompts", "asked-of"), "–")
        return nothing | {"wordings": "no other wording"}
    wordings = alike["prompt"].nunique()
    jaccard = [values.to_numpy() for _, values in alike.groupby("concept")["jaccard"]]
    return {
        "shared-prompts": f"{alike['shared'].groupby(alike['concept']).mean().mean():.0f}",
        "jaccard-prompts": words.interval(float(np.mean([v.mean() for v in jaccard])), *cluster_interval(jaccard)),
        "expected-prompts": f"{alike['expected'].mean():.2f}",
        "wordings": f"{wordings} other wording{'s' if wordings > 1 else ''}",
        "asked-of": f"{alike['n_images'].mean():.1f}",
    }
