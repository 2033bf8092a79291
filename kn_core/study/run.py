"""A whole study ahead of its pages: every concept's artefacts, several concepts at a time in processes of their own.

    python -m kn_core run --profile embedded --workers 2
    python -m kn_core run --profile embedded --stage scores
    python -m kn_core run --profile embedded --beside embedded-vit

Pages compute for themselves whatever is not there; this only makes it sooner. Two processes with one thread each get
more captions out of two cores than one process with two. Pairs and scores are made of every concept before anything
that follows, because perturbations are tried on other concepts' pictures too.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from kn_core.method import perturbation
from kn_core.models import memory
from kn_core.profile import Profile
from kn_core.study import processes as workers
from kn_core.study import progress
from kn_core.study.experiments import (
    attribution,
    ceiling,
    companions,
    curves,
    editing,
    guard,
    heatmaps,
    inpainters,
    ladder,
    neuron_maps,
    null_thresholds,
    other_region,
    ownership,
    polling,
    prompts,
    single_neurons,
    thresholds,
    transfer,
)
from kn_core.study.study import Study, StudyError, long_asked
from kn_core.weights import wheels

Stage = Callable[[Study, str], object]

STAGES: dict[str, Stage] = {
    "pairs": lambda study, concept: (study.pairs(concept), study.undisturbed(concept)),
    "scores": lambda study, concept: study.scores(concept),
    "neurons": lambda study, concept: study.neurons(concept),
    "perturbations": lambda study, concept: study.perturbations(concept),
    "attribution": lambda study, concept: attribution.pooled(study, concept),
    "contrasts": lambda study, concept: ladder.contrasts(study, concept),
    "third stage": lambda study, concept: ladder.third_stage(study, concept),
    "ceiling": lambda study, concept: ceiling.ceiling(study, concept),
    "single neurons": lambda study, concept: single_neurons.effects(study, concept),
    "curves": lambda study, concept: (curves.curves(study, concept), guard.spared(study, concept)),
    "heatmaps": lambda study, concept: heatmaps.heatmaps(study, concept),
    "thresholds": lambda study, concept: (thresholds.ablation(study, concept), thresholds.grid(study, concept)),
    "rules": lambda study, concept: null_thresholds.ahead(study, concept),
    "prompts": lambda study, concept: prompts.neurons(study, concept),
    "inpainters": lambda study, concept: inpainters.judged(study, [concept]),
    "other regions": lambda study, concept: other_region.other_region(study, concept),
    "ownership": lambda study, concept: [
        made(study, concept) for made in (ownership.parts, ownership.cross, ownership.other_words)
    ],
    "companions": lambda study, concept: companions.companions(study, concept),
    "patches": lambda study, concept: attribution.patches(study, concept),
    "ladder": lambda study, concept: (ladder.ladder(study, concept), ladder.by_score(study, concept)),
    "polls": lambda study, concept: polling.lacks(study.effort) or polling.polls(study, concept),
    "neuron maps": lambda study, concept: neuron_maps.maps(study, concept),
    "neurons removed": lambda study, concept: neuron_maps.removed(study, concept),
    "edits": lambda study, concept: editing.edits(study, concept),
    "transfer": lambda study, concept: [
        made(study, concept) for made in (transfer.transfer, transfer.sizes, transfer.taken)
    ],
}
LACKS: dict[str, Callable[[Profile], str]] = {  # why a stage cannot be done, or '', as the profile alone tells
    "ceiling": ceiling.lacks,
    "single neurons": single_neurons.lacks,
    "neurons removed": single_neurons.lacks,
    "thresholds": thresholds.lacks,
    "companions": companions.lacks,
}
BESIDE = "ceiling"  # the last stage of a study that pages only compare with another one
TOGETHER = ("pairs",), ("scores", "attribution"), ("contrasts",)  # one after the other, of every concept
FOR_ALL = tuple(chain(*TOGETHER))  # what one concept's later stages need of every concept


def prepare(profiles: Sequence[Profile]) -> None:
    """Before anything is computed: name all that a reader has still to bring, then fetch what is packaged, once."""
    long_asked()
    for profile in profiles:
        Study(profile).look()
    wheels.fetch_all()


def run(
    profile: Profile,
    folder: Path | None,
    processes: Executor,
    only: str | None = None,
    until: str | None = None,
    among: Collection[str] = tuple(STAGES),
) -> Iterator[str]:
    """Fill the study's store, all concepts or what `only` one of them needs; a line for each thing done or left.

    `until` is the last stage that is wanted, of `STAGES`; None: all of them that are `among` those asked for.
    What lies there already costs a look; what was made stays, whatever ends the run, and the same command goes on.
    """
    study, began = Study(profile, folder), time.perf_counter()
    without = {stage: why for stage, why in left_out(profile, until).items() if stage in among}
    yield from memory.foretold(profile)
    yield from (f"{stage}: left out. {why}" for stage, why in without.items())
    wanted = [stage for stage in stages(until) if stage in among and stage not in without]
    for together in (*TOGETHER, [stage for stage in STAGES if stage not in FOR_ALL]):
        jobs = {
            processes.submit(_do, profile, folder, stage, concept): f"{stage}, {concept}"
            for stage in together
            if stage in wanted
            for concept in concepts(study, stage, only)
        }
        for job in as_completed(jobs):
            yield f"{jobs[job]}: {job.result() or f'after {time.perf_counter() - began:.0f} s'}"
    if short := [concept for concept in profile.concepts if only in (None, concept) and concept not in study.studied()]:
        yield study.shortage(*short)


def stages(until: str | None) -> list[str]:
    """The names of the stages, in order, up to and with `until`."""
    names = list(STAGES)
    return names if until is None else names[: names.index(until) + 1]


def parts(profile: Profile, only: str | None, until: str | None) -> set[str]:
    """What a run has to do, where every concept has two kept pairs: 'scores, bear' and so on, as its lines begin."""
    without = left_out(profile, until)
    every = {stage: profile.concepts if only is None or stage in FOR_ALL else (only,) for stage in stages(until)}
    return {f"{stage}, {concept}" for stage in every if stage not in without for concept in every[stage]}


def say(profile: Profile, only: str | None, until: str | None, lines: Iterable[str]) -> None:
    """Print what a run says; on a terminal with a bar of all parts, and the time left, below."""
    left = parts(profile, only, until)
    with tqdm(total=len(left), desc=profile.name, unit="part", disable=None, leave=False) as bar:
        for line in lines:
            progress.say(f"{profile.name}: {line}")
            bar.update((part := line.partition(":")[0]) in left)
            left.discard(part)


def left_out(profile: Profile, until: str | None) -> dict[str, str]:
    """Stages that the profile does without, and why: it is told before anything is computed."""
    return {stage: why for stage in stages(until) if stage in LACKS and (why := LACKS[stage](profile))}


def concepts(study: Study, stage: str, only: str | None) -> Sequence[str]:
    """The concepts for which a stage is to be done; what comes before it must be there.

    Raises StudyError, with the count of each reason, where none of them has two kept pairs.
    """
    if stage == "pairs":
        study.check()
        return study.profile.concepts
    studied = study.studied()
    if not studied or only not in (None, *studied):
        raise StudyError(study.shortage(*filter(None, [only])))
    return studied if only is None or stage in FOR_ALL else [concept for concept in studied if concept == only]


_studies: dict[tuple[str, Path | None], Study] = {}


def forget() -> None:
    """Let go of models that edits keep, before another one is loaded."""
    for kept in (editing.recorder, editing.push):
        kept.cache_clear()


def _do(profile: Profile, folder: Path | None, stage: str, concept: str) -> str | None:
    """What stands in the way, if anything: the page that wants the artefact says it again, where it is read.

    A worker keeps one study, so one model, for all that it is given of it.
    """
    key = profile.name, folder
    if key not in _studies:
        _studies.clear()
        forget()
        _studies[key] = Study(profile, folder)
    try:
        with perturbation.watched(partial(_tell, f"{stage}, {concept}")):
            STAGES[stage](_studies[key], concept)
    except StudyError as error:
        return f"left out. {error}"
    finally:
        with suppress(OSError, AttributeError):  # glibc keeps what was freed, in pieces that the next stage cannot use
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    return None


def _tell(of: str, done: int, every: int) -> None:
    workers.tell((of, done, every))
