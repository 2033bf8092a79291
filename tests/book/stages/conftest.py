"""Figures are drawn in the book's look, and closed."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from kn_core import drawing


@pytest.fixture(autouse=True)
def themed():
    with drawing.theme():
        yield
    plt.close("all")
