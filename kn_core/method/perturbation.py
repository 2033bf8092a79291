"""What the model says under interventions on a neuron set: the rows of `perturbations.parquet` (section II-D)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_core.concepts import names
from kn_core.measures.metrics import probability_retention, repetition, retention
from kn_core.measures.truth import named_truly, truth_retention
from kn_core.method.capture import Target
from kn_core.method.interventions import (
    Setting,
    direction_edits,
    edits_for,
    inpainted_activations,
    noisy_weights,
    side_by_side,
)
from kn_core.method.two_stages import NeuronSet
from kn_core.models.base import CaptionModel, Place
from kn_core.models.hooks import Edit, intervene


@dataclass(frozen=True, eq=False)
class Undisturbed:
    """What the model makes of a picture's own caption with nothing disturbed."""

    chances: np.ndarray  # (C,), probabilities of its tokens, teacher-forced
    perplexity: float  # of the caption without the picture


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
    things: tuple[str, ...] = ()  # what else it shows (`Sample.things`)
    clean: list[Undisturbed] = field(default_factory=list)  # what `undisturbed` found, kept for whoever asks again


# Pictures: those that chose no neurons ('fresh'); of these the concept's own; of these some; those that chose neurons
# and choose a dose; 'fresh' and 'choosing'; 'own' and 'choosing'; 'swept' and 'choosing'.
Scope = Literal["fresh", "own", "swept", "choosing", "all", "tried", "dose"]


