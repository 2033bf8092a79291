"""A study of one concept on a reader's own pictures: a profile made for their folder, and what its page shows.

    kn-core study --concept zebra --images DIR

Everything lies in one folder: what was gathered of the labels (`gathered`), artefacts as of any study (`parts`),
tables, the page. The same command goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path

import pandas as pd

from kn_core.concepts import ADJECTIVES, content_words, noun
from kn_core.fingerprint import writing
from kn_core.pictures import coco_checks
from kn_core.pictures.coco import CocoFolder
from kn_core.pictures.coco_checks import CocoError
from kn_core.pictures.inpaint import DILATION
from kn_core.pictures.labelled import gathered
from kn_core.profile import FILE_NAME, Profile
from kn_core.study import processes, run
from kn_core.study.experiments.curves import curves
from kn_core.study.progress import Progress
from kn_core.study.study import Study, StudyError

STAGES = ("pairs", "scores", "neurons", "perturbations", "curves", "heatmaps")
DRAWS = 5  # of each control, at least: a single draw says little on few pictures
RANKINGS = ("two-stage", "atp")  # that have a curve


class OwnStudy:
    """A concept's study in a folder; `notes` are what of the pictures is not used, or not as it was meant."""

    def __init__(self, profile: Profile, concept: str, images: Path, folder: Path) -> None:
        """Reads the annotations; no picture is opened. Raises CocoError where they hold nothing of the concept."""
        concept, made = noun(concept), folder / "gathered" / "instances.json"
        if not FILE_NAME.fullmatch(concept):
            raise StudyError(f"'{concept}' cannot name files: say --concept with letters, digits and blanks.")
        self.notes = gathered(images, concept, made)
        os.environ["KN_COCO"] = str(made.absolute())  # for the processes that compute
        self.coco = CocoFolder(made)
        self.shown = self.coco.there(concept)
        self.notes += self.coco.left_out.lines()
        if not self.shown:
            raise CocoError("\n  ".join([f"no picture of '{concept}' in {images} can be used.", *self.notes]))
        _of_these(folder, {"concept": concept, "images": str(images.resolve()), "profile": profile.said})
        self.concept, self.folder = concept, folder
        self.profile = made_for(profile, concept, len(self.shown))
        self.study = Study(self.profile, folder)
        self.study.coco = self.coco

    def compute(self, workers: int) -> Iterator[str]:
        """Compute all that the page shows; a line for each thing done. Raises StudyError where too few pairs pass."""
        with processes.pool(workers, Progress(), sparing=True) as pool:
            for done, line in enumerate(run.run(self.profile, self.folder, pool, among=STAGES), start=1):
                yield f"{done} of {len(STAGES)}: {line}"

    def tables(self) -> None:
        """Keep every frame that can be had, as CSV and as parquet; `lacking` says why the others cannot.

        Those of an earlier run go, as it may have had other pictures.
        """
        for old in (self.folder / "tables").glob("*.parquet"):
            old.with_suffix(".csv").unlink(missing_ok=True)
            old.unlink()
        study = self.study
        made = {"pairs": study.pairs, "neurons": study.neurons, "perturbations": study.perturbations}
        for name, make in (made | {"curves": partial(curves, study)}).items():
            if name == "pairs" or not self.lacking:
                try:
                    kept(self.folder, name, make(self.concept))
                except StudyError as error:
                    self.lacking = str(error)

    def unusable(self) -> list[str]:
        """What was found to be wrong when the pictures were opened, in lines."""
        pairs, wanted = self.study.pairs(self.concept), self.profile.data.select + self.profile.data.held_out
        if pairs["kept"].sum() < wanted:  # or else the rest was not looked at
            for image_id in set(self.shown).difference(pairs["image_id"]):
                self.coco.sample(self.concept, image_id)  # once more, for its fault
        return self.coco.unusable.lines()

    @cached_property
    def lacking(self) -> str:
        """Why there are no neurons, or not all that follows from them, and what would help; '' where all is there."""
        if self.study.enough(self.concept):
            return ""
        pairs = self.study.pairs(self.concept)
        said = Counter(word for caption in pairs["caption"] for word in {*content_words(caption)} - ADJECTIVES)
        told = [self.study.shortage(self.concept)]
        if said and (pairs["reason"] == "named").any():
            most = ", ".join(f"{word} ({count})" for word, count in said.most_common(8))
            told.append(f"  what the captions hold instead: {most}; --concept may be one of these")
        return "\n".join([*told, "  more pictures help; of a single one, `kn-core locate` tells"])


