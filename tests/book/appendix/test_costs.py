"""Hours, memory and disk by hand for models of a few hundred weights, and the page's tables."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from book.appendix import costs, workload
from book.appendix.costs import CARD, LAPTOP, MACHINES
from book.appendix.roofline import Load, Machine
from book.appendix.workload import CAPTIONERS, caption, size
from kn_core.study.study import Study
from tests.book.appendix.test_workload import PAIRS, SMALL
from tests.kn_core.study.test_study import inhabit

TOY = Machine("toy", operations=100, bandwidth=10, memory=1e9, width=2)


def test_seconds_are_of_each_pass_by_itself():
    # 1000 operations take 10 s, 1 number 0.2 s; 100 operations 1 s, 50 numbers 10 s: nothing overlaps between passes.
    assert costs.seconds([(2, Load(1000, 1)), (0.5, Load(100, 50))], TOY) == 2 * 10 + 0.5 * 10


def test_efficiency_is_the_least_time_over_the_measured_one(tmp_path):
    rows = [("m", "identify", "seconds a pair", 0.9), ("m", "identify", "seconds a pair", 0.5)]
    rows += [("m", "caption", "captions a second batched", 4.0), ("m", "caption", "ratio", 3.0)]
    frame = pd.DataFrame(rows, columns=["machine", "benchmark", "figure", "value"])
    frame.to_csv(tmp_path / "results.csv", index=False)
    measured = costs.rates(tmp_path / "results.csv")
    assert measured == {"identification": 0.5, "caption": 0.25}  # what was measured last
    reached = costs.efficiencies(measured)
    assert reached["caption"] == costs.seconds(caption(CAPTIONERS["embedded"]), LAPTOP) / 0.25
    assert costs.span({"a": 0.6, "b": 0.75}) == (0.6 / 3, 0.75)
    assert costs.span({"a": 0.6, "b": 0.75}, LAPTOP) == (0.6, 0.75)


def test_no_more_than_the_peak_was_reached():
    assert all(0.05 < share < 1 for share in costs.efficiencies(costs.rates()).values())


def test_cards_take_a_concept_each(toy_profile):
    found = size(toy_profile, PAIRS, concepts=9, images=10)
    one = costs.hours(SMALL, found, TOY, 0.5)
    four = costs.hours(SMALL, found, replace(TOY, cards=4), 0.5)
    assert one["scores"] == pytest.approx(9 * costs.seconds(workload.stages(SMALL, found)["scores"], TOY) / 0.5 / 3600)
    assert four == pytest.approx({stage: value * 3 / 9 for stage, value in one.items()})  # three concepts in turn


@pytest.mark.parametrize(
    ("hours", "words"),
    [(0.001, "4 s"), (0.5, "30 min"), (1.25, "1.2 h"), (30, "30 h"), (120, "5 days"), (24 * 1234, "1,234 days")],
)
def test_hours_in_words(hours, words):
    assert costs.in_words(hours) == words


def test_two_durations_in_words():
    assert costs.between(2, 3) == "2 to 3 h"
    assert costs.between(0.5, 3) == "30 min to 3 h"
    assert costs.between(3, 3.001) == "3 h"


def test_what_a_backward_pass_keeps_is_what_autograd_saves():
    """Bytes of tensors that autograd saves a layer and token in half precision, but for the weights themselves."""

    def saved(hidden, ffn, layers, tokens=10):
        config = LlamaConfig(
            vocab_size=20,
            hidden_size=hidden,
            intermediate_size=ffn,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 16,
        )
        model = LlamaForCausalLM(config).requires_grad_(False).bfloat16()
        weights, found = {each.data_ptr() for each in model.parameters()}, {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                found[storage.data_ptr()] = storage.nbytes(), tensor
            return tensor

        embeds = torch.randn(1, tokens, hidden).bfloat16().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model(inputs_embeds=embeds, use_cache=False).logits
        assert logits.requires_grad
        return sum(size for size, _ in found.values()) / 2 / tokens

    def of_layer(hidden, ffn):
        return saved(hidden, ffn, 3) - saved(hidden, ffn, 2)

    in_hidden = (of_layer(128, 96) - of_layer(64, 96)) / 64
    in_ffn = (of_layer(64, 192) - of_layer(64, 96)) / 96
    assert in_ffn == costs.KEPT[1]
    assert costs.KEPT[0] - 2 < in_hidden <= costs.KEPT[0]


def test_memory_by_hand():
    # A token leaves 2 layers x (key and value) x 4 numbers; bytes are two a number.
    assert costs.memory(SMALL, TOY) == {
        "weights": 2 * SMALL.weights,
        "captions: keys and values of a batch": 2 * (7 + 4) * 16 * 2,
        "identification: one backward pass": (7 + 4) * 2 * (9 * 4 + 6 * 6) * 2,
        "Dai et al.: a layer's caches": 22 * 7 * 16 * 2,
        "neurons' tokens: the unembedding in float32": 4 * 40,
    }
    assert costs.needs(SMALL, TOY) == 2 * SMALL.weights + 22 * 7 * 16 * 2


def test_disk_by_hand(toy_profile):
    found = size(toy_profile, PAIRS, concepts=4, images=10)
    assert costs.disk(SMALL, found) == 4 * 4 * (7 * 6 + 1) * 2 * 6


def test_scores_take_the_disk_that_is_said(monkeypatch, tmp_path, taught_model, toy_profile):
    inhabit(monkeypatch, tmp_path)
    study = Study(toy_profile, tmp_path / "results", taught_model)
    study.scores("bear")
    arrays = study.scores("bear")
    assert len(arrays) - 1 == costs.ARRAYS
    assert {array.dtype.itemsize for array in arrays.values()} == {4}


def test_the_papers_model_fits_one_card_in_half_precision_and_no_laptop():
    model = CAPTIONERS["minigpt4-llama2"]
    assert 15e9 < costs.needs(model, CARD) < 20e9 < CARD.memory
    assert costs.needs(model, LAPTOP) > 30e9 > LAPTOP.memory


def test_tables_for_readers(monkeypatch, tmp_path, taught_model, toy_profile):
    inhabit(monkeypatch, tmp_path)
    study = Study(toy_profile, tmp_path / "results", taught_model)
    whole = size(toy_profile, study.pairs(), concepts=80, images=50)
    measured = costs.rates()
    reached = costs.efficiencies(measured)

    by_machine = costs.by_machine(whole, reached).set_index("model")
    assert by_machine.columns.tolist() == [machine.name for machine in MACHINES]
    assert by_machine.loc["minigpt4-llama2", LAPTOP.name].endswith("GB of memory")
    assert "GB" not in by_machine.loc["embedded", LAPTOP.name]
    by_stage = costs.by_stage(CAPTIONERS["minigpt4-llama2"], whole, CARD, reached)
    assert by_stage["stage"].tolist() == [
        "inpainting",
        "filtering",
        "scores",
        "scores of Dai et al.",
        "perturbation",
    ]
    assert "inpainting" not in costs.by_stage(CAPTIONERS["embedded"], whole, CARD, reached)["stage"].tolist()

    study.perturbations()
    found = costs.measured(study, whole).set_index("stage")
    kept = study.store.describe().set_index("artefact")["seconds"]
    scores = kept[[f"scores-{concept}.safetensors" for concept in toy_profile.concepts]].sum()
    assert found.loc["scores: pairs", "made"] == 9
    assert found.loc["scores: pairs", "seconds"] == pytest.approx(scores)
    there = 80 * whole.select * scores / 9 / 3600
    assert found.loc["scores: pairs", "there"] == costs.in_words(there)
    assert found.loc["perturbation: answers", "made"] == len(study.perturbations())

    words = costs.for_sentences(whole, measured, reached)
    assert (words["select"], words["held_out"]) == ("30", "20")
    assert float(words["need-minigpt4"]) < 24
    assert costs.room("minigpt4-llama2")["minigpt4-llama2"].iloc[-1] == pytest.approx(
        float(words["need-minigpt4"]), abs=0.05
    )
    assert len(costs.machines()) == 3
    assert costs.files().set_index("file")["GB"].between(0.1, 20).all()
