"""A small run that is disturbed wherever it may be: the same command goes on to the tables of one that was not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from kn_core.study import pairs, run
from tests.full_disk import fill
from tests.kn_core.study.test_cluster import artefacts
from tests.kn_core.study.test_run import Here
from tests.kn_core.study.test_study import changed, inhabit

ENDED, OF_THE_SYSTEM = 0, 2  # what a run's process says in the end
NOBODY = 65534


@pytest.fixture
def place(taught_model, monkeypatch) -> Iterator[Path]:
    """A folder that anybody may look into, in the toy world."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        inhabit(monkeypatch, Path(folder))
        monkeypatch.setattr(pairs, "load_model", lambda profile: taught_model)
        yield Path(folder)


@pytest.fixture
def begin(toy_profile, monkeypatch) -> Callable[..., int]:
    """begin(folder): start a small run in a process of its own, which is what it returns."""
    few = {"rivals": [], "seeds": 1, "draws": 1, "sweep_n": [], "sweep_sigma": [], "sweep_interventions": ["zero"]}
    small = changed(toy_profile, concepts=["bear", "bus"], perturbation=few)

    def start(folder: Path, before: Callable[[], object] = lambda: None) -> int:
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # or it might reach pytest in the fork
        if process := os.fork():  # what is imported and learnt need not be so again
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
            return process
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            torch.set_num_threads(1)  # those of the parent are not here
            before()
            list(run.run(small, folder, Here(), until="perturbations"))
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            code = ENDED
        except OSError:
            code = OF_THE_SYSTEM
        finally:
            os._exit(code)

    return start


def end_of(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def same(one: Path, other: Path) -> bool:
    found, expected = artefacts(one), artefacts(other)
    assert found.keys() == expected.keys() and not list((one / "parts").glob("*.part"))
    for file, (made_from, content) in expected.items():
        assert found[file][0] == made_from
        assert content.equals(found[file][1]) if hasattr(content, "equals") else content == found[file][1], file
    return True


def test_a_run_that_is_killed_at_twenty_moments_ends_with_the_tables_of_one_that_was_not(place, begin):
    began, whole, disturbed, moments = time.monotonic(), place / "whole", place / "disturbed", random.Random(0)
    assert end_of(begin(whole)) == ENDED
    took, killed = time.monotonic() - began, 0
    while killed < 20:
        process = begin(disturbed)
        time.sleep(moments.uniform(0, took / 4))
        os.kill(process, (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)[killed % 3])
        if end_of(process) == ENDED:
            assert same(disturbed, whole)
            shutil.rmtree(disturbed)
        killed += 1
    assert end_of(begin(disturbed)) == ENDED and same(disturbed, whole)


def test_a_full_disk_a_folder_for_reading_and_a_run_beside_change_no_table(place, begin):
    whole, disturbed = place / "whole", place / "disturbed"
    first, second = begin(whole), begin(whole)
    assert end_of(first) == end_of(second) == ENDED

    # A file holds the seconds that it took, so its size differs by some bytes from run to run: the disk is full in the
    # middle of every gap between kinds of artefact, before the smallest and before the largest too.
    sizes = sorted([0, *(path.stat().st_size for path in (whole / "parts").iterdir() if path.is_file())])
    gaps = [(below, above) for below, above in pairwise(sizes) if above - below > 1000]
    assert len(gaps) >= 3 and gaps[0][0] == 0
    for below, above in gaps:
        assert end_of(begin(disturbed, lambda size=(below + above) // 2: fill(size))) == OF_THE_SYSTEM
        assert not list(disturbed.rglob("*.part"))
    folders = [path for path in (disturbed, *disturbed.rglob("*")) if path.is_dir()]
    for path in folders:
        path.chmod(0o555)
    assert end_of(begin(disturbed, lambda: os.geteuid() or os.setuid(NOBODY))) == OF_THE_SYSTEM
    for path in folders:
        path.chmod(0o755)
    assert end_of(begin(disturbed)) == ENDED and same(disturbed, whole)
