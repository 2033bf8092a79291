"""Processes for tasks: they share the cores, and end with whoever asked for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib import import_module
from multiprocessing import active_children
from pathlib import Path

import psutil
import pytest
import torch

from kn_core.study.processes import pool, tell

ROOT = Path(__file__).parents[3]


def test_processes_share_the_threads_and_begin_with_work_alone():
    before, before_them = torch.get_num_threads(), active_children()
    with pool(2) as workers:
        assert active_children() == before_them
        assert workers.submit(torch.get_num_threads).result() == max(1, before // 2)
        assert workers.submit(first_import).result()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is looked up as Linux tells it")
def test_what_a_worker_frees_goes_back_to_the_system_where_it_is_to_spare_memory(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.delenv("GLIBC_TUNABLES")
    with pool(1, sparing=True) as workers:
        assert workers.submit(kept_of, [6, 24, 6, 24]).result() < 5
    with pool(1) as workers:  # of memory there is enough
        assert workers.submit(kept_of, [6, 24, 6, 24]).result() > 20
        assert workers.submit(kept_of, [6]).result() < 5, "what is kept is used again"
    assert "GLIBC_TUNABLES" not in os.environ  # what is begun later has its own way


def kept_of(megabytes: list[int]) -> float:
    """Private megabytes that stay when tensors of these sizes, each with something small behind it, are gone."""
    before, behind = private(), []
    for size in megabytes * 3:
        held = torch.ones(size * 2**18)
        behind.append(torch.ones(2**12))
        del held
    return private() - before


def private() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


def test_what_a_task_tells_is_heard():
    said = []
    with pool(1, said.append) as workers:
        assert workers.submit(tell, (1, 2)).result() is None
        end = time.monotonic() + 20
        while not said and time.monotonic() < end:
            time.sleep(0.05)
    assert said == [(1, 2)]


def first_import() -> bool:
    """As a worker does that is asked for a stage, which imports no other module first."""
    assert "transformers" not in sys.modules
    return bool(import_module("kn_core.study.run"))


SLEEPS = """
import os, signal, sys, time
from pathlib import Path
from kn_core.__main__ import Parser, obey

def sleep(folder):
    Path(folder, f"{os.getpid()}").touch()
    end = time.time() + 99
    while time.time() < end:  # a sleep alone would be easier to stop
        sum(range(10000))

def compute(options):
    from kn_core.study.processes import pool
    with pool(2) as workers:
        list(workers.map(sleep, [sys.argv[1]] * 4))

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background, it is ignored
    parser = Parser(prog="toy")
    parser.set_defaults(run=compute, interrupted="interrupted; the same command goes on")
    sys.exit(obey(parser, []))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_whoever_asked_for_them(tmp_path, sent):
    (tmp_path / "toy.py").write_text(SLEEPS)
    (tmp_path / "at-work").mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "toy.py", "at-work"]
    with (
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as toy,
        ExitStack() as at_end,
    ):
        at_end.callback(toy.kill)  # or a failure would wait for it
        while len(workers := list((tmp_path / "at-work").iterdir())) < 2:
            assert toy.poll() is None
            time.sleep(0.05)
        began = time.monotonic()
        # Ctrl-C reaches the whole group
        os.killpg(toy.pid, sent) if sent == signal.SIGINT else toy.send_signal(sent)
        while any(alive(int(worker.name)) for worker in workers):
            assert time.monotonic() - began < 60, "they outlive it"  # of the 99 seconds that a task takes
            time.sleep(0.02)
        said = toy.communicate()[1]
    if sent != signal.SIGKILL:
        assert (toy.returncode, said) == (130, "toy: interrupted; the same command goes on\n")


def alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
