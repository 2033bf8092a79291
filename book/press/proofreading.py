"""What is wrong with a rendered site: dead links, pictures without words for them, requests to other hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bs4 import BeautifulSoup, Tag

# What a browser fetches by itself; a link waits for the reader.
FETCHED = {"link": "href", "object": "data"} | dict.fromkeys(
    ("script", "img", "iframe", "embed", "source", "video", "audio"), "src"
)
ELSEWHERE = re.compile(r"(https?:)?//")
FETCHED_BY_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


def flaws(site: Path) -> Iterator[str]:
    """Every flaw of the site in the folder `site`, as 'page: flaw'."""
    pages = [page for page in sorted(site.rglob("*.html")) if "_static" not in page.relative_to(site).parts]
    soups = {page: BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser") for page in pages}
    places = {page: {str(tag["id"]) for tag in soup.find_all(id=True)} for page, soup in soups.items()}
    for page, soup in soups.items():
        for flaw in (*_unworded(soup), *_fetched_elsewhere(soup), *_dead(soup, page, places)):
            yield f"{page.relative_to(site)}: {flaw}"
    for sheet in sorted(site.rglob("*.css")):
        for address in FETCHED_BY_STYLE.findall(sheet.read_text(encoding="utf-8")):
            yield f"{sheet.relative_to(site)}: request to another host: {address}"


def _attribute(tag: Tag, name: str) -> str:
    value = tag.get(name)
    return value.strip() if isinstance(value, str) else ""


def _unworded(soup: BeautifulSoup) -> Iterator[str]:
    for image in soup.find_all("img"):
        if not _attribute(image, "alt"):
            yield f"picture without alt text: {_attribute(image, 'src')}"


def _fetched_elsewhere(soup: BeautifulSoup) -> Iterator[str]:
    for tag in soup.find_all(list(FETCHED)):
        address = _attribute(tag, FETCHED[tag.name])
        if ELSEWHERE.match(address):
            yield f"request to another host: {address}"
    styles = [style.get_text() for style in soup.find_all("style")] + [
        _attribute(tag, "style") for tag in soup.find_all(style=True)
    ]
    for address in FETCHED_BY_STYLE.findall("\n".join(styles)):
        yield f"request to another host: {address}"


def _dead(soup: BeautifulSoup, page: Path, places: dict[Path, set[str]]) -> Iterator[str]:
    for tag in soup.find_all(["a", *FETCHED]):
        address = _attribute(tag, FETCHED.get(tag.name, "href"))
        if not address or re.match(r"(\w+:|//)", address):  # another host's, or data:
            continue
        path, _, place = address.partition("#")
        target = page.parent.joinpath(path.partition("?")[0]).resolve() if path else page
        if not target.exists():
            yield f"dead link: {address}"
        elif place and place not in places.get(target, {place}):
            yield f"no such place: {address}"
