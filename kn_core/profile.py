"""A profile: everything that decides a run's numbers, in one YAML file, checked before anything is computed."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Hashable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, PrivateAttr, Tag, ValidationError, model_validator

from kn_core.concepts import noun, slug
from kn_core.fingerprint import at_home
from kn_core.settings import (
    Ceiling,
    Checkpoint,
    Choices,
    Count,
    Dask,
    Data,
    Editor,
    Faithfulness,
    Filtering,
    Identification,
    Inpainting,
    Model,
    Ownership,
    Perturbation,
    Positive,
    Rules,
    Sensitivity,
    Settings,
)

# Groups with a long version.
LONG = ("ceiling", "choices", "editing", "faithfulness", "ownership", "perturbation", "rules", "sensitivity")

# An installed package holds them; a checkout has them beside it.
PROFILES = next(folder / "profiles" for folder in Path(__file__).parents if (folder / "profiles").is_dir())
ENDINGS = (".yaml", ".yml")
FILE_NAME = re.compile(r"\w([\w .,'&()+=@-]*[\w)])?")  # on any system: results are kept under these names


def results(profile: str) -> Path:
    """Where a profile's results lie: `KN_RESULTS`, else `results` of the checkout that runs, else `results` here.

    From wherever a command is given, those of a checkout are the same.
    """
    own = "results" if PROFILES.parent == Path(__file__).parent else PROFILES.with_name("results")  # installed, or not
    here = Path(os.environ.get("KN_HERE") or ".")  # make says where the reader stands
    return here / at_home(os.environ.get("KN_RESULTS") or own) / profile


class ProfileError(ValueError):
    """A profile that does not exist or does not make sense; the message names the key."""


class Editing(Settings):
    """Edits of a concept's name into another's (`method.editors`), made on selection pictures, judged on held-out ones.

    The first editor, with the first set at its first strength, is the main one: it was chosen on selection pictures.
    """

    editors: tuple[Editor, ...] = ("driven", "swap")
    sets: tuple[str, ...] = ("third stage", "random")  # the neurons that edits are restricted to
    compared: Count | None = 3  # concepts with controls, other editors and questions; others, the main edit alone
    all_sets: bool = False  # for every editor, not the main one alone
    all_pairs: bool = False  # every other concept's name, by the main editor; else the next concept's
    strengths: dict[Editor, tuple[Positive, ...]] = Field(
        default={
            "swap": (2.0, 3.0, 5.0),
            "ridge": (1.0, 2.0, 4.0),
            "unembedding": (0.25, 0.5, 1.0),
            "dai": (0.1, 0.3, 1.0),
        }
    )  # of which selection pictures choose one for every edit; 1 where none is named
    all_doses: bool = False  # with the first set every strength too, for the plane of success against locality
    budget: Count = 400  # neurons, of a swap half of them the other word's
    layer: Annotated[int, Field(ge=0)] = 2  # up to which 'ridge' writes
    pictures: Count = 10  # selection pictures of the concept
    optimised: Count = 2  # of these, for editors that run the model on them
    others: Count = 2  # selection pictures of each other concept, whose captions are to stay
    towards: Count = 3  # of the concept whose name is taken
    learnt: Annotated[int, Field(ge=0)] = 1  # of the edit's own pictures, judged too
    judged: Count = 3  # held-out pictures of the concept
    judged_others: Count = 3  # held-out pictures of other concepts, one of each in turn
    without: Annotated[int, Field(ge=0)] = 1  # pictures without the object
    light: Count = 2  # pictures of each kind for what is not the main edit
    ported: Annotated[int, Field(ge=0)] = 1  # held-out pictures asked about otherwise
    phrasings: tuple[str, ...] = ()  # other texts after the image tokens
    poll: Annotated[str, Field(pattern=r"^$|\{word\}")] = ""  # one that asks for {word}, to be answered yes or no
    texts: bool = True  # whether sentences without a picture are tried
    zeroed: Count = 2  # held-out pictures of the concept on which sets are set to zero, for transfer
    sizes: tuple[Count, ...] = (1, 2, 5, 10, 20, 40)  # numbers of selection pictures, as far as there are so many
    extra: Annotated[int, Field(ge=0)] = 0  # of these, drawn anew beside the profile's own, where it draws scenes


FAMILIES = ("minigpt4", "transformers")


def _family(settings: Any) -> str:
    family = settings.get("family", "minigpt4") if isinstance(settings, dict) else getattr(settings, "family", "")
    return str(family)


class Profile(Settings):
    name: str  # its file's, without the ending: results lie under it
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
    ceiling: Ceiling = Ceiling()
    faithfulness: Faithfulness = Faithfulness()
    ownership: Ownership = Ownership()
    sensitivity: Sensitivity = Sensitivity()
    rules: Rules = Rules()
    choices: Choices = Choices()
    editing: Editing = Editing()
    dask: Dask | None = None
    full: dict[str, dict[str, Any]] = Field(default={})  # group -> settings that the long version, EFFORT=full, changes
    _file: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        for key, names in (("name", (self.name,)), ("concepts", self.concepts)):
            for bad in (name for name in names if not FILE_NAME.fullmatch(name)):
                raise ValueError(
                    f"{key}: {bad!r} cannot name files: letters, digits, blanks and -_.,'&()+=@ between them can"
                )
        for phrase in (each for each in self.concepts if noun(each) != each):
            raise ValueError(f"concepts: {phrase!r} is more than the word, {noun(phrase)!r}")
        if len({slug(concept).lower() for concept in self.concepts}) != len(self.concepts):
            raise ValueError("concepts: every concept must be named once, whatever its case, blanks and hyphens")
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
        if stray := self.full.keys() - set(LONG):
            raise ValueError(f"full: only {', '.join(LONG)} have a long version. Got {sorted(stray)}")
        _ = self.long  # its settings must make sense too
        return self

    def __eq__(self, other: object) -> bool:
        """Whether the settings are the same, whatever file they stand in."""
        return isinstance(other, Profile) and self.model_dump() == other.model_dump()

    @property
    def said(self) -> str:
        """What a command names the profile by: its name, or its file where that lies in a folder of its own."""
        return self.name if self._file is None or self._file.parent == PROFILES else str(self._file)

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

    def with_concept(self, concept: str) -> Profile:
        """The same settings with one concept more, where it is none of the profile's: results lie side by side."""
        if concept in self.concepts:
            return self
        more = Profile.model_validate(self.model_dump() | {"concepts": (*self.concepts, concept)})
        more._file = self._file
        return more

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
    return sorted({file.stem for file in _files()})


