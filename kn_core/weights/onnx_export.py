"""A transformer's weights out of its ONNX export, under the names that they had in PyTorch.

PyTorch's exporter keeps the names of most parameters, but folds the transposed weight of a linear layer into an unnamed
constant (`onnx::MatMul_17`). Which layer it belonged to says the node that reads it: `/backbone/encoder/layer.0/mlp/
fc1/MatMul`. The position embeddings, interpolated in the graph, are folded too, into the class token's and the
patches'. Only the file is read; nothing of it is executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

POSITIONS = "embeddings.position_embeddings"


class ExportError(ValueError):
    """A graph is not named as PyTorch's exporter names a DINOv2; the message says which constant."""


@dataclass(frozen=True)
class Node:
    """One operation of a graph: where in the module tree it stood, what it does, what it reads."""

    name: str
    kind: str
    inputs: tuple[str, ...]


def state_dict(
    constants: Mapping[str, np.ndarray], nodes: Iterable[Node], module: str = "backbone"
) -> dict[str, np.ndarray]:
    """The state dict of one submodule of the exported model, a DINOv2, names relative to it.

    Constants that are named after other submodules are left out. Raises ExportError for an unnamed constant whose place
    does not follow from the nodes that read it, and for two constants of one name.
    """
    state = {name.removeprefix(f"{module}."): v for name, v in constants.items() if name.startswith(f"{module}.")}
    positions: dict[str, np.ndarray] = {}
    for node in nodes:
        place = node.name.strip("/").split("/")
        for name in node.inputs:
            if name not in constants or not name.startswith("onnx::") or place[0] != module:
                continue
            if node.kind == "MatMul":
                found, value = ".".join([*place[1:-1], "weight"]), constants[name].T
            elif place[1:-1] == ["embeddings"] and node.kind in ("Concat", "Reshape"):
                positions[node.kind] = constants[name]
                continue
            else:
                raise ExportError(
                    f"{name} must be read by a MatMul, or in {module}/embeddings by a Concat (class token's position) "
                    f"or a Reshape (patches'). It is read by {node.name}, a {node.kind}."
                )
            if found in state:
                raise ExportError(f"{found} must be one constant. {name}, read by {node.name}, is another.")
            state[found] = value
    if positions.keys() != {"Concat", "Reshape"}:
        raise ExportError(
            f"the position embeddings of {module}/embeddings must be two constants, read by a Concat and a Reshape. "
            f"Found: {', '.join(positions) or 'none'}."
        )
    state[POSITIONS] = np.concatenate([positions["Concat"], positions["Reshape"]], axis=1)  # (1, 1 + patches, H)
    return state


def read(path: Path) -> tuple[dict[str, np.ndarray], list[Node]]:
    """Constants and nodes of an ONNX file. Raises ExportError for a file that is none."""
    import onnx  # here, because nothing else needs it
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        graph = onnx.load(path).graph
    except DecodeError as error:
        raise ExportError(f"{path.name} must be an ONNX file ({error}).") from None
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    return constants, [Node(node.name, node.op_type, tuple(node.input)) for node in graph.node]


def save_dinov2(path: Path, folder: Path, **sizes: Any) -> None:
    """The DINOv2 of an ONNX file as a model folder that transformers loads; `sizes` are those of its config.

    Loads it once. Raises ExportError where a parameter is missing, left over or of another shape.
    """
    from transformers import Dinov2Config, Dinov2Model

    state = {name: torch.from_numpy(np.array(value, order="C")) for name, value in state_dict(*read(path)).items()}
    config: Any = Dinov2Config  # transformers annotates its many options one by one
    config(**sizes, architectures=["Dinov2Model"], use_mask_token=False).save_pretrained(folder)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    options = dict.fromkeys(("local_files_only", "ignore_mismatched_sizes", "output_loading_info"), True)
    info: Any = Dinov2Model.from_pretrained(folder, **options)[1]
    wrong = {key.replace("_keys", ""): sorted(map(str, info[key])) for key in info if info[key]}
    if wrong:
        told = "; ".join(f"{key}: {', '.join(names)[:200]}" for key, names in wrong.items())
        raise ExportError(f"the constants of {path.name} must fill a DINOv2 of {sizes} completely. {told}.")
