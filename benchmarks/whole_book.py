"""`make book` from an empty `results/`, and again with nothing changed: seconds and peak memory of all its processes.

Works in a temporary copy of the committed tree, so that neither results nor the build of the checkout are touched.
"""

import contextlib
import json
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

root = Path(__file__).parents[1]


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds, and the most memory that the command's process tree held at a time, in GB.

    By proportional set size: a page that processes share, such as one of torch's libraries, counts once.
    """
    began, peak = time.perf_counter(), 0
    process = psutil.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        total = 0
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_full_info().pss
        peak = max(peak, total)
        time.sleep(1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return time.perf_counter() - began, peak / 1e9


with tempfile.TemporaryDirectory() as temporary:
    clone = Path(temporary, "clone")
    subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
    install, _ = measured(["make", ".venv/installed"], clone)
    first, memory = measured(["make", "book"], clone)
    again, _ = measured(["make", "book"], clone)
print(
    json.dumps(
        {
            "benchmark": "whole_book",
            "install_seconds": round(install),
            "first_seconds": round(first),
            "again_seconds": round(again, 1),
            "peak_gb": round(memory, 2),
        }
    )
)
