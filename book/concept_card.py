"""What came out for each concept, where it stands among the others, and in what it differs from them."""

from __future__ import annotations

import html
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from book.perturbation import ownership, readings
from book.perturbation.readings import OF
from book.pictures import data_address
from book.words import CHANGE, interval, listed
from kn_core.concepts import slug
from kn_core.measures.stats import SIGNED, Estimate, estimate
from kn_core.measures.summaries import main_retention
from kn_core.study.experiments.ownership import cross
from kn_core.study.study import Study

SILENCED = 0.5  # share of a word's probability: where noise takes more, it is said to silence the word


@dataclass(frozen=True)
class Result:
    """A concept under the main noise on its own neurons, and whose neurons they are."""

    concept: str
    pictures: int  # held-out ones
    crossed: int  # of these, those that noise on every concept's neurons was tried on
    suppression: Estimate  # over these pictures, as retention
    random: float  # suppression under noise on as many random neurons
    retention: Estimate
    kept_of: str  # what that is a share of: the reading of S_re that leads
    selectivity: Estimate  # share of its word's probability that its own noise takes, less others': over the others
    own: int  # neurons in no other concept's set
    shared: int  # in every set
    silences: tuple[str, ...]  # concepts whose word loses more than `SILENCED` to noise on its neurons
    silenced_by: tuple[str, ...]

    @property
    def lost(self) -> str:
        return interval(*self.suppression.ends, "{:z.0%}")

    @property
    def kept(self) -> str:
        return interval(*self.retention.ends, "{:z.0%}")


RANKED: dict[str, Callable[[Result], float]] = {
    "suppression": lambda one: one.suppression.value,
    "retention": lambda one: one.retention.value,
    "selectivity": lambda one: one.selectivity.value,
    "own": lambda one: one.own,
    "silences": lambda one: len(one.silences),
    "silenced_by": lambda one: len(one.silenced_by),
}
EXTREMES = {  # what the least and the largest of all concepts does
    "suppression": ("loses its name least often", "loses its name most often"),
    "retention": ("keeps least of the rest", "keeps most of the rest"),
    "selectivity": ("has the least selective neurons", "has the most selective neurons"),
    "own": ("has the fewest neurons of its own", "has the most neurons of its own"),
    "silences": ("silences the fewest others", "silences the most others"),
    "silenced_by": ("is silenced by the fewest others", "is silenced by the most others"),
}


def results(study: Study) -> dict[str, Result]:
    """Every studied concept's numbers, by its name."""
    concepts, budget, perturbations = study.studied(), study.profile.identification.budget, study.perturbations()
    reading = main_retention(perturbations)
    rows = readings.by_concept(perturbations, study.profile).to_dict("records")
    means = {(row["method"], row["metric"], row["concept"]): row for row in rows}
    crossed = pd.concat([cross(study, concept) for concept in concepts], ignore_index=True)
    silenced = ownership.silenced(crossed).to_dict("records")
    seen = {row["image_concept"]: int(row["n"]) for row in silenced}
    lost = {(row["concept"], row["image_concept"]): float(row["probability"]) for row in silenced}
    tops = {name: study.neuron_set(name).top(budget) for name in concepts}
    sets = {name: set(zip(top.layers.tolist(), top.units.tolist(), strict=True)) for name, top in tops.items()}
    found = {}
    for one in concepts:
        others = [name for name in concepts if name != one]
        foreign = [lost[name, one] for name in others]
        ours, kept = (_estimate(means["two-stage", metric, one]) for metric in ("suppression", reading))
        found[one] = Result(
            one,
            int(means["two-stage", "suppression", one]["n_images"]),
            seen[one],
            ours,
            float(means["random", "suppression", one]["value"]),
            kept,
            OF[reading],
            estimate((lost[one, one] - value for value in foreign), within=SIGNED),
            len(sets[one].difference(*(sets[name] for name in others))),
            len(set.intersection(*sets.values())),
            tuple(name for name in others if lost[one, name] > SILENCED),
            tuple(name for name in others if lost[name, one] > SILENCED),
        )
    return found


