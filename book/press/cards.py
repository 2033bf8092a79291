"""Tables of a rendered page, so that a telephone can show a row as a card: each cell knows its column."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag

ROOM = 48  # letters side by side on a telephone; a table whose widest cells take more has cards
PADDED = 3  # of them, what the space around a cell takes
HALF = 24  # in half of a card
LEFT = "text-align: left;"


def tables(soup: BeautifulSoup) -> None:
    """Tell cells for `kn.css`: classes words, name, long, answer, nothing, and the heading; tables that have cards."""
    for style in soup.select(".cell_output style"):
        _in_classes(soup, style)
    for box in soup.select(".pst-scrollable-table-container"):  # with no link in it, keys could not reach its right end
        box.attrs |= {"tabindex": "0", "role": "region", "aria-label": "Table"}
    for table in soup.select("article table, .bd-article table"):
        if not table.find_parent(class_=["knb", "knb-plain"]):  # the neuron browser's: thousands of cells, own style
            _columns(table)


def _in_classes(soup: BeautifulSoup, style: Tag) -> None:
    """Pandas styles cells by ids: what stands left is of class `words`, the rest on the cell itself."""
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", style.get_text()):
        plain = " ".join(body.split())
        for selector in re.findall(r"#([\w-]+)", selectors):
            if cell := soup.find(id=selector):
                if LEFT in plain:
                    _add(cell, "words")
                if rest := plain.replace(LEFT, "").strip():
                    cell["style"] = rest
    style.decompose()


def _columns(table: Tag) -> None:
    headings = [" ".join(th.get_text().split()) for th in table.select("thead tr:last-child th")]
    rows = [row.find_all(["td", "th"], recursive=False) for row in table.select("tbody tr")]
    for cell in table.find_all(["td", "th"]):
        cell.attrs.pop("id", None)
        kept = [name for name in _classes(cell) if name in ("words", "text-right")]
        cell.attrs.pop("class", None)
        for name in kept:
            _add(cell, name)
    for row in rows:
        for heading, cell in zip(headings, row, strict=False):
            said = cell.get_text().strip()
            if heading:
                cell["data-label"] = heading
            if cell is row[0] and any(map(str.isalpha, said)):
                _add(cell, "name")  # of the row, where a number would want its column's
            if said in ("", "–"):
                _add(cell, "nothing")  # which a card leaves out
            if len(said) + len(heading) > HALF:
                _add(cell, "long")
            if heading.startswith("here"):
                _add(cell, "answer")
    widest = [max((len(cell.get_text().strip()) for cell in column), default=0) for column in zip(*rows, strict=False)]
    widest = [max(width, min(len(heading), 12)) for width, heading in zip(widest, headings, strict=False)]
    if headings and sum(width + PADDED for width in widest if width) > ROOM:
        _add(table, "cards")


def _add(tag: Tag, name: str) -> None:
    tag["class"] = " ".join([*_classes(tag), name])


def _classes(tag: Tag) -> list[str]:
    return " ".join(filter(None, tag.get_attribute_list("class"))).split()
