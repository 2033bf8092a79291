"""Photographs from any COCO-format folder: the pictures, masks and captions of a concept as `Sample`s."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import json
import logging
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO

from kn_core.pictures.coco_layout import folder_and_split, layout
from kn_core.pictures.image_files import PictureError, open_picture
from kn_core.pictures.sample import Sample
from kn_core.pictures.token_grid import resize_mask

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Instance:
    """One annotated object. A crowd is one region for many objects that nobody told apart: never a target."""

    concept: str
    mask: np.ndarray  # (h, w) bool, at the resolution of the picture's file
    crowd: bool


class CocoFolder:
    """A folder in COCO format, opened lazily: only the annotations are read at once.

    Either `instances.json`, `captions.json` and `images/`, or the official layout `annotations/instances_<split>.json`,
    `annotations/captions_<split>.json` and `<split>/`; of several splits, `split` chooses one, or the path of its
    instances file in the folder's place. Captions are optional. Pictures that are missing or broken, and annotations
    without a usable mask, are left out, warned of once, and listed in `skipped`, with the reason.
    """

    def __init__(self, folder: str | Path, split: str | None = None) -> None:
        self.folder, split = folder_and_split(Path(folder), split)
        instances, captions, self._pictures = layout(self.folder, split)
        files = [path.read_bytes() for path in (instances, captions) if path.is_file()]
        self.digest = hashlib.sha256(b"".join(files)).hexdigest()[:16]  # of the annotations
        self._coco = _read(instances, {"images", "annotations", "categories"})
        self._names = {category["id"]: category["name"] for category in self._coco.dataset["categories"]}
        if unknown := {a["category_id"] for a in self._coco.dataset["annotations"]} - self._names.keys():
            raise ValueError(f"{instances} is not COCO json: categories {sorted(unknown)} are annotated, not listed.")
        self._targets = [a for a in self._coco.dataset["annotations"] if not a.get("iscrowd")]
        self._captions: defaultdict[str, list[str]] = defaultdict(list)
        self._records: dict[str, dict[str, Any]] = {}
        if captions.is_file():
            captioned = _read(captions, {"images", "annotations"})
            self._records |= {str(record["id"]): record for record in captioned.dataset["images"]}
            for annotation in captioned.dataset["annotations"]:
                if caption := " ".join(annotation["caption"].split()):
                    self._captions[str(annotation["image_id"])].append(caption)
        # An image record of instances.json wins: it is the one whose size the polygons refer to.
        self._annotated = {str(record["id"]) for record in self._coco.dataset["images"]}
        self._records |= {str(record["id"]): record for record in self._coco.dataset["images"]}
        self.skipped: dict[str, str] = {}  # file or annotation -> why it was left out so far

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Every picture that the annotations or the captions name, in the order of the ids."""
        return tuple(sorted(self._records, key=_numeric))

    def samples(self, concept: str, only: Container[str] | None = None) -> Iterator[Sample]:
        """The pictures in which `concept` is annotated, by id. The mask is the union of its instances, no crowds.

        `only` are the ids of those that are wanted; None: all. Others are not opened.
        """
        missing: dict[str, str] = {}
        for image_id in self._showing(concept):
            if only is not None and image_id not in only:
                continue
            path = self.path(image_id)
            if not path.exists():
                missing[path.name] = f"{path}: no such file."
                continue
            try:
                image = self.picture(image_id)
            except PictureError as error:
                self._skip(path.name, str(error))
                continue
            if sample := self._sample(concept, image_id, image):
                yield sample
        if new := [name for name in missing if name not in self.skipped]:  # in one line: there may be thousands
            more = f" and {len(new) - 1:,} more" if len(new) > 1 else ""
            log.warning("skipped %s%s: no such file in %s", new[0], more, self._pictures)
        self.skipped = missing | self.skipped

    def outlines(self, concept: str) -> Iterator[Sample]:
        """The same by the annotations alone: every picture black, of the annotated size, whether it is there or not.

        For what depends on the masks and is to be known before a picture is fetched.
        """
        for image_id in self._showing(concept):
            record = self.record(image_id)
            black = np.broadcast_to(np.uint8(0), (record["height"], record["width"], 3))
            if sample := self._sample(concept, image_id, black):
                yield sample

    def _showing(self, concept: str) -> list[str]:
        if concept not in self._names.values():
            known = list(self._names.values())
            near = difflib.get_close_matches(concept.lower(), known) or sorted(known)
            raise ValueError(f"'{concept}' is no category of {self.folder}. Nearest: {', '.join(near)}.")
        annotated = {str(a["image_id"]) for a in self._targets if self._names[a["category_id"]] == concept}
        return sorted(annotated & self._annotated, key=_numeric)

    def _sample(self, concept: str, image_id: str, image: np.ndarray) -> Sample | None:
        instances = self._instances(image_id, image, concept)
        masks = [instance.mask for instance in instances if not instance.crowd]
        if not masks:
            self._skip(self.path(image_id).name, f"no usable mask of '{concept}'")
            return None
        return Sample(
            image_id=image_id,
            concept=concept,
            image=image,
            mask=np.logical_or.reduce(masks),
            others=tuple(sorted({self._names[a["category_id"]] for a in self._annotations(image_id)} - {concept})),
            references=self.captions(image_id),
            n_instances=len(masks),
            resized=bool(self.record(image_id).get("resized", False)),
        )

    def instances(self, image_id: str | int) -> list[Instance]:
        """Every annotated object of a picture, crowds too, as masks at the resolution of its file."""
        return self._instances(image_id, self.picture(image_id))

    def captions(self, image_id: str | int) -> tuple[str, ...]:
        """What people said of the picture; empty if nobody was asked."""
        self.record(image_id)
        return tuple(self._captions.get(str(image_id), ()))

    def path(self, image_id: str | int) -> Path:
        """Where the picture should lie; nothing is opened."""
        return Path(self._pictures, self.record(image_id)["file_name"])

    def picture(self, image_id: str | int) -> np.ndarray:
        """The picture, (h, w, 3) uint8, turned so that the masks lie on it. A missing or broken one: `PictureError`."""
        record = self.record(image_id)
        return annotated_picture(self.path(image_id), (record.get("height"), record.get("width")))

    def record(self, image_id: str | int) -> dict[str, Any]:
        """What the annotations say of the picture itself: file_name, height and width, coco_url and more."""
        try:
            return self._records[str(image_id)]
        except KeyError:
            raise ValueError(f"no image {image_id} among the {len(self._records)} of {self.folder}.") from None

    def _instances(self, image_id: str | int, image: np.ndarray, concept: str | None = None) -> list[Instance]:
        record, found = self.record(image_id), []
        for annotation in self._annotations(image_id):
            name = self._names[annotation["category_id"]]
            if concept not in (None, name):
                continue
            mask = _mask(annotation.get("segmentation"), (record["height"], record["width"]), image.shape[:2])
            if mask is None or not mask.any():
                self._skip(f"{record['file_name']}, annotation {annotation['id']}", "no usable mask")
                continue
            found.append(Instance(name, mask, bool(annotation.get("iscrowd"))))
        return found

    def _annotations(self, image_id: str | int) -> list[dict[str, Any]]:
        return list(self._coco.imgToAnns.get(self.record(image_id)["id"], []))

    def _skip(self, name: str, reason: str) -> None:
        if name not in self.skipped:
            log.warning("skipped %s: %s", name, reason)
            self.skipped[name] = reason


