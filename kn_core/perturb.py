"""Interventions on a neuron set, and what the model then says (section II-D of the paper; method.md 1.7 of the design).

An intervention replaces the activations of the chosen neurons at the chosen positions of the prompt and caption:

    noise   O + sigma * e, e ~ N(0, 1)      the paper's
    zero    0
    mean    the neuron's mean activation at the image tokens of other concepts' pictures
    patch   its activations at the same image tokens of the picture without the object
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_core.concepts import names
from kn_core.hooks import Edit, intervene, record
from kn_core.metrics import probability_retention, repetition, retention
from kn_core.models.base import CaptionModel, Site
from kn_core.neurons import NeuronSet, Target
from kn_core.profile import Intervention, Perturbation, Positions

NEEDS_IMAGE_POSITIONS = ("mean", "patch")


@dataclass(frozen=True)
class Setting:
    """One intervention: what is done, where, how strongly."""

    intervention: Intervention
    positions: Positions
    n: int  # neurons
    sigma: float  # standard deviation of the noise, in units of activation; nan for interventions without noise
    seed: int

    def __post_init__(self) -> None:
        if self.intervention in NEEDS_IMAGE_POSITIONS and self.positions != "image":
            raise ValueError(f"'{self.intervention}' is defined at image positions. Got positions '{self.positions}'.")


@dataclass(frozen=True, eq=False)
class Picture:
    """A kept picture, ready to be captioned again."""

    image_id: str
    concept: str
    caption: str  # the clean model's
    target: Target  # where it names the picture's own concept
    held_out: bool  # it did not choose neurons
    prompt: Tensor  # (T, H)
    prompt_inpainted: Tensor  # (T, H), for 'patch'


Scope = Literal["all", "fresh", "own"]  # pictures: all, all that chose no neurons, of these the concept's own
Trial = tuple[NeuronSet, Setting, Scope]


def trials(settings: Perturbation, budget: int, found: NeuronSet, controls: Sequence[NeuronSet]) -> Iterator[Trial]:
    """What a profile asks for: the headline setting on every picture, sweeps around it on held-out pictures.

    Seed s disturbs the found neurons with noise s, and the control's draw s with the same seed.
    """

    def setting_of(intervention: Intervention) -> Setting:
        sigma = settings.sigma if intervention == "noise" else math.nan
        return Setting(intervention, settings.positions, budget, sigma, 0)

    headline = setting_of(settings.intervention)
    for seed, control in enumerate(controls):
        scope: Scope = "fresh" if seed else "all"
        yield found, replace(headline, seed=seed), scope
        yield control, replace(headline, seed=seed), scope
    sweep = [replace(headline, n=n) for n in settings.sweep_n]
    sweep += [replace(headline, sigma=sigma) for sigma in settings.sweep_sigma]
    sweep += [setting_of(intervention) for intervention in settings.sweep_interventions]
    sweep += [replace(headline, positions=where) for where in settings.sweep_positions]
    for setting in sweep:
        if setting != headline:
            yield found, setting, "own"
            yield controls[0], setting, "own"


def run(
    model: CaptionModel,
    concept: str,
    pictures: Sequence[Picture],
    planned: Sequence[Trial],
    mean: Tensor | None,
    max_new_tokens: int,
    site: Site = "activation",
) -> pd.DataFrame:
    """Every trial on its pictures: the rows of `perturbations.parquet`, one a picture, set and setting.

    `pictures` are the concept's own and some of others; `mean` (L, D) is what 'mean' puts in. In rows of another
    concept's picture `target_present` and the probabilities speak of that picture's own concept.
    """
    clean = answers(
        model, torch.stack([p.prompt for p in pictures]), [p.caption for p in pictures], max_new_tokens, site=site
    )
    before = {picture.image_id: answer.probabilities for picture, answer in zip(pictures, clean, strict=True)}
    rows: list[dict[str, object]] = []
    for neurons, setting, scope in planned:
        shown = [p for p in pictures if _in_scope(p, scope, concept)]
        said = _perturbed_answers(model, neurons, setting, shown, mean, max_new_tokens, site) if shown else []
        rows += [
            _row(concept, neurons, setting, picture, before[picture.image_id], answer)
            for picture, answer in zip(shown, said, strict=True)
        ]
    frame = pd.DataFrame(rows)
    written = pd.unique(frame[["caption", "clean_caption"]].to_numpy().ravel()).tolist()
    perplexity = dict(zip(written, model.perplexity(written), strict=True))
    frame["perplexity"] = frame["caption"].map(perplexity)
    frame["clean_perplexity"] = frame["clean_caption"].map(perplexity)
    return frame


def _perturbed_answers(
    model: CaptionModel,
    neurons: NeuronSet,
    setting: Setting,
    pictures: Sequence[Picture],
    mean: Tensor | None,
    max_new_tokens: int,
    site: Site,
) -> list[Answer]:
    def edits(rows: slice) -> dict[int, Edit]:
        batch, replacement = pictures[rows], None
        if setting.intervention == "mean":
            replacement = mean
        elif setting.intervention == "patch":
            replacement = inpainted_activations(model, torch.stack([p.prompt_inpainted for p in batch]), site)
        return edits_for(model, neurons, setting, [p.image_id for p in batch], replacement, max_new_tokens)

    prompts = torch.stack([picture.prompt for picture in pictures])
    return answers(model, prompts, [picture.caption for picture in pictures], max_new_tokens, edits, site)


def _in_scope(picture: Picture, scope: Scope, concept: str) -> bool:
    return scope == "all" or (picture.held_out and (scope == "fresh" or picture.concept == concept))


def _row(
    concept: str, neurons: NeuronSet, setting: Setting, picture: Picture, before: np.ndarray, answer: Answer
) -> dict[str, object]:
    at, after = picture.target.position, answer.probabilities
    return {
        "concept": concept,
        "method": neurons.method,
        "intervention": setting.intervention,
        "positions": setting.positions,
        "n": setting.n,
        "sigma": setting.sigma,
        "seed": setting.seed,
        "image_id": picture.image_id,
        "image_concept": picture.concept,
        "heldout": picture.held_out,
        "caption": answer.caption,
        "clean_caption": picture.caption,
        "target_present": names(answer.caption, picture.concept),
        "target_probability": float(after[at]),
        "clean_probability": float(before[at]),
        "retained": retention(picture.caption, answer.caption, picture.concept),
        "retained_probability": probability_retention(np.delete(before, at), np.delete(after, at)),
        "repetition": repetition(answer.caption),
    }


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model says of a picture, and the probabilities that it gives to the tokens of a reference caption."""

    caption: str
    probabilities: np.ndarray  # (C,), of the tokens of the reference caption, teacher-forced


