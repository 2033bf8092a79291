"""The book leaves the checkout: to a host, to a browser on this machine, to paper."""

from __future__ import annotations

import shutil
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from book.press import publishing

PAGE = """<html><head><title>{0} — A book</title><link rel="stylesheet" href="_static/kn.css">
<meta property="og:image" content="{2}_static/hero.png"></head><body>
<nav class="bd-links"><a class="internal" href="#">A</a><a class="internal" href="concepts/bear.html">B</a></nav>
<article><h1 id="top">{0}</h1><a href="{1}">there</a><svg viewBox="0 0 1 1" width="9"><clipPath id="c"></clipPath>
<path clip-path="url(#c)"></path></svg></article></body></html>"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "html"
    (folder / "concepts").mkdir(parents=True)
    (folder / "index.html").write_text(PAGE.format("Index", "concepts/bear.html#top", ""))
    (folder / "concepts" / "bear.html").write_text(PAGE.format("Bear", "../index.html", "../"))
    (folder / "404.html").write_text("no such page")
    return folder


def test_a_published_folder_is_whole_and_replaces_only_what_was_published(site, tmp_path):
    folder = tmp_path / "public"
    publishing.publish(site, folder, "https://host/book")
    assert (folder / ".nojekyll").exists() and (folder / "404.html").exists()
    for name in ("index.html", "concepts/bear.html"):
        assert 'content="https://host/book/_static/hero.png"' in (folder / name).read_text()
    (folder / "old.html").touch()
    publishing.publish(site, folder)
    assert not (folder / "old.html").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["html", "public"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(publishing.PublishingError, match=r"mine has files that no `make publish` wrote"):
        publishing.publish(site, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_what_is_not_there_is_answered_with_the_books_own_page(site):
    with publishing.server(site) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{serving.server_port}"
        assert b"Bear" in urllib.request.urlopen(f"{address}/concepts/bear.html").read()
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{address}/gone.html")
        assert error.value.code == 404 and error.value.read() == b"no such page"
        serving.shutdown()


def test_all_pages_as_one_lead_to_each_other(site):
    text = publishing.as_one(site)
    assert 'href="#page-concepts-bear--top"' in text and 'href="#page-index"' in text
    assert text.count('id="page-index--top"') == text.count('id="page-concepts-bear--top"') == 1
    assert "viewBox" in text and '<clipPath id="page-index--c">' in text and 'clip-path="url(#page-index--c)"' in text
    assert '@top-left { content: "Index"; }' in text and "counter(page)" in text


def test_without_a_browser_the_pdf_says_what_it_needs(site, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(publishing.PublishingError, match=r"needs Chromium or Chrome.*Install one"):
        publishing.pdf(site, tmp_path / "book.pdf")


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, publishing.BROWSERS)), reason="no chromium on this machine")
def test_the_book_is_printed_as_one_pdf(site, tmp_path):
    made = publishing.pdf(site, tmp_path / "out" / "book.pdf").read_bytes()
    assert made.startswith(b"%PDF") and made.count(b"/Type /Page\n") == 1
    assert not (site / "whole-book.html").exists()
