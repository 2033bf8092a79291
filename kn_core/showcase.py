"""What the book shows of a study, chosen by rules: pairs, maps, neurons with their tokens, captions under noise."""

from __future__ import annotations

import html
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from kn_core import examples
from kn_core.filtering import explain
from kn_core.heatmaps import heatmaps, shown
from kn_core.profile import Profile
from kn_core.sample import Sample
from kn_core.stages import tokens
from kn_core.study import Study
from kn_core.tables import table

Example = tuple[Sample, np.ndarray, str, str, str]  # sample, inpainted, both captions, heading: a row of plots.examples


def kept_by_concept(pairs: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """How many pictures of each concept were looked at, passed, and what they are used for."""
    by = pairs.groupby("concept", sort=False)
    found = by.agg(**{"looked at": ("kept", "size"), "pass": ("kept", "sum")}).reset_index()
    for role, words in (("select", "choose neurons"), ("held_out", "held out")):
        found[words] = (
            found["concept"].map(pairs[pairs["role"] == role]["concept"].value_counts()).fillna(0).astype(int)
        )
    found.insert(1, "chosen by", np.where(found["concept"].isin(profile.ours), "us", "the paper"))
    return found


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


def mapped(
    study: Study, concepts: Sequence[str], names: Sequence[str], n: int = 1
) -> list[tuple[Sample, list[np.ndarray]]]:
    """The first `n` mapped pictures of each concept with their maps of these names: what plots.gallery draws."""
    return [
        (study.sample(concept, image_id), [heatmaps(study, concept)[name][place] for name in names])
        for concept in concepts
        for place, image_id in enumerate(shown(study, concept)[:n])
    ]


def mapped_singly(
    study: Study, concepts: Sequence[str], name: str, n: int = 1
) -> list[tuple[Sample, list[np.ndarray]]]:
    """The same with the maps of single neurons: `name` is 'best candidates' or 'best kept'."""
    return [(sample, list(maps[0])) for sample, maps in mapped(study, concepts, [name], n)]


def neuron_table(neurons: pd.DataFrame, caption: str) -> Styler:
    """Rows of `neurons.parquet` with the tokens that they promote, as code; a space is written ␣."""
    columns = ["concept", "layer", "unit", "score", "delta", "n_images"]
    shown = neurons[columns].rename(columns={"delta": "difference", "n_images": "pictures"})
    shown["promotes"] = [" ".join(map(_code, tokens(written))) for written in neurons["top_tokens"]]
    if (shown["concept"] == shown["concept"].iloc[0]).all():
        shown = shown.drop(columns="concept")
    narrow = {"max-width": "16rem"}  # else it is cut off beside the numbers
    return table(shown, caption).format(str, subset=["promotes"]).set_properties(subset=["promotes"], **narrow)


def _code(token: str) -> str:
    visible = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return f"<code>{html.escape(visible)}</code>"


def under_noise(study: Study, concept: str, n: int = 3) -> pd.DataFrame:
    """`examples.table_1` of the concept's first `n` held-out pictures."""
    rows = study.perturbations(concept)
    own = rows[rows["heldout"] & (rows["image_concept"] == concept)]
    pictures = own["image_id"].unique()[:n]
    tables = [
        examples.table_1(study.pairs(concept), own[own["image_id"] == image_id], study.profile, [concept])
        for image_id in pictures
    ]
    return pd.concat(tables, ignore_index=True)


def cards(study: Study, said: pd.DataFrame) -> str:
    """`under_noise` as HTML, a card a picture."""
    made = []
    for image_id in said["image_id"].unique():
        rows = said[said["image_id"] == image_id]
        concept = rows["concept"].iloc[0]
        made.append(examples.cards(rows, {concept: study.sample(concept, image_id).image}))
    return "\n".join(made)
