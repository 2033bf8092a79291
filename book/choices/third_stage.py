"""The third stage: what its contrasts are, what the chosen ones do to held-out pictures, and whose neurons are left."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from book.choices import ladder as steps
from book.choices.ladder import DONE, cells
from book.claims.rules import Measurement
from book.perturbation.readings import READ_BY, printed
from book.perturbation.references import references
from book.tables import n_pictures
from book.words import interval, of_every, spread, told
from kn_core.measures.metrics import (
    headline,
    main_retention,
    paired,
    per_image,
    perplexity_limit,
    probability_suppression,
    summarise,
    with_intervals,
)
from kn_core.measures.overlap import overlap
from kn_core.measures.stats import Estimate, estimate
from kn_core.measures.truth import says
from kn_core.method.recipes import Recipe
from kn_core.pictures.scenes.settings import SETTINGS
from kn_core.study.experiments import companions, ladder
from kn_core.study.experiments.ladder import THIRD
from kn_core.study.study import Study

BETWEEN = {"none": "no contrast", "mean": "minus their mean", "largest": "minus the largest"}
REACHED = ("suppression", "retention_truth", "retention", "retention_probability", "fluent")  # what it is to reach
AIM = 0.1  # how much more of the rest than the object's removal itself the third stage was to keep
SETS = {"two-stage": "two stages, the paper’s recipe", "no contrasts": "no contrasts", THIRD: "third stage"}


def of_all(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """`ladder.third_stage` of every concept. Raises NotRun where there are no pictures."""
    return of_every(ladder.third_stage, study, concepts)


def chosen_on(study: Study) -> str:
    """'n = 18 pictures, which chose the neurons', of `ladder.compared`."""
    tried = pd.concat([ladder.contrasts(study, concept) for concept in study.studied()])
    return f"{n_pictures(tried)}, which chose the neurons"


def settings_for_readers(compared: pd.DataFrame) -> pd.DataFrame:
    """`ladder.compared` for a reader, the chosen one first."""
    return pd.DataFrame(
        {
            "λ within the caption": compared["within"].map("{:g}".format),
            "between concepts": compared["between"].map(BETWEEN),
            "μ between places": compared["places"].map("{:g}".format),
            "neurons": compared["intervention"].map(DONE),
            "lost": compared["suppression_probability"],
            "kept": compared["retention_probability"],
            "harmonic mean": compared["harmonic"],
        }
    )


def by_budget(rows: pd.DataFrame, limit: float = math.inf) -> pd.DataFrame:
    """The third stage over the number of neurons: `summarise` by n, on the pictures that all numbers were tried on."""
    own = rows[(rows["method"] == THIRD) & (rows["concept"] == rows["image_concept"])]
    tried = own.groupby("image_id")["n"].nunique()
    shown = own[own["image_id"].isin(tried[tried == own["n"].nunique()].index)]
    return summarise(shown, ["n"], perplexity_limit=limit).sort_values(["metric", "n"], ignore_index=True)


def smallest(budgets: pd.DataFrame, kept: str) -> int | None:
    """The fewest neurons that reach the paper's S_se and S_re, as `kept` reads it; None where no number tried does."""
    wide, paper = budgets.pivot_table(index="n", columns="metric", values="value"), printed()
    reach = (wide["suppression"] >= paper["suppression"]) & (wide[kept] >= paper["retention"])
    return min((int(n) for n in wide.index[reach].tolist()), default=None)


def main(rows: pd.DataFrame, budget: int, limit: float = math.inf) -> pd.DataFrame:
    """The chosen setting at the profile's budget: `summarise` of it, a row a metric."""
    own = rows[(rows["method"] == THIRD) & (rows["n"] == budget) & (rows["concept"] == rows["image_concept"])]
    return summarise(own, [], perplexity_limit=limit)


