"""A reader's own pictures and masks: any mode that Pillow opens becomes uint8 RGB, anything else one clear line."""

import contextlib
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

# How the stored pixels are turned to be looked at, by what the EXIF tag says from 2 on.
_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
TURNS = {number: getattr(Image.Transpose, name) for number, name in enumerate(_TURNS, start=2)}
BACK = {TURNS[6]: TURNS[8], TURNS[8]: TURNS[6]}  # the other turns are their own way back


class PictureError(ValueError):
    """A picture, mask or box that cannot be used; the message is one line that says why and what to do."""


class MaskWarning(UserWarning):
    """What was taken for a mask of the object may be something else; the message is one line that asks."""


Picture = str | Path | Image.Image | np.ndarray
"""A file's path, a PIL image, or uint8 levels (h, w, 3) RGB, (h, w) gray, (h, w, 4) with transparency."""


def as_picture(picture: Picture) -> np.ndarray:
    """Whatever people hold a picture in, as (h, w, 3) uint8 RGB, by the rules of `open_picture`.

    An array that is uint8 RGB already is returned as it is. A uint8 tensor on the processor counts as an array, and a
    `Sample` as its image. Raises PictureError for anything else.
    """
    if isinstance(image := getattr(picture, "image", None), np.ndarray):
        return image
    if isinstance(picture, str | Path):
        return open_picture(picture)
    if isinstance(picture, Image.Image):
        return _rgb(_load(picture, rotate=True), "the picture")
    levels = _levels(picture)
    return levels if levels.ndim == 3 and levels.shape[2] == 3 else _rgb(Image.fromarray(levels), "the picture")


def _levels(picture: object) -> np.ndarray:
    """What is held in an array or a tensor, (h, w), (h, w, 3) or (h, w, 4) uint8. Raises PictureError."""
    levels: np.ndarray = np.empty(0)
    if hasattr(picture, "__array__"):
        with contextlib.suppress(TypeError, RuntimeError):  # a tensor on an accelerator, or of a graph
            levels = np.asarray(picture)
    channels = levels.shape[2:]
    if levels.dtype != np.uint8 or levels.ndim < 2 or levels.size == 0 or channels not in ((), (3,), (4,)):
        found = [type(picture).__name__, *(str(getattr(picture, what, "")) for what in ("dtype", "shape"))]
        raise PictureError(
            "a picture must be a file's path, a PIL image, or uint8 levels 0..255 of shape (h, w, 3), (h, w) or "
            f"(h, w, 4). Got {' '.join(filter(None, found))}."
        )
    return levels


def check_list(pictures: object) -> None:
    """Raises PictureError for one picture where a list of them is asked for."""
    if isinstance(pictures, str | Path | Image.Image) or (isinstance(pictures, np.ndarray) and pictures.ndim < 4):
        raise PictureError(f"pictures come in a list, also a single one: [picture]. Got {type(pictures).__name__}.")


def open_picture(path: str | Path, *, rotate: bool = True) -> np.ndarray:
    """The picture as it is looked at, (h, w, 3) uint8 RGB.

    Transparent parts lie on white, 16-bit levels are scaled to 8 bits (not clipped), CMYK and palettes are converted,
    an animation gives its first frame. `rotate` turns the picture as its EXIF tag says, as every viewer does.
    """
    return _rgb(_load(Path(path), rotate), str(path))


def turned_unseen(path: Path) -> bool:
    """Whether a picture's EXIF tag turns it so that its size stays: upside down, mirrored, or a square."""
    with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
        turn = _orientation(image)
        return turn in TURNS and (turn < 5 or image.width == image.height)


