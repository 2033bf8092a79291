"""The words of a concept: what counts as naming it in a caption, and what is left of a caption without it.

A concept is a category name, such as 'bear'. It is named by that name, its plural, and the synonyms of `SYNONYMS`,
as whole words and in any case: 'buses' names a bus, 'bust' does not. The phrases of `OTHER_THINGS` hold such a word
and name something else: a teddy bear is no bear, a hot dog is no dog, and train tracks or a bus stop stay in the
picture when the train or the bus is taken out of it, so they do not name it.
"""

from __future__ import annotations

import re
from functools import cache

# Singular forms; `words` adds the plurals. The categories of MS COCO that have synonyms in everyday captions. Hypernyms
# ('animal', 'vehicle', 'food') name none of them.
SYNONYMS = {
    "person": "man, woman, boy, girl, child, kid, baby, toddler, lady, guy, gentleman, human, player, batter, "
    "catcher, surfer, skier, snowboarder, skateboarder, skater, rider, biker, cyclist, pedestrian, worker, chef",
    "bicycle": "bike",
    "car": "automobile, sedan, suv, taxi, cab, minivan, jeep",
    "motorcycle": "motorbike, motor cycle, motor bike, moped, scooter, dirt bike",
    "airplane": "plane, aeroplane, air plane, aircraft, jet, jetliner, airliner, biplane",
    "bus": "minibus",
    "train": "locomotive, tram",
    "truck": "pickup, lorry, firetruck, fire engine",
    "boat": "ship, sailboat, canoe, kayak, yacht, ferry, rowboat, raft",
    "traffic light": "stoplight, stop light, traffic signal",
    "fire hydrant": "hydrant, fireplug",
    "stop sign": "stopsign",
    "parking meter": "meter",
    "bird": "duck, goose, seagull, gull, pigeon, parrot, owl, crow, swan, pelican, eagle, hawk, sparrow, "
    "chicken, rooster",
    "cat": "kitten, kitty, feline",
    "dog": "puppy, pup, doggy, doggie",
    "horse": "pony, foal, colt, stallion, mare",
    "sheep": "lamb, ewe",
    "cow": "cattle, bull, calf, ox",
    "bear": "panda",
    "backpack": "back pack, rucksack, knapsack",
    "umbrella": "parasol",
    "handbag": "hand bag, purse",
    "tie": "necktie",
    "suitcase": "luggage, baggage, briefcase",
    "frisbee": "flying disc",
    "skis": "ski",
    "snowboard": "snow board",
    "sports ball": "ball",
    "baseball bat": "bat",
    "baseball glove": "mitt",
    "skateboard": "skate board",
    "surfboard": "surf board",
    "tennis racket": "racket, racquet",
    "wine glass": "wineglass, glass of wine, goblet",
    "cup": "mug, teacup",
    "sandwich": "burger, hamburger, cheeseburger, panini",
    "hot dog": "hotdog",
    "donut": "doughnut",
    "cake": "cupcake",
    "chair": "armchair, recliner",
    "couch": "sofa, loveseat",
    "potted plant": "plant, houseplant",
    "dining table": "table",
    "toilet": "urinal, commode",
    "tv": "television, tv set, monitor",
    "television": "tv, tv set",
    "laptop": "laptop computer, lap top",
    "remote": "remote control, controller",
    "cell phone": "phone, cellphone, smartphone, mobile phone, iphone",
    "microwave": "microwave oven",
    "oven": "stove",
    "refrigerator": "fridge",
    "scissors": "shears",
    "teddy bear": "teddy, stuffed bear, toy bear",
    "hair drier": "hair dryer, hairdryer, blow dryer, blow drier",
    "toothbrush": "tooth brush",
}


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _set(
    "a an the this that these those his her its their my your our some several many few any no each every another "
    "one two three four five six seven eight nine ten"
)
ADJECTIVES = _set(
    "big large huge giant great little small tiny tall long short old young new cute beautiful nice lovely wild fresh "
    "black white red orange yellow green blue brown gray grey pink purple golden silver tan dark light bright colorful "
    "colored striped spotted furry fluffy shaggy polar grizzly double decker passenger city adult baby ripe unripe "
    "wooden"
)
STOP_WORDS = DETERMINERS | _set(
    "and or but nor so as if than then there here it he she they we you i him them us me who which what when where "
    "while of in on at by to from with without into onto over under above below near next beside between behind before "
    "after through across along around against off up down out for about inside outside among toward towards upon "
    "during "
    "is are was were be been being am has have had do does did can could will would may might shall should must not "
    "very too also just all both other others lot lots front top"
)

