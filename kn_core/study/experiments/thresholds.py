"""Would other choices have found better neurons? Each stage on and off, and both thresholds over a grid.

A set of neurons is what a pair of thresholds leaves; a stage is off where its threshold is -inf. All of a set is
disturbed in the profile's main setting, first seed, on a few pictures of the concept that chose no neurons, and pairs
of thresholds that leave the same neurons are tried once. The paper sets its thresholds by hand, an object at a time
(Table IV), and tries neither.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from itertools import product

import numpy as np
import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.measures.metrics import headline, per_image
from kn_core.method import perturbation, protocol
from kn_core.method.two_stages import NeuronSet, select, stage_1, stage_2
from kn_core.study.study import Study, StudyError

ARMS = ("uniform", "stage-1", "stage-2", "two-stage")


BUDGET, OWN = "equal numbers", "own thresholds"  # what the arms have in common, or each for itself
SCALES = ("quantile", "raw")
METRICS = ("suppression", "retention", "fluent")


Limits = tuple[float, float]  # threshold_a, threshold_g


def ablation(study: Study, concept: str) -> pd.DataFrame:
    """The 2 x 2 of stages on and off: rows of `perturbations.parquet`, own held-out pictures, with a column `at`.

    At `BUDGET` every arm of `ARMS` has the profile's number of neurons; these rows are the perturbations' own. At `OWN`
    it has all that its thresholds leave, `n` of them; where neither stage filters there is no set to speak of.
    """
    rows = headline(study.perturbations(concept), study.effort)
    rows = rows[rows["concept"] == rows["image_concept"]]
    if missing := set(ARMS).difference(rows["method"]):
        raise StudyError(
            f"The ablation needs the methods {', '.join(sorted(missing))}. Add them to the profile's "
            "perturbation.rivals (stage-1, stage-2) and perturbation.controls (uniform)."
        )
    sets, tried = _sets(study, concept), _tried(study, concept)
    own = [tried[tried["method"] == sets[limits].method].assign(method=arm) for arm, limits in _own(study, concept)]
    at_budget = rows[rows["method"].isin(ARMS)].assign(at=BUDGET)
    return pd.concat([at_budget, pd.concat(own).assign(at=OWN)], ignore_index=True)


def grid(study: Study, concept: str, *, perplexity_limit: float = math.inf) -> pd.DataFrame:
    """Both grids of `effort.sensitivity`, a row a cell: what passes both thresholds, and what noise on all of it does.

    Columns concept, scale ('quantile' of the pooled scores, or 'raw'), a, g (the cell's steps on that scale),
    threshold_a, threshold_g, quantile_a, quantile_g, n_neurons, suppression, retention, fluent (means over the
    pictures), n_images. A cell that leaves no neuron has no effect to speak of: NaN.
    """
    frame, sets, tried = _cells(study, concept), _sets(study, concept), _tried(study, concept)
    of_cell = [sets[limits] for limits in zip(frame["threshold_a"], frame["threshold_g"], strict=True)]
    frame["n_neurons"] = [len(neurons) for neurons in of_cell]
    images = per_image(tried, ["method"], perplexity_limit=perplexity_limit)
    means = images.pivot_table(index="method", columns="metric", values="value").reindex(columns=list(METRICS))
    means["n_images"] = tried.groupby("method")["image_id"].nunique()
    return frame.join(means.reindex([neurons.method for neurons in of_cell]).set_axis(frame.index))


def _cells(study: Study, concept: str) -> pd.DataFrame:
    """The cells of both grids, without what came of them."""
    settings, pooled = study.effort.sensitivity, study.pooled(concept)
    delta, gradcam = pooled["delta"], pooled["gradcam"]
    steps = {"quantile": (settings.quantiles_a, settings.quantiles_g), "raw": (settings.raw_a, settings.raw_g)}
    rows = []
    for scale in SCALES:
        for a, g in product(*steps[scale]):
            limits = (float(np.quantile(delta, a)), float(np.quantile(gradcam, g))) if scale == "quantile" else (a, g)
            shares = [float((score <= limit).mean()) for score, limit in zip((delta, gradcam), limits, strict=True)]
            rows.append((concept, scale, a, g, *limits, *shares))
    columns = ["concept", "scale", "a", "g", "threshold_a", "threshold_g", "quantile_a", "quantile_g"]
    return pd.DataFrame(rows, columns=columns)


def _own(study: Study, concept: str) -> list[tuple[str, Limits]]:
    """The arms that filter, with the thresholds of our Table IV; a stage that is off lets everything pass."""
    found = study.thresholds(concept)
    a, g = found["delta"], found["gradcam"]
    return [("stage-1", (a, -math.inf)), ("stage-2", (-math.inf, g)), ("two-stage", (a, g))]


def _sets(study: Study, concept: str) -> dict[Limits, NeuronSet]:
    """What each pair of thresholds leaves. Its method is named after its neurons: the same ones have the same name."""
    pooled, cells = study.pooled(concept), _cells(study, concept)
    ranked = pooled[study.profile.identification.rank_by]
    found = {}
    for limits in [*zip(cells["threshold_a"], cells["threshold_g"], strict=True), *dict(_own(study, concept)).values()]:
        left = stage_2(stage_1(pooled["delta"], limits[0]), pooled["gradcam"], limits[1])
        found[limits] = select(concept, fingerprint(np.flatnonzero(left).tolist()), left, ranked)
    return found


def _tried(study: Study, concept: str) -> pd.DataFrame:
    """Captions under the main noise on every set that has neurons, each once; `method` is the set's name."""
    settings = study.effort
    main = protocol.main_setting(settings.perturbation, settings.identification)
    sets = {neurons.method: neurons for neurons in _sets(study, concept).values() if len(neurons)}
    most = settings.sensitivity.pictures
    ids = study.pairs(concept).query("role == 'held_out'")["image_id"].head(most).tolist()

    def compute() -> pd.DataFrame:
        planned = [perturbation.Trial(neurons, replace(main, n=len(neurons)), "own") for neurons in sets.values()]
        mean = study.mean_activation(without=concept) if main.intervention == "mean" else None
        pictures = study.pictures(concept, "held_out", most)
        return perturbation.run(study.model, pictures, planned, mean, settings.model.max_new_tokens)

    name = f"sensitivity-{concept}" + ("-full" if settings != study.profile else "")
    inputs = fingerprint(study.inputs(concept), asdict(main), sorted(sets), ids, code(__name__))
    return study.store.table(name, inputs, compute)
