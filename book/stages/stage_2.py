"""What stage 2 says: how many candidates it drops, of which layers, and how many of a planted companion's."""

from __future__ import annotations

import numpy as np
import pandas as pd

from book.claims.rules import Measurement
from book.style import by_concept
from book.words import compared_with_zero, interval, told
from kn_core.measures.stats import GAP, Estimate, estimate
from kn_core.study.experiments.companions import companion_of, companions, example
from kn_core.study.study import Study

KINDS = {"own": "the concept's own", "companion": "its companion's", "shared": "neurons that answer to each of the two"}
KINDS |= {"neither": "neurons that answer to neither alone"}


def counts(scored: pd.DataFrame) -> pd.DataFrame:
    """How many neurons each stage leaves: columns concept, neurons, candidates, kept, dropped (share of candidates).

    `scored` is a frame of `scores.both_stages`.
    """
    by = scored.groupby("concept", sort=False)
    found = by.agg(neurons=("layer", "size"), candidates=("candidate", "sum"), kept=("kept", "sum")).reset_index()
    found["dropped"] = 1 - found["kept"] / found["candidates"]
    return found


def in_words(scored: pd.DataFrame) -> dict[str, str]:
    """`scores.both_stages` for sentences on stage 2; every number is a mean over concepts."""
    by = scored.groupby("concept", sort=False)
    share = by[["candidate", "carries", "kept"]].mean().mean()
    chosen, kept = (scored[scored[which]].groupby("concept", sort=False)["layer"] for which in ("candidate", "kept"))
    dropped = estimate(counts(scored)["dropped"])
    last = chosen.agg(lambda layers: (layers == scored["layer"].max()).mean()).mean()
    rank = np.mean([scores["delta"].corr(scores["gradcam"], method="spearman") for _, scores in by])
    return {
        "layers": f"{scored['layer'].max() + 1}",
        "kept": f"{by['kept'].sum().mean():,.0f}",
        "kept-chance": f"{by.size().mean() * share['candidate'] * share['carries']:,.0f}",
        "lift": f"{share['kept'] / (share['candidate'] * share['carries']):.1f}",
        "dropped": f"{dropped.value:.0%}",
        "dropped-ends": interval(*dropped.ends, "{:.0%}"),
        "last": f"{last:.0%}",
        "layer-candidates": f"{chosen.mean().mean():.0f}",
        "layer-kept": f"{kept.mean().mean():.0f}",
        "rank": f"{rank:.2f}",
    }


def shares(found: pd.DataFrame, above: bool = False) -> pd.DataFrame:
    """`companions` with `share`, dropped over candidates; without rows that have no candidates.

    `above` leaves out candidates of the last layer, of which stage 2 has to drop every one.
    """
    left_out = found["last"] if above else 0
    candidates = found["candidates"] - left_out
    share = (found["dropped"] - left_out) / candidates.where(candidates > 0)
    return found.assign(share=share).dropna(subset=["share"])


def drop_gap(found: pd.DataFrame, above: bool = False) -> Estimate:
    """Share dropped of the companion's neurons minus that of the concept's own, on the scenes that have both.

    `above` leaves out those of the last layer (`shares`).
    """
    by = shares(found, above).pivot_table("share", ["concept", "image_id"], "kind", sort=False)
    by = by.reindex(columns=["companion", "own"]).dropna()
    return estimate(by["companion"] - by["own"], by.index.get_level_values("concept"), within=GAP)


def drops(found: pd.DataFrame) -> pd.DataFrame:
    """Share of either's candidates that stage 2 drops: a row a concept and kind, and 'all' where there are several.

    Columns concept, kind ('own', 'companion'), value, low, high; two scenes of a concept make no interval.
    """
    rows, of_all = [], shares(found)
    several = len(of_all["concept"].unique()) > 1
    for kind in ("own", "companion"):
        of_kind = of_all[of_all["kind"] == kind]
        groups = [*by_concept(of_kind), *([("all", of_kind)] if several else [])]
        rows += [(name, kind, *estimate(group["share"], group["concept"]).ends, len(group)) for name, group in groups]
    found = pd.DataFrame(rows, columns=["concept", "kind", "value", "low", "high", "n"])
    found.loc[found.pop("n") < 3, ["low", "high"]] = np.nan
    return found


def renders(study: Study, concept: str) -> list[tuple[str, np.ndarray, str]]:
    """A planted scene whole, without either, and without both: panels of `pictures.captioned`."""
    (scene, said), companion = example(study, concept), companion_of(study, concept)
    headings = {"concept": f"no {concept}", "companion": f"no {companion}", "both": "neither"}
    return [("both", scene.image, said[""]), *((headings[gone], scene.without[gone], said[gone]) for gone in headings)]


def companions_in_words(found: pd.DataFrame | None) -> dict[str, str]:
    """`companions` for sentences; without a frame, where the test was not run, the same keys with dashes."""
    if found is None:
        keys = ["scenes", "named", "companion", "own", "companion-above", "own-above", "gap", "zero", "finding"]
        keys += ["found-own", "found-companion", "best-own", "best-companion", "gains"]
        note = "This profile's pictures are photographs: nothing can be planted there, and the test was not run."
        return {"note": note, **dict.fromkeys(keys, "–")}
    named = found[found["kind"] != ""]
    words = {"note": "", "scenes": f"{found['image_id'].nunique()}", "named": f"{named['image_id'].nunique()}"}
    for above, suffix in ((False, ""), (True, "-above")):
        by = shares(found, above).groupby(["kind", "concept"])["share"].mean().groupby("kind").mean()
        words |= {f"{kind}{suffix}": f"{by.get(kind, np.nan):.0%}" for kind in ("companion", "own")}
    gap = drop_gap(found)
    words |= {"gap": interval(*gap.ends, "{:z.3f}"), "zero": compared_with_zero(*gap.ends[1:])}
    words["finding"] = told(
        *gap.ends[1:],
        "Stage 2 drops the companion's neurons more often, as the paper believes.",
        "Stage 2 drops the concept's own neurons more often, the opposite of what the paper believes.",
        "Nothing here shows that stage 2 tells the two apart.",
        "Too few scenes count to say whether stage 2 tells the two apart.",
    )
    counted = named.groupby("kind")[["candidates", "best"]].sum().reindex(list(KINDS), fill_value=0)
    parts = counted / counted.sum().clip(lower=1)
    for when, column in (("found", "candidates"), ("best", "best")):
        words |= {f"{when}-{kind}": f"{parts[column].loc[kind]:.0%}" for kind in ("own", "companion")}
    return words | {"gains": KINDS[str((parts["best"] - parts["candidates"]).idxmax())]}


def measured(study: Study) -> list[Measurement]:
    """`stage2_confound_drop` over all concepts; nothing where pictures are photographs."""
    if study.profile.data.source != "scenes":
        return []
    gap = drop_gap(pd.concat([companions(study, concept) for concept in study.studied()]))
    return [Measurement("stage2_confound_drop", *gap.ends, gap.n)]
