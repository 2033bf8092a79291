"""Two plain processes, and one worker and two of a local Dask cluster, at the same work: pairs of some concepts.

    python benchmarks/workers.py                     # eight concepts: two workers can share them evenly
    python benchmarks/workers.py --concepts 2 --pool 6 --repeat 2

Each way starts from nothing, in a process of its own, in turn. A line of JSON a run, with its processor seconds, of all
its processes, beside those of the clock, which mean something only where nothing else computes; then the ratios: what a
cluster costs over plain processes, and two workers' rate over twice that of one.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = {"plain": ("plain", 2), "dask": ("dask", 2), "one worker": ("dask", 1)}


def work(way: str, workers: int, concepts: int, pool: int, folder: Path) -> None:
    """What is measured; torch is imported here alone."""
    from kn_core.profile import Profile, load_profile
    from kn_core.study import cluster, processes, run

    settings = load_profile("embedded").model_dump()
    settings["concepts"], settings["ours"] = settings["concepts"][:concepts], ()
    settings["data"] |= {"pool": pool}
    profile = Profile.model_validate(settings)
    if way == "dask":
        lines = list(cluster.run(profile, folder, "local", workers, until="pairs"))
    else:
        with processes.pool(workers) as executor:
            lines = list(run.run(profile, folder, executor, until="pairs"))
    print("\n".join(lines), file=sys.stderr)


def measured(way: str, workers: int, concepts: int, pool: int) -> dict[str, float]:
    """Seconds of the clock, and of processors: of the process that runs it this way and all that it waited for."""
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, __file__, "--work", way, str(workers), str(concepts), str(pool), folder]
        alone = os.environ | {"OMP_NUM_THREADS": str(2 // workers if way == "plain" else 1)}
        subprocess.run(command, check=True, env=alone)
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": took, "user": after.ru_utime - before.ru_utime, "system": after.ru_stime - before.ru_stime}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=8)
    parser.add_argument("--pool", type=int, default=20, help="pictures of a concept")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="append the ratios to this table, as benchmarks/results.csv")
    parser.add_argument("--machine", default=platform.processor() or platform.machine(), help="what the table calls it")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        way, workers, concepts, pool, folder = chosen.work
        return work(way, int(workers), int(concepts), int(pool), Path(folder))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(chosen.repeat):
        for name, (way, workers) in WAYS.items():
            found[name].append(measured(way, workers, chosen.concepts, chosen.pool))
            told = {key: round(value, 1) for key, value in found[name][-1].items()}
            print(json.dumps({"benchmark": "workers", "way": name, "workers": workers, **told}), flush=True)

    def seconds(name: str, *kinds: str) -> float:
        return statistics.median(sum(run[kind] for kind in kinds) for run in found[name])

    both = ("user", "system")
    figures = {
        "processor seconds, two workers over two plain processes": seconds("dask", *both) / seconds("plain", *both),
        "seconds, two workers over two plain processes": seconds("dask", "wall") / seconds("plain", "wall"),
        "rate of two workers over twice one": seconds("one worker", "wall") / seconds("dask", "wall") / 2,
    }
    for figure, value in figures.items():
        print(json.dumps({"benchmark": "workers", "figure": figure, "value": float(f"{value:.3g}")}))
        if chosen.keep:
            with chosen.keep.open("a", newline="") as file:
                row = (
                    datetime.datetime.now(tz=datetime.UTC).date(),
                    chosen.machine,
                    "workers",
                    figure,
                    f"{value:.3g}",
                )
                csv.writer(file, lineterminator="\n").writerow(row)
    return None


if __name__ == "__main__":
    main()
