"""The third stage: what its contrasts are, and what the chosen ones do to held-out pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from book.choices import ladder as steps
from book.choices.ladder import DONE, cells
from book.choices.whose import SETS, selectivity
from book.claims.rules import Measurement
from book.perturbation.readings import READ_BY, printed
from book.perturbation.references import references
from book.tables import n_pictures
from book.words import CHANGE, interval, listed, of_every, spread
from kn_core.measures.metrics import per_image
from kn_core.measures.stats import GAP
from kn_core.measures.summaries import main_retention, paired, perplexity_limit, summarise, with_intervals
from kn_core.measures.truth import says
from kn_core.method import recipes
from kn_core.pictures.scenes.settings import SETTINGS
from kn_core.study.experiments import ladder
from kn_core.study.experiments.ladder import THIRD
from kn_core.study.study import Study

BETWEEN = {"none": "no contrast", "mean": "minus their mean", "largest": "minus the largest"}
REACHED = ("suppression", "retention_truth", "retention", "retention_probability", "fluent")  # what it is to reach
SELECTIVE = 0.85  # what the selectivity of the third stage was to reach
AIMS = {  # what else was, beside the paper's S_re
    "suppression": ("suppression", 0.85),
    "retention_probability": ("retention by probability", 0.95),
    "fluent": ("fluent captions", 0.9),
}
AIM = 0.1  # how much more of the rest than the object's removal itself the third stage was to keep


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


def smallest(budgets: pd.DataFrame, kept: str, end: str = "value") -> int | None:
    """The fewest neurons that reach the paper's S_se and S_re, as `kept` reads it; None where no number tried does.

    `end`: whether means are to reach it, or ('low') whole intervals.
    """
    wide, paper = budgets.pivot_table(index="n", columns="metric", values=end), printed()
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
    more = cells(with_intervals(paired(images, THIRD, "removal"), [], within=GAP), "metric")
    if not more:
        return "Taking the object out of the picture itself was not tried."
    keeps, leads = cells(with_intervals(images, ["method"]), "method", "metric"), main_retention(perturbations)
    order = [name for name in dict.fromkeys((leads, "retention")) if (name,) in more]
    said = [f"{interval(*keeps['removal', name])} {READ_BY[name]}" for name in order]
    gaps = [f"{interval(*more[name,], CHANGE)} {READ_BY[name]}" for name in order]
    value, low, _ = more[leads,]
    return (
        f"Taking the object out of the picture itself keeps {' and '.join(said)} on the same pictures; the difference "
        f"of the third stage from that is {' and '.join(gaps)}. The aim, {AIM:.2f} above it, is "
        f"{_reached(value, low, AIM)}. {_by_kind(both)}"
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
    last = list(recipes.LADDER.values())[-1]
    words["steps"] = f"which are {'those' if recipe == last else 'not those'} of the last step"
    aims = [
        f"{said} {aim:.2f}, {_reached(*found_here[name,][:2], aim)}"
        for name, (said, aim) in AIMS.items()
        if (name,) in found_here
    ]
    words["aims"] = f"The aims that were set before anything was measured: {'; '.join(aims)}"
    kept = main_retention(study.perturbations())
    words |= {"smallest": _smallest(budgets, kept), "surely": _smallest(budgets, kept, "low")}
    foreign = found[found["whose"] == "other"].set_index("method")["n_images"]
    there = [f"{foreign[method]}" for method in SETS if method in foreign]
    words["foreign"] = listed(there if len(set(there)) > 1 else there[:1]) if there else "no"
    ends = cells(found, "method", "whose")
    words["aim-selective"] = _aim(*ends.get((THIRD, "own - other"), nothing), SELECTIVE)
    for key, method in (("before", "two-stage"), ("plain", "no contrasts"), ("after", THIRD)):
        for whose in ("own", "other", "own - other"):
            name = whose.replace(" - ", "-")
            words[f"{key}-{name}"] = interval(*ends[method, whose]) if (method, whose) in ends else "–"
    return words


def _aim(value: float, low: float, _: float, aim: float) -> str:
    """Whether an aim that was set before anything was measured is reached."""
    if math.isnan(value):
        return f"The aim, {aim:.2f}, was not tried"
    return f"The aim for the third stage, {aim:.2f}, is {_reached(value, low, aim)}"


def _reached(value: float, low: float, aim: float) -> str:
    return "reached" if low >= aim else "reached, but not beyond doubt" if value >= aim else "missed"


def _smallest(budgets: pd.DataFrame, kept: str, end: str = "value") -> str:
    """`smallest` in the reading that leads, then by words, where that is another one."""
    found = {name: smallest(budgets, name, end) for name in dict.fromkeys((kept, "retention"))}
    said = {name: f"{least} neurons" if least else "none of the numbers tried" for name, least in found.items()}
    return "; ".join(f"{READ_BY[name]}, {of}" for name, of in said.items())


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
