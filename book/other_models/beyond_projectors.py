"""Two models of one decoder, a linear layer and a Q-Former before it: does the method carry over (open question 2)?

Two studies of the same scenes in, tidy frames out: what is identified, what noise on it does, where it looks, and what
it costs that the queries of a Q-Former have no place in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from book.claims.evidence import late_share
from book.other_models.two_studies import Comparison, Studies, both, compared_on, shared_neurons, siblings
from book.words import interval
from kn_core.measures.metrics import contrast, differences, headline, perplexity_limit, summarise
from kn_core.measures.stats import cluster_interval, each_alone
from kn_core.study.experiments import query_maps
from kn_core.study.study import Study

LINEAR, QUERIES = "linear layer", "Q-Former"
MEASURED = ("suppression", "retention")


def compared(profile: str) -> Studies:
    """The profile and its sibling with a Q-Former, `<profile>-qformer`; either may be named. Raises NotRun."""
    return siblings(profile, "qformer", lambda found: QUERIES if found.parts.connector == "q-former" else LINEAR)


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
            rows.append(
                {
                    "model": model,
                    "concept": concept,
                    "captioned": int((pairs["caption"] != "").sum()),
                    "named": int((pairs["target_word"] != "").sum()),
                    "kept": int(pairs["kept"].sum()),
                    "neurons": int((neurons["method"] == "two-stage").sum()),
                    "late": late_share(neurons, budget, study.n_layers).value,
                }
            )
    return pd.DataFrame(rows)


def effects(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """Suppression and retention under the main setting, held-out pictures, a row a model and metric.

    Columns model, metric, then value, low, high of the two-stage neurons, of the random ones (`random`, `random_low`,
    `random_high`) and of the difference image by image, and n_images, n_concepts.
    """
    rows = []
    for model, study in studies.items():
        main, limit = _main(study, concepts)
        means = summarise(main, ["method"], perplexity_limit=limit)
        gap = contrast(main, "two-stage", "random", perplexity_limit=limit).set_index("metric")
        own, random = (means[means["method"] == name].set_index("metric") for name in ("two-stage", "random"))
        ends = ["value", "low", "high"]
        sides = [own[[*ends, "n_images", "n_concepts"]], random[ends].add_prefix("random_")]
        row = pd.concat([*sides, gap[ends].add_prefix("difference_")], axis=1)
        rows.append(row.loc[[*MEASURED, "fluent"]].reset_index(names="metric").assign(model=model))
    return pd.concat(rows, ignore_index=True)


def between(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """The Q-Former's advantage over the control minus the linear layer's: metric, value, low, high, n_concepts.

    The models keep other pictures, so concepts are what is paired; intervals resample concepts.
    """
    gaps = {}
    for model, study in studies.items():
        main, limit = _main(study, concepts)
        paired = differences(main, "two-stage", "random", perplexity_limit=limit)
        gaps[model] = paired.groupby(["metric", "image_concept"])["value"].mean()
    rows = []
    for metric in MEASURED:
        here = [gaps[QUERIES].loc[metric].reindex(concepts), gaps[LINEAR].loc[metric].reindex(concepts)]
        change = (here[0] - here[1]).dropna().to_numpy(float)
        rows.append(
            (
                metric,
                float(change.mean()),
                *cluster_interval(each_alone(change)),
                len(change),
            )
        )
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "n_concepts"])


def places(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """`query_maps.places` of both models and all concepts, with a column model."""
    found = [
        query_maps.places(study, concept).assign(model=model)
        for model, study in studies.items()
        for concept in concepts
    ]
    return pd.concat(found, ignore_index=True)


def _main(study: Study, concepts: Sequence[str]) -> tuple[pd.DataFrame, float]:
    """The main setting's rows on held-out pictures, and the perplexity above which a caption is not fluent."""
    trials = pd.concat([study.perturbations(concept) for concept in concepts], ignore_index=True)
    return headline(trials, study.profile), perplexity_limit(trials)


PREFIX = "beyond_projectors"  # of the files that the page writes
ENDS = ("value", "low", "high")
MAPS = {  # name of a map -> what it is to a reader
    "own": "neurons, over the tokens' maps",
    "random": "random neurons of the same layers, over the same maps",
    "plain": "neurons, over plain rollout",
    "exchanged": "neurons, over the map of another query",
    "single": "the one query that looks at the object most",
    "any": "all queries alike",
}


