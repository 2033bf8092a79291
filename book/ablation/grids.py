"""Would other thresholds have found better neurons? Both of them over grids: the paper's units, and quantiles.

All neurons that a pair of thresholds leaves are disturbed in the profile's main setting, first seed, on a few pictures
of the concept that chose no neurons. The paper sets its thresholds by hand, an object at a time (Table IV).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.ndimage import label

from book.claims.evidence import PAPER_A, PAPER_G
from book.perturbation.readings import harmonic_mean
from kn_core.study.experiments.thresholds import METRICS
from kn_core.study.study import Study

NEAR = 0.9  # of the best cell's score: what still counts as as good


def over_concepts(grids: pd.DataFrame) -> pd.DataFrame:
    """Several concepts' grids as one: means over the concepts that have neurons in a cell, n_concepts of them."""
    by = grids.groupby(["scale", "a", "g"], sort=False)
    means = by[["threshold_a", "threshold_g", "quantile_a", "quantile_g", "n_neurons", *METRICS]].mean()
    return means.assign(n_images=by["n_images"].sum(), n_concepts=by["suppression"].count()).reset_index()


def best_region(grid: pd.DataFrame) -> pd.DataFrame:
    """One grid (of one scale; a concept's or pooled), with columns score, best, in_region.

    The score is the harmonic mean of suppression and retention. The region around the best cell: those within 10 % of
    its score that hang together with it, side by side. Where no cell scores there is none.
    """
    if grid.duplicated(["a", "g"]).any():
        raise ValueError("grid must be of one scale, and of one concept or pooled. Got several rows for a cell.")
    score = harmonic_mean(grid["suppression"], grid["retention"])
    best = (score == score.max()) & (score > 0)
    rows, columns = (np.unique(grid[axis], return_inverse=True)[1] for axis in ("g", "a"))
    near = np.zeros((rows.max() + 1, columns.max() + 1), bool)  # (steps of g, steps of a)
    near[rows, columns] = (score >= NEAR * score.max()) & (score > 0)
    region = label(near)[0][rows, columns]  # 0 where a cell is not near the best
    return grid.assign(score=score, best=best, in_region=np.isin(region, region[best.to_numpy()]))


def n_pictures(grid: pd.DataFrame) -> str:
    """'pictures a cell: 9', for a caption whose n is neurons."""
    least, most = grid["n_images"].min(), grid["n_images"].max()
    return f"pictures a cell: {most:.0f}" if least == most else f"pictures a cell: {least:.0f} to {most:.0f}"


def best_regions(grids: pd.DataFrame, by: str) -> dict[str, pd.DataFrame]:
    """`best_region` of each grid, by 'scale' or 'concept'."""
    return {str(name): best_region(cells) for name, cells in grids.groupby(by, sort=False)}


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
    """Where our thresholds (Table IV) lie in a grid of `best_region`: a row a concept.

    Columns concept, a, g (the thresholds on the grid's scale), x, y (their `position`), in_region (as the cell that
    they lie in, or from which they are no more than half a step away).
    """
    scale, steps = region["scale"].iloc[0], [sorted(region[axis].unique()) for axis in ("a", "g")]
    cells = (region[["a", "g"]].rank(method="dense") - 1)[region["in_region"]]  # where they lie, in steps from 0
    rows = []
    for concept in concepts:
        pooled, own = study.pooled(concept), study.thresholds(concept)
        at = [own["delta"], own["gradcam"]]
        if scale == "quantile":
            at = [float((pooled[name] <= own[name]).mean()) for name in ("delta", "gradcam")]
        x, y = (position(of_axis, value, scale) for of_axis, value in zip(steps, at, strict=True))
        rows.append((concept, *at, x, y, bool((abs(cells.to_numpy() - (x, y)) <= 0.5).all(axis=1).any())))
    return pd.DataFrame(rows, columns=["concept", "a", "g", "x", "y", "in_region"])


def in_words(region: pd.DataFrame, own: pd.DataFrame) -> dict[str, str]:
    """A grid of `best_region` and `placed` for sentences: its spread, its best cell and the region around it, ours."""
    filled = region[region["n_neurons"] > 0]
    words = {"pictures": f"{filled['n_images'].max():.0f}", **_range(filled, "")}
    papers = filled[filled["threshold_a"].between(*PAPER_A) & filled["threshold_g"].between(*PAPER_G)]
    if len(papers):
        words |= _range(papers, "paper-")
        for axis in "ag":
            few, many = 1 - papers[f"quantile_{axis}"].max(), 1 - papers[f"quantile_{axis}"].min()
            words[f"paper-passes-{axis}"] = f"{few:.1%} to {many:.1%}"
    words |= {f"rank-{metric}": f"{_rank(filled, metric):.2f}" for metric in ("suppression", "retention")}
    words["exception"] = _exception(filled)
    for axis in "ag":
        means = filled.groupby(axis)["suppression"].mean()
        words[f"along-{axis}"] = f"{100 * (means.max() - means.min()):.0f}"
    if region["best"].any():
        near = region[region["in_region"]]
        counts = [f"{count:,.0f}" for count in (near["n_neurons"].min(), near["n_neurons"].max())]
        words["region"] = f"{len(near)} of {len(region)} cells, with {' to '.join(dict.fromkeys(counts))} neurons"
    else:
        words["region"] = "no cell, for none suppresses and retains at once"
    return words | {"own": f"{own['in_region'].sum()} of {len(own)}"}


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
