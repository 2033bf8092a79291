"""Are the neurons the concept's, or the question's? The same pictures, asked about in other words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kn_core import identification, tables
from kn_core.coco import tokens_inside
from kn_core.neurons import NeuronSet, capture, find_target, identify, image_scores, pool_images
from kn_core.overlap import overlap
from kn_core.stats import cluster_interval
from kn_core.store import code, fingerprint
from kn_core.study import SCORE_CODE, Study

PICTURES = 3  # selection pictures a concept
COLUMNS = ["asked", "n_images", "layer", "unit", "rank", "concept", "prompt"]


def neurons(study: Study, concept: str) -> pd.DataFrame:
    """A concept's best two-stage neurons under each wording, from pictures whose captions name it under both.

    Columns asked ('as in this book', 'in other words'), n_images, layer, unit, rank, concept, prompt (what is after the
    image tokens). Both sets of a wording come from the same pictures and hold the profile's number of neurons; a
    wording under which no caption names the concept has no rows.
    """
    wordings = study.effort.faithfulness.prompts
    inputs = fingerprint(study.inputs(concept), wordings, PICTURES, code(*SCORE_CODE, "prompts"))

    def compute() -> pd.DataFrame:
        found = [_both(study, concept, wording) for wording in wordings]
        return pd.concat([pd.DataFrame(columns=COLUMNS), *(rows for rows in found if len(rows))])

    return study.store.table(f"prompts-{concept}", inputs, compute)


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


def in_words(alike: pd.DataFrame) -> dict[str, str]:
    """`across_prompts` for sentences: means over concepts of the means over wordings, with 95 % intervals."""
    if alike.empty:
        nothing = dict.fromkeys(("shared-prompts", "jaccard-prompts", "expected-prompts", "asked-of"), "–")
        return nothing | {"wordings": "no other wording"}
    wordings = alike["prompt"].nunique()
    jaccard = [values.to_numpy() for _, values in alike.groupby("concept")["jaccard"]]
    return {
        "shared-prompts": f"{alike['shared'].groupby(alike['concept']).mean().mean():.0f}",
        "jaccard-prompts": tables.interval(float(np.mean([v.mean() for v in jaccard])), *cluster_interval(jaccard)),
        "expected-prompts": f"{alike['expected'].mean():.2f}",
        "wordings": f"{wordings} other wording{'s' if wordings > 1 else ''}",
        "asked-of": f"{alike['n_images'].mean():.1f}",
    }


def _both(study: Study, concept: str, wording: str) -> pd.DataFrame:
    settings, model = study.profile.identification, study.model.asking(wording)
    rows = study.pairs(concept).query("role == 'select'").head(PICTURES)
    samples = [study.sample(concept, image_id) for image_id in rows["image_id"]]
    captions = model.caption([sample.image for sample in samples], study.profile.model.max_new_tokens)
    kept, delta, gradcam = [], [], []
    for place, (sample, caption) in enumerate(zip(samples, captions, strict=True)):
        target = find_target(model, caption, concept)
        if target is not None:
            pair = capture(model, sample.image, study.inpainted(sample), caption, target, settings.site)
            maps = study.token_maps(concept, sample.image_id).numpy()
            on_object = tokens_inside(sample.mask, model.grid, maps)
            found = image_scores(pair, settings.over_positions, on_object)
            kept.append(place)
            delta.append(found[0])
            gradcam.append(found[1])
    if not kept:
        return pd.DataFrame(columns=COLUMNS)
    asked = {
        "as in this book": [study.scores(concept)[name][kept] for name in ("delta", "gradcam")],
        "in other words": [np.stack(delta), np.stack(gradcam)],
    }
    frames = []
    for words, scores in asked.items():
        best = _best(study, concept, *(pool_images(each, settings.pooling) for each in scores))
        places = {"layer": best.layers, "unit": best.units, "rank": np.arange(len(best))}
        frames.append(pd.DataFrame({"asked": words, "n_images": len(kept), **places}))
    return pd.concat(frames).assign(concept=concept, prompt=wording)


def _best(study: Study, concept: str, delta: np.ndarray, gradcam: np.ndarray) -> NeuronSet:
    settings = study.profile.identification
    threshold_a = identification.threshold(settings.threshold_a, concept, delta)
    threshold_g = identification.threshold(settings.threshold_g, concept, gradcam)
    return identify(concept, delta, gradcam, threshold_a, threshold_g, settings.rank_by).top(settings.budget)
