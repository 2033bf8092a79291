"""Rules for thresholds where the truth is known: neurons that answer to an object, planted among many that do not."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kn_core.method.thresholds import Scores, rules
from kn_core.settings import Rules

NEURONS, TRUE, PICTURES = 4608, 40, 10
FACTORS, LOADING = 5, 0.35  # what moves many neurons at once, in every picture otherwise
EFFECT = 2.0, 4.0  # range of what the object adds, in standard deviations of a neuron's difference
SIZES = 0.4  # spread of the neurons' sizes, of their logarithm
DRAWS = 20
COMMON = 1.0  # what any change adds to every score, as a maximum over positions does


def planted(seed: int) -> tuple[Scores, Scores, np.ndarray]:
    """Scores with object and decoy taken out, (N, p) each, and which neurons are the object's, (p,) bool."""
    rng = np.random.default_rng(seed)
    true = rng.permutation(NEURONS) < TRUE

    def scores() -> np.ndarray:
        factors = rng.normal(size=(PICTURES, FACTORS)) @ rng.normal(scale=LOADING, size=(FACTORS, NEURONS))
        own = rng.normal(scale=np.sqrt(1 - FACTORS * LOADING**2), size=(PICTURES, NEURONS))
        noise: np.ndarray = (factors + own) / np.sqrt(2)  # so that a difference has unit variance
        return noise

    size = rng.lognormal(sigma=SIZES, size=NEURONS)
    d = COMMON + scores() + true * rng.uniform(*EFFECT, size=NEURONS)
    return size * d, size * (COMMON + scores()), true


def held(settings: Rules, quantile: float, draws: int = DRAWS) -> pd.DataFrame:
    """What the rules do on planted truth: columns draw, rule, candidates, false, estimated, found (of the true).

    False is a share, 0 where a rule keeps nothing, as in the false discovery rate. Halves choose as many neurons as
    there are true ones.
    """
    settings, rows = settings.model_copy(update={"best": TRUE, "flips": min(settings.flips, 50)}), []
    for draw in range(draws):
        d, e, true = planted(draw)
        for name, found in rules(d, e, settings, quantile, draw).items():
            kept = int(found.kept.sum())
            false, hits = int((found.kept & ~true).sum()) / max(1, kept), int((found.kept & true).sum()) / TRUE
            rows.append((draw, name, kept, false, found.false_share, hits))
    return pd.DataFrame(rows, columns=["draw", "rule", "candidates", "false", "estimated", "found"])
