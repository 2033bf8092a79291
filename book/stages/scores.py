"""Both stages neuron by neuron, as one tidy frame: what the pages on stages 1 and 2 are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kn_core.study.study import Study


def both_stages(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """Every neuron of every concept: both pooled scores, and whether it passes. L * D rows a concept.

    Columns: concept, layer, unit, delta, gradcam, share (of the concept's selection pictures in which it passes stage
    1), candidate (passes stage 1), carries (is above stage 2's threshold), kept (passes both).
    """
    return pd.concat([_both_stages(study, concept) for concept in concepts], ignore_index=True)


def _both_stages(study: Study, concept: str) -> pd.DataFrame:
    pooled, threshold = study.pooled(concept), study.thresholds(concept)
    delta = study.scores(concept)["delta"]  # (N, L, D)
    layers, units = np.indices(delta.shape[1:])
    frame = pd.DataFrame({"concept": concept, "layer": layers.ravel(), "unit": units.ravel()})
    frame["delta"], frame["gradcam"] = pooled["delta"].ravel(), pooled["gradcam"].ravel()
    frame["share"] = (delta > threshold["delta"]).mean(axis=0).ravel()
    frame["candidate"] = frame["delta"] > threshold["delta"]
    frame["carries"] = frame["gradcam"] > threshold["gradcam"]
    frame["kept"] = frame["candidate"] & frame["carries"]
    return frame
