"""'Is there a bear in this picture?': whether a captioner can be asked at all, and what it says with sets disturbed.

A caption can drop a word that the model still knows. A poll is a second reading of suppression, where the clean model
tells pictures with the object from the same pictures without it; where it does not, its answers mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch

from kn_core.fingerprint import code, fingerprint
from kn_core.method import controls, protocol
from kn_core.method.interventions import Setting, edits_for, inpainted_activations
from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import CaptionModel
from kn_core.models.hooks import intervene
from kn_core.profile import Profile
from kn_core.study.experiments import ladder
from kn_core.study.experiments.ladder import THIRD
from kn_core.study.study import Role, Study, StudyError

NOTHING, REMOVAL, TWO_STAGE, RANDOM = "nothing", "removal", "two-stage", "random"
THIRD_RANDOM = f"{RANDOM}, as the {THIRD}"  # as many of its layers, under its intervention


def polls(study: Study, concept: str) -> pd.DataFrame:
    """Columns concept, image_id, role, method, odds: ln p(yes) - ln p(no) of a picture, asked for its concept.

    The model as it is, with the object and without (`REMOVAL`): on `choices.choosing` selection pictures, for a
    threshold, and on the first `choices.pictures` held-out ones. Raises StudyError where the profile has no poll.
    """
    settings, asking = study.effort.choices, _asking(study, concept)

    def compute() -> pd.DataFrame:
        model, rows = study.model.asking(asking), []
        parts: tuple[tuple[Role, int], ...] = (("select", settings.choosing), ("held_out", settings.pictures))
        for role, first in parts:
            ids, shown, without = _shown(study, model, concept, role, first)
            rows.append(_rows(concept, role, ids, {NOTHING: odds(model, shown), REMOVAL: odds(model, without)}))
        return pd.concat(rows, ignore_index=True)

    inputs = fingerprint(study.inputs(concept), settings.choosing, settings.pictures, asking, code(__name__))
    return study.store.table(f"polls-{concept}", inputs, compute)


def disturbed(study: Study, concept: str) -> pd.DataFrame:
    """The same of the held-out pictures under the headline set, the third stage's, and random neurons as either."""
    first, asking = study.effort.choices.pictures, _asking(study, concept)
    main = protocol.main_setting(study.effort.perturbation, study.profile.identification)
    inputs = fingerprint(ladder.upstream(study), first, asking, repr((main, ladder.choice(study))), code(__name__))

    def compute() -> pd.DataFrame:
        model = study.model.asking(asking)
        ids, shown, without = _shown(study, model, concept, "held_out", first)
        found = {}
        for method, neurons, setting in _sets(study, concept, main):
            patched = setting.intervention == "patch"
            instead = inpainted_activations(model, without, setting.site) if patched else None
            with intervene(model, edits_for(model, neurons, setting, ids, instead, 1), setting.site):
                found[method] = odds(model, shown)
        return _rows(concept, "held_out", ids, found)

    return study.store.table(f"polled-{concept}", inputs, compute)


def _asking(study: Study, concept: str) -> str:
    if why := lacks(study.effort):
        raise StudyError(why)
    return study.effort.editing.poll.replace("{word}", concept)


def _shown(
    study: Study, model: CaptionModel, concept: str, role: Role, first: int
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """The first pictures of a role: their names, embedded with the object and without."""
    pairs = study.pairs(concept)
    ids = pairs[pairs["role"] == role]["image_id"].head(first).tolist()
    samples = [study.sample(concept, image_id) for image_id in ids]
    shown = model.prompts([sample.image for sample in samples])
    return ids, shown, model.prompts([study.inpainted(sample) for sample in samples])


def _rows(concept: str, role: str, ids: Sequence[str], found: Mapping[str, list[float]]) -> pd.DataFrame:
    each = [
        (concept, image, role, method, value)
        for method, values in found.items()
        for image, value in zip(ids, values, strict=True)
    ]
    return pd.DataFrame(each, columns=["concept", "image_id", "role", "method", "odds"])


def lacks(profile: Profile) -> str:
    """Why nothing is asked; '' where it is."""
    if profile.perturbation.intervention in ("mean", "weights"):
        return "Polls are made under noise, zero and patches alone."
    return "" if profile.editing.poll else "The profile has no editing.poll, a text that asks for {word}."


def yes_and_no(model: CaptionModel) -> list[int]:
    """The first tokens of the two answers."""
    return [model.encode(answer)[0][0] for answer in ("Yes", "No")]


def odds(model: CaptionModel, prompts: torch.Tensor) -> list[float]:
    """ln p(yes) - ln p(no) as the answer's first token, of embedded prompts (B, T, H)."""
    with torch.no_grad():
        yes, no = model.logits(prompts)[:, 0].float()[:, yes_and_no(model)].cpu().unbind(1)
    values: list[float] = (yes - no).tolist()
    return values


def _sets(study: Study, concept: str, main: Setting) -> Iterator[tuple[str, NeuronSet, Setting]]:
    """What is disturbed on held-out pictures, and how."""
    yield TWO_STAGE, study.neuron_set(concept), main
    yield RANDOM, study.neuron_set(concept, RANDOM), main
    recipe, how = ladder.choice(study)
    found = ladder.neurons(study, concept, recipe, how).top(main.n)
    at_zero = replace(main, intervention=how, sigma=float("nan"), site=study.effort.perturbation.patch_site)
    yield THIRD, found, at_zero
    rng = controls.generator(concept, study.profile.data.seed)
    yield THIRD_RANDOM, controls.same_layers(found, study.model.ffn_width, rng), at_zero
