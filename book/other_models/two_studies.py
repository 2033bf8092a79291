"""Two studies of the same pictures, whose models differ in one part before the decoder: what changes with that part?

The second's profile is a variant of the first's, `<profile>-<variant>`: the decoder behind another tower, or behind
another connector. The decoder's neurons are the same ones, so the sets that both studies find can be laid on each
other. Each part has its own trained layer, and how well that was trained is part of what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from book.perturbation import references
from book.words import NotRun, interval
from kn_core import models
from kn_core.measures.metrics import headline, per_image
from kn_core.measures.overlap import Neuron, overlap
from kn_core.measures.stats import GAP, SIGNED, estimate, holm
from kn_core.measures.summaries import differences, perplexity_limit
from kn_core.profile import Profile, ProfileError, load_profile
from kn_core.study.study import Study

Studies = Mapping[str, Study]  # two of them, by what tells their models apart
Ends = tuple[float, float, float]  # value, low, high

DIFFERENCE = "difference"
OVER_RANDOM = "-over-random"  # how quantities end that are differences of their own
MEASURED = ("suppression", "retention_truth", "retention")
QUANTITIES = {
    "naming": "captions of the same pictures that name the concept",
    "suppression": "suppression, two-stage",
    "suppression-random": "suppression, random",
    "suppression-over-random": "suppression, two-stage minus random",
    "retention_truth": "retention of what is true, two-stage",
    "retention_truth-random": "retention of what is true, random",
    "retention_truth-over-random": "retention of what is true, two-stage minus random",
    "retention": "retention by words, two-stage",
    "retention-random": "retention by words, random",
    "retention-over-random": "retention by words, two-stage minus random",
    "fluent": "fluent captions, two-stage",
    "fluent-random": "fluent captions, random",
    "fluent-over-random": "fluent captions, two-stage minus random",
    "first-third": "neurons in the first third of the layers",
    "middle-third": "neurons in the middle third",
    "last-third": "neurons in the last third",
}


def with_variant(profile: str, variant: str, named: Callable[[Profile], str]) -> Studies:
    """The studies of a profile and of its variant, either of which may be given. Loads no model. Raises NotRun."""
    base = profile.removesuffix(f"-{variant}")
    try:
        both = [load_profile(name) for name in (base, f"{base}-{variant}")]
    except ProfileError as error:
        why = f"there is no pair of profiles {base} and {base}-{variant}"
        raise NotRun(why, "make book PROFILE=embedded") from error
    found = {named(one): one for one in both}
    for one in found.values():
        try:
            models.identity(one)
        except FileNotFoundError as error:
            make = f"python -m kn_core.training --profile {one.name} --coco DIR"
            raise NotRun(f"the projection of the profile {one.name} is not trained", make) from error
    return {name: Study(one) for name, one in found.items()}


def both(studies: Studies, concept: str | None = None) -> list[str]:
    """The concepts that are studied in both, or only `concept`. Raises NotRun where there is none."""
    first, second = studies.values()
    shared = [name for name in first.studied() if name in second.studied() and concept in (None, name)]
    if not shared:
        raise NotRun(f"no {concept or 'concept'} has pairs in both studies")
    return shared


def notice(studies: Studies, concepts: Sequence[str]) -> str:
    """What is compared, in Markdown."""
    names = " and ".join(f"`{study.profile.name}` ({name})" for name, study in studies.items())
    return f"Compared on {', '.join(concepts)}: {names}."


def compare(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """What the models do alike and what not, a row a quantity and model, and one for the first minus the second.

    Columns quantity, model, value, low, high, n_images, n_concepts: means over concepts of means over pictures, with
    95 % intervals. Quantities: 'naming', the share of the pictures captioned with both models whose caption names
    its concept; `MEASURED` and 'fluent' of the two-stage neurons in the main setting, those with '-random' of random
    neurons of the same layers, and with '-over-random' the two picture by picture; 'first-third', 'middle-third' and
    'last-third' of the layers, which share of a concept's best neurons lies there.

    Naming is of the same pictures, so its difference is paired by picture. Elsewhere every model is tried on the
    pictures that it describes rightly, and the difference is paired by concept; its interval is over concepts alone.
    """
    first, second = studies
    naming = pd.concat({model: _named(study, concepts) for model, study in studies.items()}, axis=1, join="inner")
    rows = [_row("naming", model, naming[model]) for model in studies]
    rows.append(_row("naming", DIFFERENCE, naming[first] - naming[second]))
    return pd.DataFrame(rows + beside({model: _values(study, concepts) for model, study in studies.items()}))


def beside(values: Mapping[str, Mapping[str, pd.Series]]) -> list[dict[str, object]]:
    """Rows of `compare` from each model's quantities by concept, or by concept and picture; of those that all have."""
    rows, models = [], list(values)
    for quantity in (name for name in values[models[0]] if all(name in of for of in values.values())):
        rows += [_row(quantity, model, values[model][quantity]) for model in models]
        one, other = (values[model][quantity].groupby(level="concept").mean() for model in models)
        rows.append(_row(quantity, DIFFERENCE, (one - other).dropna()))
    return rows


def by_picture(images: pd.DataFrame, metric: str) -> pd.Series:
    """One metric of `per_image`, by concept and picture."""
    values = images[images["metric"] == metric].set_index(["image_concept", "image_id"])["value"]
    return values.rename_axis(["concept", "image_id"])


def _named(study: Study, concepts: Sequence[str]) -> pd.Series:
    """Whether each picture that was captioned is named: (concept, image_id) -> 0 or 1."""
    pairs = pd.concat([study.pairs(concept) for concept in concepts])
    pairs = pairs[pairs["caption"] != ""].set_index(["concept", "image_id"])
    return (pairs["target_word"] != "").astype(float)


