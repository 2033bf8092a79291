"""The book as a task graph; `doit list` reads like its table of contents.

    doit                                        run every page, then render _build/embedded/html
    doit section:stage-1                        one section; it computes for itself what is not there yet
    doit section:perturbation concept=giraffe   the same for one concept alone, in _build/embedded-giraffe
    doit concept:zebra                          one concept's page; also of what the profile does not list (`beyond`)
    doit preview                                render the pages that have been run so far
    doit profile=embedded-coco coco=DIR         another setting (PROFILE and COCO in the environment do the same)
    doit effort=full                            the long version: more draws, seeds and sweeps (EFFORT does the same)
    doit compute                                only what the pages show, ahead of them
    doit dask=tcp://host:8786 compute           the same on a Dask cluster, or `local` (DASK does the same)
    doit -n 2                                   two pages side by side

A page runs again when its text, the code that it imports, the profile, the claims or one of these variables changed,
else never. Folders are relative to where the command is given. Of two runs in one edition's folder one waits.
"""

import fnmatch
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doit import get_initial_workdir, get_var
from doit.exceptions import TaskFailed
from doit.task import Task
from doit.tools import config_changed

from book.press import commands, running
from kn_core.concepts import slug
from kn_core.fingerprint import at_home, code
from kn_core.profile import ProfileError, load_profile, nearest, profile_file, profile_names, results
from kn_core.weights import PROJECTIONS

SECTIONS = (
    "data-filtering",
    "stage-1",
    "stage-2",
    "layer-distribution",
    "ceiling",
    "perturbation",
    "ablation",
    "thresholds",
    "faithfulness",
    "each-choice",
    "editing",
    "transfer",
    "beyond-projectors",
    "limitations",
    "neurons",
    "your-own-model",
    "add-a-model",
    "gallery",
)
APPENDIX = ("models-and-data", "doses", "departures", "towers", "paper-setting")

sys.excepthook = running.interrupted
VARIABLES = ("profile", "concept", "coco", "effort", "dask")
for argument in sys.argv[1:]:
    name, equals, _ = argument.partition("=")
    if equals and name.isidentifier() and name not in VARIABLES:
        running.stop(f"no variable {name!r}. {nearest(name, VARIABLES)}")
CONCEPT = get_var("concept")
EFFORT = get_var("effort") or os.environ.get("EFFORT") or ""
if EFFORT not in ("", "full"):
    running.stop(f"effort must be full, or not given. Got {EFFORT!r}.")
os.environ["EFFORT"] = EFFORT
DASK = get_var("dask") or os.environ.get("DASK") or ""
COCO = get_var("coco") or os.environ.get("COCO")

ROOT = Path(__file__).parent
HERE = Path(os.environ.get("KN_HERE") or get_initial_workdir() or ".")  # where the reader stands, in `make -C` too
os.environ["KN_COCO"] = COCO or os.environ.get("KN_COCO") or ""
os.environ["KN_RESULTS"] = os.environ.get("KN_RESULTS") or str(ROOT / "results")
for variable in ("KN_COCO", "KN_MODELS", "KN_PROFILES", "KN_RESULTS"):
    if folder := os.environ.get(variable):
        os.environ[variable] = str(Path(HERE, at_home(folder)).resolve())
if DASK.endswith(".json"):
    DASK = str(Path(HERE, at_home(DASK)).resolve())


def siblings(profile: str) -> list[str]:
    """Profiles that pages compare this one with, where they are: the same but for the connector, or the tower.

    In the long version also those with more evidence: more concepts, or more pictures under other trainings.
    """
    asked = (f"{profile}-qformer", f"{profile}-vit", *([f"{profile}-many", f"{profile}-seed-*"] if EFFORT else []))
    names = [name for like in asked for name in fnmatch.filter(profile_names(), like)]
    return [name for name in names if (PROJECTIONS / f"{load_profile(name).parts.projection}.safetensors").is_file()]


