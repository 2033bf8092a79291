"""A profile's pictures, and which pairs of them were kept: what a study begins with."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Container, Hashable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kn_core import models
from kn_core.fingerprint import at_home, code, digest, fingerprint, writing
from kn_core.method import filtering
from kn_core.method.capture import Target
from kn_core.models import CaptionModel, held_out_ids, load_model
from kn_core.pictures import coco_layout, diffusion_pipeline, scenes
from kn_core.pictures.coco import CocoFolder
from kn_core.pictures.inpaint import inpaint
from kn_core.pictures.sample import Sample
from kn_core.profile import Profile, load_profile, results
from kn_core.study.store import Store


class StudyError(RuntimeError):
    """A study cannot go on; the message says what is missing and what to do."""


class PairStudy:
    """The part of a `Study` that no neuron enters: its folder, its model, its pictures, its pairs."""

    def __init__(
        self, profile: Profile | str | Path, folder: Path | None = None, model: CaptionModel | None = None
    ) -> None:
        self.profile = profile if isinstance(profile, Profile) else load_profile(profile)
        self.folder = folder or results(self.profile.name)
        self.store = Store(self.folder / "parts")
        self._samples: dict[str, dict[str, Sample]] = {}
        self._photographs: dict[str, tuple[list[str], str]] = {}
        self._means: dict[str, np.ndarray] = {}  # what `mean_activation` averages
        if model is not None:
            self.model = model

    @cached_property
    def model(self) -> CaptionModel:
        """The profile's model, loaded at the first need; a study whose artefacts are all on disk never loads it."""
        return load_model(self.profile)

    @cached_property
    def coco(self) -> CocoFolder:
        return CocoFolder(self._photographs_folder())

    def _photographs_folder(self) -> Path:
        folder = os.environ.get("KN_COCO")
        if not folder:
            raise StudyError(
                f"The profile '{self.profile.name}' reads photographs. Name a COCO-format folder: `make book "
                f"PROFILE={shlex.quote(self.profile.said)} COCO=folder`, or KN_COCO=folder in the environment."
            )
        return at_home(folder)

    def look(self) -> None:
        """Raises, at once, all that the reader has to bring and that is not there: weights, photographs, an inpainter.

        What is wrong within them is found when they are read.
        """
        how = self.profile.inpainting
        lacking: list[Exception] = []
        looks: list[Callable[[], object]] = [lambda: models.identity(self.profile)]
        if self.profile.data.source == "coco":
            looks.append(lambda: coco_layout.located(self._photographs_folder()))
        if how.method == "diffusion":
            looks.append(lambda: diffusion_pipeline.look(how.diffusion))
        for there in looks:
            try:
                there()
            except (OSError, RuntimeError, ValueError) as error:  # each says what to do
                lacking.append(error)
        if len(lacking) == 1:
            raise lacking[0]
        if lacking:
            raise StudyError("\n".join(["this is missing.", *(f"{n}. {error}" for n, error in enumerate(lacking, 1))]))

    def samples(self, concept: str, only: Container[str] | None = None) -> Iterator[Sample]:
        """The pictures of a concept, at most `data.pool` of them, one at a time.

        `only` are the ids of those that are wanted; None: all.
        """
        self._check(concept)
        data = self.profile.data
        if data.source == "scenes":
            yield from scenes.samples(concept, data.pool, data.seed, only=only)
            return
        if only is None:
            self.coco.tell()
        wanted = (image_id for image_id in self.photographs(concept)[0] if only is None or image_id in only)
        yield from islice(self.coco.opened(concept, wanted), data.pool)

    def photographs(self, concept: str) -> tuple[list[str], str]:
        """Ids of a concept's photographs that are there, those that trained the projection first, and their digest.

        First, so that, where photographs are few, effects are measured on those that the model has never seen. The
        digest is of the names and sizes of all and of the content of as many as are looked at where none is broken;
        of no times, which differ from copy to copy.
        """
        if concept not in self._photographs:
            unseen = held_out_ids()
            there = sorted(self.coco.there(concept), key=lambda image_id: image_id in unseen)
            paths = [self.coco.path(image_id) for image_id in there]
            sizes = [(path.name, path.stat().st_size) for path in paths]
            content = [digest(path) for path in paths[: self.profile.data.pool] if os.access(path, os.R_OK)]
            self._photographs[concept] = there, fingerprint(there, sizes, content)
        return self._photographs[concept]

    def check(self) -> None:
        """Raises CocoError or SceneError for a concept that the pictures do not know, before anything is computed.

        Warns of what is left out of the photographs' annotations, and of photographs that are missing.
        """
        for concept in self.profile.concepts:
            if self.profile.data.source == "scenes":
                scenes.kind_of(concept)
            else:
                self.coco.there(concept)
        if self.profile.data.source == "coco":
            self.coco.tell()

    def sample(self, concept: str, image_id: str) -> Sample:
        """One picture of a concept by its id."""
        known = self._samples.setdefault(concept, {})
        if image_id not in known:
            known |= {sample.image_id: sample for sample in self.samples(concept, only={image_id})}
        try:
            return known[image_id]
        except KeyError:
            raise StudyError(f"No picture '{image_id}' among those of '{concept}'.") from None

    def inpainted(self, sample: Sample) -> np.ndarray:
        """The sample's picture without its object, as the profile's inpainter paints it."""
        how = self.profile.inpainting
        return inpaint(sample, how.method, how.dilation, how.diffusion)

    def pairs(self, concept: str | None = None) -> pd.DataFrame:
        """Pictures looked at, their captions, and which pairs were kept (`filtering.make_pairs`)."""
        return self._concepts("pairs", concept, self._pairs)

    def studied(self) -> list[str]:
        """The profile's concepts with at least two kept pairs: one to choose neurons on, one to try them on."""
        return list(self._studied)

    @cached_property
    def _studied(self) -> tuple[str, ...]:
        self.pairs()
        return tuple(concept for concept in self.profile.concepts if self.enough(concept))

    def enough(self, concept: str) -> bool:
        """Whether the concept itself has them; no other's pairs are asked for."""
        return bool(self.pairs(concept)["kept"].sum() >= 2)

    def shortage(self, *concepts: str) -> str:
        """Why these concepts, or all, have fewer than two kept pairs: the count of each reason, in lines."""
        lines, wanted = [], concepts or self.profile.concepts
        for concept in wanted:
            pairs = self.pairs(concept)
            failed = pairs.loc[~pairs["kept"], "reason"].value_counts().items()
            reasons = [f"{filtering.explain(str(name), self.profile.filtering)}: {count}" for name, count in failed]
            told = f"  {concept}: {len(pairs)} pictures looked at, {pairs['kept'].sum()} kept"
            lines.append(f"{told}; what the others lack: {'; '.join(reasons)}" if reasons else told)
            if self.profile.data.source == "coco":
                for image_id in self.photographs(concept)[0][: self.profile.data.pool]:
                    if image_id not in set(pairs["image_id"]):
                        self.coco.sample(concept, image_id)  # once more, for what is wrong with it
        if self.profile.data.source == "coco":
            lines += [f"  {line}" for line in (*self.coco.left_out.lines(), *self.coco.unusable.lines())]
        whose = ", ".join(f"'{concept}'" for concept in concepts)
        head = f"Fewer than two kept pairs of {whose}" if concepts else "No concept has two kept pairs"
        return "\n".join([f"{head}, one to choose neurons on and one to try them on.", *lines])

    def target(self, concept: str, image_id: str) -> Target:
        """Where the caption of a kept pair names the concept."""
        row = self._kept(concept, image_id)
        return Target(row["target_word"], row["target_token"], row["target_position"])

    def _kept(self, concept: str, image_id: str) -> Mapping[Hashable, Any]:
        rows = self.pairs(concept).query("kept and image_id == @image_id").to_dict("records")
        if len(rows) != 1:
            raise StudyError(f"'{image_id}' is no kept pair of '{concept}'.")
        return rows[0]

    def _check(self, concept: str) -> None:
        if concept not in self.profile.concepts:
            raise StudyError(
                f"'{concept}' is no concept of the profile '{self.profile.name}': {', '.join(self.profile.concepts)}."
            )

    def _concepts(self, name: str, concept: str | None, one: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
        """One concept's frame, or those of all, which are also written as one file for readers."""
        if concept is not None:
            self._check(concept)
            return one(concept)
        concepts = list(self.profile.concepts) if name == "pairs" else self.studied()
        if not concepts:
            raise StudyError(self.shortage())
        frame = pd.concat([one(concept) for concept in concepts], ignore_index=True)
        frame.attrs = {}
        with writing(self.folder / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
        return frame

    @cached_property
    def _base(self) -> str:
        """Digest of what every artefact depends on: the model's parts and the pictures."""
        profile = self.profile
        model = models.identity(profile)  # first: what a reader has to bring is named before anything else
        pictures = [] if profile.data.source == "scenes" else [self.coco.digest, sorted(held_out_ids())]
        how = profile.inpainting
        painter = [diffusion_pipeline.identity(how.diffusion)] if how.method == "diffusion" else []
        return fingerprint(profile.fingerprint("model", "data", "inpainting"), model, pictures, *painter)

    def _pair_inputs(self, concept: str) -> str:
        base = self._base  # first: what a reader has to bring is named before any picture
        pictures = [] if self.profile.data.source == "scenes" else [self.photographs(concept)[1]]
        return fingerprint(concept, base, self.profile.fingerprint("filtering"), code(__name__), *pictures)

    def _pairs(self, concept: str) -> pd.DataFrame:
        def compute() -> pd.DataFrame:
            return filtering.make_pairs(self.model, self.samples(concept), self.profile)

        return self.store.table(f"pairs-{concept}", self._pair_inputs(concept), compute)
