import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from kn_core.pictures.image_files import MaskWarning, PictureError, as_mask, as_picture, box_mask, open_picture

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


def _turned_jpeg(path: Path, odd: dict[int, object]) -> None:
    """Stored lying, and other tags of types and values that Pillow cannot write again."""
    entries = sorted({ORIENTATION: (3, 1, struct.pack("<HH", 6, 0))} | odd)
    tags = {ORIENTATION: (3, 1, struct.pack("<HH", 6, 0))} | odd
    ifd = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHI", tag, *tags[tag][:2]) + tags[tag][2] for tag in entries
    )
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd + bytes(40)
    _half("RGB", RED, BLACK).resize((32, 16), Image.Resampling.NEAREST).save(path, quality=95, exif=exif)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {0x010F: (3, 1, struct.pack("<HH", 7, 0))},  # a number for the maker's name
        {0x0100: (2, 4, b"wide")},  # a text for a number
        {0x0100: (5, 1, struct.pack("<I", 40)), 0x011A: (2, 4, b"abc\0")},
        {0x0132: (10, 1, struct.pack("<I", 9_999))},  # beyond the end
        {0x8769: (4, 1, struct.pack("<I", 4_000_000))},
        {0xB20D: (12, 4, struct.pack("<I", 0)), 0x0103: (4, 1, struct.pack("<I", 2**32 - 1))},
    ],
)
def test_a_photo_is_turned_whatever_its_other_tags_hold(
    tmp_path: Path, odd: dict[int, object], recwarn: pytest.WarningsRecorder
) -> None:
    _turned_jpeg(tmp_path / "photo.jpg", odd)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = Image.open(tmp_path / "photo.jpg")
    for picture in (tmp_path / "photo.jpg", opened):
        turned = as_picture(picture)
        assert turned.shape == (32, 16, 3) and turned[4, 8, 0] > 200 and turned[28, 8, 0] < 50
    assert open_picture(tmp_path / "photo.jpg", rotate=False).shape == (16, 32, 3)
    assert not recwarn.list


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "I;16", "1"])
def test_a_tiff_is_turned_once_from_a_file_and_in_memory(tmp_path: Path, mode: str, compression: str | None) -> None:
    stored = Image.new("L", (4, 2), 0)
    for i in range(3):
        stored.putpixel((i, i % 2), 255)
    stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257) if mode == "I;16" else stored.convert(mode)
    stored.save(tmp_path / "plain.png" if mode != "CMYK" else tmp_path / "plain.tiff")
    upright = open_picture(next(tmp_path.glob("plain.*")))
    turns = [
        upright,
        upright[:, ::-1],
        upright[::-1, ::-1],
        upright[::-1],
        upright.swapaxes(0, 1),
        np.rot90(upright, -1),
    ]
    turns += [np.rot90(upright, 2).swapaxes(0, 1), np.rot90(upright)]
    for orientation, turned in enumerate(turns, start=1):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stored.save(tmp_path / "turned.tiff", exif=exif, compression=compression)
        assert np.array_equal(open_picture(tmp_path / "turned.tiff"), turned)
        with Image.open(tmp_path / "turned.tiff") as image:
            assert np.array_equal(as_picture(image), turned) and np.array_equal(as_picture(image), turned)
        assert np.array_equal(open_picture(tmp_path / "turned.tiff", rotate=False), upright)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (3, 3), RED), Image.new("RGB", (3, 3), BLACK)
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert (open_picture(tmp_path / "moving.gif") == RED).all()


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
    _half("L", 255, 0).resize((320, 213)).save(tmp_path / "mask.png")  # rounded by a pixel
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


def _object(size: tuple[int, int] = (200, 150)) -> Image.Image:
    image = Image.new("L", size)
    ImageDraw.Draw(image).ellipse((50, 40, 120, 110), fill=255)
    return image


def _outline() -> Image.Image:
    image = Image.new("L", (200, 150))
    ImageDraw.Draw(image).ellipse((0, 40, 120, 149), outline=255, width=3)
    return image


