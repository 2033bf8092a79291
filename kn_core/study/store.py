"""Load or compute: artefacts on disk that know what they were made from.

An artefact is one file, written whole or not at all, with the fingerprint of its inputs inside. One whose fingerprint
does not match is made again. A lock an artefact keeps two runs from making the same one: the second waits, then loads.
"""

import glob
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kn_core.fingerprint import writing

log = logging.getLogger(__name__)


class Store:
    """The artefacts of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begins: Callable[[str], object] = lambda _: None  # told the name of an artefact before it is computed
        self._frames: dict[str, tuple[object, pd.DataFrame]] = {}  # what was read, and the state of its file

    def table(self, name: str, inputs: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The frame `<name>.parquet`, computed when there is none made from these inputs.

        A file that is as it was when it was last asked for is not read again.
        """
        path = self.folder / f"{name}.parquet"
        state, frame = self._frames.get(name, (None, None))
        if frame is None or state != (inputs, _changed(path)):
            with self._lock(path):
                if self._made_from(path) == inputs:
                    frame = pd.read_parquet(path)
                else:
                    self.begins(name)
                    began = time.perf_counter()
                    frame = compute()
                    frame.attrs = {"inputs": inputs, "seconds": time.perf_counter() - began}
                    with writing(path) as temporary:
                        frame.to_parquet(temporary, index=False)
            self._frames[name] = (inputs, _changed(path)), frame
        return frame.copy(deep=False)  # what a caller does to it is done to a copy

    def arrays(self, name: str, inputs: str, compute: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays of `<name>.safetensors`, computed when there are none made from these inputs."""
        path = self.folder / f"{name}.safetensors"
        with self._lock(path):
            if self._made_from(path) != inputs:
                self.begins(name)
                began = time.perf_counter()
                made = {key: np.ascontiguousarray(array) for key, array in compute().items()}
                metadata = {"inputs": inputs, "seconds": str(time.perf_counter() - began)}
                with writing(path) as temporary:
                    temporary.write_bytes(save(made, metadata))  # a full disk is an OSError, as for tables
            with safe_open(path, framework="numpy") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)

    def holds(self, name: str, inputs: str) -> bool:
        """Whether the frame `<name>.parquet` is there, made from these inputs."""
        return self._made_from(self.folder / f"{name}.parquet") == inputs

    def held(self) -> dict[str, str]:
        """The artefacts that are there, by file name: what each was made from."""
        return {self._name(path): made for path in self._files() if (made := self._made_from(path)) is not None}

    def read(self, file: str) -> bytes | None:
        """An artefact as it lies in the store, to be `put` into another one; None where there is none."""
        path = self.folder / file
        return path.read_bytes() if path.exists() else None

    def put(self, file: str, content: bytes) -> None:
        """Keep an artefact that another store `read`. Raises ValueError for bytes that no store has written."""
        path = self.folder / file
        with self._lock(path), writing(path) as temporary:
            temporary.write_bytes(content)
            if "inputs" not in _metadata(temporary, path.suffix):
                got = f"{len(content)} other bytes"
                raise ValueError(f"{file} must be an artefact that a store has written. Got {got}.")

    def describe(self) -> pd.DataFrame:
        """What lies in the store: columns artefact, seconds that it took, bytes."""
        seconds = {path: float(_metadata(path).get("seconds", "nan")) for path in self._files()}
        rows = [(self._name(path), took, path.stat().st_size) for path, took in seconds.items()]
        return pd.DataFrame(rows, columns=["artefact", "seconds", "bytes"])

    def _files(self) -> list[Path]:
        return sorted([*self.folder.rglob("*.parquet"), *self.folder.rglob("*.safetensors")])

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _made_from(self, path: Path) -> str | None:
        return _metadata(path).get("inputs") if path.exists() else None

    @contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        """One run at a time; what a killed one left half-written is removed."""
        name = self._name(path)
        file = self.folder / ".locks" / f"{name.replace('/', '-')}.lock"
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(file)
        try:
            held = lock.acquire(timeout=0.2)
        except filelock.Timeout:
            log.warning("another run is making %s in %s; waiting for it", name, self.folder)
            held = lock.acquire()
        with held:
            for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):  # whoever holds the lock writes none yet
                part.unlink()
            yield


def _changed(path: Path) -> int | None:
    """When a file last changed, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def _metadata(path: Path, suffix: str = "") -> dict[str, str]:
    """What `Store` wrote beside an artefact's data; nothing for another's file, or a broken one.

    `suffix` says what a temporary file will be.
    """
    try:
        if (suffix or path.suffix) == ".parquet":
            found: dict[str, str] = json.loads((pq.read_schema(path).metadata or {}).get(b"PANDAS_ATTRS", b"{}"))
            return found
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, ValueError, SafetensorError) as error:
        log.warning("%s cannot be read (%s); it is made again", path, error)
        return {}