def frame(found: dict[str, Result]) -> pd.DataFrame:
    """`results` as a table, a row a concept: an estimate in three columns, concepts' names joined by commas."""
    rows: list[dict[str, object]] = []
    for one in found.values():
        rows.append({})
        for key, value in vars(one).items():
            if isinstance(value, Estimate):
                rows[-1] |= dict(zip((key, f"{key}_low", f"{key}_high"), value.ends, strict=True))
            else:
                rows[-1][key] = ", ".join(value) if isinstance(value, tuple) else value
    return pd.DataFrame(rows)


def on_its_page(study: Study, concept: str) -> str:
    """`card` and `different` for the concept's own page; where the others have not been computed, how they are."""
    if not study.tried() or concept not in study.studied():
        return (
            "<p>What came out for it beside all others is told once these are computed, by <code>make book</code>.</p>"
        )
    found = results(study)
    return f"{card(found, concept)}<p>{html.escape(different(found, concept))}.</p>"


def card(found: dict[str, Result], concept: str) -> str:
    """A concept's numbers as HTML, beside where it stands among all."""
    one, others = found[concept], [name for name in found if name != concept]
    cells = {
        "suppression: captions that lose the name": (
            one.lost,
            f"{_rank(found, concept, 'suppression')}; random: {one.random:.0%}",
        ),
        f"retention: of {one.kept_of.removeprefix('the ')}": (one.kept, _rank(found, concept, "retention")),
        "selectivity: its own noise, less others’": (
            interval(*one.selectivity.ends, CHANGE),
            _rank(found, concept, "selectivity"),
        ),
        "neurons of its own": (f"{one.own}", f"{one.shared} are in the set of every concept"),
        "its noise silences": (_names(one.silences, others), f"beyond {SILENCED:.0%} of a word’s probability"),
        "silenced by noise on those of": (
            _names(one.silenced_by, others),
            f"{one.crossed} pictures of each",
        ),
    }
    shown = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}<small>{html.escape(note)}</small></dd></div>"
        for name, (value, note) in cells.items()
    )
    return f'<dl class="result">{shown}</dl>'


def different(found: dict[str, Result], concept: str) -> str:
    """In what it is the first or the last of all concepts, alone: 'Of all 9 concepts, bus keeps least of the rest'."""
    said = []
    for name, of in RANKED.items():
        here, others = of(found[concept]), [of(one) for one in found.values() if one.concept != concept]
        if others and (here < min(others) or here > max(others)):
            said.append(EXTREMES[name][here > max(others)])
    return (
        f"Of all {len(found)} concepts, {concept} {listed(said)} (by its means: their intervals may overlap)"
        if said
        else f"Neither first nor last of the {len(found)} concepts in any of these numbers"
    )


def ends(found: dict[str, Result]) -> dict[str, str]:
    """The concepts whose name is lost 'least' and 'most', with how often; all of them where several share a place."""
    values = [one.suppression.value for one in found.values()]
    ends = {"least": min(values), "most": max(values)}
    return {
        which: listed([f"“{one.concept}” ({one.lost})" for one in found.values() if one.suppression.value == end])
        for which, end in ends.items()
    }


def gallery(study: Study, found: dict[str, Result]) -> str:
    """Every concept with its first held-out picture, its numbers and what is different about it, as HTML."""
    cards = []
    for concept, one in found.items():
        first = study.pairs(concept).query("role == 'held_out'")["image_id"].iloc[0]
        cards.append(
            f'<a href="concepts/{slug(concept)}.html"><img loading="lazy" alt="A picture with: {html.escape(concept)}" '
            f'src="{data_address(study.sample(concept, first).image)}"><strong>{html.escape(concept)}</strong>'
            f"<span>name lost: {one.lost}</span><span>rest kept: {one.kept}</span>"
            f"<small>{html.escape(different(found, concept))}.</small></a>"
        )
    return f'<div class="concepts">{"".join(cards)}</div>'


def _estimate(row: Mapping[Hashable, Any]) -> Estimate:
    return Estimate(float(row["value"]), float(row["low"]), float(row["high"]))


def _rank(found: dict[str, Result], concept: str, name: str) -> str:
    of = RANKED[name]
    return f"place {1 + sum(of(one) > of(found[concept]) for one in found.values())} of {len(found)}"


def _names(some: Sequence[str], others: Sequence[str]) -> str:
    """'bed and bus'; of most of the others 'all others but bed'."""
    left = [name for name in others if name not in some]
    if not some or not left:
        return "all others" if some else "no other"
    return listed(some) if len(some) <= len(left) else f"all others but {listed(left)}"
