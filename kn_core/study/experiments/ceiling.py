"""How much of a word passes through neurons at all: captions with whole layers patched, beside what needs no neurons.

Where all neurons together, as they are without the object, leave the word standing, no set of them can be what the
model knows the object by; where they take it away, there is room for a set to be found.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import torch

from kn_core.fingerprint import code, fingerprint
from kn_core.method import bounds, perturbation
from kn_core.method.complements import naming
from kn_core.method.interventions import Setting
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
    captions = [picture.caption for picture in pictures]

    def whole(name: str, layers: range, site: Site = "product") -> Trial:
        return _trial(NeuronSet.of_layers(concept, name, np.array(layers), model.ffn_width), site)

    everywhere, none = range(model.n_layers), np.empty(0, int)
    planned = [whole(EVERYTHING, everywhere), *(whole(window_name(layers), layers) for layers in windows(study))]
    budget = study.profile.identification.budget  # of which thresholds may leave fewer
    planned.append(_trial(study.neuron_set(concept).top(budget), "product", budget))
    planned.append(whole(ACTIVATION, everywhere, "activation"))
    said = perturbation.answers_under(model, [(trial, p) for trial in planned for p in pictures], None, tokens)
    bare = torch.stack([picture.prompt_inpainted for picture in pictures])
    said += perturbation.answers(model, bare, captions, tokens)
    layers: dict[str, int] = {}
    if model.backbone.config.model_type in LIKE_LLAMA:
        shown = torch.stack([picture.prompt for picture in pictures])
        for name, (layer, edit) in _bounds(study, concept).items():
            layers[name] = layer
            said += perturbation.answers(model, shown, captions, tokens, partial(_always, {layer: edit}), "residual")
    planned += [_trial(NeuronSet(concept, name, none, none, np.empty(0)), "product") for name in (WITHOUT, *layers)]
    frame = perturbation.table(model, [(trial, p) for trial in planned for p in pictures], said)
    return frame.assign(layer=frame["method"].map(layers).astype(float))


def _always(edits: dict[int, Edit], _: slice) -> dict[int, Edit]:
    return edits


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
