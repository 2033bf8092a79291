"""One profile's run: pairs, scores, neuron sets, perturbations, each computed once and kept under results/<profile>/.

    study = Study(load_profile("embedded"))
    study.neurons("bear")      # loads, or computes this and whatever it needs
    study.perturbations()      # every concept; also written to results/embedded/perturbations.parquet

A concept's artefacts depend on that concept alone, but for perturbations, tried on other concepts' pictures too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Hashable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kn_core import diffusion_pipeline, filtering, identification, models, perturb, protocol, scenes
from kn_core.coco import CocoFolder, tokens_inside
from kn_core.inpaint import inpaint
from kn_core.models import PromptedDecoder, load_model
from kn_core.neurons import Capture, NeuronSet, Target, capture
from kn_core.profile import Perturbation, Profile
from kn_core.rivals import integrated_gradients
from kn_core.sample import Sample
from kn_core.store import Store, code, fingerprint, writing
from kn_core.training_data import held_out_ids

MODEL_CODE = ("models", "hooks", "gradients", "weights", "exported", "sample")
PAINT_CODE = ("inpaint", "diffusion", "diffusion_pipeline")
PICTURE_CODE = ("scenes", "coco", "coco_layout", "pictures")
PAIR_CODE = (*MODEL_CODE, *PAINT_CODE, *PICTURE_CODE, "filtering", "concepts", "study")
SCORE_CODE = (*MODEL_CODE, "neurons", "identification", "rivals", "controls", "study")
PERTURB_CODE = (*MODEL_CODE, "interventions", "perturb", "protocol", "metrics", "study")


class StudyError(RuntimeError):
    """A study cannot go on; the message says what is missing and what to do."""


class Study:
    """Load-or-compute for one profile, in `results/<profile>` unless a folder is given (`KN_RESULTS` for `results`).

    `model` is the profile's, for a caller who has loaded it already.
    """

    def __init__(self, profile: Profile, folder: Path | None = None, model: PromptedDecoder | None = None) -> None:
        self.profile = profile
        self.folder = folder or Path(os.environ.get("KN_RESULTS") or "results") / profile.name
        self.store = Store(self.folder / "parts")
        self._samples: dict[str, dict[str, Sample]] = {}
        self._means: dict[str, np.ndarray] = {}  # what `mean_activation` averages
        if model is not None:
            self.model = model

    @cached_property
    def model(self) -> PromptedDecoder:
        """The profile's model, loaded at the first need; a study whose artefacts are all on disk never loads it."""
        return load_model(self.profile)

    @cached_property
    def coco(self) -> CocoFolder:
        folder = os.environ.get("KN_COCO")
        if not folder:
            raise StudyError(
                f"The profile '{self.profile.name}' reads photographs. Name a COCO-format folder: "
                f"`make book PROFILE={self.profile.name} COCO=folder`, or KN_COCO=folder in the environment."
            )
        return CocoFolder(folder)

    # What the study looks at

    def samples(self, concept: str, only: Container[str] | None = None) -> Iterator[Sample]:
        """The pictures of a concept, at most `data.pool` of them; photographs that trained the projection come first.

        So that, where photographs are few, effects are measured on those that the model has never seen. `only` are the
        ids of those that are wanted; None: all.
        """
        self._check(concept)
        data = self.profile.data
        if data.source == "scenes":
            yield from scenes.samples(concept, data.pool, data.seed, only=only)
            return
        unseen = held_out_ids()
        found = sorted(self.coco.samples(concept, only), key=lambda sample: sample.image_id in unseen)
        yield from found[: data.pool]

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

    @property
    def n_layers(self) -> int:
        """L, read from the scores on disk, so that no model need be loaded for it."""
        return int(self.scores(self.studied()[0])["delta"].shape[1])

    def inputs(self, concept: str) -> str:
        """Digest of all that a concept's neurons follow from, for artefacts that are made of them."""
        return self._neuron_inputs(concept)

    # What it computes, in the order of the paper

    def pairs(self, concept: str | None = None) -> pd.DataFrame:
        """Pictures looked at, their captions, and which pairs were kept (`filtering.make_pairs`)."""
        return self._concepts("pairs", concept, self._pairs)

    def studied(self) -> list[str]:
        """The profile's concepts with at least two kept pairs: one to choose neurons on, one to try them on."""
        kept = self.pairs().query("kept").groupby("concept").size()
        return [concept for concept in self.profile.concepts if kept.get(concept, 0) >= 2]

    def scores(self, concept: str) -> dict[str, np.ndarray]:
        """Every method's scores of each selection pair (`identification.scores_of`), reduced over positions: (N, L, D).

        Those of Dai et al., the slow ones, are of the first `identification.dai_images` pairs, and are there where the
        profile asks for this rival.
        """
        found = self.store.arrays(f"scores-{concept}", self._score_inputs(concept), lambda: self._scores(concept))
        if "dai" in self.profile.perturbation.rivals:
            found["dai"] = self.store.arrays(f"dai-{concept}", self._dai_inputs(concept), lambda: self._dai(concept))[
                "dai"
            ]
        return found

    def thresholds(self, concept: str) -> dict[str, float]:
        """The concept's threshold of `delta` and of `gradcam`: set by hand, else a quantile of the pooled score."""
        pooled = self.pooled(concept)
        settings = self.profile.identification
        by_stage = {"delta": settings.threshold_a, "gradcam": settings.threshold_g}
        return {name: identification.threshold(rule, concept, pooled[name]) for name, rule in by_stage.items()}

    def pooled(self, concept: str) -> dict[str, np.ndarray]:
        """Every method's scores of a concept, pooled over its selection pictures: (L, D) each."""
        return identification.pooled(self.scores(concept), self.profile.identification)

    def neurons(self, concept: str | None = None) -> pd.DataFrame:
        """A concept's neurons by every method, and the draws of its controls, one row a neuron, the best first."""
        return self._concepts("neurons", concept, self._neurons)

    def neuron_set(self, concept: str, method: str = "two-stage", draw: int = 0) -> NeuronSet:
        """One neuron set of a concept. Raises StudyError where there are no such neurons."""
        neurons = self.neurons(concept)
        chosen = neurons[(neurons["method"] == method) & (neurons["draw"] == draw)]
        if chosen.empty:
            raise StudyError(
                f"No {method} neurons of '{concept}' (draw {draw}): none passed thresholds {self.thresholds(concept)}. "
                "Lower identification.threshold_a or threshold_g in the profile."
            )
        return NeuronSet.from_frame(chosen)

    def perturbations(self, concept: str | None = None) -> pd.DataFrame:
        """Captions and probabilities under every intervention of the profile, one row a picture, setting and seed."""
        return self._concepts("perturbations", concept, self._perturbations)

    def capture(self, concept: str, image_id: str) -> Capture:
        """All activations and gradients of one kept pair: what a heatmap needs. Not kept on disk (some 35 MB)."""
        row, sample = self._kept(concept, image_id), self.sample(concept, image_id)
        target, site = self.target(concept, image_id), self.profile.identification.site
        return capture(self.model, sample.image, self.inpainted(sample), row["caption"], target, site)

    def token_maps(self, concept: str, image_id: str) -> Tensor:
        """Where each image token looks in a picture, (P, rows * columns) of the model's grid."""
        return self.model.token_maps([self.sample(concept, image_id).image])[0]

    def target(self, concept: str, image_id: str) -> Target:
        """Where the caption of a kept pair names the concept."""
        row = self._kept(concept, image_id)
        return Target(row["target_word"], row["target_token"], row["target_position"])

    def _kept(self, concept: str, image_id: str) -> Mapping[Hashable, Any]:
        rows = self.pairs(concept).query("kept and image_id == @image_id").to_dict("records")
        if len(rows) != 1:
            raise StudyError(f"'{image_id}' is no kept pair of '{concept}'.")
        return rows[0]

    # How

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
            raise StudyError(f"No concept has two kept pairs; see {self.folder / 'pairs.parquet'}, column reason.")
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
        return fingerprint(concept, self._base, self.profile.fingerprint("filtering"), code(*PAIR_CODE))

    def _score_inputs(self, concept: str) -> str:
        settings = self.profile.identification
        return fingerprint(self._pair_inputs(concept), settings.site, settings.over_positions, code(*SCORE_CODE))

    def _dai_inputs(self, concept: str) -> str:
        return fingerprint(self._score_inputs(concept), self.profile.identification.dai_images)

    def _neuron_inputs(self, concept: str) -> str:
        protocol = self.profile.long.perturbation
        return fingerprint(
            self._score_inputs(concept),
            self.profile.fingerprint("identification"),
            (protocol.rivals, protocol.controls, protocol.draws, protocol.sweep_n),
        )

    def _trial_inputs(self, concept: str, profile: Profile) -> str:
        upstream = [self._neuron_inputs(concept), *(self._score_inputs(other) for other in self.studied())]
        return fingerprint(concept, upstream, profile.fingerprint("perturbation"), code(*PERTURB_CODE))

    def _pairs(self, concept: str) -> pd.DataFrame:
        def compute() -> pd.DataFrame:
            return filtering.make_pairs(self.model, self.samples(concept), self.profile)

        return self.store.table(f"pairs-{concept}", self._pair_inputs(concept), compute)

    def _scores(self, concept: str) -> Mapping[str, np.ndarray]:
        settings = self.profile.identification
        chosen = self.pairs(concept).query("role == 'select'")
        if chosen.empty:
            raise StudyError(
                f"No pair of '{concept}' passed the filters; see {self.folder / 'pairs.parquet'}, column reason."
            )
        found = []
        for image_id in chosen["image_id"]:
            pair, sample = self.capture(concept, image_id), self.sample(concept, image_id)
            maps = self.token_maps(concept, image_id).numpy()
            on_object = tokens_inside(sample.mask, self.model.grid, maps)
            target = self.target(concept, image_id)
            found.append(identification.scores_of(self.model, pair, target, settings, on_object))
        return {name: np.stack([scores[name] for scores in found]) for name in found[0]}

    def _dai(self, concept: str) -> Mapping[str, np.ndarray]:
        chosen = self.pairs(concept).query("role == 'select'").head(self.profile.identification.dai_images)
        found = [
            integrated_gradients(
                self.model, self.sample(concept, image_id).image, caption, self.target(concept, image_id)
            )
            for image_id, caption in zip(chosen["image_id"], chosen["caption"], strict=True)
        ]
        return {"dai": np.stack(found)}

    def _neurons(self, concept: str) -> pd.DataFrame:
        def compute() -> pd.DataFrame:
            scores, thresholds, protocol = (
                self.scores(concept),
                self.thresholds(concept),
                self.profile.long.perturbation,
            )
            settings, seed = self.profile.identification, self.profile.data.seed
            return identification.neurons(concept, self.model, scores, thresholds, settings, protocol, seed)

        return self.store.table(f"neurons-{concept}", self._neuron_inputs(concept), compute)

    @cached_property
    def effort(self) -> Profile:
        """The profile, or its long version: with EFFORT=full, or where all of that lies on disk already."""
        long = self.profile.long
        if os.environ.get("EFFORT") == "full" or all(
            self.store.holds(self._trials_name(name, long), self._trial_inputs(name, long)) for name in self.studied()
        ):
            return long
        return self.profile

    @property
    def tried(self) -> bool:
        """Whether the perturbations of every concept are on disk, made from what they would be made from now."""
        try:
            if not all(self.store.holds(f"pairs-{name}", self._pair_inputs(name)) for name in self.profile.concepts):
                return False
        except (FileNotFoundError, StudyError):  # no weights, no photographs: nothing can have been made from them
            return False
        profile, concepts = self.effort, self.studied()
        return bool(concepts) and all(
            self.store.holds(self._trials_name(name, profile), self._trial_inputs(name, profile)) for name in concepts
        )

    def _trials_name(self, concept: str, profile: Profile) -> str:
        return f"perturbations-{concept}" + ("-full" if profile != self.profile else "")

    def _perturbations(self, concept: str) -> pd.DataFrame:
        profile = self.effort
        name, inputs = self._trials_name(concept, profile), self._trial_inputs(concept, profile)
        return self.store.table(name, inputs, lambda: self._perturb(concept, profile.perturbation))

    def _perturb(self, concept: str, settings: Perturbation) -> pd.DataFrame:
        found = {method: self.neuron_set(concept, method) for method in ("two-stage", *settings.rivals)}
        draws: dict[str, list[NeuronSet]] = {
            kind: [self.neuron_set(concept, kind, i) for i in range(settings.draws)] for kind in settings.controls
        }
        pictures = self.pictures(concept, "select", settings.choosing) + self.pictures(concept, "held_out")
        for other in self.studied():
            if other != concept:
                pictures += self.pictures(other, "held_out", settings.others_per_concept)
        planned = list(protocol.trials(settings, self.profile.identification.budget, found, draws))
        needs_mean = any(trial.setting.intervention == "mean" for trial in planned)
        mean = self.mean_activation(without=concept) if needs_mean else None
        tokens, site = self.profile.model.max_new_tokens, self.profile.identification.site
        return perturb.run(self.model, pictures, planned, mean, tokens, site)

    def pictures(
        self, concept: str, role: Literal["select", "held_out"], first: int | None = None
    ) -> list[perturb.Picture]:
        """A concept's pairs of one role, all or the `first`, as embedded prompts with and without the object."""
        rows = self.pairs(concept).query("role == @role").to_dict("records")[:first]
        if not rows:
            return []
        samples = [self.sample(concept, row["image_id"]) for row in rows]
        shown = self.model.prompts([sample.image for sample in samples])
        without = self.model.prompts([self.inpainted(sample) for sample in samples])
        settings = self.effort.perturbation
        marked = [row["image_id"] for row in rows[: settings.choosing if role == "select" else settings.sweep_pictures]]
        return [
            perturb.Picture(
                image_id=row["image_id"],
                concept=concept,
                caption=row["caption"],
                target=self.target(concept, row["image_id"]),
                held_out=role == "held_out",
                chooses_dose=role == "select" and row["image_id"] in marked,
                swept=role == "held_out" and row["image_id"] in marked,
                prompt=prompt,
                prompt_inpainted=prompt_inpainted,
            )
            for row, prompt, prompt_inpainted in zip(rows, shown, without, strict=True)
        ]

    def mean_activation(self, without: str) -> Tensor:
        """Mean of O' over image tokens and selection pictures of the other concepts, (L, D): what 'mean' puts in."""
        others = [concept for concept in self.studied() if concept != without]
        if not others:
            raise StudyError(
                f"'mean' needs pictures of concepts other than '{without}', and none has two kept pairs. "
                "Take 'mean' out of the profile's perturbation.sweep_interventions."
            )
        for concept in others:
            if concept not in self._means:
                self._means[concept] = self.scores(concept)["activation"].mean(axis=0)
        means = [self._means[concept] for concept in others]
        return torch.from_numpy(np.mean(means, axis=0))
