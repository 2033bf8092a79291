"""What S_se and S_re are of nothing done, of the object's removal itself, and of another concept's caption.

No method can be judged without them: removal is the best that suppression can be, and its S_re is below 1, as a caption
without the object may tell the rest in other words; a caption of something else shares words by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import product

import numpy as np
import pandas as pd

from book.style import METHODS, READINGS
from book.words import interval
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
    removal = references(perturbations).query("method == 'removal'").to_dict("records")
    records = []
    for row, (seed, other) in product(removal, enumerate(removal)):
        if other["concept"] != row["concept"]:
            said, truths = other["clean_caption"], [one for one in row["truths"].split(", ") if one]
            kept = {"retained": retention(row["clean_caption"], said, row["concept"])}
            kept |= {"retained_truth": truth_retention(truths, said), "retained_probability": np.nan}
            now = {"method": "chance", "caption": said, "seed": seed, "perplexity": other["clean_perplexity"]}
            now |= {"target_present": False, "target_probability": np.nan, "repetition": repetition(said)}
            records.append(row | now | kept)
    return pd.DataFrame(records)


def bounds(perturbations: pd.DataFrame, limit: float, images: Collection[str] | None = None) -> pd.DataFrame:
    """`summaries.summarise` of all three, for tables and figures: columns method, metric, value, low, high and so on.

    Of `images` alone, where what they stand beside was not tried on every held-out picture.
    """
    rows = pd.concat([references(perturbations), chance(perturbations)], ignore_index=True)
    rows = rows if images is None else rows[rows["image_id"].isin(images)]
    if rows.empty:
        return pd.DataFrame(columns=["method", "metric", "value", "low", "high", "n_images", "n_concepts"])
    return summarise(rows, ["method"], perplexity_limit=limit)


def for_readers(found: pd.DataFrame, metrics: Sequence[str], named: str) -> pd.DataFrame:
    """`bounds` for the foot of a table: what it is under the heading `named`, then the readings by their labels."""
    ends = {(row["method"], row["metric"]): (row["value"], row["low"], row["high"]) for row in found.to_dict("records")}
    rows = [
        {named: METHODS[method].label}
        | {READINGS[metric].label: interval(*ends.get((method, metric), (np.nan,) * 3)) for metric in metrics}
        for method in METHODS
        if method in set(found["method"])
    ]
    return pd.DataFrame(rows)
