from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from kn_core.pictures.image_files import PictureError, as_mask, as_picture, box_mask, open_picture

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)
ORIENTATION = 0x0112


def _half(mode: str, left: int | tuple[int, ...], right: int | tuple[int, ...]) -> Image.Image:
    """Four pixels wide, two high: `left` on the left half, `right` on the right half."""
    image = Image.new(mode, (4, 2), left)
    image.paste(right, (2, 0, 4, 2))
    return image


def _palette(transparent: bool) -> Image.Image:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([*RED, *BLACK])
    image.paste(1, (2, 0, 4, 2))
    if transparent:
        image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("make", "suffix", "left", "right"),
    [
        (lambda: _half("RGB", RED, BLACK), "png", RED, BLACK),
        (lambda: _half("RGBA", (*RED, 255), (0, 0, 0, 0)), "png", RED, WHITE),
        (lambda: _half("RGBA", (0, 0, 0, 51), (0, 0, 0, 255)), "png", (204, 204, 204), BLACK),
        (lambda: _half("LA", (100, 255), (0, 0)), "png", (100, 100, 100), WHITE),
        (lambda: _half("L", 7, 200), "png", (7, 7, 7), (200, 200, 200)),
        (lambda: _half("1", 1, 0), "png", WHITE, BLACK),
        (lambda: _palette(transparent=False), "png", RED, BLACK),
        (lambda: _palette(transparent=True), "png", RED, WHITE),
        (lambda: _palette(transparent=True), "gif", RED, WHITE),
        (lambda: _half("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), "tiff", RED, BLACK),
    ],
    ids=["RGB", "RGBA", "half transparent", "LA", "L", "1 bit", "P", "P transparent", "GIF transparent", "CMYK"],
)
def test_every_mode_becomes_rgb_on_white(
    tmp_path: Path, make: Callable[[], Image.Image], suffix: str, left: object, right: object
) -> None:
    path = tmp_path / f"picture.{suffix}"
    make().save(path)
    picture = open_picture(path)
    assert picture.shape == (2, 4, 3) and picture.dtype == np.uint8 and picture.flags.writeable
    assert (picture[:, :2] == left).all() and (picture[:, 2:] == right).all()


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(open_picture(tmp_path / "cmyk.jpg").astype(int) - RED).max() <= 6


def test_16_bit_gray_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "gray.png")
    assert open_picture(tmp_path / "gray.png")[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_16_bit_gray_with_a_transparent_level_lies_on_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257]], dtype=np.uint16)).save(tmp_path / "gray.png", transparency=0)
    assert open_picture(tmp_path / "gray.png")[0].tolist() == [[255] * 3, [1] * 3]


def test_16_bit_rgb_is_scaled(tmp_path: Path) -> None:
    rgb = np.array([[[65535, 32896, 0]]], dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "rgb.png"), rgb[:, :, ::-1])
    assert open_picture(tmp_path / "rgb.png")[0, 0].tolist() == [255, 128, 0]


@pytest.mark.parametrize(
    ("levels", "message"),
    [(np.array([[0.5]], dtype=np.float32), "floating-point"), (np.array([[70000]], dtype=np.int32), "32-bit")],
)
def test_levels_without_a_fixed_white_are_an_error(tmp_path: Path, levels: np.ndarray, message: str) -> None:
    Image.fromarray(levels).save(tmp_path / "levels.tiff")
    with pytest.raises(PictureError, match=message):
        open_picture(tmp_path / "levels.tiff")


def test_exif_rotation_is_applied_unless_told_not_to(tmp_path: Path) -> None:
    image = _half("RGB", RED, BLACK)
    exif = image.getexif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees clockwise to be looked at
    image.save(tmp_path / "turned.png", exif=exif)
    turned = open_picture(tmp_path / "turned.png")
    assert turned.shape == (4, 2, 3) and (turned[:2] == RED).all() and (turned[2:] == BLACK).all()
    assert open_picture(tmp_path / "turned.png", rotate=False).shape == (2, 4, 3)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (3, 3), RED), Image.new("RGB", (3, 3), BLACK)
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert (open_picture(tmp_path / "moving.gif") == RED).all()


@pytest.mark.parametrize("size", [(1, 1), (5000, 4000)])
def test_very_small_and_very_large_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("L", size, 9).save(tmp_path / "picture.png", compress_level=1)
    picture = open_picture(tmp_path / "picture.png")
    assert picture.shape == (size[1], size[0], 3) and picture[0, 0].tolist() == [9, 9, 9]


def test_a_decompression_bomb_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (30, 30)).save(tmp_path / "large.png")
    for limit in (500, 100):  # Pillow warns above its limit and raises above its double
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(PictureError, match=f"more than {limit} pixels. Scale it down"):
            open_picture(tmp_path / "large.png")


def test_what_is_no_picture_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "empty.jpg").touch()
    for path, message in [
        (tmp_path / "nothing.jpg", "no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "notes.txt", "not a picture"),
        (tmp_path / "empty.jpg", "not a picture"),
    ]:
        with pytest.raises(PictureError, match=message) as error:
            open_picture(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "gif", "webp", "bmp"])
