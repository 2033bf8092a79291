"""What is done to the rendered pages: what Sphinx and its themes bring and no reader needs goes, what they lack comes.

    finish(site, figures, about(root))

Figures are drawn into the pages (`drawn`), formulas written as MathML, tables and figures numbered and given an anchor,
columns named for telephones, and every page gets a footer that says which edition it is and how to cite it.
"""

from __future__ import annotations

import html
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag
from docutils.utils.math.latex2mathml import tex2mathml

from book.press import cards, drawn
from book.press.pruning import prune

UNUSED = re.compile(
    r"thebe|fontawesome|mathjax|togglebutton|design-tabs|sphinx-design|THEBE_JS_URL|toggle(Hint|OpenOn)"
)
THEME = """(function (d) {
  var get = function (key) { try { return localStorage.getItem(key); } catch (error) { return null; } };
  var dark = window.matchMedia && matchMedia("(prefers-color-scheme: dark)").matches;
  d.mode = get("mode") || "auto";
  d.theme = d.mode === "auto" ? (dark ? "dark" : "light") : d.mode;
})(document.documentElement.dataset);"""
NOWHERE = "404.html"
NOT_FOUND = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>No such page</title><link rel="icon" href="data:,"><style>
body {{ font: 1.1rem/1.6 system-ui, sans-serif; margin: 15vh auto; max-width: 34rem; padding: 0 1rem }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14181e; color: #ddd }} a {{ color: #56b4e9 }} }}
</style></head><body><h1>No such page</h1>
<p>{title} has no page at this address. It may have had another name in an earlier version.</p>
<p><a id="home" href="index.html">To the first page</a>, which lists all others.</p>
<script>/* A host shows this page at any depth: the book's root is above its folders. */
document.getElementById("home").href = location.pathname.replace(/((concepts|appendix)\\/.*|[^\\/]*)$/, "index.html");
</script></body></html>
"""
REACHED = 'tabindex="0" role="group"'  # by keys, which scroll what is wider than a telephone
HEADING = re.compile(r"^[\d.]+ |#$")  # number and anchor of a heading
PER_CENT = re.compile(r"(?<=\d) %")  # which no line may part
SPREAD = re.compile(r"\(95\s%\sinterval\s(\S+)\sto\s([^\s)]+)\)")  # an interval within a sentence (`words.spread`)
FALLBACK = "A recipe for multi-modal knowledge neurons, run anew: every published number beside ours."


@dataclass(frozen=True)
class Edition:
    """What the footer says: version and commit of the code, its licence, the lines to cite it by."""

    title: str
    version: str
    commit: str
    date: str
    licence: str
    bibtex: str


def about(root: Path) -> Edition:
    """The edition that the checkout at `root` makes; no commit where it is none of git's."""
    citation = root / "CITATION.cff"
    cited = yaml.safe_load(citation.read_text(encoding="utf-8")) if citation.exists() else {}
    command: list[str | Path] = ["git", "-C", root, "log", "-1", "--format=%h %cs"]
    log = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    commit, date = log if len(log) == 2 else ("", "")
    title, number = cited.get("title", "kn_core"), version("kn-core")
    said = [("author", "{the kn\\_core authors}"), ("title", f"{{{title}}}"), ("year", date[:4]), ("version", number)]
    said += [("note", f"commit {commit}" if commit else "")]
    bibtex = "@software{kn_core,\n" + "".join(f"  {key} = {{{value}}},\n" for key, value in said if value) + "}"
    return Edition(title, number, commit, date, cited.get("license", "MIT"), bibtex)


def finish(site: Path, figures: Path, edition: Edition) -> None:
    """Finish every page of the rendered `site`; `figures` has the drawings for telephones."""
    used: set[str] = set()
    meanings = _meanings(site / "glossary.html")
    for page in sorted(site.rglob("*.html")):
        if "_static" not in page.relative_to(site).parts:
            _finish_page(page, site, figures, edition, used, meanings)
    sheet = site / "_static" / "kn.css"
    sheet.write_text(sheet.read_text(encoding="utf-8") + drawn.colours(used), encoding="utf-8")
    (site / NOWHERE).write_text(NOT_FOUND.format(title=html.escape(edition.title)), encoding="utf-8")
    prune(site)


def _meanings(glossary: Path) -> dict[str, str]:
    """What each term of the glossary means, by its anchor; nothing where the book has none."""
    if not glossary.exists():
        return {}
    terms = BeautifulSoup(glossary.read_text(encoding="utf-8"), "html.parser").select("dl.glossary dt")
    found = {str(term.get("id")): term.find_next_sibling("dd") for term in terms}
    return {anchor: " ".join(said.get_text().split()) for anchor, said in found.items() if said}


def _finish_page(
    page: Path, site: Path, figures: Path, edition: Edition, used: set[str], meanings: Mapping[str, str]
) -> None:
    base = "../" * (len(page.relative_to(site).parts) - 1)
    raw: dict[str, str] = {}  # what the parser would spoil: it knows no case

    def keep(markup: str) -> str:
        raw[f"kn-raw-{len(raw)}-"] = markup
        return f"kn-raw-{len(raw) - 1}-"

    def put(tag: Tag, markup: str) -> None:
        tag.replace_with(keep(markup))

    def set_in(found: re.Match[str]) -> str:
        """A drawing that stands in the page itself, as the first page's do; signs of the theme stay."""
        if not drawn.is_ours(found[0]):
            return keep(found[0])
        return keep(drawn.Drawing(found[0], f"c{len(raw)}", site / "_images", used).html("only", base))

    text = re.sub(r"<svg.*?</svg>", set_in, page.read_text(encoding="utf-8"), flags=re.DOTALL)
    soup = BeautifulSoup(text, "html.parser")
    if soup.head is None:  # it only leads to the first of pages that have no index among them
        return

    _head(soup.head, soup, base, edition)
    for formula in soup.select("span.math, div.math"):
        block = formula.name == "div"
        written = mathml(formula.get_text(), as_block=block)
        put(formula, f'<div class="formula" {REACHED} aria-label="Formula">{written}</div>' if block else written)
    for text in soup.find_all(string=PER_CENT):
        if not text.find_parent(["pre", "code", "script", "style"]):
            text.replace_with(PER_CENT.sub("\u00a0%", text))
    _brief(soup)
    cards.tables(soup)
    _number(soup)
    for roles in soup.select(".citation-list, .citation-list [role]"):  # which hold more than a list may
        del roles["role"]
    for term in soup.select('a.reference[href*="glossary.html#term-"]'):
        term["title"] = meanings.get(str(term["href"]).partition("#")[2], "")
    for place, image in enumerate(soup.select("article img, .bd-article img")):
        source = str(image.get("src", ""))
        path = (page.parent / source).resolve()
        markup = None
        if path.suffix == ".svg" and path.parent.name == "_images" and path.exists():
            name = str(path.relative_to(site.resolve()))
            markup = drawn.figure(name, f"f{place}", site, base, str(image.get("alt", "")), figures, used)
        if markup:
            put(image, markup)
        else:
            image["loading"] = "lazy"
    if footer := soup.select_one(".bd-footer-content__inner"):
        footer.clear()
        put_in = soup.new_tag("div")
        footer.append(put_in)
        put(put_in, _footer(edition))
    text = str(soup)
    for key, markup in raw.items():
        text = text.replace(key, markup)
    page.write_text(text, encoding="utf-8")


def _head(head: Tag, soup: BeautifulSoup, base: str, edition: Edition) -> None:
    for tag in head.find_all(["script", "link"]):
        if UNUSED.search(str(tag)) or (tag.get("rel") == ["preload"]):
            tag.decompose()
    for script in soup.find_all("script", type="text/x-thebe-config"):
        script.decompose()
    for script in soup.find_all("script"):
        if "kernelName" in script.get_text():
            script.decompose()
        elif "dataset.mode" in script.get_text():
            script.string = THEME
    for icon in soup.select("i.fa-solid, i.fas, i.far, i.fab"):
        icon["aria-hidden"] = "true"
    if body := soup.body:
        body["data-default-mode"] = "auto"
    for again in head.find_all("meta", attrs={"name": "viewport"})[1:]:
        again.decompose()
    first = soup.select_one(".brief p") or soup.select_one(
        ".bd-article > section > p, .bd-article section p:not(.rerun p)"
    )
    said = " ".join(first.get_text().split())[:300] if first else FALLBACK
    title = soup.title.get_text().partition(" — ")[0] if soup.title else edition.title
    meta = {"og:type": "article", "og:title": title, "og:description": said, "og:site_name": edition.title}
    meta |= {"og:image": f"{base}_static/hero.png", "og:image:alt": "A picture, the same without its object, and a map"}
    for name, content in meta.items():
        head.append(soup.new_tag("meta", attrs={"property": name, "content": content}))
    head.append(soup.new_tag("meta", attrs={"name": "description", "content": said}))
    head.append(soup.new_tag("meta", attrs={"name": "twitter:card", "content": "summary_large_image"}))


def mathml(formula: str, *, as_block: bool = False) -> str:
    r"""A formula of LaTeX's, in `\(…\)` or `\[…\]` or bare, as MathML, which browsers set by themselves."""
    tex = re.sub(r"^\\[(\[]|\\[)\]]$", "", formula.strip()).strip()
    tex = re.sub(r"_\{(se|re)\}", r"_{\\mathrm{\1}}", tex)  # a word, and no product of letters
    tex = re.sub(r"(\\mathrm\{\w+\}|\\#)", lambda word: rf"\text{{{re.sub(r'[^A-Za-z#]|mathrm', '', word[1])}}}", tex)
    return re.sub(r">\s+<", "><", str(tex2mathml(tex, as_block=as_block)))


def _brief(soup: BeautifulSoup) -> None:
    """What a page found has two lines: its intervals stand in brackets there, as in tables."""
    for said in soup.select(".brief")[:1]:
        for text in said.find_all(string=SPREAD):
            text.replace_with(SPREAD.sub("[\\1,\u00a0\\2]", text))


def _number(soup: BeautifulSoup) -> None:
    """'Table 6.1' before each table's caption and an anchor behind it; so for figures that Sphinx did not number."""
    chapter = soup.select_one("h1 .section-number")
    prefix = chapter.get_text().strip() if chapter else ""
    prefix = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    tables = [  # of the page, not the neuron browser's nor the columns of the general index
        table
        for table in soup.select("article table:not(.indextable), .bd-article table:not(.indextable)")
        if not table.find_parent(class_="knb")
    ]
    for place, table in enumerate(tables, start=1):
        caption = table.find("caption")
        if caption is None:  # one of the text's, or as it comes: it is what its section, or its fold, is about
            fold = table.find_parent("details")
            heading = (fold and fold.find("summary")) or table.find_previous(["h1", "h2", "h3"])
            caption = soup.new_tag("caption")
            caption.string = HEADING.sub("", heading.get_text()).strip() if heading else ""
            table.insert(0, caption)
        table["id"] = table.get("id") or f"table-{place}"
        _label(soup, caption, f"Table {prefix}{place}", str(table["id"]))
    counted = 0
    for figure in soup.select("article figure, .bd-article figure"):
        said = figure.select_one("figcaption p") or figure.select_one("figcaption")
        if said is None:
            continue
        counted += 1
        number = figure.select_one(".caption-number")
        if number is None:
            figure["id"] = figure.get("id") or f"figure-{counted}"
            _label(soup, said, f"Fig. {prefix}{counted}", str(figure["id"]))
        elif not prefix:  # Sphinx counts on through all pages that are no chapter's
            number.string = f"Fig. {counted} "
            for link in soup.select(f'a[href="#{figure.get("id")}"] .std-numref'):
                link.string = f"Fig. {counted}"


def _label(soup: BeautifulSoup, caption: Tag, said: str, anchor: str) -> None:
    number = soup.new_tag("span", attrs={"class": "caption-number"})
    number.string = f"{said} "
    caption.insert(0, number)
    if not caption.select_one("a.headerlink"):
        link = soup.new_tag("a", attrs={"class": "headerlink", "href": f"#{anchor}", "title": "Link to this"})
        link.string = "#"
        caption.append(link)


def _footer(edition: Edition) -> str:
    commit = f" · commit {edition.commit} of {edition.date}" if edition.commit else ""
    return (
        f'<div class="edition"><p>kn_core {edition.version}{commit} · licence: {edition.licence}; OpenMoji’s drawings '
        f"CC BY-SA 4.0</p><details><summary>Cite this book</summary>"
        f"<pre>{html.escape(edition.bibtex)}</pre></details></div>"
    )
