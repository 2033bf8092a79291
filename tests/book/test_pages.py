"""Every page of the book runs in the toy world, whatever a profile asks for, with several concepts or with one."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import matplotlib.pyplot as plt
import pytest
import yaml

from book.press.executed import without_brief
from book.words import NotRun
from kn_core import models
from kn_core.pictures import scenes
from kn_core.profile import PROFILES, Profile, load_profile, profile_names
from kn_core.study import pairs
from kn_core.study.experiments.thresholds import ARMS
from tests.toy_world import toy_samples

ROOT = Path(__file__).parents[2]
# They speak of packaged weights.
ELSEWHERE = ("your-own-model", "add-a-model", "appendix/models-and-data", "appendix/manifest")
SOURCES = {str(file.relative_to(ROOT / "book").with_suffix("")): file for file in sorted((ROOT / "book").rglob("*.md"))}
PAGES = [name for name, file in SOURCES.items() if "{code-cell}" in file.read_text("utf-8") and name not in ELSEWHERE]


def run(page: str, **parameters: Any) -> tuple[str, set[str]]:
    """Execute a page's cells; the words that ended it early, if any, and its words that nothing was said for."""
    said: dict[str, Any] = {}
    scope: dict[str, Any] = {"display": lambda shown: getattr(shown, "to_html", str)()}
    glue = ModuleType("myst_nb")

    def say(key: str, value: Any, display: bool = True) -> None:
        assert said.setdefault(key, value) == value, f"{page} says two things of {key!r}"

    glue.glue = say  # type: ignore[attr-defined]
    text, ended = "", ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "myst_nb", glue)
        patch.setattr("book.page.glue", glue.glue)
        patch.setattr("book.page.FORMATS", ("svg",))  # PDFs take their time
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
    text = without_brief(text, said) if ended else text
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


def whole_book(profile: Profile, pages: Sequence[str] = PAGES) -> dict[str, str]:
    """Run every page, or some; why pages ended early."""
    ended = {}
    for page in pages:
        for concept in profile.concepts if page == "concept" else [None]:
            ended[page], missing = run(page, profile="toy", concept=concept)
            assert not missing, page
    return {page: why for page, why in ended.items() if why}


BESIDE = ("embedded-vit", "embedded-qformer", "embedded-many", *(f"embedded-seed-{seed}" for seed in range(3)))
MAIN_SETTING_ALONE = {"rivals": [], "controls": ["random"], "seeds": 1, "draws": 1, "choosing": 0}
MAIN_SETTING_ALONE |= {f"sweep_{over}": [] for over in ("n", "sigma", "interventions", "positions")}
SHORT = {"rivals": ["stage-1", "stage-2"], "sweep_n": [4], "sweep_sigma": [1.0]}


def test_a_book_of_one_concept_is_whole(book_of):
    profile = book_of(concepts=["bear"], perturbation=SHORT | {"sweep_interventions": ["zero"]})
    two = {"appendix/towers", "beyond-projectors"} | {"editing", "transfer"}  # profiles compared, and names exchanged
    assert whole_book(profile).keys() == two


def test_a_book_is_whole_where_one_concept_alone_has_two_kept_pairs(book_of, monkeypatch):
    def few(concept: str, n: int, seed: int, only: Any = None) -> Any:
        return toy_samples(concept, n if concept == "bus" else 1, seed, only)

    monkeypatch.setattr(scenes, "samples", few)
    profile = book_of(perturbation=SHORT | {"sweep_interventions": ["mean", "zero"]})  # there is no mean of others
    assert not whole_book(profile, ["data-filtering", "stage-2", "perturbation", "limitations", "concept"])


def test_a_concepts_page_asks_for_that_concept_alone_listed_or_not(book_of, tmp_path, capsys):
    profile = book_of(concepts=["bear", "bus"], perturbation=SHORT | {"sweep_interventions": ["zero"]})
    for concept in ("bus", "pizza"):
        assert run("concept", profile="toy", concept=concept) == ("", set())
        made = {path.stem for path in (tmp_path / "results" / "toy" / "parts").glob("[!.]*")}
        what = ("pairs", "undisturbed", "scores", "neurons", "heatmaps", "examples")
        assert made == {f"{each}-{concept}" for each in what}
        told = [line.split()[1].rstrip(",") for line in capsys.readouterr().err.splitlines()]
        assert set(told) == made and told[0] == f"pairs-{concept}"
        shutil.rmtree(tmp_path / "results")
    assert profile.concepts == ("bear", "bus")


def test_what_a_profile_does_without_ends_its_page_with_the_reason(book_of, taught_model, monkeypatch):
    monkeypatch.setattr(
        taught_model.backbone.config, "model_type", "opt"
    )  # BLIP-2's, whose layers are called otherwise
    profile = book_of(concepts=["bear", "bus"], perturbation=MAIN_SETTING_ALONE)
    ended = whole_book(profile, ["index", "layer-distribution", "perturbation", "ablation", "faithfulness"])
    assert ended.keys() == {"ablation", "faithfulness"}
    assert "Not run:** The ablation needs the methods stage-1, stage-2, uniform" in ended["ablation"]
    assert "decoders of type llama, mistral, qwen2, qwen3. This one is opt" in ended["faithfulness"]


@pytest.mark.parametrize("name", profile_names())
def test_a_shipped_profile_asks_for_all_that_its_pages_show_or_for_the_main_setting_alone(name):
    settings = load_profile(name).perturbation
    if name in BESIDE:  # what the embedded book compares itself with; its numbers stay
        assert settings.model_dump(mode="json", include=set(MAIN_SETTING_ALONE)) == MAIN_SETTING_ALONE
    else:
        assert settings.choosing and {"two-stage", *settings.rivals, *settings.controls} >= set(ARMS)


@pytest.mark.slow
@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_makes_its_own_whole_book(name, book_of):
    """Its protocol, grids and prompts, with as many neurons as the toy model has for it."""
    shipped = load_profile(PROFILES / f"{name}.yaml").model_dump(mode="json")
    asked = shipped["perturbation"]
    asked["sweep_n"] = [max(2, min(n // 10, 20)) for n in asked["sweep_n"]]
    sensitivity, faithfulness = (
        shipped["sensitivity"],
        shipped["faithfulness"] | {"per_method": 2, "random": 6, "prompts": []},
    )
    book_of(perturbation=asked, sensitivity=sensitivity, faithfulness=faithfulness)
    ended = whole_book(load_profile("toy"))
    alone = {"appendix/towers", "beyond-projectors"}  # which compare two profiles
    alone |= set() if asked["sweep_n"] else {"appendix/doses"}  # whose end asks for the long version
    assert ended.keys() == alone | ({"ablation"} if name in BESIDE else set())
