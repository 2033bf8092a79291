"""One concept's neurons by every method and control: scores of its pictures in, rows of `neurons.parquet` out.

Every method is a score (L, D) of each picture, pooled over the concept's selection pictures, and every method keeps the
same number of neurons. The two-stage method alone filters before it ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor

from kn_core.method import controls, rivals
from kn_core.method.capture import Capture, Target, capture
from kn_core.method.two_stages import NeuronSet, identify, image_scores, pool_images, select
from kn_core.models.base import CaptionModel
from kn_core.models.hooks import plain, precise
from kn_core.pictures.token_grid import tokens_inside
from kn_core.settings import Identification, Perturbation, Threshold

# What each method ranks neurons by; the two-stage method by one of the first two, after both thresholds.
RANKED_BY = {
    "stage-1": "delta",
    "stage-2": "gradcam",
    "schwettmann": "schwettmann",
    "pan-released": "pan-released",
    "pan-gated": "pan-gated",
    "dai": "dai",
}
AT_TEXT = ("pan-released", "pan-gated", "dai")  # methods that score where the word is predicted, not at image tokens


def at_text(method: str) -> str:
    """The name of such a method's neurons when they are disturbed in their own place: of every layer, the last too."""
    return f"{method}-text"


def score_pair(
    model: CaptionModel,
    image: np.ndarray,
    inpainted: np.ndarray,
    caption: str,
    target: Target,
    mask: np.ndarray,
    maps: Tensor,
    settings: Identification,
) -> tuple[Capture, dict[str, np.ndarray]]:
    """One pair of pictures (h, w, 3), in one `capture`: that, and the scores of both stages as in `stage_scores`.

    `caption` is what the model says of the picture.
    """
    pair = capture(model, image, inpainted, caption, target, settings.site)
    return pair, stage_scores(model, pair, mask, maps, settings)


def stage_scores(
    model: CaptionModel, pair: Capture, mask: np.ndarray, maps: Tensor, settings: Identification
) -> dict[str, np.ndarray]:
    """`delta` and `gradcam` of a pair, (L, D) each, read over image tokens as the profile says.

    `mask` (h, w) is where the object is, and `maps` (P, rows * columns), the picture's `token_maps`, where tokens look.
    """
    inside = tokens_inside(mask, model.grid, maps.numpy())
    delta, gradcam = image_scores(pair, settings.over_positions, inside)
    return {"delta": delta, "gradcam": gradcam}


def scores_of(
    model: CaptionModel,
    pair: Capture,
    target: Target,
    stages: Mapping[str, np.ndarray],
    direct: Callable[[int], Tensor] | None = None,
) -> dict[str, np.ndarray]:
    """Every method's score of one pair but Dai's, (L, D) each; `stages` are its `stage_scores`.

    Beside them: `gradcam-sum` over all image tokens, the first-order estimate of what a neuron at zero would
    take from the target's logit, and the mean `activation` over image tokens. `direct`, one for several pairs, is
    `rivals.directly` of the model.
    """
    direct = direct or rivals.directly(model)
    return {
        **stages,
        "gradcam-sum": pair.gradcam.sum(dim=1).numpy(),
        "activation": pair.original.mean(dim=1).numpy(),
        "schwettmann": rivals.schwettmann(pair),
        "pan-released": rivals.pan(model, pair, target, "released", direct),
        "pan-gated": rivals.pan(model, pair, target, "gated", direct),
    }


def pooled(scores: Mapping[str, np.ndarray], settings: Identification) -> dict[str, np.ndarray]:
    """Scores (N, L, D) pooled over pictures, (L, D): the stages' as the profile says, a rival's by its mean."""
    stages = ("delta", "gradcam")
    return {name: pool_images(each, settings.pooling if name in stages else "mean") for name, each in scores.items()}


def threshold(rule: Threshold, concept: str, score: np.ndarray) -> float:
    """A concept's threshold of a pooled score (L, D): set by hand, else a quantile."""
    return float(rule.by_hand.get(concept, np.quantile(score, rule.quantile)))