def _folder() -> Path:
    return at_home(os.environ.get("KN_PROFILES") or PROFILES)


def _files() -> list[Path]:
    """Those of the reader's folder, and the shipped ones that none of these has the name of."""
    own = _in(_folder())
    return own + [file for file in _in(PROFILES) if file.stem not in {other.stem for other in own}]


def _in(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*")) if file.suffix in ENDINGS and file.is_file()]


def nearest(name: str, known: Iterable[str]) -> str:
    """'Did you mean ...?' with the closest of the known names, whatever their case, else all of them."""
    names = {each.lower(): each for each in sorted(known)}
    close = difflib.get_close_matches(name.lower(), names, n=1)
    return f"Did you mean '{names[close[0]]}'?" if close else f"Known: {', '.join(names.values()) or 'none'}."


def profile_file(name: str | Path, here: str | Path = ".") -> Path:
    """The file of a profile: that of a path, which ends in .yaml or .yml and may be relative to `here`, else of a name.

    Raises ProfileError where there is none, or where two files bear one name: their results would lie in one folder.
    """
    files, path = _files(), Path(here, at_home(name))
    if not (path.suffix in ENDINGS and path.is_file()):
        missing, known = path if path.suffix in ENDINGS else f"{_folder() / name}.yaml", [file.stem for file in files]
        path = next((file for file in files if str(name) in (file.stem, file.name)), Path())
        if path == Path():
            hint = nearest(Path(name).stem, known)
            also = "" if hint.startswith("Known") else f" Known: {', '.join(known)}."
            raise ProfileError(f"No profile '{name}' ({missing} does not exist). {hint}{also}")
    for other in files:
        if other.stem == path.stem and not other.samefile(path):
            raise ProfileError(f"{path} and {other} have one name, so one folder of results. Rename one of them.")
    return path.parent.resolve() / path.name  # as it is called: where a link leads may have another name


def load_profile(name: str | Path) -> Profile:
    """The profile of that name, in the folder `KN_PROFILES` or a shipped one, or of that file. Raises ProfileError.

    >>> load_profile("embedded").identification.budget
    80
    """
    return read(profile_file(name))


class _Yaml(yaml.SafeLoader):
    """YAML without two traps: no key stands twice, of which the last would count, and 010 is ten, not eight."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if key.value != "<<"]
        for twice in (key for key in keys if keys.count(key) > 1):
            raise yaml.MarkedYAMLError("a group of settings", node.start_mark, f"holds '{twice}' twice")
        return super().construct_mapping(node, deep)


_Yaml.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def read(path: Path) -> Profile:
    """The profile of a file, whatever others bear its name. Raises ProfileError."""
    try:
        settings = yaml.load(path.read_bytes(), _Yaml)  # noqa: S506 (a SafeLoader); bytes are UTF-8, or UTF-16 behind its mark
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that is none
        raise ProfileError(f"{path} is not YAML in UTF-8 or UTF-16: {error}") from None
    if isinstance(settings, dict):
        if (own := str(settings.get("name", path.stem))) != path.stem:
            why = f"A profile's name is its file's, '{path.stem}', as of its results"
            raise ProfileError(f"{path} names itself '{own}'. {why}: take the line out, or rename the file.")
        settings["name"] = path.stem
    try:
        profile = Profile.model_validate(settings)
    except ValidationError as error:
        said = [(".".join(_key(e["loc"])) or path.name, e["msg"], e["input"]) for e in error.errors()]
        lines = [f"  {where}: {why}. Got {got!r:.80}." for where, why, got in said]
        raise ProfileError("\n".join([f"{path} is no valid profile:", *lines])) from None
    profile._file = path
    return profile
