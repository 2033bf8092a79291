"""The house: which rooms there are, and that imports go down through them and never back up."""

from __future__ import annotations

from pathlib import Path

import pytest

from kn_core.fingerprint import closure, imported

ROOT = Path(__file__).parents[1]
# From the top down: a room imports from rooms below it, and from itself. `kn_core` itself imports when it is asked to.
LAYERS = (
    *("book.__main__", "book.page", "book.headlines", "book.claims_table"),
    *("book.answers", "book.concept_card", "book.first_figures"),
    "book.your_concept",
    *(
        "book.browser",
        "book.other_models",
        "book.appendix",
        "book.choices",
        "book.editing",
        "book.transfer",
        "book.ablation",
        "book.thresholds",
        "book.perturbation",
        "book.ceiling",
        "book.faithfulness",
        "book.stages",
    ),
    *("book.data_filtering", "book.claims"),
    *("book.press", "book.narrow", "book.pictures", "book.intervals", "book.tables", "book.style", "book.words"),
    *(
        "kn_core.training.__main__",
        "kn_core.__main__",
        "kn_core.locate",
        "kn_core.study",
        "kn_core.download",
        "kn_core.training",
    ),
    *("kn_core.method", "kn_core.measures", "kn_core.models", "kn_core.pictures", "kn_core.weights"),
    *("kn_core.drawing", "kn_core.profile", "kn_core.settings", "kn_core.concepts", "kn_core.fingerprint"),
)


def modules() -> dict[str, Path]:
    """Every module of ours and its file."""
    files = [path for room in ("kn_core", "book") for path in (ROOT / room).rglob("*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def layer(module: str) -> int:
    """How far down a module's room lies."""
    return next(i for i, room in enumerate(LAYERS) if f"{module}.".startswith(f"{room}."))


def test_imports_go_down_through_the_rooms():
    rising = [
        f"{module} imports {other}"
        for module in modules().keys() - {"kn_core", "book"}
        for other in imported(module)
        if layer(other) < layer(module)
    ]
    assert rising == []


def test_the_core_knows_nothing_of_the_book():
    core = {module for module in modules() if module.startswith("kn_core")}
    assert [module for module in core if any(other.startswith("book") for other in closure(module))] == []


def test_what_is_computed_and_kept_knows_nothing_of_intervals():
    """An artefact's key holds the code that made it: another interval must not ask for a book to be computed anew."""
    computed = closure("kn_core.study.study") | closure("kn_core.study.run") | closure("kn_core.study.own")
    assert computed & {"kn_core.measures.stats", "kn_core.measures.summaries"} == set()


def test_there_are_eight_rooms_and_at_most_eight_files_beside_them():
    inside = list((ROOT / "kn_core").iterdir())
    assert len([path for path in inside if any(path.rglob("*.py"))]) == 8
    assert len([path for path in inside if path.suffix == ".py"]) <= 8


@pytest.mark.parametrize("room", ["kn_core", "book"])
def test_no_module_is_longer_than_300_lines(room):
    lengths = {name: len(file.read_text().splitlines()) for name, file in modules().items() if name.startswith(room)}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
