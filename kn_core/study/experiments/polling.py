"""'Is there a bear in this picture?': whether a captioner can be asked at all, and what it says with sets disturbed.

A caption can drop a word that the model still knows. A poll is a second reading of suppression, where the clean model
tells pictures with the object from the same pictures without it; where it does not, its answers mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from kn_core.study.study import Study, StudyError

NOTHING, REMOVAL, TWO_STAGE, RANDOM = "nothing", "removal", "two-stage", "random"
THIRD_RANDOM = f"{RANDOM}, as the {THIRD}"  # as many of its layers, under its intervention


def polls(study: Study, concept: str) -> pd.DataFrame:
    """Columns concept, image_id, role, method, odds: ln p(yes) - ln p(no) of a picture, asked for its concept.

    On `choices.choosing` selection pictures the model as it is, with the object and without (`REMOVAL`), for a
    threshold; on the first `choices.pictures` held-out ones these, the headline set and the third stage's, each in its
    own way, and random neurons in both. Raises StudyError where the profile has no poll.
    """
    settings, text = study.effort.choices, study.effort.editing.poll
    if why := lacks(study.effort):
        raise StudyError(why)
    main = protocol.main_setting(study.effort.perturbation, study.profile.identification)
    recipe, how = ladder.choice(study)
    inputs = fingerprint(ladder.upstream(study), settings.model_dump(), text, repr((main, recipe, how)), code(__name__))

    def compute() -> pd.DataFrame:
        model = study.model.asking(text.replace("{word}", concept))
        rows = []
        for role, first in (("select", settings.choosing), ("held_out", settings.pictures)):
            ids = study.pairs(concept).query("role == @role")["image_id"].head(first).tolist()
            samples = [study.sample(concept, image_id) for image_id in ids]
            shown = model.prompts([sample.image for sample in samples])
            without = model.prompts([study.inpainted(sample) for sample in samples])
            found = {NOTHING: odds(model, shown), REMOVAL: odds(model, without)}
            for method, neurons, setting in _sets(study, concept, main) if role == "held_out" else ():
                patched = setting.intervention == "patch"
                instead = inpainted_activations(model, without, setting.site) if patched else None
                with intervene(model, edits_for(model, neurons, setting, ids, instead, 1), setting.site):
                    found[method] = odds(model, shown)
            for method, values in found.items():
                told = {"concept": concept, "role": role, "method": method}
                rows += [told | {"image_id": image, "odds": value} for image, value in zip(ids, values, strict=True)]
        return pd.DataFrame(rows)

    return study.store.table(f"polls-{concept}", inputs, compute)


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
