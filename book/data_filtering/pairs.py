"""Which pairs were kept and what each constraint cost: the funnel, the counts, examples."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kn_core.method.filtering import ORDER, explain
from kn_core.pictures.sample import Sample
from kn_core.profile import Profile, load_profile
from kn_core.study.study import Study


def attrition(pairs: pd.DataFrame, constraints: Sequence[str]) -> pd.DataFrame:
    """The funnel: pictures left after each constraint. Columns concept, constraint ('looked at' comes first), left."""
    rows = []
    for concept, group in pairs.groupby("concept", sort=False):
        left = len(group)
        rows.append((concept, "looked at", left))
        for constraint in (name for name in ORDER if name in constraints):
            left -= int((group["reason"] == constraint).sum())
            rows.append((concept, constraint, left))
    return pd.DataFrame(rows, columns=["concept", "constraint", "left"])


def kept_by_concept(pairs: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """How many pictures of each concept were looked at, passed, and what they are used for."""
    marked = pairs.assign(chosen=pairs["role"] == "select", held_out=pairs["role"] == "held_out")
    columns = {"looked at": ("kept", "size"), "pass": ("kept", "sum")}
    columns |= {"choose neurons": ("chosen", "sum"), "held out": ("held_out", "sum")}
    found = marked.groupby("concept", sort=False).agg(**columns).reset_index()
    found.insert(1, "chosen by", np.where(found["concept"].isin(profile.ours), "us", "the paper"))
    return found


def chosen_by(concept: str, profile: str) -> str:
    """Who chose a concept that has a page in this profile's book, as a sentence ends."""
    listed = load_profile(profile)
    if concept not in listed.concepts:
        return "not among the profile's: you asked for it"
    return "our own choice" if concept in listed.ours else "among those that the paper names"


def in_words(pairs: pd.DataFrame, profile: Profile) -> dict[str, object]:
    """What was looked at and kept, and how the profile makes pairs."""
    counts = {"looked": len(pairs), "kept": pairs["kept"].sum(), "used": (pairs["role"] != "").sum()}
    data = profile.data
    how = {"select": data.select, "held": data.held_out, "pool": data.pool, "inpainter": profile.inpainting.method}
    source = "drawn scenes" if data.source == "scenes" else "photographs"
    drawings = _drawings(pairs) if data.source == "scenes" else "photographs have none"
    return {**counts, "concepts": pairs["concept"].nunique(), **how, "source": source, "drawings": drawings}


def _drawings(pairs: pd.DataFrame) -> str:
    """How many drawings of a concept there are among the pictures of each role, in words."""
    by_role = [pairs[pairs["role"] == role].groupby("concept")["drawing"].nunique() for role in ("select", "held_out")]
    said = [f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}" for n in by_role if len(n)]
    return f"{' and '.join(said)} of a concept" if said else "none were kept"


Example = tuple[Sample, np.ndarray, str, str, str]  # sample, inpainted, both captions, heading: `pictures.examples`


def kept_examples(study: Study, concepts: Sequence[str], n: int = 3) -> list[Example]:
    """The first kept pair of each of the first `n` concepts; of one concept alone, its first `n`."""
    pairs = [study.pairs(concept).query("kept").head(n if len(concepts) == 1 else 1) for concept in concepts[:n]]
    return [_example(study, row, "kept") for row in pd.concat(pairs).to_dict("records")]


def rejected_examples(study: Study, concepts: Sequence[str], n: int = 2) -> list[Example]:
    """The first captioned picture that failed each constraint, at most `n` of them, the last constraint first."""
    pairs = pd.concat([study.pairs(concept) for concept in concepts])
    failed = pairs[~pairs["kept"] & (pairs["caption"] != "")].drop_duplicates("reason")
    settings = study.profile.filtering
    order = failed["reason"].map(settings.constraints.index).sort_values(ascending=False).index
    rows = failed.loc[order].head(n).to_dict("records")
    return [_example(study, row, f"rejected by the constraint “{explain(row['reason'], settings)}”") for row in rows]


def _example(study: Study, row: Mapping[Hashable, Any], verdict: str) -> Example:
    sample = study.sample(row["concept"], row["image_id"])
    heading = f"{row['image_id']}, {verdict}"
    return sample, study.inpainted(sample), row["caption"], row["caption_inpainted"], heading
