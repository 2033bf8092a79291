import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from kn_core.pictures.coco import CocoFolder
from kn_core.pictures.coco_checks import CocoError
from kn_core.pictures.image_files import PictureError
from kn_core.pictures.token_grid import cells, inside, resize_mask

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 5, "name": "bus"}, {"id": 9, "name": "train"}]
LEFT = [0, 0, 4, 0, 4, 6, 0, 6]  # the left half of 8 x 6 pixels, as a polygon
LEFT_MASK = np.tile(np.arange(8) < 4, (6, 1))


def _square(x: int, y: int) -> list[int]:
    return [x, y, x + 2, y, x + 2, y + 2, x, y + 2]


def _square_mask(x: int, y: int) -> np.ndarray:
    mask = np.zeros((6, 8), dtype=bool)
    mask[y : y + 2, x : x + 2] = True
    return mask


def _uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths: column by column, starting with the length of a run of zeros."""
    flat = mask.ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": lengths if flat[0] == 0 else [0, *lengths]}


def _compressed(mask: np.ndarray) -> dict[str, Any]:
    encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def _record(image_id: int, **more: Any) -> dict[str, Any]:
    return {"id": image_id, "file_name": f"{image_id:012d}.png", "width": 8, "height": 6, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of 8 x 6 pixels; what each shows is written beside its annotations."""
    records = [
        _record(10),
        _record(2),
        _record(3),
        _record(4),  # missing
        _record(5),  # broken
        _record(6),
        _record(7),
        _record(8, resized=True),  # its file is 4 x 12, the annotations are in 8 x 6
        _record(9),
    ]
    annotations = [
        (10, 1, [LEFT], 0),
        (2, 1, _uncompressed(_square_mask(0, 0)), 0),
        (2, 1, _compressed(_square_mask(4, 2)), 0),
        (2, 1, _uncompressed(_square_mask(6, 0)), 1),  # a crowd of cats beside two cats
        (2, 2, [_square(0, 4), _square(2, 4)], 0),  # a dog in two pieces
        (3, 9, _uncompressed(_square_mask(0, 0)), 1),  # nothing but a crowd
        (4, 1, [LEFT], 0),
        (5, 1, [LEFT], 0),
        (6, 1, [LEFT], 0),
        (7, 5, [LEFT], 0),
        (8, 1, [_square(2, 2)], 0),
        (8, 2, _compressed(LEFT_MASK), 0),
        (9, 5, [], 0),  # no mask
        (9, 2, [[1, 1, 3, 3]], 0),  # two points are no polygon (pycocotools would take them for a box)
        (404, 1, [LEFT], 0),  # of a picture that the file does not list
        (405, 1, [LEFT], 0),
        (3, 2, [[-1, 2, 0, 2, 0, 4, -1, 4]], 0),  # beside the picture
    ]
    instances = {
        "images": records,
        "categories": CATEGORIES,
        "annotations": [
            {"id": 100 + n, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}
            for n, (image, category, segmentation, crowd) in enumerate(annotations)
        ],
    }
    captions = {
        "images": [_record(2), _record(4), {"id": 11, "file_name": "11.png"}],
        "annotations": [
            {"id": 1, "image_id": 2, "caption": " Two cats\n on a bed. "},
            {"id": 2, "image_id": 2, "caption": "cats"},
            {"id": 3, "image_id": 2, "caption": "  "},
            {"id": 4, "image_id": 4, "caption": "A cat."},
            {"id": 5, "image_id": 11, "caption": "A bus."},
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    pictures = tmp_path / "images"
    pictures.mkdir()
    for image_id in (10, 2, 3, 6, 7, 9):
        Image.new("RGB", (8, 6), (image_id, 0, 0)).save(pictures / f"{image_id:012d}.png")
    Image.new("RGB", (4, 12)).save(pictures / "000000000008.png")
    Image.new("RGB", (8, 6)).save(pictures / "11.png")
    (pictures / "000000000005.png").write_bytes((pictures / "11.png").read_bytes()[:45])
    return tmp_path


def test_ids_are_in_the_order_of_their_numbers(folder: Path) -> None:
    assert CocoFolder(folder).image_ids == ("2", "3", "4", "5", "6", "7", "8", "9", "10", "11")


def test_samples_are_sorted_and_unusable_pictures_skipped_by_name(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coco = CocoFolder(folder)
    with caplog.at_level(logging.WARNING):
        samples = list(coco.samples("cat"))
        list(coco.samples("cat"))
    assert [sample.image_id for sample in samples] == ["2", "6", "8", "10"]
    pictures = folder / "images"
    damaged, but = caplog.records.pop().getMessage().split(" (image file is truncated")
    assert damaged == f"1 picture left out: truncated or damaged, first: {pictures / '000000000005.png'}" and but
    assert [record.getMessage() for record in caplog.records] == [
        "1 annotation of instances.json left out: no mask, at most a box, first: id 112",
        "1 annotation of instances.json left out: polygon of fewer than three points, first: id 113",
        "2 annotations of instances.json left out: image_id of no picture that is used, first: id 114",
        f"1 picture left out: no such file, first: {pictures / '000000000004.png'}",
    ]


def test_pictures_that_are_not_there_are_one_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for image_id in (2, 6, 10):
        (folder / "images" / f"{image_id:012d}.png").unlink()
    coco = CocoFolder(folder)
    with caplog.at_level(logging.WARNING):
        assert [sample.image_id for sample in coco.samples("cat")] == ["8"]
        list(coco.samples("cat"))
    assert (
        coco.left_out.names().items()
        >= {str(folder / "images" / f"{n:012d}.png"): "no such file" for n in (2, 4, 6, 10)}.items()
    )
    assert [record.getMessage() for record in caplog.records if "no such file" in record.getMessage()] == [
        f"4 pictures left out: no such file, first: {folder / 'images' / '000000000002.png'}"
    ]


def test_outlines_are_the_samples_without_their_pictures(folder: Path) -> None:
    outlines = {outline.image_id: outline for outline in CocoFolder(folder).outlines("cat")}
    assert list(outlines) == ["2", "4", "5", "6", "8", "10"]  # 4 is missing, 5 is broken
    assert outlines["8"].image.shape == (6, 8, 3)  # the annotated size, not the file's
    del outlines["8"]
    for sample in CocoFolder(folder).samples("cat"):
        if outline := outlines.get(sample.image_id):
            assert (outline.mask == sample.mask).all() and not outline.image.any()
            for name in ("concept", "others", "references", "n_instances", "resized"):
                assert getattr(outline, name) == getattr(sample, name)
    with pytest.raises(ValueError, match="'cats' is no category"):
        next(CocoFolder(folder).outlines("cats"))


def test_samples_are_lazy(folder: Path) -> None:
    coco = CocoFolder(folder)
    next(coco.samples("cat"))
    assert coco.unusable.names() == {}


def test_polygons_and_run_lengths_are_united_and_crowds_left_out(folder: Path) -> None:
    cats = {sample.image_id: sample for sample in CocoFolder(folder).samples("cat")}
    assert (cats["10"].mask == LEFT_MASK).all() and cats["10"].area_fraction == 0.5 and cats["10"].n_instances == 1
    assert (cats["2"].mask == _square_mask(0, 0) | _square_mask(4, 2)).all()
    assert cats["2"].n_instances == 2 and cats["2"].others == ("dog",)
    assert cats["10"].image.shape == (6, 8, 3) and (cats["10"].image == (10, 0, 0)).all()
    assert cats["10"].without is None and not cats["10"].resized
    (dog, *_) = CocoFolder(folder).samples("dog")
    assert (dog.mask == _square_mask(0, 4) | _square_mask(2, 4)).all() and dog.n_instances == 1
    assert list(CocoFolder(folder).samples("train")) == []


def test_instances_are_all_objects_one_by_one(folder: Path) -> None:
    found = CocoFolder(folder).instances(2)
    assert [one.concept + "s" * one.crowd for one in found] == ["cat", "cat", "cats", "dog"]
    assert (found[2].mask == _square_mask(6, 0)).all()


def test_masks_of_a_resized_picture_lie_on_the_file(folder: Path) -> None:
    cat, dog = (next(s for s in CocoFolder(folder).samples(c) if s.image_id == "8") for c in ("cat", "dog"))
    assert cat.resized and cat.mask.shape == cat.image.shape[:2] == (12, 4)
    expected = np.zeros((12, 4), dtype=bool)
    expected[4:8, 1:2] = True  # x 2..4 of 8 -> 1..2 of 4, y 2..4 of 6 -> 4..8 of 12
    assert (cat.mask == expected).all()
    assert (dog.mask == np.tile(np.arange(4) < 2, (12, 1))).all()


def test_annotations_without_a_usable_mask_are_skipped_by_name(folder: Path) -> None:
    coco = CocoFolder(folder)
    assert [sample.image_id for sample in coco.samples("bus")] == ["7"]
    assert coco.instances(9) == coco.instances(11) == []
    assert [sample.image_id for sample in coco.samples("dog")] == ["2", "8"]
    assert coco.unusable.names() == {
        "id 116 in 000000000003.png": "no pixel of the picture in the mask",
        "000000000003.png": "no mask of 'dog' holds a pixel",
    }


def test_captions(folder: Path) -> None:
    coco = CocoFolder(folder)
    assert coco.captions(2) == coco.captions("2") == ("Two cats on a bed.", "cats")
    assert coco.captions(10) == ()
    assert next(coco.samples("cat")).references == ("Two cats on a bed.", "cats")
    assert coco.picture(11).shape == (6, 8, 3) and coco.instances(11) == []


def test_captions_are_optional(folder: Path) -> None:
    (folder / "captions.json").unlink()
    assert next(CocoFolder(folder).samples("cat")).references == ()


def test_nothing_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CocoFolder(folder)
    assert capsys.readouterr().out == ""


def test_a_picture_is_turned_if_the_annotations_are_on_the_turned_one(folder: Path) -> None:
    turned = Image.new("RGB", (6, 8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "images" / "000000000010.png", exif=exif)  # stored 6 x 8, looked at 8 x 6
    assert CocoFolder(folder).picture(10).shape == (6, 8, 3)
    stored = Image.new("RGB", (8, 6))
    stored.save(folder / "images" / "000000000010.png", exif=exif)  # annotated as stored, as COCO does
    assert CocoFolder(folder).picture(10).shape == (6, 8, 3)


def test_the_official_layout(folder: Path) -> None:
    (folder / "annotations").mkdir()
    for kind in ("instances", "captions"):
        (folder / f"{kind}.json").rename(folder / "annotations" / f"{kind}_val2017.json")
    (folder / "images").rename(folder / "val2017")
    coco = CocoFolder(folder)
    assert [sample.image_id for sample in coco.samples("cat")] == ["2", "6", "8", "10"]
    assert len(coco.captions(2)) == 2
    (folder / "annotations" / "instances_train2017.json").write_text("{}")
    with pytest.raises(ValueError, match="several splits: train2017, val2017. Choose one by the path") as raised:
        CocoFolder(folder)
    assert str(raised.value).endswith(f"such as {folder / 'annotations' / 'instances_train2017.json'}.")
    chosen = CocoFolder(folder / "annotations" / "instances_val2017.json")
    assert chosen.folder == folder and chosen.image_ids == coco.image_ids and chosen.digest == coco.digest
    assert CocoFolder(folder, split="val2017").digest == coco.digest
    with pytest.raises(FileNotFoundError, match="instances_test2017.json"):
        CocoFolder(folder, split="test2017")


def test_errors_name_what_is_wrong(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    coco = CocoFolder(folder)
    with pytest.raises(ValueError, match="'cats' is no category of .* Nearest: cat"):
        next(coco.samples("cats"))
    with pytest.raises(ValueError, match="'zebra' is no category of .* Nearest: bus, cat, dog, train"):
        next(coco.samples("zebra"))
    with pytest.raises(ValueError, match="no image 77 among the 10 of"):
        coco.captions(77)
    with pytest.raises(PictureError, match="no such file"):
        coco.instances(4)
    with pytest.raises(FileNotFoundError, match="no COCO folder at"):
        CocoFolder(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match="neither instances.json nor annotations/instances_"):
        CocoFolder(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not COCO json"),
        ("[]", "is not COCO json"),
        ('"images"', "it must be an object with images, annotations, categories. Got text."),
        ('{"images": []}', "it has no annotations and no categories"),
        ('{"images": [], "categories": [], "annotations": {}}', "'annotations' must be a list. Got an object."),
        ("[" * 100_000, "is not COCO json"),
    ],
)
def test_json_that_is_not_coco(folder: Path, content: str, message: str) -> None:
    for file in ("captions.json", "instances.json"):
        (folder / file).write_text(content)
        with pytest.raises(CocoError, match=f"{file} is not COCO json"):
            CocoFolder(folder)
    with pytest.raises(CocoError, match=message):
        CocoFolder(folder)


def test_a_folder_without_pictures(folder: Path) -> None:
    (folder / "images").rename(folder / "photos")
    with pytest.raises(FileNotFoundError, match="no pictures: .*images is no folder"):
        CocoFolder(folder)


def test_cells_are_exact_shares_of_area() -> None:
    assert cells(LEFT_MASK, (2, 2)).tolist() == [[1, 0], [1, 0]]
    assert cells(LEFT_MASK, (1, 1)).tolist() == [[0.5]]
    assert np.allclose(cells(LEFT_MASK, (1, 3)), [[1.0, 0.5, 0.0]])  # cells of 8/3 pixels: 4 = 1.5 of them
    assert cells(LEFT_MASK, (6, 16)).tolist() == np.repeat(LEFT_MASK, 2, axis=1).tolist()
    one = np.zeros((4, 4), dtype=bool)
    one[0, 0] = True
    assert cells(one, (2, 2)).tolist() == [[0.25, 0], [0, 0]]
    assert np.allclose(cells(one, (3, 3))[0], [(3 / 4) ** 2, 0.0, 0.0])


def test_cells_of_any_shape_are_those_of_the_plain_sum_over_pixels() -> None:
    rng = np.random.default_rng(0)
    for shape, grid in (((37, 53), (8, 8)), ((5, 7), (16, 4)), ((9, 1), (1, 3)), ((200, 333), (13, 111))):
        mask = rng.random(shape) < 0.4
        expected = mask.astype(float)
        for n_cells in grid:  # overlap of every cell with every pixel, one axis after the other
            edges, pixels = np.arange(n_cells + 1)[:, None] * len(expected) / n_cells, np.arange(len(expected))
            overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
            expected = (overlap.clip(0) @ expected * n_cells / len(expected)).T
        assert np.allclose(cells(mask, grid), expected, rtol=0, atol=1e-12)


def test_a_cell_that_ends_within_rounding_of_a_pixel_is_whole() -> None:
    for n_cells, n_pixels in ((3, 7), (7, 49), (49, 7), (10, 3), (113, 1000)):
        assert np.allclose(cells(np.ones((n_pixels, 1), bool), (n_cells, 1)), 1, rtol=0, atol=1e-12)


def test_inside_are_the_cells_that_are_half_filled_or_the_fullest() -> None:
    assert inside(LEFT_MASK, (1, 3)).tolist() == [[True, True, False]]  # shares 1, 0.5, 0
    small = np.zeros((12, 12), bool)
    small[0, 0], small[5, 5:7] = True, True
    assert inside(small, (3, 3)).tolist() == [[False] * 3, [False, True, False], [False] * 3]
    small[5, 0:2] = True  # as much of another cell
    assert inside(small, (3, 3)).tolist() == [[False] * 3, [True, True, False], [False] * 3]
    assert inside(small, (3, 3)).dtype == np.bool_
    with pytest.raises(ValueError, match="mask must hold at least one pixel"):
        inside(np.zeros((6, 6), bool), (2, 2))


def test_resize_mask_keeps_what_fills_half_of_a_pixel() -> None:
    assert (resize_mask(LEFT_MASK, (6, 8)) == LEFT_MASK).all()
    assert (resize_mask(LEFT_MASK, (12, 16)) == LEFT_MASK.repeat(2, axis=0).repeat(2, axis=1)).all()
    assert resize_mask(LEFT_MASK, (1, 3)).tolist() == [[True, True, False]]  # shares 1, 0.5, 0
    assert resize_mask(LEFT_MASK, (3, 3)).dtype == np.bool_


def test_resize_mask_lies_where_the_models_bicubic_picture_lies() -> None:
    mask = np.zeros((300, 400), dtype=bool)
    mask[33:201, 57:333] = True
    picture = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).resize((256, 256), Image.Resampling.BICUBIC)
    assert (resize_mask(mask, (256, 256)) == (np.asarray(picture) >= 128)).all()
