"""How far something is, told: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import TextIO

from tqdm import tqdm

EVERY = 20.0  # seconds between two lines


def say(line: str, file: TextIO | None = None) -> None:
    """A line on stdout, or on another file, above a bar on the same terminal."""
    tqdm.write(line, file=file or sys.stdout)
    sys.stdout.flush()


class Progress:
    """How far a stage's captions are, on stderr. Called with (stage, captions that there are, of how many)."""

    def __init__(self, every: float = EVERY) -> None:
        self.every, self._stage, self._bar = every, "", tqdm(disable=True)
        self._began = 0, 0.0

    def __call__(self, said: tuple[str, int, int]) -> None:
        (stage, done, of), now = said, time.monotonic()
        # what its first captions took is known no better than that of loading a model
        if stage != self._stage or done <= self._began[0]:
            self._bar.close()
            self._bar = tqdm(total=of, initial=done, desc=stage, unit="caption", leave=False, disable=None)
            self._stage, self._began, self._told = stage, (done, now), now
        self._bar.update(done - self._bar.n)
        if done == of:
            self._bar.close()
        elif self._bar.disable and now - self._told >= self.every:
            left = (of - done) * (now - self._began[1]) / (done - self._began[0])
            say(f"{stage}: {done:,} of {of:,} captions, some {left:.0f} s left", sys.stderr)
            self._told = now


@contextmanager
def steps(shares: Mapping[str, float], every: float = EVERY) -> Iterator[Callable[[str], None]]:
    """Within the block, what it gives is told each step that begins; on stderr that one, and how far all are.

    `shares`: the steps in their order, and how much of the whole each takes, as far as one knows.
    """
    names, began, over = list(shares), time.monotonic(), Event()
    doing = names[0]
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
    bar = tqdm(total=sum(shares.values()), desc=doing, bar_format=form, leave=False, disable=None)

    def tick() -> None:
        told = began
        while not over.wait(0.5):
            if not bar.disable:
                bar.refresh()
            elif (now := time.monotonic()) - told >= every:
                say(f"{doing}: {now - began:.0f} s so far", sys.stderr)
                told = now

    def step(name: str) -> None:
        nonlocal doing
        doing = name
        bar.n = sum(shares[before] for before in names[: names.index(name)])
        bar.set_description_str(name)

    with bar:
        clock = Thread(target=tick, daemon=True)
        clock.start()
        try:
            yield step
        finally:
            over.set()
            clock.join()
