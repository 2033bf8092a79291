"""What an artefact was made from, as a short digest: settings, files, and the code that computes it.

    fingerprint(profile.fingerprint("filtering"), code(__name__))

The digest of a module is that of everything that it imports, found by the syntax tree, so that no list of modules has
to be kept by hand and none can go stale. Comments, docstrings and layout are not part of it: they compute nothing. A
YAML or JSON file of a module's name beside it holds its tables, and is part of it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]  # what holds the package; in a checkout, `book` too
PACKAGES = ("kn_core", "book")


def at_home(path: str | Path) -> Path:
    """A path whose `~` is the home folder, also where no shell has looked at it; an unknown user's `~x` stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (where Path's own raises)


def fingerprint(*parts: object) -> str:
    """A digest of anything that json can write, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code(module: str) -> str:
    """A digest of a module's code and of all that it imports of `PACKAGES`: 'kn_core.method.filtering', `__name__`.

    Raises ModuleNotFoundError for a module that there is not.
    """
    return _digest_of({module} | closure(module))


def code_of(source: str) -> str:
    """A digest of what a piece of Python imports of `PACKAGES`, directly or not, without that piece itself."""
    return _digest_of(_reached(_imports(ast.parse(source))))


def closure(module: str) -> frozenset[str]:
    """The modules of `PACKAGES` that a module imports, directly or not, itself among them."""
    return frozenset(_reached(_with_packages(module)))


def imported(module: str) -> frozenset[str]:
    """The modules of `PACKAGES` that a module's own import statements name, and the packages that they lie in."""
    return _parsed(module)[1]


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest_of(modules: AbstractSet[str]) -> str:
    return fingerprint([(module, _parsed(module)[0]) for module in sorted(modules)])


def _reached(first: AbstractSet[str]) -> set[str]:
    """What is imported from some modules on, these among them where they are files."""
    found: set[str] = set()
    left = [module for module in first if _file(module)]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += _parsed(module)[1] - found
    return found


@cache
def _parsed(module: str) -> tuple[str, frozenset[str]]:
    """The digest of a module's syntax tree without docstrings, and the modules that it imports itself."""
    file = _file(module)
    if file is None:
        raise ModuleNotFoundError(f"no module {module} under {ROOT}.")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imports = _imports(tree)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    tables = [file.with_suffix(suffix) for suffix in (".yaml", ".json")]
    beside = b"".join(table.read_bytes() for table in tables if table.is_file())
    return hashlib.sha256(ast.dump(tree).encode() + beside).hexdigest(), imports


def _is_text(statement: ast.AST) -> bool:
    """A string that stands alone: a docstring, or what is written below a constant."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(tree: ast.AST) -> frozenset[str]:
    """The modules of `PACKAGES` that stand in import statements, wherever these are: for types only, in functions too.

    A package is imported with its module; `kn_core` itself, which imports nothing before it is asked to, only by name.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if node.module.split(".")[0] in PACKAGES and _file(inner) else node.module)
    ours = (name for name in found if name.split(".")[0] in PACKAGES)
    return frozenset().union(*map(_with_packages, ours))


def _with_packages(module: str) -> frozenset[str]:
    """A module and the packages that it lies in, but for the outermost: they are imported with it."""
    parts = module.split(".")
    return frozenset(".".join(parts[:n]) for n in range(min(2, len(parts)), len(parts) + 1))


def _file(module: str) -> Path | None:
    """Where a module's code is; None where it is no module of ours."""
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
