"""One decoder behind two vision towers: which conclusions depend on the tower?

Two studies of the same scenes in, tidy frames out. A tower's own trained layer comes with it: what differs between the
studies is the tower, its grid, and how well the layer was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from book.claims import evidence, rules
from book.other_models.two_studies import Comparison, Studies, both, compared_on, shared_neurons, siblings
from book.tables import P_HOLM
from book.words import compared_with_zero, indexed, interval
from kn_core.measures.metrics import differences, headline, per_image, perplexity_limit
from kn_core.measures.stats import cluster_interval, each_alone
from kn_core.models import TOWERS
from kn_core.study.study import Study

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
        asked = [claim for claim in rules.load_claims() if claim.statistic in there]
        found = rules.table(asked, measured, study.profile.shares_with_paper).set_index("claim")
        if frame.empty:
            frame = found[["page", "statement", "measured"]].copy()
        frame[tower] = found["verdict"]
        frame[[f"{tower}, {name}" for name in ("ours", "low", "high")]] = found[["ours", "low", "high"]]
    first, second = studies
    frame["differ"] = frame[first] != frame[second]
    return frame.reset_index()


PREFIX = "towers"  # of the files that the page writes
QUANTITIES = {
    "naming": "captions that name the concept",
    "suppression": "Sₛₑ, two-stage",
    "suppression-random": "Sₛₑ, random",
    "suppression-over-random": "Sₛₑ, two-stage minus random",
    "retention": "Sᵣₑ, two-stage",
    "retention-random": "Sᵣₑ, random",
    "retention-over-random": "Sᵣₑ, two-stage minus random",
    "fluent": "fluent captions, two-stage",
    "fluent-random": "fluent captions, random",
    "fluent-over-random": "fluent captions, two-stage minus random",
    "first-third": "neurons in the first third of the layers",
    "middle-third": "neurons in the middle third",
    "last-third": "neurons in the last third",
}


def page(studies: Studies) -> Comparison:
    """Everything that the page shows of two studies, computed or loaded. Raises NotRun."""
    concepts = both(studies)
    frames = {
        "compared": compare(studies, concepts),
        "shared": shared_neurons(studies, concepts),
        "verdicts": verdicts(studies, concepts),
    }
    towers = list(studies)
    readable = {
        "compared": compared_for_readers(frames["compared"], towers),
        "shared": shared_for_readers(frames["shared"]),
        "verdicts": verdicts_for_readers(frames["verdicts"], towers),
    }
    words = in_words(frames["compared"], frames["shared"], frames["verdicts"], towers)
    words["concepts"] = str(len(concepts))
    return Comparison(PREFIX, compared_on(studies, concepts), words, frames, readable, studies)


def compared_for_readers(frame: pd.DataFrame, towers: list[str]) -> pd.DataFrame:
    """`two_towers.compare`, a row a quantity: each tower's value, and the difference, with 95 % intervals."""
    cells = {place: interval(*row) for place, row in _by_place(frame).items()}
    headings = dict.fromkeys(towers) | {DIFFERENCE: None}
    shown = {"quantity": list(QUANTITIES.values())}
    return pd.DataFrame(
        shown | {str(tower): [cells.get((name, tower), "–") for name in QUANTITIES] for tower in headings}
    )


def shared_for_readers(frame: pd.DataFrame) -> pd.DataFrame:
    """`two_towers.shared_neurons` under headings."""
    names = {
        "concept": "concept",
        "shared": "shared",
        "expected_layers": "by layers alone",
        "jaccard": "Jaccard",
        "jaccard_chance": "by chance",
        "jaccard_others": "with other concepts",
        "p_holm": P_HOLM,
    }
    return frame[list(names)].rename(columns=names)


def verdicts_for_readers(frame: pd.DataFrame, towers: list[str]) -> pd.DataFrame:
    """`two_towers.verdicts`, those that differ first: the claim, and each tower's verdict with its number."""
    rows = frame.sort_values("differ", ascending=False, kind="stable")
    shown = {
        "the paper says": rows["statement"].map(indexed).tolist(),
        "measured": rows["measured"].map(indexed).tolist(),
    }
    for tower in towers:
        numbers = rows[[f"{tower}, ours", f"{tower}, low", f"{tower}, high"]].itertuples(index=False)
        shown[tower] = [f"{word}: {interval(*row)}" for word, row in zip(rows[tower], numbers, strict=True)]
    return pd.DataFrame(shown)


