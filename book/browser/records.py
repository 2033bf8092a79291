"""What the neuron browser shows, read from a study: sets, measures of every neuron, captions, whom a set silences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from book.perturbation.ownership import LABELS, silenced
from book.stages.neurons import tokens
from book.style import METHODS, methods_of
from kn_core.measures.metrics import headline, probability_suppression
from kn_core.method import recipes
from kn_core.method.two_stages import NeuronSet
from kn_core.study.experiments import attribution, ladder, neuron_maps, ownership, single_neurons
from kn_core.study.experiments.ceiling import EVERYTHING, ceiling
from kn_core.study.experiments.heatmaps import shown
from kn_core.study.experiments.ladder import PAPER, THIRD
from kn_core.study.experiments.ownership import PARTS
from kn_core.study.study import Study, StudyError

Sets = Mapping[str, Mapping[str, NeuronSet]]  # method -> concept -> its best neurons

MEASURES = {
    "gradcam": "gradient score (stage 2)",
    "delta": "difference the object makes (stage 1)",
    "gradcam-sum": "gradient score, summed",
    "third": "third stage’s score",
}
# What captions were written under, beside the methods of `METHODS`.
OTHERS = {THIRD: "third stage", "no contrasts": "worth to the word, no contrasts", EVERYTHING: "all neurons"}
OTHERS |= {part: f"two-stage neurons, {said}" for part, said in LABELS.items()}


CHARTS = {  # of one neuron, concept by concept
    "gradcam": "gradient score, stage 2",
    "delta": "difference, stage 1",
    "gradcam-sum": "gradient, summed",
    "third": "third stage",
    "removed": "taken out: the logit loses",
    "patched": "as without the object",
}


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture with and without its object, and what the model says of both."""

    image_id: str
    concept: str
    image: np.ndarray  # (h, w, 3) uint8
    without: np.ndarray  # the same
    mask: np.ndarray  # (h, w) bool
    said: str
    said_without: str


@dataclass(frozen=True, eq=False)
class Records:
    """All that the browser shows, of every concept; n neurons have maps, on each of the `shown` pictures."""

    profile: str
    budget: int
    main: tuple[str, int, float]  # the main setting: what is done, to how many neurons, sigma
    concepts: list[str]
    shown: list[Shown]
    sets: Sets
    measured: Mapping[str, Mapping[str, np.ndarray]]  # concept -> measure -> (L, D)
    limits: Mapping[str, Mapping[str, float]]  # concept -> stage's score -> threshold
    exact: Mapping[str, pd.DataFrame]  # concept -> `exact`
    promoted: Mapping[tuple[int, int], list[str]]
    captions: pd.DataFrame
    silencing: Mapping[str, np.ndarray]
    mapped: np.ndarray  # (n, 2) layer and unit
    maps: Mapping[str, np.ndarray]  # score -> (pictures, n, rows, columns)
    chosen_on: list[np.ndarray]  # stage 1's difference of each concept's selection pictures, (N, n)


def read(study: Study) -> Records:
    """Read it all; what is not on disk yet is computed."""
    concepts = study.studied()
    pictures = [picture for concept in concepts for picture in _shown(study, concept)]
    third = pd.concat([ladder.third_stage(study, concept) for concept in concepts], ignore_index=True)
    third = third[third["n"] == study.profile.identification.budget]  # as many as every set here has
    maps = [neuron_maps.maps(study, concept) for concept in concepts]
    mapped = maps[0]["neurons"]
    return Records(
        study.profile.name,
        study.profile.identification.budget,
        _main(study),
        concepts,
        pictures,
        sets(study),
        {concept: measures(study, concept) for concept in concepts},
        {concept: study.thresholds(concept) for concept in concepts},
        {concept: exact(study, concept) for concept in concepts},
        promoted(study),
        captions(study, [picture.image_id for picture in pictures], third),
        silencing(study, third),
        mapped,
        {name: np.concatenate([one[name] for one in maps]) for name in neuron_maps.SCORES},
        [study.measured(concept)["delta"][:, mapped[:, 0], mapped[:, 1]] for concept in concepts],
    )


def _shown(study: Study, concept: str) -> list[Shown]:
    pairs, found = study.pairs(concept).set_index("image_id"), []
    for image_id in shown(study, concept):
        sample, row = study.sample(concept, image_id), pairs.loc[image_id]
        said = str(row["caption"]), str(row["caption_inpainted"])
        found.append(Shown(image_id, concept, sample.image, study.inpainted(sample), sample.mask, *said))
    return found


def said(method: str) -> str:
    """A method as the browser names it."""
    return METHODS[method].label if method in METHODS else OTHERS.get(method, method)


def sets(study: Study) -> dict[str, dict[str, NeuronSet]]:
    """The best neurons of each concept by every method, as many as the profile's budget; those that have maps first."""
    found: dict[str, dict[str, NeuronSet]] = {}
    for concept, of_each in neuron_maps.sets(study).items():
        for method, neurons in of_each.items():
            found.setdefault(method, {})[concept] = neurons
    budget, every = study.profile.identification.budget, study.neurons()
    every = every[(every["draw"] == 0) & (every["rank"] < budget)]
    for method in methods_of("stage", "rival"):
        rows = every[every["method"] == method]
        if len(rows):
            found[method] = {str(name): NeuronSet.from_frame(of) for name, of in rows.groupby("concept", sort=False)}
    return found


