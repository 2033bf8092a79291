"""What captions lose with whole layers patched, and by what needs no neurons: frames of `experiments.ceiling`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from book.claims.rules import Measurement
from book.style import METHODS, READINGS
from book.words import interval, listed, of_every, told
from kn_core.measures.summaries import contrast, perplexity_limit, summarise
from kn_core.study.experiments.ceiling import ACTIVATION, DIFFERENCE, EVERYTHING, PROJECT_AWAY, WITHOUT, ceiling
from kn_core.study.study import Study

SHOWN = ("suppression", "suppression_probability", "retention_truth", "retention", "retention_probability", "fluent")
LABELS = {
    EVERYTHING: "all neurons",
    ACTIVATION: "all neurons, at the activation alone",
    WITHOUT: "none: the object is taken out of the picture",
    "two-stage": f"the neurons of {METHODS['two-stage'].label}",
    PROJECT_AWAY: "no neurons: ProjectAway",
    DIFFERENCE: "no neurons: difference of means",
}


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`experiments.ceiling.ceiling` of every concept. Raises NotRun where the profile does without."""
    return of_every(ceiling, study, concepts)


def summary(found: pd.DataFrame, limit: float) -> pd.DataFrame:
    """`summarise` of the readings of `SHOWN`, in order of `found`: columns method, metric, value, low, high.

    `limit` is the perplexity above which a caption is not fluent, the book's own (`summaries.perplexity_limit`).
    """
    means = summarise(found, ["method"], perplexity_limit=limit)
    order = {method: place for place, method in enumerate(found["method"].unique())}
    means = means[means["metric"].isin(SHOWN)]
    return means.sort_values("method", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def for_readers(means: pd.DataFrame) -> pd.DataFrame:
    """`summary`, a row a thing that was done."""
    said = means.assign(said=[interval(*ends) for ends in means[["value", "low", "high"]].to_numpy().tolist()])
    wide = said.pivot_table(index="method", columns="metric", values="said", aggfunc="first", sort=False)
    table = wide.reindex(columns=list(SHOWN)).rename(columns={name: READINGS[name].label for name in SHOWN})
    table.insert(0, "patched", [LABELS.get(str(name), f"{name} alone") for name in table.index])
    return table.astype(object).fillna("–").reset_index(drop=True)


def in_words(found: pd.DataFrame, means: pd.DataFrame) -> dict[str, str]:
    """`of_all` and `summary` for sentences."""
    ends = {(row["method"], row["metric"]): _ends(row) for row in means.to_dict("records")}

    def share(method: str, metric: str = "suppression") -> str:
        return interval(*ends[method, metric], "{:z.0%}")

    (gap,) = contrast(found, EVERYTHING, ACTIVATION).query("metric == 'suppression'").to_dict("records")
    lost, low, _ = ends[EVERYTHING, "suppression"]
    own = found[found["method"] == EVERYTHING]
    said = {
        "lost": share(EVERYTHING),
        "lost-probability": share(EVERYTHING, "suppression_probability"),
        "lost-activation": share(ACTIVATION),
        "lost-activation-probability": share(ACTIVATION, "suppression_probability"),
        "lost-two-stage": share("two-stage"),
        "sites": told(gap["low"], gap["high"], "fewer", "more", "not clearly fewer"),
        "kept": share(EVERYTHING, "retention"),
        "kept-without": share(WITHOUT, "retention"),
        "room": _room(lost, low),
        "so": _so(lost, low),
        "pictures": f"{len(own)}",
        "concepts": f"{own['concept'].nunique()}",
    }
    if (PROJECT_AWAY, "suppression") in ends:
        chosen = found.dropna(subset=["layer"]).astype({"layer": int}).groupby("method")["layer"].unique()
        layers = (
            f"{name} in {listed([f'{layer}' for layer in sorted(chosen[name])])}" for name in (PROJECT_AWAY, DIFFERENCE)
        )
        said["bounds"] = f"The layers ({'; '.join(layers)}, by concept)"
    else:
        said["bounds"] = "Neither was tried, as the layers of this decoder cannot be reached. The layers"
    return said


def _ends(row: Mapping[Hashable, Any]) -> tuple[float, float, float]:
    return row["value"], row["low"], row["high"]


def _room(lost: float, low: float) -> str:
    """How much of the name passes where the ceiling was measured."""
    how_much = "Most" if low > 0.5 else "A part" if lost > 0.2 else "Little"
    return f"{how_much} of what names an object passes through neurons at the image tokens"


def _so(lost: float, low: float) -> str:
    """What that says of any set's chances."""
    if low > 0.5:
        return "neurons that hardly suppress when they are patched were not well chosen"
    if lost > 0.2:
        return "neurons that hardly suppress when they are patched may not have been well chosen"
    return "what noise on a few neurons suppresses beyond that is damage, not knowledge"


def measured(study: Study) -> list[Measurement]:
    """S_se with all neurons patched at the product, as a claim of ours asks for it."""
    means = summary(of_all(study, study.studied()), perplexity_limit(study.perturbations()))
    rows = means.query("metric == 'suppression'").to_dict("records")
    by = {row["method"]: row for row in rows}
    return [Measurement("ceiling", *_ends(by[EVERYTHING]), by[EVERYTHING]["n_images"])]
