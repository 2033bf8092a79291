"""A study's concepts on a Dask cluster: workers make the artefacts that `run` makes, the client keeps them.

    python -m kn_core run --profile embedded --dask local                        processes of this machine
    python -m kn_core run --profile minigpt4-llama2 --dask tcp://10.0.0.1:8786   a scheduler that is running

A task is one stage of one concept. It is sent the artefacts that it builds on, as files, and sends back those that it
made: no file system need be shared. Of its own a worker needs this package, the model's weights and, for photographs, a
COCO folder. It loads the model once. What a worker had begun when it died, the scheduler gives to another one.
"""

import logging
import os
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import dask
import numpy as np
import torch
from distributed import Client, Future, as_completed, get_worker
from torch import Tensor

from kn_core.fingerprint import at_home, code, fingerprint
from kn_core.models import CaptionModel, load_model, memory
from kn_core.pictures.coco import CocoFolder
from kn_core.profile import Profile
from kn_core.study.run import FOR_ALL, STAGES, concepts, forget, left_out, stages
from kn_core.study.scheduler import ClusterError, connected
from kn_core.study.store import Store
from kn_core.study.study import Study, StudyError

log = logging.getLogger(__name__)

Load = Callable[[Profile], CaptionModel]
PACKAGES = ("torch", "transformers", "numpy", "pandas")  # whose versions must be the client's
IN_FLIGHT = 2**30  # bytes of artefacts that are sent to tasks at once: all of them pass through the scheduler's memory


@dataclass(frozen=True, eq=False)
class Task:
    """A stage of one concept, and all that it needs beside what every worker has."""

    profile: Profile
    stage: str
    concept: str
    given: Mapping[str, bytes] = field(repr=False)  # file name -> artefact
    mean: np.ndarray | None = field(repr=False)  # `Study.mean_activation` of the other concepts, (L, D)
    long: bool  # whether `Study.effort` is the long version
    coco: str | None  # the client's COCO folder, for workers that name none of their own
    threads: int | None  # of torch; None: the worker's own
    origin: str  # `origin` of the client's study


@dataclass(frozen=True, eq=False)
class Made:
    """What a task sends back."""

    worker: str  # its address
    files: Mapping[str, bytes] = field(repr=False)  # file name -> artefact
    left_out: str = ""  # why the stage cannot be done
    failed: str = ""  # what went wrong, as a traceback: an exception of any kind need not survive the way back
    full: bool = False  # whether memory ran out


