"""Do scores say what neurons do? One neuron at a time is switched off, and every method's score held against that.

The effect of a neuron is exact, not a first-order estimate: the model runs again without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import transformers
from scipy.stats import spearmanr
from torch import Tensor

from kn_core.fingerprint import code, fingerprint
from kn_core.method.capture import Target
from kn_core.method.controls import generator
from kn_core.method.identification import RANKED_BY
from kn_core.method.relp import LIKE_LLAMA
from kn_core.method.two_stages import select
from kn_core.models import checkpoints
from kn_core.models.base import CaptionModel
from kn_core.models.hooks import record
from kn_core.profile import Profile
from kn_core.settings import Checkpoint
from kn_core.study.study import Study, StudyError
from kn_core.weights import files

# Pooled scores that belong to no method, for reference.
REFERENCE = ("gradcam-sum", "activation")


def scores(study: Study, concept: str) -> dict[str, np.ndarray]:
    """What is held against the effect, pooled over selection pictures, (L, D) each: methods' scores, two for reference.

    `gradcam-sum` is the first-order estimate of the very effect; `activation` knows nothing of the concept. The
    two-stage method's score is that of stage 2, and NaN where a neuron does not pass both thresholds.
    """
    pooled, threshold = study.pooled(concept), study.thresholds(concept)
    passes = (pooled["delta"] > threshold["delta"]) & (pooled["gradcam"] > threshold["gradcam"])
    held = ("stage-1", "stage-2", *study.profile.perturbation.rivals)
    rivals = {name: pooled[key] for name, key in RANKED_BY.items() if name in held}
    reference = {name: pooled[name] for name in REFERENCE}
    return {"two-stage": np.where(passes, pooled["gradcam"], np.nan)} | rivals | reference


def effects(study: Study, concept: str) -> pd.DataFrame:
    """Exact effects of single neurons: columns concept, layer, unit, stratum, effect, method, score.

    `effect` is what the concept's logit loses without the neuron at the image tokens, mean over held-out pictures.
    """
    settings = study.effort.faithfulness
    inputs = fingerprint(study.inputs(concept), settings.model_dump(), code(__name__))

    def compute() -> pd.DataFrame:
        held = scores(study, concept)
        rng = generator(concept, study.profile.data.seed)
        chosen = candidates_to_ablate(held, settings.per_method, settings.random, rng)
        layers, units = chosen["layer"].to_numpy(), chosen["unit"].to_numpy()
        pictures = study.pictures(concept, "held_out", settings.pictures)
        found = [ablate(study.model, one.prompt, one.caption, one.target, layers, units) for one in pictures]
        return beside_scores(chosen, np.mean(found, axis=0), held).assign(concept=concept)

    return study.store.table(f"ablations-{concept}", inputs, compute)


def lacks(profile: Profile) -> str:
    """Why the profile's neurons cannot be ablated one at a time, or ''; no weights are loaded for it."""
    if not isinstance(profile.model, Checkpoint):
        return ""
    config = files.read_json(checkpoints.find(profile.model.checkpoint) / "config.json")
    kind = (config.get("text_config") or {}).get("model_type", "")
    return _unlike_llama(kind) if kind else ""


def _unlike_llama(kind: str) -> str:
    if kind in LIKE_LLAMA:
        return ""
    return (
        f"single neurons can be ablated in decoders of type {', '.join(LIKE_LLAMA)}. This one is {kind}: "
        "teach `residual_streams` how its layers are called."
    )


