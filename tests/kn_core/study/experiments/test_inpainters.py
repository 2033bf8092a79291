"""Inpainters held against the truth of a toy world, and what is made of the numbers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from book.data_filtering.inpainters import gap, in_table, in_words, named, side_by_side, summary
from kn_core import drawing
from kn_core.method.two_stages import reduce_positions
from kn_core.pictures import inpaint
from kn_core.study.experiments import inpainters
from kn_core.study.experiments.inpainters import EXACT, OTHER, psnr
from kn_core.study.study import Study
from tests.kn_core.study.test_study import changed, inhabit

TELEA, STOKES, BARE, FLAT, DIFFUSION = ("telea", 1), ("navier-stokes", 1), ("telea", 0), ("flat", 1), ("diffusion", 1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Borders that leave something of pictures of 16 x 16 pixels."""
    monkeypatch.setattr(inpainters, "DILATION", 1)
    monkeypatch.setattr(inpainters, "OPENCV", (TELEA, STOKES, BARE))
    monkeypatch.setattr(inpainters, "FLAT", FLAT)
    monkeypatch.setattr(inpainters, "DIFFUSION", DIFFUSION)


@pytest.fixture
def study(monkeypatch, tmp_path, taught_model, toy_profile) -> Study:
    inhabit(monkeypatch, tmp_path)
    monkeypatch.setattr(inpainters, "why_not", lambda settings: "there is no pipeline")
    return Study(toy_profile, tmp_path / "results", taught_model)


# Measures


def test_psnr_looks_where_the_object_was_and_no_closer_than_levels_are_rounded():
    truth = np.full((4, 4, 3), 100, np.uint8)
    where = np.zeros((4, 4), bool)
    where[0, :2] = True
    picture = truth.copy()
    picture[0, 0] = 110  # half of the pixels by 10: mean squared error 50
    picture[3] = 255  # elsewhere
    assert psnr(picture, truth, where) == pytest.approx(10 * np.log10(255**2 / 50))
    assert psnr(truth, truth, where) == pytest.approx(10 * np.log10(255**2 * 12))


def test_agreement_counts_ranks_and_the_strongest():
    truth = np.array([[4.0, 3, 2], [1, 0, -1]])
    assert inpainters.alike(truth, truth, 2) == {"rho": 1, "shared": 1}
    turned = inpainters.alike(-truth, truth, 3)
    assert turned == {"rho": pytest.approx(-1), "shared": 0}
    assert inpainters.alike(np.array([[9.0, 8, 2], [1, 0, 8.5]]), truth, 3)["shared"] == pytest.approx(2 / 3)


# A study of the toy world


def test_every_way_is_held_against_the_exact_one_on_pictures_that_chose_no_neurons_first(study):
    found = inpainters.judged(study, ["bear", "bus"])
    bear = found[found["concept"] == "bear"]
    ids = study.pairs("bear").query("role == 'held_out'")["image_id"].tolist()
    ids = [*ids, *study.pairs("bear").query("role == 'select'")["image_id"]][: inpainters.PICTURES]
    every = [EXACT, TELEA, STOKES, BARE, FLAT]
    ways = list(zip(bear["inpainter"], bear["dilation"], strict=True))
    assert bear["image_id"].tolist() == [each for each in ids for _ in every] + ids
    assert ways == every * inpainters.PICTURES + [OTHER] * inpainters.PICTURES
    exact = bear[bear["inpainter"] == "exact"]
    assert exact[["lost", "rho", "shared"]].eq(1).all(axis=None) and exact["psnr"].isna().all()
    pairs = study.pairs("bear").set_index("image_id")
    assert exact["caption"].tolist() == pairs.loc[ids, "caption_inpainted"].tolist()
    painted = bear[~bear["inpainter"].isin(["exact", "other"])]
    assert painted["psnr"].between(15, 58.9).all()  # plain backgrounds of up to 20 levels of noise
    by = painted.groupby(["inpainter", "dilation"])["rho"].mean()
    assert by[TELEA] > 0.9 and by[FLAT] > 0.9  # on plain gray nearly nothing is left to guess


