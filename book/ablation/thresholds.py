"""Would other choices have found better neurons? Each stage on and off, and both thresholds over a grid.

A set of neurons is what a pair of thresholds leaves; a stage is off where its threshold is -inf. All of a set is
disturbed in the profile's main setting, first seed, on a few pictures of the concept that chose no neurons, and pairs
of thresholds that leave the same neurons are tried once. The paper sets its thresholds by hand, an object at a time
(Table IV), and tries neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.ndimage import label

from book.claims.evidence import PAPER_A, PAPER_G
from book.words import interval
from kn_core.measures.metrics import per_image, with_intervals
from kn_core.study.experiments.thresholds import ARMS, BUDGET, METRICS, OWN
from kn_core.study.study import Study

STAGES = dict(zip(ARMS, ("neither", "stage 1 alone", "stage 2 alone", "both"), strict=True))


ENDS = ["value", "low", "high"]


def effects(ablation: pd.DataFrame, *, perplexity_limit: float = math.inf) -> pd.DataFrame:
    """Every arm with intervals: columns at, method, neurons (mean), metric, value, low, high, n_images, n_concepts."""
    images = per_image(ablation, ["at", "method", "n"], perplexity_limit=perplexity_limit)
    found = with_intervals(images[images["metric"].isin(METRICS)], ["at", "method"])
    neurons = ablation.groupby(["at", "method", "concept"])["n"].first().groupby(["at", "method"]).mean()
    return found.join(neurons.rename("neurons"), on=["at", "method"])


def gains(ablation: pd.DataFrame, *, perplexity_limit: float = math.inf) -> pd.DataFrame:
    """What a stage adds, image by image: columns at, gain, metric, value, low, high, n_images, n_concepts.

    'together' is the interaction: both stages' gain over neither, beyond the sum of what each brings alone.
    """
    images = per_image(ablation, ["at", "method", "n"], perplexity_limit=perplexity_limit)
    images = images[images["metric"].isin(METRICS)]
    index = ["at", "image_concept", "image_id", "metric"]
    wide = images.pivot_table(index=index, columns="method", values="value").reindex(columns=list(ARMS))
    neither, first, second, both = (wide[arm] for arm in ARMS)
    differences = {
        "stage 1 to neither": first - neither,
        "stage 2 to neither": second - neither,
        "stage 2 to stage 1": both - first,
        "stage 1 to stage 2": both - second,
        "together": both - first - second + neither,
    }
    long = pd.DataFrame(differences).reset_index().melt(id_vars=index, var_name="gain").dropna(subset="value")
    return with_intervals(long, ["at", "gain"])


def for_readers(effects: pd.DataFrame) -> pd.DataFrame:
    """`effects` as a table: a row an arm, its metrics with intervals as text."""
    names = {"suppression": "Sₛₑ", "retention": "Sᵣₑ", "fluent": "fluent captions"}
    rows = []
    for at, method in product((BUDGET, OWN), ARMS):
        of_arm = effects[(effects["at"] == at) & (effects["method"] == method)].set_index("metric")
        if len(of_arm):
            shown = {words: interval(*of_arm.loc[metric, ENDS]) for metric, words in names.items()}
            rows.append({"stages": STAGES[method], "with": at, "neurons": of_arm["neurons"].iloc[0], **shown})
    return pd.DataFrame(rows)


def in_words(effects: pd.DataFrame, gains: pd.DataFrame) -> dict[str, str]:
    """Both frames for sentences: 'neurons-stage-1', 'suppression-stage-1', ...; what each stage does, in words.

    'added-1' is what stage 1 changes where stage 2 is on already, 'added-2' the other way round, 'together' the
    interaction; with '-own' at the end, at each arm's own thresholds.
    """
    words: dict[str, str] = {}
    for at, suffix in ((BUDGET, ""), (OWN, "-own")):
        here = effects[effects["at"] == at]
        words |= {f"neurons-{row['method']}{suffix}": f"{row['neurons']:,.0f}" for row in here.to_dict("records")}
        for row in here.to_dict("records"):
            words[f"{row['metric']}-{row['method']}{suffix}"] = f"{row['value']:.2f}"
        found = gains[gains["at"] == at].set_index(["gain", "metric"])
        for name, gain in (("added-1", "stage 1 to stage 2"), ("added-2", "stage 2 to stage 1")):
            words[f"{name}{suffix}"] = _changes(
                {metric: found.loc[(gain, metric), ENDS].to_numpy(float) for metric in METRICS[:2]}
            )
    together = gains[(gains["gain"] == "together") & (gains["metric"] == "suppression")]
    value, low, high = together[ENDS].iloc[0]
    how = "more than" if low > 0 else "less than" if high < 0 else "not clearly more or less than"
    return words | {"together": f"{how} ({_spread(value, low, high)})"}


def _changes(found: Mapping[str, np.ndarray]) -> str:
    """'raises suppression (+0.21, ...) and makes no clear difference to retention (...)', from (value, low, high)."""
    by: dict[str, list[str]] = {}
    for metric, (value, low, high) in found.items():
        verb = "raises" if low > 0 else "lowers" if high < 0 else "makes no clear difference to"
        by.setdefault(verb, []).append(f"{metric} ({_spread(value, low, high)})")
    return " and ".join(f"{verb} {' and '.join(metrics)}" for verb, metrics in by.items())


def _spread(value: float, low: float, high: float) -> str:
    if np.isnan(low) or np.isnan(high):
        return f"{value:+.2f}, too few pictures for an interval"
    return f"{value:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}"


NEAR = 0.9  # of the best cell's score: what still counts as as good


def over_concepts(grids: pd.DataFrame) -> pd.DataFrame:
    """Several concepts' grids as one: means over the concepts that have neurons in a cell, n_concepts of them."""
    by = grids.groupby(["scale", "a", "g"], sort=False)
    means = by[["threshold_a", "threshold_g", "quantile_a", "quantile_g", "n_neurons", *METRICS]].mean()
    return means.assign(n_images=by["n_images"].sum(), n_concepts=by["suppression"].count()).reset_index()


