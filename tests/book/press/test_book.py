"""Notebooks that run with checked parameters, a book that renders strictly, a site that is whole and needs no other."""

import filecmp
import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

from book.press import book
from book.press.proofreading import flaws
from kn_core.profile import load_profile

ROOT = Path(__file__).parents[3]
BUILT = ROOT / "_build" / "embedded" / "html"

NOTEBOOK = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

(toy-{name})=
# {title}

{text}

```{{code-cell}} ipython3
:tags: [parameters, remove-cell]

profile = "embedded"
concept = None
```

```{{code-cell}} ipython3
print(profile, concept)
```

{code}
"""
FIGURE = """
```{code-cell} ipython3
---
tags: [hide-input]
mystnb:
  figure:
    caption: A line, drawn.
    name: fig-line
  image:
    alt: A straight line from the lower left to the upper right.
---
import matplotlib.pyplot as plt

plt.rcParams["svg.hashsalt"] = "kn_core"
plt.plot([0, 1]);
```
"""


def notebook(path: Path, title: str, text: str = "Some text.", code: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(NOTEBOOK.format(name=path.stem, title=title, text=text, code=code), encoding="utf-8")
    return path


def toy(root: Path) -> Path:
    """A project with the real configuration and style but pages of its own; returns its source folder."""
    shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
    for name in ("references.bib", "references.md"):
        shutil.copy(ROOT / "book" / name, root / "book")
    shutil.copy(ROOT / "_config.yml", root)
    chapters = [{"file": "figure"}, {"file": "references"}]
    parts = [{"caption": "Sections", "chapters": chapters}, {"caption": "Concepts", "chapters": []}]
    (root / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "index", "parts": parts}))
    pages = {
        "index": notebook(root / "book" / "index.md", "A toy", "See {cite:t}`sato2025identifying`."),
        "figure": notebook(root / "book" / "figure.md", "A figure", "Where $x_i > 0$:", FIGURE),
        "concepts/dining-table": notebook(root / "book" / "concept.md", "On “{{concept}}”", "See {ref}`toy-figure`."),
    }
    source = root / "_build" / "source"
    for name, page in pages.items():
        concept = {"concept": "dining table"} if name.startswith("concepts") else {}
        book.run_notebook(page, source / f"{name}.ipynb", {"profile": "embedded"} | concept, root)
    return source


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small book, rendered strictly."""
    root = tmp_path_factory.mktemp("toy")
    source, html = toy(root), root / "_build" / "html"
    assert book.assemble(root, source, ["dining table"], root / "figures") == []
    book.render(source, html)
    return html


# Notebooks


