"""Vision towers: pictures in, a grid of features out, `(B, rows * columns, width)`, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from kn_core.weights import wheels


class Tower(Protocol):
    """What a caption model asks of a vision tower."""

    size: int  # pixels a side; the whole picture is resized to size x size, nothing is cropped
    grid: tuple[int, int]  # rows and columns of features
    width: int  # numbers a feature has

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB pictures of any size -> (B, 3, size, size) float32."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, rows * columns, width)."""


def resize(images: Sequence[np.ndarray], size: int, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Tensor:
    """uint8 (h, w, 3) pictures -> (B, 3, size, size) float32 in [0, 255]: uncropped, as masks are resized."""
    squares = [Image.fromarray(image).resize((size, size), resample) for image in images]
    return torch.from_numpy(np.stack([np.asarray(square, np.float32) for square in squares])).permute(0, 3, 1, 2)


class _Conv(nn.Conv2d):
    """Convolution with TensorFlow's 'SAME' padding, which puts the odd pixel at the bottom and on the right."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)  # pictures are square
        return super().forward(F.pad(x, (missing // 2, missing - missing // 2) * 2))


class _Block(nn.Module):
    """Inverted residual: expand 1x1, depthwise k x k, project 1x1. Lite means ReLU6 and no squeeze-excitation."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = width_in * expand
        if expand > 1:
            self._expand_conv = _Conv(width_in, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = _Conv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv = _Conv(wide, width_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(width_out, eps=1e-3)
        self.expands, self.skips = expand > 1, stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan & Le 2019; the Lite variant) up to its last feature map: 256 px -> 8 x 8 cells of 1280.

    Module names are those of the released checkpoint. The ImageNet classifier head is not loaded.
    """

    name, wheel = "EfficientNet-Lite0", wheels.EFFICIENTNET_LITE0
    size, grid, width = 256, (8, 8), 1280
    stages = (  # repeats, kernel, stride, expand, width
        *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
        *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
    )

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Conv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, width_in = [], 32
        for repeats, kernel, stride, expand, width in self.stages:
            for i in range(repeats):
                blocks.append(_Block(width_in, width, kernel, stride if i == 0 else 1, expand))
                width_in = width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Conv(width_in, self.width, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(self.width, eps=1e-3)

    @classmethod
    def pretrained(cls) -> EfficientNetLite0:
        state = load_file(wheels.efficientnet_lite0())
        tower = cls()
        tower.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("_fc.")})
        return tower.eval()

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        return (resize(images, self.size) - 127) / 128

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(pixels)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))  # (B, 1280, 8, 8)
        return x.flatten(2).transpose(1, 2)  # (B, 64, 1280)


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the network was trained with


class Dinov2Small(nn.Module):
    """ViT-S/14, 224 px: 16 x 16 patches of 384 features, after the final norm; the class token is left out.

    The 37 x 37 position embeddings are interpolated to 16 x 16 by transformers. After the final norm, because there
    objects' cells are told apart as well as anywhere (ridge classifier of cells, four patches a token, 49 kinds of
    drawn and 80 of photographed objects, the best of three penalties): 82 % of held-out scenes' object cells and 37 %
    of photographs', against 83 % and 37 % before the norm, 81 % and 34 % one block earlier.
    """

    mean: Tensor
    std: Tensor
    name, wheel = "DINOv2 ViT-S/14", wheels.DINOV2_SMALL
    size, grid, width = 224, (16, 16), 384

    def __init__(self, network: transformers.Dinov2Model) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD)[:, None, None], persistent=False)

    @classmethod
    def pretrained(cls) -> Dinov2Small:
        network = transformers.Dinov2Model.from_pretrained(
            wheels.dinov2_small(), dtype=torch.float32, local_files_only=True
        )
        return cls(network).eval()

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        return (resize(images, self.size) - self.mean.cpu()) / self.std.cpu()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels).last_hidden_state[:, 1:]  # (B, 256, 384)
