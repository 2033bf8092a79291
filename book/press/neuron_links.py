"""Every neuron that a table or a sentence of the book names, as L9/200, leads to its card in the neuron browser."""

from __future__ import annotations

import re
from pathlib import Path

BROWSER = "browser"  # the folder beside the page, in `results/<profile>` too
CODE = ("model.js", "draw.js", "browser.js", "browser.css")
PAGE = "neurons.html"
CELL = re.compile(r"<td\b[^>]*>.*?</td>|<span class=\"pasted-text\">.*?</span>", flags=re.DOTALL)
NEURON = re.compile(r"\b(?:L(\d+)/(\d+)|layer (\d+), unit (\d+))\b(?![^<]*</a>)")


def link(site: Path) -> None:
    """Make links of the neurons in tables and in words that the run wrote, on every page but the browser's own."""
    if not (site / PAGE).exists():
        return
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if page == site / PAGE or not NEURON.search(text):
            continue
        up = "../" * (len(page.relative_to(site).parts) - 1)
        linked = CELL.sub(lambda cell, up=up: NEURON.sub(lambda found: _linked(found, up), cell[0]), text)  # type: ignore[misc]
        if linked != text:
            page.write_text(linked, encoding="utf-8")


def _linked(found: re.Match[str], up: str) -> str:
    layer, unit = (first or second for first, second in zip(found.groups()[:2], found.groups()[2:], strict=True))
    return f'<a href="{up}{PAGE}#n={layer}.{unit}">{found[0]}</a>'