def measures(study: Study, concept: str) -> dict[str, np.ndarray]:
    """Every neuron's value by each of `MEASURES`, pooled over the concept's selection pictures, (L, D) each."""
    pooled, (recipe, how) = study.pooled(concept), ladder.choice(study)
    own, *others = (attribution.pooled(study, each) for each in _first(study, concept))
    third = recipes.specific(recipe, own, others, recipes.worth(how))
    return {name: pooled[name] for name in ("gradcam", "delta", "gradcam-sum")} | {"third": third}


def exact(study: Study, concept: str) -> pd.DataFrame:
    """What single neurons really do, as far as it was measured: columns layer, unit, removed, patched.

    `removed` is what the word's logit loses without the neuron, on held-out pictures; `patched` what its logit loses to
    that of its closest rival when the neuron is as without the object, on selection pictures.
    """
    found = pd.DataFrame(columns=["layer", "unit", "removed", "patched"])
    ways = {"removed": (neuron_maps.removed, single_neurons.effects), "patched": (attribution.patches,)}
    for name, made in ways.items():
        try:
            rows = pd.concat([each(study, concept) for each in made])
        except StudyError:  # a decoder whose neurons cannot be taken one at a time
            continue
        once = rows.drop_duplicates(["layer", "unit"])[["layer", "unit", "effect"]].rename(columns={"effect": name})
        found = found.drop(columns=name).merge(once, on=["layer", "unit"], how="outer")
    return found[["layer", "unit", "removed", "patched"]]


def promoted(study: Study) -> dict[tuple[int, int], list[str]]:
    """The tokens that a neuron promotes most, of those of which they are known."""
    rows = pd.concat([study.neurons()[["layer", "unit", "top_tokens"]], neuron_maps.promoted(study)])
    rows = rows[rows["top_tokens"].fillna("") != ""].drop_duplicates(["layer", "unit"])
    at = zip(rows["layer"].tolist(), rows["unit"].tolist(), strict=True)
    return {neuron: tokens(written) for neuron, written in zip(at, rows["top_tokens"], strict=True)}


COLUMNS = ["concept", "image_id", "method", "intervention", "n", "sigma", "caption", "before", "after", "kept"]


def captions(study: Study, image_ids: Sequence[str], third: pd.DataFrame) -> pd.DataFrame:
    """What was said of the pictures under what was done to a concept's neurons, the first draw of each.

    All of the two-stage neurons, the main setting of other methods and of random neurons of the same layers. Neurons of
    other concepts on one picture of each alone: the page has to stay light, in the long version too.
    Columns concept (whose neurons), image_id, method, intervention, n, sigma (NaN where it has none), caption, before
    and after (the probability of the picture's own word), kept (share of what else is true that is still said).
    """
    frames = [study.perturbations(), third]
    for concept in study.studied():
        climbed = ladder.ladder(study, concept)
        climbed = climbed.loc[climbed["step"] == PAPER].replace({"method": {PAPER: "two-stage"}})
        parts, whole = ownership.parts(study, concept), ceiling(study, concept)
        whole = whole[whole["method"].isin([EVERYTHING, "two-stage"])]
        frames += [climbed, parts[parts["method"].isin(PARTS)], whole]
    rows = pd.concat([frame[frame["seed"] == 0] for frame in frames], ignore_index=True)
    rows = rows[rows["image_id"].isin(image_ids) & (rows["positions"] == "image")]
    first = {image_id for concept in study.studied() for image_id in shown(study, concept)[:1]}
    rows = rows[(rows["concept"] == rows["image_concept"]) | rows["image_id"].isin(first)]
    done, n, sigma = _main(study)
    main = (rows["intervention"] == done) & (rows["n"] == n) & (rows["sigma"] == sigma)
    alone = rows["method"].isin([*methods_of("stage", "rival"), "random"])  # of these the main setting alone
    others = [name for name in (*methods_of("control"), "removal", "no contrasts") if name != "random"]
    rows = rows[~rows["method"].isin(others) & (main | ~alone)]
    rows = rows.rename(columns={"clean_probability": "before", "target_probability": "after", "retained_truth": "kept"})
    trials = ["concept", "image_id", "method", "intervention", "n", "sigma"]
    return rows.drop_duplicates(trials)[COLUMNS].reset_index(drop=True)


def silencing(study: Study, third: pd.DataFrame) -> dict[str, np.ndarray]:
    """Whose set takes whose word: share of its probability lost, (concepts, concepts), a row whose neurons, by method.

    NaN where it was not tried. Under the two-stage method's main setting and the third stage's own.
    """
    concepts = study.studied()
    crossed = pd.concat([ownership.cross(study, name) for name in concepts], ignore_index=True)
    main = silenced(crossed)
    third = third[third["method"] == THIRD]
    lost = probability_suppression(third["clean_probability"], third["target_probability"])
    of_third = third.assign(probability=lost).groupby(["concept", "image_concept"])["probability"].mean().reset_index()
    return {
        method: found.pivot_table(index="concept", columns="image_concept", values="probability")
        .reindex(index=concepts, columns=concepts)
        .to_numpy()
        for method, found in (("two-stage", main), (THIRD, of_third))
    }


def _main(study: Study) -> tuple[str, int, float]:
    rows = headline(study.perturbations(), study.effort)
    first = rows[rows["method"] == "two-stage"].iloc[0]
    return str(first["intervention"]), int(first["n"]), float(first["sigma"])


def _first(study: Study, concept: str) -> list[str]:
    return [concept, *(other for other in study.studied() if other != concept)]
