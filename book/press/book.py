"""How the book is made: run a notebook, assemble the pages, render them strictly, check what came out.

`dodo.py` says what is made from what; this module says how. One *edition* of the book is one folder
`_build/<edition>/`: `source/` holds executed notebooks and copied pages, `html/` the rendered site.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jupytext
import papermill
import yaml
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from traitlets import default

from book import words
from book.press import commands, executed, finishing, kernels
from book.press.neuron_links import BROWSER, CODE, link
from book.press.proofreading import flaws
from kn_core.concepts import slug
from kn_core.fingerprint import code_of
from kn_core.profile import nearest

ROOT = Path(__file__).parents[2]
BUILD_DATE = "1767225600"  # 2026-01-01: Sphinx and matplotlib stamp this instead of today, so that builds compare equal


class BookError(RuntimeError):
    """The book cannot be made; the message names the page and says what to do."""


class OwnKernel(AsyncKernelManager):
    """The kernel of the interpreter that builds the book, whatever kernels this machine has registered.

    Figures are drawn as SVG: sharp at any width, and the same bytes on every run.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        kernels.register()
        spec = get_kernel_dict(["--InlineBackend.figure_formats={'svg'}"])
        spec["metadata"]["kernel_provisioner"] = {"provisioner_name": kernels.NAME}
        # Two pages run side by side, and threads of torch that outnumber the cores wait for each other.
        threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
        return KernelSpec(**spec, env={"OMP_NUM_THREADS": threads})

    @default("transport_encryption")
    def _encrypt(self) -> str:
        return "auto"  # other users of the machine could read along; the kernel says so in every log otherwise


def is_notebook(page: Path) -> bool:
    """Whether a Markdown page is a notebook to be run (jupytext's header) rather than text to be copied."""
    return page.read_text(encoding="utf-8").startswith("---\njupytext:")


def code_of_page(page: Path) -> str:
    """A digest of the code that a notebook's cells import, directly or not, of `book` and of `kn_core`."""
    cells = [cell.source for cell in jupytext.read(page).cells if cell.cell_type == "code"]
    return code_of("\n".join(cells))


def title(page: Path) -> str:
    """A page's first heading."""
    heading = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if heading is None:
        raise BookError(f"{page} must have a heading ('# Title'). Found none.")
    return heading[1]


