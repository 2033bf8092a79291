"""The kinds of objects that scenes show: their drawings, their size, and where they belong (`kinds.yaml`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kn_core.pictures.scenes.drawings import Drawing


@dataclass(frozen=True, eq=False)
class Kind:
    """What an object is. Where OpenMoji draws a kind both as a whole and as a face, the whole is taken."""

    name: str  # a COCO category's name where there is one
    drawings: tuple[Drawing, ...]  # each as probable as the others; a name may stand twice
    metres: float  # longest side of the real thing
    settings: Mapping[str, float]  # setting -> weight; at least three, so that no setting gives the kind away
    stage: str = "ground"  # 'ground', 'table', 'water' or 'sky': where it belongs, if the setting has it
    verbs: tuple[str, ...] = ("standing",)  # what it does on its stage; elsewhere it just stands


def _kind(name: str, entry: dict[str, Any]) -> Kind:
    drawings, verbs = tuple(map(Drawing.parse, entry["drawings"])), tuple(entry.get("verbs", ("standing",)))
    return Kind(name, drawings, entry["metres"], entry["settings"], entry.get("stage", "ground"), verbs)


_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))["kinds"]
KINDS: dict[str, Kind] = {name: _kind(name, entry) for name, entry in _TABLE.items()}
