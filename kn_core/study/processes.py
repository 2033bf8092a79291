"""Processes that compute side by side, and end when whoever asked for them does.

Here and not in `run`, so that a process begins without what only its tasks import.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

import torch

from kn_core.pictures import coco_checks


class WorkerError(RuntimeError):
    """A worker died; the message says what to do."""


@contextmanager
def pool(workers: int) -> Iterator[Executor]:
    """Processes for one study after another, that share torch's threads between them.

    They end with the block, and with this process however it ends. Ctrl-C ends what they do at once; any other error
    lets them finish what they have begun. Raises WorkerError where one of them died.
    """
    threads = max(1, torch.get_num_threads() // workers)
    # Spawned, not forked: torch's threads do not survive a fork.
    processes = _Deaf(workers, get_context("spawn"), _begin, (threads,))
    others = set(active_children())
    try:
        yield processes
    except BrokenProcessPool as error:
        raise WorkerError("a worker died (out of memory?). What was made stays; the same command goes on.") from error
    except Exception:
        processes.shutdown(cancel_futures=True)
        raise
    finally:
        for child in set(active_children()) - others:
            child.kill()
        processes.shutdown(cancel_futures=True)


class _Deaf(ProcessPoolExecutor):
    """Its processes begin with their first task, and are born deaf to Ctrl-C."""

    def submit(self, *task: Any, **settings: Any) -> Future[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*task, **settings)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(threads: int) -> None:
    """What a worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    coco_checks.log.setLevel(logging.ERROR)  # the parent has said what is left out
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
