"""Single neurons of the sets: where in a picture each answers, what it promotes, what goes without it.

`heatmaps` draws sets, and `single_neurons` asks how well scores rank. Whoever asks whose a neuron is wants its map on
other concepts' pictures too, so those mapped are of all concepts' sets, of the two stages and of the third.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.method.two_stages import NeuronSet
from kn_core.study.experiments import ladder
from kn_core.study.experiments.heatmaps import shown
from kn_core.study.experiments.single_neurons import ablate
from kn_core.study.study import Study

REMOVED = 8  # of each set of a concept's, the best, are taken out one at a time; with EFFORT=full all of them
SCORES = ("delta", "gradcam")  # what is mapped: the difference that the object makes, stage 2's gradient score


def sets(study: Study) -> dict[str, dict[str, NeuronSet]]:
    """Each concept's best neurons, as many as the profile's budget, after both stages and after the third."""
    budget, (recipe, how) = study.profile.identification.budget, ladder.choice(study)
    return {
        concept: {
            "two-stage": study.neuron_set(concept).top(budget),
            ladder.THIRD: ladder.neurons(study, concept, recipe, how).top(budget),
        }
        for concept in study.studied()
    }


def mapped(study: Study) -> np.ndarray:
    """The neurons of any of the `sets`, (n, 2) int of layer and unit, in order."""
    found = {
        neuron
        for of_concept in sets(study).values()
        for one in of_concept.values()
        for neuron in zip(one.layers.tolist(), one.units.tolist(), strict=True)
    }
    return np.array(sorted(found), dtype=np.int64)


def promoted(study: Study) -> pd.DataFrame:
    """The tokens that each `mapped` neuron promotes most: columns layer, unit, top_tokens as in `neurons.parquet`."""

    def compute() -> pd.DataFrame:
        layers, units = mapped(study).T
        tokens = study.model.top_tokens(layers.tolist(), units.tolist())
        return pd.DataFrame(
            {"layer": layers, "unit": units, "top_tokens": [" ".join(map(repr, row)) for row in tokens]}
        )

    return study.store.table("promoted", fingerprint(ladder.upstream(study), code(__name__)), compute)


def removed(study: Study, concept: str) -> pd.DataFrame:
    """What the word's logit loses without a neuron of the concept's own sets: columns layer, unit, effect.

    Mean of `single_neurons.ablate` over as many held-out pictures as there. Raises StudyError for a decoder that it
    cannot take.
    """
    whole, pictures = study.effort != study.profile, study.effort.faithfulness.pictures
    most = study.profile.identification.budget if whole else REMOVED

    def compute() -> pd.DataFrame:
        best = [one.top(most) for one in sets(study)[concept].values()]
        at = np.unique(np.concatenate([np.stack([one.layers, one.units], axis=1) for one in best]), axis=0)
        found = [
            ablate(study.model, one.prompt, one.caption, one.target, *at.T)
            for one in study.pictures(concept, "held_out", pictures)
        ]
        return pd.DataFrame({"layer": at[:, 0], "unit": at[:, 1], "effect": np.mean(found, axis=0)})

    inputs = fingerprint(ladder.upstream(study), most, pictures, code(__name__))
    return study.store.table(f"removed-{concept}" + ("-full" if whole else ""), inputs, compute)


def maps(study: Study, concept: str) -> dict[str, np.ndarray]:
    """On the concept's pictures of `heatmaps.shown`: `neurons` (n, 2), by score (pictures, n, rows, columns) float16.

    A map is the neuron's score at each image token, laid where that token looks; the grid is the model's own.
    """
    inputs = fingerprint(ladder.upstream(study), shown(study, concept), code(__name__))

    def compute() -> Mapping[str, np.ndarray]:
        neurons = mapped(study)
        found: dict[str, list[np.ndarray]] = {name: [] for name in SCORES}
        for image_id in shown(study, concept):
            pair, tokens = study.capture(concept, image_id), study.token_maps(concept, image_id).numpy()  # (P, cells)
            for name, score in (("delta", pair.delta), ("gradcam", pair.gradcam)):
                of_each = score.numpy()[neurons[:, 0], :, neurons[:, 1]] @ tokens  # (n, cells)
                found[name].append(of_each.reshape(-1, *study.model.grid).astype(np.float16))
        return {"neurons": neurons} | {name: np.stack(each) for name, each in found.items()}

    return study.store.arrays(f"neuron-maps-{concept}", inputs, compute)