def answers(
    model: CaptionModel,
    prompts: Tensor,
    references: Sequence[str],
    max_new_tokens: int,
    edits: Callable[[slice], dict[int, Edit]] | None = None,
    site: Site = "activation",
) -> list[Answer]:
    """Caption embedded prompts (B, T, H) and score the reference captions, under edits made for each batch of rows."""
    found: list[Answer] = []
    for start in range(0, len(prompts), model.batch_size):
        rows = slice(start, min(start + model.batch_size, len(prompts)))
        with intervene(model, edits(rows) if edits else {}, site):
            captions, logits = model.respond(prompts[rows], references[rows], max_new_tokens)
        for caption, reference, row in zip(captions, references[rows], logits, strict=True):
            ids = torch.tensor(model.encode(reference)[0], dtype=torch.long)
            chances = torch.log_softmax(row[: len(ids)].float(), -1).gather(1, ids[:, None])[:, 0].exp()
            found.append(Answer(caption, chances.numpy()))
    return found


def edits_for(
    model: CaptionModel,
    neurons: NeuronSet,
    setting: Setting,
    image_ids: Sequence[str],
    replacement: Tensor | None = None,
    max_new_tokens: int = 24,
) -> dict[int, Edit]:
    """The edits of a batch of pictures, one a layer that has neurons; `intervene` applies them.

    Noise belongs to (seed, picture, layer): it does not depend on what else is in the batch. `replacement` is (L, D)
    for 'mean' and (B, L, P, D) for 'patch'.
    """
    if (setting.intervention in NEEDS_IMAGE_POSITIONS) != (replacement is not None):
        raise ValueError(f"'mean' and 'patch' need a replacement, others take none. Got '{setting.intervention}'.")
    length = model.prompt_length + max_new_tokens + 64  # a forced caption may be longer than a written one
    made: dict[int, Edit] = {}
    for layer, units in neurons.top(setting.n).by_layer().items():
        chosen = torch.from_numpy(units)
        if setting.intervention == "noise":
            noise = torch.stack([_noise(setting.seed, image, layer, length, len(units)) for image in image_ids])
            made[layer] = _edit(model, chosen, setting.positions, _add(setting.sigma * noise))
        elif setting.intervention == "zero":
            made[layer] = _edit(model, chosen, setting.positions, lambda values, _: torch.zeros_like(values))
        elif setting.intervention == "mean":
            assert replacement is not None
            made[layer] = _edit(model, chosen, "image", _put(replacement[layer, chosen]))
        else:
            assert replacement is not None
            made[layer] = _edit(model, chosen, "image", _put(replacement[:, layer][..., chosen]))
    return made


def inpainted_activations(model: CaptionModel, prompts: Tensor, site: Site = "activation") -> Tensor:
    """O' at the image tokens of embedded prompts (B, T, H): (B, L, P, D)."""
    with record(model, site) as activations, torch.no_grad():
        model.logits(prompts)
    return torch.stack([layer[:, model.image_positions] for layer in activations], dim=1)


Change = Callable[[Tensor, slice], Tensor]
"""(values (B, t, n) of the chosen neurons, the absolute positions of the t tokens) -> new values."""


def _edit(model: CaptionModel, units: Tensor, positions: Positions, change: Change) -> Edit:
    image = model.image_positions

    def edit(activations: Tensor, first: int) -> Tensor:
        last = first + activations.shape[1]
        if positions == "image":
            spans = [slice(max(first, image.start), min(last, image.stop))]
        elif positions == "text":
            spans = [slice(first, min(last, image.start)), slice(max(first, image.stop), last)]
        else:
            spans = [slice(first, last)]
        spans = [span for span in spans if span.start < span.stop]
        if not spans:
            return activations
        changed = activations.clone()
        for span in spans:
            here = slice(span.start - first, span.stop - first)
            changed[:, here, units] = change(activations[:, here, units], span).to(changed.dtype)
        return changed

    return edit


def _add(noise: Tensor) -> Change:
    return lambda values, span: values + noise[:, span].to(values)


def _put(values: Tensor) -> Change:
    return lambda old, _: values.to(old).expand_as(old)


def _noise(seed: int, image_id: str, layer: int, length: int, n: int) -> Tensor:
    rng = np.random.default_rng([seed, zlib.crc32(image_id.encode()), layer])
    return torch.from_numpy(rng.standard_normal((length, n), dtype=np.float32))
