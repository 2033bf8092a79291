"""What is wrong with a rendered site: dead links, pictures without words, requests to other hosts, too much to load."""

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
# Kilobytes at most, not compressed: a page with its drawings; what a first visit loads before it scrolls; all files.
PAGE, FIRST, SITE = 400, 1_000, 20_000
FETCHED_BY_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


def flaws(site: Path) -> Iterator[str]:
    """Every flaw of the site in the folder `site`, as 'page: flaw'."""
    pages = [page for page in sorted(site.rglob("*.html")) if "_static" not in page.relative_to(site).parts]
    soups = {page: BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser") for page in pages}
    places = {page: {str(tag["id"]) for tag in soup.find_all(id=True)} for page, soup in soups.items()}
    for page, soup in soups.items():
        for flaw in (*_unworded(soup), *_fetched_elsewhere(soup), *_dead(soup, page, places)):
            yield f"{page.relative_to(site)}: {flaw}"
        yield from (f"{page.relative_to(site)}: {flaw}" for flaw in _heavy(soup, page))
    whole = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) // 1000
    if whole > SITE:
        yield f"the site has {whole} kB; it may have {SITE}"
    for sheet in sorted(site.rglob("*.css")):
        for address in FETCHED_BY_STYLE.findall(sheet.read_text(encoding="utf-8")):
            yield f"{sheet.relative_to(site)}: request to another host: {address}"


def _attribute(tag: Tag, name: str) -> str:
    value = tag.get(name)
    return value.strip() if isinstance(value, str) else ""


def _unworded(soup: BeautifulSoup) -> Iterator[str]:
    for image in soup.find_all("img"):
        if not _attribute(image, "alt") and not image.find_parent(attrs={"aria-label": True}):
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


def _heavy(soup: BeautifulSoup, page: Path) -> Iterator[str]:
    """What it costs to open the page: itself, and with all that does not wait for the reader to scroll."""
    own = page.stat().st_size // 1000
    if own > PAGE:
        yield f"page of {own} kB; it may have {PAGE}"
    asked = {
        page.parent.joinpath(address.partition("?")[0]).resolve()
        for tag in soup.find_all(list(FETCHED))
        if not (address := _attribute(tag, FETCHED[tag.name])).startswith("data:")  # within the page
        and tag.get("loading") != "lazy"
        and tag.get("rel") not in (["next"], ["prev"], ["index"], ["search"])
    }
    first = own + sum(path.stat().st_size for path in asked if path.is_file()) // 1000
    if first > FIRST:
        yield f"a first visit loads {first} kB; it may load {FIRST}"


def _dead(soup: BeautifulSoup, page: Path, places: dict[Path, set[str]]) -> Iterator[str]:
    for tag in soup.find_all(["a", *FETCHED]):
        address = _attribute(tag, FETCHED.get(tag.name, "href"))
        if not address or re.match(r"(\w+:|//)", address):  # another host's, or data:
            continue
        path, _, place = address.partition("#")
        target = page.parent.joinpath(path.partition("?")[0]).resolve() if path else page
        if not target.exists():
            yield f"dead link: {address}"
        elif place and "=" not in place and place not in places.get(target, {place}):  # else it is a state, no anchor
            yield f"no such place: {address}"
