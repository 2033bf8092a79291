"""Leave in a rendered site what its pages lead to: files that something names, and rules of style that may match."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
PART = re.compile(r"""[^{}"';]+|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|.""", re.DOTALL)
NESTED = re.compile(r"@(media|supports|layer|container)\b")


def prune(site: Path) -> None:
    """Delete what no page leads to, and of the style sheets the rules for classes that no page or script names."""
    shutil.rmtree(site / "_sources", ignore_errors=True)
    (site / ".buildinfo").unlink(missing_ok=True)
    pages = [page for page in sorted(site.rglob("*.html")) if "_static" not in page.relative_to(site).parts]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"[\w-]+", text))
    for sources in site.rglob("*.map"):
        sources.unlink()
    assets = {path for folder in ("_static", "_images") for path in (site / folder).rglob("*") if path.is_file()}
    kept: set[Path] = set()
    while found := {path for path in assets - kept if path.name in text}:
        kept |= found
        text += "\n".join(path.read_text(encoding="utf-8") for path in sorted(found) if path.suffix in (".css", ".js"))
    for path in assets - kept:
        path.unlink()
    for folder in sorted((path for path in site.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    for script in kept:
        if script.suffix == ".js":
            named |= set(re.findall(r"[\w-]+", script.read_text(encoding="utf-8")))
    for sheet in kept:
        if sheet.suffix == ".css" and sheet.name != "kn.css":
            text = COMMENT.sub("", sheet.read_text(encoding="utf-8"))
            sheet.write_text("".join(needed(text, named)), encoding="utf-8")


def needed(sheet: str, named: set[str]) -> Iterator[str]:
    """The rules of a style sheet without comments whose classes and ids are all among `named`."""
    for head, body in _rules(sheet):
        if not body:
            yield head
        elif NESTED.match(head):
            if inside := "".join(needed(body[1:-1], named)):
                yield f"{head}{{{inside}}}"
        elif head.startswith("@") or any(_may_match(selector, named) for selector in _apart(head)):
            yield head + body


def _rules(sheet: str) -> Iterator[tuple[str, str]]:
    """('selectors', '{…}') of each rule, and ('@import …;', '') of what has no body."""
    head, body, depth = "", "", 0
    for part in PART.findall(sheet):
        depth += (part == "{") - (part == "}")
        if depth or part == "}":
            body += part
            if not depth:
                yield head.strip(), body
                head, body = "", ""
        else:
            head += part
            if part == ";":
                yield head.strip(), ""
                head = ""


def _apart(selectors: str) -> list[str]:
    """The selectors of a list, but for what stands in brackets."""
    while (shorter := re.sub(r"\([^()]*\)", "", selectors)) != selectors:
        selectors = shorter
    return selectors.split(",")


def _may_match(selector: str, named: set[str]) -> bool:
    return all(name in named for name in re.findall(r"[.#](-?[A-Za-z_][\w-]*)", selector))
