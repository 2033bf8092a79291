"""How much of a word passes through neurons at all: captions with whole layers patched, beside what needs no neurons.

Where all neurons together, as they are without the object, leave the word standing, no set of them can be what the
model knows the object by; where they take it away, there is room for a set to be found.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import numpy as np
import pandas as pd
import torch

from kn_core.fingerprint import code, fingerprint
from kn_core.method import bounds, perturbation
from kn_core.method.complements import naming
from kn_core.method.interventions import Setting, side_by_side
from kn_core.method.perturbation import Trial
from kn_core.method.relp import LIKE_LLAMA
from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import Site
from kn_core.models.hooks import Edit
from kn_core.pictures.token_grid import tokens_inside
from kn_core.profile import Profile
from kn_core.study.study import Study, StudyError

EVERYTHING, ACTIVATION, WITHOUT = "everything", "everything, activation", "without the object"
PROJECT_AWAY, DIFFERENCE = "ProjectAway", "difference of means"


def windows(study: Study) -> list[range]:
    """The layers that are patched together, from the first on."""
    size = study.effort.ceiling.window or -(-study.n_layers // 3)
    return [range(first, min(first + size, study.n_layers)) for first in range(0, study.n_layers, size)]


def window_name(layers: range) -> str:
    return f"layers {layers[0]}–{layers[-1]}"


def ceiling(study: Study, concept: str) -> pd.DataFrame:
    """The perturbations' columns, and `layer` of a bound, on held-out pictures; `method` says what was done.

    All neurons patched at the product and at the activation site, the layers of each of `windows`, the two-stage
    neurons; the picture without the object; the bounds, where the decoder is one whose layers can be reached. Raises
    StudyError where the profile asks for no picture.
    """
    if why := lacks(study.effort):
        raise StudyError(why)
    settings = study.effort.ceiling
    inputs = fingerprint(study.inputs(concept), settings.model_dump(), code(__name__))
    return study.store.table(f"ceiling-{concept}", inputs, lambda: _ceiling(study, concept))


def lacks(profile: Profile) -> str:
    """Why there is no ceiling; '' where there can be one."""
    return "" if profile.ceiling.pictures else "The profile's ceiling.pictures is 0."


def _ceiling(study: Study, concept: str) -> pd.DataFrame:
    model, tokens = study.model, study.profile.model.max_new_tokens
    pictures = study.pictures(concept, "held_out", study.effort.ceiling.pictures)

    def whole(name: str, layers: range, site: Site = "product") -> Trial:
        return _trial(NeuronSet.of_layers(concept, name, np.array(layers), model.ffn_width), site)

    def no_neurons(name: str) -> Trial:
        return _trial(NeuronSet(concept, name, none, none, np.empty(0)), "product")

    everywhere, none = range(model.n_layers), np.empty(0, int)
    planned = [whole(EVERYTHING, everywhere), *(whole(window_name(layers), layers) for layers in windows(study))]
    budget = study.profile.identification.budget  # of which thresholds may leave fewer
    planned.append(_trial(study.neuron_set(concept).top(budget), "product", budget))
    planned += [whole(ACTIVATION, everywhere, "activation"), replace(no_neurons(WITHOUT), instead="removal")]
    jobs = [(trial, picture) for trial in planned for picture in pictures]
    said = perturbation.answers_under(model, jobs, None, tokens)
    layers: dict[str, int] = {}
    if model.backbone.config.model_type in LIKE_LLAMA:
        found = _bounds(study, concept)
        layers = {name: layer for name, (layer, _) in found.items()}
        acting = {name: {layer: edit} for name, (layer, edit) in found.items()}
        bounded = [(no_neurons(name), picture) for name in found for picture in pictures]

        def edits(rows: slice) -> perturbation.Edits:
            each = groupby(bounded[rows], key=lambda job: job[0].neurons.method)
            return {"residual": side_by_side([(len(list(of)), acting[name]) for name, of in each])}

        shown, captions = torch.stack([p.prompt for _, p in bounded]), [p.caption for _, p in bounded]
        said += perturbation.answers(model, shown, captions, tokens, edits)
        jobs += bounded
    frame = perturbation.table(model, jobs, said)
    frame["method"] = frame["method"].replace({"removal": WITHOUT})
    return frame.assign(layer=frame["method"].map(layers).astype(float))


def _bounds(study: Study, concept: str) -> dict[str, tuple[int, Edit]]:
    """Each bound's edit and the layer behind which it acts, both from selection pictures."""
    model, settings = study.model, study.effort.ceiling
    chosen = study.pictures(concept, "select", settings.mask_pictures)
    samples = [study.sample(concept, picture.image_id) for picture in chosen]
    maps = [study.token_maps(concept, picture.image_id).numpy() for picture in chosen]
    inside = [tokens_inside(sample.mask, model.grid, each) for sample, each in zip(samples, maps, strict=True)]
    prompts, without = (torch.stack([getattr(p, name) for p in chosen]) for name in ("prompt", "prompt_inpainted"))
    directions = {
        PROJECT_AWAY: bounds.word_states(model, concept),
        DIFFERENCE: bounds.mean_differences(model, prompts, without, inside),
    }
    layers = np.linspace(0, model.n_layers - 2, settings.bound_layers + 2).round().astype(int)[1:-1]
    tried, at = list(dict.fromkeys(layers.tolist())), [naming(model, picture) for picture in chosen]
    found = {}
    for name, each in directions.items():
        layer = bounds.best_layer(model, at, each, tried, positive := name == PROJECT_AWAY)
        found[name] = layer, bounds.without_direction(model, each[layer], positive)
    return found


def _trial(neurons: NeuronSet, site: Site, n: int | None = None) -> Trial:
    return Trial(neurons, Setting("patch", "image", len(neurons) if n is None else n, np.nan, 0, site), "own")
