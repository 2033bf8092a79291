"""Digests of inputs: settings, files, and code with all that it imports."""

from __future__ import annotations

import shutil

import pytest

from book.press.book import code_of_page, is_notebook
from kn_core import fingerprint as module
from kn_core.fingerprint import closure, code, code_of, digest, fingerprint
from kn_core.study.store import Store

FILES = {
    "kn_core/__init__.py": "",
    "kn_core/method/__init__.py": "",
    "kn_core/method/filtering.py": "from kn_core.models import load\n\ndef pairs(): return load() + 1\n",
    "kn_core/models/__init__.py": "from kn_core.models.towers import tower\n\ndef load(): return tower()\n",
    "kn_core/models/towers.py": 'def tower():\n    """A tower."""\n    return 1\n',
    "kn_core/download.py": "def fetch(): return 1\n",
    "kn_core/study.py": "if TYPE_CHECKING:\n    from kn_core.method import filtering\n",
    "book/__init__.py": "",
    "book/style.py": "INK = 'black'\n",
    "book/stages/__init__.py": "",
    "book/stages/figures.py": "from book.style import INK\nRED = 'red'\n",
    "book/ablation/__init__.py": "",
    "book/ablation/figures.py": "from book.style import INK\n",
}


@pytest.fixture
def change(tmp_path, monkeypatch):
    """change(file, text): a small tree of ours with one file changed, seen by a new process."""

    def write(file: str = "kn_core/__init__.py", text: str = "") -> None:
        for name, content in (FILES | {file: text}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        code.cache_clear()
        module._parsed.cache_clear()

    monkeypatch.setattr(module, "ROOT", tmp_path)
    write()
    yield write
    code.cache_clear()
    module._parsed.cache_clear()


def test_fingerprints_tell_inputs_apart(tmp_path):
    assert fingerprint("bear", {"a": 1, "b": 2}) == fingerprint("bear", {"b": 2, "a": 1})
    assert len({fingerprint("bear", 1), fingerprint("bear", 2), fingerprint("bus", 1), fingerprint("bear1")}) == 4
    for name in ("one", "other"):
        (tmp_path / name).write_text("the same")
    assert digest(tmp_path / "one") == digest(tmp_path / "other")


def test_a_closure_holds_what_is_imported_at_any_distance_and_for_types_only(change):
    method = {"kn_core.method", "kn_core.method.filtering", "kn_core.models", "kn_core.models.towers"}
    assert closure("kn_core.method.filtering") == method
    assert closure("kn_core.study") == {"kn_core.study", *method}
    assert closure("book.stages.figures") == {"book.stages.figures", "book.stages", "book.style"}
    with pytest.raises(ModuleNotFoundError, match="no module kn_core.missing"):
        code("kn_core.missing")


def test_an_artefact_is_made_anew_when_a_function_two_imports_away_changes_and_kept_otherwise(change, tmp_path):
    made = []

    def ask() -> int:
        import pandas as pd

        store = Store(tmp_path / "parts")
        inputs = fingerprint("bear", code("kn_core.method.filtering"))
        store.table("pairs-bear", inputs, lambda: made.append(1) or pd.DataFrame({"n": [1]}))
        return len(made)

    assert ask() == 1
    change("kn_core/download.py", "def fetch(): return 2\n")
    assert ask() == 1
    change("kn_core/models/towers.py", 'def tower():\n    """Another text."""\n    return 1  # and a comment\n')
    assert ask() == 1
    change("kn_core/models/towers.py", "def tower():\n    return 2\n")
    assert ask() == 2
    change("kn_core/models/towers.yaml", "tables: of the module\n")
    assert ask() == 3


def test_a_changed_colour_in_one_room_is_a_change_of_that_room_s_page_alone(change):
    pages = {name: f"from book.{name} import figures" for name in ("stages", "ablation")}
    before = {name: code_of(cells) for name, cells in pages.items()}
    change("book/stages/figures.py", "from book.style import INK\nRED = 'crimson'\n")
    assert [name for name, cells in pages.items() if code_of(cells) != before[name]] == ["stages"]
    change("book/style.py", "INK = 'navy'\n")
    assert [name for name, cells in pages.items() if code_of(cells) != before[name]] == ["stages", "ablation"]


@pytest.mark.parametrize(
    ("file", "rerun"),
    [
        ("book/ablation/figures.py", {"ablation"}),
        ("book/stages/layer_figures.py", {"layer-distribution", "stage-2", "concept"}),
        ("kn_core/download/coco.py", set()),
    ],
)
def test_a_page_of_the_book_runs_again_when_what_it_imports_changes(file, rerun, tmp_path, monkeypatch):
    for room in ("kn_core", "book"):
        shutil.copytree(module.ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("*.safetensors", "*.md"))
    pages = [page for page in (module.ROOT / "book").rglob("*.md") if is_notebook(page)]
    monkeypatch.setattr(module, "ROOT", tmp_path)
    digests = []
    for _ in range(2):
        module._parsed.cache_clear()
        digests.append({page.stem: code_of_page(page) for page in pages})
        changed = tmp_path / file
        changed.write_text(changed.read_text() + "\nCRIMSON = '#dc143c'\n")
    module._parsed.cache_clear()
    assert {page for page in digests[0] if digests[0][page] != digests[1][page]} == rerun
