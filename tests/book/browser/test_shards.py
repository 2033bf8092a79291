"""What the neuron browser is given: the study's own numbers, neurons numbered once, maps that can be read back."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from book.browser import plain, shards
from book.press.neuron_links import BROWSER, link
from book.words import NotRun
from kn_core.study.experiments.ladder import THIRD
from tests.book.browser.conftest import ALL, CONCEPTS, SAID, SETS, value


@pytest.fixture(scope="session")
def read(site):
    def shard(name: str) -> dict:
        text = (site / BROWSER / f"{name}.js").read_text(encoding="utf-8")
        return json.loads(re.fullmatch(rf'KN\.add\("{name}",(.*)\);\n', text, re.DOTALL)[1])

    return shard


def values(text: str, most: float) -> np.ndarray:
    levels = np.array([shards.LETTERS.index(letter) - shards.LEVELS for letter in text]) / shards.LEVELS
    return np.sign(levels) * levels**2 * most


def places(shard: dict) -> list[tuple[int, int]]:
    return [(neuron["layer"], neuron["unit"]) for neuron in shard["neurons"]]


def test_letters_are_read_back_within_half_a_step_of_the_root():
    given = np.array([[-2.0, -0.5, 0.0], [0.08, 1.0, 2.0]])
    text = shards.letters(given, 2.0)
    assert text[0] == "O" and text[2] == "." and text[-1] == "o"
    back = np.sqrt(np.abs(values(text, 1.0)))
    assert np.sqrt(np.abs(given.ravel() / 2)) == pytest.approx(back, abs=0.5 / shards.LEVELS + 1e-9)
    assert shards.letters(np.zeros(3), 0.0) == "..."


def test_a_neuron_has_one_number_in_whichever_sets_it_is(found):
    core, third, rest = shards.groups(found.sets)
    assert list(map(tuple, core.at.tolist())) == [(1, 5), (2, 7), (3, 9), (0, 1), (0, 4), (3, 2)]  # the best rank first
    assert (third.start, third.at.tolist()) == (6, [[2, 8]]) and (rest.start, rest.at.tolist()) == (7, [[2, 0]])
    assert rest.methods == ("dai",)


def test_shards_hold_the_numbers_of_the_study(read):
    core = read("core")
    assert core["concepts"] == CONCEPTS and core["grid"] == [4, 2] and (core["layers"], core["width"]) == (4, 10)
    at = places(core)
    for place, concept in enumerate(CONCEPTS):
        assert [at[i] for i in core["sets"]["two-stage"][place]] == SETS["two-stage"][concept]
        for i, neuron in enumerate(at):
            assert core["neurons"][i]["delta"][place] == pytest.approx(value("delta", concept, *neuron), rel=5e-3)
    known = [core["neurons"][at.index(one)] for one in ((1, 5), (0, 1), (3, 9))]
    assert [one["removed"] for one in known] == [[-0.5, None, None], [0.25, None, None], []]
    assert [one["patched"] for one in known] == [[], [0.125, None, None], []]
    assert core["silencing"]["two-stage"][1] == [0.3, 0.8, None] and core["main"] == ["noise", 3, 5.0]
    filled = [sum(digit != "0" for digit in one) for one in read("third")["densities"]["delta"]]
    assert len(filled) == 4 and all(filled) and len(core["density"]["measures"]["delta"]["maps"]) == 1


def test_captions_are_whole_and_lie_by_concept_and_picture(read):
    said = read("said")
    assert sum(map(len, said["rows"].values())) == 3 * len(SAID) + 1 and said["labels"][THIRD] == "third stage"
    told = said["rows"]["0/0"]  # bear's neurons on the first picture, which is a bear's
    assert [(row["n"], row["sigma"]) for row in told] == [(1, None), (2, None), (3, 2.0), (3, 5.0), (3, 5.0)]
    (broken,) = [row for row in told if row["method"] == "two-stage" and row["sigma"] == 5.0]
    assert (broken["caption"], broken["before"], broken["after"], broken["kept"]) == ("The The The", 0.9, 0.02, None)
    assert [row["kept"] for row in said["rows"]["2/0"]] == [0.5]


def test_a_neurons_maps_are_on_its_concepts_pictures_and_on_one_of_every_other(found, read):
    core = read("core")
    entry = read("layer-2")["maps"][str(places(core).index((2, 7)))]  # of bear and bus
    assert core["mapped"] == [1, 2, 3, 0]  # the layers that have any
    assert entry["on"] == [0, 1, 2, 3, 4]
    most, text = entry["gradcam"]
    maps = found.maps["gradcam"][:5, found.mapped.tolist().index([2, 7])]
    assert values(text, most) == pytest.approx(maps.ravel(), abs=0.07 * most)
    assert list(map(len, entry["strip"][1:])) == [3, 2, 3]


def test_where_there_are_too_many_cells_the_best_have_maps(found, monkeypatch, tmp_path):
    monkeypatch.setattr(shards, "MOST_CELLS", 2 * 8 * 6)
    shards.write(found, tmp_path)
    (layer,) = tmp_path.glob("layer-*.js")
    assert layer.name == "layer-1.js" and layer.read_text(encoding="utf-8").count('"on"') == 1


def test_pictures_are_small_and_come_with_the_objects_outline(site, read):
    first = read("core")["pictures"][0]
    assert first["outline"].startswith("M25 25") and first["said"] == "A bear in a forest."
    for end in ("", "-without"):
        with Image.open(site / BROWSER / f"{first['file']}{end}.webp") as picture:
            assert list(picture.size) == first["shape"] == [24, 16]
    assert {f"layer-{layer}.js" for layer, _ in ALL} <= {path.name for path in (site / BROWSER).iterdir()}


def test_everything_is_a_plain_table_too(found):
    tables = [re.sub("</?t[dr][^>]*>", "|", table) for table in plain.tables(found)]
    assert "||bear||1||L1/5||3||1.6||3.3||" in tables[0] and "||-0.5||" in tables[0]
    assert "||L2/8||1||" in tables[1] and "||30%||80%||" in tables[2]
    assert "||third stage: zero, 2||A forest.||0.90 → 0.01" in tables[3] and "noise, σ 5" in tables[3]
    assert plain.in_words(found)["shared"] == "1" and plain.in_words(found)["own"] == "4"


def test_one_concept_alone_has_no_browser():
    with pytest.raises(NotRun, match="doit section:neurons"):
        plain.made(None, "bear")


def test_neurons_in_tables_lead_to_their_cards(tmp_path):
    (tmp_path / "concepts").mkdir()
    cell = "<table><tr><td>L9/200, L2/90</td><td><a href='x'>L1/1</a></td></tr></table><pre>L3/3</pre>"
    (tmp_path / "concepts" / "bear.html").write_text(cell)
    link(tmp_path)  # there is no browser's page to lead to
    assert (tmp_path / "concepts" / "bear.html").read_text() == cell
    (tmp_path / "neurons.html").write_text(cell)
    link(tmp_path)
    text = (tmp_path / "concepts" / "bear.html").read_text()
    both = [f'<a href="../neurons.html#n={at}">L{at.replace(".", "/")}</a>' for at in ("9.200", "2.90")]
    assert text.startswith(f"<table><tr><td>{', '.join(both)}</td>")
    assert "<a href='x'>L1/1</a>" in text and "<pre>L3/3</pre>" in text
    assert (tmp_path / "neurons.html").read_text() == cell