def test_the_numbers_are_those_of_the_activations_that_stage_1_reads(study):
    found = inpainters.judged(study, ["pizza"])
    image_id = found["image_id"].iloc[0]
    sample = study.sample("pizza", image_id)
    telea = inpainters.taken_out(study, [sample], TELEA)[0]
    pair = study.capture("pizza", image_id)  # the profile's own way is the exact one
    without = study.model.caption([telea], 12)
    _, (original, painted) = inpainters._watched(study, [sample.image, telea])
    assert np.allclose(original, pair.original, atol=1e-5)
    truth, delta = (reduce_positions(each, "any").numpy() for each in (pair.delta, original - painted))
    row = found[(found["image_id"] == image_id) & (found["inpainter"] == "telea") & (found["dilation"] == 1)].iloc[0]
    assert row["caption"] == without[0] and row["lost"] == float("pizza" not in without[0])
    assert row["rho"] == pytest.approx(spearmanr(delta.ravel(), truth.ravel()).statistic, abs=1e-4)
    assert row["psnr"] == psnr(telea, sample.without, sample.mask)
    best = [set(np.argsort(-each.ravel(), kind="stable")[:8].tolist()) for each in (delta, truth)]
    assert row["shared"] == len(best[0] & best[1]) / 8


def test_other_pictures_are_compared_where_nothing_is_guessed(study):
    found = inpainters.judged(study, ["bear"])
    ids = found["image_id"].unique()
    truths = [reduce_positions(study.capture("bear", each).delta, "any").numpy() for each in ids]
    expected = np.mean([spearmanr(truths[0].ravel(), other.ravel()).statistic for other in truths[1:]])
    other = found[found["inpainter"] == "other"]
    assert other["rho"].iloc[0] == pytest.approx(expected, abs=1e-3)
    assert other[["psnr", "lost"]].isna().all(axis=None)


def test_it_is_computed_once_and_a_pipeline_that_comes_changes_no_other_row(study, monkeypatch):
    found = inpainters.judged(study, ["bear"])
    model, study.__dict__["model"] = study.model, None  # whoever asks it anything fails
    pd.testing.assert_frame_equal(inpainters.judged(study, ["bear"]), found, check_dtype=False)
    assert inpainters.not_run(study) == "there is no pipeline"

    monkeypatch.setattr(inpainters, "why_not", lambda settings: "")
    monkeypatch.setattr(inpainters, "identity", lambda settings: "a pipeline")
    whole, asked = inpaint.inpaint_all, []

    def paint(samples, method, dilation, settings):
        asked.append(method)
        return whole(samples, "telea" if method == "diffusion" else method, dilation, settings)

    monkeypatch.setattr(inpainters, "inpaint_all", paint)
    study.__dict__["model"] = model
    more = inpainters.judged(study, ["bear"])
    assert asked == ["exact", "diffusion"]
    pd.testing.assert_frame_equal(more.iloc[: len(found)], found, check_dtype=False)
    rest = more.iloc[len(found) :]
    assert rest["inpainter"].tolist() == ["diffusion"] * inpainters.PICTURES
    telea = found[(found["inpainter"] == "telea") & (found["dilation"] == 1)]
    columns = ["image_id", "psnr", "caption", "lost"]
    assert rest[columns].to_numpy().tolist() == telea[columns].to_numpy().tolist()
    assert rest["rho"].tolist() == pytest.approx(telea["rho"].tolist(), abs=1e-3)


def test_where_there_is_no_truth_the_profiles_own_inpainter_is_the_reference(toy_profile, tmp_path):
    how = {"method": "telea", "dilation": 3}
    photographs = Study(changed(toy_profile, data={"source": "coco"}, inpainting=how), tmp_path)
    assert inpainters.reference(photographs) == ("telea", 3)
    assert inpainters.ways(photographs) == [("telea", 3), TELEA, STOKES, BARE, FLAT]
    painted = changed(toy_profile, data={"source": "coco"}, inpainting={"method": "diffusion", "dilation": 3})
    assert inpainters.reference(Study(painted, tmp_path)) == ("diffusion", 3)
    assert inpainters.not_run(Study(painted, tmp_path)) == ""
    drawn = Study(changed(toy_profile, inpainting=how), tmp_path)
    assert inpainters.ways(drawn)[:2] == [EXACT, ("telea", 3)]


def test_a_picture_that_a_hole_would_cover_is_left_out(study, monkeypatch):
    ids = inpainters._pictures(study, "bear")
    assert len(ids) == inpainters.PICTURES
    covered = study.sample("bear", ids[0]).mask
    whole = inpaint.dilated
    monkeypatch.setattr(inpainters, "dilated", lambda mask, n: mask | True if mask is covered else whole(mask, n))
    assert inpainters._pictures(study, "bear") == ids[1:]
    assert inpainters.judged(study, ["bear"])["image_id"].unique().tolist() == ids[1:]


# What is made of them


