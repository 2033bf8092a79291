"""A study on a cluster of two processes, of which one is killed: the same tables as without, and nothing made twice."""

import os
import pickle
import re
import signal
import socket
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import dask
import pandas as pd
import pytest
import torch
from distributed import LocalCluster, get_worker
from safetensors.numpy import load_file

from kn_core import __main__, models
from kn_core.method import filtering, perturbation
from kn_core.models import MiniGPT4
from kn_core.pictures import scenes
from kn_core.profile import Profile
from kn_core.settings import Dask
from kn_core.study import cluster, neurons, processes, run, scheduler
from kn_core.study.store import Store
from kn_core.study.study import Study
from kn_core.weights import wheels
from tests.kn_core.study.test_study import inhabit
from tests.toy_world import COLOURS, toy_samples

WATCHED = {"pairs": (filtering, "make_pairs"), "score": (neurons, "score_pair"), "perturb": (perturbation, "run")}
ASK_THE_MODEL = (
    *("pairs", "scores", "attribution", "contrasts", "neurons", "perturbations", "single neurons", "ceiling", "curves"),
    *("heatmaps", "rules", "inpainters", "other regions", "ownership", "companions", "patches", "ladder"),
    *("neuron maps", "third stage", "neurons removed", "edits", "transfer"),
)


@dataclass
class Loader:
    """Brings the toy world to a worker, with a watch on what is computed there, and death at one place, once."""

    model: MiniGPT4
    folder: Path  # of the projection, and of the watch

    def __call__(self, profile: Profile) -> MiniGPT4:
        scenes.samples, models.PROJECTIONS = toy_samples, self.folder
        self.note("load")
        for what, (place, name) in WATCHED.items():
            setattr(place, name, self.watching(what, getattr(place, name)))
        return self.model

    def watching(self, what, original):
        def watched(*arguments, **more):
            self.note(what)
            if what == "score" and "pizza" in arguments[3]:  # its caption: the scores of 'pizza' are under way
                self.die_once()
            return original(*arguments, **more)

        return watched

    def note(self, what: str) -> None:
        with (self.folder / "watch").open("a") as file:
            file.write(f"{what} {os.getpid()}\n")

    def die_once(self) -> None:
        try:
            (self.folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return
        self.note("killed")
        os.kill(os.getpid(), signal.SIGKILL)

    def noted(self) -> pd.DataFrame:
        """Columns what, process."""
        return pd.read_csv(self.folder / "watch", sep=" ", names=["what", "process"])


def artefacts(folder: Path) -> dict[str, tuple[str, object]]:
    """What each file of a study's store was made from, and what is in it, bit by bit."""
    parts, found = folder / "parts", {}
    for file, made_from in Store(parts).held().items():
        if file.endswith(".safetensors"):
            arrays = load_file(parts / file)
            content = {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}
        else:
            content = pd.read_parquet(parts / file)
        found[file] = made_from, content
    return found


def test_two_workers_of_which_one_is_killed_make_what_one_process_makes(
    tmp_path, monkeypatch, taught_model, toy_profile
):
    inhabit(monkeypatch, tmp_path)
    serial = Study(toy_profile, tmp_path / "serial", taught_model)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have: what more of them add up may differ in the last bit
    with monkeypatch.context() as watch:
        alone = {what: Mock(wraps=getattr(place, name)) for what, (place, name) in WATCHED.items()}
        for what, (place, name) in WATCHED.items():
            watch.setattr(place, name, alone[what])
        for stage, do in run.STAGES.items():
            for concept in COLOURS if stage != "thresholds" else ():  # these want rivals that the toy profile lacks
                do(serial, concept)
    torch.set_num_threads(threads)

    loader, folder = Loader(taught_model, tmp_path), tmp_path / "spread"
    without, first, *said = cluster.run(toy_profile, folder, "local", workers=2, load=loader)
    assert without.startswith("thresholds: left out. The ablation needs the methods")
    assert first.startswith("2 workers of tcp://")
    done = [line.split(":")[0] for line in said if "after" in line]
    asked = {f"{stage}, {concept}" for stage in ASK_THE_MODEL for concept in COLOURS}
    assert sorted(done) == sorted(asked - {"inpainters, bear"})  # a hole in a toy picture of it leaves nothing
    assert len([line for line in said if line.startswith("gone: tcp://")]) == 1

    # One worker died under the first picture of 'pizza', whose scores were made again, and nothing else was.
    noted = loader.noted()
    once = {what: calls.call_count for what, calls in alone.items()}
    again = {"score": 1 + 3 * 7, "killed": 1}  # more than alone: a task is sent its own concept's scores, no other's
    assert noted["what"].value_counts().drop("load").to_dict() == once | again
    assert not noted[noted["what"] == "load"]["process"].duplicated().any()  # the model was loaded once a process
    dead = noted.loc[noted["what"] == "killed", "process"].item()
    assert noted[noted["process"] == dead]["what"].tolist()[-2:] == ["score", "killed"]
    assert noted["process"].nunique() >= 2

    expected, found = artefacts(tmp_path / "serial"), artefacts(folder)
    assert found.keys() == expected.keys()
    for file, (made_from, content) in expected.items():
        assert found[file][0] == made_from
        if isinstance(content, pd.DataFrame):
            pd.testing.assert_frame_equal(found[file][1], content, check_exact=True)
        else:
            assert found[file][1] == content

    # A serial study that comes later finds everything, and the cluster is not asked again.
    later = Study(toy_profile, folder)
    later.__dict__["model"] = None
    assert later.perturbations().equals(serial.perturbations())
    assert later.neurons().equals(serial.neurons())
    assert list(cluster.run(toy_profile, folder, "tcp://nobody:1", load=pytest.fail)) == [without]


@pytest.fixture
def here(monkeypatch, tmp_path):
    """The address of a cluster of one worker in this process, which therefore knows the toy world."""
    inhabit(monkeypatch, tmp_path)
    monkeypatch.setattr(cluster, "_studies", {})
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0", memory_limit=0
    ) as found:
        yield found.scheduler_address


