"""Where a scene plays: how the place is drawn, what belongs there, and how people say so (`settings.yaml`)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kn_core.pictures.scenes import indoors, outdoors
from kn_core.pictures.scenes.page import Page


@dataclass(frozen=True, eq=False)
class Setting:
    """A kind of place. A stage is where in it something is: on the 'ground', a 'table', the 'water', in the 'sky'."""

    name: str
    draw: Callable[[Page], None]
    horizon: tuple[float, float]  # range of the y, in percent, at which ground or floor begins
    nouns: tuple[str, ...]  # the place by itself
    empty: tuple[str, ...]  # the place when nothing is in it
    places: Mapping[str, tuple[str, ...]]  # stage -> where something there is said to be
    telling: tuple[str, ...]  # what names this place and no other in a caption, in the singular
    elsewhere: tuple[str, ...] = ()  # phrases that hold such a word and name another place
    table: bool = True  # whether a table can be put up here

    def stage(self, wished: str) -> str:
        """Where something stands here that belongs on `wished`: there, if there is such a stage, else on the first."""
        possible = wished in self.places or (wished == "table" and self.table)
        return wished if possible else next(iter(self.places))

    def where(self, stage: str) -> tuple[str, ...]:
        """Phrases that say where something on a stage is: 'in a green field', 'on a table in a green field'."""
        if stage in self.places:
            return self.places[stage]
        return (f"on a table {self.places['ground'][0]}",)

    def named(self, caption: str) -> bool:
        """Whether a caption says that this is the place."""
        said = caption.lower()
        for phrase in self.elsewhere:
            said = said.replace(phrase, "")
        return any(re.search(rf"\b{word}(?:s|es|y)?\b", said) for word in self.telling)


def _setting(name: str, entry: dict[str, Any]) -> Setting:
    draw = getattr(outdoors if hasattr(outdoors, name) else indoors, name)
    said = {key: tuple(entry[key]) for key in ("horizon", "nouns", "empty")}
    telling, elsewhere = tuple(entry["telling"]), tuple(entry.get("not", ()))
    places = {stage: tuple(phrases) for stage, phrases in entry["places"].items()}
    table = entry.get("table", True)
    return Setting(name, draw, **said, places=places, telling=telling, elsewhere=elsewhere, table=table)  # type: ignore[arg-type]


_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SETTINGS: dict[str, Setting] = {name: _setting(name, entry) for name, entry in _TABLE.items()}
