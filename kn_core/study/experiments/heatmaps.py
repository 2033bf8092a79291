"""Where in a picture neurons answer: maps over the model's own token grid, kept on disk for a few pictures a concept.

A map is the mean of the neurons' scores at each image token, laid where that token looks (`neurons.heatmap`). The
pictures are ones that chose no neuron, as far as there are any: a map that fits them was not fitted to them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.method.heatmap import heatmap, localise
from kn_core.method.two_stages import NeuronSet, select
from kn_core.pictures.token_grid import cells
from kn_core.study.study import Study

PICTURES = 3  # a concept
SINGLES = 3  # neurons that have maps of their own
# What is mapped: name -> the score that is drawn. The sets are those of `_sets`.
SCORES = {
    "candidates": "delta",  # the strongest after stage 1
    "dropped": "delta",  # the strongest of these that stage 2 drops
    "kept": "delta",  # the best after both stages
    "random": "delta",  # as many others of the same layers
    "kept gradient": "gradcam",
    "random gradient": "gradcam",
}


def scores(study: Study) -> dict[str, str]:
    """`SCORES`, and the best neurons of every rival that the profile runs, by the gradient score of stage 2."""
    return SCORES | {f"{rival} gradient": "gradcam" for rival in study.profile.perturbation.rivals}


def shown(study: Study, concept: str) -> list[str]:
    """The pictures of a concept that have maps: held-out ones, then, where these are few, ones that chose neurons."""
    pairs = study.pairs(concept)
    ids = [*pairs.query("role == 'held_out'")["image_id"], *pairs.query("role == 'select'")["image_id"]]
    return ids[:PICTURES]


def heatmaps(study: Study, concept: str) -> dict[str, np.ndarray]:
    """The concept's maps (pictures, rows, columns) by the names of `scores`, in the order of `shown`.

    `best candidates` and `best kept` (pictures, neurons, rows, columns) are maps of single neurons: the strongest after
    stage 1, by difference, and after both stages, by gradient score.
    """
    inputs = fingerprint(study.inputs(concept), shown(study, concept), code(__name__))
    return study.store.arrays(f"heatmaps-{concept}", inputs, lambda: _heatmaps(study, concept))


def localisation(study: Study, concepts: list[str]) -> pd.DataFrame:
    """How well each map lies on the object (`localisation.localise`), a row a picture and map.

    Columns concept, image_id, map, iou, pointing, inside, area (the mask's share of the picture).
    """
    rows = []
    for concept in concepts:
        maps = heatmaps(study, concept)
        for place, image_id in enumerate(shown(study, concept)):
            mask = study.sample(concept, image_id).mask
            for name in scores(study):
                heat = maps[name][place]
                found = localise(heat, cells(mask, heat.shape))
                rows.append({"concept": concept, "image_id": image_id, "map": name, **found, "area": mask.mean()})
    return pd.DataFrame(rows)


def _heatmaps(study: Study, concept: str) -> Mapping[str, np.ndarray]:
    sets, drawn = _sets(study, concept), scores(study)
    singles = {"best candidates": ("candidates", "delta"), "best kept": ("kept", "gradcam")}
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*drawn, *singles)}
    for image_id in shown(study, concept):
        pair = study.capture(concept, image_id)
        score, grid = {"delta": pair.delta, "gradcam": pair.gradcam}, study.model.grid
        tokens = study.token_maps(concept, image_id)  # (P, cells)
        for name, which in drawn.items():
            found[name].append(heatmap(score[which], sets[name.split()[0]], grid, tokens))
        for name, (chosen, which) in singles.items():
            best = sets[chosen].top(SINGLES)
            ones = score[which].numpy()[best.layers, :, best.units] @ tokens.numpy()  # (n, cells)
            found[name].append(ones.reshape(-1, *grid))
    return {name: np.stack(maps) for name, maps in found.items()}


def _sets(study: Study, concept: str) -> dict[str, NeuronSet]:
    """The strongest candidates, dropped and kept neurons, as many of each as the profile's budget, and random ones."""
    budget, pooled, threshold = study.profile.identification.budget, study.pooled(concept), study.thresholds(concept)
    candidates = pooled["delta"] > threshold["delta"]
    dropped = candidates & (pooled["gradcam"] <= threshold["gradcam"])
    kept = study.neuron_set(concept).top(budget)
    return {
        "candidates": select(concept, "stage-1", candidates, pooled["delta"], budget),
        "dropped": select(concept, "dropped", dropped, pooled["delta"], budget),
        "kept": kept,
        "random": study.neuron_set(concept, "random").top(len(kept)),
    } | {rival: study.neuron_set(concept, rival).top(budget) for rival in study.profile.perturbation.rivals}
