"""What edits do, from the rows of `experiments.editing`: readings of every question, their means, and their words."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from book.words import compared_with_zero, interval, of_every, spread
from kn_core.concepts import names
from kn_core.measures.metrics import fluent
from kn_core.measures.stats import GAP
from kn_core.measures.summaries import perplexity_limit, with_intervals
from kn_core.study.experiments import editing
from kn_core.study.experiments.editing import RANDOM
from kn_core.study.study import Study

READINGS = {
    "reliability": "renamed, the edit’s own pictures",
    "generality": "renamed, held-out pictures",
    "forced": "new word likelier, forced",
    "asked": "renamed, asked in other words",
    "locality": "other captions unchanged",
    "kept": "other captions’ tokens kept, forced",
    "without": "new word not said without the object",
    "polled": "‘is there …?’: shift to the new word",
    "text": "new word likelier, text alone",
    "text_locality": "next token kept, other texts",
    "retention": "retention",
    "fluent": "fluent",
    "wanted": "fluent, were it the wanted caption",
}
CHANGED = ["reliability", "generality", "forced", "asked", "text", "polled"]  # by an edit; what is not, it leaves
LEFT = [name for name in READINGS if name not in CHANGED]
AIMS = {"generality": 0.85, "locality": 0.90, "fluent": 0.95}  # written down before any edit was tried
EDITORS = {
    "driven": "driven swap",
    "swap": "activation swap",
    "ridge": "ridge edit",
    "unembedding": "unembedding shift",
    "dai": "Dai et al.’s update",
    "fine": "FiNE",
}
BY = ["editor", "neurons", "dose"]


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`editing.edits` of every concept. Raises NotRun where a study cannot make them."""
    return of_every(editing.edits, study, concepts)


def limit(study: Study) -> float:
    """The perplexity above which a caption does not read well."""
    return perplexity_limit(study.perturbations())


def best(study: Study) -> tuple[str, str]:
    """The main editor and its set, as the profile has them from selection pictures."""
    settings = study.effort.editing
    return settings.editors[0], settings.sets[0]


