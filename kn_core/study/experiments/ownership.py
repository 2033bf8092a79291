"""Whose neurons are they? A concept's set split by how many concepts share each neuron, and the recipe on another word.

A set may hold neurons that every concept's set holds: what they do says nothing of the concept. So each part is
disturbed by itself, beside as many random neurons of its layers. And the whole recipe is run once more on the same
captions for another word of theirs: what it finds for 'field' as well as for 'bear' belongs to neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from kn_core.concepts import content_words, names
from kn_core.fingerprint import code, fingerprint
from kn_core.method import controls, identification, perturbation, protocol
from kn_core.method.capture import Target, capture
from kn_core.method.interventions import edits_for
from kn_core.method.perturbation import Trial
from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import CaptionModel
from kn_core.study.study import Study

PARTS = ("all", "some", "own")  # of all concepts, of some others, of this one alone


def split(sets: Mapping[str, NeuronSet], concept: str) -> dict[str, NeuronSet]:
    """The concept's set in parts: neurons that all concepts' sets hold, some others', no other; without empty parts."""
    ours = sets[concept]
    holders = np.zeros(len(ours), int)
    for other in sets.values():
        held = set(zip(other.layers.tolist(), other.units.tolist(), strict=True))
        holders += [one in held for one in zip(ours.layers.tolist(), ours.units.tolist(), strict=True)]
    of = {"all": holders == len(sets), "some": (holders > 1) & (holders < len(sets)), "own": holders == 1}
    return {part: _those(ours, which, part) for part, which in of.items() if which.any()}


def _those(neurons: NeuronSet, which: np.ndarray, name: str) -> NeuronSet:
    return NeuronSet(neurons.concept, name, neurons.layers[which], neurons.units[which], neurons.scores[which])


def parts(study: Study, concept: str) -> pd.DataFrame:
    """Rows as of `perturbations.parquet`, own held-out pictures: method is a part of the set, or '<part>, random'.

    Each part under the main noise and patched at the profile's site, its random neurons under the main noise.
    """
    settings, budget = study.effort, study.profile.identification.budget
    shown = settings.ownership.pictures

    def compute() -> pd.DataFrame:
        sets = {name: study.neuron_set(name).top(budget) for name in study.studied()}
        main, planned = protocol.main_setting(settings.perturbation, settings.identification), []
        put_in = protocol.patch_setting(settings.perturbation, settings.identification)
        rng, width = controls.generator(concept, study.profile.data.seed), study.model.ffn_width
        for part, neurons in split(sets, concept).items():
            drawn = replace(controls.same_layers(neurons, width, rng), method=f"{part}, random")
            planned += [
                Trial(each, replace(one, n=len(each)), "own")
                for each, one in ((neurons, main), (drawn, main), (neurons, put_in))
            ]
        pictures = study.pictures(concept, "held_out", shown)
        mean = study.mean_activation(without=concept) if main.intervention == "mean" else None
        return perturbation.run(study.model, pictures, planned, mean, settings.model.max_new_tokens)

    upstream = [study.inputs(name) for name in study.studied()]
    inputs = fingerprint(concept, upstream, settings.fingerprint("perturbation"), shown, code(__name__))
    return study.store.table(f"ownership-{concept}" + ("-full" if settings != study.profile else ""), inputs, compute)


def cross(study: Study, concept: str) -> pd.DataFrame:
    """What the main noise on the concept's set takes from every concept's pictures, by caption and probability.

    Columns concept (whose set), image_concept, image_id, caption, target_present (whether it names the picture's own
    concept), clean_probability, target_probability (of that concept's first token). The first `ownership.crossed`
    held-out pictures of each.
    """
    settings, found = study.effort, study.profile.identification
    most = settings.ownership.crossed

    def compute() -> pd.DataFrame:
        shown = [one for name in study.studied() for one in study.pictures(name, "held_out", most)]
        main, neurons = protocol.main_setting(settings.perturbation, found), study.neuron_set(concept)
        prompts, captions = torch.stack([one.prompt for one in shown]), [one.caption for one in shown]
        before, model = perturbation.undisturbed(study.model, shown), study.model

        def edits(rows: slice) -> perturbation.Edits:
            return {main.site: edits_for(model, neurons, main, [one.image_id for one in shown[rows]])}

        said = perturbation.answers(model, prompts, captions, study.profile.model.max_new_tokens, edits)
        records = [
            {
                "concept": concept,
                "image_concept": one.concept,
                "image_id": one.image_id,
                "caption": now.caption,
                "target_present": names(now.caption, one.concept),
                "clean_probability": before[one.image_id].chances[one.target.position],
                "target_probability": now.probabilities[one.target.position],
            }
            for one, now in zip(shown, said, strict=True)
        ]
        return pd.DataFrame(records)

    upstream = [study.inputs(name) for name in study.studied()]
    inputs = fingerprint(concept, upstream, settings.fingerprint("perturbation"), most, code(__name__))
    return study.store.table(f"cross-{concept}" + ("-full" if settings != study.profile else ""), inputs, compute)


def other_words(study: Study, concept: str) -> pd.DataFrame:
    """The best two-stage neurons for another word of the concept's captions: columns concept, words, layer, unit, rank.

    On the first `ownership.words` selection pictures whose captions have another content word: their last. `words` are
    all of them. Thresholds, pooling and budget are the profile's; no rows where no caption has one.
    """
    settings, most = study.profile.identification, study.effort.ownership.words

    def compute() -> pd.DataFrame:
        scored, found = [], []
        for image_id, target, scores in _scored(study, concept, most):
            scored.append(scores)
            found.append((image_id, target.word))
        if not scored:
            return pd.DataFrame(columns=["concept", "words", "layer", "unit", "rank"])
        pooled = {name: np.mean([scores[name] for scores in scored], axis=0) for name in ("delta", "gradcam")}
        limits = {
            name: identification.threshold(rule, "", pooled[name])
            for name, rule in (("delta", settings.threshold_a), ("gradcam", settings.threshold_g))
        }
        best = identification.found_by("two-stage", concept, pooled, limits, settings).top(settings.budget)
        said = ", ".join(dict.fromkeys(word for _, word in found))
        places = {"layer": best.layers, "unit": best.units, "rank": np.arange(len(best))}
        return pd.DataFrame({"concept": concept, "words": said, **places})

    name = f"other-words-{concept}" + ("-full" if study.effort != study.profile else "")
    return study.store.table(name, fingerprint(study.inputs(concept), most, code(__name__)), compute)


def _scored(study: Study, concept: str, most: int) -> Iterator[tuple[str, Target, Mapping[str, np.ndarray]]]:
    """Stage scores of pictures for another word of their captions."""
    settings = study.profile.identification
    for row in study.pairs(concept).query("role == 'select'").head(most).to_dict("records"):
        target = last_other_word(study.model, row["caption"], concept)
        if target is not None:
            sample, maps = study.sample(concept, row["image_id"]), study.token_maps(concept, row["image_id"])
            pictures = sample.image, study.inpainted(sample)
            pair = capture(study.model, *pictures, row["caption"], target, settings.site)
            yield row["image_id"], target, identification.stage_scores(study.model, pair, sample.mask, maps, settings)


def last_other_word(model: CaptionModel, caption: str, concept: str) -> Target | None:
    """Where a caption says its last content word that does not name the concept."""
    words = content_words(caption, without=concept)
    if not words:
        return None
    start = caption.lower().rfind(words[-1])
    ids, spans = model.encode(caption)
    position = next(i for i, (_, end) in enumerate(spans) if end > start)
    return Target(words[-1], ids[position], position)
