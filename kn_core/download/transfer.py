"""Files over HTTP that arrive whole or are said not to: what broke off goes on where it stopped, a few times."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import filelock

ATTEMPTS = 4  # counted anew whenever one brings more of the file
PAUSE = 1.0  # seconds before the second attempt, twice as long before each further one
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16
AGAIN = "Run the same command again: it goes on where this one stopped."
LATER = (408, 425, 429)  # HTTP statuses that, as those from 500 on, may be others in a moment


class TransferError(RuntimeError):
    """A file did not arrive; the message is the reason, in a few words without the file's name."""


class RefusedError(TransferError):
    """The server's last word on this file: asking again does not help."""


class DownloadError(RuntimeError):
    """Something could not be had; the message names it and says what to do. What did arrive is kept."""


def length(url: str) -> int | None:
    """Bytes of the file at `url` as its server announces them, None where it does not or cannot be asked."""
    try:
        with _open(url, method="HEAD") as response:
            return _announced(response)
    except TransferError:
        return None


def fetch(
    url: str,
    path: Path,
    check: Callable[[Path], None] = lambda _: None,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Write the file at `url` to `path`, which may hold the beginning of it: then the rest is asked for.

    `check` looks at the whole file and raises TransferError if it is not what was wanted; that counts as a failed
    attempt, as do errors of the server and of the network. `progress` is told how many bytes are there. Raises
    TransferError with the reason of the last attempt; what has arrived of the file stays. An error of the disk is an
    OSError.
    """
    most, failures = _size(path), 0
    while True:
        try:
            _receive(url, path, progress)
            _check(path, check)
            return
        except RefusedError:
            raise
        except TransferError:
            failures = 1 if _size(path) > most else failures + 1
            most = max(most, _size(path))
            if failures == ATTEMPTS:
                raise
        time.sleep(PAUSE * 2 ** (failures - 1))


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """One download at a time into a folder, which is made. Raises DownloadError while there is another."""
    root.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(root / ".download.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise DownloadError(f"another run is downloading into {root}. Wait until it has ended.") from None
    try:
        yield
    finally:
        lock.release()


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written (`store.writing`)."""
    for part in folder.glob(".*.part"):
        if re.fullmatch(r"\..+\.\d+\.part", part.name):
            part.unlink()


def advice(errors: Iterable[TransferError]) -> str:
    """What to do after these."""
    refused = [isinstance(error, RefusedError) for error in errors]
    other = "What one server refuses, another may have: --mirror."
    return " ".join([*([] if all(refused) else [AGAIN]), *([other] if any(refused) else [])])


def megabytes(size: int | None) -> str:
    return "size unknown" if size is None else f"{size / 1e6:,.1f} MB"


def _check(path: Path, check: Callable[[Path], None]) -> None:
    try:
        check(path)
    except TransferError:
        path.unlink(missing_ok=True)  # all of it arrived and it is wrong: no beginning to go on from
        raise


def _receive(url: str, path: Path, progress: Callable[[int], object]) -> None:
    """One attempt: append what is missing, or write all of it where the server knows no ranges."""
    had = _size(path)
    try:
        response = _open(url, headers={"Range": f"bytes={had}-"} if had else {})
    except _RangeError as error:
        if error.total == had:  # it was whole already
            return
        path.unlink(missing_ok=True)
        raise TransferError(f"{had:,} bytes were here of a file of {error.total}; it is begun anew") from None
    with response:
        if response.status != 206:
            had = 0
        elif not (response.headers.get("Content-Range") or "").startswith(f"bytes {had}-"):
            path.unlink(missing_ok=True)
            raise TransferError("the server sent another part of the file than was asked for")
        announced, began = _announced(response), had
        with path.open("ab" if had else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                had += len(chunk)
                progress(had)
    if announced is not None and had - began != announced:
        raise TransferError(f"cut off after {had:,} of {began + announced:,} bytes")


class _RangeError(TransferError):
    """There is nothing from there on. `total`: bytes of the whole file, None where the server does not say."""

    def __init__(self, total: int | None) -> None:
        super().__init__("HTTP 416")
        self.total = total


def _open(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> HTTPResponse:
    """The server's answer if it is a file; TransferError otherwise."""
    if not url.startswith(("http://", "https://")):  # urllib would open files of this machine too
        raise RefusedError("not an address of http or https")
    try:
        request = Request(url, method=method, headers={"User-Agent": "kn_core", **(headers or {})})  # noqa: S310
        response: HTTPResponse = urlopen(request, timeout=TIMEOUT)  # noqa: S310
        return response
    except HTTPError as error:
        with error:
            if error.code == 416:
                total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range") or "")
                raise _RangeError(int(total[1]) if total else None) from None
            kind = TransferError if error.code >= 500 or error.code in LATER else RefusedError
            raise kind(f"HTTP {error.code} {error.reason}".strip()) from None
    except (URLError, HTTPException, OSError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise TransferError(f"no connection ({reason})") from None


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The bytes as they come. Kept apart from writing them, so that a full disk is not taken for a bad line."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (HTTPException, OSError) as error:
        raise TransferError(f"the connection broke ({error})") from None


def _announced(response: HTTPResponse) -> int | None:
    announced = response.headers.get("Content-Length") or ""
    return int(announced) if announced.isdecimal() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
