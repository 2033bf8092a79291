"""A linear layer and a Q-Former before one decoder: what the method finds with each, and where the neurons look.

The queries of a Q-Former have no place in the picture; what that costs their maps is measured here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from book.claims.evidence import late_share
from book.faithfulness import maps
from book.other_models.two_studies import DIFFERENCE, MEASURED, Ends, Studies, ends, with_variant, works
from book.perturbation import references
from book.style import READINGS
from book.words import compared_with_zero, interval, told
from kn_core.measures.stats import GAP, estimate
from kn_core.study.experiments import query_maps

LINEAR, QUERIES = "linear layer", "Q-Former"
SHORT = {LINEAR: "linear", QUERIES: "queries"}  # in the names of words
SIDES = {"": "both stages", "-random": "random", "-over-random": "difference"}  # suffix of a quantity -> heading
MAPS = {  # name of a map -> what it is to a reader of figures, and of tables
    "own": ("two-stage neurons", "neurons, over the tokens' maps"),
    "exchanged": ("... queries exchanged", "neurons, over the map of another query"),
    "plain": ("... plain rollout", "neurons, over plain rollout"),
    "random": ("random neurons", "random neurons of the same layers, over the same maps"),
    "any": ("all queries alike", "all queries alike"),
    "single": ("the best single query", "the one query that looks at the object most"),
}


def studies(profile: str) -> Studies:
    """The profile and its variant with a Q-Former, `<profile>-qformer`, by their connectors. Raises NotRun."""
    return with_variant(profile, "qformer", lambda found: QUERIES if found.parts.connector == "q-former" else LINEAR)


def identified(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """What both stages find, a row a model and concept.

    Columns model, concept, captioned (pictures), named (of them, those whose caption names the concept), kept (pairs),
    neurons (that pass both stages), late (share of the best in the upper two thirds of the layers).
    """
    rows = []
    for model, study in studies.items():
        budget = study.profile.identification.budget
        for concept in concepts:
            pairs, neurons = study.pairs(concept), study.neurons(concept)
            captioned, named = ((pairs[column] != "").sum() for column in ("caption", "target_word"))
            passing = (neurons["method"] == "two-stage").sum()
            late = late_share(neurons, study.n_layers, budget).value
            rows.append((model, concept, captioned, named, pairs["kept"].sum(), passing, late))
    columns = ["model", "concept", "captioned", "named", "kept", "neurons", "late"]
    return pd.DataFrame(rows, columns=columns)


def identified_for_readers(found: pd.DataFrame) -> pd.DataFrame:
    """`identified`, a row a model: means over concepts with 95 % intervals."""
    values = {
        "captions that name the concept": found["named"] / found["captioned"],
        "pairs kept": found["kept"],
        "neurons of both stages": found["neurons"],
        "of the best, in later layers": found["late"],
    }
    means = pd.DataFrame(values).groupby(found["model"], sort=False).agg(_mean_in_words)
    return means.rename_axis("model").reset_index()


def _mean_in_words(values: pd.Series) -> str:
    return interval(*estimate(values).ends, "{:.0f}" if values.max() > 1 else "{:.2f}")


def identified_in_words(found: pd.DataFrame, shared: pd.DataFrame) -> dict[str, str]:
    """`identified` and `two_studies.shared_neurons` for sentences."""
    medians = found.groupby("model")["neurons"].median()
    return {f"neurons-{short}": f"{medians[model]:,.0f}" for model, short in SHORT.items()} | {
        "shared": f"{shared['shared'].mean():.0f} of {shared['of'].mean():.0f}",
        "shared-expected": f"{shared['expected_layers'].mean():.1f}",
        "shared-others": f"{shared['shared_others'].mean():.0f}",
    }


def effects(compared: pd.DataFrame) -> pd.DataFrame:
    """What `two_studies.compare` says of the main setting, a row a model and metric.

    Columns metric, then value, low, high of the two-stage neurons, n_images, n_concepts, the same of the random ones
    (`random_value`, ...) and of the difference picture by picture (`difference_value`, ...), and model.
    """
    rows = []
    for model, of_model in compared[compared["model"] != DIFFERENCE].groupby("model", sort=False):
        by = of_model.set_index("quantity")[["value", "low", "high", "n_images", "n_concepts"]]
        for metric in (*MEASURED, "fluent"):
            random, difference = (by.loc[f"{metric}{suffix}"].iloc[:3] for suffix in ("-random", "-over-random"))
            sides = [by.loc[metric], random.add_prefix("random_"), difference.add_prefix("difference_")]
            rows.append({"metric": metric} | pd.concat(sides).to_dict() | {"model": model})
    return pd.DataFrame(rows).astype({"n_images": int, "n_concepts": int})


def effects_for_readers(compared: pd.DataFrame, bounds: Mapping[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """The same with every value and its interval as text; `two_studies.bounds` are the last columns."""
    found, metrics, frames = ends(compared), (*MEASURED, "fluent"), []
    for model in SHORT:
        rows = [
            {"model": model, "reading": READINGS[metric].label}
            | {heading: interval(*found[f"{metric}{suffix}", model]) for suffix, heading in SIDES.items()}
            for metric in metrics
        ]
        beside = references.beside(bounds[model], metrics).reset_index(drop=True) if bounds else pd.DataFrame()
        frames.append(pd.DataFrame(rows).join(beside))
    return pd.concat(frames, ignore_index=True)


def effects_in_words(compared: pd.DataFrame) -> dict[str, str]:
    """The same for sentences; `change` is what the Q-Former's advantage over random neurons has over the other's."""
    found, images = ends(compared), compared.set_index(["quantity", "model"])["n_images"]
    said = {"works": works(compared)}
    for model, short in SHORT.items():
        said |= {f"{metric}-{short}": interval(*found[metric, model]) for metric in MEASURED}
        over = found["suppression-over-random", model]
        said |= {f"suppression-over-{short}": interval(*over), f"clear-{short}": compared_with_zero(*over[1:])}
        said[f"images-{short}"] = str(images["suppression", model])
    less, low, high = found["suppression-over-random", DIFFERENCE]  # the linear layer's minus the Q-Former's
    said["suppression-change"] = interval(-less, -high, -low)
    neither, unknown = "cannot be told from the linear layer's", "cannot be told from so few concepts"
    return said | {"suppression-carried": told(-high, -low, "is larger", "is smaller", neither, unknown)}


def places(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """`query_maps.places` of both models and all concepts, with a column model."""
    found = [
        query_maps.places(study, concept).assign(model=model)
        for model, study in studies.items()
        for concept in concepts
    ]
    return pd.concat(found, ignore_index=True)


def places_for_readers(means: pd.DataFrame) -> pd.DataFrame:
    """`maps.mean_readings` of `places`, a row a model and map."""
    shown = pd.DataFrame({"model": means["model"], "map": [MAPS[name][1] for name in means["map"]]})
    return pd.concat([shown, maps.with_intervals(means, list(maps.READINGS))], axis=1)


def gain(where: pd.DataFrame, model: str, name: str, against: str) -> Ends:
    """How much more of one map of `places` than of another lies on the object, picture by picture."""
    of_model = where[where["model"] == model]
    wide = of_model.pivot_table(index=["concept", "image_id"], columns="map", values="inside")
    change = wide[name] - wide[against]
    return estimate(change, change.index.get_level_values("concept"), within=GAP).ends


def places_in_words(where: pd.DataFrame, means: pd.DataFrame) -> dict[str, str]:
    """`places` and its means for sentences."""
    columns = means[["model", "map", "inside", "inside_low", "inside_high"]]
    inside = {(row[0], row[1]): row[2:] for row in columns.itertuples(index=False, name=None)}
    said = {"area": f"{where['area'].mean():.2f}"}
    for model, short in SHORT.items():
        over = gain(where, model, "own", "random")
        said[f"inside-{short}"] = interval(*inside[model, "own"])
        said |= {f"inside-over-{short}": interval(*over), f"looks-{short}": compared_with_zero(*over[1:])}
    cost = inside[LINEAR, "own"][0] - inside[QUERIES, "own"][0]
    said["map-cost"] = f"{abs(cost):.2f} {'less' if cost > 0 else 'more'}"
    said |= {name: interval(*inside[QUERIES, name]) for name in ("single", "any")}
    for name in ("any", "exchanged", "plain"):
        over = gain(where, QUERIES, "own", name)
        said |= {f"own-over-{name}": interval(*over), f"clear-of-{name}": compared_with_zero(*over[1:])}
    return said


def blocks_in_words(added: pd.DataFrame) -> dict[str, str]:
    """`query_maps.blocks` for sentences: the block that adds most, beside the others."""
    place = int(added["share"].to_numpy().argmax())
    most, others = added.iloc[place], added["share"].drop(added.index[place]).max()
    return {
        "first-block": str(most["block"]),
        "first-share": f"{most['share']:.0%}",
        "other-share": f"{others:.0%}",
        "exchange": "so it is little more than one soft look" if others < 0.1 else "so several blocks have a part",
        "region": f"{most['region']:.0%}",
    }


def answer(compared: pd.DataFrame, where: pd.DataFrame) -> str:
    """Both findings in half a sentence: whether noise on the neurons does more than chance, and whether maps do."""
    matters = ends(compared)["suppression-over-random", QUERIES][1] > 0
    looks = gain(where, QUERIES, "own", "random")[1] > 0
    found = "it finds neurons that matter for the word" if matters else "what it finds is not shown to matter"
    seen = "shows where the object is" if looks else "does not show where the object is"
    return (
        f"{found}, {'and' if matters == looks else 'but'} their map, carried back, {seen}, held against random neurons"
    )