# Regular expressions, in the singular. Each holds a word of the concept and names something else. What may as well be a
# verb is no such phrase: 'a train crossing a bridge', 'a zebra crossing a road', and with '(?!s)' 'a bus stops here'.
OTHER_THINGS = {
    "person": "baby (?:elephant|giraffe|zebra|bear|cow|sheep|horse|bird|goat), (?:record|dvd|cd|music) player",
    "bicycle": "motor bike, dirt bike, bike (?:rack|lane|path)",
    "car": "(?:train|rail|railway|railroad|subway|trolley|street|cable|box|passenger) car, car park(?!s)",
    "airplane": "jet ski, jet stream",
    "bus": "bus (?:stop(?!s)|station|shelter|terminal|depot|lane)",
    "train": "train (?:stop(?!s)|station|track|platform|yard|depot|bridge)",
    "dog": "hot dog, corn dog, chili dog, dog (?:bed|house|food|bowl)",
    "cat": "cat (?:bed|house|food|bowl|litter|tree)",
    "horse": "sea horse",
    "bear": "teddy bear, stuffed bear, toy bear",
    "zebra": "zebra (?:stripe|print)",
    "tie": "tie dye",
    "skis": "ski (?:slope|lift|resort|pole|lodge|suit|jacket|mask|hill|run|trail|area), jet ski",
    "sports ball": "ball (?:game|field|player|park)",
    "baseball bat": "at bat",
    "cup": "cup cake",
    "bowl": "toilet bowl",
    "banana": "banana (?:tree|leaf|leaves|bread|split)",
    "apple": "apple (?:laptop|computer|phone|logo|pie|juice|tree)",
    # The fruit, not the colour: 'orange' beside another colour, or right before a noun.
    "orange": "(?:black|white|red|yellow|green|blue|brown|gray|grey) and orange, "
    "orange and (?:black|white|red|yellow|green|blue|brown|gray|grey), "
    rf"orange (?!(?:{'|'.join(STOP_WORDS)}|slice|slices|peel|sits|lies|\w+ing)\b)\w+",
    "pizza": "pizza (?:box|boxes|oven|cutter|parlor|shop|place|restaurant|pan)",
    "potted plant": "power plant",
    "bed": "flower bed, river bed, truck bed, trailer bed, dog bed, cat bed, bed of",
    "dining table": "table (?:cloth|tennis)",
    "toilet": "toilet (?:paper|tissue|roll|brush|brushes)",
    "tv": "tv (?:remote|stand(?!s)|tray)",
    "remote": "remote (?:area|location|place|island|field|road|beach|village)",
    "cell phone": "phone (?:booth|box|pole), head phone",
    "oven": "microwave oven",
}

# Plurals that no rule gives; an empty one is the same word again.
IRREGULAR_PLURALS = {
    "person": "people, persons",
    "bus": "buses, busses",
    "child": "children",
    "ox": "oxen",
    "goose": "geese",
    "mouse": "mice",
    "knife": "knives",
    "calf": "calves",
    "leaf": "leaves",
    "wolf": "wolves",
    "human": "humans",
    "tomato": "tomatoes",
    "potato": "potatoes",
    "glass of wine": "glasses of wine",
    **dict.fromkeys(("sheep", "cattle", "fish", "deer", "aircraft", "luggage", "baggage", "broccoli"), ""),
    **dict.fromkeys(("scissors", "shears", "skis", "ski", "glasses", "sunglasses", "binoculars"), ""),
}