def plateau(grid: pd.DataFrame) -> pd.DataFrame:
    """One grid (of one scale; a concept's or pooled), with columns score, best, plateau.

    The score is the harmonic mean of suppression and retention: 0 for gibberish and for noise that does nothing. The
    plateau is the region around the best cell: those within 10 % of its score that hang together with it, side by side.
    Where no cell scores there is none.
    """
    if grid.duplicated(["a", "g"]).any():
        raise ValueError("grid must be of one scale, and of one concept or pooled. Got several rows for a cell.")
    total = grid["suppression"] + grid["retention"]
    score = (2 * grid["suppression"] * grid["retention"] / total).mask(total == 0, 0.0)
    best = (score == score.max()) & (score > 0)
    near = (score >= NEAR * score.max()) & (score > 0)
    rows, columns = (np.unique(grid[axis], return_inverse=True)[1] for axis in ("g", "a"))
    cells = np.zeros((rows.max() + 1, columns.max() + 1), bool)  # (steps of g, steps of a)
    cells[rows, columns] = near
    region = label(cells)[0][rows, columns]  # 0 where a cell is not near the best
    return grid.assign(score=score, best=best, plateau=np.isin(region, region[best.to_numpy()]))


def position(steps: Sequence[float], value: float, scale: str) -> float:
    """Where a threshold lies among a grid's steps, counted from 0; between and beyond them on a logarithmic axis.

    The axis of 'raw' is log(threshold), that of 'quantile' log(1 - q), the share that passes. Never more than one step
    beyond the grid.
    """
    tiny = 1e-12  # a threshold that is not positive, or lets nothing pass, is far off and no more

    def on_axis(at: float) -> float:
        return -math.log(max(1 - at, tiny)) if scale == "quantile" else math.log(max(at, tiny))

    axis, place = [on_axis(step) for step in steps], on_axis(value)
    left = min(max(int(np.searchsorted(axis, place)) - 1, 0), len(axis) - 2)
    found = left + (place - axis[left]) / (axis[left + 1] - axis[left])
    return min(max(found, -1.0), float(len(axis)))


def placed(study: Study, concepts: Sequence[str], region: pd.DataFrame) -> pd.DataFrame:
    """Where our thresholds (Table IV) lie in a grid of `plateau`: a row a concept.

    Columns concept, a, g (the thresholds on the grid's scale), x, y (their `position`), inside (no more than half a
    step beyond the grid), plateau (the cell they lie in belongs to it).
    """
    scale, steps_a, steps_g = region["scale"].iloc[0], sorted(region["a"].unique()), sorted(region["g"].unique())
    on_plateau = set(region.loc[region["plateau"], ["a", "g"]].itertuples(index=False, name=None))
    rows = []
    for concept in concepts:
        pooled, own = study.pooled(concept), study.thresholds(concept)
        a, g = own["delta"], own["gradcam"]
        if scale == "quantile":
            a, g = (float((pooled[name] <= own[name]).mean()) for name in ("delta", "gradcam"))
        x, y = position(steps_a, a, scale), position(steps_g, g, scale)
        inside = -0.5 <= x <= len(steps_a) - 0.5 and -0.5 <= y <= len(steps_g) - 0.5
        cell = (steps_a[_nearest(x, steps_a)], steps_g[_nearest(y, steps_g)])
        rows.append((concept, a, g, x, y, inside, inside and cell in on_plateau))
    return pd.DataFrame(rows, columns=["concept", "a", "g", "x", "y", "inside", "plateau"])