def in_words(compared: pd.DataFrame, shared: pd.DataFrame, verdicts: pd.DataFrame, towers: list[str]) -> dict[str, str]:
    """What came out, for sentences; all but the number of concepts."""
    first, second = towers
    rows = _by_place(compared)
    sides = {"first": first, "second": second, "difference": DIFFERENCE}
    words = {"first": first, "second": second}
    for side, tower in sides.items():
        for name in ("naming", "last-third") if side == "difference" else ("naming", "last-third", *MEASURED):
            words[f"{name}-{side}"] = interval(*rows[name, tower])
        for name in MEASURED:
            words[f"{name}-over-{side}"] = interval(*rows[f"{name}-over-random", tower])
    words["naming-told"] = _told(rows["naming", DIFFERENCE], f"{first} names more", f"{second} names more")
    words["works"] = _works({tower: rows["suppression-over-random", tower] for tower in towers})
    words["advantage-told"] = _told(
        rows["suppression-over-random", DIFFERENCE], f"is larger with {first}", f"is larger with {second}"
    )
    words["layers-told"] = _told(rows["last-third", DIFFERENCE], f"{first} has more there", f"{second} has more there")
    moved = [words_ for name, words_ in QUANTITIES.items() if _apart(rows[name, DIFFERENCE])]
    words["depends"] = "; ".join(moved) or "none of them"
    other = verdicts[verdicts["differ"]]
    words["claims"] = str(len(verdicts))
    told = [f"{row['claim']} ({row[first]} with {first}, {row[second]} with {second})" for _, row in other.iterrows()]
    words["differ"] = f"{len(other)} of {len(verdicts)}" + (f": {'; '.join(told)}" if told else "")
    words["jaccard"] = interval(*_over_concepts(shared["jaccard"]))
    words["jaccard-chance"] = f"{shared['jaccard_chance'].mean():.3f}"
    words["jaccard-others"] = interval(*_over_concepts(shared["jaccard_others"]))
    words["shared"] = f"{shared['shared'].mean():.0f}"
    words["beyond-chance"] = f"{int((shared['p_holm'] < 0.05).sum())} of {len(shared)}"
    own = _over_concepts(shared["jaccard"] - shared["jaccard_others"])
    words["same-concept"] = f"{interval(*own)}, {compared_with_zero(*own[1:])}"
    return words


def _by_place(compared: pd.DataFrame) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Each quantity and tower's value with its interval."""
    numbers = zip(compared["value"].tolist(), compared["low"].tolist(), compared["high"].tolist(), strict=True)
    return dict(zip(zip(compared["quantity"], compared["tower"], strict=True), numbers, strict=True))


def _apart(row: tuple[float, float, float]) -> bool:
    """Whether an interval of a difference leaves out zero; one with undefined ends does not."""
    return row[1] > 0 or row[2] < 0


def _told(row: tuple[float, float, float], above: str, below: str) -> str:
    if not _apart(row):
        return "the towers cannot be told apart" if row[1] <= row[2] else "too few concepts to tell"
    return above if row[1] > 0 else below


def _works(over_random: Mapping[str, tuple[float, float, float]]) -> str:
    """The method's first conclusion with each tower: does noise on its neurons suppress more than on random ones?"""
    clear = [tower for tower, row in over_random.items() if row[1] > 0]
    if len(clear) == len(over_random):
        return "With both towers noise on two-stage neurons suppresses more than on random ones of the same layers"
    if clear:
        return f"Only with {clear[0]} is it clear that noise on two-stage neurons suppresses more than on random ones"
    return "With neither tower is it clear that noise on two-stage neurons suppresses more than on random ones"


def _over_concepts(values: pd.Series) -> tuple[float, float, float]:
    found = values.dropna().to_numpy(float)
    if not len(found):
        return (float("nan"),) * 3
    return float(found.mean()), *cluster_interval(each_alone(found))