def test_a_truncated_picture_is_an_error_wherever_it_ends(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(whole)
    content = whole.read_bytes()
    for share in (0.05, 0.3, 0.6, 0.9):
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(PictureError, match="truncated or damaged|not a picture"):
            open_picture(cut)


# Pictures in memory


def test_an_rgb_array_is_the_picture_itself() -> None:
    levels = np.asarray(_half("RGB", RED, BLACK))
    assert as_picture(levels) is levels


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P"])
def test_paths_images_and_arrays_are_one_picture(tmp_path: Path, mode: str) -> None:
    image = _half("RGBA", (0, 90, 9, 51), (*RED, 255)).convert(mode)
    exif = image.getexif()
    exif[ORIENTATION] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    turned = open_picture(tmp_path / "turned.png")
    assert turned.shape == (4, 2, 3)
    for same in (tmp_path / "turned.png", str(tmp_path / "turned.png"), Image.open(tmp_path / "turned.png")):
        assert np.array_equal(as_picture(same), turned)
    if mode in ("RGB", "RGBA", "L"):
        for levels in (np.asarray(image), torch.from_numpy(np.array(image))):
            assert np.array_equal(
                as_picture(levels), as_picture(_half("RGBA", (0, 90, 9, 51), (*RED, 255)).convert(mode))
            )


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (np.zeros((2, 3, 3)), r"ndarray float64 \(2, 3, 3\)"),
        (np.zeros((2, 3), np.uint16), r"ndarray uint16 \(2, 3\)"),
        (np.zeros((3, 2, 2), np.uint8), r"ndarray uint8 \(3, 2, 2\)"),
        (np.zeros((0, 2, 3), np.uint8), r"ndarray uint8 \(0, 2, 3\)"),
        (torch.zeros(3, 8, 8), r"Tensor torch.float32 torch.Size\(\[3, 8, 8\]\)"),
        (torch.zeros(8, 8, 3, dtype=torch.bfloat16, requires_grad=True), r"Tensor torch.bfloat16"),
        (None, "NoneType"),
        ([[0, 1]], "list"),
    ],
)
def test_what_is_no_picture_in_memory_is_said_by_kind_and_shape(wrong: object, got: str) -> None:
    with pytest.raises(PictureError, match=rf"levels 0..255 of shape \(h, w, 3\), .* Got {got}.*[.]$"):
        as_picture(wrong)  # type: ignore[arg-type]
    with pytest.raises(PictureError, match="nowhere.png: no such file"):
        as_picture("nowhere.png")


# Masks


@pytest.mark.parametrize(
    "make",
    [
        lambda: _half("L", 255, 0),
        lambda: _half("L", 1, 0),
        lambda: _half("L", 250, 6),
        lambda: _half("1", 1, 0),
        lambda: _half("RGB", WHITE, BLACK),
        lambda: _palette(transparent=False),
        lambda: _half("RGBA", (0, 0, 0, 255), (255, 255, 255, 0)),
        lambda: _half("RGBA", (255, 255, 255, 255), (0, 0, 0, 255)),
        lambda: Image.fromarray(np.array([[1, 1, 0, 0]] * 2, dtype=np.uint16)),
    ],
    ids=["0/255", "0/1", "JPEG-like", "1 bit", "RGB", "P", "alpha", "opaque alpha", "16 bit of 0/1"],
)
def test_masks_of_every_mode(tmp_path: Path, make: Callable[[], Image.Image]) -> None:
    make().save(tmp_path / "mask.png")
    mask = as_mask(tmp_path / "mask.png", (2, 4))
    assert mask.dtype == np.bool_ and mask.tolist() == [[True, True, False, False]] * 2


def test_a_mask_of_another_size_is_scaled_and_of_another_aspect_ratio_refused(tmp_path: Path) -> None:
    _half("L", 255, 0).save(tmp_path / "mask.png")
    assert as_mask(tmp_path / "mask.png", (4, 8)).tolist() == [[True] * 4 + [False] * 4] * 4
    assert as_mask(tmp_path / "mask.png", (1, 2)).tolist() == [[True, False]]
    with pytest.raises(PictureError, match="the mask is 4 x 2 pixels, the picture 2 x 4 .*aspect ratio"):
        as_mask(tmp_path / "mask.png", (4, 2))


def test_a_scaled_mask_may_have_been_rounded_by_a_pixel(tmp_path: Path) -> None:
    _half("L", 255, 0).resize((320, 213)).save(tmp_path / "mask.png")
    assert as_mask(tmp_path / "mask.png", (427, 640)).shape == (427, 640)


def test_a_mask_is_rotated_by_its_own_exif_tag(tmp_path: Path) -> None:
    image = _half("L", 255, 0)
    exif = image.getexif()
    exif[ORIENTATION] = 6
    image.save(tmp_path / "mask.png", exif=exif)
    assert as_mask(tmp_path / "mask.png", (4, 2)).tolist() == [[True] * 2] * 2 + [[False] * 2] * 2


@pytest.mark.parametrize(("level", "message"), [(0, "the mask is empty"), (255, "covers the whole picture")])
def test_masks_without_object_or_background_are_errors(tmp_path: Path, level: int, message: str) -> None:
    Image.new("L", (4, 2), level).save(tmp_path / "mask.png")
    with pytest.raises(PictureError, match=message):
        as_mask(tmp_path / "mask.png", (2, 4))


def test_box_mask_holds_the_pixels_whose_centre_is_inside() -> None:
    assert box_mask((1, 0, 2, 1), (2, 4)).tolist() == [[False, True, True, False], [False] * 4]
    assert box_mask((0.6, 0.4, 1.0, 1.6), (2, 4)).tolist() == [[False, True, False, False]] * 2


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((3, 0, 2, 1), "must lie inside the picture of 4 x 2 pixels. Got x, y, width, height = 3, 0, 2, 1"),
        ((-1, 0, 2, 1), "must lie inside"),
        ((0, 1, 1, 2), "must lie inside"),
        ((0, 0, 0, 1), "must lie inside"),
        ((0, 0, float("nan"), 1), "must lie inside"),
        ((0, 0, 4, 2), "covers the whole picture"),
        ((0.6, 0, 0.2, 1), "empty"),
    ],
)
def test_boxes_that_cannot_be_used(box: tuple[float, float, float, float], message: str) -> None:
    with pytest.raises(PictureError, match=message):
        box_mask(box, (2, 4))