def page(studies: Studies, concept: str | None = None) -> Comparison:
    """Everything that the page shows of two studies, computed or loaded. Raises NotRun."""
    concepts = both(studies, concept)
    frames = {
        "identified": identified(studies, concepts),
        "effects": effects(studies, concepts),
        "between": between(studies, concepts),
        "shared": shared_neurons(studies, concepts),
        "places": places(studies, concepts),
        "blocks": query_maps.blocks(studies[QUERIES], concepts),
    }
    readable = {
        "identified": for_readers(frames["identified"]),
        "effects": effects_for_readers(frames["effects"]),
        "places": places_for_readers(frames["places"]),
        "blocks": frames["blocks"][["block", "share"]],
    }
    words, ending = in_words(*frames.values()), f"-{concept}" if concept else ""
    return Comparison(PREFIX, compared_on(studies, concepts), words, frames, readable, studies, ending)


def for_readers(frame: pd.DataFrame) -> pd.DataFrame:
    """`identified`, a row a model: means over concepts with 95 % intervals."""
    shown_ = []
    for model, rows in frame.groupby("model", sort=False):
        row: dict[str, object] = {"model": model}
        share = rows["named"] / rows["captioned"]
        for heading, values in (
            ("captions that name the concept", share),
            ("pairs kept", rows["kept"]),
            ("neurons of both stages", rows["neurons"]),
            ("of the best, in later layers", rows["late"]),
        ):
            found = values.to_numpy(float)
            pattern = "{:.0f}" if found.max() > 1 else "{:.2f}"
            row[heading] = interval(found.mean(), *_over_concepts(found), pattern)
        shown_.append(row)
    return pd.DataFrame(shown_)


def effects_for_readers(frame: pd.DataFrame) -> pd.DataFrame:
    """`effects` with every value and its interval as text."""
    names: dict[str, str] = {"suppression": "Sₛₑ", "retention": "Sᵣₑ", "fluent": "fluent"}
    shown_ = pd.DataFrame({"model": frame["model"], "reading": frame["metric"].map(names)})
    for side, heading in (("", "both stages"), ("random_", "random"), ("difference_", "difference")):
        columns = [f"{side}{end}" for end in ENDS]
        shown_[heading] = [interval(*row) for row in frame[columns].itertuples(index=False)]
    return shown_


def places_for_readers(frame: pd.DataFrame) -> pd.DataFrame:
    """`places`, a row a model and map: means over concepts with intervals, and the object's share of the picture."""
    rows = []
    for (model, name), group in frame.groupby(["model", "map"], sort=False):
        row: dict[str, object] = {"model": model, "map": MAPS[str(name)]}
        for column, heading in (
            ("iou", "IoU"),
            ("pointing", "pointing"),
            ("inside", "on the object"),
            ("area", "its area"),
        ):
            row[heading] = interval(*_mean(group, column))
        rows.append(row)
    return pd.DataFrame(rows)


def gain(
    frame: pd.DataFrame, model: str, name: str, against: str, column: str = "inside"
) -> tuple[float, float, float]:
    """One map's reading minus another's, picture by picture: mean over concepts, and its interval."""
    of_model = frame[frame["model"] == model]
    wide = of_model.pivot_table(index=["concept", "image_id"], columns="map", values=column)
    change = (wide[name] - wide[against]).dropna().rename("change").reset_index()
    return _mean(change, "change")