def annotated_picture(path: Path, size: tuple[int | None, int | None]) -> np.ndarray:
    """The picture, (h, w, 3) uint8, as it is stored or as it is displayed, whichever has the annotated (h, w).

    COCO annotates the pixels as stored, other tools annotate them as displayed. If neither has that size, as stored.
    """
    stored = open_picture(path, rotate=False)
    displayed = stored if stored.shape[:2] == size else open_picture(path)
    return displayed if displayed.shape[:2] == size else stored


def _mask(segmentation: Any, frame: tuple[int, int], shape: tuple[int, int]) -> np.ndarray | None:
    """One annotation as a mask of `shape` (h, w). Polygons are in the frame's pixels, run lengths bring theirs."""
    height, width = shape
    if isinstance(segmentation, dict):
        packed = not isinstance(segmentation["counts"], list)
        run_lengths = segmentation if packed else rle.frPyObjects(segmentation, *segmentation["size"])
        mask = rle.decode(run_lengths).astype(bool)
        return mask if mask.shape == shape else resize_mask(mask, shape)
    scale = np.array([width / frame[1], height / frame[0]])
    polygons = [(np.reshape(p, (-1, 2)) * scale).ravel().tolist() for p in segmentation or [] if len(p) >= 6]
    return rle.decode(rle.merge(rle.frPyObjects(polygons, height, width))).astype(bool) if polygons else None


def _read(path: Path, needed: set[str]) -> COCO:
    """The annotations of one file, indexed; pycocotools prints while it reads, this does not."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(path))
    except (json.JSONDecodeError, AssertionError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not COCO json ({error}).") from error
    if missing := needed - coco.dataset.keys():
        raise ValueError(f"{path} is not COCO json: it has no {' and no '.join(sorted(missing))}.")
    return coco


def _numeric(image_id: str) -> tuple[int, str]:
    return len(image_id), image_id