def test_a_notebook_runs_with_its_parameters_in_this_interpreter(tmp_path):
    page = notebook(
        tmp_path / "page.md",
        "T",
        "About {{concept}}.",
        "```{code-cell}\nimport os, sys\nprint(sys.executable, os.getcwd())\n```",
    )
    target = tmp_path / "build" / "page.ipynb"
    book.run_notebook(page, target, {"profile": "other", "concept": "bear"}, tmp_path)
    cells = nbformat.read(target, as_version=4).cells
    printed = [output.text.split() for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert printed == [["other", "bear"], [sys.executable, str(tmp_path)]]
    assert "About bear." in cells[0].source
    assert next(cell for cell in cells if "other" in cell.source).metadata.tags == [
        "injected-parameters",
        "remove-cell",
    ]
    assert [path.name for path in target.parent.iterdir()] == ["page.ipynb"]


def test_a_page_tells_beside_its_command_how_long_it_took_and_where_its_data_lie(tmp_path):
    code = "```{code-cell}\nfrom myst_nb import glue\nglue('saved:kept-bear.csv', 'kept-bear.csv', display=False)\n```"
    page = notebook(tmp_path / "page.md", "T", ":::{div} rerun\nRerun this page: `doit it`.\n:::", code)
    book.run_notebook(page, tmp_path / "concepts" / "bear.ipynb", {}, tmp_path)
    text = nbformat.read(tmp_path / "concepts" / "bear.ipynb", as_version=4).cells[0].source
    took = re.search(r"`doit it`\. Last time it took \d+ seconds?\. Data: (.*)\n:::", text)
    assert took and took[1] == "[kept-bear](../tables/kept-bear.csv)."


def test_a_figures_caption_ends_with_its_number_of_pictures(tmp_path):
    of = "from myst_nb import glue\nglue('counted:found', 'n = 9 pictures', display=False)\n```"
    head = "---\nmystnb:\n  figure:\n    name: fig-found\n    caption: What was found.\n---\n"
    page = notebook(tmp_path / "page.md", "T", code="```{code-cell}\n" + head + of)
    book.run_notebook(page, tmp_path / "page.ipynb", {}, tmp_path)
    cells = nbformat.read(tmp_path / "page.ipynb", as_version=4).cells
    (figure,) = (cell.metadata["mystnb"]["figure"] for cell in cells if "mystnb" in cell.metadata)
    assert figure == {"name": "fig-found", "caption": "What was found; n = 9 pictures."}


def test_progress_bars_and_missing_widgets_leave_no_trace_on_a_page(tmp_path, capfd):
    code = "```{code-cell}\nfrom tqdm.auto import tqdm\n\nfor _ in tqdm([1]):\n    pass\n```"
    book.run_notebook(notebook(tmp_path / "page.md", "T", code=code), tmp_path / "page.ipynb", {}, tmp_path)
    assert "IProgress not found" not in (tmp_path / "page.ipynb").read_text()
    assert "IProgress not found" not in capfd.readouterr().err


def test_a_misspelt_parameter_is_an_error_with_the_near_name(tmp_path):
    page = notebook(tmp_path / "page.md", "T")
    with pytest.raises(book.BookError, match=r"page\.md has no parameter 'concpet'. Did you mean 'concept'\?"):
        book.run_notebook(page, tmp_path / "page.ipynb", {"concpet": "bear"}, tmp_path)


def test_a_failing_cell_is_named_and_its_notebook_is_not_taken_for_done(tmp_path):
    page = notebook(tmp_path / "page.md", "T", code="```{code-cell}\n:tags: [hide-input]\n\n# why\n{}['bear']\n```")
    target = tmp_path / "page.ipynb"
    target.write_text("yesterday's")
    with pytest.raises(book.BookError) as error:
        book.run_notebook(page, target, {"profile": "embedded"}, tmp_path)
    line = page.read_text().splitlines().index("# why") + 1
    assert f"page.md:{line}, code cell 3: `# why`\n  KeyError: 'bear'" in str(error.value)
    assert target.read_text() == "yesterday's"
    assert (tmp_path / "unfinished-page.ipynb").exists()


def test_a_cell_whose_study_was_not_run_ends_the_page_with_its_words(tmp_path):
    code = [
        "```{code-cell}\nfrom book.words import NotRun\n\nraise NotRun('there is no ViT', 'make one')\n```",
        "## What it would show",
        "```{code-cell}\nprint('never')\n```",
    ]
    target = tmp_path / "build" / "page.ipynb"
    book.run_notebook(notebook(tmp_path / "page.md", "T", code="\n\n".join(code)), target, {}, tmp_path)
    cells = nbformat.read(target, as_version=4).cells
    assert "raise NotRun" in cells[-1].source
    assert [output.data for output in cells[-1].outputs] == [
        {"text/markdown": "**Not run:** there is no ViT. Run `make one`."}
    ]
    assert not any("papermill-error-cell-tag" in cell.metadata.get("tags", []) for cell in cells)
    assert [path.name for path in target.parent.iterdir()] == ["page.ipynb"]


# The real book's sources


def sources() -> list[Path]:
    return [page for page in sorted((ROOT / "book").rglob("*.md")) if book.is_notebook(page)]


@pytest.mark.parametrize("page", sources(), ids=lambda page: page.stem)
def test_every_page_opens_with_its_command_and_takes_the_profile(page):
    name = str(page.relative_to(ROOT / "book").with_suffix(""))
    own = {"index": "doit index", "concept": 'make concept CONCEPT="{{concept}}"'}
    command = own.get(name, f"doit section:{name}").replace("section:appendix/", "appendix:")
    cells = jupytext.read(page).cells
    first = cells[0].source.split("\n**The paper**")[0]
    if name in own:  # which begin with what came out
        first = "\n".join(cell.source for cell in cells)
    assert f"`{command}`" in first
    parameters = next(cell for cell in cells if "parameters" in cell.metadata.get("tags", []))
    assert parameters.source.startswith('profile = "embedded"')
    assert "remove-cell" in parameters.metadata.tags


def test_the_table_of_contents_is_the_default_profiles():
    written = yaml.safe_load((ROOT / "_toc.yml").read_text())
    assert written == book.contents(ROOT, load_profile("embedded").concepts)


def doit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "doit", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def test_doit_list_reads_like_the_table_of_contents():
    listed = [line.split()[0] for line in doit("list").stdout.splitlines()]
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    reproduction, use, concepts, appendix = ([chapter["file"] for chapter in part["chapters"]] for part in toc["parts"])
    gallery, *concepts = concepts
    expected = [
        "index",
        *(f"section:{name}" for name in (*reproduction, *use, gallery)),
        *(name.replace("concepts/", "concept:") for name in concepts),
    ]
    expected += [name.replace("/", ":") for name in appendix if name not in {"glossary", "references"}]
    assert [name for name in listed if ":" in name or name == "index"] == expected


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("concept=girafe", "no concept 'girafe'. Did you mean 'giraffe'?"),
        ("concep=giraffe", "no variable 'concep'. Did you mean 'concept'?"),
        ("concept=GIRAFFE", "no concept 'GIRAFFE'. Did you mean 'giraffe'?"),
        ("concept:Giraffe", "nor its pictures have 'Giraffe'. Did you mean 'giraffe'?"),
        ("concept:zbra", "nor its pictures have 'zbra'. Did you mean 'zebra'?"),
        ("profile=embeded", "No profile 'embeded'"),
        ("profile=elsewhere/embedded.yaml", "elsewhere/embedded.yaml does not exist"),
    ],
)
def test_a_wrong_variable_is_one_clear_line(argument, message):
    run = doit("list", argument)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr


