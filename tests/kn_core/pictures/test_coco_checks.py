"""COCO json as other tools write it, and as it should not be: what is read, what is left out, and why."""

import copy
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle

from kn_core.pictures.coco import CocoFolder
from kn_core.pictures.coco_checks import CocoError
from kn_core.pictures.coco_outlines import _unpacked, same_proportions

RING = [3, 2, 9, 2, 9, 6, 3, 6]
SQUARE = np.zeros((12, 16), bool)
SQUARE[2:6, 3:9] = True  # what it encloses, of 16 x 12 pixels
RUNS = [38, *[4, 8] * 5, 4, 90]  # the same, column by column
PACKED = rle.encode(np.asfortranarray(SQUARE, np.uint8))["counts"].decode()
NAN, INFINITE = float("nan"), float("inf")

Make = Callable[..., CocoFolder]


def content() -> dict[str, Any]:
    """Two pictures with a dog in each, one as a polygon and one as run lengths."""
    outlines = [[[*RING]], {"size": [12, 16], "counts": [*RUNS]}]
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 16, "height": 12} for n in (1, 2)],
        "annotations": [
            {"id": 10 + n, "image_id": n, "category_id": 7, "segmentation": outline, "iscrowd": 0}
            for n, outline in enumerate(outlines, start=1)
        ],
        "categories": [{"id": 7, "name": "dog"}],
    }


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(instances, captions): a folder of these, with two pictures."""
    (tmp_path / "images").mkdir()
    for n in (1, 2):
        Image.new("RGB", (16, 12)).save(tmp_path / "images" / f"{n}.png")

    def write(instances: Any, captions: Any = None) -> CocoFolder:
        (tmp_path / "instances.json").write_text(json.dumps(instances))
        if captions is not None:
            (tmp_path / "captions.json").write_text(json.dumps(captions))
        return CocoFolder(tmp_path)

    return write


def found(coco: CocoFolder) -> dict[str, list[list[bool]]]:
    return {sample.image_id: sample.mask.tolist() for sample in coco.samples("dog")}


BOTH = {"1": SQUARE.tolist(), "2": SQUARE.tolist()}
PAIRS = [list(map(float, RING[n : n + 2])) for n in (0, 2, 4, 6)]


@pytest.mark.parametrize(
    "segmentation",
    [
        [RING],
        RING,
        [list(map(str, RING))],
        PAIRS,
        [PAIRS],
        [{"x": x, "y": y} for x, y in PAIRS],
        [[{"x": x, "y": y} for x, y in PAIRS]],
        [RING, [1, 1, 3, 3]],  # two points beside it fill nothing
        {"size": [12, 16], "counts": RUNS},
        {"size": ["12", 16.0], "counts": [float(run) for run in RUNS]},
        {"size": [12, 16], "counts": PACKED},
        [{"size": [12, 16], "counts": PACKED}],
    ],
)
def test_outlines_as_other_tools_write_them(make: Make, segmentation: Any) -> None:
    instances = content()
    instances["annotations"][0]["segmentation"] = segmentation
    coco = make(instances)
    assert found(coco) == BOTH
    assert coco.left_out.lines() == []


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        (None, "no mask, at most a box"),
        ([], "no mask, at most a box"),
        ([[]], "polygon of fewer than three points"),
        ([PAIRS[:2]], "polygon of fewer than three points"),
        (True, "polygon with a coordinate that is no finite number"),
        ([RING, 5], "segmentation that is neither polygons nor run lengths"),
        ("x", "polygon with a coordinate that is no finite number"),
        *(
            ([[wrong, *RING[1:]]], "polygon with a coordinate that is no finite number")
            for wrong in (NAN, INFINITE, None, True, "x", "nan", 10**400)
        ),
        ([RING[1:]], "polygon with an odd number of coordinates"),
        ([[*PAIRS, [1, 2, 3]]], "polygon with a point that is no pair of coordinates"),
        ([[*RING[:-1], 1e12]], "polygon that leads out of its picture"),
        ([[3, 2, 9, 2, 9, 20, 3, 20]], "polygon that leads out of its picture"),  # of a higher picture
        ([[each / 16 for each in RING]], "polygon within one pixel, perhaps in shares of the sides"),
        ([[0, 0, 16, 12] * 1000], "polygon longer than its picture has room for"),
        ({"counts": RUNS}, "run lengths without a size in pixels"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "run lengths without a size in pixels"),
        ({"size": [12, 16]}, "run lengths without counts"),
        ({"size": [12, 16], "counts": 5}, "run lengths without counts"),
        ({"size": [16, 12], "counts": RUNS}, "run lengths of other proportions than their picture's"),
        ({"size": [12, 16], "counts": [100, 20]}, "run lengths that do not add up to their size"),
        ({"size": [12, 16], "counts": []}, "run lengths that do not add up to their size"),
        ({"size": [6, 8], "counts": RUNS}, "run lengths that do not add up to their size"),
        ({"size": [12, 16], "counts": [-8, 200]}, "run lengths that are no whole numbers"),
        ({"size": [12, 16], "counts": [1.5, 190.5]}, "run lengths that are no whole numbers"),
        ({"size": [12, 16], "counts": [None]}, "run lengths that are no whole numbers"),
        *(
            ({"size": [12, 16], "counts": text}, "run lengths in characters that pycocotools does not write")
            for text in ("", "not a code", PACKED + "o", "o" * 50)
        ),
    ],
)
def test_outlines_that_are_none_are_left_out_by_name(make: Make, segmentation: Any, why: str) -> None:
    instances = content()
    instances["annotations"][0]["segmentation"] = segmentation
    coco = make(instances)
    assert found(coco) == {"2": BOTH["2"]}
    assert coco.left_out.lines() == [f"1 annotation of instances.json left out: {why}, first: id 11"]


def test_run_lengths_are_unpacked_as_pycocotools_packs_them() -> None:
    rng = np.random.default_rng(0)
    for shape, share in (((7, 9), 0.5), ((200, 300), 0.01), ((1000, 1500), 0.0001), ((5, 5), 0.0), ((5, 5), 1.0)):
        mask = rng.random(shape) < share
        runs = _unpacked(rle.encode(np.asfortranarray(mask, np.uint8))["counts"].decode())
        again = np.repeat(np.arange(len(runs)) % 2, runs).reshape(shape, order="F")
        assert (again == mask).all()


def test_ids_of_any_kind_and_flags_as_text(make: Make) -> None:
    instances = content()
    first, second = instances["annotations"]
    first |= {"image_id": "1", "category_id": "7.0", "iscrowd": "0"}
    second |= {"image_id": 2.0, "category_id": 7.0}
    del second["id"], second["iscrowd"]
    instances["categories"][0]["name"] = " dog "
    instances["images"][0] |= {"width": "16", "height": 12.0}
    coco = make(instances)
    assert found(coco) == BOTH and coco.left_out.lines() == [] and coco.concepts == ("dog",)
    first["iscrowd"], second["iscrowd"] = "1", "perhaps"
    coco = make(instances)
    assert coco.concepts == () and [one.crowd for one in coco.instances(1)] == [True]
    assert coco.left_out.lines() == [
        "1 annotation of instances.json left out: iscrowd that is neither 0 nor 1, first: number 2"
    ]


def test_one_id_of_two_pictures_is_neither(make: Make) -> None:
    instances = content()
    instances["images"][1]["id"] = "1"
    coco = make(instances)
    assert found(coco) == {}
    assert coco.left_out.lines() == [
        "1 picture of instances.json left out: several under one id, first: id 1 (1.png, 16 x 12; 2.png, 16 x 12)",
        "2 annotations of instances.json left out: image_id of no picture that is used, first: id 11",
    ]


def test_what_is_listed_twice_counts_once(make: Make) -> None:
    instances = content()
    for some in instances.values():
        some += copy.deepcopy(some)
    coco = make(instances)
    assert [sample.n_instances for sample in coco.samples("dog")] == [1, 1] and coco.left_out.lines() == []
    instances["annotations"][2]["segmentation"] = [[0, 0, 2, 0, 2, 2]]  # another object under the same id is one
    assert [sample.n_instances for sample in make(instances).samples("dog")] == [2, 1]


def test_one_id_of_two_categories_is_neither(make: Make) -> None:
    instances = content()
    instances["categories"].append({"id": 7.0, "name": "cat"})
    assert make(instances).left_out.lines() == [
        "1 category of instances.json left out: several under one id, first: id 7 (dog; cat)",
        "2 annotations of instances.json left out: category_id of no category that is used, first: id 11",
    ]


def test_captions_are_of_the_picture_that_the_instances_mean(make: Make) -> None:
    said = [{"id": n, "image_id": n, "caption": f" A  dog {n}. "} for n in (1, 2, 3)]
    images = [{"id": 1}, {"id": 2.0, "file_name": "2.png"}]
    coco = make(content(), {"images": images, "annotations": [*said, {"id": 4, "image_id": 1, "caption": None}, 5]})
    assert [coco.captions(n) for n in (1, 2)] == [("A dog 1.",), ("A dog 2.",)]
    assert coco.left_out.lines() == [
        "1 caption of captions.json left out: image_id of no picture that is used, first: id 3",
        "1 caption of captions.json left out: no caption, first: id 4",
        "1 caption of captions.json left out: a number where an object is expected, first: number 5",
    ]
    images[1]["file_name"] = "another.png"
    coco = make(content(), {"images": [*images, {"id": 1, "file_name": "third.png"}], "annotations": said})
    assert coco.captions(1) == coco.captions(2) == ()
    assert coco.left_out.lines()[:2] == [
        "1 picture of captions.json left out: several under one id, first: id 1 (1.png, 16 x 12; third.png, 16 x 12)",
        "1 picture of captions.json left out: another file under this id in the instances, first: id 2",
    ]


def test_one_file_under_two_ids_is_one_picture_with_all_that_is_said_of_both(make: Make) -> None:
    instances = content()
    instances["images"][1]["file_name"] = "1.png"
    instances["annotations"][1] |= {"category_id": 8}
    instances["categories"].append({"id": 8, "name": "cat"})
    said = [{"id": n, "image_id": n, "caption": f"said {n}"} for n in (1, 2)]
    coco = make(instances, {"images": instances["images"], "annotations": said})
    (sample,) = coco.samples("dog")
    assert sample.others == ("cat",) and sample.references == ("said 1", "said 2") and coco.image_ids == ("1",)
    (line,) = coco.left_out.lines()
    assert line.endswith("whose picture has all that is said of both, first: id 2 (1.png)")


def test_what_cvat_brushes_is_an_object_and_any_other_crowd_is_told(make: Make) -> None:
    instances = content()
    for one in instances["annotations"]:
        one["iscrowd"] = 1
    instances["annotations"][0]["attributes"] = {"occluded": False}
    coco = make(instances)
    assert found(coco) == {"1": SQUARE.tolist()}
    assert coco.left_out.lines() == [
        "1 annotation of instances.json taken for single objects: marked as crowds, as CVAT marks brushed masks, "
        "first: id 11",
        "1 picture left out: its object is marked as a crowd, first: id 2 (dog)",
    ]


def test_a_frame_that_is_not_the_pictures_is_left_out(make: Make) -> None:
    instances = content()
    instances["images"][0] |= {"width": 12, "height": 16}
    instances["images"][1] |= {"width": None}
    coco = make(instances)
    assert found(coco) == {} and coco.picture(2).shape == (12, 16, 3)
    assert coco.left_out.lines() == [
        "1 annotation of instances.json left out: its picture has no height and width in pixels, first: id 12"
    ]
    (line,) = coco.unusable.lines()
    assert line.startswith("1 picture left out: of other proportions than annotated, first: ")
    assert line.endswith("1.png (16 x 12 pixels, annotated 12 x 16)")


def test_frames_are_alike_where_one_is_the_other_scaled() -> None:
    assert same_proportions((2667, 4000), (427, 640)) and same_proportions((426, 640), (2667, 4000))
    assert same_proportions((12, 16), (3, 4)) and same_proportions((480, 480), (20, 20))
    assert not same_proportions((12, 16), (16, 12)) and not same_proportions((640, 639), (639, 640))


@pytest.mark.parametrize(
    ("written", "lies"),
    [
        ("images/1.png", "images/1.png"),
        ("images\\1.png", "images/1.png"),
        ("photos/1.png", "photos/1.png"),
        ("my%20dog.png", "images/my dog.png"),
        ("C:\\Users\\me\\data\\1.png", "images/1.png"),
        ("http://127.0.0.1/data/upload/3/1.png", "images/1.png"),
        ("/data/upload/3/1.png", "images/1.png"),
    ],
)
def test_pictures_are_found_where_tools_say_that_they_lie(make: Make, tmp_path: Path, written: str, lies: str) -> None:
    (tmp_path / lies).parent.mkdir(exist_ok=True)
    (tmp_path / "images" / "1.png").rename(tmp_path / lies)
    instances = content()
    instances["images"][0]["file_name"] = written
    coco = make(instances)
    assert coco.path(1) == tmp_path / lies and found(coco) == BOTH


def test_the_last_of_a_name_is_not_enough_where_two_pictures_have_it(make: Make) -> None:
    instances = content()
    for record, folder in zip(instances["images"], ("train", "valid"), strict=True):
        record["file_name"] = f"{folder}/1.png"
    coco = make(instances)
    assert found(coco) == {}
    assert coco.left_out.lines() == [
        f"2 pictures left out: no such file, first: {coco.folder / 'images' / 'train' / '1.png'}"
    ]


@pytest.mark.parametrize("name", ["_annotations.coco.json", "result.json", "export.json"])
def test_a_json_file_beside_its_pictures(make: Make, tmp_path: Path, name: str) -> None:
    make(content())
    (tmp_path / "instances.json").rename(tmp_path / name)
    for picture in (tmp_path / "images").iterdir():
        picture.rename(tmp_path / picture.name)
    (tmp_path / "images").rmdir()
    assert found(CocoFolder(tmp_path / name)) == BOTH
    if name == "export.json":
        with pytest.raises(FileNotFoundError, match="If the json file is called otherwise, give its path"):
            CocoFolder(tmp_path)
    else:
        assert found(CocoFolder(tmp_path)) == BOTH


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_any_encoding_of_unicode(make: Make, tmp_path: Path, encoding: str) -> None:
    make(content())
    (tmp_path / "instances.json").write_text(json.dumps(content()), encoding)
    assert found(CocoFolder(tmp_path)) == BOTH


def test_a_photograph_is_scaled_before_it_is_kept(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (3000, 1500)).save(tmp_path / "images" / "1.png")
    mask = np.zeros((1500, 3000), np.uint8, order="F")
    mask[300:900, 600:1800] = 1
    packed = rle.encode(mask)
    ring = [600, 300, 1800, 300, 1800, 900, 600, 900]
    for outline in ([ring], {"size": packed["size"], "counts": packed["counts"].decode()}):
        instances = content()
        instances["images"] = [{"id": 1, "file_name": "1.png", "width": 3000, "height": 1500}]
        instances["annotations"] = [instances["annotations"][0] | {"segmentation": outline}]
        (tmp_path / "instances.json").write_text(json.dumps(instances))
        coco = CocoFolder(tmp_path)
        (sample,), (black,) = coco.samples("dog"), coco.outlines("dog")
        assert sample.image.shape == black.image.shape == (512, 1024, 3)
        assert sample.area_fraction == pytest.approx(0.16, abs=0.002)
        assert (sample.mask == black.mask).all() and (coco.instances(1)[0].mask == sample.mask).all()


WRONG = (None, True, "x", "\ud800", "0", -1, 0.5, NAN, INFINITE, -1e9, 1e12, 10**400, [], {}, [[]], [None], {"a": 1})
MEMORY = 2**30  # bytes that reading may take more


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(list(places(content()))), wrong=st.sampled_from(["gone", "twice", *WRONG]))
def test_malformed_json_never_shows_an_object_that_is_not_there(make: Make, where: tuple[Any, ...], wrong: Any) -> None:
    assume("segmentation" not in where or wrong not in ("0", -1, 0.5))  # another coordinate is another object
    instances = content()
    inner: Any = instances
    for key in where[:-1]:
        inner = inner[key]
    if wrong == "gone":
        del inner[where[-1]]
    elif wrong == "twice":
        inner[where[-1]] = [copy.deepcopy(inner[where[-1]])] * 2
    else:
        inner[where[-1]] = wrong
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        coco = make(instances)
        for image_id, mask in found(coco).items():
            assert mask == BOTH[image_id]
        list(coco.outlines("dog"))
        assert len(coco.left_out.lines()) + len(coco.unusable.lines()) <= 4
    except (CocoError, FileNotFoundError):
        pass  # nothing is used then
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