def ablate(
    model: CaptionModel,
    prompt: Tensor,
    caption: str,
    target: Target,
    layers: np.ndarray,
    units: np.ndarray,
    positions: Literal["image", "all"] = "image",
    instead: Sequence[Tensor] | None = None,
    against: int | None = None,
) -> np.ndarray:
    """What each neuron adds to the logit y^c of the target: clean minus ablated, (n,), positive where it helps.

    `prompt` (T, H) is one picture's, and y^c is read where the caption, teacher-forced, names the target. Each of the
    neurons (`layers`, `units`), alone, is zero at the image tokens or at all positions. Zero is the same intervention
    at every site: SiLU(0) = 0, and a product with 0 is 0. Where `instead` is given, (P, D) a layer, its product at
    the image tokens is that; where `against` is, a token c', what is lost is of logit(c) - logit(c').

    A neuron writes its product times w_out,i into the residual stream, so the stream without it is the clean one less
    that: a batch starts from the clean run's stream behind its lowest layer and never runs that layer or those below.
    At the image tokens of the last layer nothing can be lost, as no word is read there: these effects are 0, without a
    run, whose rounding would rank them. In half precision the residual stream is rounded after each layer, and effects
    of less than about a thousandth (float16) or a hundredth (bfloat16) of a logit are noise.
    """
    layers, units = np.asarray(layers), np.asarray(units)
    _check(model, layers, units)
    if instead is not None and positions != "image":
        raise ValueError(f"neurons are patched at image tokens. Got positions '{positions}'.")
    where = {"image": model.image_positions, "all": slice(None)}[positions]
    effects = np.zeros(len(layers))
    with torch.no_grad():
        said = model.teacher_forced(prompt[None], [caption])[:, : model.prompt_length + target.position]
        with record(model, "product") as products:
            clean = list(residual_streams(model, said))
        in_order = np.argsort(layers, kind="stable")
        if positions == "image":
            in_order = in_order[layers[in_order] < model.n_layers - 1]
        for start in range(0, len(in_order), model.batch_size):
            rows = in_order[start : start + model.batch_size]
            lowest = int(layers[rows[0]])
            # One row more than there are neurons: the clean run in the same batch, so that both are rounded alike.
            behind = clean[lowest + 1].repeat(len(rows) + 1, 1, 1)  # (n + 1, T, H)
            for layer, hidden in enumerate(residual_streams(model, behind, lowest + 1), start=lowest):
                here = np.flatnonzero(layers[rows] == layer)
                wanted = torch.from_numpy(units[rows[here]]).to(hidden.device)
                activation = products[layer][0, where][:, wanted].T  # (n here, P)
                if instead is not None:
                    activation = activation - instead[layer][:, wanted.cpu()].T.to(activation)
                written = activation[:, :, None] * model.w_out(layer)[:, wanted].T[:, None]  # (n here, P, H)
                hidden[torch.from_numpy(here).to(hidden.device), where] -= written
            logits = _logit(model, hidden, target.token)
            if against is not None:
                logits = logits - _logit(model, hidden, against)
            effects[rows] = (logits[-1] - logits[:-1]).cpu().numpy()
    return effects


def residual_streams(model: CaptionModel, hidden: Tensor, start: int = 0) -> Iterator[Tensor]:
    """`hidden` (B, T, H), the residual stream that enters layer `start`, then the stream that each layer leaves.

    What is changed in place in one of them enters the next layer. Assumes a Llama as transformers 5 writes it, or what
    differs from it within its layers only (`LIKE_LLAMA`): layers that take and return the stream and add to it what the
    feed-forward block gives, rotary positions counted from 0, no cache, no padding. Raises StudyError for any other.
    """
    decoder: Any = model.backbone
    kind, window = decoder.config.model_type, getattr(decoder.config, "sliding_window", None)
    if why := _unlike_llama(kind):
        raise StudyError(why)
    if window is not None and hidden.shape[1] > window:
        raise ValueError(f"prompt and caption must fit into the {kind}'s window of {window}. Got {hidden.shape[1]}.")
    ids = torch.arange(hidden.shape[1], device=hidden.device)[None]
    mask = transformers.masking_utils.create_causal_mask(
        decoder.config, hidden, attention_mask=None, past_key_values=None, position_ids=ids
    )
    rotary = decoder.rotary_emb(hidden, position_ids=ids)
    yield hidden
    for layer in decoder.layers[start:]:
        hidden = layer(hidden, attention_mask=mask, position_ids=ids, position_embeddings=rotary)
        yield hidden