def run(
    profile: Profile,
    folder: Path | None,
    where: str,
    workers: int = 2,
    only: str | None = None,
    until: str | None = None,
    load: Load = load_model,
) -> Iterator[str]:
    """As `run.run`, on a cluster (see `connected`): fill the study's store; a line for each thing done or left.

    What is there already is not made again, and where nothing is missing there is no need of a cluster. Raises
    ClusterError, after the last task of a stage, where workers failed, with all that the others made in the store.
    """
    study = _OnDisk(profile, folder)
    threads = max(1, torch.get_num_threads() // workers) if where == "local" else None
    with ExitStack() as stack:
        client, without = None, left_out(profile, until)
        yield from memory.foretold(profile)
        yield from (f"{stage}: left out. {why}" for stage, why in without.items())
        for stage in (stage for stage in stages(until) if stage not in without):
            missing = []
            for concept in concepts(study, stage, only):
                try:
                    STAGES[stage](study, concept)
                except _NeededError:
                    missing.append(concept)
                except StudyError as error:
                    yield f"{stage}, {concept}: left out. {error}"
            if missing and client is None:
                client = stack.enter_context(connected(where, workers))
                yield f"{len(client.nthreads())} workers of {client.scheduler_info()['address']}"
            if client is not None:
                yield from _spread(client, study, stage, missing, threads, load)


def origin(study: Study, concept: str) -> str:
    """Digest of what a concept's artefacts follow from, and of this package: the same on the client and its workers."""
    versions = [version(name).partition("+")[0] for name in PACKAGES]
    return fingerprint(study.inputs(concept), code("kn_core.study.run"), versions)


class _NeededError(Exception):
    """The model is needed."""


class _OnDisk(Study):
    """A study without a model: it finds what is on disk and makes nothing."""

    @cached_property
    def model(self) -> CaptionModel:
        raise _NeededError

    def task(self, stage: str, concept: str, threads: int | None) -> Task:
        """The task that a worker is sent: with it all pairs, and what there is of the concept's own artefacts."""
        of_all = ["pairs-{}.parquet", "neurons-{}.parquet", "contrasts-{}.parquet"]
        of_all += ["worth-{}.safetensors", "elsewhere-{}.safetensors"]
        own = ["perturbations-{}.parquet", "perturbations-{}-full.parquet"]
        own += [f"{name}-{{}}.safetensors" for name in ("scores", "attribution", "dai", "decoys")]
        names = [name.format(other) for name in of_all for other in self.profile.concepts]
        names += [name.format(concept) for name in own]
        given = {name: content for name in names if (content := self.store.read(name)) is not None}
        later = stage not in FOR_ALL
        mean = self.mean_activation(without=concept).numpy() if later and len(self.studied()) > 1 else None
        coco = str(at_home(os.environ["KN_COCO"]).resolve()) if os.environ.get("KN_COCO") else None
        long = later and self.effort is self.profile.long
        return Task(self.profile, stage, concept, given, mean, long, coco, threads, origin(self, concept))


def _spread(
    client: Client, study: _OnDisk, stage: str, wanted: Sequence[str], threads: int | None, load: Load
) -> Iterator[str]:
    """Send out a stage of the wanted concepts, keep what comes back; a line for each."""
    began, known = time.perf_counter(), set(client.nthreads())
    waiting, done = list(wanted), as_completed([])
    sent: dict[Future[Made], Task] = {}
    failed: dict[str, str] = {}
    full: dict[str, set[str]] = {concept: set() for concept in wanted}  # workers that had no memory for it
    while waiting or sent:
        while waiting and sum(len(file) for task in sent.values() for file in task.given.values()) < IN_FLIGHT:
            task = study.task(stage, waiting.pop(0), threads)
            # One name for all of a stage: such tasks wait at the scheduler for a free worker (`scheduler.ONE_EACH`).
            key, others = f"{stage}-{uuid.uuid4().hex}", None
            if full[task.concept]:
                others = [worker for worker in client.nthreads() if worker not in full[task.concept]]
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": IN_FLIGHT}):
                # where those others go too, whoever is there
                future = client.submit(
                    work, task, load, key=key, pure=False, workers=others, allow_other_workers=others is not None
                )
            sent[future] = task
            done.add(future)
        future = next(done)
        concept = sent.pop(future).concept
        try:
            made = future.result()
        except Exception as error:  # its workers died or lack the package
            made = Made("no worker", {}, failed="".join(traceback.format_exception_only(error)))
        for file, content in made.files.items():
            study.store.put(file, content)
        if gone := known - (now := set(client.nthreads())):
            yield f"gone: {', '.join(sorted(gone))} (given back, or out of memory?); what was begun there is done again"
        known = now
        if made.full and now - full[concept] - {made.worker}:
            full[concept].add(made.worker)
            waiting.insert(0, concept)
            yield f"{made.worker} ran out of memory at {stage}, {concept}; another worker tries it"
        elif made.failed:
            log.error("%s, %s on %s\n%s", stage, concept, made.worker, made.failed)
            failed[concept] = made.failed.strip().splitlines()[-1]
        elif made.left_out:
            yield f"{stage}, {concept}: left out. {made.left_out}"
        else:
            yield f"{stage}, {concept}: after {time.perf_counter() - began:.0f} s, by {made.worker}"
    if failed:
        told = [f"{stage}: {len(failed)} of {len(wanted)} concepts failed; the same command tries these alone."]
        raise ClusterError("\n".join(told + [f"  {concept}: {error}" for concept, error in failed.items()]))


class _Sent(Study):
    """A worker's study: the client's artefacts come with each task, the model and the pictures stay."""

    mean: np.ndarray | None = None

    def mean_activation(self, without: str) -> Tensor:
        return super().mean_activation(without) if self.mean is None else torch.from_numpy(self.mean)


_studies: dict[str, _Sent] = {}  # the last one, by what it follows from
_one_at_a_time = Lock()  # hooks on a model see whatever runs through it


def work(task: Task, load: Load = load_model) -> Made:
    """Do a stage of one concept in a folder of its own; what it made, and what went wrong, if anything."""
    worker = get_worker().address
    with _one_at_a_time, TemporaryDirectory() as folder:
        store, before, told, full = Store(Path(folder, "parts")), {}, {}, False
        try:
            study = _study(task, load, store)
            for file, content in task.given.items():
                store.put(file, content)
            before = store.held()
            STAGES[task.stage](study, task.concept)
        except Exception as error:  # of any kind: the client goes on with other concepts, and tells of this one
            if isinstance(error, StudyError) and not isinstance(error, ClusterError):
                told["left_out"] = str(error)
            else:
                told["failed"], full = traceback.format_exc(), _of_memory(error)
        new = [file for file, made in store.held().items() if before.get(file) != made]
        return Made(worker, {file: store.read(file) or b"" for file in new}, full=full, **told)


def _of_memory(error: Exception) -> bool:
    """Whether memory ran out: Python's, an accelerator's, or the processor's, for which torch has no class."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _study(task: Task, load: Load, store: Store) -> _Sent:
    """The study of a task's profile, its model loaded once. Raises ClusterError where it is not the client's."""
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    coco = os.environ.get("KN_COCO") or task.coco
    key = fingerprint(task.profile.fingerprint(), coco)
    if key not in _studies:
        _studies.clear()  # two models may not fit
        forget()
        _studies[key] = _Sent(task.profile, model=load(task.profile))
        if task.profile.data.source == "coco" and coco:
            _studies[key].coco = CocoFolder(coco)
    study = _studies[key]
    study.folder, study.store = store.folder.parent, store
    study.mean, study.effort = task.mean, study.profile.long if task.long else study.profile
    if (own := origin(study, task.concept)) != task.origin:
        raise ClusterError(
            f"the worker would make something else of '{task.concept}' ({own}, not {task.origin}): its kn_core, "
            f"weights, photographs or {', '.join(PACKAGES)} are not the client's. Install the same, and start it again."
        )
    return study
