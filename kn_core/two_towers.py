"""One decoder behind two vision towers: which conclusions depend on the tower?

Two studies of the same scenes in, tidy frames out. A tower's own trained layer comes with it: what differs between the
studies is the tower, its grid, and how well the layer was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from kn_core import claims, evidence, models
from kn_core.evidence import headline, perplexity_limit
from kn_core.metrics import differences, per_image
from kn_core.models import TOWERS
from kn_core.overlap import Neuron, overlap
from kn_core.profile import ProfileError, load_profile
from kn_core.stats import cluster_interval, holm
from kn_core.study import Study

DIFFERENCE = "difference"
THIRDS = ("first", "middle", "last")
MEASURED = ("suppression", "retention")
Studies = Mapping[str, Study]  # by the tower's name, two of them


@dataclass(frozen=True, eq=False)
class Towers:
    """Both studies; or none, why, and the command that makes what is missing."""

    studies: Studies
    missing: str = ""
    command: str = ""


def compared(profile: str) -> Towers:
    """The studies of a profile and of its sibling with the ViT, `<profile>-vit`; either may be named."""
    base = profile.removesuffix("-vit")
    try:
        profiles = [load_profile(name) for name in (base, f"{base}-vit")]
        towers = [TOWERS[found.parts.tower].name for found in profiles]
    except ProfileError:
        return Towers({}, f"there is no pair of profiles {base} and {base}-vit", "make book PROFILE=embedded")
    for found in profiles:
        try:
            models.identity(found)
        except FileNotFoundError:
            make = f"python -m kn_core.train_projection --profile {found.name} --coco DIR"
            return Towers({}, f"the projection of the profile {found.name} is not trained", make)
    return Towers({tower: Study(found) for tower, found in zip(towers, profiles, strict=True)})


def both(studies: Studies) -> list[str]:
    """The concepts that are studied with both towers."""
    first, second = studies.values()
    return [concept for concept in first.studied() if concept in second.studied()]


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


def shared_neurons(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """A concept's best two-stage neurons with one tower against those with the other: the decoder's, so comparable.

    Columns concept, shared, jaccard, jaccard_chance (its mean when both sets are drawn uniformly: hypergeometric),
    expected_layers (how many they would share when drawn with their own number in each layer), p (of as many or more,
    uniformly), p_holm, and jaccard_others, the mean against the other tower's sets of *other* concepts: what neurons
    that every concept has would give by themselves.
    """
    budget = min(study.profile.identification.budget for study in studies.values())
    sets = {(tower, concept): _best(study, concept, budget) for tower, study in studies.items() for concept in concepts}
    first, second = studies
    shape = studies[first].scores(concepts[0])["delta"].shape[1:]
    pairs = {(row["one"], row["other"]): row for row in overlap(sets, shape).to_dict("records")}
    rows = []
    for concept in concepts:
        own = pairs[(first, concept), (second, concept)]
        others = [
            row["jaccard"]
            for (one, other), row in pairs.items()
            if one[0] != other[0] and one[1] != other[1] and concept in (one[1], other[1])
        ]
        sizes = [len(sets[tower, concept]) for tower in studies]
        row = {"concept": concept, "shared": own["shared"], "jaccard": own["jaccard"]}
        row["jaccard_chance"] = jaccard_by_chance(sizes[0], sizes[1], int(np.prod(shape)))
        row |= {"expected_layers": own["expected_layers"], "p": own["p"]}
        rows.append(row | {"jaccard_others": float(np.mean(others)) if others else np.nan})
    frame = pd.DataFrame(rows)
    frame.insert(6, "p_holm", holm(frame["p"]))
    return frame


def _best(study: Study, concept: str, budget: int) -> set[Neuron]:
    neurons = study.neurons(concept)
    best = neurons[(neurons["method"] == "two-stage") & (neurons["rank"] < budget)]
    return set(zip(best["layer"].tolist(), best["unit"].tolist(), strict=True))


def jaccard_by_chance(one: int, other: int, total: int) -> float:
    """Mean Jaccard index of two sets of these sizes drawn uniformly from `total`; NaN where both are empty."""
    if one + other == 0:
        return np.nan
    shared = np.arange(min(one, other) + 1)
    return float(hypergeom.pmf(shared, total, one, other) @ (shared / (one + other - shared)))


def verdicts(studies: Studies) -> pd.DataFrame:
    """The claims that the main setting decides, with each tower's verdict on them, on all that it has studied.

    Columns claim, page, statement, for each tower its verdict (under the tower's name) and estimate, `<tower>, ours`,
    with its interval `<tower>, low` and `<tower>, high`, and `differ`.
    """
    frame = pd.DataFrame()
    for tower, study in studies.items():
        measured = [
            *evidence.pair_counts(study.pairs()),
            *evidence.in_range({concept: study.thresholds(concept) for concept in study.studied()}),
            evidence.late_share(study.neurons(), study.profile.identification.budget, study.n_layers),
            *evidence.effects(study.perturbations(), study.profile),
        ]
        there = {measurement.name for measurement in measured}
        asked = [claim for claim in claims.load_claims() if claim.statistic in there]
        found = claims.table(asked, measured, study.profile.shares_with_paper).set_index("claim")
        if frame.empty:
            frame = found[["page", "statement"]].copy()
        frame[tower] = found["verdict"]
        frame[[f"{tower}, {name}" for name in ("ours", "low", "high")]] = found[["ours", "low", "high"]]
    first, second = studies
    frame["differ"] = frame[first] != frame[second]
    return frame.reset_index()
