"""Two profiles that differ in one part of the model, studied on the same scenes.

A profile's sibling is called `<profile>-<suffix>`: the same decoder behind another tower, or behind another connector.
The decoder's neurons are the same ones, so the sets that both studies find can be laid on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from scipy.stats import hypergeom

from book import tables
from book.page import save_figure
from book.words import NotRun
from kn_core import models
from kn_core.fingerprint import writing
from kn_core.measures.overlap import Neuron, overlap
from kn_core.measures.stats import holm
from kn_core.profile import Profile, ProfileError, load_profile
from kn_core.study.study import Study

Studies = Mapping[str, Study]  # two of them, by what tells them apart


def siblings(profile: str, suffix: str, label: Callable[[Profile], str]) -> Studies:
    """The studies of a profile and of its sibling; either may be named. Loads no model. Raises NotRun."""
    base = profile.removesuffix(f"-{suffix}")
    try:
        found = [load_profile(name) for name in (base, f"{base}-{suffix}")]
        labels = [label(one) for one in found]
    except ProfileError as error:
        raise NotRun(
            f"there is no pair of profiles {base} and {base}-{suffix}", "make book PROFILE=embedded"
        ) from error
    for one in found:
        try:
            models.identity(one)
        except FileNotFoundError as error:
            make = f"python -m kn_core.training --profile {one.name} --coco DIR"
            raise NotRun(f"the projection of the profile {one.name} is not trained", make) from error
    return {name: Study(one) for name, one in zip(labels, found, strict=True)}


def both(studies: Studies, concept: str | None = None) -> list[str]:
    """The concepts that are studied in both, or only `concept`. Raises NotRun where there is none."""
    first, second = studies.values()
    shared = [name for name in first.studied() if name in second.studied() and concept in (None, name)]
    if not shared:
        raise NotRun(f"no {concept or 'concept'} has pairs in both studies")
    return shared


def shared_neurons(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """A concept's best two-stage neurons in one study against those in the other.

    Columns concept, shared, of (the smaller set), jaccard, jaccard_chance (its mean when both sets are drawn uniformly:
    hypergeometric), expected_layers (how many they would share when drawn with their own number in each layer), p (of
    as many or more, uniformly), shared_others and jaccard_others (means against the other study's sets of *other*
    concepts: what neurons that every concept has would give by themselves), p_holm.
    """
    budget = min(study.profile.identification.budget for study in studies.values())
    sets = {(name, concept): _best(study, concept, budget) for name, study in studies.items() for concept in concepts}
    first, second = studies
    shape = studies[first].scores(concepts[0])["delta"].shape[1:]
    pairs = {(row["one"], row["other"]): row for row in overlap(sets, shape).to_dict("records")}
    rows = []
    for concept in concepts:
        own = pairs[(first, concept), (second, concept)]
        sizes = [len(sets[name, concept]) for name in studies]
        row = {"concept": concept, "shared": own["shared"], "of": min(sizes), "jaccard": own["jaccard"]}
        row["jaccard_chance"] = jaccard_by_chance(sizes[0], sizes[1], int(np.prod(shape)))
        row |= {"expected_layers": own["expected_layers"], "p": own["p"]}
        for reading in ("shared", "jaccard"):
            others = [
                pair[reading]
                for (one, other), pair in pairs.items()
                if one[0] != other[0] and one[1] != other[1] and concept in (one[1], other[1])
            ]
            row[f"{reading}_others"] = float(np.mean(others)) if others else np.nan
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"]))


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


def compared_on(studies: Studies, concepts: Sequence[str]) -> str:
    names = " and ".join(f"`{study.profile.name}` ({name})" for name, study in studies.items())
    return f"Compared on {', '.join(concepts)}: {names}."


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a page shows of two studies.

    Its tables and figures are saved beside the first study, as `<prefix>_<name><ending>`.
    """

    prefix: str
    notice: str
    words: Mapping[str, str]
    frames: Mapping[str, pd.DataFrame]
    readable: Mapping[str, pd.DataFrame]
    studies: Studies
    ending: str = ""

    def table(self, name: str, caption: str) -> Styler:
        """One of the tables, whose frame is also saved."""
        path = self._first.folder / "tables" / f"{self.prefix}_{name}{self.ending}.csv"
        with writing(path) as temporary:
            self.frames[name].to_csv(temporary, index=False)
        return tables.table(self.readable[name], caption)

    def save_figure(self, figure: Figure, name: str) -> None:
        save_figure(self._first, figure, f"{self.prefix}_{name}{self.ending}")

    @property
    def _first(self) -> Study:
        return next(iter(self.studies.values()))
