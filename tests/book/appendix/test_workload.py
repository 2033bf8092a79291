"""How often a study does what, by hand for a protocol of few trials, and against a study that ran."""

from __future__ import annotations

import pandas as pd
import pytest

from book.appendix.roofline import Convolutions, Decoder, Load
from book.appendix.workload import (
    CAPTIONERS,
    Captioner,
    answer,
    caption,
    identification,
    integrated_gradients,
    size,
    stages,
)
from kn_core.study.study import Study
from tests.kn_core.study.test_study import changed, inhabit

PAIRS = pd.DataFrame(
    {
        "kept": [True, True, False, False, False],
        "caption": ["a", "b", "c", "d", ""],  # the last one failed a filter that needs no caption
        "caption_inpainted": ["a", "b", "c", "", ""],
    }
)
SMALL = Captioner(
    tower=Convolutions(operations=1000, weights=10, layers=3),
    projection=30,
    decoder=Decoder(layers=2, hidden=4, ffn=6, heads=2, kv_heads=2, vocabulary=10),
    image_tokens=5,
    text_tokens=2,
    written=4,
    batch=2,
    diffusion=False,
)


def test_a_small_study_by_hand(toy_profile):
    few = {"seeds": 1, "rivals": [], "controls": ["random"], "draws": 1, "choosing": 0, "sweep_n": []}
    few |= {"sweep_sigma": [], "sweep_interventions": ["patch"], "sweep_positions": []}
    found = size(changed(toy_profile, perturbation=few), PAIRS, concepts=4, images=10)
    assert (found.select, found.held_out, found.dai, found.others) == (6, 4, 0, 3)
    assert (found.captions, found.inpainted) == (10 * 7 / 2, 10 * 3 / 2)
    # Both sets, main setting: the four held out and three of other concepts; 'patch': the four.
    assert (found.answers, found.patched) == (2 * 7 + 2 * 4, 2 * 4)


def test_as_many_answers_as_a_study_gives(monkeypatch, tmp_path, taught_model, toy_profile):
    inhabit(monkeypatch, tmp_path)
    study = Study(toy_profile, tmp_path / "results", taught_model)
    found = size(toy_profile, study.pairs(), concepts=3, images=5)
    assert (found.select, found.held_out, found.dai) == (3, 2, 1)
    assert len(study.perturbations()) == 3 * found.answers
    assert (study.perturbations()["intervention"] == "patch").sum() == 3 * found.patched


def test_passes_by_hand():
    decoder = SMALL.decoder
    look = Load(2 * 1000 + 2 * 2 * 5 * 30, 10 + 30, layers=3)
    assert SMALL.prompt == 7
    assert SMALL.weights == 10 + 30 + decoder.weights
    # Two pictures at a time; three tokens come after the first one, behind 7 to 9 others.
    assert caption(SMALL) == [
        (0.5, look),
        (0.5, decoder.forward(7, read=1, rows=2)),
        (1.5, decoder.forward(1, read=1, past=8.5, rows=2)),
    ]
    assert answer(SMALL)[2:] == [
        (0.5, decoder.forward(3, read=4, past=7, rows=2)),
        (0.5, decoder.forward(5, read=4, rows=2)),
    ]
    assert identification(SMALL) == [
        (1, look),
        (1, decoder.forward(7, read=1)),
        (1, decoder.forward(10, read=4)),
        (1, decoder.backward(10, read=4)),
    ]
    # Dai et al.: each layer's twenty rows go through both layers, and back to that one.
    *_, forward, lower, upper = integrated_gradients(SMALL)
    assert forward == (2, decoder.forward(1, read=1, past=7, rows=20))
    assert lower == (1, decoder.backward(1, read=1, past=7, rows=20, lowest=0))
    assert upper == (1, decoder.backward(1, read=1, past=7, rows=20, lowest=1))


def test_stages_are_passes_times_their_number(toy_profile):
    found = size(toy_profile, PAIRS, concepts=4, images=10)
    by = stages(SMALL, found)
    assert by["inpainting"] == []
    assert sum(times for times, _ in by["filtering"]) == pytest.approx(35 * 2.5)
    assert by["scores"][0][0] == found.select
    assert by["scores of Dai et al."][0][0] == 1
    answered = 1 + 4 + 3  # one chooses a dose, four are held out, three of other concepts
    assert by["perturbation"][0][0] == 2 * answered / 2  # both pictures of each, two at a time
    assert by["perturbation"][-1][0] == found.patched / 2
    assert by["perturbation"][1][0] == (found.answers + answered) / 2  # and each picture once, undisturbed


def test_shapes_of_the_profiles_that_there_are():
    # The decoders by their published sizes: SmolLM2-135M, Llama-2-7B (6.74e9), and LLaVA's with 64 more tokens.
    assert CAPTIONERS["embedded"].decoder.weights == 134_515_008
    assert CAPTIONERS["minigpt4-llama2"].decoder.weights == 6_738_415_616
    assert CAPTIONERS["llava-1.5-7b"].decoder.weights == 6_738_415_616 + 2 * 64 * 4096
    assert CAPTIONERS["minigpt4-llama2"].projection == 5632 * 4096 + 4096
