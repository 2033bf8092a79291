"""The words of a concept: what counts as naming it in a caption, and what is left of a caption without it.

A concept is a category name, such as 'bear'. It is named by that name, its plural, and the synonyms of `SYNONYMS`,
as whole words and in any case: 'buses' names a bus, 'bust' does not. The phrases of `OTHER_THINGS` hold such a word
and name something else: a teddy bear is no bear, a hot dog is no dog, and train tracks or a bus stop stay in the
picture when the train or the bus is taken out of it, so they do not name it. The tables are in `concepts.yaml`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from unicodedata import normalize

import yaml

_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SYNONYMS: dict[str, str] = _TABLES["synonyms"]
DETERMINERS = frozenset(_TABLES["determiners"].split())
ADJECTIVES = frozenset(_TABLES["adjectives"].split())
STOP_WORDS = DETERMINERS | frozenset(_TABLES["stop_words"].split())
UNCOUNTED = STOP_WORDS | frozenset(_TABLES["postures"].split())
OTHER_THINGS: dict[str, str] = {
    name: phrases.replace("{stop_words}", "|".join(sorted(STOP_WORDS)))
    for name, phrases in _TABLES["other_things"].items()
}
IRREGULAR_PLURALS: dict[str, str] = _TABLES["irregular_plurals"] | dict.fromkeys(
    _TABLES["same_plurals"].split(", "), ""
)


def noun(phrase: str) -> str:
    """A phrase without the `DETERMINERS` that lead it, blanks single: 'a hot  dog' -> 'hot dog'. Raises ValueError."""
    parts = normalize("NFC", phrase).split()
    while parts and parts[0].lower() in DETERMINERS:
        del parts[0]
    if not parts:
        raise ValueError(f"concept must be a word such as 'dog'. Got '{phrase}'.")
    return " ".join(parts)


def words(concept: str) -> tuple[str, ...]:
    """Every word that names `concept`, lower case: the name first, then its plural, then synonyms with theirs.

    What leads the name is no part of it (`noun`). One that `SYNONYMS` does not know gets the regular
    English plural.
    """
    name = noun(concept).lower()
    singulars = [name, *filter(None, SYNONYMS.get(name, "").split(", "))]
    return tuple(dict.fromkeys(form for singular in singulars for form in (singular, *_plurals(singular))))


def mention(caption: str, concept: str) -> re.Match[str] | None:
    """The first place where `caption` names `concept`: `.group()` is the word as written, `.start()` its place."""
    return next(iter(_mentions(caption, concept)), None)


def names(caption: str, concept: str) -> bool:
    """Whether `caption` names `concept`."""
    return mention(caption, concept) is not None


def content_words(caption: str, without: str | None = None) -> tuple[str, ...]:
    """The words of `caption` that are neither stop words nor verbs of posture, lower case, in order, repeated or not.

    A single character is no word, and a possessive 's is cut off. The mentions of the concept `without` are left out:
    what remains is what retention is measured on.
    """
    if without is not None:
        for match in reversed(_mentions(caption, without)):
            caption = f"{caption[: match.start()]} {caption[match.end() :]}"
    found = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", caption.lower())
    return tuple(
        word for word in (re.sub(r"['’]s$", "", word) for word in found) if word not in UNCOUNTED and len(word) > 1
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
