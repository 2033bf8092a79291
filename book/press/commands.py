"""The commands that pages name, as the edition at hand needs them: a page of another profile has to name that.

    whole("make book", variables(load_profile("embedded-coco")))  # 'make book PROFILE=embedded-coco COCO=folder'

Pages are written for the default profile, whose commands need no variable.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from kn_core.profile import Profile

DEFAULT = "embedded"
COMMAND = re.compile(r"(doit|make (?:book|concept|check))(?= |$)")


def variables(profile: Profile, effort: str = "") -> dict[str, str]:
    """What has to be said to `make` and `doit` for a profile's book; a reader knows where their photographs are."""
    said = {} if profile.said == DEFAULT else {"profile": profile.said}
    said |= {"coco": "folder"} if profile.data.source == "coco" else {}
    return said | ({"effort": effort} if effort else {})


def whole(command: str, given: Mapping[str, str]) -> str:
    """A command with the variables behind its verb; one that names a profile itself, or is none of ours, as it is."""
    verb = COMMAND.match(command)
    if verb is None or "profile=" in command.lower():
        return command
    said = [f"{name if verb[1] == 'doit' else name.upper()}={shlex.quote(value)}" for name, value in given.items()]
    said = [each for each in said if f" {each} " not in f"{command} "]
    return " ".join([verb[1], *said]) + command[verb.end() :]


def in_text(text: str, given: Mapping[str, str]) -> str:
    """Markdown with every command that stands in it as code made whole."""
    return re.sub(r"`([^`\n]+)`", lambda code: f"`{whole(code[1], given)}`", text)
