"""A reader's own pictures and masks: any mode that Pillow opens becomes uint8 RGB, anything else one clear line."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

WHITE = (255, 255, 255, 255)


class PictureError(ValueError):
    """A picture, mask or box that cannot be used; the message is one line that says why and what to do."""


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
    return levels if channels == (3,) else _rgb(Image.fromarray(levels), "the picture")


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


def as_mask(mask: Picture, shape: tuple[int, int]) -> np.ndarray:
    """A mask as (h, w) bool, for a picture of `shape` = (h, w) as `as_picture` gives it: of any `Picture`, or bool.

    With transparency, the opaque part is the object; without, what is brighter than half of the brightest pixel, so
    that masks of 0 and 1, of 0 and 255, and JPEGs all work. The mask is rotated by its own EXIF tag, and scaled
    (nearest) if it has another size and the same aspect ratio.
    """
    path = mask if isinstance(mask, str | Path) else "the mask"
    if isinstance(mask, np.ndarray):
        mask = Image.fromarray(mask.astype(np.uint8) * 255) if mask.dtype == bool else Image.fromarray(as_picture(mask))
    levels = _mask_levels(_load(Path(mask) if isinstance(mask, str) else mask, rotate=True))
    marked = levels > levels.max() / 2
    (height, width), (rows, columns) = shape, marked.shape
    if abs(width * rows / height - columns) >= 1:  # one pixel: whoever scaled the mask had to round its size
        raise PictureError(
            f"{path}: the mask is {columns} x {rows} pixels, the picture {width} x {height} (as displayed, "
            "EXIF rotation applied). Draw the mask on the picture itself, or scale it with the aspect ratio kept."
        )
    if (rows, columns) != (height, width):
        marked = np.array(Image.fromarray(marked).resize((width, height), Image.Resampling.NEAREST))
    return _checked(marked, str(path))


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
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with contextlib.nullcontext(source) if isinstance(source, Image.Image) else Image.open(source) as image:
                image.load()
                return ImageOps.exif_transpose(image) if rotate else image.copy()
    except UnidentifiedImageError:
        formats = "PNG, JPEG, TIFF, WebP, GIF, ..."
        raise PictureError(f"{name}: not a picture in a format that Pillow reads ({formats}).") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(f"{name}: more than {Image.MAX_IMAGE_PIXELS:,} pixels. Scale it down first.") from None
    except FileNotFoundError:
        raise PictureError(f"{name}: no such file.") from None
    except IsADirectoryError:
        raise PictureError(f"{name}: is a folder. Give the path of one picture.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PictureError(f"{name}: truncated or damaged ({error}).") from error


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    """(h, w, 3) uint8 RGB, on white. `name` is what messages call the picture."""
    if image.mode.startswith("I"):
        return _from_16_bit(image, name)
    if image.mode == "F":
        raise PictureError(f"{name}: floating-point pixels have no fixed white. Save it with 8 or 16 bits a channel.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
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


def _mask_levels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image)
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
        if alpha.min() < alpha.max():
            return alpha
    return np.asarray(image.convert("RGB").convert("L"))


def _checked(mask: np.ndarray, source: str) -> np.ndarray:
    if not mask.any():
        raise PictureError(f"{source}: the mask is empty. Mark at least one pixel of the object.")
    if mask.all():
        raise PictureError(f"{source}: the mask covers the whole picture. Leave some background to compare with.")
    return mask