def beside_removal(perturbations: pd.DataFrame, rows: pd.DataFrame, budget: int, limit: float = math.inf) -> str:
    """What the object's removal itself keeps of the pictures of `main`, and the third stage more or less than that."""
    removal = references(perturbations).query("method == 'removal'")
    both = pd.concat([rows[(rows["method"] == THIRD) & (rows["n"] == budget)], removal])
    both = both[both["concept"] == both["image_concept"]]
    images = per_image(both, ["method"], perplexity_limit=limit)
    images = images[images["metric"].isin(["retention", "retention_truth"])]
    more = cells(with_intervals(paired(images, THIRD, "removal"), []), "metric")
    if not more:
        return "Taking the object out of the picture itself was not tried."
    keeps, leads = cells(with_intervals(images, ["method"]), "method", "metric"), main_retention(perturbations)
    order = [name for name in dict.fromkeys((leads, "retention")) if (name,) in more]
    said = [f"{interval(*keeps['removal', name])} {READ_BY[name]}" for name in order]
    gaps = [f"{interval(*more[name,], '{:+.2f}')} {READ_BY[name]}" for name in order]
    value, low, _ = more[leads,]
    reached = "reached" if low >= AIM else "reached, but not beyond doubt" if value >= AIM else "missed"
    return (
        f"Taking the object out of the picture itself keeps {' and '.join(said)} on the same pictures; the difference "
        f"of the third stage from that is {' and '.join(gaps)}. The aim, {AIM:.2f} above it, is {reached}. "
        + _by_kind(both)
    )


def _by_kind(rows: pd.DataFrame) -> str:
    """What the third stage and the removal keep of the other objects and of the place, told truly and apart."""
    of_each = rows.assign(thing=rows["truths"].str.split(", ")).explode("thing").query("thing != ''")
    kept = [says(*pair) for pair in of_each[["caption", "thing"]].itertuples(index=False)]
    kinds = ["place" if thing in SETTINGS else "object" for thing in of_each["thing"]]
    of_each = of_each.assign(value=np.array(kept, float), metric=kinds)
    images = of_each.groupby(["method", "metric", "image_concept", "image_id"])["value"].mean().reset_index()
    ends = cells(with_intervals(images, ["method"]), "metric", "method")
    if len(ends) < 4:
        return ""
    said = {key: interval(*each) for key, each in ends.items()}
    return (
        f"Of the other objects that are told truly the third stage keeps {said['object', THIRD]} and the removal "
        f"{said['object', 'removal']}, of the places {said['place', THIRD]} and {said['place', 'removal']}."
    )


def selectivity(study: Study, rows: pd.DataFrame, climbed: pd.DataFrame, concepts: Sequence[str]) -> pd.DataFrame:
    """Share of a word's probability that a set takes: columns method, whose ('own', 'other', 'own - other'), ends, n.

    A concept's own word on its own pictures, and other concepts' words on theirs; the difference is its selectivity.
    `climbed` (`choices.ladder.of_all`) has what neurons without contrasts take from their own.
    """
    budget = study.profile.identification.budget
    before = headline(study.perturbations(), study.effort).query("method == 'two-stage' and seed == 0")
    how = rows["intervention"].iloc[0]
    plain = climbed[(climbed["method"] == "one product") & (climbed["intervention"] == how)]
    at_budget = rows[rows["n"] == budget]
    found = pd.concat([before, plain.assign(method="no contrasts"), at_budget])
    found = found[found["method"].isin(SETS) & found["concept"].isin(list(concepts))]
    lost = probability_suppression(found["clean_probability"], found["target_probability"])
    found = found.assign(lost=lost, own=found["concept"] == found["image_concept"])
    sides = found.pivot_table("lost", ["method", "concept"], "own").reindex(columns=[True, False]).dropna()
    n = found.groupby(["method", "own"])["image_id"].nunique()
    records = []
    for method in SETS:
        if method not in sides.index:
            continue
        of = sides.loc[method]
        gap, by = of[True] - of[False], n[method]  # the gap is over concepts, whose pictures are those of both
        for whose, values, seen in (
            ("own", of[True], by[True]),
            ("other", of[False], by[False]),
            ("own - other", gap, 0),
        ):
            ends = estimate(values)
            records.append((method, whose, *ends.ends, ends.n, seen))
    return pd.DataFrame(records, columns=["method", "whose", "value", "low", "high", "n_concepts", "n_images"])