def _drawn_on(draw: Callable[[ImageDraw.ImageDraw], None]) -> Image.Image:
    draw(ImageDraw.Draw(image := Image.new("L", (200, 150))))
    return image


def _pages(first: Image.Image, *others: Image.Image) -> Image.Image:
    first.save(file := io.BytesIO(), "TIFF", save_all=True, append_images=others)
    return Image.open(file)


def _photo() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((200, 150), Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    image.save(file := io.BytesIO(), "JPEG", quality=quality)
    return Image.open(file)


def _drawn(mode: str, *fills: object) -> Image.Image:
    image = Image.new(mode, (200, 150))
    for i, fill in enumerate(fills):
        ImageDraw.Draw(image).rectangle((20 + 60 * i, 40, 60 + 60 * i, 90), fill=fill)  # type: ignore[arg-type]
    return image


def _hole() -> Image.Image:
    erased = _photo()
    erased.putalpha(Image.eval(_object(), lambda level: 255 - level))
    return erased


def _cutout() -> Image.Image:
    cut = _photo()
    cut.putalpha(_object())
    return cut


def _void() -> Image.Image:
    labels = _drawn("L", 1)
    ImageDraw.Draw(labels).rectangle((18, 38, 62, 92), outline=255, width=3)
    return labels


def _said(mask: Image.Image | np.ndarray) -> str:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        as_mask(mask, (150, 200))
    assert len(said) <= 1 and all(each.category is MaskWarning for each in said)
    return " ".join(str(each.message) for each in said)


@pytest.mark.parametrize(
    ("make", "question"),
    [
        (lambda: Image.eval(_object(), lambda level: 255 - level), "marks 87% .* all four edges: is it inverted"),
        (_hole, "erased hole"),
        (_photo, "is it the photo itself, or an overlay"),
        (lambda: Image.blend(_photo(), Image.new("RGB", (200, 150), "red"), 0.4), "an overlay"),
        (lambda: _jpeg(_photo(), 60), "the photo itself"),
        (_outline, "is it an outline"),
        (lambda: _drawn_on(lambda draw: draw.arc((20, 20, 120, 120), 90, 360, fill=255, width=2)), "a scribble"),
        (lambda: _drawn_on(lambda draw: draw.point((50, 50), fill=255)), "marks 0.00% .* is it a click"),
        (lambda: _pages(_object(), _object()), "It has 2 pages"),
        (lambda: _drawn("L", 1, 2), "labels"),
        (lambda: _drawn("L", 3, 15, 255), "labels"),
        (lambda: _drawn("RGB", (128, 0, 0), (0, 128, 0)), "class colours"),
        (lambda: _jpeg(_drawn("RGB", (64, 0, 128), (192, 128, 128)), 70), "class colours"),
        (_void, "labels"),
        (lambda: np.asarray(_drawn("L", 7, 9)), "labels"),
    ],
)
def test_what_looks_like_no_mask_is_asked_about(make: Callable[[], Image.Image], question: str) -> None:
    with pytest.warns(MaskWarning, match=rf"^the mask: .*{question}"):
        as_mask(make(), (150, 200))


@pytest.mark.parametrize(
    "make",
    [
        _object,
        _cutout,
        lambda: np.asarray(_object()) > 0,
        lambda: Image.fromarray((np.asarray(_object()) > 0).astype(np.uint8)),
        lambda: _drawn("L", 255, 255),
        lambda: _drawn("RGB", (255, 0, 0)),
        *(lambda quality=quality: _jpeg(_object(), quality) for quality in (95, 50, 10)),
        *(lambda radius=radius: _object().filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 3, 6)),
        lambda: _object().resize((25, 19)).resize((200, 150), Image.Resampling.BICUBIC),
    ],
)
def test_soft_edges_and_compression_are_no_reason_to_ask(make: Callable[[], Image.Image]) -> None:
    assert _said(make()) == ""


def test_the_opaque_part_of_an_array_is_the_object_too() -> None:
    assert np.array_equal(as_mask(np.asarray(_cutout()), (150, 200)), as_mask(_cutout(), (150, 200)))


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
