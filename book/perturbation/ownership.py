"""Whose neurons they are: whose noise silences whom, a set's parts by themselves, the units that lead every list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from book.claims.rules import Measurement
from book.perturbation import references
from book.words import compared_with_zero, interval
from kn_core.drawing import WIDTH, title
from kn_core.measures.metrics import per_image, probability_suppression
from kn_core.measures.stats import SIGNED, Estimate, estimate
from kn_core.measures.summaries import with_intervals
from kn_core.study.experiments.ownership import PARTS, cross
from kn_core.study.study import Study

BY = {"caption": "Names", "probability": "Probability"}  # of which a share is lost, as maps call it
FIRST = 10  # places at the head of a gradient list
LABELS = {"all": "shared by all concepts", "some": "shared by some", "own": "the concept's own"}


def silenced(crossed: pd.DataFrame) -> pd.DataFrame:
    """What noise on each concept's neurons takes from each concept's held-out pictures, the main setting.

    `crossed` is `experiments.ownership.cross` of all concepts. A row a set and concept of pictures: columns concept
    (whose neurons), image_concept, caption (share of captions that no longer name it), probability (share of its word's
    probability that is lost), n (how many pictures).
    """
    lost = probability_suppression(crossed["clean_probability"], crossed["target_probability"])
    rows = crossed.assign(caption=1.0 - crossed["target_present"], probability=lost)
    of_cell = rows.groupby(["concept", "image_concept"])[list(BY)]
    return of_cell.mean().assign(n=of_cell.size()).reset_index()


def own_minus_foreign(found: pd.DataFrame, reading: str = "probability") -> Estimate:
    """A concept's pictures under its own neurons, minus their mean under those of others; over concepts."""
    matrix = found.pivot_table(index="concept", columns="image_concept", values=reading)
    own = pd.Series({concept: matrix.loc[concept, concept] for concept in matrix.columns})
    foreign = pd.Series({concept: matrix[concept].drop(concept).mean() for concept in matrix.columns})
    return estimate(own - foreign, within=SIGNED)


def measured(study: Study) -> list[Measurement]:
    """Selectivity, by probability: `own_minus_foreign` on all held-out pictures."""
    found = silenced(pd.concat([cross(study, name) for name in study.studied()], ignore_index=True))
    own = found[found["concept"] == found["image_concept"]]  # each picture once, of those that every set is tried on
    return [Measurement("selectivity", *own_minus_foreign(found).ends, int(own["n"].sum()))]


def maps(found: pd.DataFrame, concepts: Sequence[str]) -> Figure:
    """`silenced` as two maps, one a reading: a row the concept whose neurons are disturbed, a column the one shown."""
    figure, axes = plt.subplots(1, len(BY), figsize=(WIDTH, 0.56 * WIDTH), sharey=True)
    style = {"vmin": 0, "vmax": 1, "cmap": "magma_r", "annot": True, "annot_kws": {"size": 6.5}, "fmt": ".0f"}
    for ax, (reading, what) in zip(axes, BY.items(), strict=True):
        wide = found.pivot_table(index="concept", columns="image_concept", values=reading)
        shown = wide.reindex(index=list(concepts), columns=list(concepts)).clip(lower=0)
        sns.heatmap(shown, ax=ax, cbar=False, square=True, linewidths=0.5, **style | {"annot": 100 * shown})
        ax.set(xlabel="pictures of", ylabel="noise on the neurons of" if ax is axes[0] else "")
        ax.tick_params(axis="y", labelrotation=0)
        own, foreign = np.diag(shown), shown.to_numpy()[~np.eye(len(shown), dtype=bool)]
        beside = f", other {np.nanmean(foreign):.0%}" if np.isfinite(foreign).any() else ""
        title(ax, f"{what}: own {np.nanmean(own):.0%}{beside}")
    return figure


def parts(tried: pd.DataFrame) -> pd.DataFrame:
    """`experiments.ownership.parts` of all concepts: what each part does under noise, patched, and at random.

    Columns part, done ('noise', 'patch', 'random'), neurons (mean a concept), metric, value, low, high, n_images,
    n_concepts.
    """
    part = tried["method"].str.removesuffix(", random")
    done = tried["intervention"].mask(tried["method"].str.endswith(", random"), "random")
    rows = tried.assign(part=part, done=done)
    sizes = rows.drop_duplicates(["part", "concept"]).groupby("part")["n"].mean()
    images = pd.concat(
        per_image(of_one.assign(n=0), ["part", "done"])  # a set's size is no setting of its own here
        for _, of_one in rows.groupby(["part", "done"], sort=False)
    )
    found = with_intervals(images, ["part", "done"])
    return found.assign(neurons=found["part"].map(sizes))


