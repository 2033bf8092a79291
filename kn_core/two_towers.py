"""One decoder behind two vision towers: which conclusions depend on the tower?

Two studies of the same scenes in, tidy frames out. A tower's own trained layer comes with it: what differs between the
studies is the tower, its grid, and how well the layer was trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kn_core import claims, evidence
from kn_core.evidence import headline, perplexity_limit
from kn_core.metrics import differences, per_image
from kn_core.models import TOWERS
from kn_core.siblings import Studies, siblings
from kn_core.stats import cluster_interval
from kn_core.study import Study

DIFFERENCE = "difference"
THIRDS = ("first", "middle", "last")
MEASURED = ("suppression", "retention")


def compared(profile: str) -> Studies:
    """The profile and its sibling with the ViT, `<profile>-vit`; either may be named. Raises NotRun."""
    return siblings(profile, "vit", lambda found: TOWERS[found.parts.tower].name)


def compare(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """What the towers do alike and what not, a row a quantity and tower, and one for the first minus the second.

    Columns quantity, tower, value, low, high, n_images, n_concepts: means over concepts of the mean over their images,
    with 95 % intervals. Quantities: 'naming', the share of the pictures captioned with both towers whose caption names
    its concept; 'suppression', 'retention' and 'fluent' of the two-stage neurons in the main setting, those with
    '-random' of random neurons of the same layers, and with '-over-random' the two image by image; 'first-third',
    'middle-third' and 'last-third' of the layers, which share of a concept's best neurons lies there.

    Naming is of the same pictures, so its difference is paired image by image. Elsewhere every tower is tried on the
    pictures that it describes rightly, and the difference is paired by concept; its interval resamples concepts alone.
    """
    values = {tower: _values(study, concepts) for tower, study in studies.items()}
    first, second = values
    naming = pd.concat({tower: _named(study, concepts) for tower, study in studies.items()}, axis=1, join="inner")
    rows = [_row("naming", tower, naming[tower]) for tower in values]
    rows.append(_row("naming", DIFFERENCE, naming[first] - naming[second]))
    for quantity in values[first]:
        found = {tower: by[quantity] for tower, by in values.items()}
        rows += [_row(quantity, tower, series) for tower, series in found.items()]
        means = [series.groupby(level="concept").mean() for series in found.values()]
        rows.append(_row(quantity, DIFFERENCE, (means[0] - means[1]).dropna()))
    return pd.DataFrame(rows)


def _named(study: Study, concepts: Sequence[str]) -> pd.Series:
    """Whether each picture that was captioned is named: (concept, image_id) -> 0 or 1."""
    pairs = pd.concat([study.pairs(concept) for concept in concepts])
    pairs = pairs[pairs["caption"] != ""].set_index(["concept", "image_id"])
    return (pairs["target_word"] != "").astype(float)


def _values(study: Study, concepts: Sequence[str]) -> dict[str, pd.Series]:
    """Each quantity of one tower but naming, by concept and, where it is measured image by image, by image."""
    trials = pd.concat([study.perturbations(concept) for concept in concepts], ignore_index=True)
    rows, limit = headline(trials, study.profile), perplexity_limit(trials)
    by_method = per_image(rows, ["method"], perplexity_limit=limit).set_index("method")
    sides: dict[str, pd.DataFrame] = {
        "": by_method.loc[["two-stage"]],
        "-random": by_method.loc[["random"]],
        "-over-random": differences(rows, "two-stage", "random", perplexity_limit=limit),
    }
    found = {}
    for metric in (*MEASURED, "fluent"):
        for suffix, images in sides.items():
            of_metric = images[images["metric"] == metric].set_index(["image_concept", "image_id"])["value"]
            found[f"{metric}{suffix}"] = of_metric.rename_axis(["concept", "image_id"])
    budget = study.profile.identification.budget
    neurons = pd.concat([study.neurons(concept) for concept in concepts])
    best = neurons[(neurons["method"] == "two-stage") & (neurons["rank"] < budget)]
    thirds = best["layer"] * 3 // study.n_layers
    return found | {f"{name}-third": (thirds == i).groupby(best["concept"]).mean() for i, name in enumerate(THIRDS)}


def _row(quantity: str, tower: str, values: pd.Series) -> dict[str, object]:
    """One row of `compare` from values indexed by concept, or by concept and image."""
    clusters = [rows.to_numpy(float) for _, rows in values.dropna().groupby(level="concept", sort=False)]
    value = float(np.mean([rows.mean() for rows in clusters])) if clusters else np.nan
    low, high = cluster_interval(clusters) if clusters else (np.nan, np.nan)
    counts = {"n_images": sum(map(len, clusters)) if values.index.nlevels > 1 else 0, "n_concepts": len(clusters)}
    return {"quantity": quantity, "tower": tower, "value": value, "low": low, "high": high} | counts


def verdicts(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """The claims that the main setting decides, with each tower's verdict on them, on these concepts alone.

    Columns claim, page, statement, measured, for each tower its verdict (under the tower's name) and estimate,
    `<tower>, ours`, with its interval `<tower>, low` and `<tower>, high`, and `differ`.
    """
    frame = pd.DataFrame()
    for tower, study in studies.items():
        neurons, trials = (
            pd.concat([of(concept) for concept in concepts], ignore_index=True)
            for of in (study.neurons, study.perturbations)
        )
        measured = [
            *evidence.in_range({concept: study.thresholds(concept) for concept in concepts}),
            evidence.late_share(neurons, study.profile.identification.budget, study.n_layers),
            *evidence.effects(trials, study.profile),
        ]
        there = {measurement.name for measurement in measured}
        asked = [claim for claim in claims.load_claims() if claim.statistic in there]
        found = claims.table(asked, measured, study.profile.shares_with_paper).set_index("claim")
        if frame.empty:
            frame = found[["page", "statement", "measured"]].copy()
        frame[tower] = found["verdict"]
        frame[[f"{tower}, {name}" for name in ("ours", "low", "high")]] = found[["ours", "low", "high"]]
    first, second = studies
    frame["differ"] = frame[first] != frame[second]
    return frame.reset_index()