try:
    PROFILE = get_var("profile") or os.environ.get("PROFILE") or commands.DEFAULT
    FILE = profile_file(PROFILE, HERE)
    os.environ["KN_PROFILES"], PROFILE = str(FILE.parent), FILE.stem  # whoever is called finds it by its name
    SETTINGS = load_profile(PROFILE)
    SIBLINGS = [] if CONCEPT else siblings(PROFILE)
except ProfileError as error:
    running.stop(f"{error}")
CONCEPTS = (CONCEPT,) if CONCEPT else SETTINGS.concepts
PAGES_OF = [argument.partition(":")[2] for argument in sys.argv[1:] if re.match(r"concept:[^*]+$", argument)]
if CONCEPT and CONCEPT not in SETTINGS.concepts:
    running.stop(f"the profile {PROFILE!r} has no concept {CONCEPT!r}. {nearest(CONCEPT, SETTINGS.concepts)}")
ASKED: dict[str, str] = {}  # concepts that the profile does not list, by the names of their pages
for named in set(PAGES_OF) - set(map(slug, CONCEPTS)):
    try:
        known = {slug(name): name for name in (*CONCEPTS, *commands.beyond(SETTINGS))}
    except (commands.NoPicturesError, ValueError, OSError) as error:
        running.stop(f"the profile {PROFILE!r} lists no concept {named!r}. {error}")
    if named not in known:
        running.stop(f"neither the profile {PROFILE!r} nor its pictures have {named!r}. {nearest(named, known)}")
    ASKED[named] = known[named]

JOBS = os.environ.get("JOBS") or "2"

BUILD = ROOT / "_build" / (f"{PROFILE}-{slug(CONCEPT)}" if CONCEPT else PROFILE)
SOURCE, HTML = BUILD / "source", BUILD / "html"
RESULTS = results(PROFILE)
INPUTS = [
    *(path for path in sorted(ROOT.glob("paper/*.yml")) if path.name != "verdicts.yml"),
    *sorted(PROJECTIONS.glob("*.safetensors")),
]
VERSION: dict[str, Any] = {"settings": SETTINGS.fingerprint(), "coco": COCO, "effort": EFFORT}
VERSION |= {name: load_profile(name).fingerprint() for name in SIBLINGS}
PAGES = [
    "index",
    *SECTIONS,
    *(f"concepts/{slug(name)}" for name in CONCEPTS),
    *(f"appendix/{name}" for name in APPENDIX),
]

LOCK = running.alone(BUILD)
DOIT_CONFIG = {
    "default_tasks": ["section", "index", "appendix", "concept", "book"],  # long pages first
    "dep_file": str(BUILD / "doit.json"),
    "backend": "json",
    "reporter": running.Told,
    "par_type": "thread",
    "verbosity": 2,
    "sort": "definition",
    "subtasks": True,
}


def task_compute() -> dict[str, Any]:
    """What the pages show, computed ahead of them: two concepts at a time, each in a process of its own"""
    command = ["run", "--profile", PROFILE]
    command += ["--concept", CONCEPT] if CONCEPT else []
    command += [part for name in SIBLINGS for part in ("--beside", name)]
    command += [] if SETTINGS.dask else ["--workers", JOBS]
    command += ["--dask", DASK] if DASK else []
    return {
        "actions": [(compute, [command])],
        "file_dep": INPUTS,
        "uptodate": [
            RESULTS.is_dir(),
            config_changed(VERSION | {"concept": CONCEPT, "code": code("kn_core.study.run")}),
        ],
        "title": lambda task: f"{task.name}: {RESULTS}",
    }


def task_index() -> dict[str, Any]:
    """The claims table: every published number beside ours"""
    return notebook("index", "index") | {"task_dep": ["section"]}


def task_section() -> Iterator[dict[str, Any]]:
    """The reproduction, section by section"""
    for name in SECTIONS:
        yield {"name": name} | notebook(name, name, concept=CONCEPT)