def parts_for_readers(found: pd.DataFrame, retention: str, bounds: pd.DataFrame | None = None) -> pd.DataFrame:
    """`parts` in words, a row a part; `references.bounds` of the same pictures below."""
    values = found.set_index(["part", "done", "metric"])
    columns = {
        "suppression, noise": ("noise", "suppression"),
        "probability lost, noise": ("noise", "suppression_probability"),
        "as many random ones": ("random", "suppression_probability"),
        "retention, noise": ("noise", retention),
        "probability lost, patched": ("patch", "suppression_probability"),
    }
    shown: list[dict[Any, str]] = []
    for part in (name for name in PARTS if name in set(found["part"])):
        cells = {heading: _cell(values, part, *place) for heading, place in columns.items()}
        size = found.loc[found["part"] == part, "neurons"].iloc[0]
        shown.append({"neurons": LABELS[part], "of a set": f"{size:.0f}", **cells})
    if bounds is not None:
        under_noise = {heading: metric for heading, (done, metric) in columns.items() if done == "noise"}
        shown += references.for_readers(bounds, [*under_noise.values()], "neurons", [*under_noise]).to_dict("records")
    return pd.DataFrame(shown).fillna("–")


def _cell(values: pd.DataFrame, part: str, done: str, metric: str) -> str:
    if (part, done, metric) not in values.index:
        return "–"
    return interval(*values.loc[(part, done, metric), ["value", "low", "high"]].to_numpy(float))


def generic(pooled: Mapping[str, Mapping[str, np.ndarray]], n: int = 6) -> pd.DataFrame:
    """The units that answer most to any object at all, and where they stand in each concept's gradient list.

    `pooled[concept]` as of `Study.pooled`. The `n` with the largest mean over concepts of the stage-1 difference, at
    the largest first: columns layer, unit, difference (that mean), then each concept's rank by the gradient score. The
    last layer, which cannot act at the image tokens, is left out.
    """
    mean = np.mean([scores["delta"] for scores in pooled.values()], axis=0)
    mean[-1] = -np.inf
    flat = np.argsort(-mean, axis=None)[:n]
    layers, units = np.unravel_index(flat, mean.shape)
    found = pd.DataFrame({"layer": layers, "unit": units, "difference": mean[layers, units]})
    for concept, scores in pooled.items():
        ranks = np.argsort(np.argsort(-scores["gradcam"], axis=None)) + 1
        found[concept] = ranks[flat]
    return found


def other_word(neurons: pd.DataFrame, other: pd.DataFrame, budget: int) -> pd.DataFrame:
    """What a concept's set shares with that of another word of its captions: columns concept, words, shared, size.

    Beside it others: the mean that it shares with other concepts' sets.
    """
    best = neurons[(neurons["method"] == "two-stage") & (neurons["rank"] < budget)]
    sets = {
        concept: set(zip(rows["layer"], rows["unit"], strict=True))
        for concept, rows in best.groupby("concept", sort=False)
    }
    records = []
    for concept, rows in other.groupby("concept", sort=False):
        held, ours = set(zip(rows["layer"], rows["unit"], strict=True)), sets[concept]
        others = [len(ours & theirs) for name, theirs in sets.items() if name != concept]
        shared = float(np.mean(others)) if others else np.nan
        records.append((concept, rows["words"].iloc[0], len(ours & held), len(ours), shared))
    return pd.DataFrame(records, columns=["concept", "words", "shared", "size", "others"])


def in_words(found: pd.DataFrame, split: pd.DataFrame) -> dict[str, str]:
    """`silenced` and `parts` for sentences."""
    gap, by_caption = own_minus_foreign(found), own_minus_foreign(found, "caption")
    own = split[(split["part"] == "own") & (split["done"] == "noise") & (split["metric"] == "suppression_probability")]
    return {
        "own-less-foreign": f"{interval(*gap.ends)}, {compared_with_zero(gap.low, gap.high)}",
        "own-less-foreign-caption": interval(*by_caption.ends),
        "cell-pictures": _many(found["n"]),
        "own-alone": interval(*own.iloc[0][["value", "low", "high"]].to_numpy(float)) if len(own) else "not measured",
    }


def found_in_words(units: pd.DataFrame, words: pd.DataFrame) -> dict[str, str]:
    """`generic` and `other_word` for sentences."""
    first = (units.drop(columns=["layer", "unit", "difference"]) <= FIRST).all(axis=1)
    named = ", ".join(f"L{row.layer}/{row.unit}" for row in units.itertuples())
    return {
        "generic": named,
        "generic-first": f"{first.sum()} of these {len(first)} are",
        "first": f"{FIRST}",
        "other-word": f"{words['shared'].mean():.0f} of {words['size'].mean():.0f}" if len(words) else "none",
        "other-concepts": f"{words['others'].mean():.0f}" if words["others"].notna().any() else "none",
    }


def _many(counts: pd.Series) -> str:
    """'1 picture' or '8 to 12 pictures', of how many each of some cells has."""
    least, most = int(counts.min()), int(counts.max())
    return f"{most if least == most else f'{least} to {most}'} picture{'s' if most > 1 else ''}"
