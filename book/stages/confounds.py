"""How well the stages separate the concept from what is merely there: frames of `spurious` in, numbers out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from book.claims.rules import Measurement
from book.words import compared_with_zero, interval
from kn_core.measures.stats import cluster_interval
from kn_core.study.experiments.companions import companions
from kn_core.study.experiments.other_region import other_region
from kn_core.study.study import Study

KINDS = {"own": "the concept's own", "companion": "its companion's", "shared": "neurons that answer to each of the two"}
KINDS |= {"neither": "neurons that answer to neither alone"}


def region_gap(regions: pd.DataFrame) -> Measurement:
    """What the object's removal does minus what the other region's does, on the pictures that have room for it."""
    found = _side_by_side(regions, "difference", "region", ["object", "other"])
    return _over_pictures("stage1_over_other_region", found["object"] - found["other"])


def selectivity(regions: pd.DataFrame) -> Measurement:
    """How much more of their response random neurons keep to the other region than neurons of stage 1 do.

    The response kept is the other region's difference over the object's, on each picture. Above 0, stage 1 finds
    neurons that tell the object from other things better than random ones of their layers do.
    """
    kept = {}
    for which in ("random", "difference"):
        found = _side_by_side(regions, which, "region", ["object", "other"])
        kept[which] = found["other"] / found["object"]
    return _over_pictures("stage1_selectivity", kept["random"] - kept["difference"])


def confound_drop(found: pd.DataFrame, above: bool = False) -> Measurement:
    """Share dropped of the companion's neurons minus that of the concept's own, on the scenes that have both.

    `above` leaves out those of the last layer (`shares`).
    """
    by_kind = _side_by_side(shares(found, above), "share", "kind", ["companion", "own"])
    return _over_pictures("stage2_confound_drop", by_kind["companion"] - by_kind["own"])


def shares(found: pd.DataFrame, above: bool = False) -> pd.DataFrame:
    """`companions` with `share`, dropped over candidates; without rows that have no candidates.

    `above` leaves out candidates of the last layer, of which stage 2 has to drop every one.
    """
    left_out = found["last"] if above else 0
    candidates = found["candidates"] - left_out
    share = (found["dropped"] - left_out) / candidates.where(candidates > 0)
    return found.assign(share=share).dropna(subset=["share"])


def _side_by_side(frame: pd.DataFrame, values: str, over: str, sides: list[str]) -> pd.DataFrame:
    """A row a concept and picture, for those that have a value on every side, and a column a side."""
    return frame.pivot_table(values, ["concept", "image_id"], over, sort=False).reindex(columns=sides).dropna()


def _over_pictures(name: str, values: pd.Series) -> Measurement:
    """The mean over concepts of the mean over their pictures."""
    clusters = [of_concept.to_numpy(float) for _, of_concept in values.groupby("concept", sort=False)]
    mean = float(np.mean([of_concept.mean() for of_concept in clusters])) if clusters else np.nan
    return Measurement(name, mean, *cluster_interval(clusters), len(values))


def regions_in_words(regions: pd.DataFrame) -> dict[str, str]:
    """`spurious.other_region` for sentences; numbers are means over concepts of means over their pictures."""
    by = regions.groupby(["region", "concept"])[["difference", "random", "changed"]].mean().groupby("region").mean()
    by, gap, selective = by.reindex(["object", "other", "exact"]), region_gap(regions), selectivity(regions)
    kept = by.loc["other"] / by.loc["object"]
    exact = by["difference"].to_dict()["exact"]
    return {
        "pictures": f"{gap.n}",
        "no-room": f"{regions['difference'].isna().sum()}",
        **{f"moved-{region}": f"{value:.2f}" for region, value in by["difference"].items()},
        **{f"changed-{region}": f"{value:.1f}" for region, value in by["changed"].items()},
        "kept-chosen": f"{kept['difference']:.0%}",
        "kept-random": f"{kept['random']:.0%}",
        "gap": interval(gap.value, gap.low, gap.high),
        "gap-zero": compared_with_zero(gap.low, gap.high),
        "selective": interval(selective.value, selective.low, selective.high),
        "selective-zero": compared_with_zero(selective.low, selective.high),
        "selective-finding": _finding(
            selective,
            "The neurons that stage 1 chose do tell the object from other things better than random ones",
            "The neurons that stage 1 chose tell the object from other things worse than random ones",
            "That stage 1 chose neurons which tell the object from other things better than random ones is not shown",
        ),
        "exact-finding": ""
        if np.isnan(exact)
        else f"Where the scene is rendered again without its object, the neurons move by {exact:.2f}.",
    }


def companions_in_words(found: pd.DataFrame | None) -> dict[str, str]:
    """`spurious.companions` for sentences; without a frame, where the test was not run, dashes under the same keys."""
    if found is None:
        keys = ["scenes", "named", "companion", "own", "companion-above", "own-above", "gap", "zero", "finding"]
        keys += ["found-own", "found-companion", "best-own", "best-companion", "gains"]
        return dict.fromkeys(keys, "–")
    named = found[found["kind"] != ""]
    words = {"scenes": f"{found['image_id'].nunique()}", "named": f"{named['image_id'].nunique()}"}
    for above, suffix in ((False, ""), (True, "-above")):
        by = shares(found, above).groupby(["kind", "concept"])["share"].mean().groupby("kind").mean()
        for kind in ("companion", "own"):
            words[f"{kind}{suffix}"] = f"{by.to_dict().get(kind, np.nan):.0%}"
    gap = confound_drop(found)
    words |= {"gap": interval(gap.value, gap.low, gap.high, "{:z.3f}"), "zero": compared_with_zero(gap.low, gap.high)}
    words["finding"] = _finding(
        gap,
        "Stage 2 drops the companion's neurons more often, as the paper believes",
        "Stage 2 drops the concept's own neurons more often, the opposite of what the paper believes",
        "Nothing here shows that stage 2 tells the two apart",
    )
    counts = named.groupby("kind")[["candidates", "best"]].sum().reindex(list(KINDS), fill_value=0)
    parts = counts / counts.sum().clip(lower=1)
    for when, column in (("found", "candidates"), ("best", "best")):
        words |= {f"{when}-{kind}": f"{parts[column].to_dict()[kind]:.0%}" for kind in ("own", "companion")}
    return words | {"gains": KINDS[str((parts["best"] - parts["candidates"]).idxmax())]}


def _finding(gap: Measurement, above: str, below: str, neither: str) -> str:
    return f"{above if gap.low > 0 else below if gap.high < 0 else neither}."


# What both say of the claims (`separation`)


def other_region_measured(study: Study) -> list[Measurement]:
    """`stage1_over_other_region` over all concepts."""
    return [region_gap(pd.concat([other_region(study, concept) for concept in study.studied()]))]


def companions_measured(study: Study) -> list[Measurement]:
    """`stage2_confound_drop` over all concepts; nothing where pictures are photographs."""
    if study.profile.data.source != "scenes":
        return []
    return [confound_drop(pd.concat([companions(study, concept) for concept in study.studied()]))]
