"""Whitened coordinates for training a linear layer, for towers whose features lie along few directions."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from kn_core.training.data import Bank


class Whitened(torch.nn.Module):
    """A linear layer's weight W (H, width) as W' S, S the inverse square root of its inputs' second moment.

    W' x' = W x with x' = S x, whose second moment is the identity: Adam's steps have one size in every direction.
    Directions of less than `SHRINKAGE` times the mean second moment are damped, so that noise is not blown up.
    """

    SHRINKAGE = 0.1
    root: Tensor
    inverse_root: Tensor

    def __init__(self, inputs: Tensor) -> None:
        """Of `inputs` (N, width)."""
        super().__init__()
        moment = (inputs.T @ inputs / len(inputs)).double()
        values, vectors = torch.linalg.eigh(moment)
        values = values.clamp(min=0) + self.SHRINKAGE * values.mean()
        for name, power in (("root", 0.5), ("inverse_root", -0.5)):
            self.register_buffer(name, (vectors * values**power @ vectors.T).float(), persistent=False)

    def forward(self, whitened: Tensor) -> Tensor:
        return whitened @ self.inverse_root

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight @ self.root


def whiten(layer: torch.nn.Module, bank: Bank, rows: int = 1000) -> None:
    """Train a linear layer in whitened coordinates from here on; what it computes stays the same."""
    some = np.asarray(bank.features[:: max(1, len(bank.features) // rows)], np.float32)
    parametrize.register_parametrization(layer, "weight", Whitened(torch.from_numpy(some).flatten(0, 1)))
