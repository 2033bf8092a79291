"""The wheel: `kn_core` and the profiles, nothing of the book, and nothing that only the book needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, str(folder), str(ROOT)], check=True)
    (found,) = folder.glob("*.whl")
    return found


def test_it_holds_the_core_the_projections_and_the_profiles_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"kn_core", f"kn_core-{PROJECT['version']}.dist-info"}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kn_core").rglob("*")
        if path.suffix in (".py", ".json", ".yaml")
    }
    assert there <= set(names)
    assert {f"kn_core/profiles/{path.name}" for path in (ROOT / "profiles").glob("*.yaml")} <= set(names)
    assert any(name.endswith(".safetensors") for name in names)
    scripts = next(name for name in names if name.endswith("entry_points.txt"))
    assert zipfile.ZipFile(wheel).read(scripts).decode().split() == [
        "[console_scripts]",
        "kn-core",
        "=",
        "kn_core.__main__:main",
    ]


def test_it_runs_without_what_only_the_book_needs(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    extras = PROJECT["optional-dependencies"]
    blocked = sorted({*extras["book"], *extras["dev"]} - {*PROJECT["dependencies"]})
    modules = {"jupyter-book": "jupyter_book", "beautifulsoup4": "bs4", "jinja2": "jinja2", "sphinx": "sphinx"}
    names = [requirement.split("=")[0].split("[")[0].lower() for requirement in blocked]
    script = f"""
import importlib, pkgutil, sys
sys.path.insert(0, {str(tmp_path)!r})
import kn_core
assert kn_core.__file__.startswith({str(tmp_path)!r}), kn_core.__file__
for found in pkgutil.walk_packages(kn_core.__path__, "kn_core."):
    if not found.name.endswith((".cluster", ".scheduler", ".__main__")):
        importlib.import_module(found.name)
from kn_core.profile import load_profile, profile_names
assert "embedded" in profile_names() and load_profile("embedded").concepts
print(*sorted(name.partition(".")[0] for name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    unwanted = {modules.get(name, name.replace("-", "_")) for name in names} - {
        "jinja2",
        "psutil",
    }  # torch and accelerate take them where they are
    assert loaded & unwanted == set()


def test_the_version_stands_in_one_place():
    import kn_core

    assert kn_core.__version__ == PROJECT["version"]
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text()


def test_the_command_knows_its_version_and_waits_for_nothing():
    script = "import sys; from kn_core.__main__ import main\n"
    script += "try: main(['--version'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["kn-core", PROJECT["version"], "False"]
