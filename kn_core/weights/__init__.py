"""Weights out of packages, fetched and converted once, and those that were trained here."""

from pathlib import Path

PROJECTIONS = Path(__file__).parent / "projections"  # what was trained here, each with its card, report and log
