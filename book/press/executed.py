"""A notebook that has run: what it says of its own run, its data and its pictures, and how it ends where it stopped."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from papermill.execute import remove_error_markers


def tell(executed: Path, target: Path) -> None:
    """Say behind the command that makes the page again how long it took, link the tables that it kept, and end captions
    of figures with how many pictures these are of."""
    notebook = nbformat.read(executed, as_version=4)
    named = [_name(output) for output in _outputs(notebook)]
    saved = dict.fromkeys(name.removeprefix("saved:") for name in named if name.startswith("saved:"))
    up = "../" if target.parent.name in ("concepts", "appendix") else ""
    data = ", ".join(f"[{name.removesuffix('.csv')}]({up}tables/{name})" for name in saved)
    took = round(notebook.metadata.papermill.duration)
    told = f" Last time it took {took} second{'s' if took != 1 else ''}."
    told += f" Data: {data}." if data else ""
    for cell in notebook.cells:
        if of := [_said(output) for output in cell.get("outputs", ()) if _name(output).startswith("counted:")]:
            figure = cell.metadata["mystnb"]["figure"]
            figure["caption"] = f"{figure['caption'].removesuffix('.')}; {of[0]}."
    command = re.compile(r"(?<=:::\{div\} rerun\n).*?(?=\n:::)", re.DOTALL)
    for cell in notebook.cells:
        cell.source = command.sub(lambda found: found[0] + told, cell.source)
    nbformat.write(notebook, executed)


def end(executed: Path, error: PapermillExecutionError) -> None:
    """Keep the cells up to that which raised `NotRun`, whose words become its output; what they found is not known."""
    notebook = remove_error_markers(nbformat.read(executed, as_version=4))
    del notebook.cells[error.cell_index + 1 :]
    said = {_name(output) for output in _outputs(notebook)}
    for cell in notebook.cells:
        cell.source = without_brief(cell.source, said)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("display_data", {"text/markdown": error.evalue})]
    nbformat.write(notebook, executed)


def _outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def _name(output: NotebookNode) -> str:
    """Of a word that a notebook keeps."""
    return str(output.get("metadata", {}).get("scrapbook", {}).get("name", ""))


def _said(output: NotebookNode) -> str:
    return str(ast.literal_eval(output["data"]["application/papermill.record/text/plain"]))


def without_brief(text: str, said: Collection[str]) -> str:
    """A page's Markdown without the lines that say in brief what it found, where not all of their words were `said`."""

    def kept(brief: re.Match[str]) -> str:
        return brief[0] if set(re.findall(r"\{glue:text\}`([\w-]+)", brief[0])) <= set(said) else ""

    return re.sub(r":::\{div\} brief\n.*?\n:::\n\n?", kept, text, flags=re.DOTALL)
