"""Train what is between a frozen tower and a frozen decoder, as MiniGPT-4 (Zhu et al. 2023) and LiMBeR do.

    python -m kn_core.training --coco DIR [--profile embedded] [--steps 1500] [--out FOLDER]
    python -m kn_core.training --coco DIR --card     # evaluate the profile's layer again and write its card anew

Scenes are unlimited; photographs come from a COCO-format folder, those of `projections/held_out.json` excepted. A
linear layer starts from a ridge regression (`data.ridge`), a Q-Former from a trained linear layer (`distillation`).
Stopped at any point, the same command goes on from the last checkpoint and ends with the same numbers: every batch is
a function of (seed, step). Another command is refused.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kn_core.__main__ import INTERRUPTED, Parser, obey


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; the exit code, with one line on stderr where it is not 0."""
    parser = Parser(prog="python -m kn_core.training", description=(__doc__ or "").split("\n")[0])
    parser.set_defaults(run=lambda options: _run(parser, options), interrupted=INTERRUPTED)
    add, precisions = parser.add_argument, ["float32", "bfloat16"]
    add("--profile", default="embedded")
    add("--coco", type=Path, help="COCO-format folder of photographs; without it, scenes only")
    add("--card", action="store_true", help="train nothing: write the card of the profile's layer anew")
    add("--out", type=Path, default=Path("_build/projection"), help="checkpoint, log, layer and its card")
    add("--bank", type=Path, default=Path("_build/bank"), help="where the features are kept")
    add("--start", type=Path, help="safetensors to go on from; else ridge regression, for a Q-Former distillation")
    add("--teacher", type=Path, help="safetensors of the layer that a Q-Former starts from; else the profile's linear")
    add("--scenes", type=int, default=90, help="scenes a kind; read when the bank is made")
    add("--views", type=int, default=5, help="views of a photograph; read when the bank is made")
    add("--pasted", type=int, default=3000, help="pasted pictures; read when the bank is made")
    add("--tower-dtype", choices=precisions, default="float32", help="what the tower multiplies in for the bank")
    add("--average", action="store_true", help="keep the mean of the start and what it became (Wortsman et al. 2022)")
    add("--whiten", action="store_true", help="train a linear layer on whitened inputs, where tower widths correlate")
    add("--steps", type=int, default=1500)
    add("--until", type=int, help="end at this step of the schedule")
    add("--seed", type=int, default=0, help="of the batches; the data follow from their own")
    add("--rate", type=float, default=1.5e-3, help="peak of the one-cycle schedule")
    add("--warm-up", type=float, default=0.1, help="share of the steps in which the rate rises")
    add("--shares", type=_shares, help="of a batch (photo=4,pasted=2,scene=2)")
    add("--every", type=int, default=200, help="steps between checkpoints, log rows and captions")
    add("--dtype", choices=precisions, default="float32", help="of the frozen decoder")
    return obey(parser, arguments)


def _run(parser: Parser, options: argparse.Namespace) -> None:
    from kn_core.training import command  # imports torch, which `--help` need not wait for

    command.run(options, parser.error)


def _shares(text: str) -> dict[str, int]:
    """'photo=4,scene=2' -> {'photo': 4, 'scene': 2}."""
    return {name: int(count) for name, count in (part.split("=") for part in text.split(","))}


if __name__ == "__main__":
    sys.exit(main())
