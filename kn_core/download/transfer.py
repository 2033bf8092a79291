"""Files over HTTP that arrive whole or are said not to: what broke off goes on where it stopped, a few times."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
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
    if not url.startswith(("http://", "https://")):  # urllib would open files of this machine too
        raise RefusedError("not an address of http or https")
    most, failures = size(path), 0
    while True:
        try:
            _receive(url, path, progress)
            try:
                return check(path)
            except TransferError:
                path.unlink(missing_ok=True)  # all of it arrived and it is wrong: no beginning to go on from
                raise
        except RefusedError:
            raise
        except TransferError:
            failures = 1 if size(path) > most else failures + 1
            most = max(most, size(path))
            if failures == ATTEMPTS:
                raise
        time.sleep(PAUSE * 2 ** (failures - 1))


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """One download at a time into a folder, which is made. Raises DownloadError while there is another."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(root / ".download.lock", timeout=0):
            yield
    except filelock.Timeout:
        raise DownloadError(f"another run is downloading into {root}. Wait until it has ended.") from None


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written (`fingerprint.writing`)."""
    for part in folder.glob(".*.[0-9]*.part"):
        part.unlink()


def advice(errors: Iterable[TransferError]) -> str:
    """What to do after these."""
    refused = [isinstance(error, RefusedError) for error in errors]
    other = "What one server refuses, another may have: --mirror."
    return " ".join([AGAIN] * (not all(refused)) + [other] * any(refused))


def _receive(url: str, path: Path, progress: Callable[[int], object]) -> None:
    """One attempt: append what is missing, or write all of it where the server knows no ranges."""
    had = size(path)
    headers = {"User-Agent": "kn_core"} | ({"Range": f"bytes={had}-"} if had else {})
    try:
        with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:  # noqa: S310
            had = had if response.status == 206 else 0
            if had and not response.headers.get("Content-Range", "").startswith(f"bytes {had}-"):
                path.unlink(missing_ok=True)
                raise TransferError("the server sent another part of the file than was asked for")
            with path.open("ab" if had else "wb") as file:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    had += len(chunk)
                    progress(had)
            if response.length:  # bytes that were announced and did not come
                raise TransferError(f"cut off after {had:,} of {had + response.length:,} bytes")
    except HTTPError as error:
        with error:
            if error.code == 416:  # there is nothing from there on
                if error.headers.get("Content-Range") == f"bytes */{had}":  # it was whole already
                    return
                path.unlink(missing_ok=True)
                raise TransferError(f"{had:,} bytes were here, more than the file has; it is begun anew") from None
            kind = TransferError if error.code >= 500 or error.code in LATER else RefusedError
            raise kind(f"HTTP {error.code} {error.reason}".strip()) from None
    except URLError as error:
        raise TransferError(f"no connection ({error.reason})") from None
    except (HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:  # others are of the disk
        raise TransferError(f"the connection broke ({error})") from None


def size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0
