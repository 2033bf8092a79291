"""Inpainting by a diffusion pipeline of diffusers, Stable Diffusion 2 inpainting unless the profile names another.

Where the paper inpaints photographs it must do something like this; with which model, resolution, prompt and seed it
does not say as far as we know, so all of that is a setting (`settings.Diffusion`). Painted pictures are kept in the
user's cache (`wheels.cache`), since one takes seconds on an accelerator and minutes without.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from kn_core.fingerprint import code, fingerprint, writing
from kn_core.pictures.diffusion_pipeline import DiffusionError, identity, load, not_installed, placed
from kn_core.pictures.image_files import PictureError, open_picture
from kn_core.pictures.sample import Sample
from kn_core.settings import Diffusion
from kn_core.weights.wheels import cache

log = logging.getLogger(__name__)

CELL = 8  # pixels a side that one latent of the pipeline stands for: the hole is painted in whole ones


def paint(samples: Sequence[Sample], holes: Sequence[np.ndarray], settings: Diffusion) -> list[np.ndarray]:
    """The samples' pictures with their holes (h, w) bool painted, (h, w, 3) uint8. Raises DiffusionError.

    A picture goes through the pipeline at `resolution`, its proportions kept, and comes back to its own size. Only the
    hole is taken from that, so that pixels outside it stay as they are, bit by bit. From the hole's edge inwards, over
    `blend` pixels, the painting fades in, but never on the object itself: there nothing is left of the picture. The
    noise follows from `seed` and the picture's id alone, so neither batches nor their order matter.
    """
    places = _places(samples, holes, settings)
    found = [_kept(path) for path in places]
    missing = [i for i, picture in enumerate(found) if picture is None]
    missing.sort(key=lambda i: _size(samples[i], settings))
    for size, group in groupby(missing, lambda i: _size(samples[i], settings)):  # a batch has one size
        while some := list(islice(group, settings.batch)):
            painted = _painted([samples[i] for i in some], [holes[i] for i in some], size, settings)
            for i, painting in zip(some, painted, strict=True):
                picture = pasted(samples[i], holes[i], painting, settings.blend)
                with writing(places[i]) as temporary:
                    Image.fromarray(picture).save(temporary, format="PNG")
                found[i] = picture
    return [picture for picture in found if picture is not None]


def pasted(sample: Sample, hole: np.ndarray, painting: np.ndarray, blend: int) -> np.ndarray:
    """The sample's picture with `painting` (h, w, 3) in the hole, faded in over `blend` pixels but on the object."""
    inwards = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # 1 at the hole's edge
    share = np.minimum(inwards / (blend + 1), 1)  # (h, w)
    share[sample.mask & hole] = 1
    mixed = sample.image + share[..., None] * (painting.astype(np.float32) - sample.image)
    return np.where(hole[..., None], np.rint(mixed).astype(np.uint8), sample.image)


def _painted(
    samples: Sequence[Sample], holes: Sequence[np.ndarray], size: tuple[int, int], settings: Diffusion
) -> Iterator[np.ndarray]:
    """What the pipeline makes of whole pictures of one size, back at their own sizes (h, w, 3) uint8."""
    pipeline = load(settings)
    known = inspect.signature(pipeline.__call__).parameters
    if settings.negative_prompt and "negative_prompt" not in known:
        raise DiffusionError(f"{type(pipeline).__name__} takes no negative prompt; leave the setting empty.")
    seeds = [int(fingerprint(settings.seed, sample.image_id)[:15], 16) for sample in samples]
    arguments: dict[str, Any] = {
        "prompt": [settings.prompt] * len(samples),
        "negative_prompt": [settings.negative_prompt] * len(samples),
        "image": [_hidden(sample, hole, size) for sample, hole in zip(samples, holes, strict=True)],
        "mask_image": [Image.fromarray(in_cells(hole, size).astype(np.uint8) * 255) for hole in holes],  # white: paint
        "height": size[0],
        "width": size[1],
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance,
        "strength": 1.0,  # from pure noise: nothing of what was in the hole
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],  # on the processor: the same everywhere
        "output_type": "np",
    }
    made = pipeline(**{name: value for name, value in arguments.items() if name in known})
    flagged = getattr(made, "nsfw_content_detected", None) or [False] * len(samples)
    for sample, painting, unsafe in zip(samples, made.images, flagged, strict=True):
        what = f"image {sample.image_id}, painted by {settings.pipeline} with seed {settings.seed},"
        if not np.isfinite(painting).all():
            fault = "has values that are no numbers, as half precision may give"
            raise DiffusionError(f"{what} {fault}. Set inpainting.diffusion.dtype to bfloat16 or float32.")
        if unsafe or not painting.any():
            fault = "the pipeline's safety checker took it for unsafe" if unsafe else "nothing was painted"
            raise DiffusionError(
                f"{what} came back black: {fault}. It is not used. Try another inpainting.diffusion.seed or prompt, "
                "leave the picture out, or name another pipeline."
            )
        picture = Image.fromarray(np.rint(painting * 255).astype(np.uint8))
        yield np.asarray(picture.resize(sample.image.shape[1::-1], Image.Resampling.LANCZOS))


def _hidden(sample: Sample, hole: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The picture at the pipeline's size, each pixel of the hole first replaced by the nearest one outside it.

    The pipeline hides the hole, but resizing would have spread the object's colours beyond it.
    """
    nearest = ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)
    return Image.fromarray(sample.image[tuple(nearest)]).resize(size[::-1], Image.Resampling.LANCZOS)


def in_cells(hole: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The hole at the pipeline's size, grown to whole cells, bool: what lies in it even in part is hidden and painted.

    Pipelines read a mask at one pixel a latent: a thin hole would fall between those, and the object be seen.
    """
    method = cv2.INTER_AREA if size[0] * size[1] < hole.size else cv2.INTER_LINEAR
    touched = cv2.resize(hole.astype(np.float32), size[::-1], interpolation=method) > 0
    cells = touched.reshape(size[0] // CELL, CELL, size[1] // CELL, CELL).any(axis=(1, 3))
    return np.kron(cells, np.ones((CELL, CELL), bool))


def _size(sample: Sample, settings: Diffusion) -> tuple[int, int]:
    """Height and width at which a picture is painted, in whole cells."""
    longer = max(sample.image.shape[:2])
    height, width = (max(1, round(side * settings.resolution / longer / CELL)) for side in sample.image.shape[:2])
    return height * CELL, width * CELL


# The cache


def _places(samples: Sequence[Sample], holes: Sequence[np.ndarray], settings: Diffusion) -> list[Path]:
    """Where painted pictures are kept, under a digest of all that decides what is painted. Raises DiffusionError."""
    try:
        release = version("diffusers")
    except PackageNotFoundError:
        raise not_installed() from None
    decides = settings.model_dump(exclude={"pipeline", "batch", "device"}) | {"dtype": str(placed(settings)[1])}
    made_with = fingerprint(identity(settings), decides, release, code(__name__))
    names = []
    for sample, hole in zip(samples, holes, strict=True):
        pixels = [sha256(array.tobytes()).hexdigest() for array in (sample.image, sample.mask, hole)]
        names.append(fingerprint(made_with, sample.image_id, sample.image.shape, pixels))
    return [cache() / "inpainted" / f"{name}.png" for name in names]


def _kept(path: Path) -> np.ndarray | None:
    try:
        return open_picture(path) if path.exists() else None
    except PictureError as error:
        log.warning("%s It is painted again.", error)
        return None
