"""Load or compute, whatever happened to the last run."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kn_core.fingerprint import writing
from kn_core.study.store import Store
from tests.full_disk import on_a_full_disk


class Counted:
    """Computes a frame or arrays, and counts how often it was asked to."""

    def __init__(self, value: int = 1) -> None:
        self.value, self.calls = value, 0

    def frame(self) -> pd.DataFrame:
        self.calls += 1
        return pd.DataFrame({"x": [self.value, 2], "word": ["a", "b"]})

    def arrays(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"a": np.full((2, 3), self.value, np.float32).T, "b": np.arange(3)}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix == ".part"]


def test_what_is_on_disk_is_loaded_not_computed(store):
    made = Counted()
    first, second = (store.table("pairs-bear", "v1", made.frame) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert made.calls == 1
    arrays = Counted()
    first, second = (store.arrays("scores-bear", "v1", arrays.arrays) for _ in range(2))
    assert arrays.calls == 1
    assert first["a"].tolist() == second["a"].tolist() == [[1, 1]] * 3
    assert second["b"].dtype == np.int64
    assert first["a"].dtype == np.float32
    assert parts(store.folder) == []


def test_a_frame_is_read_again_only_when_its_file_changed(store, monkeypatch):
    asked = Counted()
    store.table("pairs-bear", "v1", asked.frame)
    reads = []
    monkeypatch.setattr(pd, "read_parquet", lambda path: reads.append(path) or asked.frame())
    first = store.table("pairs-bear", "v1", asked.frame)
    first["x"] = 9  # of this caller alone
    assert store.table("pairs-bear", "v1", asked.frame)["x"].tolist() == [1, 2]
    assert reads == []
    Store(store.folder).put("pairs-bear.parquet", (store.folder / "pairs-bear.parquet").read_bytes())
    store.table("pairs-bear", "v1", asked.frame)
    assert len(reads) == 1


@pytest.mark.parametrize("kind", ["table", "arrays"])
def test_other_inputs_are_another_artefact(store, kind):
    old, new = Counted(1), Counted(7)
    make = {"table": lambda made: made.frame, "arrays": lambda made: made.arrays}[kind]
    read = {"table": lambda found: found["x"][0], "arrays": lambda found: found["a"][0, 0]}[kind]
    get = getattr(store, kind)
    assert read(get("it", "v1", make(old))) == 1
    assert read(get("it", "v2", make(new))) == 7
    assert read(get("it", "v2", make(new))) == 7
    assert (old.calls, new.calls) == (1, 1)


@pytest.mark.parametrize("kind", ["table", "arrays"])
@pytest.mark.parametrize("harm", ["cut", "empty", "foreign"])
def test_a_damaged_or_foreign_file_is_made_again(store, kind, harm, caplog):
    made = Counted()
    compute = {"table": made.frame, "arrays": made.arrays}[kind]
    getattr(store, kind)("it", "v1", compute)
    path = store.folder / {"table": "it.parquet", "arrays": "it.safetensors"}[kind]
    if harm == "foreign":
        made.frame().to_parquet(path, index=False)
    else:
        path.write_bytes(path.read_bytes()[:-20] if harm == "cut" else b"")
    calls = made.calls
    with caplog.at_level(logging.WARNING):
        getattr(store, kind)("it", "v1", compute)
    assert made.calls == calls + 1
    warned = harm != "foreign" or kind == "arrays"  # a parquet file that another program wrote is a good one
    assert (f"{path} cannot be read" in caplog.text) is warned
    getattr(store, kind)("it", "v1", compute)
    assert made.calls == calls + 1


def test_an_interrupted_computation_leaves_the_old_artefact(store):
    store.table("it", "v1", Counted(1).frame)
    with pytest.raises(KeyboardInterrupt):
        store.table("it", "v2", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    unused = Counted(9)
    assert store.table("it", "v1", unused.frame)["x"][0] == 1
    assert unused.calls == 0


def test_an_interrupted_write_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "it.csv"
    path.write_text("whole")

    def write_half() -> None:
        with writing(path) as temporary:
            temporary.write_text("ha")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
    with writing(tmp_path / "deep" / "it.csv") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "deep" / "it.csv").read_text() == "new"


KILLED = """
import os, sys
from pathlib import Path
import pandas as pd
from kn_core.study.store import Store
from tests.full_disk import on_a_full_disk

