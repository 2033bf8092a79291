"""Heatmaps held against the object's mask: what their readings are on average."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from book.style import METHODS
from book.words import interval
from kn_core.measures.stats import estimate

READINGS = {"iou": "IoU", "pointing": "pointing", "inside": "on the object", "area": "its area"}
NAMES = {  # of the maps of `kn_core.study.experiments.heatmaps`, beside those of methods
    "candidates": "after stage 1",
    "dropped": "dropped by stage 2",
    "kept": "after both stages",
    "random": METHODS["random"].label,
    "kept gradient": "both stages, by gradient score",
    "random gradient": "random, by gradient score",
}


def mean_readings(found: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The `READINGS` of pictures (a row each) as means over concepts of the mean over pictures, a row a group.

    Columns `by`, then each reading under its name, and its 95 % interval under `<reading>_low` and `<reading>_high`.
    """
    rows = []
    for key, group in found.groupby(list(by), sort=False):
        row = dict(zip(by, key, strict=True))
        for reading in READINGS:
            ends = estimate(group[reading], group["concept"]).ends
            row |= zip((reading, f"{reading}_low", f"{reading}_high"), ends, strict=True)
        rows.append(row)
    return pd.DataFrame(rows)


def with_intervals(means: pd.DataFrame, readings: Sequence[str]) -> pd.DataFrame:
    """Some of the readings of `mean_readings` as text, under headings."""
    columns = {reading: [reading, f"{reading}_low", f"{reading}_high"] for reading in readings}
    return pd.DataFrame(
        {READINGS[name]: [interval(*row) for row in means[of].to_numpy()] for name, of in columns.items()}
    )


def for_readers(found: pd.DataFrame) -> pd.DataFrame:
    """`heatmaps.localisation`, a row a map: how well it lies on the object, with intervals."""
    means = mean_readings(found, ["map"])
    names = [NAMES.get(name) or f"{_method(name)}, by gradient score" for name in means["map"]]
    return pd.concat([pd.DataFrame({"map of": names}), with_intervals(means, ["iou", "pointing", "inside"])], axis=1)


def _method(name: str) -> str:
    return METHODS[name.removesuffix(" gradient")].label
