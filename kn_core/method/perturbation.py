"""What the model says under interventions on a neuron set: the rows of `perturbations.parquet` (section II-D)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_core.concepts import names
from kn_core.measures.metrics import probability_retention, repetition, retention
from kn_core.method.capture import Target
from kn_core.method.interventions import Setting, edits_for, inpainted_activations, noisy_weights, side_by_side
from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import CaptionModel, Site
from kn_core.models.hooks import Edit, intervene


@dataclass(frozen=True, eq=False)
class Picture:
    """A kept picture, ready to be captioned again."""

    image_id: str
    concept: str
    caption: str  # the clean model's
    target: Target  # where it names the picture's own concept
    held_out: bool  # it did not choose neurons
    chooses_dose: bool  # it chose neurons, and says which noise suits a method
    swept: bool  # sweeps are tried on it
    prompt: Tensor  # (T, H)
    prompt_inpainted: Tensor  # (T, H), for 'patch'


# Pictures: those that chose no neurons ('fresh'); of these the concept's own; of these some; those that chose neurons
# and choose a dose; 'fresh' and 'choosing'; 'swept' and 'choosing'.
Scope = Literal["fresh", "own", "swept", "choosing", "all", "dose"]


@dataclass(frozen=True, eq=False)
class Trial:
    """An intervention on one neuron set, on the pictures of a scope."""

    neurons: NeuronSet
    setting: Setting
    scope: Scope

    def shows(self, picture: Picture) -> bool:
        own = picture.held_out and picture.concept == self.neurons.concept
        return {
            "fresh": picture.held_out,
            "own": own,
            "swept": own and picture.swept,
            "choosing": picture.chooses_dose,
            "all": picture.held_out or picture.chooses_dose,
            "dose": (own and picture.swept) or picture.chooses_dose,
        }[self.scope]


def run(
    model: CaptionModel,
    pictures: Sequence[Picture],
    planned: Sequence[Trial],
    mean: Tensor | None,
    max_new_tokens: int,
) -> pd.DataFrame:
    """Every trial on its pictures, one row a picture and trial.

    `pictures` are the concept's own and some of others; `mean` (L, D) is what 'mean' puts in. In rows of another
    concept's picture `target_present` and the probabilities speak of that picture's own concept.
    """
    jobs = [(trial, picture) for trial in planned for picture in pictures if trial.shows(picture)]
    prompts, captions = torch.stack([p.prompt for p in pictures]), [p.caption for p in pictures]
    clean = answers(model, prompts, captions, max_new_tokens)
    before = {picture.image_id: answer.probabilities for picture, answer in zip(pictures, clean, strict=True)}
    said = _answers_under(model, jobs, mean, max_new_tokens)
    frame = pd.DataFrame([_row(*job, before[job[1].image_id], answer) for job, answer in zip(jobs, said, strict=True)])
    written = pd.unique(frame[["caption", "clean_caption"]].to_numpy().ravel()).tolist()
    perplexity = dict(zip(written, model.perplexity(written), strict=True))
    frame["perplexity"] = frame["caption"].map(perplexity)
    frame["clean_perplexity"] = frame["clean_caption"].map(perplexity)
    return frame


Job = tuple[Trial, Picture]


def _answers_under(model: CaptionModel, jobs: Sequence[Job], mean: Tensor | None, max_new_tokens: int) -> list[Answer]:
    """The answer of each job. Trials that edit one site share batches; noise on weights has batches of its own."""

    def edits(part: Sequence[Job]) -> dict[int, Edit]:
        groups = []
        for _, group in groupby(part, key=lambda job: id(job[0])):
            rows = list(group)
            trial, shown, replacement = rows[0][0], [picture for _, picture in rows], None
            if trial.setting.intervention == "mean":
                replacement = mean
            elif trial.setting.intervention == "patch":
                without = torch.stack([p.prompt_inpainted for p in shown])
                replacement = inpainted_activations(model, without, trial.setting.site)
            ids = [picture.image_id for picture in shown]
            made = edits_for(model, trial.neurons, trial.setting, ids, replacement, max_new_tokens)
            groups.append((len(rows), made))
        return side_by_side(groups)

    found: list[Answer] = []
    for (on_weights, site), group in groupby(
        jobs, key=lambda job: (job[0].setting.intervention == "weights", job[0].setting.site)
    ):
        if on_weights:
            for _, same in groupby(group, key=lambda job: id(job[0])):
                part = list(same)
                with noisy_weights(model, part[0][0].neurons, part[0][0].setting):
                    found += _answers(model, part, max_new_tokens)
        else:
            found += _answers(model, list(group), max_new_tokens, edits, site)
    return found


def _answers(
    model: CaptionModel,
    jobs: Sequence[Job],
    max_new_tokens: int,
    edits: Callable[[Sequence[Job]], dict[int, Edit]] | None = None,
    site: Site = "activation",
) -> list[Answer]:
    prompts = torch.stack([picture.prompt for _, picture in jobs])
    captions = [picture.caption for _, picture in jobs]

    def of_rows(rows: slice) -> dict[int, Edit]:
        return edits(jobs[rows]) if edits else {}

    return answers(model, prompts, captions, max_new_tokens, of_rows, site)


def _row(trial: Trial, picture: Picture, before: np.ndarray, answer: Answer) -> dict[str, object]:
    at, after, setting = picture.target.position, answer.probabilities, trial.setting
    return {
        "concept": trial.neurons.concept,
        "method": trial.neurons.method,
        "intervention": setting.intervention,
        "positions": setting.positions,
        "n": setting.n,
        "sigma": setting.sigma,
        "site": setting.site,
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
            ids = torch.tensor(model.encode(reference)[0], dtype=torch.long, device=row.device)
            chances = torch.log_softmax(row[: len(ids)].float(), -1).gather(1, ids[:, None])[:, 0].exp()
            found.append(Answer(caption, chances.cpu().numpy()))
    return found
