"""What speaks of the book on the command line, `python -m book`.

python -m book claims                                  the paper's claims, our numbers and the verdicts
python -m book claims --profile embedded --check       which verdicts are not those on record; exit code 1 if any
python -m book claims --profile embedded --record      put them on record in paper/verdicts.yml
python -m book serve --edition embedded                show the rendered book in a browser
python -m book publish public --edition embedded       copy it to a folder that any static host takes
python -m book pdf --edition embedded                  print it, with a headless Chromium
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from book.press import commands
from kn_core.__main__ import CommandError, Parser, obey
from kn_core.fingerprint import at_home
from kn_core.profile import load_profile, results

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = ["ours", "low", "high", "n"]
COLUMNS = ["claim", "paper", *NUMBERS, "verdict", "rule", "reason"]  # of claims.csv, as far as they are needed here


def _claims(options: argparse.Namespace) -> int:
    from book.claims import verdicts
    from book.claims.rules import CLAIMS, load_claims

    profile = load_profile(options.profile)
    path = results(profile.name) / "claims.csv"
    make = f"`{commands.whole('make book', commands.variables(profile))}`"
    if not path.is_file():
        raise CommandError(f"no {path} yet. Make it: {make}.")
    claims = _read(path, make)
    if options.check or options.record:
        rules = dict(zip(claims["claim"], claims["rule"], strict=True))
        if rules != {claim.id: str(claim.rule) for claim in load_claims()}:
            raise CommandError(f"{path} is older than {CLAIMS}. Make it anew: {make}.")
        again = f"`python -m book claims --profile {shlex.quote(options.profile)} --record`"
        edition = verdicts.edition(profile.name, claims)
        return _record(edition, claims) if options.record else _check(edition, claims, again)
    numbers = zip(claims["ours"], claims["low"], claims["high"], strict=True)
    ours = ["" if math.isnan(value) else _estimate(value, low, high) for value, low, high in numbers]
    _print(claims[["claim", "paper"]].assign(ours=ours, n=claims["n"], verdict=claims["verdict"]))
    return 0


def _read(path: Path, make: str) -> pd.DataFrame:
    """A run's claims. Raises CommandError for a file that is not as the book wrote it."""
    import pandas as pd

    try:
        text = path.read_text(encoding="utf-8")
        claims = pd.read_csv(StringIO(text))
        if missing := [name for name in COLUMNS if name not in claims]:
            raise ValueError(f"no column {', '.join(missing)}")
        cut = not text.endswith("\n") or claims.empty or claims[["claim", "verdict"]].isna().any(axis=None)
        if cut or claims["claim"].duplicated().any():
            raise ValueError("its last line is cut off" if cut else "a claim stands there twice")
        claims[NUMBERS] = claims[NUMBERS].astype(float)
        claims["n"] = claims["n"].astype(int)
    except ValueError as error:  # pandas' errors, and those of the encoding, are such
        found = str(error).strip().splitlines()[0]
        raise CommandError(f"{path} is not as the book wrote it ({found}). Make it anew: {make}.") from None
    return claims


def _record(edition: str, claims: pd.DataFrame) -> int:
    from book.claims import verdicts

    verdicts.record(edition, claims)
    print(f"Recorded {len(claims)} verdicts of '{edition}' in {verdicts.VERDICTS}.")
    return 0


def _check(edition: str, claims: pd.DataFrame, record: str) -> int:
    """1 where a verdict is not the one on record; `record` is the command that records the present ones."""
    from book.claims import verdicts

    recorded = verdicts.load_verdicts().get(edition)
    if not recorded:
        raise CommandError(
            f"no verdicts of '{edition}' with this captioner in {verdicts.VERDICTS} yet. Record these: {record}."
        )
    if stale := _stale_picture(edition):
        print(stale)
        return 1
    changed = verdicts.differences(recorded, claims)
    if changed.empty:
        print(f"All {len(claims)} verdicts of '{edition}' are those on record.")
        return 0
    _print(changed)
    print(f"\nNot what {verdicts.VERDICTS} has on record: {len(changed)}. If that is right, record it: {record}.")
    return 1


def _stale_picture(edition: str) -> str:
    """What is wrong with the picture of the README, if anything: it shows what the default run's first page does."""
    made, shown = results(edition) / "figures" / "hero.png", Path(__file__).parent / "_static" / "hero.png"
    if edition != "embedded" or not made.is_file():
        return ""
    with Image.open(made) as ours, Image.open(shown) as theirs:
        same = ours.info.get("Description") == theirs.info.get("Description")
    return "" if same else f"{shown} is not the picture of this run. Put it there: cp {made} {shown}."


def _site(options: argparse.Namespace) -> Path:
    """The rendered pages of an edition, `_build/<edition>/html`."""
    site: Path = Path(__file__).parents[1] / "_build" / options.edition / "html"
    if not (site / "index.html").is_file():
        raise CommandError(f"no book in {site} yet. Make it: `make book`.")
    return site


def _serve(options: argparse.Namespace) -> int:
    from book.press import publishing

    publishing.serve(_site(options), options.port, look=not options.quiet)
    return 0


def _publish(options: argparse.Namespace) -> int:
    from book.press import publishing

    site = _site(options)
    try:
        print(f"Published: {publishing.publish(site, options.folder.resolve(), options.url)}")
    except publishing.PublishingError as error:
        raise CommandError(str(error)) from None
    return 0


def _pdf(options: argparse.Namespace) -> int:
    from book.press import publishing

    site = _site(options)
    try:
        print(publishing.pdf(site, site.parent / "book.pdf"))
    except publishing.PublishingError as error:
        raise CommandError(str(error)) from None
    return 0


def _estimate(value: float, low: float, high: float) -> str:
    """'0.77 [0.70, 0.84]'; a count, which is its own interval, is '9'."""
    return f"{value:g}" if low == high else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _print(frame: pd.DataFrame) -> None:
    """A table on the terminal, words flush left."""
    words = frame.select_dtypes(exclude="number")
    flush_left = {str(name): f"{{:<{words[name].str.len().max()}}}".format for name in words}
    print(frame.to_string(index=False, formatters=flush_left, justify="left"))


def parser() -> Parser:
    """Commands and their arguments."""
    whole = Parser(prog="python -m book", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = whole.add_subparsers(metavar="command", required=True)
    command = commands.add_parser("claims", help="the paper's claims, our numbers and the verdicts")
    command.set_defaults(run=_claims)
    command.add_argument("--profile", default="embedded", help="(embedded)")
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="print those that are not on record; exit code 1 if any")
    instead.add_argument("--record", action="store_true", help="put them on record in paper/verdicts.yml")
    speak = {
        "serve": (_serve, "show the rendered book in a browser, on this machine alone"),
        "publish": (_publish, "copy the rendered book to a folder that any static host takes"),
        "pdf": (_pdf, "print the rendered book, with a headless Chromium that is installed"),
    }
    for name, (run, words) in speak.items():
        command = commands.add_parser(name, help=words)
        command.set_defaults(run=run)
        command.add_argument("--edition", default="embedded", help="folder of _build (embedded)")
        if name == "serve":
            command.add_argument("--port", type=int, default=8000, help="(8000)")
            command.add_argument("--quiet", action="store_true", help="open no browser")
        if name == "publish":
            command.add_argument("folder", type=at_home, help="new, empty, or written by this command")
            command.add_argument("--url", default="", help="where it will lie, as previews elsewhere need")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of `python -m book`; the exit code."""
    return obey(parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
