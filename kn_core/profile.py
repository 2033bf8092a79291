"""A profile: everything that decides a run's numbers, in one YAML file, checked before anything is computed."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from kn_core.settings import (
    Checkpoint,
    Dask,
    Data,
    Faithfulness,
    Filtering,
    Identification,
    Inpainting,
    Model,
    Perturbation,
    Sensitivity,
    Settings,
)

# An installed package holds them; a checkout has them beside it.
PROFILES = next(folder / "profiles" for folder in Path(__file__).parents if (folder / "profiles").is_dir())


def results(profile: str) -> Path:
    """Where a profile's results lie: in `KN_RESULTS`, else in `results` of the checkout that runs, else in `results` here.

    From wherever a command is given, those of a checkout are the same.
    """
    installed = PROFILES.parent == Path(__file__).parent
    return Path(os.environ.get("KN_RESULTS") or ("results" if installed else PROFILES.with_name("results"))) / profile


class ProfileError(ValueError):
    """A profile that does not exist or does not make sense; the message names the key."""


FAMILIES = ("minigpt4", "transformers")


def _family(settings: Any) -> str:
    family = settings.get("family", "minigpt4") if isinstance(settings, dict) else getattr(settings, "family", "")
    return str(family)


class Profile(Settings):
    name: str
    concepts: Annotated[tuple[str, ...], Field(min_length=1)]
    ours: tuple[str, ...] = ()  # concepts that the paper's digest does not name
    shares_with_paper: tuple[Literal["data", "model"], ...] = ()  # what makes counts and thresholds comparable
    model: Annotated[
        Annotated[Model, Tag("minigpt4")] | Annotated[Checkpoint, Tag("transformers")], Discriminator(_family)
    ]
    data: Data
    inpainting: Inpainting
    filtering: Filtering
    identification: Identification
    perturbation: Perturbation = Perturbation()
    faithfulness: Faithfulness = Faithfulness()
    sensitivity: Sensitivity = Sensitivity()
    dask: Dask | None = None
    full: dict[str, dict[str, Any]] = Field(default={})  # group -> settings that the long version, EFFORT=full, changes

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if len(set(self.concepts)) != len(self.concepts):
            raise ValueError("concepts: every concept must be named once")
        if stray := set(self.ours) - set(self.concepts):
            raise ValueError(f"ours: {', '.join(sorted(stray))} must be among concepts")
        if self.inpainting.method == "exact" and self.data.source != "scenes":
            raise ValueError(
                "inpainting.method: 'exact' needs data.source 'scenes'; photographs have no exact counterfactual"
            )
        if self.filtering.area[0] >= self.filtering.area[1]:
            raise ValueError(f"filtering.area: the lower bound must be below the upper. Got {self.filtering.area}")
        for key in ("threshold_a", "threshold_g"):
            if stray := getattr(self.identification, key).by_hand.keys() - set(self.concepts):
                raise ValueError(f"identification.{key}.by_hand: {', '.join(sorted(stray))} must be among concepts")
        interventions = {self.perturbation.intervention, *self.perturbation.sweep_interventions}
        if "mean" in interventions and len(self.concepts) == 1:
            raise ValueError("perturbation: 'mean' is that of other concepts' pictures, and there is only one concept")
        if stray := self.full.keys() - {"perturbation", "faithfulness", "sensitivity"}:
            raise ValueError(
                f"full: only perturbation, faithfulness and sensitivity have a long version. Got {sorted(stray)}"
            )
        _ = self.long  # its settings must make sense too
        return self

    @property
    def parts(self) -> Model:
        """The parts of a model that is put together here. Raises ProfileError for one that comes whole."""
        if isinstance(self.model, Checkpoint):
            raise ProfileError(
                f"the model of '{self.name}' is a checkpoint ({self.model.checkpoint}): it has no parts."
            )
        return self.model

    @cached_property
    def long(self) -> Profile:
        """The profile with its `full` settings in the place of the short ones."""
        settings = self.model_dump() | {"full": {}}
        for group, changes in self.full.items():
            settings[group] = settings[group] | changes
        return Profile.model_validate(settings) if self.full else self

    def fingerprint(self, *parts: str) -> str:
        """Digest of all that decides numbers, or of the named parts of it."""
        settings = self.model_dump(mode="json", include=set(parts) if parts else None, exclude={"dask"})
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _key(place: tuple[int | str, ...]) -> list[str]:
    """A setting's place in the file: pydantic puts the model's family between, which stands there as a setting."""
    steps = [str(step) for step in place]
    return [step for i, step in enumerate(steps) if not (i == 1 and steps[0] == "model" and step in FAMILIES)]


def profile_names() -> list[str]:
    """The profiles that `load_profile` finds by name."""
    return sorted(found.stem for found in _folder().glob("*.yaml"))


def _folder() -> Path:
    return Path(os.environ.get("KN_PROFILES") or PROFILES)


def load_profile(name: str | Path) -> Profile:
    """The profile of that name, or of that YAML file. `KN_PROFILES` names another folder. Raises ProfileError.

    >>> load_profile("embedded").identification.budget
    80
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else _folder() / f"{name}.yaml"
    if not path.is_file():
        known = profile_names()
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ProfileError(f"No profile '{name}' ({path} does not exist).{hint} Known: {', '.join(known)}.")
    try:
        settings = yaml.safe_load(path.read_text())
        return Profile.model_validate(settings)
    except yaml.YAMLError as error:
        raise ProfileError(f"{path} is not YAML: {error}") from None
    except ValidationError as error:
        lines = [
            f"  {'.'.join(_key(e['loc'])) or path.name}: {e['msg']}. Got {e['input']!r:.80}." for e in error.errors()
        ]
        raise ProfileError("\n".join([f"{path} is no valid profile:", *lines])) from None
