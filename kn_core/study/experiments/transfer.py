"""Whether a concept's neurons are its own elsewhere: under other words, in photographs, another captioner, texts.

A row of `transfer` is one held-out picture, or text, while a set of neurons is zero at its image tokens, captions
forced: `lost` is the share of the word's probability that goes, `kept` the mean share of the other tokens' that stays.
`where` says what it was tried on, `of` whose neurons they are, `on` names the wording, folder or captioner:

    scenes       the study's own pictures: its neurons, another captioner's with the same decoder, random ones
    words        the same pictures, asked about in other words
    photographs  those of a COCO folder whose captions name the concept; and neurons of these on both
    text         a sentence that describes the concept, without a picture, neurons zero at all of its tokens

`sizes` has the sets that fewer selection pictures choose.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from kn_core.fingerprint import code, fingerprint
from kn_core.measures.metrics import probability_suppression
from kn_core.method import controls, perturbation, recipes
from kn_core.method.attribution import first_order
from kn_core.method.capture import find_target
from kn_core.method.editing import token_of
from kn_core.method.interventions import Setting
from kn_core.method.perturbation import Picture, Trial
from kn_core.method.two_stages import NeuronSet, select
from kn_core.models.base import CaptionModel
from kn_core.models.hooks import intervene
from kn_core.pictures.coco_checks import CocoError
from kn_core.pictures.inpaint import take_out
from kn_core.pictures.sample import Sample
from kn_core.profile import Profile, load_profile, profile_names
from kn_core.study.experiments import attribution, editing, ladder
from kn_core.study.experiments.portability import TEXTS
from kn_core.study.study import Study, StudyError

FOUND, RANDOM = "third stage", "random"


def transfer(study: Study, concept: str) -> pd.DataFrame:
    """Columns concept, where, on, of, image_id, lost, kept."""
    settings, folder = study.effort.editing, os.environ.get("KN_COCO")
    photographs = study.coco.digest if folder else ""
    beside_of = _beside(study, concept)[0]
    inputs = fingerprint(ladder.upstream(study), settings.model_dump(), photographs, beside_of, code(__name__))

    def compute() -> pd.DataFrame:
        budget, model = study.profile.identification.budget, study.model
        own = ladder.neurons(study, concept, *ladder.choice(study)).top(budget)
        random = controls.same_layers(own, model.ffn_width, controls.generator(concept, study.profile.data.seed))
        sets = {FOUND: own, RANDOM: random}
        shown = study.pictures(concept, "held_out", settings.zeroed)
        two_stage = study.neuron_set(concept).top(budget)
        beside = _beside(study, concept)[1]
        others = {"two stages": two_stage} | {f"two stages, {name}": found for name, found in beside.items()}
        rows = [*zeroed(model, concept, shown, sets | others, "scenes", study.profile.name)]
        samples = [study.sample(concept, picture.image_id) for picture in shown]
        for wording in settings.phrasings:
            asked = study.model.asking(wording)
            rows += zeroed(asked, concept, captioned(asked, samples, study), sets, "words", wording)
        if folder:
            rows += _photographed(study, concept, shown, sets)
        rows += _texts(model, concept, sets) if settings.texts else []
        return pd.DataFrame(rows)

    return study.store.table(f"transfer-{concept}", inputs, compute)


def zeroed(
    model: CaptionModel, concept: str, shown: Sequence[Picture], sets: Mapping[str, NeuronSet], where: str, on: str
) -> Iterator[dict[str, Any]]:
    """Rows of `transfer` of pictures that name the concept."""
    if not shown:
        return
    trials = [
        Trial(NeuronSet(concept, of, found.layers, found.units, found.scores), _zero(len(found)), "own")
        for of, found in sets.items()
    ]
    for row in perturbation.run(model, shown, trials, None, max_new_tokens=0).to_dict("records"):
        lost = float(probability_suppression(row["clean_probability"], row["target_probability"]))
        told = {"concept": concept, "where": where, "on": on, "of": row["method"], "image_id": row["image_id"]}
        yield told | {"lost": lost, "kept": row["retained_probability"]}


def captioned(model: CaptionModel, samples: Sequence[Sample], study: Study) -> list[Picture]:
    """Pictures as perturbations have them, captioned by a model as it asks; those that name the concept."""
    if not samples:
        return []
    prompts = model.prompts([one.image for one in samples])
    captions, found = model.caption(prompts, study.profile.model.max_new_tokens), []
    for one, prompt, caption in zip(samples, prompts, captions, strict=True):
        if target := find_target(model, caption, one.concept):
            found.append(Picture(one.image_id, one.concept, caption, target, True, False, True, prompt, prompt))
    return found


def _photographed(
    study: Study, concept: str, scenes: Sequence[Picture], sets: Mapping[str, NeuronSet]
) -> Iterator[dict[str, Any]]:
    """Scenes' neurons on photographs, photographs' on scenes and on other photographs; nothing where none is named."""
    settings, model, n = study.effort.editing, study.model, study.effort.editing.zeroed
    try:
        ids = study.photographs(concept)[0]  # those that trained the projection first, if any
    except CocoError:  # no category of the folder
        return
    half = min(2 * n, len(ids) // 2)
    samples = [*study.coco.opened(concept, [*ids[:half], *ids[len(ids) - half :]])]
    shown = captioned(model, samples, study)
    choosing = [one for one in shown if one.image_id in ids[:half]][: settings.optimised]
    trying = [one for one in shown if one.image_id not in ids[:half]][:n]
    more: dict[str, NeuronSet] = {}
    if choosing:
        by_id, scores = {one.image_id: one for one in samples}, []
        for picture in choosing:
            gone = model.prompts([take_out(by_id[picture.image_id], None, 8)])[0]
            pair = torch.stack([picture.prompt, gone]).detach()
            scores.append(first_order(model, pair, picture.caption, picture.target))
        own = {name: np.mean([_size(name, one[name]) for one in scores], axis=0) for name in scores[0]}
        more = {"photographs": _chosen(study, concept, own)}
        yield from zeroed(model, concept, scenes, more, "scenes", "neurons of photographs")
    yield from zeroed(model, concept, trying, dict(sets) | more, "photographs", study.coco.folder.name)


def _chosen(study: Study, concept: str, own: Mapping[str, np.ndarray]) -> NeuronSet:
    """The third stage's best by a concept's pooled `attribution.first_order`."""
    recipe, how = ladder.choice(study)
    others = [attribution.pooled(study, other) for other in study.studied() if other != concept]
    places = attribution.elsewhere(study, concept) if recipe.places else {}
    score = recipes.specific(recipe, {**own, **places}, others, recipes.worth(how))
    return select(concept, FOUND, np.ones(score.shape, bool), score, study.profile.identification.budget)


def _size(name: str, score: np.ndarray) -> np.ndarray:
    return np.abs(score) if name.endswith("-other") else score


def _zero(n: int) -> Setting:
    return Setting("zero", "image", n, float("nan"), 0, "product")


def _beside(study: Study, concept: str) -> tuple[list[str], dict[str, NeuronSet]]:
    """Two-stage neurons of captioners with the same decoder that were studied beside this one: inputs, and by name."""
    inputs, found = [], {}
    for name in (f"{study.profile.name}-qformer", f"{study.profile.name}-vit"):
        if (
            name in profile_names()
            and (study.folder.with_name(name) / "parts" / f"neurons-{concept}.parquet").is_file()
        ):
            other = Study(load_profile(name), study.folder.with_name(name))
            if other.store.holds(f"neurons-{concept}", other.inputs(concept)):
                inputs.append(other.inputs(concept))
                found[name] = other.neuron_set(concept).top(study.profile.identification.budget)
    return inputs, found


def _texts(model: CaptionModel, concept: str, sets: Mapping[str, NeuronSet]) -> Iterator[dict[str, Any]]:
    """The sentence that describes the concept, where there is one."""
    if concept not in TEXTS:
        return
    begin = [model.tokenizer.bos_token_id] if model.tokenizer.bos_token_id is not None else []
    ids = torch.tensor([*begin, *model.tokenizer(TEXTS[concept], add_special_tokens=False).input_ids])
    embeds, said = model.embed_tokens(ids.to(model.before.device))[None], token_of(model, concept)

    def chance() -> float:
        with torch.no_grad():
            last = model.extend(embeds, picture=False)[0, -1]
            return float(model.score(last).float().softmax(-1)[said])

    before = chance()
    for of, found in sets.items():
        edits = {layer: _silent(torch.from_numpy(units)) for layer, units in found.by_layer().items()}
        with intervene(model, edits, "product"):
            after = chance()
        told = {"concept": concept, "where": "text", "on": f"{before:.3f}", "of": of, "image_id": f"text-{concept}"}
        yield told | {"lost": 1 - after / before, "kept": np.nan}


def _silent(units: torch.Tensor) -> Any:
    def edit(products: torch.Tensor, _: int) -> torch.Tensor:
        changed = products.clone()
        changed[..., units.to(products.device)] = 0
        return changed

    return edit


def _shared(one: NeuronSet, other: NeuronSet) -> float:
    places = [set(zip(each.layers.tolist(), each.units.tolist(), strict=True)) for each in (one, other)]
    return len(places[0] & places[1]) / len(one)


def sizes(study: Study, concept: str) -> pd.DataFrame:
    """The third stage's sets from k selection pictures: columns concept, k, image_id, lost, kept, shared, chance.

    `shared` is the share of the set of the first k that the set of k others holds (NaN where there are too few),
    `chance` what two draws would share. A k beyond the selection pictures, and `editing.extra` ones, is left out.
    """
    settings = study.effort.editing
    inputs = fingerprint(ladder.upstream(study), settings.sizes, settings.extra, settings.zeroed, code(__name__))

    def compute() -> pd.DataFrame:
        scores = attribution.by_picture(study, concept)
        if settings.extra and study.profile.data.source == "scenes":
            more = attribution.by_picture(_anew(study, settings.extra), concept)
            scores = {name: np.concatenate([of, more[name]]) for name, of in scores.items()}
        there, rows = len(next(iter(scores.values()))), []
        shown = study.pictures(concept, "held_out", settings.zeroed)

        def chosen(pictures: slice) -> NeuronSet:
            return _chosen(study, concept, {name: _size(name, of[pictures]).mean(0) for name, of in scores.items()})

        for k in (k for k in settings.sizes if k <= there):
            first = chosen(slice(0, k))
            shared = np.nan
            if 2 * k <= there:
                shared = _shared(first, chosen(slice(k, 2 * k)))
            told = {"k": k, "shared": shared, "chance": len(first) / scores["atp"][0].size}
            rows += [row | told for row in zeroed(study.model, concept, shown, {FOUND: first}, "scenes", "")]
        return pd.DataFrame(rows).drop(columns=["where", "on", "of"])

    return study.store.table(f"sizes-{concept}", inputs, compute)


def _anew(study: Study, n: int) -> Study:
    """A study of n selection pictures of each concept in scenes that the profile does not draw."""
    data = study.profile.data
    changes = {"seed": data.seed + 1000, "select": n, "held_out": 0, "pool": 6 * n}
    profile = Profile.model_validate(study.profile.model_dump() | {"data": data.model_dump() | changes})
    return Study(profile, study.folder / "anew", study.model)


def taken(study: Study, concept: str) -> pd.DataFrame:
    """What the sets that edits are restricted to take from the word when they are zero: a row a set and picture.

    Each set's best, as many as the profile's budget: how faithful a set is, held against what an edit of it does.
    """
    settings, budget = study.effort.editing, study.profile.identification.budget
    inputs = fingerprint(ladder.upstream(study), settings.sets, settings.zeroed, code(__name__))

    def compute() -> pd.DataFrame:
        sets = {}
        for which in settings.sets:
            try:
                sets[which] = editing.neurons(study, concept, which, budget)
            except StudyError:  # a method that has none
                continue
        shown = study.pictures(concept, "held_out", settings.zeroed)
        rows = pd.DataFrame(zeroed(study.model, concept, shown, sets, "scenes", ""))
        return rows.rename(columns={"of": "neurons"}).drop(columns=["where", "on"])

    return study.store.table(
        f"taken-{concept}" + ("" if settings == study.profile.editing else "-full"), inputs, compute
    )
