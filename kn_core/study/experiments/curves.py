"""What sets of neurons carry of a word's logit, over their size: the one side of a curve, and its other.

Only neurons that can act are counted: at the image tokens of the last layer nothing reaches a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.method.complements import gaps, learned_mask, naming, perplexities
from kn_core.method.controls import generator, others
from kn_core.study.experiments import attribution, single_neurons
from kn_core.study.experiments.ceiling import window_name, windows
from kn_core.study.study import Study

KEPT, REMOVED = "kept", "removed"  # C alone is as it is; C alone is patched
SPARED = "spared"  # C alone is patched, but for its neurons that are flagged
UNIFORM, MATCHED, MASK = "uniform", "random", "mask"
COLLAPSE = 2.0  # times the perplexity of other concepts' captions


def curves(study: Study, concept: str) -> pd.DataFrame:
    """y of held-out pictures under sets of neurons: columns concept, image_id, ranking, draw, n, side, y.

    `ranking` is what orders neurons (`rankings`, 'mask', 'uniform' draws of all; 'random' sets of as many as the
    two-stage neurons of the profile's budget, and of their layers), `n` how many of its best, `side` whether these
    alone are as they are ('kept') or these alone patched ('removed'; 'spared', without those that `collapse` flags,
    where it flags any). Anchors have side '': ranking 'nothing' is the
    picture as it is, 'everything' with all patched, `WITHOUT` that of the picture without the object, then windows of
    layers patched.
    """
    settings = study.effort.ceiling
    scored = sorted(rankings(study, concept))
    inputs = fingerprint(
        study.inputs(concept), study.profile.choices.scored, settings.model_dump(), scored, code(__name__)
    )
    return study.store.table(f"curves-{concept}", inputs, lambda: pd.DataFrame(_curves(study, concept)))


def rankings(study: Study, concept: str) -> dict[str, np.ndarray]:
    """Scores (L, D) that have a curve: those of `single_neurons.scores` and attributions that the profile asks for.

    The two-stage method ranks what passes both thresholds first, and then the rest, by its score all the same.
    """
    held, wanted = single_neurons.scores(study, concept), study.effort.ceiling.rankings
    held |= {name: attribution.pooled(study, concept)[name] for name in ("atp", "gxa")}
    held["two-stage"] = _filled(held["two-stage"], study.pooled(concept)[study.profile.identification.rank_by])
    return {name: score for name, score in held.items() if name in wanted or not wanted}


def sizes(study: Study) -> list[int]:
    """How many neurons the sets of a curve hold: the shares of those that can act, and the budget."""
    able = (study.n_layers - 1) * study.pooled(study.studied()[0])["delta"].shape[1]
    return sorted(
        {round(share * able) for share in study.effort.ceiling.shares} | {study.profile.identification.budget}
    )


def order(score: np.ndarray) -> np.ndarray:
    """Neurons that can act, as places in (L, D) counted along rows, the best first. Ties fall to the earlier layer."""
    return np.argsort(-score[:-1], axis=None, kind="stable")


def same_layers(ordered: np.ndarray, n: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Others of the same layers in the place of the n best of an order, (n,)."""
    layers, drawn = ordered[:n] // width, np.empty(n, int)
    for layer in np.unique(layers):
        here = layers == layer
        taken = ordered[:n][here] - layer * width
        drawn[here] = layer * width + others(taken, width, rng, f" of layer {layer}")
    return drawn


def collapse(study: Study, concept: str) -> pd.DataFrame:
    """Does one neuron carry language itself? Columns concept, layer, unit, rank, ratio: of the best two-stage neurons.

    `ratio` is how many times as surprising held-out captions of other concepts are, one of each, with the neuron at
    zero at the image tokens; from `COLLAPSE` on the neuron is flagged.
    """
    best = study.neuron_set(concept).top(study.effort.ceiling.guarded)
    concepts = [other for other in study.studied() if other != concept] or [concept]
    inputs = fingerprint(study.inputs(concept), len(best), concepts, code(__name__))

    def compute() -> pd.DataFrame:
        captions = [study.pictures(other, "held_out", 1)[0] for other in concepts]
        each = [perplexities(study.model, picture, best.layers, best.units) for picture in captions]
        found = np.exp(np.log(each).mean(axis=0))
        return pd.DataFrame(
            {"concept": concept, "layer": best.layers, "unit": best.units, "rank": np.arange(len(best))}
        ).assign(ratio=found[1:] / found[0])

    return study.store.table(f"collapse-{concept}", inputs, compute)


def _filled(score: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """A score with holes (NaN), which the rest fills below its lowest value, in its own order."""
    there = ~np.isnan(score)
    lowest = score[there].min() if there.any() else 0.0
    return np.where(there, score, lowest - 1 - (np.max(rest) - rest))


Sets = dict[tuple[str, int, int, str], np.ndarray]  # (ranking, draw, n, side) -> neurons that are as they are, (L, D)


def _curves(study: Study, concept: str) -> Iterator[dict[str, Any]]:
    model, settings = study.model, study.effort.ceiling
    scored = rankings(study, concept)
    if MASK in settings.rankings or not settings.rankings:
        chosen = [naming(model, p) for p in study.pictures(concept, "select", settings.mask_pictures)]
        budget, steps = study.profile.identification.budget, settings.mask_steps
        scored |= {MASK: learned_mask(model, chosen, budget, steps)}
    sets = _sets(study, concept, scored)
    for picture in study.pictures(concept, "held_out", settings.curve_pictures):
        at = naming(model, picture)
        row = {"concept": concept, "image_id": picture.image_id}
        yield row | {"ranking": "without", "draw": 0, "n": 0, "side": "", "y": at.y_without}
        for (ranking, draw, n, side), y in zip(sets, gaps(model, at, list(sets.values())), strict=True):
            yield row | {"ranking": ranking, "draw": draw, "n": n, "side": side, "y": float(y)}


def _sets(study: Study, concept: str, scored: Mapping[str, np.ndarray]) -> Sets:
    settings, shape = study.effort.ceiling, next(iter(scored.values())).shape
    rng = generator(concept, study.profile.data.seed)
    able, budget = (shape[0] - 1) * shape[1], study.profile.identification.budget

    def only(neurons: np.ndarray) -> np.ndarray:
        kept = np.zeros(shape, bool)
        kept.flat[neurons] = True
        return kept

    sets: Sets = {("nothing", 0, 0, ""): np.ones(shape, bool), ("everything", 0, able, ""): np.zeros(shape, bool)}
    for layers in windows(study):
        kept = np.ones(shape, bool)
        kept[list(layers)] = False
        sets[window_name(layers), 0, len(layers) * shape[1], ""] = kept
    orders = {(name, 0): order(score) for name, score in scored.items()}
    orders |= {(UNIFORM, draw): rng.permutation(able) for draw in range(settings.uniform)}
    for (name, draw), ordered in orders.items():
        for n in sizes(study):
            kept = only(ordered[:n])
            sets[name, draw, n, KEPT] = kept
            if name != UNIFORM:
                sets[name, draw, n, REMOVED] = ~kept
    best = study.neuron_set(concept).top(budget)
    found = best.layers * shape[1] + best.units
    found = found[found < able]
    if (flagged := collapse(study, concept).query("ratio >= @COLLAPSE")).size:
        carriers = flagged["layer"].to_numpy() * shape[1] + flagged["unit"].to_numpy()
        sets["two-stage", 0, budget, SPARED] = ~only(np.setdiff1d(found, carriers))
    for draw in range(settings.matched):
        kept = only(same_layers(found, len(found), shape[1], rng))
        sets[MATCHED, draw, budget, KEPT], sets[MATCHED, draw, budget, REMOVED] = kept, ~kept
    return sets