def selectivity_for_readers(found: pd.DataFrame) -> pd.DataFrame:
    """`selectivity`, a row a set."""
    ends = cells(found, "method", "whose")
    names = {"own": "its own word loses", "other": "other words lose", "own - other": "its own, less others"}
    rows = [
        {"neurons": SETS[method]} | {names[whose]: interval(*ends[method, whose]) for whose in names}
        for method in SETS
        if (method, "own") in ends
    ]
    return pd.DataFrame(rows)


def common(study: Study, concepts: Sequence[str]) -> pd.DataFrame:
    """What two concepts' sets have in common: columns method, shared (mean number), expected (by chance), n (pairs)."""
    recipe, how = ladder.choice(study)
    budget, width = study.profile.identification.budget, study.pooled(concepts[0])["delta"].shape
    records = []
    for method in SETS:
        sets = {}
        for concept in concepts:
            found = (
                study.neuron_set(concept)
                if method == "two-stage"
                else ladder.neurons(study, concept, recipe if method == THIRD else Recipe(), how)
            ).top(budget)
            sets[concept] = set(zip(found.layers.tolist(), found.units.tolist(), strict=True))
        pairs = overlap(sets, width)
        if len(pairs):
            records.append((method, pairs["shared"].mean(), pairs["expected"].mean(), len(pairs)))
    return pd.DataFrame(records, columns=["method", "shared", "expected", "n"])


def drops(study: Study, concepts: Sequence[str]) -> pd.DataFrame | None:
    """`companions.companions` of every concept; None where pictures are photographs, into which nothing is planted."""
    if study.profile.data.source != "scenes":
        return None
    return pd.concat([companions.companions(study, concept) for concept in concepts], ignore_index=True)


def dropped(found: pd.DataFrame, column: str) -> Estimate:
    """Share dropped of the companion's neurons minus that of the concept's own; `column` is the stage's."""
    counted = found[(found["kind"] != "") & (found["candidates"] > 0)]
    share = (counted[column] / counted["candidates"]).rename("share")
    wide = counted.join(share).pivot_table(index=["concept", "image_id"], columns="kind", values="share")
    wide = wide.reindex(columns=["companion", "own"]).dropna()
    return estimate(wide["companion"] - wide["own"], wide.index.get_level_values("concept"))


def planted_in_words(found: pd.DataFrame | None) -> dict[str, str]:
    """The planted companions for sentences; without a frame the same keys with dashes."""
    if found is None:
        keys = ("gap-two", "gap-third", "own-two", "own-third", "companion-two", "companion-third", "scenes", "finding")
        return dict.fromkeys(keys, "–") | {"note": "Nothing can be planted in this profile’s photographs."}
    two, third = dropped(found, "dropped"), dropped(found, "third_dropped")
    counted = found[found["kind"] != ""].groupby("kind")[["candidates", "best", "third_best"]].sum()
    parts = counted / counted.sum().clip(lower=1)
    words = {"note": "", "scenes": f"{found[found['kind'] != '']['image_id'].nunique()}"}
    words |= {"gap-two": spread(*two.ends, "{:+.2f}"), "gap-third": spread(*third.ends, "{:+.2f}")}
    for kind in ("own", "companion"):
        words |= {f"{kind}-two": f"{parts['best'].get(kind, math.nan):.0%}"}
        words |= {f"{kind}-third": f"{parts['third_best'].get(kind, math.nan):.0%}"}
    words["finding"] = told(
        *third.ends[1:],
        "The third stage drops the companion's neurons more often than the concept's own.",
        "The third stage, too, drops the concept's own neurons more often.",
        "Nothing here shows that the third stage tells the two apart.",
        "Too few scenes count to say whether the third stage tells the two apart.",
    )
    return words


