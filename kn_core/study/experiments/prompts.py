"""Are the neurons the concept's, or the question's? The same pictures, asked about in other words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.method import identification
from kn_core.method.capture import find_target
from kn_core.method.two_stages import NeuronSet, identify, pool_images
from kn_core.study.study import Study

PICTURES = 2  # selection pictures a concept
COLUMNS = ["asked", "n_images", "layer", "unit", "rank", "concept", "prompt"]


def neurons(study: Study, concept: str) -> pd.DataFrame:
    """A concept's best two-stage neurons under each wording, from pictures whose captions name it under both.

    Columns asked ('as in this book', 'in other words'), n_images, layer, unit, rank, concept, prompt (what is after the
    image tokens). Both sets of a wording come from the same pictures and hold the profile's number of neurons; a
    wording under which no caption names the concept has no rows.
    """
    wordings = study.effort.faithfulness.prompts
    inputs = fingerprint(study.inputs(concept), wordings, PICTURES, code(__name__))

    def compute() -> pd.DataFrame:
        found = [_both(study, concept, wording) for wording in wordings]
        return pd.concat([pd.DataFrame(columns=COLUMNS), *(rows for rows in found if len(rows))])

    return study.store.table(f"prompts-{concept}", inputs, compute)


def _both(study: Study, concept: str, wording: str) -> pd.DataFrame:
    settings, model = study.profile.identification, study.model.asking(wording)
    rows = study.pairs(concept).query("role == 'select'").head(PICTURES)
    samples = [study.sample(concept, image_id) for image_id in rows["image_id"]]
    captions = model.caption([sample.image for sample in samples], study.profile.model.max_new_tokens)
    kept, scored = [], []
    for place, (sample, caption) in enumerate(zip(samples, captions, strict=True)):
        target = find_target(model, caption, concept)
        if target is not None:
            pictures, maps = (sample.image, study.inpainted(sample)), study.token_maps(concept, sample.image_id)
            _, found = identification.score_pair(model, *pictures, caption, target, sample.mask, maps, settings)
            kept.append(place)
            scored.append(found)
    if not kept:
        return pd.DataFrame(columns=COLUMNS)
    stages = ("delta", "gradcam")
    asked = {
        "as in this book": [study.scores(concept)[name][kept] for name in stages],
        "in other words": [np.stack([found[name] for found in scored]) for name in stages],
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
