"""What of a concept's neurons holds elsewhere: means of `experiments.transfer`, and their words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from book.words import compared_with_zero, interval, of_every, spread, told
from kn_core.measures.stats import SIGNED, Estimate, estimate
from kn_core.measures.summaries import with_intervals
from kn_core.study.experiments import transfer
from kn_core.study.experiments.transfer import FOUND, RANDOM
from kn_core.study.study import Study

WHERE = {
    "scenes": "the study’s own pictures",
    "words": "asked in other words",
    "photographs": "photographs",
    "text": "a sentence without a picture",
}


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`transfer.transfer` of every concept. Raises NotRun where a study cannot make it."""
    return of_every(transfer.transfer, study, concepts)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over concepts with intervals: columns where, of, metric ('lost', 'kept'), value, low, high, n_images."""
    rows = rows.rename(columns={"concept": "image_concept"})
    images = rows.melt(["image_concept", "where", "of", "image_id"], ["lost", "kept"], var_name="metric")
    same = images.groupby(["image_concept", "where", "of", "image_id", "metric"], sort=False)["value"].mean()
    return with_intervals(same.dropna().reset_index(), ["where", "of"])


def table(found: pd.DataFrame) -> pd.DataFrame:
    """`means` for a reader."""
    rows = []
    for (where, of), group in found.groupby(["where", "of"], sort=False):
        each = zip(group["metric"], group["value"], group["low"], group["high"], strict=True)
        cells = {metric: interval(*values) for metric, *values in each}
        shown = {"tried on": WHERE[str(where)], "neurons": of, "the word loses": cells.get("lost", "–")}
        rows.append(shown | {"other words keep": cells.get("kept", "–"), "n": int(group["n_images"].max())})
    return pd.DataFrame(rows)


def gap(rows: pd.DataFrame, where: str, one: str = FOUND, other: str = RANDOM) -> tuple[float, float, float]:
    """What one set takes from the word minus what another takes, picture by picture, with its interval."""
    rows, keys = rows[rows["where"] == where], ["concept", "on", "image_id"]
    ours, theirs = (rows[rows["of"] == of].set_index(keys)["lost"] for of in (one, other))
    gaps = (ours - theirs).dropna().rename("value").reset_index().rename(columns={"concept": "image_concept"})
    if gaps.empty:
        return np.nan, np.nan, np.nan
    row = with_intervals(gaps.assign(metric="lost"), [], within=SIGNED).iloc[0]
    return float(row["value"]), float(row["low"]), float(row["high"])


def in_words(rows: pd.DataFrame, found: pd.DataFrame) -> dict[str, object]:
    """What the page says."""
    keys, ends_of = (
        found[columns].to_numpy().tolist() for columns in (["where", "of", "metric"], ["value", "low", "high"])
    )
    cells = {tuple(key): ends for key, ends in zip(keys, ends_of, strict=True)}
    words: dict[str, object] = {}
    for where in WHERE:
        ends, difference = cells.get((where, FOUND, "lost")), gap(rows, where)
        words[where] = spread(*ends) if ends else "not measured"
        words |= {f"{where}-gap": spread(*difference), f"{where}-sure": compared_with_zero(*difference[1:])}
    words["wordings"] = rows[rows["where"] == "words"]["on"].nunique()
    two = cells.get(("scenes", "two stages", "lost"))
    words["two-stage"] = spread(*two) if two else "not measured"
    beside = [of for of in dict.fromkeys(rows["of"]) if of.startswith("two stages, ")]
    shared = [f"those of {of.split(', ')[1]} {spread(*cells['scenes', of, 'lost'])}" for of in beside]
    words["captioners"] = ", ".join(shared) or "no other captioner with this decoder was studied beside this one"
    seen = rows[rows["where"] == "photographs"]
    there, back = (cells.get((where, "photographs", "lost")) for where in ("photographs", "scenes"))
    theirs = f" Neurons found on photographs take {spread(*there)} there" if there else ""
    theirs += f", and {spread(*back)} on drawn scenes." if there and back else "." if there else ""
    words["photographed"] = (
        f"On {seen['image_id'].nunique()} photographs the neurons of drawn scenes take {words['photographs']} of the "
        f"word's probability, {words['photographs-gap']} more than random ones ({words['photographs-sure']}).{theirs}"
        if len(seen)
        else "No folder of photographs was named (COCO=folder), or none of them was told by its concept: not tried."
    )
    named = rows[(rows["where"] == "text") & (rows["of"] == FOUND)]
    words["text-chance"] = f"{named['on'].astype(float).median():.3f}" if len(named) else "not measured"
    return words


def sizes(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`transfer.sizes` of all as means over concepts with intervals: columns k, metric, value, low, high, n_images."""
    rows = of_every(transfer.sizes, study, concepts).rename(columns={"concept": "image_concept"})
    images = rows.melt(["image_concept", "k", "image_id"], ["lost", "kept", "shared"], var_name="metric")
    return with_intervals(images.dropna(), ["k"])


