"""The task graph: what runs when, on pages that do nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PAGE = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A page

```{code-cell} ipython3
:tags: [parameters]

profile = "embedded"
concept = None
```
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the task graph over empty pages."""
    for page in (ROOT / "book").rglob("*.md"):
        copy = tmp_path / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(PAGE, encoding="utf-8")
    shutil.copy(ROOT / "dodo.py", tmp_path)
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "claims.yml").touch()
    return tmp_path


def doit(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "doit", *arguments],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,  # on a busy machine
        check=False,
    )


def ran(run: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.removeprefix(".  ") for line in run.stdout.splitlines() if line.startswith(".  ")}


def test_a_page_runs_once_and_again_only_when_it_changed(project):
    wanted = ("-n", "2", "section:stage-1", "section:stage-2", "concept=bear")
    assert ran(doit(project, *wanted)) == {"section:stage-1", "section:stage-2"}
    assert ran(doit(project, *wanted)) == set()
    page = project / "book" / "stage-1.md"
    page.write_text(page.read_text() + "\nOne more word.\n")
    assert ran(doit(project, *wanted)) == {"section:stage-1"}
    executed = (project / "_build" / "embedded-bear" / "source" / "stage-1.ipynb").read_text()
    assert 'concept = \\"bear\\"' in executed
    assert "One more word." in executed


def test_a_failing_page_fails_the_run_by_name_and_is_tried_again(project):
    page = project / "book" / "data-filtering.md"
    page.write_text(PAGE + '\n```{code-cell} ipython3\nassert concept != "bear", "no bears today"\n```\n')
    for _ in range(2):
        run = doit(project, "section:data-filtering", "concept=bear")
        assert run.returncode != 0
        first, error, whole = run.stderr.splitlines()
        assert first.startswith("doit: ") and "data-filtering.md:16, code cell 2: `assert concept" in first
        assert error == "  AssertionError: no bears today"
        assert "unfinished-data-filtering.ipynb" in whole  # and nothing behind it


def test_the_folder_of_photographs_reaches_the_notebooks_as_an_absolute_path(project):
    page = project / "book" / "data-filtering.md"
    page.write_text(PAGE + '\n```{code-cell} ipython3\nimport os\nprint(os.environ["KN_COCO"])\n```\n')
    assert doit(project, "section:data-filtering", COCO="photographs").returncode == 0
    assert (
        str(project / "photographs")
        in (project / "_build" / "embedded" / "source" / "data-filtering.ipynb").read_text()
    )


def test_what_the_pages_show_is_computed_where_dask_says(project, tmp_path):
    nowhere = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "200ms", "KN_RESULTS": str(tmp_path / "results")}
    run = doit(project, "compute", "dask=tcp://127.0.0.1:9", **nowhere)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith("kn-core: no Dask scheduler answers at tcp://127.0.0.1:9 within")
    assert "Command failed" not in run.stdout
    assert not list((tmp_path / "results").rglob("*.parquet"))


def test_of_two_runs_one_waits_and_says_for_whom(project):
    code = "from pathlib import Path; from book.press import running; lock = running.alone(Path('it')); print('in')"
    command = [sys.executable, "-uc", code + "; input()", "section"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    settings = {"cwd": project, "env": os.environ | {"PYTHONPATH": str(ROOT)}, **streams}
    with subprocess.Popen(command, **settings) as first:
        assert first.stdout.readline() == "in\n"
        (project / "it" / "doit.json").write_text('{"section": ')  # as a killed run leaves it
        with subprocess.Popen(command, **settings) as second:
            said = second.stderr.readline()
            assert said.startswith(f"doit: waiting for process {first.pid} (`doit section`), which is at work in it")
            first.communicate("\n")
            assert second.communicate("\n")[0] == "in\n"
    assert not (project / "it" / "doit.json").exists()


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("given", "stray"),
    [
        (["profile=mini"], "profile"),  # which would make the default book
        (["PROFILE=mini", "CONCEPTS=bear"], "CONCEPTS"),
        (["CONCEPT=hot dog", "PROFILE=a=b", "KN_MODELS=folder", "CUDA_VISIBLE_DEVICES=0"], ""),
    ],
)
def test_make_knows_its_variables(given, stray):
    run = subprocess.run(["make", "-n", "concept", *given], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, f"*** No variable {stray} here" in run.stderr) == ((2, True) if stray else (0, False))
