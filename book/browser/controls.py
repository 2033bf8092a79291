"""The neuron browser's controls, written by the run: every choice that its records have is a field of one form.

The page's script reads a control and fills what it asks for; which choices there are is known here.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

from book.browser import records
from book.browser.records import Records
from book.press.neuron_links import BROWSER
from book.style import concept_colours

COLUMNS = {  # of the list: key of the state -> heading, what it means
    "neuron": ("neuron", "in order of layers"),
    "sets": ("sets", "in how many concepts’ sets"),
    "": ("rank", "best rank"),
    "gradcam": ("grad", "gradient score"),
    "delta": ("diff", "difference"),
    "third": ("3rd", "third stage’s score"),
    "removed": ("taken out", "what the word’s logit loses without it"),
}
MAPS = {"gradcam": "gradient score", "delta": "difference", "none": "none"}
SQUARES = {"shared": "neurons in both sets", "silent": "whose set takes whose word"}


def form(found: Records) -> str:
    """The browser's skeleton, a form, with every control in its first state."""
    names, n = found.concepts, len(found.concepts)
    layers, width = next(iter(found.measured.values()))["delta"].shape
    tried = sorted(dict.fromkeys(found.captions["method"]), key=lambda name: _place(name, list(found.sets)))
    steps = sorted({1, -(-n // 2), n})
    some = {"some": f"2 to {n - 1} concepts"} if n > 2 else {}
    owners = {"": "any", "one": "one concept’s own", **some, "all": f"all {n} concepts"}
    filled = {
        "concepts": _chips("c", {"": "all"} | dict(zip(names, names, strict=True)), "", concept_colours(names)),
        "methods": _options({name: records.said(name) for name in found.sets}),
        "budget": str(found.budget),
        "measures": _options(records.MEASURES),
        "owners": _options(owners),
        "ramp": " ".join(f'<i style="background:{_shade(step, n)}"></i>{step}' for step in steps),
        "everything": f"{layers * width:,}",
        "columns": "".join(
            f'<th scope="col" title="{title}">{_button("r", key, heading)}</th>'
            for key, (heading, title) in COLUMNS.items()
        ),
        "chosen_by": "".join(
            _button("c", name, f"{html.escape(name)}<small></small>", f' style="--mine:{colour}"')
            for name, colour in concept_colours(names).items()
        ),
        "maps": _chips("w", MAPS, "gradcam"),
        "pictures": "".join(_picture(found, number) for number in range(len(found.shown))),
        "names": _options(dict(zip(names, names, strict=True))),
        "tried": _chips("em", {name: records.said(name) for name in tried}),
        "interventions": _chips("ei", {name: name for name in dict.fromkeys(found.captions["intervention"])}),
        "squares": _chips("x", SQUARES, "shared"),
        "matrix": _matrix(names),
    }
    skeleton = (Path(__file__).parent / "browser.html").read_text(encoding="utf-8")
    return Template(skeleton).substitute(filled)


def _place(method: str, known: list[str]) -> tuple[int, bool]:
    """The browser's own methods first, in their order; what is random last."""
    random = any(word in method for word in ("random", "uniform", "direction"))
    return (known.index(method) if method in known else len(known), random)


def _shade(step: int, n: int) -> str:
    return f"color-mix(in oklab, var(--knb-many) {100 * (step - 1) / max(1, n - 1):.0f}%, var(--knb-few))"


def _options(said: Mapping[str, str]) -> str:
    return "".join(
        f'<option value="{html.escape(value)}">{html.escape(words)}</option>' for value, words in said.items()
    )


def _chips(name: str, said: Mapping[str, str], now: str | None = None, colours: Mapping[str, str] | None = None) -> str:
    """Radio buttons that look like chips, with a dot of its colour where one has any."""
    chips = ""
    for value, words in said.items():
        dot = f'<i style="--mine:{colours[value]}"></i>' if colours and value in colours else ""
        checked = " checked" if value == now else ""
        field = f'<input type="radio" name="{name}" value="{html.escape(value)}"{checked}>'
        chips += f"<label>{field}{dot}{html.escape(words)}</label>"
    return chips


def _button(key: str, value: str, inside: str, more: str = "") -> str:
    """A button that sets a key of the page's state; several keys and values are parted by '|'."""
    return f'<button type="button" data-key="{key}" value="{html.escape(value)}"{more}>{inside}</button>'


def _picture(found: Records, number: int) -> str:
    one = found.shown[number]
    words = html.escape(f"{one.concept}: {one.said}")
    field = f'<input type="radio" name="p" value="{html.escape(one.image_id)}"{"" if number else " checked"}'
    small = f'<img src="{BROWSER}/picture-{number}.webp" alt="" width="40" height="40" loading="lazy">'
    return f'<label title="{words}">{field} aria-label="{words}">{small}</label>'


def _matrix(names: Iterable[str]) -> str:
    """Concept against concept: a button a pair, which the script fills."""
    escaped = [html.escape(name) for name in names]
    head = "".join(f'<th scope="col"><span>{name}</span></th>' for name in escaped)
    rows = "".join(
        f'<tr><th scope="row">{row}</th>'
        + "".join(f"<td>{_button('c|d', f'{row}|{column}', '')}</td>" for column in names)
        + "</tr>"
        for row in names
    )
    return f'<thead><tr><td></td>{head}</tr></thead><tbody id="knb-matrix">{rows}</tbody>'
