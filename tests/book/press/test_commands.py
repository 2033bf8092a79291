"""The commands that a page names make the very edition that the reader has in front of them."""

from __future__ import annotations

import pytest

from book.press import commands
from kn_core.profile import load_profile

PHOTOGRAPHS = {"profile": "embedded-coco", "coco": "folder"}


@pytest.mark.parametrize(
    ("command", "whole"),
    [
        ("doit index", "doit profile=embedded-coco coco=folder index"),
        ("doit section:stage-1 concept=cat", "doit profile=embedded-coco coco=folder section:stage-1 concept=cat"),
        ("make book", "make book PROFILE=embedded-coco COCO=folder"),
        ("make book EFFORT=full", "make book PROFILE=embedded-coco COCO=folder EFFORT=full"),
        ("make book PROFILE=name", "make book PROFILE=name"),
        ("make test", "make test"),
        ("python -m kn_core locate photo.jpg", "python -m kn_core locate photo.jpg"),
    ],
)
def test_a_command_is_given_the_variables_that_it_does_not_name(command: str, whole: str) -> None:
    assert commands.whole(command, PHOTOGRAPHS) == whole
    assert commands.whole(command, {}) == command
    assert commands.in_text(f"Rerun: `{command}`, or `n = 80`.", PHOTOGRAPHS) == f"Rerun: `{whole}`, or `n = 80`."


def test_the_long_version_is_not_asked_for_twice() -> None:
    assert commands.whole("make book EFFORT=full", {"effort": "full"}) == "make book EFFORT=full"
    assert commands.whole("doit index", {"effort": "full"}) == "doit effort=full index"


def test_only_what_is_not_the_default_has_to_be_said() -> None:
    assert commands.variables(load_profile("embedded")) == {}
    assert commands.variables(load_profile("embedded"), "full") == {"effort": "full"}
    assert commands.variables(load_profile("embedded-vit")) == {"profile": "embedded-vit"}
    assert commands.variables(load_profile("embedded-coco")) == PHOTOGRAPHS
    assert commands.whole("make check", {"profile": "my own"}) == "make check PROFILE='my own'"