def as_mask(mask: Picture, shape: tuple[int, int]) -> np.ndarray:
    """A mask as (h, w) bool, for a picture of `shape` = (h, w) as `as_picture` gives it: of any `Picture`, or bool.

    With transparency, the opaque part is the object; without, what is brighter than half of the brightest pixel, so
    that masks of 0 and 1, of 0 and 255, and JPEGs all work. The mask is rotated by its own EXIF tag, and scaled
    (nearest) if it has another size and the same aspect ratio. Warns (MaskWarning) of what looks like no mask.
    """
    path = str(mask) if isinstance(mask, str | Path) else "the mask"
    source = mask if isinstance(mask, Image.Image | Path) else Path(mask) if isinstance(mask, str) else None
    if source is None:
        levels = np.asarray(mask)
        source = Image.fromarray(levels.astype(np.uint8) * 255 if levels.dtype == bool else _levels(mask))
    levels, pixels = _mask_levels(_load(source, rotate=True))
    marked = levels > levels.max() / 2
    (height, width), (rows, columns) = shape, marked.shape
    if abs(width * rows / height - columns) >= 1:  # one pixel: whoever scaled the mask had to round its size
        raise PictureError(
            f"{path}: the mask is {columns} x {rows} pixels, the picture {width} x {height} (as displayed, "
            "EXIF rotation applied). Draw the mask on the picture itself, or scale it with the aspect ratio kept."
        )
    _checked(marked, path)
    if doubts := f"{_pages(source)}{_doubts(marked, pixels)}":
        taken = "The object is taken to be what is opaque, or else brighter than half of the brightest."
        warnings.warn(f"{path}: {doubts} {taken}", MaskWarning, stacklevel=3)
    if (rows, columns) != (height, width):
        marked = np.array(Image.fromarray(marked).resize((width, height), Image.Resampling.NEAREST))
    return _checked(marked, path)


def _pages(source: Path | Image.Image) -> str:
    """What there is to ask where a mask is only the first of several in its file."""
    with contextlib.nullcontext(source) if isinstance(source, Image.Image) else Image.open(source) as image:
        pages = getattr(image, "n_frames", 1)
    return f"It has {pages} pages: is the whole object on the first? " if pages > 1 else ""


