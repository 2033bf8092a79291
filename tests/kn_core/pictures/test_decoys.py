"""What else could be taken out of a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kn_core.pictures import scenes
from kn_core.pictures.decoys import changed, decoy, places
from kn_core.pictures.sample import Sample
from kn_core.settings import Inpainting


def test_another_object_stands_where_the_scenes_own_one_was_and_all_else_is_the_same():
    sample = next(scenes.samples("giraffe", 1, 5))
    found = sample.stand_ins(4)
    assert len(found) == 4 and len({each.tobytes() for each in found}) == 4
    for picture in found:
        assert picture.shape == sample.image.shape
        assert not np.array_equal(picture, sample.image)
        there = (picture != sample.without).any(axis=-1)
        assert there[sample.mask].mean() > 0.3  # in the object's place
        assert there.mean() < 3 * sample.area_fraction
    chosen = decoy(sample, sample.without, Inpainting(method="exact"))
    assert np.array_equal(chosen.without, sample.without)
    assert 0.6 < chosen.changed / changed(sample.image, sample.without) < 1.6
    assert [each.tobytes() for each in sample.stand_ins(2)] == [each.tobytes() for each in found[:2]]


def test_in_a_photograph_the_region_is_taken_that_changes_it_most_nearly_as_much():
    picture = np.full((64, 64, 3), 128, np.uint8)
    for x, level in ((4, 20), (28, 250), (52, 140)):
        picture[28:36, x : x + 8] = level
    mask = np.zeros((64, 64), bool)
    mask[28:36, 4:12] = True  # the darkest of three squares
    sample, without = Sample("mine", "dog", picture, mask), picture.copy()
    without[mask] = 128
    how = Inpainting(method="telea", dilation=2)
    found = decoy(sample, without, how)
    assert np.array_equal(found.image, picture) and not (found.mask & mask).any()
    assert found.mask[32, 32] and not found.mask[32, 56]  # the bright one, not the faint one
    assert (found.without[~found.mask] == picture[~found.mask]).all()
    everything = replace(sample, mask=np.ones((64, 64), bool))
    assert decoy(everything, without, how) is None


def test_places_are_apart_from_the_hole_and_from_each_other():
    rng, hole = np.random.default_rng(0), np.zeros((32, 40), bool)
    hole[3:9, 5:12] = True
    found = list(places(hole, hole, rng.integers(0, 255, (32, 40, 3)).astype(np.uint8), 5))
    assert len(found) == 5
    assert all(each.sum() == hole.sum() and not (each & hole).any() for each in found)
    assert max((one & other).sum() for i, one in enumerate(found) for other in found[:i]) == 0
