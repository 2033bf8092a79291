"""What a card is measured with: figures told and kept one by one, clocks that wait for a device, memory, operations."""

import csv
import datetime
import json
import resource
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

MINUTES = 8


@dataclass
class Figures:
    """Prints each figure as it comes, and keeps it in a table where there is one."""

    machine: str
    keep: Path | None
    met: bool = True
    began: float = field(default_factory=time.perf_counter)

    def tell(self, figure: str, value: float, **more: object) -> None:
        value, after = float(f"{value:.3g}"), round(time.perf_counter() - self.began)
        line = {"benchmark": "accelerator", "figure": figure, "value": value, **more, "after_seconds": after}
        print(json.dumps(line), flush=True)
        if self.keep:
            with self.keep.open("a", newline="") as file:
                row = (datetime.datetime.now(tz=datetime.UTC).date(), self.machine, "accelerator", figure, value)
                csv.writer(file, lineterminator="\n").writerow(row)
        if after > 60 * MINUTES:
            raise SystemExit(
                f"{MINUTES} minutes must be enough. Got no further than this; what stands above is measured."
            )

    def check(self, figure: str, value: float, limit: float) -> None:
        self.met &= value <= limit
        self.tell(figure, value, limit=limit, met=value <= limit)

    def attempt(self, part: Callable[..., None], *given: object) -> None:
        """A part that fails is told, and the next begins."""
        try:
            part(self, *given)
        except Exception:
            self.met = False
            traceback.print_exc()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


@dataclass(frozen=True)
class Device:
    name: str

    def wait(self) -> None:
        if self.name != "cpu":
            torch.accelerator.synchronize(self.name)

    def seconds(self, run: Callable[[], object], repetitions: int = 3) -> float:
        """The median of some runs behind one that warms up."""
        found = []
        for _ in range(repetitions + 1):
            self.wait()
            began = time.perf_counter()
            run()
            self.wait()
            found.append(time.perf_counter() - began)
        return statistics.median(found[1:])

    def peak(self) -> float:
        """GB at the peak since it was last asked for, of a processor since the start."""
        if not self.name.startswith("cuda"):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        found = torch.cuda.max_memory_allocated(self.name) / 1e9
        torch.cuda.reset_peak_memory_stats(self.name)
        return found

    @property
    def machine(self) -> str:
        if not self.name.startswith("cuda"):
            return self.name
        card = torch.cuda.get_device_properties(self.name)
        return f"{card.name}, {card.total_memory / 1e9:.0f} GB"


def operations(run: Callable[[], object]) -> int:
    """Of matrix products, forwards and backwards, as torch counts them; an addition for each multiplication."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
