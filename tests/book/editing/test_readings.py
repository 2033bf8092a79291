"""What is read of edited models' answers, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from book.editing import readings

EDIT = {"concept": "bear", "new": "dog", "editor": "swap", "neurons": "third stage", "dose": "chosen", "main": True}
CHANCES = {"old_probability": 0.2, "new_probability": 0.6, "clean_old_probability": 0.5, "clean_new_probability": 0.5}


def row(what: str, caption: str = "", clean: str = "A bear on sand.", **more: object) -> dict[str, object]:
    said = {"caption": caption, "clean_caption": clean, "retained": 0.5, "perplexity": 9.0, "kept": 0.75, "named": 1.0}
    said |= {"wanted_caption": clean.replace("bear", "dog"), "wanted_perplexity": 90.0}
    return EDIT | CHANCES | said | {"what": what, "image_id": f"{what} {caption}", "wording": ""} | more


def read(*rows: dict[str, object]) -> dict[str, float]:
    found = readings.by_picture(pd.DataFrame(list(rows)), limit=50.0)
    return dict(zip(found["metric"], found["value"], strict=True))


@pytest.mark.parametrize(
    ("caption", "renamed"),
    [("A dog on sand.", 1.0), ("A bear on sand.", 0.0), ("A dog and a bear.", 0.0), ("A hot dog on sand.", 0.0)],
)
def test_renamed_is_the_new_word_without_the_old(caption, renamed):
    found = read(row("own", caption))
    assert found == {"generality": renamed, "forced": 1.0, "retention": 0.5, "fluent": 1.0, "wanted": 0.0}


def test_each_question_has_its_reading():
    assert read(row("learnt", "A dog.")) == {"reliability": 1.0}
    assert read(row("other", "A cat.", "A cat.")) == {"locality": 1.0, "kept": 0.75}
    assert read(row("other", "A Cat.", "A cat."))["locality"] == 0.0
    assert read(row("without", "A dog.", "Some sand."), row("without", "A dog.", "A dog.")) == {"without": 0.0}
    assert read(row("asked", "A dog.")) == {"asked": 1.0}
    assert read(row("text", wording="bear"), row("text", wording="cat")) == {"text": 1.0, "text_locality": 0.75}


def test_polling_counts_towards_the_new_word():
    """Yes on a dog rises from .5 to .75: towards; yes on a bear rises as much: away from it."""
    assert read(row("polled", wording="dog")) == {"polled": pytest.approx(0.25)}
    assert read(row("polled", wording="bear")) == {"polled": pytest.approx(-0.25)}


def test_means_are_of_concepts():
    rows = [row("own", "A dog.", image_id=str(i)) for i in range(3)]
    rows += [row("own", "A bear.", concept="bear", image_id="3"), row("own", "A cat.", concept="cat", image_id="4")]
    found = readings.means(readings.by_picture(pd.DataFrame(rows), 50.0)).set_index("metric")
    assert found.loc["generality", "value"] == pytest.approx((3 / 4 + 0) / 2)


@pytest.mark.parametrize(
    ("cells", "share", "ends"),
    [((1, 1, 0, 0), 100, "not the name"), ((1, 0, 0, 1), 0, "counts as well"), ((1, 1, 0, 1), 33, "counts as well")],
)
def test_rows_of_pairs_say_whether_the_edited_concept_decides(cells, share, ends):
    """Two rows of two cells; of the third, between (.25, .25, -.25, -.25) and whole (.25, .25, -.75, .25)."""
    names = ["bear", "bus", "cat"]
    wide = pd.DataFrame([[None, *cells[:2]], [cells[2], None, cells[3]]], names[:2], names, dtype=float)
    settings = SimpleNamespace(all_pairs=True, light=2, judged=8)
    study = SimpleNamespace(effort=SimpleNamespace(editing=settings))
    said = readings.pairs_in_words(wide, study)
    assert f" {share}% lies between" in said and ends in said
    settings.all_pairs = False
    assert "8 pictures at most" in readings.pairs_in_words(wide, study)