# The rendered book


def test_a_book_renders_strictly_with_alt_texts_and_titles(site):
    assert list(flaws(site)) == []
    assert 'aria-label="A straight line from the lower left to the upper right."' in (site / "figure.html").read_text()
    assert "On “dining table”" in (site / "concepts" / "dining-table.html").read_text()
    assert "<msub><mi>x</mi><mi>i</mi></msub>" in (site / "figure.html").read_text()


def test_a_second_build_gives_the_same_bytes(site, tmp_path):
    book.render(site.parent / "source", tmp_path / "html")
    different = [
        str(page.relative_to(site))
        for page in site.rglob("*")
        if page.is_file() and not filecmp.cmp(page, tmp_path / "html" / page.relative_to(site), shallow=False)
    ]
    assert different == []


def test_a_dead_reference_stops_the_build_and_keeps_the_old_book(site, tmp_path):
    source, html = tmp_path / "source", tmp_path / "html"
    shutil.copytree(site.parent / "source", source)
    html.mkdir()
    (html / "index.html").write_text("yesterday's")
    page = nbformat.read(source / "index.ipynb", as_version=4)
    page.cells[0].source += "\n\nSee {cite:t}`nobody1999nothing`."
    nbformat.write(page, source / "index.ipynb")
    with pytest.raises(book.BookError, match="nobody1999nothing"):
        book.render(source, html)
    assert (html / "index.html").read_text() == "yesterday's"


def test_pages_that_have_not_run_are_left_out_of_a_preview(site, tmp_path):
    root = site.parents[1]
    source = tmp_path / "source"
    shutil.copytree(site.parent / "source" / "concepts", source / "concepts")
    assert book.assemble(root, source, ["dining table"], root / "figures") == ["index", "figure"]
    toc = yaml.safe_load((source / "_toc.yml").read_text())
    assert toc["root"] == "references"
    assert [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]] == ["concepts/dining-table"]


@pytest.mark.parametrize(
    ("markup", "flaw"),
    [
        ('<img src="there.svg">', "page.html: picture without alt text: there.svg"),
        ('<img src="gone.svg" alt="words">', "page.html: dead link: gone.svg"),
        ('<a href="gone.html#x">x</a>', "page.html: dead link: gone.html#x"),
        ('<a href="other.html#gone">x</a>', "page.html: no such place: other.html#gone"),
        ('<script src="https://host/x.js"></script>', "page.html: request to another host: https://host/x.js"),
        ('<link rel="stylesheet" href="//host/x.css">', "page.html: request to another host: //host/x.css"),
        ('<p style="background: url(http://host/x.png)">', "page.html: request to another host: http://host/x.png"),
        ('<a href="https://host/">x</a> <a href="other.html#here">x</a> <img src="data:," alt="x">', None),
    ],
)
def test_flaws(tmp_path, markup, flaw):
    (tmp_path / "page.html").write_text(markup)
    (tmp_path / "other.html").write_text('<p id="here">')
    (tmp_path / "there.svg").write_text("<svg/>")
    assert list(flaws(tmp_path)) == ([flaw] if flaw else [])


@pytest.mark.skipif(not BUILT.exists(), reason="no book in _build/embedded/html: make book")
def test_the_built_book_has_no_flaws():
    assert list(flaws(BUILT)) == []


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def served(site) -> Iterator[tuple[Path, str]]:
    folder = BUILT if BUILT.exists() else site
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_asks_no_other_host_finds_no_error_and_a_telephone_need_not_scroll_sideways(served, scheme):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    folder, address = served
    with sync_playwright() as playwright:
        context = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-gpu"]
        ).new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        for html in sorted(folder.rglob("*.html")):
            if "_static" in html.parts:
                continue
            page, asked, wrong = context.new_page(), [], []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
            page.on("console", lambda said, wrong=wrong: wrong.append(said.text) if said.type == "error" else None)
            page.goto(f"{address}/{html.relative_to(folder)}", wait_until="networkidle")
            assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, html
            assert wrong == [], html
            page.close()
