"""Where a scene plays: how the place is drawn, what belongs there, and how people say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    table: bool = True  # whether a table can be put up here

    def stage(self, wished: str) -> str:
        """Where something stands here that belongs on `wished`: there, if there is such a stage, else on the first."""
        possible = wished in self.places or (wished == "table" and self.table)
        return wished if possible else next(iter(self.places))

    def where(self, stage: str) -> tuple[str, ...]:
        """Phrases that say where something on a stage is: 'in a green field', 'on a table in a green field'."""
        if stage in self.places:
            return self.places[stage]
        return "on a table", f"on a table {self.places['ground'][0]}"


# name, drawing, horizon, nouns, empty, places
# fmt: off
_ALL = (
    Setting("field", outdoors.field, (44, 58), ("a green field", "a field"),
            ("an empty green field", "a green field with nothing in it"),
            {"ground": ("in a green field", "in a field", "on the grass"),
             "sky": ("over a green field", "above a field")}),
    Setting("garden", outdoors.garden, (46, 58), ("a garden", "a green garden"),
            ("an empty garden", "a garden with a green lawn"),
            {"ground": ("in a garden", "in a green garden", "on a lawn"), "sky": ("over a garden", "above a garden")}),
    Setting("beach", outdoors.beach, (32, 44), ("a sandy beach", "a beach by the sea"),
            ("an empty beach", "an empty beach by the sea"),
            {"ground": ("on the beach", "on a sandy beach", "on the sand"), "water": ("on the sea", "in the water"),
             "sky": ("over the beach", "above the sea")}),
    Setting("lake", outdoors.lake, (34, 46), ("a blue lake", "a lake"), ("a calm blue lake", "a quiet lake"),
            {"ground": ("by a lake", "next to a lake", "on the shore of a lake"),
             "water": ("on a lake", "on a blue lake", "in the water"), "sky": ("over a lake", "above the water")}),
    Setting("street", outdoors.street, (46, 58), ("a street with buildings", "a city street"),
            ("an empty street with buildings", "an empty city street"),
            {"ground": ("on a street", "on a city street", "in front of some buildings"),
             "sky": ("over a street", "above the city")}),
    Setting("snow", outdoors.snow, (42, 56), ("a snowy field", "a snowy landscape"),
            ("an empty snowy field", "a field covered in snow"),
            {"ground": ("in the snow", "in a snowy field", "on the snow"),
             "sky": ("over a snowy field", "above the snow")}),
    Setting("forest", outdoors.forest, (48, 60), ("a green forest", "a forest"),
            ("an empty forest", "a path in a green forest"),
            {"ground": ("in a forest", "in a green forest", "in the woods"),
             "sky": ("over a forest path", "in a forest")}),
    Setting("desert", outdoors.desert, (42, 56), ("a sandy desert", "a desert"),
            ("an empty desert", "a desert with nothing but sand"),
            {"ground": ("in the desert", "in a sandy desert"), "sky": ("over the desert", "above the desert")}),
    Setting("room", indoors.room, (54, 66), ("a room", "a living room"),
            ("an empty room", "an empty room with a wooden floor"),
            {"ground": ("in a room", "in a living room", "on a wooden floor")}),
    Setting("kitchen", indoors.kitchen, (58, 68), ("a kitchen",), ("an empty kitchen", "a kitchen with cupboards"),
            {"ground": ("in a kitchen", "on the kitchen floor")}),
    Setting("bathroom", indoors.bathroom, (58, 68), ("a bathroom", "a tiled bathroom"),
            ("an empty bathroom", "an empty bathroom with tiles"),
            {"ground": ("in a bathroom", "in a tiled bathroom")}, table=False),
    Setting("table", indoors.table, (50, 60), ("a table", "a dining table"),
            ("an empty table", "an empty dining table"),
            {"table": ("on a table", "on a dining table")}),
)
# fmt: on

SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _ALL}