def found_by(
    method: str,
    concept: str,
    pooled: Mapping[str, np.ndarray],
    thresholds: Mapping[str, float],
    settings: Identification,
) -> NeuronSet:
    """All neurons that a method finds, the best first; a method without a filter ranks every neuron that can act.

    What the last layer writes at the image tokens is read by nothing, and every method's neurons are disturbed there:
    unless the profile says otherwise (`inert`), none of its neurons is counted, nor drawn at random.
    """
    if method == "two-stage":
        limits = thresholds["delta"], thresholds["gradcam"]
        return identify(concept, pooled["delta"], pooled["gradcam"], *limits, settings.rank_by)
    score = pooled[RANKED_BY[method]]
    can_act = np.ones(score.shape, bool)
    can_act[-1] = settings.inert
    return select(concept, method, can_act, score)


def neurons(
    concept: str,
    model: CaptionModel,
    scores: Mapping[str, np.ndarray],
    thresholds: Mapping[str, float],
    settings: Identification,
    protocol: Perturbation,
    seed: int,
) -> pd.DataFrame:
    """The rows of `neurons.parquet`: two-stage neurons all, of rivals and controls as many as the protocol disturbs."""
    over_images = pooled(scores, settings)
    passing = (scores["delta"] > thresholds["delta"]) & (scores["gradcam"] > thresholds["gradcam"])  # (N, L, D)
    most = max((settings.budget, *protocol.sweep_n))
    frames, methods = [], ("two-stage", *protocol.rivals)
    in_place = settings.model_copy(update={"inert": True})
    looked_for = {method: found_by(method, concept, over_images, thresholds, settings) for method in methods}
    looked_for |= {
        at_text(method): replace(found_by(method, concept, over_images, thresholds, in_place), method=at_text(method))
        for method in (AT_TEXT if protocol.text_sigma else ())
        if method in protocol.rivals
    }
    for method, found in looked_for.items():
        kept = found if method == "two-stage" else found.top(most)
        frames.append(_rows(kept, 0, over_images, passing))
        tokens = model.top_tokens(kept.layers.tolist(), kept.units.tolist())
        frames[-1]["top_tokens"] = [" ".join(map(repr, row)) for row in tokens]
    columns = (precise(model.w_out(layer)) for layer in range(model.n_layers))
    norm = np.stack([plain(each.norm(dim=0)).numpy() for each in columns])  # (L, D)
    activation = np.abs(over_images["activation"])
    for kind in protocol.controls:
        of = "stage-1" if kind == "stage-1-layers" else "two-stage"
        to_match = found_by(of, concept, over_images, thresholds, settings)
        for draw in range(protocol.draws):
            rng, like = controls.generator(concept, seed, draw), to_match.top(settings.budget if draw else most)
            drawn = _control(kind, like, activation, norm, rng, settings.inert)
            frames.append(_rows(drawn, draw, over_images, passing))
    return pd.concat(frames, ignore_index=True)


def _control(
    kind: str, like: NeuronSet, activation: np.ndarray, norm: np.ndarray, rng: np.random.Generator, inert: bool
) -> NeuronSet:
    layers, width = activation.shape
    if kind in ("random", "stage-1-layers"):
        return replace(controls.same_layers(like, width, rng), method=kind)
    if kind == "uniform":
        return controls.uniform(like, (layers if inert else layers - 1, width), rng)
    if kind == "same-activation":
        return controls.same_activation(like, activation, rng)
    return controls.same_norm(like, norm, rng)


def _rows(neurons: NeuronSet, draw: int, pooled: Mapping[str, np.ndarray], passing: np.ndarray) -> pd.DataFrame:
    """Rows of one set; `passing` (N, L, D) says in which pictures a neuron passes both stages by itself."""
    at = (neurons.layers, neurons.units)
    return pd.DataFrame(
        {
            "concept": neurons.concept,
            "method": neurons.method,
            "draw": draw,
            "layer": neurons.layers,
            "unit": neurons.units,
            "rank": np.arange(len(neurons)),
            "score": neurons.scores,
            "delta": pooled["delta"][at],
            "gradcam": pooled["gradcam"][at],
            "n_images": passing.sum(axis=0)[at],
            "top_tokens": "",
        }
    )
