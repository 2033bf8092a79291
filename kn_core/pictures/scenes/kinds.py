"""The kinds of objects that scenes show: their drawings, their size, and where they belong (`kinds.yaml`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kn_core.pictures.scenes.drawings import Drawing

ROLES = ("select", "held_out")  # of a picture: it chooses neurons, or they are tried on it


@dataclass(frozen=True, eq=False)
class Kind:
    """What an object is. Where a kind is drawn both as a whole and as a face, the whole is taken."""

    name: str  # a COCO category's name where there is one
    drawings: tuple[Drawing, ...]
    metres: float  # longest side of the real thing
    settings: Mapping[str, float]  # setting -> weight; at least three, so that no setting gives the kind away
    stage: str = "ground"  # 'ground', 'table', 'water' or 'sky': where it belongs, if the setting has it
    verbs: tuple[str, ...] = ("standing",)  # what it does on its stage; elsewhere it just stands

    def outlines(self, role: str = "") -> tuple[str, ...]:
        """Which drawings it has, whatever their paint; for a role, every other one: those of the two share none."""
        found = tuple(dict.fromkeys(drawing.outline for drawing in self.drawings))
        return found[ROLES.index(role) :: 2] if role and len(found) > 1 else found

    def drawing(self, rng: np.random.Generator, role: str = "") -> Drawing:
        """An outline by chance, each as probable as the others, and then its paint."""
        outlines = self.outlines(role)
        outline = outlines[rng.integers(len(outlines))]
        painted = [drawing for drawing in self.drawings if drawing.outline == outline]
        return painted[rng.integers(len(painted))]


def _kind(name: str, entry: dict[str, Any]) -> Kind:
    drawings, verbs = tuple(map(Drawing.parse, entry["drawings"])), tuple(entry.get("verbs", ("standing",)))
    return Kind(name, drawings, entry["metres"], entry["settings"], entry.get("stage", "ground"), verbs)


_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))["kinds"]
KINDS: dict[str, Kind] = {name: _kind(name, entry) for name, entry in _TABLE.items()}
