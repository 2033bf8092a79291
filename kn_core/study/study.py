"""One profile's run: pairs, scores, neuron sets, perturbations, each computed once and kept under results/<profile>/.

    study = Study(load_profile("embedded"))
    study.neurons("bear")      # loads, or computes this and whatever it needs
    study.perturbations()      # every concept; also written to results/embedded/perturbations.parquet

A concept's artefacts depend on that concept alone, but for perturbations, tried on other concepts' pictures too.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from kn_core.fingerprint import code, fingerprint
from kn_core.method import perturbation, protocol
from kn_core.method.identification import AT_TEXT, at_text
from kn_core.method.two_stages import NeuronSet
from kn_core.pictures.coco_checks import CocoError
from kn_core.profile import Profile
from kn_core.settings import Perturbation
from kn_core.study.neurons import NeuronStudy
from kn_core.study.pairs import StudyError

__all__ = ["Study", "StudyError"]

Role = Literal["select", "held_out"]
PROMPTS = 2**28  # bytes of embedded pictures that a study keeps in memory


def long_asked() -> bool:
    """Whether EFFORT asks for the long version. Raises StudyError for what is none."""
    if (effort := os.environ.get("EFFORT") or "") not in ("", "full"):
        raise StudyError(f"EFFORT must be full, or not given. Got {effort!r}.")
    return bool(effort)


class Study(NeuronStudy):
    """Load-or-compute for one profile, in `kn_core.profile.results` unless a folder is given.

    `profile` is a `Profile`, its name or its file; `model` is the profile's, for a caller who has loaded it already.
    Nothing is computed before it is asked for; what is on disk and was made from the same settings, weights, pictures
    and code is loaded. Raises StudyError where something is missing, with what to do.

    >>> study = Study("embedded")
    >>> picture = next(study.samples("bear"))
    >>> picture.image.shape, study.inpainted(picture).shape
    ((256, 256, 3), (256, 256, 3))
    """

    def perturbations(self, concept: str | None = None) -> pd.DataFrame:
        """Captions and probabilities under every intervention of the profile, one row a picture, setting and seed."""
        return self._concepts("perturbations", concept, self._perturbations)

    @cached_property
    def effort(self) -> Profile:
        """The profile, or its long version: with EFFORT=full, or where all of that lies on disk already."""
        full = long_asked() or self._holds_trials(self.profile.long)
        return self.profile.long if full else self.profile

    def tried(self, concept: str | None = None) -> bool:
        """Whether the perturbations of one concept, or of all, are on disk, made from what they would be made from now.

        Nothing is computed for the answer.
        """
        return self._holds_trials(self.effort, concept)

    def _holds_trials(self, profile: Profile, concept: str | None = None) -> bool:
        try:
            if not all(self.store.holds(f"pairs-{name}", self._pair_inputs(name)) for name in self.profile.concepts):
                return False
        except (FileNotFoundError, CocoError, StudyError):  # no weights, no photographs: nothing was made from them
            return False
        concepts = [concept] if concept else self.studied()
        return bool(concepts) and all(
            self.store.holds(self._trials_name(name, profile), self._trial_inputs(name, profile)) for name in concepts
        )

    def pictures(self, concept: str, role: Role, first: int | None = None) -> list[perturbation.Picture]:
        """A concept's pairs of one role, all or the `first`, as embedded prompts with and without the object."""
        rows = self.pairs(concept).query("role == @role").to_dict("records")[:first]
        settings, known = self.effort.perturbation, self._embedded(concept, role, rows)
        marked = settings.choosing if role == "select" else settings.sweep_pictures
        few = {one.image_id for one in known[:marked]}
        clean = self.undisturbed(concept) if role == "held_out" else {}  # few of the others are disturbed
        return [
            replace(
                one,
                clean=[clean[one.image_id]] if clean else one.clean,
                chooses_dose=role == "select" and one.image_id in few,
                swept=role == "held_out" and one.image_id in few,
            )
            for one in known
        ]

    def undisturbed(self, concept: str) -> dict[str, perturbation.Undisturbed]:
        """What the model makes of its captions of a concept's held-out pairs, by image_id, with nothing disturbed."""

        def compute() -> pd.DataFrame:
            rows = self.pairs(concept).query("role == 'held_out'").to_dict("records")
            found = perturbation.undisturbed(self.model, self._embedded(concept, "held_out", rows))
            made = [(image_id, one.chances, one.perplexity) for image_id, one in found.items()]
            return pd.DataFrame(made, columns=["image_id", "chances", "perplexity"])

        inputs = fingerprint(self._pair_inputs(concept), code(perturbation.__name__))
        rows = self.store.table(f"undisturbed-{concept}", inputs, compute).itertuples(index=False)
        return {image_id: perturbation.Undisturbed(*found) for image_id, *found in rows}

    @cached_property
    def _known(self) -> dict[tuple[int, str, str], perturbation.Picture]:
        return {}

    def _embedded(self, concept: str, role: Role, rows: Sequence[Mapping[Hashable, Any]]) -> list[perturbation.Picture]:
        """Pictures of these pairs, without marks: the tower sees one once, as long as `PROMPTS` bytes of them last."""
        if not rows:
            return []
        keys = [(id(self.model), concept, row["image_id"]) for row in rows]
        missing = [row for key, row in zip(keys, rows, strict=True) if key not in self._known]
        samples = [self.sample(concept, row["image_id"]) for row in missing]
        prompts = self.model.prompts([sample.image for sample in samples]) if samples else ()
        without = self.model.prompts([self.inpainted(sample) for sample in samples]) if samples else ()
        made = {key: self._known.pop(key) for key in keys if key in self._known}  # the last asked for are kept longest
        for row, sample, shown, gone in zip(missing, samples, prompts, without, strict=True):
            key = id(self.model), concept, row["image_id"]
            said = row["caption"], self.target(concept, row["image_id"])
            held_out = role == "held_out"
            made[key] = perturbation.Picture(
                row["image_id"], concept, *said, held_out, False, False, shown, gone, sample.things
            )
        self._known |= made
        size = sum(prompt.nbytes for one in made.values() for prompt in (one.prompt, one.prompt_inpainted)) / len(made)
        while len(self._known) > max(len(made), PROMPTS / size):
            del self._known[next(iter(self._known))]
        return [made[key] for key in keys]

    def _trial_inputs(self, concept: str, profile: Profile) -> str:
        upstream = [self._neuron_inputs(concept), *(self._score_inputs(other) for other in self.studied())]
        return fingerprint(concept, upstream, profile.fingerprint("perturbation"), code(__name__))

    def _trials_name(self, concept: str, profile: Profile) -> str:
        return f"perturbations-{concept}" + ("-full" if profile != self.profile else "")

    def _perturbations(self, concept: str) -> pd.DataFrame:
        profile = self.effort
        name, inputs = self._trials_name(concept, profile), self._trial_inputs(concept, profile)
        return self.store.table(name, inputs, lambda: self.perturb(concept, profile.perturbation))

    def perturb(self, concept: str, settings: Perturbation, held_out: int | None = None) -> pd.DataFrame:
        """The rows that `settings` ask for, on all held-out pictures or the first; nothing is kept on disk."""
        found = {method: self.neuron_set(concept, method) for method in ("two-stage", *settings.rivals)}
        draws: dict[str, list[NeuronSet]] = {
            kind: [self.neuron_set(concept, kind, i) for i in range(settings.draws)] for kind in settings.controls
        }
        pictures = self.pictures(concept, "select", settings.choosing) + self.pictures(concept, "held_out", held_out)
        for other in self.studied() if settings.others_per_concept else ():
            if other != concept:
                pictures += self.pictures(other, "held_out", settings.others_per_concept)
        scored = [method for method in AT_TEXT if method in settings.rivals and settings.text_sigma]
        own_place = [self.neuron_set(concept, at_text(method)) for method in scored]
        planned = list(protocol.trials(settings, self.profile.identification, found, draws, own_place))
        mean = None
        if any(trial.setting.intervention == "mean" for trial in planned):
            try:
                mean = self.mean_activation(without=concept)
            except StudyError:  # this concept alone has pairs: one way to disturb is left out, and the rest is whole
                if settings.intervention == "mean":
                    raise
                planned = [trial for trial in planned if trial.setting.intervention != "mean"]
        return perturbation.run(self.model, pictures, planned, mean, self.profile.model.max_new_tokens)
