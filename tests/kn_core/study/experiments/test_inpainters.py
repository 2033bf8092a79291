"""Inpainters held against the truth of a toy world."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

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


def test_a_flat_hole_has_one_colour_and_the_rest_of_the_picture_stays(study):
    sample = study.sample("bear", study.pairs("bear")["image_id"].iloc[0])
    (flat,), hole = inpainters.taken_out(study, [sample], FLAT), inpaint.dilated(sample.mask, 1)
    assert len(np.unique(flat[hole], axis=0)) == 1 and (flat == sample.image)[~hole].all()