def run_notebook(
    source: Path,
    target: Path,
    parameters: Mapping[str, object],
    workdir: Path,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Execute the MyST notebook `source` and leave the result at `target`, which appears only if every cell ran.

    `{{name}}` in the text is replaced by the parameter of that name, and the commands in it get the `variables`
    (`press.commands`). A cell that raises `NotRun` ends the page. Raises `BookError` for a parameter that the
    notebook does not declare (papermill would only warn) and, with page, line and cell, for a cell that fails.
    """
    notebook = load_notebook_node(jupytext.read(source))
    declared = papermill.inspect_notebook(notebook)
    for name in parameters:
        if name not in declared:
            raise BookError(f"{source} has no parameter {name!r}. {nearest(name, declared)}")
    notebook = parameterize_notebook(notebook, dict(parameters))
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.tags:
            cell.metadata.tags.append("remove-cell")
        if cell.cell_type == "markdown":
            cell.source = commands.in_text(cell.source, variables or {})
            for name, value in parameters.items():
                cell.source = cell.source.replace("{{" + name + "}}", str(value))

    unfinished = target.with_name(f"unfinished-{target.name}")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            notebook,
            unfinished,
            progress_bar=False,
            start_timeout=300,  # a busy machine may take its time to start a kernel
            stderr_file=sys.stderr,  # progress bars belong to the terminal; the book drops them
            kernel_manager_class=OwnKernel,
            resources={"metadata": {"path": str(workdir)}},
        )
    except PapermillExecutionError as error:
        if error.ename != words.NotRun.__name__:
            where, first_line = _place(source, notebook, error.cell_index)
            raise BookError(
                f"{where}: `{first_line}`\n  {error.ename}: {error.evalue}\n  Whole traceback: {unfinished}"
            ) from error
        executed.end(unfinished, error)
    except DeadKernelError as error:
        raise BookError(f"{source}: the kernel died (out of memory?). What it had done: {unfinished}") from error
    executed.tell(unfinished, target)
    unfinished.replace(target)


def _place(source: Path, notebook: NotebookNode, index: int) -> tuple[str, str]:
    """Where a failing cell stands in the source: 'page.md:57, code cell 3', and the cell's first line."""
    ours = [cell for cell in notebook.cells[: index + 1] if "injected-parameters" not in cell.metadata.tags]
    code = [cell.source for cell in ours if cell.cell_type == "code"]
    text, position = source.read_text(encoding="utf-8"), 0
    for earlier in code[:-1]:
        position = text.index(earlier, position) + len(earlier)
    line = text.count("\n", 0, text.index(code[-1], position)) + 1
    return f"{source}:{line}, code cell {len(code)}", code[-1].splitlines()[0]


def contents(root: Path, concepts: Sequence[str]) -> dict[str, Any]:
    """The top-level `_toc.yml` (the default profile's) with its concept pages exchanged for those of `concepts`."""
    toc: dict[str, Any] = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    part = next(part for part in toc["parts"] if part["caption"] == "Concepts")
    pages = [{"file": f"concepts/{slug(concept)}", "title": concept.capitalize()} for concept in concepts]
    part["chapters"] = [chapter for chapter in part["chapters"] if not chapter["file"].startswith("concepts/")] + pages
    return toc


def assemble(root: Path, source: Path, concepts: Sequence[str], figures: Path) -> list[str]:
    """Complete `source`, where the executed notebooks lie, to a Jupyter Book; return the pages that are still missing.

    Copies the configuration, the bibliography, the pages without code, `_static`, the run's `figures`, the tables
    beside them, and the neuron browser's code and data, which lie beside its page and are loaded by it alone.
    """
    for page in (root / "book").rglob("*.md"):
        if not is_notebook(page):
            _copy(page, source / page.relative_to(root / "book"))
    for asset in (root / "_config.yml", root / "book" / "references.bib", root / "book" / "_static"):
        _copy(asset, source / asset.name)
    _copy(figures, source / "figures")
    beside = source / "beside" / BROWSER
    beside.mkdir(parents=True, exist_ok=True)  # Sphinx wants it, also before the browser's page has run
    _copy(figures.with_name(BROWSER), beside)
    for name in CODE:
        _copy(root / "book" / "browser" / name, beside / name)
    if (tables := figures.with_name("tables")).is_dir():  # beside those of pages that were run on other results
        shutil.copytree(tables, source / "tables", ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)

    toc = contents(root, concepts)
    missing = [page for page in _pages(toc) if not any((source / page).with_suffix(end).exists() for end in PAGE_ENDS)]
    for part in toc["parts"]:
        part["chapters"] = [chapter for chapter in part["chapters"] if chapter["file"] not in missing]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    if toc["root"] in missing:
        toc["root"] = toc["parts"][0]["chapters"].pop(0)["file"]
        toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    return missing


def with_others(source: Path, concepts: Sequence[str]) -> list[str]:
    """The concepts, then those of other pages that have been run: concepts that were asked for one by one."""
    named = {slug(concept): concept for concept in concepts}
    for page in sorted(source.glob("concepts/*.ipynb")):
        if not page.name.startswith("unfinished-"):
            named.setdefault(page.stem, page.stem.replace("-", " "))
    return list(named.values())


PAGE_ENDS = (".ipynb", ".md")


def _pages(toc: Mapping[str, Any]) -> list[str]:
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def _copy(original: Path, copy: Path) -> None:
    """Make `copy` what `original` is, file or folder; nothing where there is no original."""
    if original.is_dir():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy, ignore=shutil.ignore_patterns(".*"))  # but no files that are being written
    elif original.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, copy)


def render(source: Path, html: Path, *, strict: bool = True) -> None:
    """Render the assembled book to `html`, which is exchanged only once the new one is whole.

    `strict`: a warning of Sphinx (a dead reference, an unknown citation) and any finding of `flaws` is a `BookError`.
    """
    for left in html.parent.glob("rendering*"):  # by a run that was killed, whose Sphinx may not have noticed
        shutil.rmtree(left, ignore_errors=True)
    scratch = html.with_name(f"rendering-{os.getpid()}")
    log = html.with_name("render.log")
    command: list[str | Path] = [
        Path(sys.executable).with_name("jupyter-book"),
        "build",
        source,
        "--path-output",
        scratch,
        "--all",
        "-n",
    ]
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            command + (["-W", "--keep-going"] if strict else []),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"SOURCE_DATE_EPOCH": BUILD_DATE, "NO_COLOR": "1"},
            check=False,
        )
    site = scratch / "_build" / "html"
    if done.returncode:
        plain = re.sub(r"\x1b\[[\d;]*m", "", log.read_text(encoding="utf-8"))
        complaints = re.findall(r"^.*(?:WARNING|ERROR).*$", plain, flags=re.MULTILINE)
        raise BookError("\n  ".join([f"The book does not render; see {log}", *dict.fromkeys(complaints)]))
    link(site)
    finishing.finish(site, source / "figures", finishing.about(ROOT))
    found = list(flaws(site)) if strict else []
    if found:
        raise BookError("\n  ".join([f"The rendered book in {site} has flaws:", *found]))
    shutil.rmtree(html, ignore_errors=True)
    site.replace(html)
    shutil.rmtree(scratch)
