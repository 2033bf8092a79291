"""Every neuron that a table or a sentence of the book names, as L9/200, leads to its card in the neuron browser."""

from __future__ import annotations

import re
from pathlib import Path

BROWSER = "browser"  # the folder beside the page, in `results/<profile>` too
CODE = ("model.js", "draw.js", "browser.js", "browser.css")
PAGE = "neurons.html"
CELL = re.compile(r"<td\b[^>]*>.*?</td>|<span class=\"pasted-text\">.*?</span>", flags=re.DOTALL)
NEURON = re.compile(r"\bL(\d+)/(\d+)\b(?![^<]*</a>)")


def link(site: Path) -> None:
    """Make links of the neurons in tables and in numbers that the run wrote, on every page but the browser's own."""
    if not (site / PAGE).exists():
        return
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if page == site / PAGE or not NEURON.search(text):
            continue
        up = "../" * (len(page.relative_to(site).parts) - 1)
        linked = CELL.sub(lambda cell: NEURON.sub(rf'<a href="{up}{PAGE}#n=\1.\2">L\1/\2</a>', cell[0]), text)  # noqa: B023
        if linked != text:
            page.write_text(linked, encoding="utf-8")
