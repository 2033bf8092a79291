"""Would other choices have found better neurons? Each stage on and off, and both thresholds over a grid.

A set of neurons is what a pair of thresholds leaves; a stage is off where its threshold is -inf. All of a set is
disturbed in the profile's main setting, first seed, on a few pictures of the concept that chose no neurons, and pairs
of thresholds that leave the same neurons are tried once. The paper sets its thresholds by hand, an object at a time
(Table IV), and tries neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import product

import numpy as np
import pandas as pd

from kn_core import perturb, protocol
from kn_core.evidence import headline
from kn_core.metrics import per_image, with_intervals
from kn_core.neurons import NeuronSet, select, stage_1, stage_2
from kn_core.store import code, fingerprint
from kn_core.study import PERTURB_CODE, Study, StudyError
from kn_core.tables import interval

ARMS = ("uniform", "stage-1", "stage-2", "two-stage")
STAGES = dict(zip(ARMS, ("neither", "stage 1 alone", "stage 2 alone", "both"), strict=True))
BUDGET, OWN = "equal numbers", "own thresholds"  # what the arms have in common, or each for itself
SCALES = ("quantile", "raw")
METRICS = ("suppression", "retention", "fluent")
ENDS = ["value", "low", "high"]

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


def effects(ablation: pd.DataFrame, *, perplexity_limit: float = math.inf) -> pd.DataFrame:
    """Every arm with intervals: columns at, method, neurons (mean), metric, value, low, high, n_images, n_concepts."""
    images = per_image(ablation, ["at", "method", "n"], perplexity_limit=perplexity_limit)
    found = with_intervals(images[images["metric"].isin(METRICS)], ["at", "method"])
    neurons = ablation.groupby(["at", "method", "concept"])["n"].first().groupby(["at", "method"]).mean()
    return found.join(neurons.rename("neurons"), on=["at", "method"])


def gains(ablation: pd.DataFrame, *, perplexity_limit: float = math.inf) -> pd.DataFrame:
    """What a stage adds, image by image: columns at, gain, metric, value, low, high, n_images, n_concepts.

    'together' is the interaction: both stages' gain over neither, beyond the sum of what each brings alone.
    """
    images = per_image(ablation, ["at", "method", "n"], perplexity_limit=perplexity_limit)
    images = images[images["metric"].isin(METRICS)]
    index = ["at", "image_concept", "image_id", "metric"]
    wide = images.pivot_table(index=index, columns="method", values="value").reindex(columns=list(ARMS))
    neither, first, second, both = (wide[arm] for arm in ARMS)
    differences = {
        "stage 1 to neither": first - neither,
        "stage 2 to neither": second - neither,
        "stage 2 to stage 1": both - first,
        "stage 1 to stage 2": both - second,
        "together": both - first - second + neither,
    }
    long = pd.DataFrame(differences).reset_index().melt(id_vars=index, var_name="gain").dropna(subset="value")
    return with_intervals(long, ["at", "gain"])


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


def for_readers(effects: pd.DataFrame) -> pd.DataFrame:
    """`effects` as a table: a row an arm, its metrics with intervals as text."""
    names = {"suppression": "Sₛₑ", "retention": "Sᵣₑ", "fluent": "fluent captions"}
    rows = []
    for at, method in product((BUDGET, OWN), ARMS):
        of_arm = effects[(effects["at"] == at) & (effects["method"] == method)].set_index("metric")
        if len(of_arm):
            shown = {words: interval(*of_arm.loc[metric, ENDS]) for metric, words in names.items()}
            rows.append({"stages": STAGES[method], "with": at, "neurons": of_arm["neurons"].iloc[0], **shown})
    return pd.DataFrame(rows)


def in_words(effects: pd.DataFrame, gains: pd.DataFrame) -> dict[str, str]:
    """Both frames for sentences: 'neurons-stage-1', 'suppression-stage-1', ...; what each stage does, in words.

    'added-1' is what stage 1 changes where stage 2 is on already, 'added-2' the other way round, 'together' the
    interaction; with '-own' at the end, at each arm's own thresholds.
    """
    words: dict[str, str] = {}
    for at, suffix in ((BUDGET, ""), (OWN, "-own")):
        here = effects[effects["at"] == at]
        words |= {f"neurons-{row['method']}{suffix}": f"{row['neurons']:,.0f}" for row in here.to_dict("records")}
        for row in here.to_dict("records"):
            words[f"{row['metric']}-{row['method']}{suffix}"] = f"{row['value']:.2f}"
        found = gains[gains["at"] == at].set_index(["gain", "metric"])
        for name, gain in (("added-1", "stage 1 to stage 2"), ("added-2", "stage 2 to stage 1")):
            words[f"{name}{suffix}"] = _changes(
                {metric: found.loc[(gain, metric), ENDS].to_numpy(float) for metric in METRICS[:2]}
            )
    together = gains[(gains["gain"] == "together") & (gains["metric"] == "suppression")]
    value, low, high = together[ENDS].iloc[0]
    how = "more than" if low > 0 else "less than" if high < 0 else "not clearly more or less than"
    return words | {"together": f"{how} ({_spread(value, low, high)})"}


def _changes(found: Mapping[str, np.ndarray]) -> str:
    """'raises suppression (+0.21, ...) and makes no clear difference to retention (...)', from (value, low, high)."""
    by: dict[str, list[str]] = {}
    for metric, (value, low, high) in found.items():
        verb = "raises" if low > 0 else "lowers" if high < 0 else "makes no clear difference to"
        by.setdefault(verb, []).append(f"{metric} ({_spread(value, low, high)})")
    return " and ".join(f"{verb} {' and '.join(metrics)}" for verb, metrics in by.items())


def _spread(value: float, low: float, high: float) -> str:
    if np.isnan(low) or np.isnan(high):
        return f"{value:+.2f}, too few pictures for an interval"
    return f"{value:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}"


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
    main = protocol.main_setting(settings.perturbation, settings.identification.budget)
    sets = {neurons.method: neurons for neurons in _sets(study, concept).values() if len(neurons)}
    most = settings.sensitivity.pictures
    ids = study.pairs(concept).query("role == 'held_out'")["image_id"].head(most).tolist()

    def compute() -> pd.DataFrame:
        planned = [perturb.Trial(neurons, replace(main, n=len(neurons)), "own") for neurons in sets.values()]
        mean = study.mean_activation(without=concept) if main.intervention == "mean" else None
        tokens, site = settings.model.max_new_tokens, settings.identification.site
        return perturb.run(study.model, study.pictures(concept, "held_out", most), planned, mean, tokens, site)

    name = f"sensitivity-{concept}" + ("-full" if settings != study.profile else "")
    inputs = fingerprint(study.inputs(concept), asdict(main), sorted(sets), ids, code(*PERTURB_CODE))
    return study.store.table(name, inputs, compute)