def words(concept: str) -> tuple[str, ...]:
    """Every word that names `concept`, lower case: the name first, then its plural, then synonyms with theirs.

    A name that `SYNONYMS` does not know gets the regular English plural.
    """
    name = " ".join(concept.lower().split())
    if not name:
        raise ValueError("concept must be a word such as 'dog'. Got an empty string.")
    singulars = [name, *filter(None, SYNONYMS.get(name, "").split(", "))]
    return tuple(dict.fromkeys(form for singular in singulars for form in (singular, *_plurals(singular))))


def mention(caption: str, concept: str) -> re.Match[str] | None:
    """The first place where `caption` names `concept`: `.group()` is the word as written, `.start()` its place."""
    return next(iter(_mentions(caption, concept)), None)


def names(caption: str, concept: str) -> bool:
    """Whether `caption` names `concept`."""
    return mention(caption, concept) is not None


def content_words(caption: str, without: str | None = None) -> tuple[str, ...]:
    """The words of `caption` outside `STOP_WORDS`, lower case, in order, repetitions kept.

    A single character is no word, and a possessive 's is cut off. The mentions of the concept `without` are left out:
    what remains is what retention is measured on.
    """
    if without is not None:
        for match in reversed(_mentions(caption, without)):
            caption = f"{caption[: match.start()]} {caption[match.end() :]}"
    found = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", caption.lower())
    return tuple(
        word for word in (re.sub(r"['’]s$", "", word) for word in found) if word not in STOP_WORDS and len(word) > 1
    )


def without_concept(caption: str, concept: str) -> str:
    """`caption` with every noun phrase that names `concept` taken out: 'a big brown bear on a log' -> 'on a log'.

    The phrase is the concept's word with the adjectives of `ADJECTIVES` and the determiners and numbers of
    `DETERMINERS` right before it. Adjectives outside that closed list, and verbs and prepositions that lose their
    noun, stay.
    """
    modifiers = re.compile(rf"(?:\b(?:{'|'.join(ADJECTIVES | DETERMINERS)})[\s-]+)*$", re.IGNORECASE)
    for match in reversed(_mentions(caption, concept)):
        before, after = caption[: match.start()], caption[match.end() :]
        caption = modifiers.sub("", before) + " " + re.sub(r"^['’]s\b", "", after)
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(caption.split()))


def slug(concept: str) -> str:
    """A concept as a file name: 'dining table' -> 'dining-table'."""
    return concept.replace(" ", "-")


def _mentions(caption: str, concept: str) -> list[re.Match[str]]:
    return [match for match in _pattern(concept).finditer(caption) if match.group("word")]


@cache
def _pattern(concept: str) -> re.Pattern[str]:
    """Matches a mention as group 'word', and what only looks like one without that group, so that it is passed over."""
    # Longest first, so that 'dining table' is one mention and not a 'table'. A hyphen does for a space.
    named = "|".join(re.escape(word).replace(r"\ ", " ") for word in sorted(words(concept), key=len, reverse=True))
    passed_over = OTHER_THINGS.get(words(concept)[0], "(?!)").replace(", ", "|")
    pattern = rf"(?<!\w)(?:(?:{passed_over})s?|(?P<word>{named}))(?!\w)"
    return re.compile(pattern.replace(" ", r"[\s-]+"), re.IGNORECASE)


def _plurals(singular: str) -> tuple[str, ...]:
    """Irregular plurals from the table, by the whole name or its last word; others by rule ('-man' turns to '-men')."""
    if singular in IRREGULAR_PLURALS:
        return tuple(filter(None, IRREGULAR_PLURALS[singular].split(", ")))
    head, _, last = singular.rpartition(" ")
    if head:
        return tuple(f"{head} {plural}" for plural in _plurals(last))
    if last.endswith("man"):
        return (f"{last[:-3]}men",)
    if last.endswith(("s", "x", "z", "ch", "sh")):
        return (f"{last}es",)
    if last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        return (f"{last[:-1]}ies",)
    return (f"{last}s",)
