"""MS COCO 2017 over the network: the official annotations, and of the pictures those that a profile could keep.

    python -m kn_core data coco --split val2017 --root coco --profile embedded-coco

All is written below one folder, each file whole or not at all; what is there is not fetched again. A folder that has
its annotations, in either layout, gets the pictures that it lacks, and one that lacks none is not written to.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tqdm import tqdm

from kn_core.download.annotations import SERVER, Say, fetch_annotations, server
from kn_core.download.transfer import DownloadError, RefusedError, TransferError, advice, alone, fetch, sweep
from kn_core.fingerprint import writing
from kn_core.method.filtering import BEFORE_CAPTIONS, could_keep, explain
from kn_core.pictures import coco_layout
from kn_core.pictures.coco import CocoFolder, annotated_picture
from kn_core.pictures.coco_checks import CocoError
from kn_core.pictures.image_files import PictureError
from kn_core.profile import Profile

BYTES_PER_PIXEL = 0.6  # of COCO's JPEGs: 0.59 over 484 of them
CONNECTIONS = 8
GIVE_UP = 20  # pictures in a row that do not come: the trouble is not theirs


def download(
    root: Path, split: str, profile: Profile, concepts: Sequence[str] = (), mirror: str | None = None, say: Say = print
) -> Path:
    """Make `root` a COCO folder with all pictures of `concepts` (default: the profile's) that the profile could keep.

    Says first, by `say`, what it fetches. Returns what `CocoFolder` takes: the folder or, where it holds several
    splits, this one's instances file. Raises DownloadError, with every file that is missing, once all others are there.
    """
    address, concepts = server(mirror), tuple(concepts) or profile.concepts
    with _disk(root):
        fetch_annotations(root, split, address, say)
        coco = _read(root, split)
        wanted = _wanted(coco, concepts, profile, say)
        lacking = [image_id for image_id in tqdm(wanted, desc="checking", leave=False) if _fault(coco, image_id)]
        if lacking:
            urls = {image_id: _url(coco, image_id, split, address) for image_id in lacking}
            _fetch_pictures(coco, urls, len(wanted), say)
        say(f"All {len(wanted):,} are there." if lacking else f"All {len(wanted):,} are there: none is downloaded.")
    several = not coco_layout.is_plain(root) and len(coco_layout.splits(root)) > 1
    return coco_layout.official(root, "instances", split) if several else root


def _read(root: Path, split: str) -> CocoFolder:
    folders = coco_layout.picture_folders(root, "images" if coco_layout.is_plain(root) else split)
    if not any(folder.is_dir() for folder in folders):
        folders[0].mkdir()
    try:
        coco = CocoFolder(root, split)
    except CocoError as error:
        raise DownloadError(f"{error} Move it away and run the same command again, to have it downloaded.") from None
    coco.tell()
    return coco


def _wanted(coco: CocoFolder, concepts: Sequence[str], profile: Profile, say: Say) -> list[str]:
    """The pictures of the concepts that pass every constraint which needs no model, judged by the annotations."""
    shown: set[str] = set()
    wanted: dict[str, None] = {}
    for concept in concepts:
        for outline in tqdm(coco.outlines(concept), desc=f"masks of '{concept}'", unit="picture", leave=False):
            shown.add(outline.image_id)
            if could_keep(outline, profile.filtering):
                wanted[outline.image_id] = None
    rules = [explain(name, profile.filtering) for name in BEFORE_CAPTIONS if name in profile.filtering.constraints]
    say(f"Pictures: {len(shown):,} show {', '.join(concepts)}. The profile '{profile.name}' could keep {len(wanted):,}")
    say(f"of them, by what needs no model: {'; '.join(rules) or 'it has no such constraint'}.")
    return list(wanted)


def _fault(coco: CocoFolder, image_id: str, path: Path | None = None) -> str:
    """What is wrong with the picture's file (or with the one at `path`): '' if it is whole, of the annotated size."""
    record, path = coco.record(image_id), path or coco.path(image_id)
    size = record["height"], record["width"]
    try:
        height, width = annotated_picture(path, size).shape[:2]
    except PictureError as error:
        return str(error).removeprefix(f"{path}: ").rstrip(".")
    return "" if (height, width) == size else f"it has {width} x {height} pixels, annotated are {size[1]} x {size[0]}"


def _url(coco: CocoFolder, image_id: str, split: str, address: str) -> str:
    """The picture's `coco_url`, moved to the mirror if there is one; without it, where COCO keeps such a file."""
    record = coco.record(image_id)
    url = str(record.get("coco_url", ""))
    if address == SERVER and url.startswith(("http://", "https://")):
        return url
    path = urlsplit(url).path or quote(f"/{record.get('split', split)}/{record['file_name']}")
    return address + path


def _fetch_pictures(coco: CocoFolder, urls: Mapping[str, str], wanted: int, say: Say) -> None:
    """Fetch them over several connections. Raises DownloadError with those that did not come."""
    records = {image_id: coco.record(image_id) for image_id in urls}
    damaged = [coco.path(image_id).name for image_id in urls if coco.path(image_id).exists()]
    size = sum(record["height"] * record["width"] for record in records.values()) * BYTES_PER_PIXEL / 1e6
    told = f"{len(urls):,}, about {size:,.1f} MB, {CONNECTIONS} at a time"
    say(f"{wanted - len(urls):,} of them are there. To fetch: {told}.")
    if damaged:
        say(f"Damaged, or not of the annotated size, and to be replaced: {', '.join(damaged)}.")
    failed: dict[str, TransferError] = {}
    came = in_a_row = 0
    with alone(coco.folder), ThreadPoolExecutor(CONNECTIONS) as pool:
        for folder in {coco.path(image_id).parent for image_id in urls if not _leads_out(records[image_id])}:
            sweep(folder)
        jobs = {pool.submit(_fetch_picture, coco, image_id, url): image_id for image_id, url in urls.items()}
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="pictures"):
                try:
                    job.result()
                    came, in_a_row = came + 1, 0
                except TransferError as error:
                    failed[jobs[job]], in_a_row = error, in_a_row + 1
                    if in_a_row == GIVE_UP:
                        break
        finally:
            pool.shutdown(cancel_futures=True)  # also where a reader interrupts
    if failed:
        lines = [f"{len(failed):,} of {len(urls):,} pictures did not come; {came:,} did and are kept."]
        lines += [f"  {records[each]['file_name']}: {failed[each]}" for each in urls if each in failed]
        if left := len(urls) - len(failed) - came:
            lines.append(f"After {GIVE_UP} failures in a row, the other {left:,} were given up.")
        lines.append(f"{advice(failed.values())} A picture that is not there is left out of a run.")
        raise DownloadError("\n".join(lines))


def _leads_out(record: Mapping[str, Any]) -> bool:
    name = PurePosixPath(unquote(record["file_name"]).replace("\\", "/"))
    return name.is_absolute() or ".." in name.parts


def _fetch_picture(coco: CocoFolder, image_id: str, url: str) -> None:
    def check(path: Path) -> None:
        if fault := _fault(coco, image_id, path):
            raise TransferError(fault)

    if _leads_out(coco.record(image_id)):
        raise RefusedError("its name in the annotations leads out of the folder")
    with writing(coco.path(image_id)) as temporary:
        fetch(url, temporary, check)


@contextmanager
def _disk(root: Path) -> Iterator[None]:
    """Errors of the disk, and an unknown concept, as one line that says which and what to do."""
    try:
        if root.exists() and not root.is_dir():
            raise DownloadError(f"{root} is no folder. Name one, which need not exist, with --root.")
        yield
    except OSError as error:
        raise DownloadError(
            f"{error.filename or root}: {error.strerror or error}. What has come is kept. Make room or get the right "
            "to write there, or name another folder with --root."
        ) from None
    except ValueError as error:
        raise DownloadError(str(error)) from None