def task_concept() -> Iterator[dict[str, Any]]:
    """One page a concept: pictures, neurons, heatmaps, decoded tokens, captions under noise"""
    for name, concept in ({slug(concept): concept for concept in CONCEPTS} | ASKED).items():
        page = notebook("concept", f"concepts/{name}", concept=concept)
        page["uptodate"].append(
            config_changed({"all": (RESULTS / "perturbations.parquet").exists()})
        )  # it says more then
        yield {"name": name} | page


def task_appendix() -> Iterator[dict[str, Any]]:
    """What the sections rest on"""
    for name in APPENDIX:
        yield {"name": name} | notebook(f"appendix/{name}", f"appendix/{name}")
    manifest = notebook("appendix/manifest", "appendix/manifest")
    manifest["file_dep"] += map(executed, PAGES)  # it reports how long all that they show took
    yield {"name": "manifest"} | manifest


def task_book() -> dict[str, Any]:
    """The rendered book, built strictly and checked"""
    texts = [ROOT / "_config.yml", ROOT / "_toc.yml", ROOT / "book" / "references.md", ROOT / "book" / "references.bib"]
    texts += [path for path in sorted(ROOT.glob("book/_static/**/*")) if path.is_file()]
    texts += [path for path in sorted(ROOT.glob("book/browser/*")) if path.suffix in (".js", ".css")]
    return {
        "actions": [(render, [True])],
        "file_dep": [*map(executed, PAGES), executed("appendix/manifest"), *texts],
        "targets": [HTML / "index.html"],
        "title": rendered,
    }


def task_preview() -> dict[str, Any]:
    """Render the pages that have been run so far, and only those"""
    return {"actions": [(render, [False])], "uptodate": [False], "title": rendered}


def rendered(task: Task) -> str:
    return f"{task.name}: {HTML / 'index.html'}"


def executed(page: str) -> Path:
    return SOURCE / f"{page}.ipynb"


def notebook(source: str, page: str, **given: str | None) -> dict[str, Any]:
    """The task that runs book/<source>.md with its parameters and keeps the result as `page` of the assembled book."""
    from book.press import book  # what it imports takes a second, which a wrong letter need not wait for

    path = ROOT / "book" / f"{source}.md"
    skeleton = sorted((ROOT / "book" / "browser").glob("*.html")) if source == "neurons" else []
    parameters = {"profile": PROFILE} | {name: value for name, value in given.items() if value}
    whole = source == "concept" and (RESULTS / "perturbations.parquet").exists()  # beside others it says more
    return {
        "doc": book.title(path).replace("{{concept}}", parameters.get("concept", "")),
        "actions": [(run, [path, executed(page), parameters])],
        "file_dep": [path, *skeleton, *INPUTS],
        "uptodate": [config_changed(parameters | VERSION | {"code": book.code_of_page(path), "whole": whole})],
        "targets": [executed(page)],
    }


def compute(command: list[str]) -> None:
    from kn_core.__main__ import STOPPED, main

    if code := main(command):
        raise KeyboardInterrupt(running.TOLD) if code == STOPPED else running.Ended(code)


def run(source: Path, target: Path, parameters: dict[str, object]) -> TaskFailed | None:
    from book.press import book

    given = commands.variables(SETTINGS, EFFORT)
    return running.beside(lambda: book.run_notebook(source, target, parameters, ROOT, given), (book.BookError, OSError))


def render(complete: bool) -> TaskFailed | None:
    from book.press import book

    concepts = CONCEPTS if complete else book.with_others(SOURCE, CONCEPTS)
    try:
        missing = book.assemble(ROOT, SOURCE, concepts, RESULTS / "figures")
        book.render(SOURCE, HTML, strict=complete or not missing)
    except (book.BookError, OSError) as error:
        return TaskFailed(str(error))
    return None
