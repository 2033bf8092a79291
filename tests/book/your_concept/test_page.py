"""The whole on a folder of labelled toy pictures: tables, and one page that stands alone; and what is done of less."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from book.press.proofreading import flaws
from kn_core.pictures import coco_checks
from kn_core.study import own, pairs, processes, run
from kn_core.study.study import StudyError
from kn_core.weights import wheels
from tests.kn_core.study.test_run import Here
from tests.kn_core.study.test_study import changed, inhabit
from tests.toy_world import toy_samples


@pytest.fixture
def study(tmp_path, monkeypatch, taught_model, toy_profile):
    """study(): its lines, of whatever lies in `in`, with results in `out`; computed here and not in other processes."""
    inhabit(monkeypatch, tmp_path)
    monkeypatch.setattr(pairs, "load_model", lambda profile: taught_model)
    monkeypatch.setattr(run, "_studies", {})
    monkeypatch.setattr(wheels, "fetch_all", lambda: None)
    monkeypatch.setattr(processes, "pool", contextmanager(lambda workers, heard, sparing: (yield Here())))
    monkeypatch.setenv("KN_COCO", "")
    profile = changed(toy_profile, data={"source": "coco"}, inpainting={"method": "telea", "dilation": 0})
    (tmp_path / "in").mkdir()
    return lambda: list(own.whole(profile, "a bear", tmp_path / "in", tmp_path / "out", 1))


def put(folder, n, image=None):
    for sample in toy_samples("bear", n, 2):
        Image.fromarray(sample.image if image is None else image).save(folder / f"{sample.image_id}.png")
        Image.fromarray(sample.mask).save(folder / f"{sample.image_id}.mask.png")


def test_a_folder_becomes_a_page_that_stands_alone_and_tables(study, tmp_path, monkeypatch):
    put(tmp_path / "in", 5)
    (tmp_path / "in" / "stray.png").write_bytes(b"no picture")
    told = study()
    assert told[0] == f"5 pictures of 'bear'; results in {tmp_path / 'out'}"
    assert told[1] == "note: 1 picture left out: neither a json nor a mask beside it, first: stray.png"
    assert [line[:7] for line in told[2:8]] == [f"{n} of 6:" for n in range(1, 7)]
    assert {line[8:].split(",")[0] for line in told[2:8]} == set(own.STAGES)
    page = tmp_path / "out" / "bear.html"
    assert told[-1].startswith(f"Saved {page}")
    text = page.read_text()
    assert "Of 5 pictures with “bear” marked, 5 were looked at and 5 passed" in text and "stray.png" in text
    for heading in ("Pairs", "Neurons", "Where they answer", "Disturbed", "What sets of neurons carry"):
        assert f"<h2>{heading}</h2>" in text
    assert text.count('<img src="data:image/') >= 5 and not re.search(r"(src|href)=\"(?!data:)", text)
    (tmp_path / "site").mkdir()
    page.rename(tmp_path / "site" / "bear.html")
    assert [flaw for flaw in flaws(tmp_path / "site") if " kB" not in flaw] == []  # it carries its figures
    names = {path.stem for path in (tmp_path / "out" / "tables").glob("*.csv")}
    shown = {"attrition", "readings", "methods", "dose", "carried"}
    assert names == {"pairs", "neurons", "perturbations", "curves"} | shown
    for name in names:
        file = tmp_path / "out" / "tables" / f"{name}.csv"
        assert len(pd.read_csv(file)) == len(pd.read_parquet(file.with_suffix(".parquet"))) > 0

    monkeypatch.setattr(pairs, "load_model", lambda profile: pytest.fail("everything is on disk"))
    monkeypatch.setattr(run, "_studies", {})
    assert study()[0] == told[0] and page.read_text() == text  # the same command goes on
    assert coco_checks.log.level == logging.NOTSET  # and what others leave out is said again


def test_another_study_is_not_written_over_and_no_table_outlives_its_pictures(study, tmp_path):
    put(tmp_path / "in", 3)
    study()
    tables = tmp_path / "out" / "tables"
    assert (tables / "neurons.csv").is_file() and (tables / "dose.parquet").is_file()
    for path in sorted((tmp_path / "in").glob("*.mask.png"))[1:]:
        path.unlink()
    with pytest.raises(StudyError, match="Fewer than two kept pairs"):
        study()
    assert {path.stem for path in tables.iterdir()} == {"pairs", "attrition"}
    (tmp_path / "in").rename(tmp_path / "other")
    (tmp_path / "in").symlink_to(tmp_path / "other")
    with pytest.raises(StudyError, match="out holds the study of concept bear, images .*/in, profile .*another folder"):
        study()


def test_what_can_be_done_of_too_little_is_done(study, tmp_path):
    put(tmp_path / "in", 1)
    with pytest.raises(StudyError, match="Fewer than two kept pairs of 'bear'.*\n  bear: 1 pictures looked at, 1 kept"):
        study()
    text = (tmp_path / "out" / "bear.html").read_text()
    assert '<div class="lacking">Fewer than two kept pairs' in text and "<h2>Neurons</h2>" not in text
    assert (tmp_path / "out" / "tables" / "pairs.csv").is_file()


def test_what_is_missing_is_told_before_anything_is_fetched(study, tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "fetch_all", lambda: pytest.fail("fetched"))
    put(tmp_path / "in", 1)
    (tmp_path / "toy.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="toy.safetensors"):
        study()


def test_a_word_that_no_caption_holds_is_told_with_those_that_they_hold(study, tmp_path):
    put(tmp_path / "in", 3, np.full((16, 16, 3), 40, np.uint8))
    with pytest.raises(StudyError, match=r"names the object .*: 3\n  what the captions hold instead: forest \(3\)"):
        study()
    assert "hold instead: forest (3)" in (tmp_path / "out" / "bear.html").read_text()
