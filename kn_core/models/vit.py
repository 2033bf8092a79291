"""A vision transformer as tower: DINOv2 ViT-S/14 (Oquab et al. 2023), fine-tuned for saliency since."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from kn_core import weights
from kn_core.models.towers import resize

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
    name, wheel = "DINOv2 ViT-S/14", weights.DINOV2_SMALL
    size, grid, width = 224, (16, 16), 384

    def __init__(self, network: transformers.Dinov2Model) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD)[:, None, None], persistent=False)

    @classmethod
    def pretrained(cls) -> Dinov2Small:
        network = transformers.Dinov2Model.from_pretrained(
            weights.dinov2_small(), dtype=torch.float32, local_files_only=True
        )
        return cls(network).eval()

    def preprocess(self, images: Sequence[np.ndarray]) -> Tensor:
        return (resize(images, self.size) - self.mean.cpu()) / self.std.cpu()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels).last_hidden_state[:, 1:]  # (B, 256, 384)
