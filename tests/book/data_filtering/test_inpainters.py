"""What the page says of inpainters: means and gaps, words that follow the intervals, a picture in every way."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from book.data_filtering.inpainters import NAMES, example, gap, in_table, in_words, summary
from kn_core.study.experiments import inpainters
from kn_core.study.experiments.inpainters import DIFFUSION, EXACT, FLAT, OTHER
from tests.toy_world import toy_samples

TELEA, STOKES, BARE = inpainters.OPENCV[:3]


def rows(**rho: list[float]) -> pd.DataFrame:
    """Two pictures of each of two concepts: their rho by way."""
    ways = {"exact": EXACT, "telea": TELEA, "stokes": STOKES, "bare": BARE, "flat": FLAT, "other": OTHER}
    ways["diffusion"] = DIFFUSION
    found = []
    for place in range(4):
        concept, lost = ("bear", "bus")[place // 2], place % 2
        for way, values in rho.items():
            psnr = np.nan if way == "exact" else 20.0
            found.append((concept, f"{concept}-{lost}", *ways[way], psnr, "A bear.", lost, values[place], 0.5))
    return pd.DataFrame(found, columns=inpainters.COLUMNS)


FOUND = {
    "exact": [1.0] * 4,
    "telea": [0.9, 0.8, 0.7, 0.8],
    "stokes": [0.8, 0.7, 0.6, 0.7],
    "bare": [0.9, 0.8, 0.7, 0.8],
    "other": [0.4, 0.4, 0.6, 0.6],
    "flat": [0.95, 0.9, 0.8, 0.9],
}


def test_means_are_over_concepts_and_gaps_over_the_same_pictures():
    frame = rows(**FOUND)
    lone = frame.drop(index=frame.index[(frame["inpainter"] == "navier-stokes") & (frame["image_id"] == "bear-1")])
    found = summary(lone).set_index(["inpainter", "dilation", "measure"])
    assert found.loc[(*TELEA, "rho"), "value"] == pytest.approx(0.8)
    assert found.loc[(*STOKES, "rho"), "value"] == pytest.approx((0.8 + 0.65) / 2)
    assert found.loc[(*STOKES, "rho"), "n"] == 3 and found.loc[(*TELEA, "lost"), "value"] == 0.5
    assert np.isnan(found.loc[(*EXACT, "psnr"), "value"]) and found.loc[(*EXACT, "psnr"), "n"] == 0
    measured = gap(lone, TELEA, STOKES)
    assert measured.n == 3 and measured.value == pytest.approx(0.1)
    assert measured.low == pytest.approx(0.1) == measured.high


def test_the_table_says_what_was_not_run():
    frame = rows(**FOUND)
    table = in_table(frame, "there is no pipeline")
    ways = ["rendered again", "Telea, 8 px", "Navier-Stokes, 8 px", "Telea, 0 px", "one flat colour, 8 px"]
    assert table["taken out by"].tolist() == [*ways, "(another picture)", "diffusion, 8 px"]
    assert table.iloc[-1].tolist()[1:] == ["not run"] * 4
    assert table.iloc[0].tolist()[1:] == ["50% [50%,\u00a050%]", "1.00 [1.00,\u00a01.00]", "50% [50%,\u00a050%]", "–"]
    assert "diffusion, 8 px" not in in_table(frame, "")["taken out by"].tolist()
    with_it = in_table(rows(**FOUND, diffusion=[0.9] * 4), "")
    assert with_it["correlation of ΔO"].iloc[-2] == "0.90 [0.90,\u00a00.90]"  # before what is no inpainter


def test_words_follow_the_intervals():
    words = in_words(rows(**FOUND), EXACT, "there is no pipeline")
    assert words["pictures"] == "4" and words["reference"] == "rendered again" and words["other"] == "0.50"
    assert "correlate with the exact ones by 0.80" in words["painters"]
    assert words["painters"].endswith("Telea comes closer (+0.100 [+0.100,\u00a0+0.100]).")
    assert words["border"].startswith("These pictures do not tell a border of 8 pixels around the mask from none (")
    assert words["flat"].startswith("That Telea comes closer than one flat colour over the hole is not shown")
    assert words["diffusion"] == "Diffusion was not run: there is no pipeline."
    turned = FOUND | {"stokes": FOUND["flat"], "flat": FOUND["stokes"], "bare": FOUND["stokes"]}
    words = in_words(rows(**turned, diffusion=[0.9] * 4), EXACT, "")
    assert "These pictures do not tell the two apart (-0.0" in words["painters"]
    assert words["border"].startswith("A border of 8 pixels around the mask brings Telea closer than none")
    assert words["flat"].startswith("Telea comes closer than one flat colour")
    assert words["diffusion"].startswith("Under diffusion they correlate by 0.90, and 50% of the strongest")


def test_without_pictures_there_are_the_same_words_and_no_findings():
    words = in_words(rows(), EXACT, "there is no pipeline")
    assert words.keys() == in_words(rows(**FOUND), EXACT, "").keys()
    assert (words["pictures"], words["other"], words["painters"]) == ("0", "–", "")


def test_without_a_truth_the_words_say_so_and_judge_nothing():
    words = in_words(rows(**FOUND), TELEA, "there is no pipeline")
    assert words.keys() == in_words(rows(**FOUND), EXACT, "").keys()
    assert "there is no truth to hold an inpainter against" in words["truth"] and "(Telea, 8 px)" in words["truth"]
    assert [words[name] for name in ("painters", "border", "flat")] == [""] * 3
    assert "no truth" not in in_words(rows(**FOUND), EXACT, "")["truth"]


def test_a_way_of_every_kind_has_a_name():
    assert {way[0] for way in (EXACT, OTHER, *inpainters.OPENCV, FLAT, DIFFUSION)} == NAMES.keys()


def test_the_example_is_the_first_picture_in_every_way_with_what_the_model_says(monkeypatch):
    sample, without = next(toy_samples("bear", 1, seed=0)), np.zeros((16, 16, 3), np.uint8)
    monkeypatch.setattr("book.data_filtering.inpainters.taken_out", lambda study, samples, way: [without])
    pairs = pd.DataFrame({"image_id": ["bear-0", "bear-1"], "caption": ["A bear on gray.", "Another."]})
    study = SimpleNamespace(sample=lambda concept, image_id: sample, pairs=lambda concept: pairs)
    panels, mask = example(study, rows(**FOUND))
    headings = ["the picture", "rendered again", "Telea, 8 px", "Navier-Stokes, 8 px", "Telea, 0 px"]
    assert [heading for heading, _, _ in panels] == [*headings, "one flat colour, 8 px"]
    assert [said for _, _, said in panels] == ["A bear on gray.", *["A bear."] * 5]
    assert panels[0][1] is sample.image and panels[1][1] is without and mask is sample.mask
