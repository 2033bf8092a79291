"""Files whose names promise weights or settings, and which hold something else."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kn_core.weights import files
from kn_core.weights.files import WeightsError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 14000000000\n"
PAGE = b"\n<!DOCTYPE html><title>404</title>"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file({"a": torch.ones(300, 1000), "b": torch.ones(7)}, tmp_path / "model.safetensors", {"format": "pt"})
    torch.save({"a": torch.ones(300, 1000)}, tmp_path / "model.pth")
    for name in ("config.json", "model.safetensors.index.json"):
        (tmp_path / name).write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    return tmp_path


def test_whole_files_are_passed(weights: Path) -> None:
    files.check(sorted(weights.iterdir()))
    assert files.read_json(weights / "config.json") == {"weight_map": {"a": "model.safetensors"}}
    assert files.read_json(weights / "nothing.json") == {}


@pytest.mark.parametrize(
    ("name", "content", "got"),
    [
        *((name, b"", "an empty file") for name in ("model.safetensors", "model.pth", "config.json")),
        *(
            (name, LFS, "a pointer of Git LFS.*`git lfs pull`")
            for name in ("model.safetensors", "model.pth", "config.json")
        ),
        *((name, PAGE, "a web page") for name in ("model.safetensors", "model.pth", "config.json")),
        ("model.safetensors", 0.5, r"[\d,]+ bytes, where its header says 1,200,\d\d\d: it is cut off"),
        ("model.safetensors", 0.00003, "the first 36 bytes of one: it is cut off"),
        ("model.safetensors", bytes(9_000), "what has no header"),
        ("model.safetensors", b"\xff" * 9_000, "what has no header"),
        ("model.safetensors", b"\x02" + bytes(7) + b"[]", "what has no header"),
        ("model.pth", 0.5, r"the first 600,\d\d\d bytes of one: it is cut off"),
        ("model.pth", bytes(700_000), "what torch did not save"),
        ("config.json", b"\xef\xbb\xbf{}", ".*byte order mark"),
        ("config.json", "{}".encode("utf-16"), ".*byte order mark"),
        ("config.json", b"[]", "a list"),
        ("config.json", b'{"a": 1', "what is no JSON"),
        ("config.json", b"\xe4\xfc", "what is no JSON"),
        ("model.safetensors.index.json", b"{}", "an index without 'weight_map'"),
        ("model.safetensors.index.json", b'{"weight_map": []}', "an index without 'weight_map'"),
    ],
)
def test_what_a_file_holds_is_said(weights: Path, name: str, content: bytes | float, got: str) -> None:
    path = weights / name
    whole = path.read_bytes()
    path.write_bytes(content if isinstance(content, bytes) else whole[: int(len(whole) * content)])
    with pytest.raises(
        WeightsError, match=rf"{path} must be (settings|weights).*\. Got {got}.*\. Fetch it again: there\.$"
    ):
        files.check([path], "there")
    if path.suffix == ".json":
        with pytest.raises(WeightsError, match=got):
            files.read_json(path)


def test_weights_of_zeros_from_some_place_on_were_never_written_to_their_end(weights: Path) -> None:
    path = weights / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:800_000] + bytes(len(whole) - 800_000))
    with pytest.raises(WeightsError, match="Got zeros in 6 of the 19 places looked at"):
        files.check([path])
    path.write_bytes(whole[:1_100_000] + bytes(len(whole) - 1_100_000))  # rows of a vocabulary that are not used
    files.check([path])


@pytest.mark.parametrize("where", [(), ("text_config",)])
def test_quantised_weights_are_refused_by_their_settings(where: tuple[str, ...]) -> None:
    config: dict[str, object] = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    for part in where:
        config = {part: config}
    with pytest.raises(WeightsError, match="^mine is quantised .*awq.*Take the checkpoint that it was made from"):
        files.check_unquantised(config, "mine")
    files.check_unquantised({"model_type": "llava", "text_config": {"quantization_config": None}}, "mine")


def test_a_digest_by_tensors_sees_that_one_small_one_changed(tmp_path):
    digests = []
    for level in (0, 1):
        sides = {name: torch.zeros(2**22) for name in ("a", "c")}
        save_file(sides | {"b": torch.full((64,), float(level))}, tmp_path / "w.safetensors")
        digests.append([files.digest([tmp_path / "w.safetensors"], tensors=tensors) for tensors in (False, True)])
    assert digests[0][0] == digests[1][0] and digests[0][1] != digests[1][1]