def dies(frame, path, **_):
    Path(path).write_bytes(b"PAR1 half of a file")
    os._exit(9)

pd.DataFrame.to_parquet = dies
Store(Path(sys.argv[1])).table("it", "v2", lambda: pd.DataFrame({"x": [2]}))
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file_and_takes_no_part_for_done(store):
    store.table("it", "v1", Counted(1).frame)
    assert subprocess.run([sys.executable, "-c", KILLED, str(store.folder)], check=False).returncode == 9
    assert len(parts(store.folder)) == 1
    old, new = Counted(9), Counted(3)
    assert store.table("it", "v1", old.frame)["x"][0] == 1
    assert store.table("it", "v2", new.frame)["x"][0] == 3
    assert (old.calls, new.calls) == (0, 1)
    assert parts(store.folder) == []
    assert store.describe()["artefact"].tolist() == ["it.parquet"]


def test_only_an_artefacts_own_leftovers_are_removed_when_it_is_asked_for(store):
    store.folder.mkdir(exist_ok=True)
    names = (".it.parquet.1.part", ".it.parquet.22.part", ".it-too.parquet.1.part", ".it.safetensors.1.part")
    for name in names:
        (store.folder / name).touch()
    store.table("it", "v1", Counted().frame)
    assert {path.name for path in parts(store.folder)} == {names[2], names[3]}
    store.arrays("it", "v1", Counted().arrays)
    assert {path.name for path in parts(store.folder)} == {names[2]}


TWO = """
import sys, time
from pathlib import Path
import pandas as pd
from kn_core.study.store import Store
from tests.full_disk import on_a_full_disk

def compute():
    with open(sys.argv[1] + "/computed", "a") as file:
        file.write("once\\n")
    time.sleep(1)
    return pd.DataFrame({"x": [5]})

print(Store(Path(sys.argv[1])).table("it", "v1", compute)["x"][0])
"""


def test_of_two_runs_at_once_one_computes_and_the_other_waits(tmp_path):
    run = [sys.executable, "-c", TWO, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(run, **pipes) for _ in range(2)]
    said = [run.communicate(timeout=100) for run in runs]
    assert [out for out, _ in said] == ["5\n", "5\n"]
    assert (tmp_path / "computed").read_text() == "once\n"


def test_what_lies_in_a_store(store):
    store.table("pairs-bear", "v1", Counted().frame)
    store.arrays("scores-bear", "v1", Counted().arrays)
    described = store.describe()
    assert described["artefact"].tolist() == ["pairs-bear.parquet", "scores-bear.safetensors"]
    assert described["seconds"].between(0, 10).all()
    assert described["bytes"].gt(0).all()


@pytest.mark.parametrize("kind", ["table", "arrays"])
def test_an_artefact_that_another_store_made_is_kept_as_it_is(tmp_path, kind):
    there, here, made = Store(tmp_path / "there"), Store(tmp_path / "here"), Counted()
    compute = {"table": made.frame, "arrays": made.arrays}[kind]
    getattr(there, kind)("pairs-dining table", "v1", compute)
    (file,) = there.held()
    content = there.read(file)
    assert there.held() == {file: "v1"}
    assert here.read(file) is None
    here.put(file, content)
    assert here.read(file) == content
    getattr(here, kind)("pairs-dining table", "v1", compute)
    assert made.calls == 1
    assert here.describe()["seconds"].tolist() == there.describe()["seconds"].tolist()  # what it took there


@pytest.mark.parametrize("file", ["pairs-bear.parquet", "scores-bear.safetensors"])
def test_other_bytes_are_no_artefact(store, caplog, file):
    with pytest.raises(ValueError, match=f"{file} must be an artefact that a store has written. Got 7 other bytes."):
        store.put(file, b"nothing")
    assert store.held() == {}
    assert parts(store.folder) == []


@pytest.mark.parametrize("kind", ["table", "arrays"])
def test_a_full_disk_is_an_error_of_the_system_and_leaves_no_part(tmp_path, kind):
    made = Counted()
    compute = made.frame if kind == "table" else made.arrays
    assert on_a_full_disk(lambda: getattr(Store(tmp_path), kind)("it", "v1", compute)).startswith("OSError: [Errno 27]")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
