"""What S_se and S_re are of nothing done, of the object's removal itself, and of another concept's caption.

No method can be judged without them: removal is the best that suppression can be, and its S_re is below 1, as a caption
without the object may tell the rest in other words; a caption of something else shares words by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from book.style import METHODS, READINGS
from book.words import interval, listed
from kn_core.measures.metrics import repetition, retention
from kn_core.measures.summaries import summarise
from kn_core.measures.truth import truth_retention


def references(perturbations: pd.DataFrame) -> pd.DataFrame:
    """Rows as of a perturbation, of held-out pictures: methods 'nothing' and 'removal'; none where it was not tried."""
    removal = perturbations[(perturbations["intervention"] == "removal") & perturbations["heldout"]]
    clean, same = removal["clean_caption"], {"target_present": True, "retained_probability": 1.0}
    nothing = removal.assign(method="nothing", caption=clean, repetition=clean.map(repetition), **same)
    nothing["target_probability"], nothing["perplexity"] = removal["clean_probability"], removal["clean_perplexity"]
    for reading in ("retained", "retained_truth"):
        nothing[reading] = removal[reading].where(removal[reading].isna(), 1.0)
    return pd.concat([nothing, removal], ignore_index=True)


def chance(perturbations: pd.DataFrame) -> pd.DataFrame:
    """Rows of method 'chance': every picture with every caption of another concept's picture for its own."""
    removal = references(perturbations).query("method == 'removal'").reset_index(drop=True)
    said = pd.DataFrame({"of": removal["concept"], "caption": removal["clean_caption"], "seed": removal.index})
    said = said.assign(method="chance", perplexity=removal["clean_perplexity"])
    said["repetition"] = removal["clean_caption"].map(repetition)
    rows = removal.drop(columns=said.columns.drop("of")).merge(said, how="cross").query("concept != of")
    texts = rows[["clean_caption", "caption", "concept", "truths"]].itertuples(index=False, name=None)
    kept = [
        (retention(clean, caption, concept), truth_retention([one for one in truths.split(", ") if one], caption))
        for clean, caption, concept, truths in texts
    ]
    rows[["retained", "retained_truth"]] = np.array(kept).reshape(-1, 2)
    return rows.assign(target_present=False, target_probability=np.nan, retained_probability=np.nan)


def bounds(perturbations: pd.DataFrame, limit: float, images: Collection[str] | None = None) -> pd.DataFrame:
    """`summaries.summarise` of all three, for tables and figures: columns method, metric, value, low, high and so on.

    Of `images` alone, where what they stand beside was not tried on every held-out picture.
    """
    rows = pd.concat([references(perturbations), chance(perturbations)], ignore_index=True)
    rows = rows if images is None else rows[rows["image_id"].isin(images)]
    if rows.empty:
        return pd.DataFrame(columns=["method", "metric", "value", "low", "high", "n_images", "n_concepts"])
    return summarise(rows, ["method"], perplexity_limit=limit)


def known(perturbations: pd.DataFrame, limit: float) -> pd.DataFrame:
    """`bounds`; where removal was not tried, nothing done and another concept's caption, which clean captions tell."""
    found = bounds(perturbations, limit)
    if len(found):
        return found
    own = perturbations[perturbations["heldout"] & (perturbations["concept"] == perturbations["image_concept"])]
    once = own.drop_duplicates("image_id").assign(method="removal", intervention="removal", n=0, sigma=np.nan)
    return bounds(once, limit).query("method != 'removal'")


def for_readers(
    found: pd.DataFrame, metrics: Sequence[str], named: str, headings: Sequence[str] | None = None
) -> pd.DataFrame:
    """`bounds` for the foot of a table: what it is under the heading `named`, then the readings by their labels.

    `headings`: what the table calls the readings, where these are no labels of theirs.
    """
    headings = headings or [READINGS[metric].label for metric in metrics]
    ends = {(row["method"], row["metric"]): (row["value"], row["low"], row["high"]) for row in found.to_dict("records")}
    rows = [
        [METHODS[method].label, *(interval(*ends.get((method, metric), (np.nan,) * 3)) for metric in metrics)]
        for method in METHODS
        if method in set(found["method"])
    ]
    return pd.DataFrame(rows, columns=[named, *headings])


def beside(found: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """`for_readers` turned, for a table with a row a reading: a row for each of `metrics`, a column for each bound."""
    return for_readers(found, metrics, "reading").set_index("reading").T.rename_axis(columns=None)


def values(found: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """'1.00 and 0.55' for each bound by its label: some metrics of it, where there is no room for more."""
    wide = found.pivot_table(index="method", columns="metric", values="value").reindex(columns=list(metrics))
    told = {name: ["–" if np.isnan(value) else f"{value:.2f}" for value in row] for name, *row in wide.itertuples()}
    return {METHODS[name].label: listed(told[name]) for name in METHODS if name in told}


def in_words(found: pd.DataFrame, kept: str) -> str:
    """S_se and S_re, as `kept` reads it, of each bound in a sentence; '' where none is known."""
    said = [f"{what}, {both}" for what, both in values(found, ("suppression", kept)).items()]
    return f"Suppression and retention without a neuron disturbed: {'; '.join(said)}." if said else ""
