"""Every page of the book runs in the toy world, whatever a profile asks for, with several concepts or with one."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import matplotlib.pyplot as plt
import pytest
import yaml

from book.words import NotRun
from kn_core import models
from kn_core.pictures import scenes
from kn_core.profile import Profile, load_profile
from kn_core.study import pairs
from tests.toy_world import toy_samples

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("your-own-model", "appendix/models-and-data", "appendix/manifest")  # they speak of packaged weights
SOURCES = {str(file.relative_to(ROOT / "book").with_suffix("")): file for file in sorted((ROOT / "book").rglob("*.md"))}
PAGES = [name for name, file in SOURCES.items() if "{code-cell}" in file.read_text("utf-8") and name not in ELSEWHERE]


def run(page: str, **parameters: Any) -> tuple[str, set[str]]:
    """Execute a page's cells; the words that ended it early, if any, and its words that nothing was said for."""
    said: dict[str, Any] = {}
    scope: dict[str, Any] = {"display": lambda shown: getattr(shown, "to_html", str)()}
    glue = ModuleType("myst_nb")
    glue.glue = lambda key, value, display=True: said.update({key: value})  # type: ignore[attr-defined]
    text, ended = "", ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "myst_nb", glue)
        patch.setattr("book.page.glue", glue.glue)
        for cell in jupytext.read(SOURCES[page]).cells:
            if cell.cell_type == "markdown":
                text += cell.source
                continue
            tree = ast.parse(cell.source)
            if "parameters" in cell.metadata.get("tags", []):
                scope |= {"concept": None} | parameters
                continue
            last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
            try:
                exec(compile(tree, page, "exec"), scope)
                getattr(eval(compile(last, page, "eval"), scope) if last else None, "to_html", str)()
            except NotRun as error:
                ended = str(error)
                break
            finally:
                plt.close("all")
    return ended, set(re.findall(r"\{glue:text\}`([\w-]+)", text)) - said.keys()


@pytest.fixture
def book_of(taught_model, toy_profile, tmp_path, monkeypatch) -> Callable[..., Profile]:
    """book_of(perturbation={...}): a profile of the toy world by the name of 'toy', whose pages can be run."""
    monkeypatch.setattr(scenes, "samples", toy_samples)
    monkeypatch.setattr(models, "PROJECTIONS", tmp_path)
    monkeypatch.setattr(pairs, "load_model", lambda profile: taught_model)
    monkeypatch.setenv("KN_PROFILES", str(tmp_path))
    monkeypatch.setenv("KN_RESULTS", str(tmp_path / "results"))
    (tmp_path / "toy.safetensors").write_bytes(b"the taught model's")

    def write(**changes: Any) -> Profile:
        settings = toy_profile.model_dump(mode="json", exclude={"name"})
        for group, change in changes.items():
            settings[group] = settings[group] | change if isinstance(change, dict) else change
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings))
        return load_profile("toy")

    return write


def whole_book(profile: Profile) -> dict[str, str]:
    """Run every page; why pages ended early."""
    ended = {}
    for page in PAGES:
        for concept in profile.concepts if page == "concept" else [None]:
            ended[page], missing = run(page, profile="toy", concept=concept)
            assert not missing, page
    return {page: why for page, why in ended.items() if why}
