"""The two tests of the stages: where the other hole goes, what is counted, and what comes out in a toy world."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kn_core.pictures import scenes
from kn_core.pictures.decoys import Removal
from kn_core.pictures.scenes.planted import Planted, likely_companion, planted
from kn_core.study.experiments import companions, other_region
from kn_core.study.experiments.companions import drops
from kn_core.study.experiments.other_region import elsewhere
from kn_core.study.study import Study, StudyError
from tests.kn_core.study.test_study import changed, inhabit
from tests.toy_world import COLOURS


def block(top: int, left: int, height: int, width: int, frame: tuple[int, int] = (16, 16)) -> np.ndarray:
    mask = np.zeros(frame, bool)
    mask[top : top + height, left : left + width] = True
    return mask


# The other region


def test_the_other_hole_is_as_large_apart_and_where_the_picture_stands_out():
    picture = np.full((32, 32, 3), 100, np.uint8)
    picture[20:26, 22:28] = (250, 40, 0)
    hole = block(3, 3, 6, 6, (32, 32))
    assert (elsewhere(hole, picture) == block(20, 22, 6, 6, (32, 32))).all()


def test_what_is_in_the_hole_does_not_say_where_the_other_goes():
    picture = np.full((32, 32, 3), 100, np.uint8)
    picture[20:26, 22:28] = (250, 40, 0)
    hole = block(3, 3, 6, 6, (32, 32))
    painted = np.where(hole[..., None], np.uint8(255), picture)
    assert (elsewhere(hole, picture) == elsewhere(hole, painted)).all()


def test_what_leaves_the_frame_comes_in_on_the_other_side():
    other = elsewhere(
        block(0, 5, 16, 6), np.zeros((16, 16, 3), np.uint8)
    )  # a pillar; on either side there is room for 5
    assert other is not None
    assert not other[:, 5:11].any() and other[:, 0].all() and other[:, 15].all()


@pytest.mark.parametrize("seed", range(5))
def test_holes_of_any_shape_keep_their_area_and_do_not_meet(seed):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (24, 31, 3), dtype=np.uint8)
    hole = block(4, 6, 9, 11, (24, 31)) & (rng.random((24, 31)) < 0.7)
    other = elsewhere(hole, picture)
    assert other is not None
    assert other.shape == hole.shape and other.sum() == hole.sum()
    assert not (other & hole).any()


@pytest.mark.parametrize("hole", [block(0, 0, 16, 9), block(0, 0, 16, 16), block(3, 3, 12, 12)])
def test_a_hole_that_fits_nowhere_else_has_no_other(hole):
    assert elsewhere(hole, np.zeros((16, 16, 3), np.uint8)) is None


# Counting


def test_candidates_are_counted_by_what_they_answer_to():
    # Two layers of six; the last layer's gradient is zero.
    delta = {
        "both": np.array([[2.0, 2, 2, 2, 2, 0], [2, 2, 0, 0, 0, 0]]),
        "concept": np.array([[2.0, 2, 0, 2, 0, 2], [2, 0, 0, 0, 0, 0]]),
        "companion": np.array([[0.0, 0, 2, 2, 1, 2], [0, 2, 0, 0, 0, 0]]),
    }
    gradcam = np.array([[0.5, 0.1, 0.3, 0.4, 0.9, 0.9], [0, 0, 0, 0, 0, 0]])
    counted = drops(delta, gradcam, threshold_a=1, threshold_g=0.2, budget=2)
    assert counted == [
        {"kind": "own", "candidates": 3, "dropped": 2, "last": 1, "best": 1},  # 0.1 and the last layer's are dropped
        {"kind": "companion", "candidates": 2, "dropped": 1, "last": 1, "best": 0},
        {"kind": "shared", "candidates": 1, "dropped": 0, "last": 0, "best": 0},
        {"kind": "neither", "candidates": 1, "dropped": 0, "last": 0, "best": 1},  # at its threshold is not above it
    ]


def test_a_budget_of_more_than_survive_takes_all_and_no_dropped_one():
    delta = dict.fromkeys(("both", "concept", "companion"), np.full((1, 4), 2.0))
    counted = drops(delta, np.array([[0.5, -3, 0.3, 0]]), 1, 0.2, budget=80)
    assert counted[2] == {"kind": "shared", "candidates": 4, "dropped": 2, "last": 4, "best": 2}


# Companions


def test_a_companion_comes_from_the_same_places():
    assert likely_companion("cat", ["giraffe", "dog", "bed"]) == "dog"
    assert likely_companion("banana", ["bear", "pizza"]) == "pizza"


def test_planted_scenes_show_both_and_lose_what_is_named():
    first, second = planted("bear", "bus", 2, seed=3)
    assert (first.image_id, second.image_id) == ("planted-bear-000000", "planted-bear-000001")
    assert not np.array_equal(first.image, second.image)
    for scene in (first, second):
        for gone, mask in scene.masks.items():
            assert mask.any() and (scene.image != scene.without[gone]).any(axis=-1)[mask].mean() > 0.9
        only = (scene.without["concept"] != scene.image).any(axis=-1)
        companion = scene.masks["companion"] & ~scene.masks["concept"]
        assert only[companion].mean() < 0.5  # the companion stays where the concept goes
        assert (scene.masks["both"] == scene.masks["concept"] | scene.masks["companion"]).all()


# A study of the toy world


def toy_planted(concept: str, companion: str, n: int, seed: int):
    """Two squares of 6 x 6 side by side on gray."""
    for index in range(n):
        empty = np.full((16, 16, 3), 40, np.uint8) + np.uint8(seed + index)
        masks = {"concept": block(1, 1, 6, 6), "companion": block(9, 9, 6, 6)}
        colour = {"concept": COLOURS[concept], "companion": COLOURS[companion]}
        alone = {name: np.where(mask[..., None], np.uint8(colour[name]), empty) for name, mask in masks.items()}
        image = np.where(masks["companion"][..., None], alone["companion"], alone["concept"])
        without = {"concept": alone["companion"], "companion": alone["concept"], "both": empty}
        masks["both"] = masks["concept"] | masks["companion"]
        yield Planted(f"planted-{concept}-{index}", image, without, masks)


@pytest.fixture
def study(monkeypatch, tmp_path, taught_model, toy_profile) -> Study:
    inhabit(monkeypatch, tmp_path)
    monkeypatch.setattr(companions, "planted", toy_planted)
    monkeypatch.setattr(other_region, "DILATION", 0)
    return Study(toy_profile, tmp_path / "results", taught_model)


def test_another_region_moves_the_object_s_neurons_less_in_a_world_without_anything_else(study):
    regions = other_region.other_region(study, "bear")
    held_out = study.pairs("bear").query("role == 'held_out'")["image_id"].tolist()
    assert regions["image_id"].unique().tolist() == held_out
    kinds = ["object", "other", "removed", "decoy"]
    assert regions.groupby("image_id")["region"].apply(list).tolist() == [kinds] * len(held_out)
    by = regions.groupby("region")[["difference", "changed"]].mean()
    assert by.loc["removed", "changed"] == pytest.approx(by.loc["decoy", "changed"], rel=0.3)  # a matched stimulus
    assert by.loc["object", "difference"] > 2 * by.loc["other", "difference"]
    assert by.loc["object", "changed"] > by.loc["other", "changed"]


def test_what_is_taken_out_of_one_picture_and_of_another_answers_as_each_alone(study):
    one, other = (study.sample("bear", image_id) for image_id in study.pairs("bear")["image_id"][:2])
    taken = [Removal(each.image, study.inpainted(each), each.mask) for each in (one, other)]
    taken.insert(1, Removal(one.image, np.full_like(one.image, 40), block(0, 0, 8, 8)))
    for together, alone in zip(study.answers(taken), [study.answers([each])[0] for each in taken], strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_picture_without_room_is_counted_and_the_next_one_taken(study, monkeypatch):
    monkeypatch.setattr(other_region, "PICTURES", 1)
    places = iter([None, block(0, 0, 2, 2)])
    monkeypatch.setattr(other_region, "elsewhere", lambda hole, image: next(places))
    regions = other_region.other_region(study, "bear")
    assert regions["region"].tolist() == ["other", "object", "other", "removed", "decoy"]
    assert regions["difference"].isna().tolist() == [True] + 4 * [False]
    assert regions["image_id"].nunique() == 2


def test_companions_of_a_toy_study_are_counted_once_and_kept(study, monkeypatch):
    found = companions.companions(study, "bear")
    assert found["image_id"].nunique() == companions.SCENES
    named = found[found["kind"] != ""]
    kinds = ["own", "companion", "shared", "neither"]
    assert named.groupby("image_id")["kind"].apply(list).tolist() == [kinds] * named["image_id"].nunique()
    assert (named["dropped"] <= named["candidates"]).all() and (named["last"] <= named["dropped"]).all()
    study.__dict__["model"] = None  # whoever asks it anything fails
    pd.testing.assert_frame_equal(companions.companions(study, "bear"), found, check_dtype=False)


def test_a_scene_whose_caption_does_not_name_the_concept_does_not_count(study, monkeypatch):
    study.thresholds("bear")  # before the model has only one thing to say
    monkeypatch.setattr(study.model, "caption", lambda images, tokens: ["A forest."] * len(images))
    found = companions.companions(study, "bear")
    assert found["kind"].tolist() == [""] * companions.SCENES
    assert found["caption"].tolist() == ["A forest."] * companions.SCENES
    scene, said = companions.example(study, "bear")
    assert scene.image_id == "planted-bear-0"
    assert said == dict.fromkeys(("", "concept", "companion", "both"), "A forest.")


def test_photographs_have_no_companion_and_a_lonely_concept_has_one_that_is_drawn(toy_profile, tmp_path):
    coco = changed(toy_profile, data={"source": "coco"}, inpainting={"method": "telea"})
    study = Study(coco, tmp_path)
    with pytest.raises(StudyError, match="reads photographs"):
        companions.companion_of(study, "bear")
    alone = changed(toy_profile, concepts=["bear"], perturbation={"sweep_interventions": ["zero"]})
    assert companions.companion_of(Study(alone, tmp_path), "bear") in set(scenes.KINDS) - {"bear"}