def in_words(study: Study, rows: pd.DataFrame, found: pd.DataFrame, limit: float) -> dict[str, str]:
    """The chosen setting and what it does, for sentences; `found` is `selectivity`."""
    (recipe, how), budget = ladder.choice(study), study.profile.identification.budget
    chosen, budgets = main(rows, budget, limit), by_budget(rows, limit)
    between = BETWEEN[recipe.between] + (f", and {recipe.places:g} between places" if recipe.places else "")
    words = {"lambda": f"{recipe.within:g}", "between": between, "done": DONE[how], "n": f"{budget}"}
    found_here = cells(chosen, "metric")
    nothing = math.nan, math.nan, math.nan
    words |= {metric: spread(*found_here.get((metric,), nothing)) for metric in REACHED}
    words["pictures"] = f"{chosen.loc[chosen['metric'] == 'suppression', 'n_images'].sum()}"
    tried = sorted(set(budgets["n"]))
    words["tried"] = f"{tried[0]} to {tried[-1]}"
    words["smallest"] = _smallest(budgets, main_retention(study.perturbations()))
    foreign = found[(found["method"] == THIRD) & (found["whose"] == "other")]["n_images"]
    words["foreign"] = f"{foreign.sum()}"
    ends = cells(found, "method", "whose")
    for key, method in (("before", "two-stage"), ("plain", "no contrasts"), ("after", THIRD)):
        for whose in ("own", "other", "own - other"):
            name = whose.replace(" - ", "-")
            words[f"{key}-{name}"] = interval(*ends[method, whose]) if (method, whose) in ends else "–"
    return words


def _smallest(budgets: pd.DataFrame, kept: str) -> str:
    """`smallest` in the reading that leads, then by words, where that is another one with another answer."""
    found = {name: smallest(budgets, name) for name in dict.fromkeys((kept, "retention"))}
    said = {name: f"{least} neurons" if least else "none of the numbers tried" for name, least in found.items()}
    return "; ".join(f"{READ_BY[name]}, {of}" for name, of in said.items() if name == kept or of != said[kept])


def common_in_words(shared: pd.DataFrame) -> dict[str, str]:
    """`common` for sentences."""
    of = shared.set_index("method")
    keys = {"before": "two-stage", "plain": "no contrasts", "after": THIRD}
    numbers = {key: of["shared"].get(method, np.nan) for key, method in keys.items()} | {
        "chance": of["expected"].mean()
    }
    return {f"shared-{key}": "–" if np.isnan(number) else f"{number:.1f}" for key, number in numbers.items()}


def reached(study: Study) -> list[Measurement]:
    """What the third stage reaches on held-out pictures of all concepts, for claims of ours; S_re as it leads."""
    perturbations, rows = study.perturbations(), of_all(study, study.studied())
    chosen = main(rows, study.profile.identification.budget, perplexity_limit(perturbations))
    by, leads = {row["metric"]: row for row in chosen.to_dict("records")}, main_retention(perturbations)
    found = {name: by[leads if name == "retention" else name] for name in REACHED if name != "retention_truth"}
    return [
        Measurement(f"third_{name}", row["value"], row["low"], row["high"], int(row["n_images"]))
        for name, row in found.items()
    ]


def measured(study: Study) -> list[Measurement]:
    """The same, and whose word its neurons take."""
    concepts = study.studied()
    rows, climbed = of_all(study, concepts), steps.of_all(study, concepts)
    found = selectivity(study, rows, climbed, concepts).query("method == @THIRD")
    ends = cells(found, "whose").get(("own - other",))
    own = [Measurement("third_selectivity", *ends, int(found["n_images"].max()))] if ends else []
    return [*reached(study), *own]