def test_a_cluster_that_is_running_one_concept_up_to_one_stage(here, tmp_path, taught_model, toy_profile):
    said = list(
        cluster.run(toy_profile, tmp_path / "r", here, only="bus", until="neurons", load=lambda profile: taught_model)
    )
    assert said[0] == f"1 workers of {here}"
    made = ["pairs-bear", "pairs-bus", "pairs-pizza", "scores-bear", "scores-bus", "scores-pizza", "neurons-bus"]
    made += ["dai-bear", "dai-bus", "dai-pizza", "undisturbed-bear", "undisturbed-bus", "undisturbed-pizza"]
    assert sorted(Path(file).stem for file in Store(tmp_path / "r" / "parts").held()) == sorted(made)


def test_what_goes_wrong_on_a_worker_is_told_when_the_others_are_done(here, tmp_path, taught_model, toy_profile):
    def load(profile):
        if not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise RuntimeError("no weights here")
        return taught_model

    with pytest.raises(cluster.ClusterError, match="(?s)pairs: 1 of 3 concepts failed.* RuntimeError: no weights here"):
        list(cluster.run(toy_profile, tmp_path / "r", here, load=load))
    assert len(Store(tmp_path / "r" / "parts").held()) == 4  # two concepts' pairs, and the clean model on them
    said = list(cluster.run(toy_profile, tmp_path / "r", here, until="pairs", load=load))
    assert len(said) == 2  # the workers, and the concept that had failed


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    """in_process(n): a cluster of so many workers that are threads here."""
    inhabit(monkeypatch, tmp_path)
    monkeypatch.setattr(cluster, "_studies", {})
    here = {"threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
    with ExitStack() as stack:
        yield lambda n: stack.enter_context(LocalCluster(n_workers=n, **here))


OUT = (MemoryError("no room"), torch.OutOfMemoryError("CUDA"), RuntimeError("[enforce] can't allocate memory: you"))


@pytest.mark.parametrize("error", OUT, ids=lambda error: type(error).__name__)
def test_a_concept_for_which_a_worker_has_no_memory_goes_to_another(
    in_process, error, tmp_path, taught_model, toy_profile, monkeypatch
):
    where, small = in_process(2), {}

    def pairs(study, concept):
        worker = "" if isinstance(study, cluster._OnDisk) else get_worker().address
        if worker and concept == "bus" and small.setdefault("worker", worker) == worker:
            raise error
        return study.pairs(concept)

    monkeypatch.setitem(run.STAGES, "pairs", pairs)
    asked = toy_profile, tmp_path / "r", where.scheduler_address
    said = list(cluster.run(*asked, until="pairs", load=lambda profile: taught_model))
    assert f"{small['worker']} ran out of memory at pairs, bus; another worker tries it" in said
    assert re.search(r"pairs, bus: after \d+ s, by (.*)", "\n".join(said))[1] != small["worker"]
    assert len(Store(tmp_path / "r" / "parts").held()) == 3


def test_a_concept_for_which_no_worker_has_memory_is_told(in_process, tmp_path, taught_model, toy_profile, monkeypatch):
    where = in_process(2)

    def pairs(study, concept):
        if isinstance(study, cluster._OnDisk):
            return study.pairs(concept)
        raise MemoryError("no room")

    monkeypatch.setitem(run.STAGES, "pairs", pairs)
    asked = toy_profile, tmp_path / "r", where.scheduler_address
    with pytest.raises(cluster.ClusterError, match="pairs: 3 of 3 concepts failed(?s:.*)bus: MemoryError: no room"):
        list(cluster.run(*asked, until="pairs", load=lambda profile: taught_model))


def test_workers_that_come_and_go_with_the_work_do_all_of_it(in_process, tmp_path, taught_model, toy_profile):
    where = in_process(0)
    where.adapt(minimum=0, maximum=2, interval="100ms", wait_count=1)
    asked = toy_profile, tmp_path / "r", where.scheduler_address
    first, *said = cluster.run(*asked, until="pairs", load=lambda profile: taught_model)
    assert first.startswith("0 workers of ")
    assert {line.split(":")[0] for line in said if "after" in line} == {f"pairs, {name}" for name in COLOURS}


def test_a_task_names_no_folder_of_the_clients(tmp_path, taught_model, toy_profile, monkeypatch):
    """Workers may be where it is not: they are sent what they need, and send back what they made."""
    inhabit(monkeypatch, tmp_path)
    done = Study(toy_profile, tmp_path / "r", taught_model)
    done.neurons()
    task = cluster._OnDisk(toy_profile, tmp_path / "r").task("perturbations", "bus", None)
    sent = pickle.dumps(task)
    assert len(task.given) >= 6 and str(tmp_path).encode() not in sent


def test_a_worker_with_other_weights_makes_nothing(here, tmp_path, taught_model, toy_profile):
    def load(profile):
        (tmp_path / "toy.safetensors").write_bytes(b"trained for longer")
        return taught_model

    with pytest.raises(cluster.ClusterError, match="would make something else of 'bear'.* Install the same"):
        list(cluster.run(toy_profile, tmp_path / "r", here, load=load))
    assert Store(tmp_path / "r" / "parts").held() == {}


def test_who_computes_changes_no_fingerprint(toy_profile):
    elsewhere = toy_profile.model_copy(update={"dask": Dask(cluster="tcp://10.0.0.1:8786", workers=8)})
    assert elsewhere.fingerprint() == toy_profile.fingerprint()
    with pytest.raises(ValueError, match="workers"):
        Dask(workers=0)


def test_the_command_takes_the_cluster_from_its_option_or_the_profile(monkeypatch, capsys, tmp_path):
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(wheels, "fetch_all", list)
    monkeypatch.setattr(processes, "pool", lambda workers, sparing: nullcontext(workers))
    for name, place in (("cluster", cluster), ("run", run)):
        monkeypatch.setattr(place, "run", lambda *given, name=name: asked.append((name, *given[2:])) or ["done"])
    assert __main__.main(["run", "--dask", "tcp://a:1", "--stage", "pairs"]) == 0
    assert __main__.main(["run", "--concept", "bear", "--workers", "3"]) == 0
    text = Path("profiles/embedded.yaml").read_text() + "\ndask: {cluster: local, workers: 4}\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert __main__.main(["run", "--profile", str(tmp_path / "mine.yaml")]) == 0
    assert asked == [
        ("cluster", "tcp://a:1", 2, None, "pairs"),
        ("run", 3, "bear", None),
        ("cluster", "local", 4, None, None),
    ]
    assert capsys.readouterr().out == "embedded: done\n" * 2 + "mine: done\n"


def test_a_scheduler_that_does_not_answer_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("KN_RESULTS", str(tmp_path))
    monkeypatch.setattr(wheels, "fetch_all", list)
    with dask.config.set({"distributed.comm.timeouts.connect": "200ms"}):
        assert __main__.main(["run", "--dask", "tcp://127.0.0.1:9"]) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["", "localhost", "nonsense", "host:text", "http://10.0.0.1:8786", "tcp://a:99999"])
