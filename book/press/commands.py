"""The commands that pages name, as the edition at hand needs them: a page of another profile has to name that.

    whole("make book", variables(load_profile("embedded-coco")))  # 'make book PROFILE=embedded-coco COCO=folder'

Pages are written for the default profile, whose commands need no variable.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence

from kn_core.fingerprint import at_home
from kn_core.profile import Profile

DEFAULT, EXAMPLE = "embedded", "giraffe"
COMMAND = re.compile(r"(doit|make (?:book|concept|check))(?= |$)")


class NoPicturesError(RuntimeError):
    """Nobody has said where a profile's photographs are."""


def beyond(profile: Profile) -> Sequence[str]:
    """What a profile's pictures show, listed or not: every kind that scenes draw, or the categories of the photographs.

    Each can have a page of its own, `concept:<name>`. Raises NoPicturesError, or what `CocoFolder` raises.
    """
    if profile.data.source == "scenes":
        from kn_core.pictures.scenes import KINDS  # which takes a second: most names are the profile's

        return tuple(KINDS)
    from kn_core.pictures.coco import CocoFolder

    if not (folder := os.environ.get("KN_COCO")):
        raise NoPicturesError("It reads photographs, which may show it: name their folder, COCO=folder.")
    return CocoFolder(at_home(folder)).concepts


def variables(profile: Profile, effort: str = "") -> dict[str, str]:
    """What has to be said to `make` and `doit` for a profile's book; a reader knows where their photographs are.

    'concept' stands in for `EXAMPLE` where the profile has no such concept.
    """
    said = {} if profile.said == DEFAULT else {"profile": profile.said}
    said |= {"coco": "folder"} if profile.data.source == "coco" else {}
    said |= {} if EXAMPLE in profile.concepts else {"concept": profile.concepts[0]}
    return said | ({"effort": effort} if effort else {})


def whole(command: str, given: Mapping[str, str]) -> str:
    """A command with the variables behind its verb; one that names a profile itself, or is none of ours, as it is."""
    verb = COMMAND.match(command)
    if verb is None or "profile=" in command.lower():
        return command
    said = [
        f"{name if verb[1] == 'doit' else name.upper()}={shlex.quote(value)}"
        for name, value in given.items()
        if name != "concept"
    ]
    said = [each for each in said if f" {each} " not in f"{command} "]
    rest = re.sub(
        rf"(?<=concept=|CONCEPT=){EXAMPLE}$", shlex.quote(given.get("concept", EXAMPLE)), command[verb.end() :]
    )
    return " ".join([verb[1], *said]) + rest


def in_text(text: str, given: Mapping[str, str]) -> str:
    """Markdown with every command that stands in it as code made whole."""
    return re.sub(r"`([^`\n]+)`", lambda code: f"`{whole(code[1], given)}`", text)
