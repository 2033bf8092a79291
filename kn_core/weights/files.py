"""Files of weights and of settings: what tells them from others, and what is in one that its name does not say.

Under the right name there may be a pointer of Git LFS, a web page, the beginning of a file, or zeros. A look at the
beginning and at some blocks tells, before a library does in its own words.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kn_core.profile import ProfileError

KINDS = {".json": "settings, a JSON object", ".safetensors": "weights in safetensors' format"}
KINDS |= dict.fromkeys((".pth", ".pt", ".bin"), "weights that torch saved")
BLOCK = 2**16  # bytes
BLOCKS = 64  # of a file that are read to tell it from others


class WeightsError(RuntimeError):
    """Weights cannot be had or cannot be trusted; the message says what to do."""


def blocks(path: Path) -> Iterator[bytes]:
    """`BLOCKS` blocks of 64 KiB, evenly spread from the first to the last; all of a file of 4 MiB or less."""
    size = path.stat().st_size
    last = max(size - BLOCK, 0)
    with path.open("rb") as file:
        if size <= BLOCK * BLOCKS:
            while block := file.read(BLOCK):
                yield block
            return
        for i in range(BLOCKS):
            file.seek(last * i // (BLOCKS - 1))
            yield file.read(BLOCK)


def digest(files: Sequence[Path], *, tensors: bool = False) -> str:
    """A digest that tells weights apart without reading gigabytes: a moved or copied file has the same one.

    Of each file: its name, its size and its `blocks`; of safetensors files also how each of the `tensors` begins, as a
    training of a model's connector alone changes what no block may hold.
    """
    found = hashlib.sha256()
    for path in sorted(files):
        found.update(f"{path.name}:{path.stat().st_size}:".encode())
        for block in blocks(path):
            found.update(block)
        for block in _beginnings(path) if tensors and path.suffix == ".safetensors" else ():
            found.update(block)
    return found.hexdigest()


def _beginnings(path: Path) -> Iterator[bytes]:
    """The first 4 KiB of every tensor of a safetensors file."""
    length, header = _header(path)
    places = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    with path.open("rb") as file:
        for begin, end in sorted(places):
            file.seek(8 + length + begin)
            yield file.read(min(4096, end - begin))


def check(files: Iterable[Path], get: str = "") -> None:
    """Raises one WeightsError that names those of the files that hold something else; `get` says where from."""
    if wrong := [f"{path} must be {_kind(path)}. Got {fault}." for path in files if (fault := _fault(path))]:
        raise WeightsError(f"{' '.join(wrong)} Fetch {'it' if len(wrong) == 1 else 'them'} again{get and ': '}{get}.")


def read_json(path: Path) -> dict[str, Any]:
    """What a file of settings holds; nothing where there is none. Raises WeightsError for what is no JSON object."""
    if not path.is_file():
        return {}
    check([path])
    held: dict[str, Any] = json.loads(path.read_bytes())
    return held


def check_unquantised(config: Mapping[str, Any], name: str, read: Collection[str] = ()) -> None:
    """Raises WeightsError where a checkpoint's settings, or those of a part of it, say that its weights are packed.

    `read` are the ways to pack them that can be read.
    """
    for part in (config, *config.values()):
        how = part.get("quantization_config") if isinstance(part, Mapping) else None
        if how:
            by = how.get("quant_method", "some method") if isinstance(how, Mapping) else how
            if by in read:
                continue
            raise WeightsError(
                f"{name} is quantised (quantization_config in its settings: {by}). The method reads what each neuron "
                "writes from plain weights, and quantised ones are packed. Take the checkpoint that it was made from, "
                "in bfloat16."
            )


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Whatever a library says of files that it cannot use becomes one WeightsError; its reports are not printed."""
    from transformers import __version__, logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except (WeightsError, ProfileError, FileNotFoundError):
        raise
    except Exception as error:  # each library, and each model of transformers, has its own for settings that are odd
        told = " ".join(str(error).split())
        raise WeightsError(
            f"{what} cannot be loaded by transformers {__version__} ({type(error).__name__}: {told:.300}). Its files "
            "must be those of one checkpoint, all as transformers saves them."
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def _kind(path: Path) -> str:
    return KINDS.get(path.suffix, "the file that its name says")


def _fault(path: Path) -> str:
    """What a file holds in place of what its name says, in words; '' where nothing is seen."""
    if not path.is_file():
        return "no such file"
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(200)
    if not size:
        return "an empty file"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, which stands for the file (`git lfs pull` fetches what it stands for)"
    if path.suffix not in KINDS:  # a chat template, an archive: anything may stand in it
        return ""
    if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        return "a web page"
    if path.suffix == ".json":
        return _fault_of_json(path)
    if path.suffix == ".safetensors":
        return _fault_of_safetensors(path, start, size)
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"the first {size:,} bytes of one: it is cut off"
    return "" if start.startswith((b"PK", b"\x80")) else "what torch did not save"


def _fault_of_json(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return "one that begins with a byte order mark, which transformers does not read (save it as UTF-8 without)"
    try:
        held = json.loads(content)
    except ValueError as error:
        return f"what is no JSON ({error})"
    if not isinstance(held, dict):
        return f"a {type(held).__name__}"
    if path.name.endswith(".index.json") and not isinstance(held.get("weight_map"), dict):
        return "an index without 'weight_map', which says what file each weight is in"
    return ""


def n_numbers(path: Path) -> int:
    """How many numbers a whole safetensors file holds, in all of its tensors."""
    return sum(math.prod(entry["shape"]) for name, entry in _header(path)[1].items() if name != "__metadata__")


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """How long a safetensors file's header is, in bytes, and what it holds: tensors by name. Raises ValueError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(min(length, path.stat().st_size)))
    return length, header


def _fault_of_safetensors(path: Path, start: bytes, size: int) -> str:
    if int.from_bytes(start[:8], "little") > size - 8 and start[8:9] == b"{":
        return f"the first {size:,} bytes of one: it is cut off"
    try:
        length, header = _header(path)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "what has no header of that format"
    if size != expected:
        return f"{size:,} bytes, where its header says {expected:,}: it is cut off or damaged"
    zeros = [not block.strip(b"\0") for block in blocks(path)]
    few = len(zeros) < 8 or sum(zeros) <= len(zeros) / 4  # as rows of a vocabulary that are not used
    return "" if few else f"zeros in {sum(zeros)} of the {len(zeros)} places looked at: it was not written to its end"