def _logit(model: CaptionModel, hidden: Tensor, token: int) -> Tensor:
    """One token's logit at the last position of what the last layer leaves: (B, T, H) -> (B,)."""
    backbone: Any = model.backbone
    last: Tensor = backbone.norm(hidden[:, -1])
    return last.float() @ model.unembed[token].to(last.device).float()


def _check(model: CaptionModel, layers: np.ndarray, units: np.ndarray) -> None:
    if layers.shape != units.shape or layers.ndim != 1:
        raise ValueError(f"layers and units must be one of each a neuron, (n,). Got {layers.shape} and {units.shape}.")
    for name, values, size in (("layers", layers, model.n_layers), ("units", units, model.ffn_width)):
        if stray := values[(values < 0) | (values >= size)].tolist():
            raise ValueError(f"{name} must be in 0..{size - 1}. Got {stray[:5]}.")


def candidates_to_ablate(
    scores: Mapping[str, np.ndarray], per_method: int, random: int, rng: np.random.Generator
) -> pd.DataFrame:
    """The neurons worth an ablation: columns layer, unit, stratum, each neuron once.

    Stratum 'top' holds the `per_method` best of every method by its `scores` (L, D); neurons that it did not score are
    NaN. 'random' holds `random` others, drawn alike from every layer: the ones that speak for neurons at large.
    """
    shapes = {name: score.shape for name, score in scores.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"scores must be (L, D), the same for every method. Got {shapes}.")
    n_layers, width = next(iter(shapes.values()))
    best = [select("", name, ~np.isnan(score), score, per_method) for name, score in scores.items()]
    top = np.unique(np.concatenate([found.layers * width + found.units for found in best]))
    drawn = [np.empty(0, dtype=int)]
    sizes = np.full(n_layers, random // n_layers)
    sizes[rng.choice(n_layers, random % n_layers, replace=False)] += 1
    for layer, size in enumerate(sizes):
        free = np.setdiff1d(np.arange(layer * width, (layer + 1) * width), top)
        if size > len(free):
            raise ValueError(f"random must leave {len(free)} neurons or fewer to draw in layer {layer}. Got {size}.")
        drawn.append(rng.choice(free, size, replace=False))
    chosen = np.concatenate([top, *drawn])
    strata = np.repeat(["top", "random"], [len(top), random])
    return pd.DataFrame({"layer": chosen // width, "unit": chosen % width, "stratum": strata})


def beside_scores(neurons: pd.DataFrame, effect: np.ndarray, scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """A row a neuron and method: the columns of `neurons`, effect (n,), method, score (of `scores`, each (L, D))."""
    at = neurons["layer"].to_numpy(), neurons["unit"].to_numpy()
    rows = neurons.assign(effect=effect)
    return pd.concat([rows.assign(method=name, score=score[at]) for name, score in scores.items()], ignore_index=True)


def rank_correlation(frame: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rho of every method's score with the true effect: columns concept, method, over, rho, n.

    `frame` is `beside_scores` with a column concept, a neuron once a concept and method. `over` is 'all' ablated
    neurons or the 'random' stratum alone: choosing the top of every method stretches the range in which it is measured,
    and what that does to rho is no property of a method. n counts neurons that the method scored; rho is NaN where
    they are fewer than three, or the score or the effect is one and the same for all.
    """
    if (twice := frame.duplicated(["concept", "method", "layer", "unit"])).any():
        raise ValueError(
            f"a neuron must have one effect a concept and method; average over pictures. {twice.sum()} have several."
        )
    records = []
    for (concept, method), rows in frame.groupby(["concept", "method"], sort=False):
        scored = rows.dropna(subset=["score"])
        for over, chosen in (("all", scored), ("random", scored[scored["stratum"] == "random"])):
            varies = len(chosen) > 2 and np.ptp(chosen["score"]) > 0 and np.ptp(chosen["effect"]) > 0
            rho = float(spearmanr(chosen["score"], chosen["effect"]).statistic) if varies else np.nan
            records.append((concept, method, over, rho, len(chosen)))
    return pd.DataFrame(records, columns=["concept", "method", "over", "rho", "n"])
