"""A study's neurons, switched off one at a time on pictures that chose none: the truth that scores are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kn_core import overlap, tables
from kn_core.claims import Measurement
from kn_core.faithfulness import ablate, beside_scores, candidates_to_ablate, rank_correlation
from kn_core.identification import RANKED_BY
from kn_core.stats import cluster_interval
from kn_core.store import code, fingerprint
from kn_core.study import Study

# Scores that belong to no method, for reference.
REFERENCE = {"gradcam-sum": "stage 2's score, summed over tokens", "activation": "mean activation"}
CODE = ("ablations", "faithfulness", "models", "hooks", "neurons")


def scores(study: Study, concept: str) -> dict[str, np.ndarray]:
    """What is held against the effect, pooled over selection pictures, (L, D) each: methods' scores, two for reference.

    `gradcam-sum` is the first-order estimate of the very effect; `activation` knows nothing of the concept. The
    two-stage method's score is that of stage 2, and NaN where a neuron does not pass both thresholds.
    """
    pooled, threshold = study.pooled(concept), study.thresholds(concept)
    passes = (pooled["delta"] > threshold["delta"]) & (pooled["gradcam"] > threshold["gradcam"])
    rivals = {name: pooled[key] for name, key in RANKED_BY.items() if name in study.profile.perturbation.rivals}
    reference = {"gradcam-sum": pooled["gradcam-sum"], "activation": pooled["activation"]}
    return {"two-stage": np.where(passes, pooled["gradcam"], np.nan)} | rivals | reference


def effects(study: Study, concept: str) -> pd.DataFrame:
    """Exact effects of single neurons: columns concept, layer, unit, stratum, effect, method, score.

    `effect` is what the concept's logit loses without the neuron at the image tokens, mean over held-out pictures.
    """
    settings = study.effort.faithfulness
    inputs = fingerprint(study.inputs(concept), settings.model_dump(), code(*CODE))

    def compute() -> pd.DataFrame:
        held = scores(study, concept)
        rng = np.random.default_rng(study.profile.data.seed)
        chosen = candidates_to_ablate(held, settings.per_method, settings.random, rng)
        layers, units = chosen["layer"].to_numpy(), chosen["unit"].to_numpy()
        pictures = study.pictures(concept, "held_out", settings.pictures)
        found = [ablate(study.model, one.prompt, one.caption, one.target, layers, units) for one in pictures]
        return beside_scores(chosen, np.mean(found, axis=0), held).assign(concept=concept)

    return study.store.table(f"ablations-{concept}", inputs, compute)


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
    rho = {f"rho-{row['method']}": tables.interval(row["rho"], row["low"], row["high"]) for row in overall}
    best = max((row for row in overall if row["method"] not in REFERENCE), key=lambda row: row["rho"])["method"]
    return rho | {
        "ablated": f"{one.groupby('concept').size().median():.0f}",
        "median-effect": f"{one['effect'].abs().median():.3f}",
        "largest-effect": f"{largest['effect']:.2f}",
        "largest-where": f"layer {largest['layer']}, unit {largest['unit']}, for “{largest['concept']}”",
        "best": tables.METHODS[best],
        "rho-best": rho[f"rho-{best}"],
        "sum-name": REFERENCE["gradcam-sum"],
    }


def localised(found: pd.DataFrame, maps: Mapping[str, str]) -> pd.DataFrame:
    """`heatmaps.localisation` for a reader: a row a map, its three readings as means over concepts with intervals."""
    readings = {"iou": "IoU", "pointing": "pointing", "inside": "on the object"}
    shown = []
    for name, words in maps.items():
        row = {"map of": words}
        for column, heading in readings.items():
            rows = found[found["map"] == name].dropna(subset=[column])
            clusters = [values.to_numpy(float) for _, values in rows.groupby("concept")[column]]
            row[heading] = tables.interval(float(np.mean([c.mean() for c in clusters])), *cluster_interval(clusters))
        shown.append(row)
    return pd.DataFrame(shown)


def across_images(study: Study, concepts: Sequence[str], budget: int) -> pd.DataFrame:
    """Best neurons of single pictures by the score of stage 2, pair by pair: `overlap.across_images`, and concept."""
    frames = [overlap.across_images(study.scores(name)["gradcam"], budget).assign(concept=name) for name in concepts]
    return pd.concat(frames, ignore_index=True)


def overlap_in_words(alike: pd.DataFrame) -> dict[str, str]:
    """`across_images` for sentences: medians over pairs of pictures of a concept, then over concepts."""
    by = alike.groupby("concept")[["shared", "jaccard", "expected"]].median().median()
    return {
        "shared-images": f"{by['shared']:g}",
        "jaccard-images": f"{by['jaccard']:.2f}",
        "expected-images": f"{by['expected']:.2f}",
    }
