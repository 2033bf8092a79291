"""Captions with a set patched, whole and without the neurons that carry language itself (`curves.collapse`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.method import perturbation
from kn_core.method.interventions import Setting
from kn_core.method.perturbation import Trial
from kn_core.method.two_stages import select
from kn_core.study.experiments import attribution
from kn_core.study.experiments.curves import COLLAPSE, SPARED, collapse
from kn_core.study.study import Study


def spared(study: Study, concept: str) -> pd.DataFrame:
    """Rows as in `perturbations.parquet`, on the held-out pictures of the curves; none where no neuron is flagged.

    `method` is a set of the budget's size, 'two-stage' or 'atp', and the same with ', spared' without what is flagged.
    """
    each = collapse(study, concept)
    flagged = each[each["ratio"] >= COLLAPSE]
    pictures, scored = study.effort.ceiling.curve_pictures, study.profile.choices.scored
    carriers = (flagged["layer"] * study.pooled(concept)["delta"].shape[1] + flagged["unit"]).tolist()
    if not carriers:
        return pd.DataFrame(columns=["method", "concept", "target_present"])

    def compute() -> pd.DataFrame:
        budget, score = study.profile.identification.budget, attribution.pooled(study, concept)["atp"]
        can_act = np.ones(score.shape, bool)
        can_act[-1] = False
        planned = []
        for best in (study.neuron_set(concept).top(budget), select(concept, "atp", can_act, score, budget)):
            left = best.where(~np.isin(best.layers * score.shape[1] + best.units, carriers))
            setting = Setting("patch", "image", budget, np.nan, 0, "product")
            planned += [
                Trial(each, setting, "own") for each in (best, replace(left, method=f"{best.method}, {SPARED}"))
            ]
        shown = study.pictures(concept, "held_out", pictures)
        return perturbation.run(study.model, shown, planned, None, study.profile.model.max_new_tokens)

    inputs = fingerprint(study.inputs(concept), scored, pictures, carriers, code(__name__))
    return study.store.table(f"spared-{concept}", inputs, compute)
