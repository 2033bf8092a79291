"""The kinds of objects that scenes show: OpenMoji's drawings of them, their size, and where they belong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


# What a setting is worth to whom.
WILD = {"field": 4, "forest": 3, "lake": 2, "snow": 1, "desert": 0.7, "garden": 0.5, "beach": 0.5, "street": 0.3}
SAVANNA = {"field": 4, "desert": 2.5, "lake": 2, "forest": 1, "beach": 0.7, "garden": 0.5, "street": 0.4, "snow": 0.4}
FARM = {"field": 5, "garden": 2, "lake": 2, "forest": 1, "snow": 1, "beach": 0.6, "street": 0.6, "desert": 0.5}
OUT = {"garden": 3, "street": 2, "field": 2, "beach": 1, "snow": 1, "forest": 1, "lake": 0.7}
PET = OUT | {"room": 3, "kitchen": 1.5, "bathroom": 0.5}
ROAD = {"street": 6, "field": 1.5, "snow": 1.5, "beach": 1, "forest": 1, "desert": 1, "lake": 1, "garden": 0.4}
RAIL = {"field": 4, "snow": 2, "forest": 2, "desert": 1.5, "lake": 1.5, "street": 1.5, "beach": 0.7}
HOME = {"room": 6, "kitchen": 1.5, "garden": 1, "beach": 0.5, "street": 0.5, "field": 0.4, "snow": 0.3, "bathroom": 0.3}
AWAY = {"garden": 1.5} | dict.fromkeys(("beach", "lake", "field"), 0.8)
AWAY |= dict.fromkeys(("snow", "forest", "street"), 0.4) | {"desert": 0.3}
FOOD = AWAY | {"table": 5, "kitchen": 4, "room": 1.5}
AIR = {"field": 3, "beach": 3, "lake": 2, "street": 2, "snow": 1, "desert": 1, "garden": 1}
PLANT = {"field": 4, "garden": 3, "lake": 2, "snow": 1.5, "street": 1.5, "beach": 1, "desert": 0.7}
TOY = {"garden": 3, "beach": 2.5, "field": 2.5, "room": 2, "street": 1, "snow": 1, "lake": 0.7, "forest": 0.5}
ABROAD = {"field": 4, "snow": 2.5, "lake": 2, "garden": 1.5, "beach": 1.5, "desert": 1, "forest": 1}

WALKING, PARKED = ("standing", "walking"), ("parked", "standing")
LYING, RESTING = ("lying", "sitting"), ("sitting", "standing")

# Colours exchanged for others: OpenMoji has one palette, so 'a blue bus' is its red one with another body.
RED_TO_BLUE, RED_TO_GREEN, RED_TO_YELLOW = "#ea5a47>#61b2e4", "#ea5a47>#5c9e31", "#ea5a47>#fcea2b"
YELLOW_TO_BLUE, YELLOW_TO_RED = "#fcea2b>#92d3f5 #f1b31c>#61b2e4", "#fcea2b>#ea5a47 #f1b31c>#d22f27"
GINGER_TO_WHITE = "#f4aa41>#f7f3ec #e27022>#cfc6ba"
NO_WATER = "#92d3f5>none m8.1621,44.7846c>m8.1621,144.7846c"  # a sailing boat's own water: a fill and a wavy line


def _kind(
    name: str,
    metres: float,
    settings: Mapping[str, float],
    *drawings: str,
    stage: str = "ground",
    verbs: tuple[str, ...] = ("standing",),
) -> Kind:
    return Kind(name, tuple(Drawing.parse(text) for text in drawings), metres, settings, stage, verbs)


# fmt: off
ANIMALS = (
    # only the polar bear is drawn whole, so the others are that one painted
    _kind("bear", 2.2, WILD | {"snow": 2.5},
          "1F43B-200D-2744-FE0F brown #fff>#a57939 #d0cfce>#7a5330",
          "1F43B-200D-2744-FE0F brown #fff>#8a5a34 #d0cfce>#6a462f",
          "1F43B-200D-2744-FE0F black #fff>#55504e #d0cfce>#3f3b3a",
          "1F43B-200D-2744-FE0F white", verbs=WALKING),
    _kind("elephant", 5, SAVANNA, "1F418 gray", "1F418 #9b9b9a>#b0a8a2", verbs=WALKING),
    _kind("giraffe", 5, SAVANNA, "1F992", "1F992 yellow #f4aa41>#f6c45c", verbs=WALKING),
    _kind("zebra", 2.4, SAVANNA, "1F993", verbs=WALKING),
    _kind("horse", 2.4, FARM, "1F40E brown", "1F40E white #a57939>#f3efe9 #6a462f>#cfc6ba",
          "1F40E gray #a57939>#a9a6a6 #6a462f>#77706e", verbs=WALKING),
    _kind("cow", 2.4, FARM, "1F404 brown", "1F404 black #a57939>#55504e #6a462f>#3f3b3a", verbs=WALKING),
    _kind("sheep", 1.3, FARM, "1F411 white", "1F411 white", "1F411 black #fff>#6b6462 #d0cfce>#55504e"),
    _kind("pig", 1.4, FARM, "1F416 pink", "1F416", verbs=WALKING),
    _kind("deer", 2, WILD, "1F98C brown"),
    _kind("rabbit", 0.5, WILD | {"garden": 3}, "1F407", verbs=("sitting",)),
    _kind("penguin", 0.9, {"snow": 6, "beach": 2, "lake": 1.5, "street": 0.4, "garden": 0.4}, "1F427"),
    _kind("cat", 0.7, PET | {"table": 0.7}, "1F408 ginger", "1F408-200D-2B1B black",
          "1F408 gray #f4aa41>#a9a6a6 #e27022>#7d7977", f"1F408 white {GINGER_TO_WHITE}", verbs=WALKING),
    _kind("dog", 0.9, PET, "1F415", "1F415 brown #f4aa41>#a57939 #e27022>#6a462f", f"1F415 white {GINGER_TO_WHITE}",
          "1F429 gray"),
    _kind("bird", 0.4, OUT | {"forest": 1.5, "lake": 2, "table": 0.3}, "1F426 brown",
          "1F426 blue #a57939>#61b2e4 #6a462f>#2f7fb5", "1F426 yellow #a57939>#fcea2b #6a462f>#d9a520",
          "1F426-200D-2B1B black", "1F986", "1F986"),
)

VEHICLES = (
    _kind("bus", 11, ROAD, "1F68C red", f"1F68C blue {RED_TO_BLUE}", f"1F68C green {RED_TO_GREEN}", "1F68D yellow",
          "1F68D red #fcea2b>#ea5a47 #f4aa41>#d22f27", verbs=PARKED),
    _kind("train", 14, RAIL, "1F682 black", "1F682 green #3f3f3f>#5c9e31", "1F682 blue #3f3f3f>#4a86b8", "1F686 gray",
          "1F686 red #d0cfce>#ea5a47", "1F684 white", verbs=("standing", "stopped")),
    _kind("car", 4.2, ROAD, "1F697 red", f"1F697 blue {RED_TO_BLUE}", f"1F697 green {RED_TO_GREEN}",
          f"1F697 yellow {RED_TO_YELLOW}", "1F699 blue", verbs=PARKED),
    _kind("truck", 9, ROAD, "1F69B", "1F69B red #d0cfce>#ea5a47 #3f3f3f>#e9e6e1",
          "1F69B blue #d0cfce>#61b2e4 #3f3f3f>#f3efe9", verbs=PARKED),
    _kind("bicycle", 1.8, ROAD | {"garden": 2}, "1F6B2 red", f"1F6B2 blue {RED_TO_BLUE}",
          f"1F6B2 green {RED_TO_GREEN}", verbs=PARKED),
    _kind("motorcycle", 2.1, ROAD, "1F3CD red", "1F3CD blue #ea5a47>#61b2e4 #d22f27>#2f7fb5", verbs=PARKED),
    _kind("boat", 5, {"lake": 5, "beach": 4, "garden": 0.5, "field": 0.4}, f"26F5 {NO_WATER}",
          f"26F5 red {NO_WATER} #d0cfce>#ea5a47", f"26F5 blue {NO_WATER} #d0cfce>#f7f3ec #a57939>#61b2e4",
          stage="water", verbs=("floating", "sailing")),
    _kind("airplane", 14, AIR, "2708 gray", "2708 #9b9b9a>#61b2e4", "1F6E9", stage="sky", verbs=("flying",)),
    _kind("kite", 1.5, AIR, "1FA81 pink", "1FA81", stage="sky", verbs=("flying",)),
    _kind("balloon", 0.9, AIR, "1F388 red", "1F388 blue #ea5a47>#61b2e4 #d22f27>#2f7fb5",
          "1F388 yellow #ea5a47>#fcea2b #d22f27>#f1b31c", stage="sky", verbs=("floating", "flying")),
)

FURNITURE = (
    _kind("bed", 2.1, HOME, "1F6CF blue", "1F6CF red #92d3f5>#ea5a47", "1F6CF green #92d3f5>#a8c878",
          "1F6CF yellow #92d3f5>#f6d365"),
    _kind("couch", 2.2, HOME, "1F6CB blue", "1F6CB red #61b2e4>#d22f27 #92d3f5>#ea5a47",
          "1F6CB green #61b2e4>#5c9e31 #92d3f5>#a8c878"),
    _kind("chair", 1, HOME | {"kitchen": 3}, "1FA91 yellow", f"1FA91 red {YELLOW_TO_RED}",
          f"1FA91 blue {YELLOW_TO_BLUE}"),
    _kind("toilet", 0.9, {"bathroom": 7, "room": 1.5, "street": 0.6, "garden": 0.6, "field": 0.4, "kitchen": 0.4},
          "1F6BD", "1F6BD white #d0cfce>#fff #9b9b9a>#d0cfce", "1F6BD #d0cfce>#f4e3d7 #9b9b9a>#d9bfae"),
    _kind("tv", 1.1, HOME, "1F4FA"),
    _kind("clock", 0.3, FOOD | {"room": 4}, "1F570 brown", "23F0", stage="table"),
    _kind("vase", 0.35, FOOD | {"room": 3}, "1F3FA", stage="table"),
    _kind("cup", 0.12, FOOD, "2615 white", "2615 blue #fff>#92d3f5", stage="table", verbs=RESTING),
)

OUTSIDE = (
    _kind("umbrella", 1.6, {"beach": 6, "garden": 2, "field": 1, "lake": 1, "street": 1, "room": 0.5, "snow": 0.4},
          "26F1 #d0cfce>none", "26F1 blue #d0cfce>none #ea5a47>#61b2e4 #fcea2b>#f3efe9", "2602 purple"),
    _kind("suitcase", 0.8, {"room": 3, "street": 3, "beach": 0.8, "garden": 0.5, "kitchen": 0.5, "bathroom": 0.4},
          "1F9F3 brown"),
    _kind("ball", 0.3, TOY, "26BD", "1F3C0", "1F3BE yellow", verbs=("lying",)),
    _kind("skateboard", 0.8, TOY | {"street": 4}, "1F6F9 blue"),
    _kind("tree", 7, PLANT, "1F333 green", "1F332 green", "1F333 green #b1cc33>#8fbf4d", "1F332 green #5c9e31>#3f8f5a",
          "1F333 #b1cc33>#f4aa41 #5c9e31>#e27022"),
    _kind("flower", 0.6, PLANT | {"field": 5, "forest": 1}, "1F33C yellow", "1F337", "1F33A pink", "1F33B yellow",
          verbs=("growing",)),
    _kind("house", 8, ABROAD, "1F3E0", f"1F3E0 {RED_TO_BLUE}", "1F3E0 #ea5a47>#8a6a55 #ffffff>#f6e3b4"),
    _kind("tent", 2.5, ABROAD | {"forest": 3, "lake": 3}, "26FA", f"26FA red {YELLOW_TO_RED}",
          f"26FA blue {YELLOW_TO_BLUE}"),
)

FOODS = (
    _kind("banana", 0.2, FOOD, "1F34C yellow ~0.7", "1F34C", stage="table", verbs=LYING),
    _kind("apple", 0.09, FOOD, "1F34E red", "1F34F green", stage="table", verbs=LYING),
    _kind("orange", 0.09, FOOD, "1F34A", stage="table", verbs=LYING),
    _kind("carrot", 0.2, FOOD, "1F955 ~0.7", stage="table", verbs=("lying",)),
    _kind("broccoli", 0.15, FOOD, "1F966 green", stage="table", verbs=RESTING),
    _kind("pizza", 0.3, FOOD, "1F355 whole ~0.55", "1F355 whole ~0.62", "1F355 ~0.5", stage="table", verbs=LYING),
    _kind("cake", 0.3, FOOD, "1F382", "1F382 pink #fcea2b>#f6a5b8", "1F382 #fcea2b>#a57939", stage="table",
          verbs=RESTING),
    _kind("donut", 0.11, FOOD, "1F369 ~0.6", "1F369 pink ~0.6 #f1b31c>#f6a5b8", stage="table", verbs=LYING),
    _kind("sandwich", 0.16, FOOD, "1F96A", stage="table", verbs=LYING),
)


KINDS: dict[str, Kind] = {kind.name: kind for kind in (*ANIMALS, *VEHICLES, *FURNITURE, *OUTSIDE, *FOODS)}
