"""Where networks run."""

from __future__ import annotations

import torch


def device(name: str) -> str:
    """'auto' as the accelerator that there is, or the CPU; any other name as it is."""
    if name != "auto":
        return name
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found else "cpu"
