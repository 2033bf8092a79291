"""Methods' scores held against the truth: what the logit loses when a neuron is switched off, one at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from scipy.stats import spearmanr

from book.claims.rules import Measurement
from book.style import METHODS, methods_of
from book.words import NotRun, interval, of_every
from kn_core.measures.stats import GAP, estimate
from kn_core.study.experiments.single_neurons import effects, rank_correlation
from kn_core.study.study import Study


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`single_neurons.effects` of every concept. Raises NotRun for a decoder whose neurons cannot be taken singly."""
    return of_every(effects, study, concepts)


def correlations(neurons: pd.DataFrame) -> pd.DataFrame:
    """`rank_correlation` as mean over concepts with its 95 % interval.

    Columns method, over ('all' neurons or those drawn at 'random'), rho, low, high, n_concepts.
    """
    records = []
    found = rank_correlation(neurons).dropna(subset=["rho"])
    for (method, over), rows in found.groupby(["method", "over"], sort=False):
        rho = estimate(rows["rho"], within=GAP)
        records.append((method, over, *rho.ends, rho.n_concepts))
    return pd.DataFrame(records, columns=["method", "over", "rho", "low", "high", "n_concepts"])


def within(neurons: pd.DataFrame) -> pd.DataFrame:
    """What `of_all` says within the two-stage neurons alone, those that pass both thresholds: a row a concept.

    Columns concept, rho (Spearman's correlation of score and effect; NaN for fewer than three), helps (share of those
    that can act without which the word's logit is lower), n.
    """
    own = neurons[(neurons["method"] == "two-stage") & neurons["score"].notna() & (neurons["effect"] != 0)]
    records = []
    for concept, rows in own.groupby("concept", sort=False):
        rho = float(spearmanr(rows["score"], rows["effect"]).statistic) if len(rows) > 2 else math.nan
        records.append((concept, rho, float((rows["effect"] > 0).mean()), len(rows)))
    return pd.DataFrame(records, columns=["concept", "rho", "helps", "n"])


def measured(study: Study) -> list[Measurement]:
    """How well the gradient score tells the effect of the neurons that the method chose: by rank, and by sign."""
    try:
        found = within(of_all(study, study.studied()))
    except NotRun:
        return []
    of = {
        "gradient_rank_within": estimate(found["rho"].dropna(), within=GAP),
        "gradient_sign_within": estimate(found["helps"]),
    }
    return [Measurement(name, *each.ends, int(found["n"].sum())) for name, each in of.items()]


def in_words(neurons: pd.DataFrame, rho: pd.DataFrame) -> dict[str, str]:
    """`of_all`, `correlations` and `within` for sentences."""
    own = within(neurons)
    one = neurons.drop_duplicates(["concept", "layer", "unit"])
    largest = one.nlargest(1, "effect").to_dict("records")[0]
    by_method = rho[rho["over"] == "all"].set_index("method")
    said = {f"rho-{method}": interval(*by_method.loc[method, ["rho", "low", "high"]]) for method in by_method.index}
    drawn = rho[rho["over"] == "random"].set_index("method")
    said |= {f"rho-{method}-random": interval(*drawn.loc[method, ["rho", "low", "high"]]) for method in drawn.index}
    scored = neurons.groupby("method")["score"].count()
    of_all_neurons = by_method["rho"][scored.reindex(by_method.index) == scored.max()]
    inside = estimate(own["rho"].dropna(), within=GAP)
    best = str(of_all_neurons.drop(list(methods_of("reference")), errors="ignore").idxmax())
    return said | {
        "ablated": f"{one.groupby('concept').size().median():.0f}",
        "median-effect": f"{one['effect'].abs().median():.3f}",
        "largest-effect": f"{largest['effect']:.2f}",
        "largest-where": f"layer {largest['layer']}, unit {largest['unit']}, for “{largest['concept']}”",
        "best": METHODS[best].label,
        "rho-best": said[f"rho-{best}"],
        "sum-name": METHODS["gradcam-sum"].label,
        "rho-within": interval(*inside.ends),
        "stretched": "less than" if inside.value < float(by_method["rho"]["stage-2"]) else "no less than",
        "helps": f"{own['helps'].mean():.0%}",
        "within": f"{own['n'].sum()}",
    }
