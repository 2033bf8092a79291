"""Every choice that the paper leaves open or we make otherwise: `paper/departures.yml`, filled from a profile."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pandas as pd
import yaml
from pandas.io.formats.style import Styler
from pydantic import BaseModel, ConfigDict, model_validator

from book import tables
from kn_core.profile import Profile
from kn_core.settings import Checkpoint, Threshold

PARTS = ("model.tower", "model.decoder", "model.projection")  # a checkpoint holds them under one name
DEPARTURES = Path(__file__).parents[2] / "paper" / "departures.yml"


class Departure(BaseModel):
    """One question, the paper's answer and ours: the profile's value at `setting`, or `here` in words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    paper: str
    setting: str | None = None
    here: str | None = None
    instead: str = ""
    why: str

    @model_validator(mode="after")
    def _one_answer(self) -> Departure:
        if (self.setting is None) == (self.here is None):
            raise ValueError(f"{self.question}: exactly one of 'setting' and 'here' says what is done")
        return self


def answers(profile: Profile) -> pd.DataFrame:
    """One row a choice: question, the paper, here, setting (in the profile), instead (what else there is), why."""
    rows = []
    for entry in yaml.safe_load(DEPARTURES.read_text(encoding="utf-8")):
        one = Departure.model_validate(entry)
        here, instead = one.here or "", one.instead
        if one.setting is not None:
            if isinstance(profile.model, Checkpoint) and one.setting in PARTS:
                here, instead = f"part of the checkpoint {profile.model.checkpoint}", ""
            else:
                value, annotation = _at(profile, one.setting)
                here, instead = _words(value), instead or ", ".join(_others(annotation, value))
        rows.append((one.question, one.paper, here, one.setting or "", instead, one.why))
    return pd.DataFrame(rows, columns=["question", "the paper", "here", "setting", "instead", "why"])


def choices(profile: Profile) -> Styler:
    """`answers` for a reader: the setting below its question, what else there is below what was done."""
    rows = answers(profile)
    marked = ["question", "setting", "here", "instead"]
    rows[marked] = rows[marked].map(html.escape)
    rows["question"] += "<small>" + rows["setting"] + "</small>"
    rows["here"] += ["<small>or " + other + "</small>" if other else "" for other in rows["instead"]]
    shown = rows[["question", "the paper", "here", "why"]]
    return tables.table(shown, f"Choices of the profile '{profile.name}'").format(str, subset=["question", "here"])


def _at(profile: Profile, setting: str) -> tuple[Any, Any]:
    """The value of a dotted setting and its annotation. Raises AttributeError for one that there is not."""
    *parents, last = setting.split(".")
    holder: Any = profile
    for name in parents:
        holder = getattr(holder, name)
    return getattr(holder, last), type(holder).model_fields[last].annotation


def _others(annotation: Any, value: Any) -> list[str]:
    """What else a setting may be, where its type is a closed list, or a tuple of one."""
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is not Literal:
        return []
    taken = value if isinstance(value, tuple) else (value,)
    return [str(choice) for choice in get_args(annotation) if choice not in taken]


def _words(value: Any) -> str:
    if isinstance(value, Threshold):
        by_hand = [f"{name} {number:g}" for name, number in value.by_hand.items()]
        return ", ".join([f"the {value.quantile:g} quantile over all neurons", *by_hand])
    if isinstance(value, tuple):
        return ", ".join(map(_words, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