def test_what_can_be_no_scheduler_is_one_line_before_anyone_is_asked(monkeypatch, where):
    monkeypatch.setattr(scheduler, "_knock", pytest.fail)
    with pytest.raises(
        scheduler.ClusterError,
        match=re.escape(
            f"must be 'local', an address such as tcp://10.0.0.1:8786 or a scheduler's JSON file. Got {where!r}."
        ),
    ):
        scheduler.check(where)
    assert [scheduler.check(good) for good in ("local", "tcp://a:1", "10.0.0.1:8786", "tls://[::1]:8786")]


@pytest.mark.parametrize("content", ["", "[1]", "{}", '"tcp://a:1"', '{"address": 3}', '{"address": "http://a:1"}'])
def test_a_scheduler_file_that_is_none_or_not_there_is_one_line(tmp_path, content):
    file = tmp_path / "scheduler.json"
    with pytest.raises(scheduler.ClusterError, match="no scheduler file .*: `dask scheduler --scheduler-file "):
        scheduler.check(str(file))
    file.write_text(content)
    with pytest.raises(scheduler.ClusterError, match=r"scheduler\.json"):
        scheduler.check(str(file))
    file.write_text('{"address": "tcp://10.0.0.1:8786", "type": "Scheduler"}')
    assert scheduler.check(str(file)) == "tcp://10.0.0.1:8786"


def test_another_server_is_no_scheduler(monkeypatch):
    """One that takes the connection and never answers: a client would wait for ever."""
    monkeypatch.setattr(scheduler, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(scheduler.ClusterError, match=f"no Dask scheduler answers at {address} within 0.3 s"):
            scheduler._knock(address)


def test_workers_of_this_machine_keep_memory_that_they_freed_and_let_the_model_work():
    def found():
        return {name: os.environ[name] for name in scheduler.MALLOC} | {n: dask.config.get(n) for n in scheduler.QUIET}

    with scheduler.connected("local", workers=1) as client:
        (there,) = client.run(found).values()
    assert there == {name: str(2**30) for name in scheduler.MALLOC} | scheduler.QUIET
