"""Photographs from any COCO-format folder: the pictures, masks and captions of a concept as `Sample`s."""

import difflib
import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from kn_core.pictures import coco_checks
from kn_core.pictures.coco_checks import Annotation, CocoError, Record
from kn_core.pictures.coco_layout import located
from kn_core.pictures.coco_outlines import Size, draw, same_proportions
from kn_core.pictures.image_files import PictureError, open_picture, turned_unseen
from kn_core.pictures.left_out import LeftOut
from kn_core.pictures.sample import Sample, fitted, scaled_down

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Instance:
    """One annotated object. A crowd is one region for many objects that nobody told apart: never a target."""

    concept: str
    mask: np.ndarray  # (h, w) bool, of the picture as `CocoFolder.picture` gives it
    crowd: bool


class CocoFolder:
    """A folder in COCO format, opened lazily: only the annotations are read, and checked (`coco_checks`), at once.

    Either `instances.json`, `captions.json` and `images/`, or the official layout `annotations/instances_<split>.json`,
    `annotations/captions_<split>.json` and `<split>/`; of several splits, `split` chooses one, or the path of its
    instances file in the folder's place. Another tool's json file may stand in the folder's place, too. Captions are
    optional. What cannot be used is left out and warned of in one line a kind: `left_out` has the entries of the
    annotations and the pictures that are missing, `unusable` what was found to be so when pictures were opened.

    Raises CocoError, or FileNotFoundError, for what cannot be read at all.
    """

    def __init__(self, folder: str | Path, split: str | None = None) -> None:
        self._layout = located(Path(folder), split)
        self.folder = self._layout.folder
        self.left_out, self.unusable = LeftOut(), LeftOut()
        instances, captions = self._layout.instances, self._layout.captions
        digest, raw = hashlib.sha256(), instances.read_bytes()
        digest.update(raw)
        found, what = coco_checks.parse(raw, instances, ("images", "annotations", "categories")), f"of {instances.name}"
        self._names = coco_checks.categories(found["categories"], f"categories {what}", self.left_out)
        self._records = coco_checks.records(found["images"], f"pictures {what}", self.left_out, {})
        files: dict[tuple[str, Size], str] = {}
        same = {each: files.setdefault((_slashed(one), self._frame(each)), each) for each, one in self._records.items()}
        self._annotations: defaultdict[str, list[Annotation]] = defaultdict(list)
        self._shown: defaultdict[str, set[str]] = defaultdict(set)  # ids of the pictures that show a concept
        for one in coco_checks.annotations(
            found["annotations"], f"annotations {what}", self.left_out, self._records, self._names
        ):
            one = replace(one, image_id=same[one.image_id])
            if not one.id or one not in self._annotations[one.image_id]:  # or else it is listed twice
                self._annotations[one.image_id].append(one)
                if not one.crowd:
                    self._shown[one.concept].add(one.image_id)
        self._captions: defaultdict[str, list[str]] = defaultdict(list)
        if captions.is_file():
            digest.update(raw := captions.read_bytes())
            self._read_captions(raw, captions, coco_checks.ids(found["images"]), same)
        for twin in (each for each, first in same.items() if each != first):
            why = "their file has another id before, whose picture has all that is said of both"
            self.left_out.add(f"pictures {what}", why, f"id {twin} ({_slashed(self._records[twin])})")
            del self._records[twin]
        self.digest = digest.hexdigest()[:16]  # of the annotations
        self._called = Counter(_last(record) for record in self._records.values())
        paths = map(self.path, self._records)
        if not self._layout.pictures.is_dir() and not any(map(os.path.isfile, paths)):
            raise FileNotFoundError(f"no pictures: {self._layout.pictures} is no folder, and the names lead nowhere.")

    def _read_captions(self, raw: bytes, path: Path, listed: set[str], same: Mapping[str, str]) -> None:
        """Captions, and the pictures that only they name. `listed`: ids that instances.json has, used or not.

        `same`: of its ids, the first with the same file.
        """
        found, what = coco_checks.parse(raw, path, ("images", "annotations")), f"of {path.name}"
        records = coco_checks.records(found["images"], f"pictures {what}", self.left_out, self._records)
        both = records.keys() & self._records.keys()
        moved = {image_id for image_id in both if _last(records[image_id]) != _last(self._records[image_id])}
        for image_id in sorted(moved, key=_numeric):
            self.left_out.add(f"pictures {what}", "another file under this id in the instances", f"id {image_id}")
        # An image record of instances.json wins: it is the one whose size the polygons refer to.
        self._records |= {key: record for key, record in records.items() if key not in listed}
        sure = self._records.keys() - moved - (coco_checks.ids(found["images"]) - records.keys())
        for image_id, said in coco_checks.captions(found["annotations"], f"captions {what}", self.left_out, sure):
            if said:
                self._captions[same.get(image_id, image_id)].append(said)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Every picture that the annotations or the captions name, in the order of the ids."""
        return tuple(sorted(self._records, key=_numeric))

    @property
    def concepts(self) -> tuple[str, ...]:
        """What is annotated with a mask, crowds aside, in alphabetical order."""
        return tuple(sorted(self._shown))

    def showing(self, concept: str) -> list[str]:
        """Ids of the pictures in which `concept` is annotated and not only as a crowd, in their order.

        Raises CocoError where it is no category.
        """
        if concept not in self._names.values():
            self.tell()  # it may be among what is left out
            known = sorted(self._names.values())
            near = difflib.get_close_matches(concept.lower(), known) or known
            raise CocoError(f"'{concept}' is no category of {self.folder}. Nearest: {', '.join(near) or 'none'}.")
        shown = self._shown.get(concept, set())
        for image_id, found in self._annotations.items():
            if image_id not in shown and any(one.concept == concept for one in found):
                self.left_out.add("pictures", "its object is marked as a crowd", f"id {image_id} ({concept})")
        return sorted(shown, key=_numeric)

    def there(self, concept: str) -> list[str]:
        """Those of `showing` whose picture's file is there."""
        paths = {image_id: self.path(image_id) for image_id in self.showing(concept)}
        missing = {image_id: path for image_id, path in paths.items() if not os.path.isfile(path)}  # noqa: PTH113
        for path in missing.values():
            self.left_out.add("pictures", "no such file", str(path))
        return [image_id for image_id in paths if image_id not in missing]

    def samples(self, concept: str, only: Container[str] | None = None) -> Iterator[Sample]:
        """The pictures in which `concept` is annotated, by id. The mask is the union of its instances, no crowds.

        `only` are the ids of those that are wanted; None: all. Others are not opened. A picture is read when it is
        asked for, and of more than `MAX_SIDE` pixels a side it is scaled down to that.
        """
        there = self.there(concept)
        if only is None:
            self.tell()
        yield from self.opened(concept, (image_id for image_id in there if only is None or image_id in only))

    def opened(self, concept: str, image_ids: Iterable[str]) -> Iterator[Sample]:
        """The samples of these pictures, one at a time; at the end a warning of those that were unusable."""
        try:
            for image_id in image_ids:
                if sample := self.sample(concept, image_id):
                    yield sample
        finally:
            self.unusable.tell(log)

    def sample(self, concept: str, image_id: str) -> Sample | None:
        """One picture with its objects of a concept; None, and an entry in `unusable`, where it cannot be had."""
        try:
            return self._sample(concept, image_id, self.picture(image_id))
        except PictureError as error:
            path = self.path(image_id)
            why = str(error).removeprefix(f"{path}: ").rstrip(".")
            of_a_kind = re.split(r" \(|: |\. ", why)[0]
            self.unusable.add("pictures", of_a_kind, f"{path}{why.removeprefix(of_a_kind)}")
            return None

    def tell(self) -> None:
        """Warn of what `left_out` holds, once."""
        self.left_out.tell(coco_checks.log)

    def outlines(self, concept: str) -> Iterator[Sample]:
        """The same by the annotations alone: every picture black, of the annotated size, whether it is there or not."""
        shown = self.showing(concept)
        self.tell()
        for image_id in shown:
            black = np.broadcast_to(np.uint8(0), (*fitted(self._frame(image_id)), 3))
            if sample := self._sample(concept, image_id, black):
                yield sample

    def _sample(self, concept: str, image_id: str, image: np.ndarray) -> Sample | None:
        mask, count = np.zeros(image.shape[:2], bool), 0
        for instance in self._instances(image_id, image.shape[:2], concept):
            if not instance.crowd:
                mask, count = mask | instance.mask, count + 1
        if not count:
            self.unusable.add("pictures", f"no mask of '{concept}' holds a pixel", self.path(image_id).name)
            return None
        others = tuple(sorted({one.concept for one in self._annotations[image_id]} - {concept}))
        resized = self.record(image_id)["resized"]
        return Sample(image_id, concept, image, mask, others, self.captions(image_id), count, resized=resized)

    def instances(self, image_id: str | int) -> list[Instance]:
        """Every annotated object of a picture, crowds too, as masks that lie on `picture`."""
        return list(self._instances(image_id, self.picture(image_id).shape[:2]))

    def captions(self, image_id: str | int) -> tuple[str, ...]:
        """What people said of the picture; empty if nobody was asked."""
        self.record(image_id)
        return tuple(self._captions.get(str(image_id), ()))

    def path(self, image_id: str | int) -> Path:
        """Where the picture lies or, if it is nowhere, should lie; nothing is opened."""
        record = self.record(image_id)
        return self._layout.picture(record["file_name"], alone=self._called[_last(record)] == 1)

    def picture(self, image_id: str | int) -> np.ndarray:
        """The picture, (h, w, 3) uint8, at most `MAX_SIDE` pixels a side, turned so that the masks lie on it.

        COCO annotates pixels as stored, other tools as displayed: where sizes do not tell, a `coco_url` does.
        Raises PictureError for one that is missing, broken, or of other proportions than annotated.
        """
        record, path = self.record(image_id), self.path(image_id)
        frame, official = (record["height"], record["width"]), bool(record.get("coco_url"))
        image = annotated_picture(path, frame, displayed=not official)
        if not official and not record.get("displayed") and turned_unseen(path):
            why = "an EXIF tag turns them, and sizes do not tell whether the annotations are turned, too"
            self.unusable.add("pictures", why, str(path), "taken as they are displayed")
        height, width = image.shape[:2]
        if record["height"] and not record["resized"] and not same_proportions(self._frame(image_id), (height, width)):
            annotated = f"annotated {record['width']} x {record['height']}"
            raise PictureError(f"{path}: of other proportions than annotated ({width} x {height} pixels, {annotated}).")
        return scaled_down(image)

    def record(self, image_id: str | int) -> Record:
        """What the annotations say of the picture itself: file_name, height and width, coco_url and more."""
        if str(image_id) not in self._records:
            raise CocoError(f"no image {image_id} among the {len(self._records)} of {self.folder}.")
        return self._records[str(image_id)]

    def _frame(self, image_id: str | int) -> Size:
        """What the annotations' coordinates refer to; whatever is annotated has one."""
        record = self.record(image_id)
        return record["height"], record["width"]

    def _instances(self, image_id: str | int, shape: Size, concept: str | None = None) -> Iterator[Instance]:
        for one in self._annotations.get(str(image_id), ()):
            if concept in (None, one.concept):
                mask = draw(one.parts, self._frame(image_id), shape)
                if mask.any():
                    yield Instance(one.concept, mask, one.crowd)
                else:
                    name = f"id {one.id} in {self.record(image_id)['file_name']}"
                    self.unusable.add("annotations", "no pixel of the picture in the mask", name)


def annotated_picture(path: Path, size: tuple[int | None, int | None], *, displayed: bool = False) -> np.ndarray:
    """The picture, (h, w, 3) uint8, as it is stored or as it is displayed, whichever has the annotated (h, w).

    Where both have that size, or neither, `displayed` decides.
    """
    likely = open_picture(path, rotate=displayed)
    other = likely if likely.shape[:2] == size else open_picture(path, rotate=not displayed)
    return other if other.shape[:2] == size else likely


def _slashed(record: Record) -> str:
    return str(record["file_name"]).replace("\\", "/")


def _last(record: Record) -> str:
    return PurePosixPath(_slashed(record)).name


def _numeric(image_id: str) -> tuple[int, str]:
    return len(image_id), image_id