def in_words(
    found: pd.DataFrame,
    effect: pd.DataFrame,
    change: pd.DataFrame,
    alike: pd.DataFrame,
    where: pd.DataFrame,
    added: pd.DataFrame,
) -> dict[str, str]:
    """What came out, for sentences."""
    words: dict[str, str] = {}
    for model, short in ((LINEAR, "linear"), (QUERIES, "queries")):
        own = {str(row["metric"]): row for row in effect[effect["model"] == model].to_dict("records")}
        for metric in MEASURED:
            words[f"{metric}-{short}"] = interval(*(own[metric][end] for end in ENDS))
            words[f"{metric}-over-{short}"] = interval(*(own[metric][f"difference_{end}"] for end in ENDS))
        words[f"clear-{short}"] = _clear(*(own["suppression"][f"difference_{end}"] for end in ENDS[1:]))
        words[f"images-{short}"] = str(own["suppression"]["n_images"])
        words[f"neurons-{short}"] = f"{found[found['model'] == model]['neurons'].median():,.0f}"
        words[f"kept-{short}"] = str(int(found[found["model"] == model]["kept"].sum()))
        words[f"inside-{short}"] = interval(*_mean(_rows(where, model, "own"), "inside"))
        over = gain(where, model, "own", "random")
        words[f"inside-over-{short}"], words[f"looks-{short}"] = interval(*over), _clear(*over[1:])
    by_metric = change.set_index("metric")
    for metric in MEASURED:
        row = by_metric.loc[metric, ["value", "low", "high"]]
        words[f"{metric}-change"], words[f"{metric}-carried"] = interval(*row), _change(*row[["low", "high"]])
    words["works"] = _verdict(words["clear-linear"], words["clear-queries"])
    place = int(added["share"].to_numpy().argmax())
    most, others = added.iloc[place], added["share"].drop(added.index[place]).max()
    words |= {"first-block": str(most["block"]), "first-share": f"{most['share']:.0%}", "other-share": f"{others:.0%}"}
    words["exchange"] = "so it is little more than one soft look" if others < 0.1 else "so several blocks have a part"
    words["region"] = f"{added['region'].iloc[0]:.0%}"
    words["answer"] = _answer(words["clear-queries"], words["looks-queries"])
    words["shared"] = f"{alike['shared'].mean():.0f} of {alike['of'].mean():.0f}"
    words["shared-expected"] = f"{alike['expected_layers'].mean():.1f}"
    words["shared-others"] = f"{alike['shared_others'].mean():.0f}"
    cost = _rows(where, LINEAR, "own")["inside"].mean() - _rows(where, QUERIES, "own")["inside"].mean()
    words["map-cost"] = f"{abs(cost):.2f} {'less' if cost > 0 else 'more'}"
    words["single"] = interval(*_mean(_rows(where, QUERIES, "single"), "inside"))
    words["any"] = interval(*_mean(_rows(where, QUERIES, "any"), "inside"))
    words["area"] = f"{where['area'].mean():.2f}"
    for name in ("any", "exchanged", "plain"):
        over = gain(where, QUERIES, "own", name)
        words[f"own-over-{name}"], words[f"clear-of-{name}"] = interval(*over), _clear(*over[1:])
    return words


def _rows(where: pd.DataFrame, model: str, name: str) -> pd.DataFrame:
    return where[(where["model"] == model) & (where["map"] == name)]


def _mean(rows: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """Mean over concepts of the mean over pictures, with its interval."""
    clusters = [values.to_numpy(float) for _, values in rows.dropna(subset=[column]).groupby("concept")[column]]
    if not clusters:
        return np.nan, np.nan, np.nan
    return float(np.mean([values.mean() for values in clusters])), *cluster_interval(clusters)


def _over_concepts(values: np.ndarray) -> tuple[float, float]:
    return cluster_interval(each_alone(values))


def _clear(low: float, high: float) -> str:
    """What an interval of a difference says."""
    if np.isnan(low) or np.isnan(high):
        return "too few pictures to tell from"
    return "clear of zero" if low > 0 else "clear of zero on the wrong side" if high < 0 else "not clear of zero"


def _change(low: float, high: float) -> str:
    if np.isnan(low):
        return "cannot be told from so few concepts"
    return "is larger" if low > 0 else "is smaller" if high < 0 else "cannot be told from the linear layer's"


def _verdict(linear: str, queries: str) -> str:
    """The answer to the first question, from both models' differences to the control."""
    works = {"clear of zero": True}.get(queries, False)
    if works:
        return "Yes" + ("" if linear == "clear of zero" else ", and more clearly than with the linear layer")
    if linear == "clear of zero":
        return "Not as with the linear layer: noise on its neurons does no more than on random ones of the same layers"
    return "Neither with a Q-Former nor with the linear layer does noise do more to them than to random neurons"


def _answer(clear: str, looks: str) -> str:
    """Both findings in half a sentence: whether noise on the neurons does more than chance, and whether maps do."""
    found = (
        "it finds neurons that matter for the word"
        if clear == "clear of zero"
        else "what it finds is not shown to matter"
    )
    joined = "and" if (clear == "clear of zero") == (looks == "clear of zero") else "but"
    seen = "shows where the object is" if looks == "clear of zero" else "does not show where the object is"
    return f"{found}, {joined} their map, carried back, {seen}, held against random neurons"
