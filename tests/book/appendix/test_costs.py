"""The count behind the hours: against torch's own, against a study that ran, and what the page's tables say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from book.appendix import costs
from book.appendix.costs import CAPTIONERS, Captioner
from kn_core.models import released
from kn_core.profile import load_profile
from kn_core.study.study import Study
from tests.kn_core.study.test_study import changed, inhabit

PAGE = Path(costs.__file__).with_name("paper-setting.md")


def test_forward_passes_as_torch_counts_them():
    sizes = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, attn_implementation="eager")
    llama, ids, cache = LlamaForCausalLM(config), torch.zeros(1, 5, dtype=torch.long), DynamicCache(config=config)
    shape = Captioner(0, 0, 3, 8, 12, keys=4, vocabulary=20, prompt=5, text=2, written=3)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        llama(ids, past_key_values=cache, logits_to_keep=2)
        first = counter.get_total_flops()
        llama(ids[:, :1], past_key_values=cache)
    assert first == shape.forward(5, read=2)
    assert counter.get_total_flops() - first == shape.forward(1, past=5)


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


def test_hours_for_readers(monkeypatch, tmp_path):
    rows = ["seconds a pair,9", "seconds a pair,0.5", "captions a second batched,4"]  # the last one counts
    (tmp_path / "results.csv").write_text("\n".join(["figure,value", *rows]))
    monkeypatch.setattr(costs, "RESULTS", tmp_path / "results.csv")
    assert all((best >= worst).all() and worst.min() > 0 for best, worst in costs.rates().values())
    counted = {"inpainting": 0.0, "pairs": 0.0, "scores": 3 * 3600 / 0.5, "dai": 0.0, "perturbations": 0.0}
    found = costs.hours(counted, *CAPTIONERS).set_index(["model", "stage"])
    assert found.columns.tolist() == list(costs.rates())
    assert found.loc["minigpt4-llama2"].index.tolist() == [*counted, "together"]
    assert "inpainting" not in [*found.loc["embedded"].index, *found.loc["llava-1.5-7b"].index]
    assert found.loc[("embedded", "together"), "laptop"] == "3 h to 10 h"  # at worst four times as long, to one digit
    assert [costs.words(each) for each in (0.04, 5400, 49 * 3600, 1e8)] == ["0.04 s", "90 min", "2 days", "1,000 days"]


def test_one_card_holds_the_papers_model_and_llava_without_integrated_gradients():
    found = costs.memory().set_index("model")
    assert 16 < found.loc["minigpt4-llama2", "together"] < 22
    assert found.loc["llava-1.5-7b", ["weights", "a backward pass"]].sum() < 22 < found.loc["llava-1.5-7b", "together"]


def test_the_page_lists_what_the_profile_asks_for():
    page = PAGE.read_text()
    for source in released.sources(load_profile("minigpt4-llama2").parts):
        assert f"`{source.name}`" in page and f"| {source.gigabytes:.1f} |" in page
