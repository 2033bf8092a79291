"""The accelerator's script, on a tiny shape and the processor: all of its figures, one a line, and what is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from book.appendix import costs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import accelerator

    return accelerator


def test_every_figure_on_a_tiny_shape_and_the_page_finds_those_it_states(accelerator, capsys, monkeypatch, tmp_path):
    assert accelerator.main(["--device", "cpu", "--small"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(math.isfinite(line["value"]) and line["value"] >= 0 for line in lines)
    assert {line["limit"] for line in lines if "limit" in line} == {0, 1e-4, 0.15, 0.02}
    figures = [line["figure"] for line in lines]
    assert len(set(figures)) == len(figures)
    assert set(costs.UNITS.values()) <= set(figures)  # what the page reads
    rows = [("", "a card", "accelerator", line["figure"], line["value"]) for line in lines]
    pd.DataFrame(rows, columns=["date", "machine", "benchmark", "figure", "value"]).to_csv(tmp_path / "results.csv")
    monkeypatch.setattr(costs, "RESULTS", tmp_path / "results.csv")
    monkeypatch.setattr(costs, "counts", lambda *_: dict.fromkeys(["inpainting", *costs.UNITS], 10))
    unknown = [word for word, told in costs.for_sentences(None, None).items() if costs.UNKNOWN in told]
    assert unknown == ["cluster-cost", "cluster-rate"]  # which another script measures


def test_a_device_that_computes_something_else_fails_its_check(accelerator, monkeypatch, capsys):
    honest, seen = accelerator.digits, []

    def slightly_off(*arguments):
        numbers, captions = honest(*arguments)
        seen.append(numbers)
        return (numbers | {"logits": numbers["logits"] * (1 + 2e-4)} if len(seen) > 1 else numbers), captions

    monkeypatch.setattr(accelerator, "digits", slightly_off)
    monkeypatch.setattr(accelerator, "LIMITS", {accelerator.torch.float32: 1e-4})
    figures = accelerator.Figures("cpu", None)
    accelerator.compare(figures, "cpu")
    assert not figures.met
    assert [json.loads(line)["met"] for line in capsys.readouterr().out.splitlines()] == [False, True]


def test_a_run_that_takes_too_long_keeps_what_it_has(accelerator, tmp_path, capsys):
    table = tmp_path / "results.csv"
    figures = accelerator.Figures("a card", table, began=accelerator.time.perf_counter() - 500)
    with pytest.raises(SystemExit, match="8 minutes"):
        figures.tell("seconds a pair", 1)
    assert table.read_text().endswith("a card,accelerator,seconds a pair,1.0\n")


def test_a_part_without_memory_is_told_and_costs_no_other_its_figures(accelerator, capsys):
    figures = accelerator.Figures("a card", None)

    def too_large(figures):
        figures.tell("the first", 1)
        raise torch.OutOfMemoryError("of 24 GB")

    figures.attempt(too_large)
    figures.attempt(lambda figures: figures.tell("the second", 2))
    printed = capsys.readouterr()
    assert [json.loads(line)["figure"] for line in printed.out.splitlines()] == ["the first", "the second"]
    assert "of 24 GB" in printed.err
    assert not figures.met


def test_the_papers_model_is_as_large_as_the_papers(accelerator):
    model = accelerator.make(accelerator.paper(), accelerator.torch.float16, "meta")
    assert sum(each.numel() for each in model.parameters()) == pytest.approx(7.75e9, rel=0.01)
    captioner = costs.CAPTIONERS["minigpt4-llama2"]
    assert (model.prompt_length, model.n_layers, model.ffn_width) == (captioner.prompt, captioner.layers, captioner.ffn)
    assert accelerator.paper().written == captioner.written


def test_what_was_measured_is_kept_a_line_at_a_time_and_a_tiny_shape_is_not(accelerator, tmp_path, capsys):
    table = tmp_path / "results.csv"
    table.write_text("date,machine,benchmark,figure,value\n")
    figures = accelerator.Figures("A card, 24 GB", table)
    figures.tell("seconds a pair", 0.123456)
    figures.check("largest error", math.nan, 1e-4)
    kept = pd.read_csv(table)
    assert kept.iloc[0, 1:].tolist() == ["A card, 24 GB", "accelerator", "seconds a pair", 0.123]
    assert not figures.met  # what is no number meets no limit
    with pytest.raises(SystemExit):
        accelerator.main(["--device", "cpu", "--small", "--keep", str(table)])
    assert "wants the paper's shape" in capsys.readouterr().err
    assert len(pd.read_csv(table)) == 2
