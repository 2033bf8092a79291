"""Labelled folders as tools leave them: the same object by every format, and a line for whatever cannot be used."""

from __future__ import annotations

import base64
import io
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from kn_core.pictures.coco import CocoFolder
from kn_core.pictures.coco_checks import CocoError
from kn_core.pictures.image_files import BACK, TURNS
from kn_core.pictures.labelled import PICTURES, gathered
from tests.kn_core.pictures.test_coco_checks import WRONG, places

LEFT, TOP, RIGHT, BOTTOM = 10, 5, 40, 30
MASK = np.zeros((48, 64), bool)
MASK[TOP:BOTTOM, LEFT:RIGHT] = True
RING = [LEFT, TOP, RIGHT, TOP, RIGHT, BOTTOM, LEFT, BOTTOM]
POINTS = [[LEFT, TOP], [RIGHT, TOP], [RIGHT, BOTTOM], [LEFT, BOTTOM]]
LABELME = {"version": "5", "imagePath": "a.jpg", "imageData": None, "imageHeight": 48, "imageWidth": 64}


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(MASK[..., None], np.uint8(200), np.uint8(60)).repeat(3, axis=2)).save(path)
    return path


def coco(file_name: str, label: str, **annotation: object) -> str:
    image = {"id": 1, "file_name": file_name, "width": 64, "height": 48}
    outline = {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0} | annotation
    return json.dumps({"images": [image], "annotations": [outline], "categories": [{"id": 3, "name": label}]})


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def shape(kind: str, points: object, label: str = "zebra", **more: object) -> str:
    return json.dumps(LABELME | {"shapes": [{"label": label, "points": points, "shape_type": kind, **more}]})


def labelme_mask() -> str:
    file = io.BytesIO()
    Image.fromarray(MASK[TOP:BOTTOM, LEFT:RIGHT]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


BOX = [LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP]
OUTLINE = {"segmentation": [RING]}
POLYGON = shape("polygon", POINTS)
# Where the picture lies, where the labels, and these; None: a mask.
FOLDERS = {
    "coco": ("images/a.jpg", "instances.json", coco("a.jpg", "zebra", **OUTLINE)),
    "coco, of any name": ("a.jpg", "my labels.json", coco("a.jpg", "Zebra", **OUTLINE)),
    "cvat": ("images/default/a.jpg", "annotations/instances_default.json", coco("a.jpg", "Zebras", **OUTLINE)),
    "label studio": ("images/a.jpg", "result.json", coco("images\\a.jpg", "zebra", **OUTLINE)),
    "fiftyone": ("data/a.jpg", "labels.json", coco("a.jpg", "zebra", **OUTLINE)),
    "boxes": ("images/a.jpg", "result.json", coco("images/a.jpg", "zebra", segmentation=[], bbox=BOX)),
    "labelme": ("a.jpg", "a.json", POLYGON),
    "labelme, boxes": ("a.jpg", "a.json", shape("rectangle", POINTS[::2])),
    "labelme, a mask": ("a.jpg", "a.json", shape("mask", POINTS[::2], mask=labelme_mask())),
    "labelme, moved": ("a.jpg", "a.json", POLYGON.replace("a.jpg", r"..\\pics\\a.jpg")),
    "masks": ("a.jpg", "a.mask.png", None),
}


def lay_out(folder: Path, kind: str) -> None:
    shown, labels, content = FOLDERS[kind]
    picture(folder / shown)
    write(folder / labels, content) if content else Image.fromarray(MASK).save(folder / labels)


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_format_gives_the_same_object(kind, tmp_path):
    lay_out(tmp_path / "in", kind)
    for _ in range(2):  # what the first one leaves within the folder is none of it
        notes = gathered(tmp_path / "in", "zebra", tmp_path / "in" / "out" / "instances.json")
    (sample,) = CocoFolder(tmp_path / "in" / "out" / "instances.json").samples("zebra")
    assert (sample.mask == MASK).all() and sample.image.shape == (48, 64, 3)
    assert notes == (["1 of 1 objects have a box alone, taken for their outline"] if kind == "boxes" else [])


def test_a_picture_that_lies_in_its_json_alone_is_taken_from_there(tmp_path):
    data = base64.b64encode(picture(tmp_path / "elsewhere.png").read_bytes()).decode()
    write(tmp_path / "in" / "a.json", json.dumps(json.loads(shape("polygon", POINTS)) | {"imageData": data}))
    assert gathered(tmp_path / "in", "zebra", tmp_path / "out" / "instances.json") == []
    (sample,) = CocoFolder(tmp_path / "out" / "instances.json").samples("zebra")
    assert sample.image_id == "a" and (sample.mask == MASK).all()


def test_what_cannot_be_used_is_a_line_and_the_rest_is_used(tmp_path):
    folder = tmp_path / "in"
    for name in "abcdef":
        picture(folder / f"{name}.png")
    Image.fromarray(MASK).save(folder / "a.mask.png")
    Image.fromarray(MASK[:40]).save(folder / "b.mask.png")  # of another shape
    Image.fromarray(np.zeros_like(MASK)).save(folder / "c.mask.png")
    (folder / "d.mask.png").write_bytes(b"no picture")
    write(folder / "e.json", "{")
    write(folder / "f.json", shape("line", POINTS[:2]).replace("a.jpg", "f.png"))
    write(folder / "g.json", shape("polygon", POINTS).replace("a.jpg", "gone.jpg"))
    lines = gathered(folder, "zebra", tmp_path / "out" / "instances.json")
    told = "\n".join(lines)
    for line in (
        "1 file left out: no json, or not the whole of one, first: e.json",
        "1 shape left out: a line of 2 points is no outline, first: f.json",
        "1 file left out: no picture of its name, first: g.json (gone.jpg)",
        "1 picture left out: the mask is 64 x 40 pixels, the picture 64 x 48",
        "1 picture left out: its mask is not a picture in a format that Pillow reads",
        "1 picture left out: neither a json nor a mask beside it, first: e.png",
    ):
        assert line in told
    assert len(lines) == 7
    assert [one.image_id for one in CocoFolder(tmp_path / "out" / "instances.json").samples("zebra")] == ["a"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), wrong=st.sampled_from(["gone", "a" * 5000, "abcde", 1e300, *WRONG]))
