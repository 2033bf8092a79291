"""A disk that is full, to one process: it may write no file above some bytes."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable


def fill(size: int) -> None:
    """Let this process write no file above `size` bytes: what it tries then is an error of the system."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def on_a_full_disk(do: Callable[[], object], size: int = 100) -> str:
    """What `do` raises in a fork of this process that is short of disk, an error of the system as 'OSError: ...'."""
    reading, writing = os.pipe()
    if not (process := os.fork()):
        said = ""
        try:
            fill(size)
            do()
        except BaseException as error:
            said = f"{'OSError' if isinstance(error, OSError) else type(error).__name__}: {error}"
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        said = told.read()
    os.waitpid(process, 0)
    return said