def rows(**rho: list[float]) -> pd.DataFrame:
    """Two pictures of each of two concepts: their rho by way."""
    ways = {"exact": EXACT, "telea": TELEA, "stokes": STOKES, "bare": BARE, "flat": FLAT, "other": OTHER}
    ways["diffusion"] = DIFFUSION
    found = [
        (
            concept,
            f"{concept}-{i}",
            *ways[way],
            np.nan if way == "exact" else 20.0,
            "A bear.",
            i,
            values[2 * c + i],
            0.5,
        )
        for c, concept in enumerate(("bear", "bus"))
        for i in range(2)
        for way, values in rho.items()
    ]
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
    ways = ["rendered again", "Telea, 1 px", "Navier-Stokes, 1 px", "Telea, 0 px", "one flat colour, 1 px"]
    assert table["taken out by"].tolist() == [*ways, "(another picture)", "diffusion, 1 px"]
    assert table.iloc[-1].tolist()[1:] == ["not run"] * 4
    assert table.iloc[0].tolist()[1:] == ["50% [0%,\u00a0100%]", "1.00 [1.00,\u00a01.00]", "50% [50%,\u00a050%]", "–"]
    assert "diffusion, 1 px" not in in_table(frame, "")["taken out by"].tolist()
    with_it = in_table(rows(**FOUND, diffusion=[0.9] * 4), "")
    assert with_it["correlation of ΔO"].iloc[-2] == "0.90 [0.90,\u00a00.90]"  # before what is no inpainter


def test_words_follow_the_intervals():
    words = in_words(rows(**FOUND), EXACT, "there is no pipeline")
    assert words["pictures"] == "4" and words["reference"] == "rendered again" and words["other"] == "0.50"
    assert "correlate with the exact ones by 0.80" in words["painters"]
    assert words["painters"].endswith("Telea comes closer (+0.100 [+0.100,\u00a0+0.100]).")
    assert words["border"].startswith("Whether the hole has a border of 1 pixels or none makes no difference")
    assert words["flat"].startswith("One flat colour over the hole comes closer than Telea")
    assert words["diffusion"].startswith("Diffusion was not run: there is no pipeline. Once that is mended, ")
    turned = FOUND | {"stokes": FOUND["flat"], "flat": FOUND["stokes"], "bare": FOUND["stokes"]}
    words = in_words(rows(**turned, diffusion=[0.9] * 4), EXACT, "")
    assert "Navier-Stokes comes closer (-0.0" in words["painters"]
    assert words["border"].startswith("A border of 1 pixels around the mask brings Telea closer than none")
    assert words["flat"].startswith("Telea comes closer than one flat colour")
    assert words["diffusion"].startswith("Under diffusion they correlate by 0.90, and 50% of the strongest")


def test_without_pictures_there_are_the_same_words_and_no_findings():
    words = in_words(rows(), EXACT, "there is no pipeline")
    assert words.keys() == in_words(rows(**FOUND), EXACT, "").keys()
    assert (words["pictures"], words["other"], words["painters"]) == ("0", "–", "")


def test_without_a_truth_the_words_say_so_and_judge_nothing():
    words = in_words(rows(**FOUND), TELEA, "there is no pipeline")
    assert words.keys() == in_words(rows(**FOUND), EXACT, "").keys()
    assert "there is no truth to hold an inpainter against" in words["truth"] and "(Telea, 1 px)" in words["truth"]
    assert [words[name] for name in ("painters", "border", "flat")] == [""] * 3
    assert "no truth" not in in_words(rows(**FOUND), EXACT, "")["truth"]


def test_the_figure_shows_every_way_with_what_the_model_says(study):
    found = inpainters.judged(study, ["bear"])
    sample, caption, without = inpainters.example(study, found)
    assert caption == study.pairs("bear").set_index("image_id").loc[sample.image_id, "caption"]
    assert list(without) == [EXACT, TELEA, STOKES, BARE, FLAT]
    assert (without[EXACT][0] == sample.without).all()
    hole = inpaint.dilated(sample.mask, 1)
    assert len(np.unique(without[FLAT][0][hole], axis=0)) == 1 and (without[FLAT][0] == sample.image)[~hole].all()
    with drawing.theme():
        figure = side_by_side(sample, caption, without)
    drawn = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in drawn] == ["the picture", *map(named, without)]
    assert [ax.get_xlabel().replace("\n", " ") for ax in drawn][1:] == [f"“{said}”" for _, said in without.values()]
    plt.close(figure)


def test_a_way_of_every_kind_has_a_name():
    assert {way[0] for way in (EXACT, OTHER, *inpainters.OPENCV, FLAT, DIFFUSION)} == inpainters.NAMES.keys()
