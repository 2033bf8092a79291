"""The count behind the hours: by hand, against a study that ran, and what the page's tables say."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from book.appendix import costs
from kn_core.models import released
from kn_core.profile import load_profile
from kn_core.study.study import Study
from tests.kn_core.study.test_study import changed, inhabit

PAGE = Path(costs.__file__).with_name("paper-setting.md")


def test_a_protocol_by_hand(toy_profile):
    few = {"seeds": 1, "rivals": [], "controls": ["random"], "draws": 1, "sweep_pictures": 2, "choosing": 1}
    few |= {"sweep_n": [], "sweep_sigma": [], "sweep_interventions": ["patch"], "sweep_positions": []}
    # Four held out, three of other concepts and one that chooses: without an intervention, and under noise (random sets
    # not on other concepts' pictures); two sets under 'patch' and directions on two; the removal of four objects.
    found = costs.answers(changed(toy_profile, perturbation=few), select=6, held_out=4, concepts=4)
    assert found == 8 + 8 + 5 + 2 * 2 + 2 + 4


def test_as_many_units_as_a_study_has(monkeypatch, tmp_path, taught_model, toy_profile):
    inhabit(monkeypatch, tmp_path)
    study = Study(toy_profile, tmp_path / "results", taught_model)
    tried, pairs, arrays = study.perturbations(), study.pairs(), study.scores("bear")
    counted = costs.counts(toy_profile, pairs, concepts=3, images=5)
    assert counted["perturbations"] == len(tried) + tried.groupby("concept")["image_id"].nunique().sum()
    assert (counted["scores"], counted["dai"]) == (3 * 3, 3 * 1)
    captioned = (pairs[["caption", "caption_inpainted"]] != "").sum() * 15 / pairs["kept"].sum()
    assert counted["pairs"] == pytest.approx(captioned.sum())
    assert counted["inpainting"] == pytest.approx(captioned["caption_inpainted"])
    assert {array.dtype.itemsize for array in arrays.values()} == {4}  # what `for_sentences` says of the disk
    assert len(arrays) - 1 == costs.ARRAYS


ROWS = [
    "seconds a caption, batch 8,9",
    "seconds a caption, batch 8,0.5",
    "seconds a perturbed caption,1",
]  # the last counts


def test_hours_are_units_times_what_was_measured(monkeypatch, tmp_path, toy_profile):
    results = tmp_path / "results.csv"
    monkeypatch.setattr(costs, "RESULTS", results)
    monkeypatch.setattr(costs, "counts", lambda *_: dict.fromkeys(["inpainting", *costs.UNITS], 7200))
    head, size = "machine,benchmark,figure,value\nhere,identify,over three bare forwards,1\n", "80 × 50"
    results.write_text(head)
    found = costs.hours(toy_profile, pd.DataFrame())
    assert (
        set(found[f"hours of {size}"])
        == {costs.for_sentences(toy_profile, pd.DataFrame())["ratio"]}
        == {"not measured"}
    )

    def rows(*lines: str) -> str:
        return head + "".join(
            f'a card,accelerator,"{figure}",{value}\n' for figure, value in (x.rsplit(",", 1) for x in lines)
        )

    results.write_text(rows(*ROWS))
    found = costs.hours(toy_profile, pd.DataFrame()).set_index("stage")[f"a card: {size}"]
    assert found["pairs"] == "60 min"
    assert found["perturbations"] == "2 h"
    assert {found["inpainting"], found["dai"], found["together, but inpainting"]} == {"not measured"}
    results.write_text(
        rows(*ROWS, *(f"{costs.UNITS[stage]},2" for stage in ("dai", "scores")), "over three bare forwards,1.2")
    )
    found = costs.hours(toy_profile, pd.DataFrame()).set_index("stage")
    assert found.loc["together, but inpainting", f"a card: {size}"] == "11 h"
    assert found.loc["pairs", size] == 7200
    said = costs.for_sentences(toy_profile, pd.DataFrame())
    assert (said["machines"], said["ratio"], said["captions"]) == (
        "a card",
        "1.2",
        "not measured, not measured, not measured",
    )
    assert [costs.words(each) for each in (0.04, 5400, 49 * 3600, 1e8)] == ["0.04 s", "90 min", "2 days", "1,200 days"]


def test_workers_take_as_long_as_the_one_with_most_concepts(monkeypatch, tmp_path, toy_profile):
    monkeypatch.setattr(costs, "RESULTS", tmp_path / "results.csv")
    monkeypatch.setattr(
        costs, "counts", lambda _, __, concepts, ___: dict.fromkeys(["inpainting", *costs.UNITS], concepts * 900)
    )
    head = "machine,benchmark,figure,value\n"
    (tmp_path / "results.csv").write_text(head)
    spent = pd.DataFrame({"stage": [*costs.UNITS, "curves"], "seconds": [1800.0] * 5})
    pairs = pd.DataFrame({"concept": ["bear", "bus", "bus"], "kept": [True, True, False]})
    own = costs.own_rates(toy_profile, pairs, spent)
    assert own.to_dict() == dict.fromkeys(costs.UNITS, 1.0)
    found = costs.on_workers(toy_profile, pairs, own)  # a concept takes an hour
    assert found["at this run's rates"].tolist() == ["3.3 days", "10 h", "2 h"]
    assert found["concepts one after the other"].tolist() == [80, 10, 2]
    assert set(found["the paper's model, on a card"]) == {"not measured"}
    lines = [f'a card,accelerator,"{figure}",2' for figure in costs.UNITS.values()]
    lines.append('here,workers,"rate of two workers over twice one",0.9')
    (tmp_path / "results.csv").write_text(head + "\n".join(lines))
    assert costs.on_workers(toy_profile, pairs, own)["a card"].tolist() == ["6.7 days", "20 h", "4 h"]
    said = costs.for_sentences(toy_profile, pairs)
    assert (said["cluster-rate"], said["cluster-cost"]) == ("0.90", "not measured")


def test_one_card_holds_the_papers_model_and_llava_without_integrated_gradients():
    found = costs.memory().set_index("model")
    assert 16 < found.loc["minigpt4-llama2", "together"] < 22
    assert found.loc["llava-1.5-7b", ["weights", "a backward pass"]].sum() < 22 < found.loc["llava-1.5-7b", "together"]


def test_the_page_lists_what_the_profile_asks_for():
    page = PAGE.read_text()
    for source in released.sources(load_profile("minigpt4-llama2").parts):
        assert f"`{source.name}`" in page and f"| {source.gigabytes:.1f} |" in page
