"""How doit runs the book: one run at a time in an edition's folder, a failure told once and last, Ctrl-C at once."""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import filelock
from doit.exceptions import TaskFailed, UnmetDependency
from doit.reporter import ConsoleReporter

from kn_core.__main__ import INTERRUPTED, STOPPED

TOLD = "told already"
LOOKS = ("list", "help", "info", "dumpdb", "tabcompletion")  # doit's commands that change nothing


class Told(ConsoleReporter):
    """doit's reporter, but for failures: in their own words, on stderr, when all is done that goes on beside them."""

    failures: list[dict[str, Any]]

    def add_failure(self, task: Any, fail: Any) -> None:
        if not isinstance(fail, UnmetDependency):  # what that waited for has been told
            self.failures.append({"task": task, "exception": fail})

    def complete_run(self) -> None:
        told = [each["exception"] for each in self.failures]
        self.failures.clear()
        super().complete_run()  # what doit itself cannot do
        for fail in told:
            tell(fail.get_msg().strip())


class Ended(SystemExit):
    """A command that has told how it ended: doit ends with its exit code, and says no more. doit makes it of a str."""

    def __init__(self, code: int | str) -> None:
        super().__init__(int(code))


def tell(message: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"doit: {message}\n")
    sys.stderr.flush()


def stop(message: str) -> NoReturn:
    """End doit for a mistake of the reader's: one line on stderr, exit code 2."""
    tell(message)
    sys.exit(2)


def alone(folder: Path) -> filelock.FileLock | None:
    """Wait until no other run of doit is at work in an edition's folder, which is made; None where this one only looks.

    The lock is held as long as what is returned, or the process, lives. A record that a killed run left half-written is
    removed: pages run again.
    """
    if next((argument for argument in sys.argv[1:] if "=" not in argument), "") in LOOKS:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner, record = filelock.FileLock(folder / ".lock"), folder / ".at-work", folder / "doit.json"
    try:
        lock.acquire(timeout=0.2)
    except filelock.Timeout:
        other = owner.read_text(encoding="utf-8") if owner.exists() else "another run"
        tell(f"waiting for {other}, which is at work in {folder}")
        lock.acquire()
    owner.write_text(f"process {os.getpid()} (`{' '.join(['doit', *sys.argv[1:]])}`)", encoding="utf-8")
    try:
        json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        record.unlink()
    except FileNotFoundError:
        pass
    return lock


def beside(do: Callable[[], None], mistakes: tuple[type[Exception], ...]) -> TaskFailed | None:
    """Do it in a thread of its own, so that Ctrl-C reaches doit and not asyncio there; one of the mistakes fails it."""
    try:
        ThreadPoolExecutor(1).submit(do).result()
    except mistakes as error:
        return TaskFailed(str(error))
    return None


def interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For `sys.excepthook`: Ctrl-C is one line, and ends what still runs; kernels end with this process."""
    if not isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    if error.args == (TOLD,):
        atexit._run_exitfuncs()
    else:
        tell(INTERRUPTED)
        if kernels := sys.modules.get("book.press.kernels"):
            kernels.end()
    os._exit(STOPPED)