def sizes_for_readers(found: pd.DataFrame) -> pd.DataFrame:
    """`sizes`, a row a number of pictures."""
    names = {"shared": "shared with a set of other pictures", "lost": "the word loses", "kept": "other words keep"}
    rows = []
    for k, group in found.groupby("k"):
        each = zip(group["metric"], group["value"], group["low"], group["high"], strict=True)
        cells = {metric: interval(*values) for metric, *values in each}
        rows.append({"pictures": k} | {label: cells.get(name, "–") for name, label in names.items()})
    return pd.DataFrame(rows)


def sizes_in_words(study: Study, found: pd.DataFrame, concepts: Sequence[str]) -> dict[str, object]:
    """How many pictures are enough: the least with nine tenths of what the most take."""
    lost = found[found["metric"] == "lost"].set_index("k")["value"]
    shared = found[found["metric"] == "shared"].set_index("k")["value"]
    enough = lost.index[lost >= 0.9 * lost.iloc[-1]].min()
    words: dict[str, object] = {"most": int(lost.index.max()), "enough": int(enough)}
    words |= {"first-lost": f"{lost.iloc[0]:.2f}", "last-lost": f"{lost.iloc[-1]:.2f}"}
    words |= {"first-shared": f"{shared.iloc[0]:.2f}", "last-shared": f"{shared.iloc[-1]:.2f}"} if len(shared) else {}
    words["chance"] = f"{of_every(transfer.sizes, study, concepts)['chance'].iloc[0]:.4f}"
    left = [str(k) for k in study.effort.editing.sizes if k > lost.index.max()]
    words["left"] = (
        f"Not tried, as there are not so many selection pictures: {', '.join(left)}" if left else "All sizes were tried"
    )
    return words


def helps(taken: pd.DataFrame, success: pd.DataFrame) -> Estimate:
    """How much an edit's success rises with what its set takes from the word: slope within concepts, over concepts.

    `taken` (`transfer.taken`) is averaged a concept and set, and so is `success` (columns image_concept, new, image_id,
    neurons, value), over the pictures that all sets of a concept were tried on. A concept's slope is that of its sets'
    line; it has none where it has a single set, or all take alike.
    """
    lost = taken.groupby(["concept", "neurons"])["lost"].mean()
    slopes = []
    for concept, rows in success.groupby("image_concept"):
        renamed = rows.pivot_table(index=["new", "image_id"], columns="neurons", values="value").dropna()
        sets = pd.DataFrame({"x": lost.get(concept, pd.Series(dtype=float)), "y": renamed.mean()}).dropna()
        if len(sets) > 1 and sets["x"].std() > 0.01:
            slopes.append(float(np.polyfit(sets["x"], sets["y"], 1)[0]))
    return estimate(slopes, within=SIGNED)


def helps_in_words(slope: Estimate) -> dict[str, object]:
    """The answer to 'does localisation help editing?', whichever it is."""
    helped = told(*slope.ends[1:], "it helps", "it harms", "no difference can be told")
    return {"slope": spread(*slope.ends), "helps": helped, "slopes-of": f"{slope.n}"}


def taken(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`transfer.taken` of every concept."""
    return of_every(transfer.taken, study, concepts)
