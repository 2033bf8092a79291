"""The official annotations of MS COCO 2017 over the network: two members of one archive whose sha256 is known."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from kn_core.download.transfer import AGAIN, DownloadError, TransferError, advice, alone, fetch, size, sweep
from kn_core.fingerprint import writing
from kn_core.pictures import coco_layout

SERVER = "http://images.cocodataset.org"  # its https has the certificate of another host
SPLITS = ("train2017", "val2017")  # of 2017, those with published masks
ARCHIVE = "annotations_trainval2017.zip"
ARCHIVE_BYTES = 252_907_541
ARCHIVE_SHA256 = "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"

Say = Callable[[str], object]


def server(mirror: str | None = None) -> str:
    """The address below which files lie: `mirror`, else `KN_COCO_MIRROR`, else COCO's own. Raises DownloadError."""
    address = mirror or os.environ.get("KN_COCO_MIRROR") or SERVER
    if not re.match(r"https?://[^/]", address):
        raise DownloadError(f"a mirror must be an address such as {SERVER}. Got '{address}'.")
    return address.rstrip("/")


def fetch_annotations(root: Path, split: str, address: str, say: Say) -> None:
    """Put the split's annotations where there are none. The captions come first, so that instances mean both."""
    here = root / "instances.json" if coco_layout.is_plain(root) else coco_layout.official(root, "instances", split)
    if here.is_file():
        say(f"Annotations: {here} is there and is not downloaded.")
        return
    if split not in SPLITS:
        raise DownloadError(f"MS COCO 2017 has masks for {' and '.join(SPLITS)}. Got '{split}'; there is no {here}.")
    kinds = ("captions", "instances")
    with alone(root):
        sweep(here.parent)
        archive = root / ARCHIVE
        if archive.is_file():
            say(f"Annotations: from {archive}, which is there and is not downloaded.")
            _check_archive(archive, "Delete it to have it downloaded.")
        else:
            archive = _fetch_archive(root, address, " and ".join(f"{kind}_{split}.json" for kind in kinds), say)
        with zipfile.ZipFile(archive) as archived:
            for kind in kinds:  # under names of ours, so that no path inside the archive matters
                target = coco_layout.official(root, kind, split)
                with writing(target) as temporary, temporary.open("wb") as file:
                    shutil.copyfileobj(archived.open(f"annotations/{target.name}"), file)
        if archive.name != ARCHIVE:
            archive.unlink()


def _fetch_archive(root: Path, address: str, members: str, say: Say) -> Path:
    """The official archive, checked, under a temporary name that a later run knows and goes on with."""
    url, part = f"{address}/annotations/{ARCHIVE}", root / f"{ARCHIVE}.part"
    had = size(part)
    begun = f" ({had / 1e6:.1f} MB of it are here)" if had else ""
    say(f"Annotations: 1 file, {ARCHIVE_BYTES / 1e6:.1f} MB{begun}, {url}. Kept of it: {members}.")
    say("They are under CC BY 4.0; each photograph is under its author's terms.")
    try:
        with tqdm(total=ARCHIVE_BYTES, initial=had, unit="B", unit_scale=True, desc="annotations") as bar:
            fetch(url, part, progress=lambda now: bar.update(now - bar.n))
    except TransferError as error:
        raise DownloadError(f"{url}: {error}. {advice([error])}") from None
    try:
        _check_archive(part, f"What came from {url} was deleted. {AGAIN} If that ends alike, name another --mirror.")
    except DownloadError:
        part.unlink()
        raise
    return part


def _check_archive(archive: Path, advice: str) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != ARCHIVE_SHA256:
        raise DownloadError(f"{archive}: sha256 must be {ARCHIVE_SHA256}, COCO's. Got {found}. {advice}")