@dataclass(frozen=True, eq=False)
class Trial:
    """An intervention on one neuron set, on the pictures of a scope.

    `instead` of it: a random 'direction' written at its image tokens (`direction_edits`), or the 'removal' of the
    object from the picture itself, with no neuron disturbed.
    """

    neurons: NeuronSet
    setting: Setting
    scope: Scope
    instead: Literal["", "direction", "removal"] = ""

    @property
    def place(self) -> Place:
        """Where edits take hold."""
        return "written" if self.instead == "direction" else self.setting.site

    def shows(self, picture: Picture) -> bool:
        own = picture.held_out and picture.concept == self.neurons.concept
        return {
            "fresh": picture.held_out,
            "own": own,
            "swept": own and picture.swept,
            "choosing": picture.chooses_dose,
            "all": picture.held_out or picture.chooses_dose,
            "tried": own or picture.chooses_dose,
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
    concept's picture `target_present` and the probabilities speak of that picture's own concept. With no new tokens
    captions are forced and none is written: probabilities alone mean something.
    """
    jobs = [(trial, picture) for trial in planned for picture in pictures if trial.shows(picture)]
    return table(model, jobs, answers_under(model, jobs, mean, max_new_tokens))


def table(model: CaptionModel, jobs: Sequence[Job], said: Sequence[Answer]) -> pd.DataFrame:
    """A row a job, with what was answered: the columns of `perturbations.parquet`."""
    before = undisturbed(model, list({picture.image_id: picture for _, picture in jobs}.values()))
    rows = [_row(*job, before[job[1].image_id].chances, answer) for job, answer in zip(jobs, said, strict=True)]
    frame, perplexity = pd.DataFrame(rows), {one.caption: before[one.image_id].perplexity for _, one in jobs}
    written = [caption for caption in frame["caption"].unique() if caption not in perplexity]
    perplexity |= zip(written, model.perplexity(written), strict=True)
    frame["perplexity"] = frame["caption"].map(perplexity)
    frame["clean_perplexity"] = frame["clean_caption"].map(perplexity)
    return frame


Job = tuple[Trial, Picture]
Edits = dict[Place, dict[int, Edit]]  # by where they take hold, then by layer
Watcher = Callable[[int, int], None]  # is told how many of how many answers there are
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Within the block `answers_under` tells how far it is, batch by batch."""
    before = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(before)


def answers_under(model: CaptionModel, jobs: Sequence[Job], mean: Tensor | None, max_new_tokens: int) -> list[Answer]:
    """The answer of each job. Trials share batches, wherever they edit; noise on weights has batches of its own."""
    found: list[Answer] = []

    def answered(part: Sequence[Job], edits: Callable[[slice], Edits] | None) -> None:
        prompts = torch.stack([p.prompt_inpainted if trial.instead == "removal" else p.prompt for trial, p in part])
        captions = [picture.caption for _, picture in part]
        for answer in answers(model, prompts, captions, max_new_tokens, edits):
            found.append(answer)
            if (tell := _watcher.get()) and (len(found) % model.batch_size == 0 or len(found) == len(jobs)):
                tell(len(found), len(jobs))

    for on_weights, group in groupby(jobs, key=lambda job: job[0].setting.intervention == "weights"):
        part = list(group)
        if not on_weights:
            answered(part, partial(_edits, model, part, mean, max_new_tokens))
            continue
        for _, same in groupby(part, key=lambda job: id(job[0])):
            of_trial = list(same)
            with noisy_weights(model, of_trial[0][0].neurons, of_trial[0][0].setting):
                answered(of_trial, None)
    return found


def _edits(model: CaptionModel, jobs: Sequence[Job], mean: Tensor | None, max_new_tokens: int, rows: slice) -> Edits:
    """What these rows of the jobs change, each trial its own."""
    part, inpainted = jobs[rows], {}
    patched = {
        (trial.setting.site, p.image_id): p.prompt_inpainted
        for trial, p in part
        if trial.setting.intervention == "patch" and not trial.instead
    }
    for site in dict.fromkeys(site for site, _ in patched):  # once a picture, whatever the number of trials
        of_site = {image_id: prompt for (where, image_id), prompt in patched.items() if where == site}
        inpainted[site] = list(of_site), inpainted_activations(model, torch.stack(list(of_site.values())), site)

    groups: list[tuple[int, Edits]] = []
    for _, group in groupby(part, key=lambda job: id(job[0])):
        of_trial = list(group)
        trial, shown, replacement = of_trial[0][0], [picture for _, picture in of_trial], None
        ids = [picture.image_id for picture in shown]
        if trial.instead == "removal":
            groups.append((len(ids), {}))
            continue
        if trial.instead == "direction":
            prompts = torch.stack([picture.prompt for picture in shown])
            groups.append((len(ids), {trial.place: direction_edits(model, trial.neurons, trial.setting, ids, prompts)}))
            continue
        if trial.setting.intervention == "mean":
            replacement = mean
        elif trial.setting.intervention == "patch":
            order, replacement = inpainted[trial.setting.site]
            if order != ids:  # else as they lie, without a copy for each trial
                replacement = replacement[[order.index(image_id) for image_id in ids]]
        made = edits_for(model, trial.neurons, trial.setting, ids, replacement, max_new_tokens)
        groups.append((len(ids), {trial.place: made}))
    places = dict.fromkeys(place for _, of_group in groups for place in of_group)
    return {place: side_by_side([(n, of_group.get(place, {})) for n, of_group in groups]) for place in places}


def _row(trial: Trial, picture: Picture, before: np.ndarray, answer: Answer) -> dict[str, object]:
    at, after, setting = picture.target.position, answer.probabilities, trial.setting
    done: dict[str, object] = {"intervention": setting.intervention, "n": setting.n, "sigma": setting.sigma}
    if trial.instead == "removal":
        done = {"intervention": "removal", "n": 0, "sigma": math.nan}
    truths = named_truly(picture.caption, picture.things)
    return {
        "concept": trial.neurons.concept,
        "method": trial.instead or trial.neurons.method,
        **done,
        "positions": setting.positions,
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
        "truths": ", ".join(truths),
        "retained_truth": truth_retention(truths, answer.caption),
        "retained_probability": probability_retention(np.delete(before, at), np.delete(after, at)),
        "repetition": repetition(answer.caption),
    }


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model says of a picture, and the probabilities that it gives to the tokens of a reference caption."""

    caption: str
    probabilities: np.ndarray  # (C,), of the tokens of the reference caption, teacher-forced


def undisturbed(model: CaptionModel, pictures: Sequence[Picture]) -> dict[str, Undisturbed]:
    """What the model makes of each picture's own caption, by image_id, with nothing disturbed; run once a picture.

    Each by itself, so that no other caption's length, which pads a batch, moves its last digits.
    """
    for one in pictures:
        if not one.clean:
            (found,) = chances(model, one.prompt[None], [one.caption])
            one.clean.append(Undisturbed(found, float(model.perplexity([one.caption])[0])))
    return {one.image_id: one.clean[0] for one in pictures}


def chances(
    model: CaptionModel,
    prompts: Tensor,
    references: Sequence[str],
    edits: Callable[[slice], Edits] | None = None,
) -> list[np.ndarray]:
    """The probabilities alone, as in `answers`, at a third of the cost: nothing is written."""
    found: list[np.ndarray] = []
    for rows in _batches(model, len(prompts)):
        with _changed(model, edits(rows) if edits else {}), torch.no_grad():
            logits = model.logits(prompts[rows], references[rows])
        found += [_chances(model, *pair) for pair in zip(references[rows], logits, strict=True)]
        del logits  # or two batches' would lie beside each other
    return found


@contextmanager
def _changed(model: CaptionModel, edits: Edits) -> Iterator[None]:
    with ExitStack() as stack:
        for place, of_place in edits.items():
            stack.enter_context(intervene(model, of_place, place))
        yield


def _batches(model: CaptionModel, n: int) -> Iterator[slice]:
    return (slice(start, min(start + model.batch_size, n)) for start in range(0, n, model.batch_size))


def _chances(model: CaptionModel, reference: str, logits: Tensor) -> np.ndarray:
    ids = torch.tensor(model.encode(reference)[0], dtype=torch.long, device=logits.device)
    found: np.ndarray = (
        torch.log_softmax(logits[: len(ids)].float(), -1).gather(1, ids[:, None])[:, 0].exp().cpu().numpy()
    )
    return found


def answers(
    model: CaptionModel,
    prompts: Tensor,
    references: Sequence[str],
    max_new_tokens: int,
    edits: Callable[[slice], Edits] | None = None,
) -> Iterator[Answer]:
    """Caption embedded prompts (B, T, H) and score the reference captions, under edits made for each batch of rows."""
    for rows in _batches(model, len(prompts)):
        with _changed(model, edits(rows) if edits else {}):
            captions, logits = model.respond(prompts[rows], references[rows], max_new_tokens)
        said = [_chances(model, *pair) for pair in zip(references[rows], logits, strict=True)]
        del logits
        yield from map(Answer, captions, said)
