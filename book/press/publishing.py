"""What becomes of the rendered book: a folder for any static host, a page on localhost, one PDF.

publish(html, Path("public"), "https://host/book/")     the address only for pictures that other sites show of it
serve(html)                                             until Ctrl-C
pdf(html, html.parent / "book.pdf")                     by a headless Chromium that is installed
"""

from __future__ import annotations

import functools
import html as escaping
import http.server
import re
import shutil
import subprocess
import tempfile
import webbrowser
from pathlib import Path

from bs4 import BeautifulSoup, Tag

from book.press.finishing import NOWHERE

OURS = ".kn_core"  # marks a folder that `publish` may replace
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class PublishingError(RuntimeError):
    """What was asked for cannot be done; the message says what to do."""


def publish(site: Path, folder: Path, address: str = "") -> Path:
    """Copy the rendered book to `folder`, whole or not at all; a folder with other things in it is left alone.

    Links are relative, so it may lie at any depth of a host. With `address`, where it will lie, the pictures that other
    sites show of its pages are named in full, as they ask for. `.nojekyll` keeps GitHub from dropping `_static`.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / OURS).exists():
        raise PublishingError(f"{folder} has files that no `make publish` wrote. Name a new or an empty folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        shutil.copytree(site, new)
        for mark in (OURS, ".nojekyll"):
            (new / mark).touch()
        if address:
            root = address.rstrip("/") + "/"
            for page in new.rglob("*.html"):
                text = page.read_text(encoding="utf-8")
                page.write_text(re.sub(r'(content=")(?:\.\./)*(_static/hero\.png")', rf"\1{root}\2", text), "utf-8")
        if folder.exists():
            folder.replace(old)
        new.replace(folder)
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, says nothing of what it served, and has the book's own page for what is not there."""

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        page = Path(self.directory) / NOWHERE
        if code != 404 or not page.is_file():
            super().send_error(code, message, explain)
            return
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(page.stat().st_size))
        self.end_headers()
        self.wfile.write(page.read_bytes())


def server(site: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """Of the folder on this machine alone; port 0 takes a free one."""
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(site)))


def serve(site: Path, port: int = 8000, *, look: bool = True) -> None:
    """Show the rendered book in the reader's browser, until Ctrl-C."""
    try:
        serving = server(site, port)
    except OSError:  # another one is at that port
        serving = server(site)
    with serving:
        address = f"http://127.0.0.1:{serving.server_port}/"
        print(f"The book is at {address} (Ctrl-C ends it).", flush=True)
        if look:
            webbrowser.open(address)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print()


def pdf(site: Path, target: Path) -> Path:
    """Print the book, cover to references, as one PDF with a header on every page. Raises PublishingError."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise PublishingError(f"The PDF needs Chromium or Chrome, by the name of {', '.join(BROWSERS)}. Install one.")
    whole = site / "whole-book.html"  # beside the pages, whose pictures and styles it shares
    whole.write_text(as_one(site), encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "book.pdf"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
        command += [f"--user-data-dir={scratch}/profile", "--virtual-time-budget=20000", f"--print-to-pdf={made}"]
        done = subprocess.run([*command, whole.as_uri()], capture_output=True, text=True, check=False)
        whole.unlink()
        if not made.is_file() or not made.read_bytes().rstrip().endswith(b"%%EOF"):
            raise PublishingError(f"{browser} printed no PDF. Its last words: {done.stderr.strip()[-300:]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, target)
    return target


def as_one(site: Path) -> str:
    """All pages as one, in the order of the contents; links between them lead within it.

    Chapters follow each other without a new page: a header of each one's own would begin one.
    """
    index = BeautifulSoup((site / "index.html").read_text(encoding="utf-8"), "html.parser")
    listed = [str(link["href"]) for link in index.select("nav.bd-links a.internal") if link.get("href")]
    pages = ["index.html", *dict.fromkeys(name for name in listed if name.endswith(".html"))]
    sheets = "".join(str(link) for link in index.select('link[rel="stylesheet"]'))
    title = index.title.get_text().partition(" — ")[0] if index.title else "The book"
    chapters = []
    for name in pages:
        soup = BeautifulSoup((site / name).read_text(encoding="utf-8"), "html.parser")
        article = soup.find("article")
        if not isinstance(article, Tag):
            continue
        _rename(article, name, pages)
        for other in article.select("a.headerlink, .knb, .knb-plain"):  # nobody plays on paper
            other.decompose()
        text = _cased(str(article))
        chapters.append(f'<div class="chapter bd-content" id="{_key(name)}">{text}</div>')
    bottom = '@bottom-center { content: counter(page) " / " counter(pages); }'
    top = f'@top-left {{ content: "{title}"; }}'
    small = "font: 8pt sans-serif; color: #666;"
    paper = f"@page {{ size: A4; margin: 20mm 17mm 18mm; {small} {top} {bottom} }}"
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-content_root="./"><head><meta charset="utf-8">'
        f"<title>{escaping.escape(title)}</title>{sheets}<style>{paper} html {{ font-size: 8.5pt }}</style></head>"
        f'<body class="whole"><main class="bd-main">{"".join(chapters)}</main></body></html>'
    )


def _key(name: str) -> str:
    return "page-" + re.sub(r"\W+", "-", name.removesuffix(".html"))


def _rename(article: Tag, name: str, pages: list[str]) -> None:
    """Ids and links of one page as they have to be among those of all."""
    folder, key = name.rpartition("/")[0], _key(name)
    for tag in article.find_all(id=True):
        tag["id"] = f"{key}--{tag['id']}"
    for tag in article.find_all(["a", "img", "use"]):
        where = "src" if tag.name == "img" else "href"
        address = str(tag.get(where, ""))
        if not address or re.match(r"\w+:", address):
            continue
        path, _, place = address.partition("#")
        parts: list[str] = [folder] if folder and path else []
        for part in path.split("/"):
            parts = parts[:-1] if part == ".." else [*parts, part]
        target = "/".join(filter(None, parts)) if path else name
        if target in pages:
            tag[where] = f"#{_key(target)}--{place}" if place else f"#{_key(target)}"
        else:
            tag[where] = target
    for tag in article.select("[clip-path]"):
        tag["clip-path"] = str(tag["clip-path"]).replace("#", f"#{key}--")
    for image in article.select("img[loading]"):
        del image["loading"]


def _cased(text: str) -> str:
    """What the parser has written small, as SVG has it."""
    for name in ("viewBox", "preserveAspectRatio", "clipPath", "clipPathUnits"):
        text = re.sub(rf"(?<=[<\s/]){name.lower()}(?=[\s=>])", name, text)
    return text