def box_mask(box: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre lies in a box (x, y, width, height), in pixels from the top left corner; (h, w) bool."""
    x, y, width, height = box
    rows, columns = shape
    if not (x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= columns and y + height <= rows):
        raise PictureError(
            f"box must lie inside the picture of {columns} x {rows} pixels. "
            f"Got x, y, width, height = {x:g}, {y:g}, {width:g}, {height:g}."
        )
    inside_x = (np.arange(columns) + 0.5 > x) & (np.arange(columns) + 0.5 < x + width)
    inside_y = (np.arange(rows) + 0.5 > y) & (np.arange(rows) + 0.5 < y + height)
    return _checked(inside_y[:, None] & inside_x, "box")


def _load(source: Path | Image.Image, rotate: bool) -> Image.Image:
    """The decoded first frame of a file, or of an image in memory; every way in which that can fail, in one line."""
    name = "the picture" if isinstance(source, Image.Image) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of tags that it cannot read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with contextlib.nullcontext(source) if isinstance(source, Image.Image) else Image.open(source) as image:
                return _turned(image, rotate)
    except UnidentifiedImageError:
        formats = "PNG, JPEG, TIFF, WebP, GIF, ..."
        raise PictureError(
            f"{name}: not a picture in a format that Pillow reads ({formats}), or one with a damaged beginning."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(f"{name}: more than {Image.MAX_IMAGE_PIXELS:,} pixels. Scale it down first.") from None
    except FileNotFoundError:
        raise PictureError(f"{name}: no such file.") from None
    except IsADirectoryError:
        raise PictureError(f"{name}: is a folder. Give the path of one picture.") from None
    except PermissionError:
        raise PictureError(f"{name}: may not be read (no permission).") from None
    except Exception as error:  # each of Pillow's decoders has its own for damaged files, KeyError and struct.error too
        raise PictureError(f"{name}: truncated or damaged ({error}).") from error


def _turned(image: Image.Image, rotate: bool) -> Image.Image:
    """A copy with the pixels turned as the EXIF tag says, or as they are stored; no other tag matters."""
    before = _orientation(image)
    if isinstance(image, ImageFile.ImageFile):
        # Of a file with a name Pillow maps the pixels of an uncompressed TIFF, by the size that they have when turned.
        name, image.filename = image.filename, ""
        try:
            image.load()
        finally:
            image.filename = name
    turn = TURNS.get(before)
    done = turn is not None and _orientation(image) != before  # a TIFF is turned by Pillow as it is decoded
    if turn is None or done == rotate:
        return image.copy()
    return image.transpose(BACK.get(turn, turn) if done else turn)


def _orientation(image: Image.Image) -> int:
    """What the EXIF tag says; 1, as stored, where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # tags are written by anything: TypeError, struct.error, SyntaxError, ... say that they are odd
        return 1


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    """(h, w, 3) uint8 RGB, on white. `name` is what messages call the picture."""
    if image.mode.startswith("I"):
        return _from_16_bit(image, name)
    if image.mode == "F":
        raise PictureError(f"{name}: floating-point pixels have no fixed white. Save it with 8 or 16 bits a channel.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _from_16_bit(image: Image.Image, name: str) -> np.ndarray:
    """Gray of 16 bits to RGB of 8: 65535 becomes 255. Pillow's own conversion clips at 255."""
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise PictureError(f"{name}: 32-bit levels have no fixed white. Save it with 8 or 16 bits a channel.")
    gray = np.rint(levels / 257).astype(np.uint8)
    if "transparency" in image.info:
        gray[levels == image.info["transparency"]] = 255
    return np.repeat(gray[:, :, None], 3, axis=2)


def _mask_levels(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """What says where the object is, (h, w): opacity or brightness; and the pixels that it is read from, (h, w, c)."""
    if image.mode.startswith("I") or image.mode == "F":
        levels = np.asarray(image)
        return levels, levels[:, :, None]
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
        if alpha.min() < alpha.max():
            return alpha, alpha[:, :, None]
    colours = image.convert("RGB")
    return np.asarray(colours.convert("L")), np.asarray(colours)


def _doubts(marked: np.ndarray, pixels: np.ndarray) -> str:
    """What makes a mask (h, w) read from pixels (h, w, c) look like something else, as questions; '' if nothing does.

    Beside the object's colour and the background's there are soft edges and JPEG's noise. Wider areas of one other
    colour are labels, and where a quarter of the picture has others it is a photograph.
    """
    doubts, share = [], marked.mean()
    edges = all(edge.any() for edge in (marked[0], marked[-1], marked[:, 0], marked[:, -1]))
    if edges or share > 0.5:
        where = " and touches all four edges" * edges
        doubts.append(f"It marks {share:.0%} of the picture{where}: is it inverted, or is the object an erased hole?")
    around = np.pad(marked, 1).astype(np.uint8)
    cv2.floodFill(around, None, (0, 0), 1)  # what stays 0 is enclosed
    parts = cv2.connectedComponentsWithStats(marked.astype(np.uint8), connectivity=8)[2][1:]
    *_, width, height, area = parts[parts[:, cv2.CC_STAT_AREA].argmax()]  # of the largest
    if (around == 0).mean() > share or area < 0.06 * width * height:
        doubts.append("It is thinner than what it encloses: is it an outline, or a scribble? Fill it.")
    elif share < 0.001:
        doubts.append(f"It marks {share:.2%} of the picture: is it a click? Mark the whole object.")
    step = -(-max(marked.shape) // 1024)
    marked, seen = marked[::step, ::step], pixels[::step, ::step].astype(np.float32)
    if marked.any() and not marked.all():
        two = [np.median(seen[where], axis=0) for where in (marked, ~marked)]
        contrast = np.abs(two[0] - two[1]).max()
        away = np.min([np.abs(seen - colour).max(axis=2) for colour in two], axis=0)
        labels = len(np.unique(seen.reshape(-1, seen.shape[2]), axis=0)) <= 64  # no compression, no soft edges
        window = np.ones((5, 5), np.uint8)
        change = (cv2.dilate(seen, window) - cv2.erode(seen, window)).reshape(seen.shape).max(axis=2)
        flat = (change <= (0 if labels else 8)) & (away > (0 if labels else contrast / 4))
        if (away > contrast / 8).mean() > 0.25 and not labels:
            doubts.append("It holds many levels: is it the photo itself, or an overlay on it?")
        elif flat.mean() > 0.003:
            doubts.append("It holds areas of three levels or more: labels, class colours, or parts of a photo?")
    return " ".join(doubts)


def _checked(mask: np.ndarray, source: str) -> np.ndarray:
    if not mask.any():
        raise PictureError(f"{source}: the mask is empty. Mark at least one pixel of the object.")
    if mask.all():
        raise PictureError(f"{source}: the mask covers the whole picture. Leave some background to compare with.")
    return mask
