"""Processes that compute side by side, and end when whoever asked for them does.

Here and not in `run`, so that a process begins without what only its tasks import.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import SimpleQueue, active_children, get_context, parent_process
from multiprocessing.connection import wait
from threading import Event, Thread, current_thread, main_thread
from typing import Any

import torch

from kn_core.pictures import coco_checks


class WorkerError(RuntimeError):
    """A worker died; the message says what to do."""


Heard = Callable[[Any], None]
# Of glibc, which workers read as they begin. Memory that goes back to the system is faulted in again, page by page, for
# the next tensor: a twentieth of a caption's time. So a layer's is kept, in blocks of up to 32 MB (glibc's limit).
KEPT = f"glibc.malloc.mmap_threshold={2**25}:glibc.malloc.trim_threshold={2**28}"
# Where memory is short, 4 MB and more go back as soon as they are free, or a third of a worker's lies in pieces that
# the next batch cannot use.
SPARED = f"glibc.malloc.mmap_threshold={2**22}"
_line: SimpleQueue[Any] | None = None  # of a worker, to who asked for it


def tell(message: Any) -> None:
    """From a worker's task to what its pool was given as `heard`; nowhere, where nobody listens."""
    if _line is not None:
        _line.put(message)


@contextmanager
def pool(workers: int, heard: Heard | None = None, sparing: bool = False) -> Iterator[Executor]:
    """Processes for one study after another, that share torch's threads between them; `heard` gets what they `tell`.

    `sparing`: of memory (`SPARED`) rather than of time (`KEPT`).

    They end with the block, and with this process however it ends. Ctrl-C, and `kill` alike, end what they do at once;
    any other error lets them finish what they have begun. Raises WorkerError where one of them died.
    """
    threads = max(1, torch.get_num_threads() // workers)
    # Spawned, not forked: torch's threads do not survive a fork.
    context, over = get_context("spawn"), Event()
    line = context.SimpleQueue() if heard else None
    if tuned := "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = SPARED if sparing else KEPT
    processes = _Deaf(workers, context, _begin, (threads, line))
    others = set(active_children())
    if line and heard:
        Thread(target=_hear, args=(line, heard, over), daemon=True).start()
    main = current_thread() is main_thread()  # which alone may say what a signal does
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        yield processes
    except BrokenProcessPool as error:
        raise WorkerError("a worker died (out of memory?). What was made stays; the same command goes on.") from error
    except Exception:
        processes.shutdown(cancel_futures=True)
        raise
    finally:
        over.set()
        if tuned:  # of these workers alone
            del os.environ["GLIBC_TUNABLES"]
        for child in set(active_children()) - others:
            child.kill()
        processes.shutdown(cancel_futures=True)
        if main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _Deaf(ProcessPoolExecutor):
    """Its processes begin with their first task, and are born deaf to Ctrl-C."""

    def submit(self, *task: Any, **settings: Any) -> Future[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*task, **settings)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hear(line: SimpleQueue[Any], heard: Heard, over: Event) -> None:
    while not over.wait(0.2):
        while not (over.is_set() or line.empty()):
            heard(line.get())


def _begin(threads: int, line: SimpleQueue[Any] | None) -> None:
    """What a worker does first."""
    global _line
    _line = line
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    coco_checks.log.setLevel(logging.ERROR)  # the parent has said what is left out
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
