"""What stage 1 says: how many neurons pass, in how many pictures, and whether the object is what they answer to."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from book.claims.evidence import PAPER_A
from book.claims.rules import Measurement
from book.words import compared_with_zero, interval, told
from kn_core.measures.stats import SIGNED, Estimate, estimate
from kn_core.study.experiments.other_region import DILATION, other_region
from kn_core.study.study import Study

INPAINTED, MATCHED = ("object", "other"), ("removed", "decoy")  # regions of `other_region` that are compared


def paper_leaves(scored: pd.DataFrame) -> dict[float, float]:
    """The ends of the paper's range of thresholds, and how many candidates each would leave, mean over concepts.

    `scored` is a frame of `scores.both_stages`.
    """
    by = scored.groupby("concept", sort=False)["delta"]
    return {end: by.agg(lambda delta: (delta > end).sum()).mean() for end in PAPER_A}  # noqa: B023


def in_words(scored: pd.DataFrame, thresholds: Mapping[str, float]) -> dict[str, str]:
    """`scores.both_stages` for sentences on stage 1, means over concepts; `thresholds` are by concept."""
    by = scored.groupby("concept", sort=False)
    candidates = scored[scored["candidate"]].groupby("concept", sort=False)
    many, few = paper_leaves(scored).values()
    return {
        "neurons": f"{by.size().mean():,.0f}",
        "candidates": f"{by['candidate'].sum().mean():,.0f}",
        "passing": f"{candidates['share'].mean().mean():.0%}",
        "passing-ends": interval(*estimate(candidates["share"].mean()).ends, "{:.0%}"),
        "passing-any": f"{by['share'].mean().mean():.0%}",
        "factor": f"{many / max(few, 1):,.0f}",
        "low": f"{min(thresholds.values()):.2f}",
        "high": f"{max(thresholds.values()):.2f}",
    }


def region_gap(regions: pd.DataFrame) -> Estimate:
    """What the object's removal does minus what the other region's does, on the pictures that have room for it.

    `regions` is a frame of `other_region`.
    """
    found = _by_region(regions, "difference")
    return _mean(found["object"] - found["other"])


def selectivity(regions: pd.DataFrame) -> Estimate:
    """How much more of their response random neurons keep to the decoy than neurons of stage 1 do.

    The response kept is the decoy's difference over the object's, on each picture: both change a picture about as much.
    Above 0, stage 1 finds neurons that tell the object from other things better than random ones of their layers do.
    """
    random, chosen = (_by_region(regions, which, MATCHED) for which in ("random", "difference"))
    return _mean(random["decoy"] / random["removed"] - chosen["decoy"] / chosen["removed"])


def _by_region(regions: pd.DataFrame, values: str, both: tuple[str, str] = INPAINTED) -> pd.DataFrame:
    """A row a concept and picture, of those that have both regions, and a column a region."""
    found = regions.pivot_table(values, ["concept", "image_id"], "region", sort=False)
    return found.reindex(columns=list(both)).dropna()


def _kept(regions: pd.DataFrame, values: str, both: tuple[str, str]) -> float:
    """The second region's difference over the first's, each a mean over concepts, on pictures that have both."""
    own, other = _by_region(regions, values, both).groupby("concept").mean().mean()
    return float(other / own)


def _mean(values: pd.Series) -> Estimate:
    return estimate(values, values.index.get_level_values("concept"), within=SIGNED)


def region_means(regions: pd.DataFrame) -> pd.DataFrame:
    """`other_region`, mean over pictures: columns region, concept, difference, random, changed."""
    columns = ["difference", "random", "changed"]
    return regions.groupby(["region", "concept"], sort=False)[columns].mean().reset_index()


def regions_in_words(regions: pd.DataFrame) -> dict[str, str]:
    """`other_region` for sentences; numbers are means over concepts of means over their pictures."""
    by = region_means(regions).groupby("region")[["difference", "random", "changed"]].mean()
    by = by.reindex([*INPAINTED, *MATCHED])
    gap, selective = region_gap(regions), selectivity(regions)
    return {
        "dilation": f"{DILATION}",
        "pictures": f"{gap.n}",
        "decoys": f"{selective.n}",
        "no-room": f"{(regions['difference'].isna() & (regions['region'] == 'other')).sum()}",
        **{f"moved-{region}": f"{by['difference'][region]:.2f}" for region in by.index},
        **{f"changed-{region}": f"{by['changed'][region]:.1f}" for region in by.index},
        "kept-chosen": f"{_kept(regions, 'difference', INPAINTED):.0%}",
        "kept-random": f"{_kept(regions, 'random', INPAINTED):.0%}",
        "kept-decoy-chosen": f"{_kept(regions, 'difference', MATCHED):.0%}",
        "kept-decoy-random": f"{_kept(regions, 'random', MATCHED):.0%}",
        "gap": interval(*gap.ends),
        "gap-zero": compared_with_zero(*gap.ends[1:]),
        "selective": interval(*selective.ends),
        "selective-zero": compared_with_zero(*selective.ends[1:]),
        "selective-finding": told(
            *selective.ends[1:],
            "The neurons that stage 1 chose do tell the object from other things better than random ones.",
            "The neurons that stage 1 chose tell the object from other things worse than random ones.",
            "That stage 1 chose neurons which tell the object from other things better than random ones is not shown.",
            "Whether they tell the object from other things better than random ones, too few pictures say.",
        ),
    }


def measured(study: Study) -> list[Measurement]:
    """`selectivity` over all concepts."""
    found = selectivity(pd.concat([other_region(study, concept) for concept in study.studied()]))
    return [Measurement("stage1_object_share", *found.ends, found.n)]
