"""Methods' scores held against the truth: what the logit loses when a neuron is switched off, one at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from book.claims.rules import Measurement
from book.style import METHODS, methods_of
from book.words import interval
from kn_core.measures.stats import estimate
from kn_core.study.experiments.single_neurons import effects, rank_correlation
from kn_core.study.study import Study


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`single_neurons.effects` of every concept."""
    return pd.concat([effects(study, concept) for concept in concepts], ignore_index=True)


def correlations(neurons: pd.DataFrame) -> pd.DataFrame:
    """`rank_correlation` as mean over concepts with its 95 % interval.

    Columns method, over ('all' neurons or those drawn at 'random'), rho, low, high, n_concepts.
    """
    records = []
    found = rank_correlation(neurons).dropna(subset=["rho"])
    for (method, over), rows in found.groupby(["method", "over"], sort=False):
        rho = estimate(rows["rho"])
        records.append((method, over, *rho.ends, rho.n_concepts))
    return pd.DataFrame(records, columns=["method", "over", "rho", "low", "high", "n_concepts"])


def measured(study: Study) -> list[Measurement]:
    """How well stage 2's score ranks neurons by their effect, over all that were switched off."""
    found = correlations(of_all(study, study.studied()))
    rows = found[(found["method"] == "stage-2") & (found["over"] == "all")]
    ends = rows[["rho", "low", "high", "n_concepts"]].itertuples(index=False, name=None)
    return [Measurement("gradient_rank_correlation", *row) for row in ends]


def in_words(neurons: pd.DataFrame, rho: pd.DataFrame) -> dict[str, str]:
    """`of_all` and `correlations` for sentences."""
    one = neurons.drop_duplicates(["concept", "layer", "unit"])
    largest = one.nlargest(1, "effect").to_dict("records")[0]
    by_method = rho[rho["over"] == "all"].set_index("method")
    said = {f"rho-{method}": interval(*by_method.loc[method, ["rho", "low", "high"]]) for method in by_method.index}
    best = str(by_method["rho"].drop(list(methods_of("reference")), errors="ignore").idxmax())
    return said | {
        "ablated": f"{one.groupby('concept').size().median():.0f}",
        "median-effect": f"{one['effect'].abs().median():.3f}",
        "largest-effect": f"{largest['effect']:.2f}",
        "largest-where": f"layer {largest['layer']}, unit {largest['unit']}, for “{largest['concept']}”",
        "best": METHODS[best].label,
        "rho-best": said[f"rho-{best}"],
        "sum-name": METHODS["gradcam-sum"].label,
    }
