"""What each neuron is worth to a concept's word, by sums at the product site, and what single patches really take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from kn_core.fingerprint import code, fingerprint
from kn_core.method.attribution import ENSEMBLE, along_the_path, first_order, mean_rank, rival_token, run
from kn_core.method.capture import Target
from kn_core.method.controls import generator
from kn_core.pictures.decoys import elsewhere as free_place
from kn_core.pictures.inpaint import DILATION, dilated, inpaint
from kn_core.study.experiments.single_neurons import ablate, beside_scores, candidates_to_ablate
from kn_core.study.study import Study, StudyError

STAGE_2 = ("gradcam", "gradcam-sum")  # the paper's score and the same summed, of `Study.scores`
HELD = ("atp", "trapezoid", "ig", "conductance", "relp", "ensemble", "gxa", *STAGE_2)  # against exact patches


def by_picture(study: Study, concept: str) -> dict[str, np.ndarray]:
    """`attribution.first_order` of each selection pair: (N, L, D) float32 a score, in the order of `Study.scores`.

    Where `choices.scored` says so, of the first pairs alone.
    """

    def compute() -> Mapping[str, np.ndarray]:
        scored = study.profile.choices.scored
        found = [first_order(study.model, *pair) for pair in _pairs(study, concept, scored)]
        return {name: np.stack([scores[name] for scores in found]) for name in found[0]}

    return study.store.arrays(f"attribution-{concept}", _inputs(study, concept), compute)


def pooled(study: Study, concept: str) -> dict[str, np.ndarray]:
    """The means over selection pictures, (L, D); of other tokens the means of sizes, whichever way a neuron pushes."""

    def compute() -> Mapping[str, np.ndarray]:
        scores = by_picture(study, concept) | {"gradcam-sum": study.scores(concept)["gradcam-sum"]}
        means = {name: (abs(each) if name.endswith("-other") else each).mean(axis=0) for name, each in scores.items()}
        return {name: mean.astype(np.float32) for name, mean in means.items()}

    return study.store.arrays(f"worth-{concept}", _inputs(study, concept), compute)


def elsewhere(study: Study, concept: str) -> dict[str, np.ndarray]:
    """AtP, `elsewhere` (L, D), where an equal area elsewhere is inpainted and not the object: a mean over pictures.

    Of the selection pictures with room for it, as many as `by_picture` has; zero where none has.
    """

    def compute() -> Mapping[str, np.ndarray]:
        found = []
        for picture in study.pictures(concept, "select", study.profile.choices.scored):
            sample = study.sample(concept, picture.image_id)
            place = free_place(dilated(sample.mask, DILATION), sample.image)
            if place is not None:
                gone = study.model.prompts([inpaint(replace(sample, mask=place), "telea", 0)])[0]
                pair = torch.stack([picture.prompt, gone]).detach()
                found.append(first_order(study.model, pair, picture.caption, picture.target)["atp"])
        none = np.zeros(pooled(study, concept)["atp"].shape)
        return {"elsewhere": np.mean(found or [none], axis=0).astype(np.float32)}

    return study.store.arrays(f"elsewhere-{concept}", _inputs(study, concept), compute)


def paths(study: Study, concept: str) -> dict[str, np.ndarray]:
    """`attribution.along_the_path` of the first selection pairs, (n, L, D) a score."""
    most = study.effort.choices.paths

    def compute() -> Mapping[str, np.ndarray]:
        found = [along_the_path(study.model, *pair) for pair in _pairs(study, concept, most)]
        return {name: np.stack([scores[name] for scores in found]) for name in found[0]}

    return study.store.arrays(f"paths-{concept}", fingerprint(_inputs(study, concept), most), compute)


def means(study: Study, concept: str) -> dict[str, np.ndarray]:
    """Every score of `HELD`, (L, D): its mean over the first `choices.paths` selection pairs, the same for all."""
    first = study.effort.choices.paths
    sources = (by_picture(study, concept), paths(study, concept), study.scores(concept))
    held = {name: each[:first].mean(axis=0) for scores in sources for name, each in scores.items() if name in HELD}
    return held | {"ensemble": mean_rank({name: held[name] for name in ENSEMBLE if name in held})}


def patches(study: Study, concept: str) -> pd.DataFrame:
    """Exact patches of single neurons beside every score: columns concept, layer, unit, stratum, effect, method, score.

    `effect` is what y loses when the neuron alone, at all image tokens, is as without the object, mean over the very
    selection pictures that the scores are of, so that what differs is how a score reckons and not of what. The neurons
    are the best of every score and others from every layer alike, `choices.patched` in all.
    """
    settings = study.effort.choices
    inputs = fingerprint(_inputs(study, concept), settings.paths, settings.patched)

    def compute() -> pd.DataFrame:
        held = means(study, concept)
        chosen = _candidates(held, settings.patched, generator(concept, study.profile.data.seed))
        at = chosen["layer"].to_numpy(), chosen["unit"].to_numpy()
        found = [_patched(study, *pair, *at) for pair in _pairs(study, concept, settings.paths)]
        return beside_scores(chosen, np.mean(found, axis=0), held).assign(concept=concept)

    return study.store.table(f"patches-{concept}", inputs, compute)


def agreement(rows: pd.DataFrame, share: float = 0.2) -> pd.DataFrame:
    """How well scores foretell exact patches: columns concept, method, over, spearman, pearson, sign, precision, n.

    `over` is 'all' neurons, those drawn at 'random' alone, or the 'own' fifth (`share`) that the score itself puts
    first. `sign` is the share of neurons that it gives their effect's sign, `precision` how many of the `share` of
    neurons with the largest effects are among as many with the largest scores. A mean rank has no sign: NaN.
    """
    records = []
    for (concept, method), group in rows.groupby(["concept", "method"], sort=False):
        group = group.dropna(subset=["score"])
        first = max(3, round(share * len(group)))
        strata = {"all": group, "random": group[group["stratum"] == "random"], "own": group.nlargest(first, "score")}
        for over, chosen in strata.items():
            score, effect, few = (
                chosen["score"].to_numpy(),
                chosen["effect"].to_numpy(),
                max(1, round(share * len(chosen))),
            )
            if len(chosen) < 3 or np.ptp(score) == 0 or np.ptp(effect) == 0:
                continue
            moved = effect != 0  # in the last layer nothing can be lost, and there is no sign to foretell
            signed = method != "ensemble" and moved.any()
            sign = float((np.sign(score) == np.sign(effect))[moved].mean()) if signed else np.nan
            both = np.intersect1d(np.argsort(-score)[:few], np.argsort(-effect)[:few])
            by_rank, by_size = (float(of(score, effect).statistic) for of in (spearmanr, pearsonr))
            records.append((concept, method, over, by_rank, by_size, sign, len(both) / few, len(chosen)))
    columns = ["concept", "method", "over", "spearman", "pearson", "sign", "precision", "n"]
    return pd.DataFrame(records, columns=columns)


def _inputs(study: Study, concept: str) -> str:
    return fingerprint(study.inputs(concept), study.profile.choices.scored, code(__name__))


Pair = tuple[Tensor, str, Target]


def _pairs(study: Study, concept: str, first: int | None = None) -> list[Pair]:
    """Embedded prompts (2, T, H) with and without the object, the caption and its target, of selection pairs."""
    pictures = study.pictures(concept, "select", first)
    if not pictures:
        raise StudyError(f"No pair of '{concept}' chose neurons; see {study.folder / 'pairs.parquet'}, column reason.")
    return [(torch.stack([one.prompt, one.prompt_inpainted]), one.caption, one.target) for one in pictures]


def _candidates(held: Mapping[str, np.ndarray], count: int, rng: np.random.Generator) -> pd.DataFrame:
    """At most half of them the best of each score, the rest at random; the same number whatever the scores share."""
    each = max(1, count // (2 * len(held)))
    best = candidates_to_ablate(held, each, 0, rng)
    return candidates_to_ablate(held, each, max(0, count - len(best)), rng)


def _patched(
    study: Study, prompts: Tensor, caption: str, target: Target, layers: np.ndarray, units: np.ndarray
) -> np.ndarray:
    without = run(study.model, prompts[1:], caption)
    rival = rival_token(without.logits[0], target)
    instead = [layer[0] for layer in without.product]
    return ablate(study.model, prompts[0], caption, target, layers, units, instead=instead, against=rival)
