"""What of a data set is not used, and why: counted by kind, so that thousands of faults are one line."""

from collections.abc import Callable, Iterator, Sequence
from logging import Logger
from typing import Any, TypeVar

T = TypeVar("T")


class WrongError(ValueError):
    """Why one entry is left out, in the same words for the same kind, so that they can be counted."""


class LeftOut:
    """What is not used, by kind and reason: how many there are, and the first of them by name."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[str, None]] = {}
        self._told: dict[tuple[str, str], int] = {}

    def add(self, what: str, why: str, name: str, done: str = "left out") -> None:
        """`what` is the plural of a kind, 'annotations of instances.json'. A name counts once for one reason.

        `done`: what was done with them instead, where they are used and perhaps not as they were meant.
        """
        self._found.setdefault((what, f"{done}: {why}"), {})[name.encode(errors="backslashreplace").decode()] = None

    def names(self) -> dict[str, str]:
        """Everything by name, with the reason."""
        return {name: why.partition(": ")[2] for (_, why), names in self._found.items() for name in names}

    def lines(self, *, new: bool = False) -> list[str]:
        """A line for each kind and reason; `new`: of what has come since `tell` was last called."""
        told = self._told if new else {}
        rest = {key: list(names)[told.get(key, 0) :] for key, names in self._found.items()}
        return [_line(what, why, names) for (what, why), names in rest.items() if names]

    def tell(self, log: Logger) -> None:
        """Warn of what has not been told yet."""
        for line in self.lines(new=True):
            log.warning("%s", line)
        self._told = {key: len(names) for key, names in self._found.items()}


def _line(what: str, why: str, names: Sequence[str]) -> str:
    noun, *of = what.split(" ", 1)
    if len(names) == 1:
        noun = noun[:-3] + "y" if noun.endswith("ies") else noun[:-1]
    return f"{len(names):,} {' '.join([noun, *of])} {why}, first: {names[0]}"


def checked(entries: Sequence[Any], what: str, left_out: LeftOut, check: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """What `check` makes of each entry of a JSON list; those that it refuses (`WrongError`) are left out."""
    for number, entry in enumerate(entries, start=1):
        try:
            if not isinstance(entry, dict):
                raise WrongError(f"{kind(entry)} where an object is expected")
            yield check(entry)
        except WrongError as wrong:
            named = isinstance(entry, dict) and entry.get("id") is not None
            left_out.add(what, str(wrong), f"id {entry['id']!s:.60}" if named else f"number {number}")


def kind(value: object) -> str:
    """What JSON calls a value."""
    kinds = {type(None): "null", dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return kinds.get(type(value), "a number")