def test_malformed_labelme_json_never_shows_an_object_that_is_not_there(data, wrong, tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("labelme"), tmp_path_factory.mktemp("made") / "instances.json"
    for name in "ab":
        picture(folder / f"{name}.png")
        write(folder / f"{name}.json", POLYGON.replace("a.jpg", f"{name}.png"))
    kinds = (shape("mask", POINTS[::2], mask=labelme_mask()), POLYGON, FOLDERS["labelme, boxes"][2])
    content = json.loads(data.draw(st.sampled_from(kinds)).replace("a.jpg", "a.png"))
    where = data.draw(st.sampled_from(list(places(content))))
    assume("points" not in where or wrong not in ("0", -1, 0.5, "gone"))  # another coordinate is another object
    inner = content
    for key in where[:-1]:
        inner = inner[key]
    if wrong == "gone":
        del inner[where[-1]]
    else:
        inner[where[-1]] = wrong
    write(folder / "a.json", json.dumps(content))
    gathered(folder, "zebra", made)
    found = {one.image_id: one.mask for one in CocoFolder(made).samples("zebra")}
    assert found.pop("b").tolist() == MASK.tolist()
    assert "shape_type" in where or all(mask.tolist() == MASK.tolist() for mask in found.values())


@pytest.mark.parametrize("left", [-1e9, -1, 0, 1e6])
def test_a_mask_that_does_not_fill_its_frame_shows_nothing(tmp_path, left):
    picture(tmp_path / "a.jpg")
    of = json.loads(shape("mask", POINTS[::2], mask=labelme_mask()))
    of["shapes"][0]["points"][0][0] = left
    write(tmp_path / "a.json", json.dumps(of))
    with pytest.raises(CocoError, match="mask that does not fill the frame which is said of it"):
        gathered(tmp_path, "zebra", tmp_path / "out" / "instances.json")


def test_labels_without_an_outline_are_told_where_nothing_else_is_there(tmp_path):
    picture(tmp_path / "in" / "a.jpg")
    write(tmp_path / "in" / "a.json", shape("line", POINTS[:2]))
    with pytest.raises(CocoError, match="no label of .* names 'zebra'. 1 shape left out: a line of 2 points"):
        gathered(tmp_path / "in", "zebra", tmp_path / "out" / "instances.json")


def test_a_picture_without_a_size_is_measured_and_a_second_json_is_told(tmp_path):
    lay_out(tmp_path / "in", "coco")
    sizeless = coco("a.jpg", "zebra", **OUTLINE).replace('"width": 64, "height": 48', '"width": null')
    write(tmp_path / "in" / "instances.json", sizeless)
    write(tmp_path / "in" / "older.json", sizeless)
    (note,) = gathered(tmp_path / "in", "zebra", tmp_path / "out" / "instances.json")
    assert "instances.json; not read: older.json (--images takes a file too)" in note
    (sample,) = CocoFolder(tmp_path / "out" / "instances.json").samples("zebra")
    assert (sample.mask == MASK).all()


@pytest.mark.parametrize(
    ("concept", "kind", "message"),
    [
        ("zebra", None, "no folder .*in. Name one"),
        ("zebra", lambda at: at.mkdir(), "holds no labelled pictures: neither pictures nor json. Give COCO json"),
        (
            "zebra",
            lambda at: picture(at / "a.jpg"),
            "1 picture left out: neither a json nor a mask beside it",
        ),
        (
            "horse",
            lambda at: lay_out(at, "coco"),
            "no label of .* names 'horse'. The labels: zebra. Say --concept with one of them",
        ),
        (
            "zebra",
            lambda at: (picture(at / "a.jpg"), write(at / "a.json", shape("line", POINTS[:2]))),
            "names 'zebra'. 1 shape left out: a line of 2 points is no outline, first: a.json.",
        ),
    ],
)
def test_where_there_is_nothing_the_error_says_what_to_do(concept, kind, message, tmp_path):
    if kind:
        kind(tmp_path / "in")
    with pytest.raises(CocoError, match=message):
        gathered(tmp_path / "in", concept, tmp_path / "out" / "instances.json")


SQUARE = (64, 64)


@pytest.mark.parametrize("frame", [MASK.shape, SQUARE])
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind", ["labelme", "masks", "coco"])
def test_labels_lie_on_a_picture_as_it_is_looked_at(kind, turn, frame, tmp_path):
    """Sizes do not tell whether one is upside down, mirrored, or a turned square: COCO json alone leaves a doubt."""
    mask = np.zeros(frame, bool)
    mask[TOP:BOTTOM, LEFT:RIGHT] = True
    exif = Image.Exif()
    exif[0x112] = turn
    stored = Image.fromarray(mask).convert("RGB").transpose(BACK.get(TURNS[turn], TURNS[turn]))
    stored.save(tmp_path / "a.png", exif=exif)
    if kind == "masks":
        Image.fromarray(mask).save(tmp_path / "a.mask.png")
    else:
        text = POLYGON.replace("a.jpg", "a.png") if kind == "labelme" else coco("a.png", "zebra", **OUTLINE)
        write(tmp_path / "a.json", text.replace("48", str(frame[0])))
    assert gathered(tmp_path, "zebra", tmp_path / "out" / "instances.json") == []
    folder = CocoFolder(tmp_path / "out" / "instances.json")
    (sample,) = folder.samples("zebra")
    assert (sample.mask == mask).all() and (sample.image[..., 0] == 255 * mask).all()
    assert len(folder.unusable.lines()) == (kind == "coco" and (turn < 5 or frame == SQUARE))


def test_one_name_in_several_folders_and_masks_that_nothing_takes(tmp_path):
    """A Mac's folder has accents in two characters; one may be a link, and lead back to where it lies."""
    lost = unicodedata.normalize("NFD", "é")
    for name in ("x/1", "y/1", f"z/{lost}"):
        picture(tmp_path / "in" / f"{name}.png")
        Image.fromarray(MASK).save(tmp_path / "in" / unicodedata.normalize("NFC", f"{name}.mask.PNG"))
    (tmp_path / "in" / "z").rename(tmp_path / "elsewhere")
    (tmp_path / "in" / "z").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "x" / "back").symlink_to(tmp_path / "in")
    for name in ("x/1.mask.tif", "x/photo.mask.png"):  # the second one's is photo.heic
        Image.fromarray(MASK).save(tmp_path / "in" / name)
    assert gathered(tmp_path / "in", "zebra", tmp_path / "out" / "instances.json") == [
        "1 mask left out: another one of its picture, first: 1.mask.tif",
        f"1 mask left out: no picture for it of {', '.join(PICTURES)}, first: photo.mask.png",
    ]
    samples = [*CocoFolder(tmp_path / "out" / "instances.json").samples("zebra")]
    assert sorted(sample.image_id for sample in samples) == sorted(["1", "y-1-2", lost])
    assert all((sample.mask == MASK).all() for sample in samples)


def test_pictures_within_json_of_one_name_stay_two(tmp_path):
    for folder, shade in (("x", 10), ("y", 20)):
        file = io.BytesIO()
        Image.new("L", (64, 48), shade).save(file, "PNG")
        content = json.loads(POLYGON) | {"imageData": base64.b64encode(file.getvalue()).decode()}
        write(tmp_path / "in" / folder / "a.json", json.dumps(content))
    assert gathered(tmp_path / "in", "zebra", tmp_path / "out" / "instances.json") == []
    samples = CocoFolder(tmp_path / "out" / "instances.json").samples("zebra")
    assert sorted(int(sample.image.max()) for sample in samples) == [10, 20]