def grid_in_words(region: pd.DataFrame, own: pd.DataFrame) -> dict[str, str]:
    """A grid of `plateau` and `placed` for sentences: its spread, its best cell, its plateau, our thresholds in it."""
    filled = region[region["n_neurons"] > 0]
    words = {"cells": str(len(region)), "empty": str(len(region) - len(filled)), **_range(filled, "")}
    words["pictures"] = f"{filled['n_images'].max():.0f}"
    papers = filled[filled["threshold_a"].between(*PAPER_A) & filled["threshold_g"].between(*PAPER_G)]
    if len(papers):
        words |= _range(papers, "paper-")
        for axis in "ag":
            few, many = 1 - papers[f"quantile_{axis}"].max(), 1 - papers[f"quantile_{axis}"].min()
            words[f"paper-passes-{axis}"] = f"{few:.1%} to {many:.1%}"
    more, less = _rank(filled, "suppression"), _rank(filled, "retention")
    words |= {"rank-suppression": f"{more:.2f}", "rank-retention": f"{less:.2f}"}
    words["exception"] = _exception(filled)
    for axis in "ag":
        means = filled.groupby(axis)["suppression"].mean()
        words[f"along-{axis}"] = f"{100 * (means.max() - means.min()):.0f}"
    if region["best"].any():
        best, near = region[region["best"]].iloc[0], region[region["plateau"]]
        words |= {f"best-{name}": f"{best[name]:.2f}" for name in ("suppression", "retention", "score")}
        words |= {"best-a": f"{best['a']:g}", "best-g": f"{best['g']:g}", "best-neurons": f"{best['n_neurons']:,.0f}"}
        counts = [f"{count:,.0f}" for count in (near["n_neurons"].min(), near["n_neurons"].max())]
        words["plateau"] = f"{len(near)} of {len(region)} cells, with {' to '.join(dict.fromkeys(counts))} neurons"
    else:
        words["plateau"] = "no cell, for none suppresses and retains at once"
    words["own"] = f"{own['plateau'].sum()} of {len(own)}"
    return words | {"own-inside": f"{own['inside'].sum()} of {len(own)}"}


def _range(cells: pd.DataFrame, prefix: str) -> dict[str, str]:
    shown = {"suppression": ".0%", "retention": ".0%", "n_neurons": ",.0f"}
    return {
        f"{prefix}{name.removeprefix('n_')}": f"{cells[name].min():{digits}} to {cells[name].max():{digits}}"
        for name, digits in shown.items()
    }


def _rank(cells: pd.DataFrame, metric: str) -> float:
    """Rank correlation of the number of neurons with a metric; 0 where the metric is the same in every cell."""
    varies = cells[metric].min() < cells[metric].max()
    return float(cells["n_neurons"].corr(cells[metric], method="spearman")) if varies else 0.0


def _exception(cells: pd.DataFrame) -> str:
    """The two cells that speak most against the number of neurons as all there is: more of them, less suppression."""
    pairs = cells.merge(cells, how="cross", suffixes=("", "_fewer"))
    pairs = pairs[pairs["n_neurons"] > pairs["n_neurons_fewer"]]
    pairs["gap"] = pairs["suppression_fewer"] - pairs["suppression"]
    if not (pairs["gap"] > 0).any():
        return "No cell with more neurons suppresses less than one with fewer"
    found = pairs.nlargest(1, "gap").iloc[0]
    fewer = f"{found['n_neurons_fewer']:,.0f} neurons of one cell suppress {found['suppression_fewer']:.0%}"
    return f"The number is not all: {fewer}, {found['n_neurons']:,.0f} of another {found['suppression']:.0%}"


def _nearest(place: float, steps: Sequence[float]) -> int:
    return min(max(round(place), 0), len(steps) - 1)