def _of_these(folder: Path, study: dict[str, str]) -> None:
    """Note what a folder's study is of. Raises StudyError where it holds another one, whose results would go."""
    noted = folder / "gathered" / "study.json"
    found = json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else study
    if found != study:
        of = ", ".join(f"{key} {value}" for key, value in found.items())
        raise StudyError(f"{folder} holds the study of {of}. Name another folder with --out, or remove that one.")
    with writing(noted) as temporary:
        temporary.write_text(json.dumps(study), encoding="utf-8")


def whole(profile: Profile, concept: str, images: Path, folder: Path, workers: int | None = None) -> Iterator[str]:
    """Everything, in lines of what is done: artefacts, tables, and `<concept>.html` where the book's code is at hand.

    Raises StudyError at the end where not all could be done; what could be is there.
    """
    with _silent(coco_checks.log):  # what is left out stands in the notes
        own = OwnStudy(profile, concept, images, folder)
        run.prepare([own.profile])
        yield f"{len(own.shown)} pictures of '{own.concept}'; results in {folder}"
        yield from (f"note: {note}" for note in own.notes)
        with suppress(StudyError):  # told below, with what would help
            yield from own.compute(workers or (2 if profile.model.device == "cpu" else 1))
        own.tables()
        try:  # the book imports this package, and a wheel of it comes without the book
            page = import_module("book.your_concept.page").render(own)
            yield f"Saved {page}, and its tables in {folder / 'tables'}"
        except ModuleNotFoundError as error:
            yield f"Saved tables in {folder / 'tables'}; no page without {error.name} (a checkout, `.[book]`)"
        if own.lacking:
            raise StudyError(own.lacking)


@contextmanager
def _silent(log: logging.Logger) -> Iterator[None]:
    """Warnings of `log` unsaid, and said again behind it."""
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def made_for(profile: Profile, concept: str, pictures: int) -> Profile:
    """The profile's model and method for one concept of so many photographs.

    No other concept is there: nothing is replaced by other concepts' mean, and none of their pictures captioned. Where
    the profile renders scenes without an object, photographs are painted over, as `locate` does.
    """
    trials = profile.perturbation
    swept = tuple(name for name in trials.sweep_interventions if name != "mean")
    main = "patch" if trials.intervention == "mean" else trials.intervention
    perturbation: dict[str, object] = {"others_per_concept": 0, "draws": max(DRAWS, trials.draws)}
    perturbation |= {"sweep_pictures": None, "sweep_interventions": swept, "intervention": main, "text_sigma": ()}
    drawn = profile.inpainting.method == "exact"
    found = profile.identification
    by_quantile = {name: {"quantile": getattr(found, name).quantile} for name in ("threshold_a", "threshold_g")}
    changes = {
        "name": f"study of {concept}",
        "concepts": (concept,),
        "ours": (concept,),
        "data": profile.data.model_dump() | {"source": "coco", "pool": pictures},
        "inpainting": {"method": "telea", "dilation": DILATION} if drawn else profile.inpainting.model_dump(),
        "identification": found.model_dump() | by_quantile,
        "perturbation": trials.model_dump() | perturbation,
        "ceiling": profile.ceiling.model_dump() | {"rankings": RANKINGS},
        "rules": profile.rules.model_dump() | {"kinds": (), "tried": ()},
        "full": {},
        "dask": None,
    }
    return Profile.model_validate(profile.model_dump() | changes)


def kept(folder: Path, name: str, frame: pd.DataFrame) -> None:
    """A frame as `tables/<name>.csv` and `.parquet`, each whole or not at all."""
    path = folder / "tables" / f"{name}.csv"
    with writing(path) as temporary:
        frame.to_csv(temporary, index=False)
    with writing(path.with_suffix(".parquet")) as temporary:
        frame.to_parquet(temporary, index=False)
