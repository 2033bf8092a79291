"""Scenes: exact masks and counterfactuals, determinism, confounds, captions, and the COCO folder read back."""

import json
from collections import Counter
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from kn_core.concepts import names
from kn_core.pictures.scenes import KINDS, SETTINGS, Scene, samples, scene, write_coco
from kn_core.pictures.scenes.drawings import DETAIL, Drawing, Placed, layer, raster
from kn_core.pictures.scenes.kinds import ROLES

CONCEPTS = ("banana", "bear", "bed", "bus", "cat", "dog", "giraffe", "pizza", "train")
SMALL = 96


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Two scenes of every kind."""
    return [scene((7, k), kind, size=SMALL) for kind in KINDS for k in range(2)]


def test_there_are_enough_kinds_and_settings() -> None:
    assert len(KINDS) >= 30
    assert len(SETTINGS) >= 8
    assert set(CONCEPTS) <= set(KINDS)
    for kind in KINDS.values():
        assert len(kind.settings) >= 3, f"{kind.name} gives its setting away"
        assert set(kind.settings) <= set(SETTINGS)


def test_every_drawing_exists() -> None:
    for drawing in chain.from_iterable(kind.drawings for kind in KINDS.values()):
        assert 0.2 * DETAIL < max(raster(drawing).size) <= DETAIL
        assert 0.05 < drawing.fill <= 1


def test_neurons_are_chosen_on_some_drawings_and_tried_on_others() -> None:
    for kind in KINDS.values():
        chosen, tried = (kind.outlines(role) for role in ROLES)
        assert not set(chosen) & set(tried), kind.name
        assert len(chosen) + len(tried) == len(kind.outlines()) >= 2
    assert Drawing.parse("1F408-200D-2B1B black").outline == Drawing.parse("1F408 ginger").outline
    assert Drawing.parse("1F355 whole").outline != Drawing.parse("1F355").outline
    for index, sample in enumerate(samples("bear", 6, 2, size=32)):
        assert sample.role == ROLES[index % 2]
        assert sample.drawing in KINDS["bear"].outlines(sample.role)


def test_a_scene_of_a_study_shows_something_else_that_can_be_named() -> None:
    for kind in KINDS:
        for sample in samples(kind, 2, 2, size=SMALL):
            assert sample.others
            assert kind not in sample.others


def test_captions_name_the_setting_and_no_other(scenes: list[Scene]) -> None:
    alike = {"room", "table"}  # a table put up in a room is what the setting table is
    for made in scenes:
        for caption in chain.from_iterable(made.captions(without) for without in (None, made.main)):
            named = {name for name, setting in SETTINGS.items() if setting.named(caption)}
            assert made.setting in named, caption
            assert named - alike <= {made.setting}, caption


def test_recolouring_finds_what_it_exchanges() -> None:
    for name, kind in KINDS.items():
        for drawing in kind.drawings:
            for pair in drawing.recolour:
                less = Drawing(drawing.name, "", tuple(p for p in drawing.recolour if p != pair), drawing.whole)
                full = Drawing(drawing.name, "", drawing.recolour, drawing.whole)
                assert raster(less) != raster(full), f"{name}: nothing in {drawing.name} is {pair[0]}"


def test_a_counterfactual_is_the_same_picture_beside_the_object_and_its_shadow(scenes: list[Scene]) -> None:
    for made in scenes:
        full = made.render()
        for k in range(len(made.objects)):
            changed = (full != made.render(without=k)).any(axis=-1)
            _, opacity, shadow = layer(made.objects[k], SMALL)
            assert not changed[(opacity == 0) & (shadow == 0)].any()
            assert changed[made.mask(k)].mean() > 0.9


def test_masks_share_no_pixel(scenes: list[Scene]) -> None:
    for made in scenes:
        assert sum(made.mask(k).astype(int) for k in range(len(made.objects))).max() <= 1


def test_the_mask_is_what_an_opaque_square_covers() -> None:
    """One object painted by hand: where its opacity is above one half, and nowhere else."""
    made = scene([3], "apple", n_objects=1, size=64)
    _, opacity, shadow = layer(made.objects[0], 64)
    assert np.array_equal(made.mask(0), opacity > 0.5)
    beside = (shadow > 0) & (opacity == 0)
    assert beside.any()
    assert not made.mask(0)[beside].any()
    assert (made.render()[beside].astype(int) <= made.render(without=0)[beside]).all()  # a shadow only darkens


def test_the_main_object_is_well_visible(scenes: list[Scene]) -> None:
    areas = []
    for made in scenes:
        main = made.objects[made.main]
        alone = layer(main, SMALL)[1] > 0.5
        assert made.mask(made.main).sum() >= 0.65 * alone.sum()
        areas.append(made.mask(made.main).mean())
    assert np.mean([0.05 <= area <= 0.6 for area in areas]) >= 0.9
    assert min(areas) > 0.02


def test_a_seed_determines_the_scene() -> None:
    one, again, other = (scene([seed], "bear") for seed in (1, 1, 2))
    assert np.array_equal(one.render(), again.render())
    assert one.captions() == again.captions()
    assert one.objects == again.objects
    assert not np.array_equal(one.render(), other.render())


def test_namespaces_and_concepts_share_no_scene() -> None:
    pictures = [
        sample.image.tobytes()
        for seed in (0, 1)
        for concept in ("bear", "bus")
        for sample in samples(concept, 4, seed, size=32)
    ]
    assert len(set(pictures)) == len(pictures)
    assert next(samples("bear", 1, 0, size=32)).image_id == "scene-bear-000000"


def test_the_size_changes_the_resolution_only() -> None:
    small, large = (scene([5], "cat", size=size) for size in (64, 256))
    assert small.objects == large.objects
    assert large.render().shape == (256, 256, 3)
    coarse = large.mask(large.main).reshape(64, 4, 64, 4).mean(axis=(1, 3)) > 0.5
    assert (coarse & small.mask(small.main)).sum() / (coarse | small.mask(small.main)).sum() > 0.8


def test_n_objects() -> None:
    assert [len(scene([9], "dog", n_objects=n).objects) for n in (1, 2, 3)] == [1, 2, 3]
    assert {len(scene((9, k), "dog").objects) for k in range(20)} == {1, 2, 3}
    with pytest.raises(ValueError, match="n_objects must be 1 to 3"):
        scene([9], "dog", n_objects=4)


def test_a_companion_comes_along_even_where_it_never_is_by_itself() -> None:
    for kind in KINDS:
        companion = "pizza" if kind == "tree" else "tree"
        made = scene([12], kind, companion=companion, size=32)
        assert companion in {placed.kind for placed in made.objects}


def test_captions_name_what_is_there(scenes: list[Scene]) -> None:
    for made in scenes:
        kinds = [placed.kind for placed in made.objects]
        main = kinds[made.main]
        assert len(made.captions()) == 5
        for caption in made.captions():
            assert names(caption, main)
            assert caption[0].isupper()
            assert caption.endswith(".")
        for k, kind in enumerate(kinds):
            assert not any(names(caption, kind) for caption in made.captions(without=k))
            if kind != main:
                assert all(names(caption, main) for caption in made.captions(without=k))
                assert any(names(caption, kind) for caption in made.captions())


def test_articles_agree() -> None:
    made = [scene((17, k), kind, size=16) for kind in ("orange", "apple", "elephant", "umbrella") for k in range(3)]
    for caption in chain.from_iterable([*one.captions(), *one.captions(without=one.main)] for one in made):
        words = caption.lower().rstrip(".").split()
        for article, noun in pairwise(words):
            assert article not in ("a", "an") or (article == "an") == (noun[0] in "aeiou"), caption


def test_a_sample_holds_the_scene() -> None:
    sample = next(samples("giraffe", 1, seed=4, size=SMALL))
    assert (sample.concept, sample.n_instances, len(sample.references)) == ("giraffe", 1, 5)
    assert sample.without is not None
    assert (sample.image != sample.without).any(axis=-1)[sample.mask].mean() > 0.9


def test_only_the_scenes_that_are_wanted_are_drawn() -> None:
    whole = {sample.image_id: sample for sample in samples("bear", 3, 0)}
    (found,) = samples("bear", 3, 0, only={"scene-bear-000002", "scene-bear-000007"})
    assert found.image_id == "scene-bear-000002"
    assert np.array_equal(found.image, whole[found.image_id].image)


def test_wrong_names_list_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"'unicorn'.*bear, bed"):
        scene([1], "unicorn")
    with pytest.raises(ValueError, match="unicorn"):
        list(samples("unicorn", 1, 0))
    with pytest.raises(ValueError, match="must be of another kind"):
        scene([1], "bear", companion="bear")
    with pytest.raises(IndexError, match="objects 0 to"):
        scene([1], "bear").render(without=7)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools under numpy 2
def test_a_coco_folder_reads_back(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco", ("bear", "pizza"), n=2, seed=3, size=SMALL)
    read = COCO(str(folder / "instances.json"))
    assert len(read.getImgIds()) == 4
    for concept in ("bear", "pizza"):
        (category,) = read.getCatIds([concept])
        for sample, image_id in zip(
            samples(concept, 2, 3, size=SMALL), sorted(read.getImgIds(catIds=[category])), strict=True
        ):
            (image,) = read.loadImgs([image_id])
            assert image["file_name"] == f"{sample.image_id}.png"
            assert (folder / "images" / image["file_name"]).exists()
            (annotation,) = read.loadAnns(read.getAnnIds([image_id], catIds=[category]))
            assert np.array_equal(read.annToMask(annotation).astype(bool), sample.mask)
            assert annotation["area"] == sample.mask.sum()
    captions = json.loads((folder / "captions.json").read_text())["annotations"]
    assert Counter(caption["image_id"] for caption in captions) == dict.fromkeys(read.getImgIds(), 5)
    assert [path.name for path in tmp_path.iterdir()] == ["coco"], "nothing half-made is left behind"
    with pytest.raises(FileExistsError, match="must not exist yet"):
        write_coco(folder, ("bear",), n=1, seed=3)


def test_what_flies_casts_no_shadow() -> None:
    kite = Placed("kite", KINDS["kite"].drawings[0], 0.5, 0.5, 0.3, "sky", False, 0.0, 1.0)
    assert layer(kite, 64)[2].max() == 0
