"""A study filled ahead of its pages: in stages, concept by concept, whatever lies there already left alone."""

from __future__ import annotations

from concurrent.futures import Executor, Future

import pytest
from tqdm import tqdm

from kn_core import __main__
from kn_core.pictures.scenes import SceneError
from kn_core.study import pairs, run
from kn_core.study.study import Study, StudyError
from kn_core.weights import wheels
from tests.kn_core.study.test_study import changed, inhabit
from tests.toy_world import COLOURS


class Here(Executor):
    """Stands in for the pool: workers are other processes, which know neither the toy world nor its model."""

    def submit(self, function, /, *arguments):
        done: Future[object] = Future()
        done.set_result(function(*arguments))
        return done


@pytest.fixture
def folder(tmp_path, monkeypatch, taught_model):
    inhabit(monkeypatch, tmp_path)
    monkeypatch.setattr(pairs, "load_model", lambda profile: taught_model)
    monkeypatch.setattr(run, "_studies", {})
    return tmp_path / "results"


def test_every_artefact_is_there_before_the_pages_ask(folder, toy_profile, monkeypatch):
    said = list(run.run(toy_profile, folder, Here()))
    # The toy profile runs no single stages, which the ablation asks for: told before anything is computed.
    assert said[0].startswith("thresholds: left out. The ablation needs the methods stage-1, stage-2.")
    without = len(run.left_out(toy_profile, None))
    said = said[without:]
    assert {line.split(":")[0] for line in said[:3]} == {f"pairs, {concept}" for concept in COLOURS}
    assert {line.split(":")[0] for line in said} == run.parts(toy_profile, None, None)
    assert len(said) == (len(run.STAGES) - without) * len(COLOURS)
    assert "left out" not in "".join(said)

    monkeypatch.setattr(pairs, "load_model", lambda profile: pytest.fail("everything is on disk"))
    again = Study(toy_profile, folder)
    assert set(again.perturbations()["concept"]) == set(COLOURS)
    assert list(run.run(toy_profile, folder, Here()))  # and once more costs a look


def test_one_concept_needs_pairs_and_scores_of_all(folder, toy_profile):
    said = [line.split(":")[0] for line in run.run(toy_profile, folder, Here(), only="bus")]
    without = list(run.left_out(toy_profile, None))
    assert said[: len(without)] == without and "thresholds" in without
    said = said[len(without) :]
    assert sorted(said) == sorted(run.parts(toy_profile, "bus", None))
    assert set(said[:3]) == {f"pairs, {concept}" for concept in COLOURS}
    assert set(said[3:9]) == {f"{stage}, {concept}" for stage in ("scores", "attribution") for concept in COLOURS}
    all_need = {f"{stage}, {concept}" for stage in run.FOR_ALL for concept in COLOURS}
    assert set(said[: len(all_need)]) == all_need
    rest = set(run.STAGES).difference(run.FOR_ALL, without)
    assert sorted(said[len(all_need) :]) == sorted(f"{stage}, bus" for stage in rest)


def test_a_bar_counts_each_part_once_whatever_else_is_said(toy_profile, monkeypatch):
    bars: list[tqdm[None]] = []
    monkeypatch.setattr(run, "tqdm", lambda **how: bars.append(tqdm(**how | {"disable": False})) or bars[0])
    said = ["pairs, bear: after 1 s", "tcp://10.0.0.1, full: at scores, bear; another worker tries it"]
    said += [
        "scores, bear: left out. It is full",
        "scores, bear: after 9 s",
        "Fewer than two kept pairs of 'bus', 'car': 2",
    ]
    run.say(toy_profile, "bear", "scores", said)
    assert (bars[0].n, bars[0].total) == (2, 6)


def test_where_nothing_is_kept_the_run_ends_with_the_counts(folder, toy_profile):
    small = changed(toy_profile, filtering={"area": (0.5, 0.6)})
    why = "  bus: 8 pictures looked at, 0 kept; what the others lack: the object fills 50% to 60% of the frame: 8"
    with pytest.raises(StudyError, match="No concept has two kept pairs") as raised:
        list(run.run(small, folder, Here()))
    assert len(str(raised.value).splitlines()) == 1 + len(COLOURS) and why in str(raised.value)
    with pytest.raises(StudyError, match=f"Fewer than two kept pairs of 'bus', .*\n{why}"):
        list(run.run(small, folder, Here(), only="bus"))
    *_, last = run.run(small, folder, Here(), until="pairs")
    assert why in last


def test_a_concept_that_the_pictures_do_not_have_is_a_sentence_before_the_first_job(folder, toy_profile):
    processes = Executor()  # which takes no job
    with pytest.raises(SceneError, match="no scenes show 'unicorn'"):
        list(run.run(changed(toy_profile, concepts=["bear", "unicorn"]), folder, processes))


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wheels, "fetch_all", lambda: None)
    monkeypatch.setenv("KN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("KN_COCO", str(tmp_path))
    (tmp_path / "images").mkdir()
    (tmp_path / "instances.json").write_text("{")
    assert __main__.main(["run", "--profile", "embedded-coco"]) == 2
    assert capsys.readouterr().err.startswith(f"kn-core: {tmp_path / 'instances.json'} is not COCO json (")
    (tmp_path / "instances.json").write_text(
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "Bed"}]}'
    )
    assert __main__.main(["run", "--profile", "embedded-coco"]) == 2
    assert capsys.readouterr().err == f"kn-core: 'bed' is no category of {tmp_path}. Nearest: Bed.\n"
    monkeypatch.setenv("EFFORT", "FULL")
    assert __main__.main(["run", "--profile", "embedded-coco"]) == 2
    assert capsys.readouterr().err == "kn-core: EFFORT must be full, or not given. Got 'FULL'.\n"


def test_a_worker_keeps_the_model_of_one_study_at_a_time(folder, toy_profile, taught_model, monkeypatch):
    loaded = []
    monkeypatch.setattr(pairs, "load_model", lambda profile: loaded.append(profile.name) or taught_model)
    other = toy_profile.model_copy(update={"name": "other"})
    for profile in (toy_profile, other):
        assert list(run.run(profile, folder / profile.name, Here(), until="scores"))
        assert [study.profile.name for study in run._studies.values()] == [profile.name]
    assert loaded == [toy_profile.name, "other"]


def test_a_profile_beside_follows_up_to_its_ceiling(monkeypatch, capsys):
    monkeypatch.setattr(wheels, "fetch_all", lambda: None)
    asked = []

    def told(profile, folder, processes, only, until):
        asked.append((profile.name, only, until))
        return ["pairs, bear: after 1 s"]

    monkeypatch.setattr(run, "run", told)
    assert __main__.main(["run", "--concept", "bear", "--beside", "embedded-vit"]) == 0
    assert asked == [("embedded", "bear", None), ("embedded-vit", None, "ceiling")]
    assert capsys.readouterr().out.splitlines()[1] == "embedded-vit: pairs, bear: after 1 s"


def test_a_concept_that_the_profile_does_not_have_is_one_line(capsys):
    assert __main__.main(["run", "--concept", "unicorn"]) == 2
    assert "'unicorn' is no concept of 'embedded'. Known: banana, bear, bed" in capsys.readouterr().err
