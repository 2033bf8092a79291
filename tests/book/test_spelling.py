"""One spelling, the British one, and no misspelt word in what readers read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READ = [*sorted((ROOT / "book").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
AMERICAN = (
    r"\w*(?:\bcolor|\bgray|behavior|neighbor|favor|labeled|labeling|modeling|summariz|analyz|normaliz|artifact)\w*"
)


def prose(page: Path) -> str:
    """A page without its code: cells, blocks, and what stands between backticks."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_there_is_one_spelling():
    assert {page.name: found for page in READ if (found := re.findall(AMERICAN, prose(page), re.IGNORECASE))} == {}


def test_no_word_is_misspelt():
    pytest.importorskip("codespell_lib")
    checked = [page for page in READ if page.name != "references.md"]
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words-list", "rouge", *map(str, checked)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""