def of_best(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Rows of the main editor at the chosen dose, whatever the set."""
    return frame[(frame["editor"] == best(study)[0]) & (frame["dose"] == "chosen")]


def renamed(row: Mapping[Hashable, Any]) -> bool:
    """Whether a caption says the new word, and the old one no more."""
    return names(row["caption"], row["new"]) and not names(row["caption"], row["concept"])


def by_picture(rows: pd.DataFrame, limit: float) -> pd.DataFrame:
    """A row a picture and reading: `BY`, main, new, image_concept (the edited one), image_id, metric, value.

    Pictures asked in other words count where the unedited model names the concept there, texts where it does so.
    """
    found = []
    for row in rows.to_dict("records"):
        what = row["what"]
        values: dict[str, Any] = {}
        if what == "learnt":
            values = {"reliability": renamed(row)}
        elif what == "own":
            reads = fluent(row["caption"], row["perplexity"], limit)
            more = row["new_probability"] > row["old_probability"]
            values = {"generality": renamed(row), "forced": more, "retention": row["retained"], "fluent": reads}
            values["wanted"] = fluent(row["wanted_caption"], row["wanted_perplexity"], limit)
        elif what == "asked" and names(row["clean_caption"], row["concept"]):
            values = {"asked": renamed(row)}
        elif what == "other":
            values = {"locality": row["caption"] == row["clean_caption"], "kept": row["kept"]}
        elif what == "without" and not names(row["clean_caption"], row["new"]):
            values = {"without": not names(row["caption"], row["new"])}
        elif what == "polled":
            more = _yes(row, "") - _yes(row, "clean_")
            values = {"polled": more if row["wording"] == row["new"] else -more}
        elif what == "text" and row["wording"] == row["concept"] and row["named"]:
            values = {"text": row["new_probability"] > row["old_probability"]}
        elif what == "text" and row["wording"] != row["concept"]:
            values = {"text_locality": row["kept"]}
        kept = {name: row[name] for name in (*BY, "main", "new", "image_id")} | {"image_concept": row["concept"]}
        found += [kept | {"metric": name, "value": float(value)} for name, value in values.items()]
    return pd.DataFrame(found).dropna(subset="value", ignore_index=True)


def _yes(row: Mapping[Hashable, Any], when: str) -> float:
    """The probability of 'Yes' among 'Yes' and 'No', which stand in the columns of the new and the old word."""
    yes, no = row[f"{when}new_probability"], row[f"{when}old_probability"]
    return float(yes / (yes + no))


def nearest(images: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The pairs that every editor is tried on: each concept with the next one's name."""
    pairs = {concept: editing.new_name(study, concept) for concept in images["image_concept"].unique()}
    return images[images["new"] == images["image_concept"].map(pairs)]


def means(images: pd.DataFrame) -> pd.DataFrame:
    """Means over concepts of means over their pictures, with their intervals (`with_intervals`)."""
    return with_intervals(images, BY)


def table(found: pd.DataFrame, shown: Sequence[str]) -> pd.DataFrame:
    """`means` of these readings for a reader, a row an editor, set and strength, in the order tried."""
    rows = []
    for (editor, which, dose), group in found.groupby(BY, sort=False):
        each = zip(group["metric"], group["value"], group["low"], group["high"], strict=True)
        told_of = {metric: interval(*values) for metric, *values in each}
        told = {"editor": EDITORS[str(editor)], "neurons": which, "strength": dose}
        rows.append(told | {READINGS[name]: told_of.get(name, "–") for name in shown})
    return pd.DataFrame(rows)


def ends(found: pd.DataFrame, study: Study, which: str) -> dict[str, tuple[float, float, float]]:
    """Value and interval of `means` by metric: the main editor at its chosen dose, with a set."""
    rows = of_best(found, study)
    rows = rows[rows["neurons"] == which]
    return {row.metric: (row.value, row.low, row.high) for row in rows.itertuples()}  # type: ignore[misc]


def against_random(images: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The main editor with its set minus with random neurons, picture by picture: means by metric."""
    same, keys = of_best(images, study), ["image_concept", "new", "image_id", "metric"]
    ours, theirs = (same[same["neurons"] == which].set_index(keys)["value"] for which in (best(study)[1], RANDOM))
    gaps = (ours - theirs).dropna().rename("value").reset_index()
    return with_intervals(gaps, [], within=GAP)


def _beside_main(images: pd.DataFrame, study: Study, editor: str) -> str:
    """'activation swap 0.25 (driven swap there 0.30)': what two editors rename, on the pictures of both."""
    main, which = best(study)
    same = images[(images["metric"] == "generality") & (images["dose"] == "chosen") & (images["neurons"] == which)]
    wide = same.pivot_table("value", ["image_concept", "new", "image_id"], "editor")[[main, editor]].dropna()
    ours, theirs = wide.groupby("image_concept").mean().mean()
    return f"{EDITORS[editor]} {theirs:.2f} ({EDITORS[main]} on the same pictures {ours:.2f})"


def matrix(images: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Share of held-out captions renamed by the best editor, concepts down, new names across; NaN where not tried."""
    rows = of_best(images, study).query("metric == 'generality'")
    rows = rows[rows["neurons"] == best(study)[1]]
    order = [concept for concept in study.studied() if concept in set(rows["image_concept"])]
    wide = rows.pivot_table("value", "image_concept", "new", aggfunc="mean")
    return wide.reindex(index=order, columns=[each for each in study.studied() if each in wide.columns])


def pairs_in_words(wide: pd.DataFrame, study: Study) -> str:
    """What a cell of `matrix` rests on, and how much of the cells' variance lies between rows, edited concepts."""
    settings, cells = study.effort.editing, wide.to_numpy(float)
    there = ~np.isnan(cells)
    if not settings.all_pairs or there.sum(axis=1).min() < 2:
        return f"A cell is a mean over {settings.judged} pictures at most; the other pairs are for the long version."
    rows = np.broadcast_to(np.nanmean(cells, axis=1, keepdims=True), cells.shape)
    share = float(rows[there].var() / cells[there].var()) if cells[there].var() else np.nan
    more = "whether the edit sees its object in a picture decides, not the name that the object is to take"
    less = "the name that it is to take counts as well"
    return (
        f"A cell is a mean over {settings.light} pictures, of the next concept's name over {settings.judged}. Of the "
        f"cells' variance {share:.0%} lies between the concepts that are edited: {more if share > 0.5 else less}."
    )


def examples(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The first held-out picture of each concept under the best editor: before, after, random neurons instead."""
    own = of_best(rows, study).query("what == 'own'")
    pairs = {concept: editing.new_name(study, concept) for concept in own["concept"].unique()}
    first = own[own["new"] == own["concept"].map(pairs)].drop_duplicates(["concept", "neurons"])
    wide = first.pivot_table("caption", ["concept", "new"], "neurons", aggfunc="first", sort=False)
    before = first.drop_duplicates("concept").set_index(["concept", "new"])["clean_caption"]
    shown = pd.DataFrame({"before": before, "edited": wide[best(study)[1]]})
    if RANDOM in wide:
        shown["random neurons instead"] = wide[RANDOM]
    return shown.reset_index().rename(columns={"concept": "from", "new": "to"})


def in_words(rows: pd.DataFrame, images: pd.DataFrame, found: pd.DataFrame, study: Study) -> dict[str, object]:
    """What the page says: the best editor's readings, the aims, random neurons, the editors beside it."""
    settings, (editor, chosen) = study.effort.editing, best(study)
    of, random = ends(found, study, chosen), ends(found, study, RANDOM)
    words: dict[str, object] = {name: spread(*of[name]) if name in of else "not measured" for name in READINGS}
    words |= {f"random-{name}": f"{random[name][0]:.2f}" if name in random else "not measured" for name in AIMS}
    missed = [READINGS[name] for name, least in AIMS.items() if name not in of or of[name][0] < least]
    count = ("none is missed", "one is missed", "two are missed", "all are missed")[len(missed)]
    words["aims"] = f"{count} ({'; '.join(missed)})" if missed else count
    gap = against_random(images, study).set_index("metric")
    low_high = tuple(gap.loc["generality", ["value", "low", "high"]]) if "generality" in gap.index else (np.nan,) * 3
    there = random["generality"][0] + low_high[0] if "generality" in random else np.nan  # ours, where these were tried
    words |= {"beside-random": "not measured" if np.isnan(there) else f"{there:.2f}"}
    words |= {"gap": spread(*low_high), "gap-sure": compared_with_zero(*low_high[1:])}
    shown = rows[rows["main"]]
    words |= {"best": EDITORS[editor], "set": chosen, "n": int(shown["n"].max())}
    words |= {"pictures": shown.query("what == 'own'")["image_id"].nunique(), "learnt-from": settings.pictures}
    words |= {"pairs": shown.groupby(["concept", "new"]).ngroups, "others": int((shown["what"] == "other").sum())}
    beside = found[(found["metric"] == "generality") & (found["editor"] != editor) & (found["neurons"] == chosen)]
    beside = beside[beside["dose"] == "chosen"]
    told = [_beside_main(images, study, name) for name in beside["editor"]]
    words["others-renamed"] = ", ".join(told) or "no other editor was tried"
    sets = set(of_best(images, study)["neurons"]) - {RANDOM}
    words["sets"] = f"{len(sets)} sets" if len(sets) > 1 else "one set"
    words["not-tried"] = ", ".join(label for name, label in EDITORS.items() if name not in settings.editors) or "none"
    made = study.store.describe()
    spent = made.loc[made["artefact"].str.match(r"(edits|transfer|sizes|taken)-"), "seconds"].sum()
    length = "short" if settings == study.profile.editing else "long"
    first = f"the first {settings.compared} concepts" if settings.compared else "all concepts"
    full = "The long version (EFFORT=full) has all pairs, all editors, more sets of neurons, strengths and pictures."
    words["longer"] = full if length == "short" else ""
    return words | {"version": f"the {length} version", "spent": f"{spent:.0f}", "compared": first}