def _values(study: Study, concepts: Sequence[str]) -> dict[str, pd.Series]:
    """Each quantity of one model but naming, by concept and, where it is measured so, by picture."""
    trials = pd.concat([study.perturbations(concept) for concept in concepts], ignore_index=True)
    rows, limit = headline(trials, study.profile), perplexity_limit(study.perturbations())
    by_method = per_image(rows, ["method"], perplexity_limit=limit).set_index("method")
    sides: dict[str, pd.DataFrame] = {
        "": by_method.loc[["two-stage"]],
        "-random": by_method.loc[["random"]],
        OVER_RANDOM: differences(rows, "two-stage", "random", perplexity_limit=limit),
    }
    found = {}
    for metric in (*MEASURED, "fluent"):
        for suffix, images in sides.items():
            found[f"{metric}{suffix}"] = by_picture(images, metric)
    neurons = pd.concat([study.neurons(concept) for concept in concepts])
    best = _best(neurons, study.profile.identification.budget)
    thirds = best["layer"] * 3 // study.n_layers
    return found | {
        f"{name}-third": (thirds == place).groupby(best["concept"]).mean()
        for place, name in enumerate(("first", "middle", "last"))
    }


def bounds(
    studies: Studies, concepts: Sequence[str], images: Mapping[str, Collection[str]] | None = None
) -> dict[str, pd.DataFrame]:
    """`references.bounds` of each model, on its held-out pictures of these concepts, or on its `images`."""
    found = {}
    for model, study in studies.items():
        trials = pd.concat([study.perturbations(concept) for concept in concepts], ignore_index=True)
        found[model] = references.bounds(trials, perplexity_limit(study.perturbations()), images and images[model])
    return found


def _row(quantity: str, model: str, values: pd.Series) -> dict[str, object]:
    """One row of `compare` from values indexed by concept, or by concept and picture."""
    gaps = (model == DIFFERENCE) + quantity.endswith(OVER_RANDOM)
    found = estimate(values, values.index.get_level_values("concept"), within=(None, GAP, SIGNED)[gaps])
    counts = {"n_images": found.n if values.index.nlevels > 1 else 0, "n_concepts": found.n_concepts}
    return {"quantity": quantity, "model": model, "value": found.value, "low": found.low, "high": found.high} | counts


def ends(compared: pd.DataFrame) -> dict[tuple[str, str], Ends]:
    """Each quantity's value with its interval in `compare`, by the quantity and the model."""
    columns = compared[["quantity", "model", "value", "low", "high"]]
    return {(row[0], row[1]): (row[2], row[3], row[4]) for row in columns.itertuples(index=False, name=None)}


NOISE = "noise on two-stage neurons suppresses more than on random ones of the same layers"


def works(compared: pd.DataFrame, quantity: str = "suppression-over-random", what: str = NOISE) -> str:
    """A conclusion with each model, the method's first one: does a quantity lie above zero?"""
    rows = compared[(compared["quantity"] == quantity) & (compared["model"] != DIFFERENCE)]
    clear = rows[rows["low"] > 0]["model"].tolist()
    who = "With both models", f"Only with one model, {clear[0]}," if clear else "With neither model"
    found = who[0] if len(clear) == 2 else f"{who[1]} is it clear that"
    return f"{found} {what}"


def compared_for_readers(
    compared: pd.DataFrame,
    quantities: Mapping[str, str] = QUANTITIES,
    bounds: Mapping[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """`compare`, a row a quantity: each model's value, and the difference, with 95 % intervals; `bounds` below."""
    cells = {place: interval(*row) for place, row in ends(compared).items()}
    columns = {model: [cells.get((name, model), "–") for name in quantities] for model in compared["model"].unique()}
    shown = pd.DataFrame({"quantity": list(quantities.values())} | columns)
    below = pd.DataFrame({model: references.values(found, MEASURED) for model, found in (bounds or {}).items()})
    named = (
        below.rename_axis("quantity")
        .rename("suppression, retention of what is true and by words: {}".format)
        .reset_index()
    )
    return pd.concat([shown, named], ignore_index=True).fillna("–")


def shared_neurons(studies: Studies, concepts: Sequence[str]) -> pd.DataFrame:
    """A concept's best two-stage neurons in one study against those in the other.

    Columns concept, shared, of (the smaller set), jaccard, jaccard_chance (its mean when both sets are drawn uniformly:
    hypergeometric), expected_layers (how many they would share when drawn with their own number in each layer), p (of
    as many or more, uniformly), shared_others and jaccard_others (means against the other study's sets of *other*
    concepts: what neurons that every concept has would give by themselves), p_holm.
    """
    budget = min(study.profile.identification.budget for study in studies.values())
    sets: dict[tuple[str, str], set[Neuron]] = {}
    for name, study in studies.items():
        for concept in concepts:
            best = _best(study.neurons(concept), budget)
            sets[name, concept] = set(zip(best["layer"].tolist(), best["unit"].tolist(), strict=True))
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


def _best(neurons: pd.DataFrame, budget: int) -> pd.DataFrame:
    return neurons[(neurons["method"] == "two-stage") & (neurons["rank"] < budget)]


def jaccard_by_chance(one: int, other: int, total: int) -> float:
    """Mean Jaccard index of two sets of these sizes drawn uniformly from `total`; NaN where both are empty."""
    if one + other == 0:
        return np.nan
    shared = np.arange(min(one, other) + 1)
    return float(hypergeom.pmf(shared, total, one, other) @ (shared / (one + other - shared)))
