"""The Dask cluster that computes a study: its address looked at, and knocked at, before a client waits for it."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Client, LocalCluster, Security
from distributed.comm.core import connect
from distributed.core import send_recv

from kn_core.fingerprint import at_home
from kn_core.study.study import StudyError

# A scheduler's address.
SCHEDULER = re.compile(r"inproc://.+|((tcp|tls|wss?|ucx)://)?([^\s/:]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})")
PATIENCE = 5.0  # seconds that a scheduler has to answer
# Dask has glibc give freed memory back at once, which also freezes the size from which it maps each block anew: then
# every large tensor is mapped and faulted in again, and elementwise work takes twice as long.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**30}  # bytes
# A worker's event loop wakes up to sample its stack, to see whether it is late, to read its process's state: some 4 %
# of a core, and more while the model's thread waits for it to be done.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
}
# Dask deals tasks out ahead and moves them by how long it thinks they take, which it does not know: what a free worker
# was to do next went to a busy one. So a task each, and the next when a worker is free.
ONE_EACH = {"distributed.scheduler.work-stealing": False, "distributed.scheduler.worker-saturation": 1.0}
DEATHS = 10  # of workers under one task, after which a local cluster gives it up


class ClusterError(StudyError):
    """A cluster cannot do a study's work; the message says where and why."""


@contextmanager
def connected(where: str, workers: int = 2) -> Iterator[Client]:
    """A client of the cluster `where` (`check`): 'local' is as many processes of this machine. Raises ClusterError."""
    address = check(where)
    if address == "local":
        # No limit on memory: a model is most of what a worker holds, and pausing the worker would not shrink it.
        settings: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
        settings |= {"scheduler_kwargs": {"allowed_failures": DEATHS}}
        malloc = {f"distributed.nanny.pre-spawn-environ.{name}": size for name, size in MALLOC.items()}
        with (
            dask.config.set(malloc | QUIET | ONE_EACH),
            LocalCluster(n_workers=workers, **settings) as cluster,
            Client(cluster) as client,
        ):
            try:
                yield client
            except KeyboardInterrupt:  # a task cannot be stopped, and dask would wait for it
                logging.getLogger("distributed").setLevel(logging.CRITICAL)
                for nanny in cluster.workers.values():
                    nanny.auto_restart = False
                for child in active_children():
                    child.kill()
                raise
    else:
        if not address.startswith("inproc:"):
            _knock(address)
        with Client(address) as client:
            yield client


def check(where: str) -> str:
    """'local', or the address of the scheduler that is meant: it may stand in the JSON file that `dask scheduler
    --scheduler-file` writes. Raises ClusterError for what can be none; nobody is asked yet.
    """
    address, path = where, at_home(where)
    if path.suffix == ".json" or path.is_file():
        try:
            address = json.loads(path.read_text(encoding="utf-8"))["address"]
        except FileNotFoundError:
            made = f"`dask scheduler --scheduler-file {where}` writes it"
            raise ClusterError(f"no scheduler file {where}: {made}, and must be running.") from None
        except (OSError, ValueError, LookupError, TypeError):
            raise ClusterError(
                f"{where} is no file of a Dask scheduler: it must be JSON with the key 'address'. Start the scheduler "
                f"again: `dask scheduler --scheduler-file {where}`."
            ) from None
    found = SCHEDULER.fullmatch(address) if isinstance(address, str) else None
    if address != "local" and (found is None or not 0 < int(found["port"] or 1) < 2**16):
        raise ClusterError(
            f"a Dask cluster must be 'local', an address such as tcp://10.0.0.1:8786 or a scheduler's JSON file. Got "
            f"{where!r}" + (f", whose address is {address!r}." if address != where else ".")
        )
    return address


def _knock(address: str) -> None:
    """Raises ClusterError where no scheduler answers: a client would wait for long, and tell it at length."""
    seconds = min(PATIENCE, parse_timedelta(dask.config.get("distributed.comm.timeouts.connect")))

    async def identity() -> str:
        comm = await connect(address, timeout=seconds, **Security().get_connection_args("client"))
        try:
            return str((await send_recv(comm, op="identity"))["type"])
        finally:
            comm.abort()

    try:
        found = asyncio.run(asyncio.wait_for(identity(), seconds))
    except Exception as error:  # of any kind: whatever listens there may speak another language
        found = re.sub(r"^in <.*?>: ", "", f"{error.__cause__ or error}") or type(error).__name__
    if found != "Scheduler":
        raise ClusterError(
            f"no Dask scheduler answers at {address} within {seconds:g} s ({found:.200}). Start it, or name another."
        )
