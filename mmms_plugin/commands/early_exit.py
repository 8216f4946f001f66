"""Choose the thresholds of a network with several exits for every budget, and measure what early exits save."""

from __future__ import annotations

import argparse

from mmms_plugin.commands.common import add_launch_arguments, launch_options
from mmms_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_launch_arguments(parser)
    add = parser.add_argument
    add("checkpoint", help="checkpoint file; the thresholds go beside it, as CHECKPOINT.exits.json")
    add("--split", choices=["train", "val", "test"], default="val", help="pictures: one half chooses thresholds, "
        "the other is reported (%(default)s)")  # fmt: skip
    add("--thresholds", metavar="FILE", help="report these, chosen before, on all the pictures; choose none")
    add("--budget", type=float, nargs="+", metavar="MMAC", help="average million multiply-adds a picture, to be timed "
        "(half and three quarters of the full network's)")  # fmt: skip
    add("--out", metavar="DIR", required=True, help="folder for the figure and the figures")
    add("--batches", type=int, nargs="+", default=[1, 8, 32, 64], metavar="N", help="batch sizes (1 8 32 64)")
    add("--pictures", type=int, default=64, metavar="N", help="pictures that measurements use (%(default)s)")
    add("--rounds", type=int, default=5, metavar="N", help="measurements of each, of which the median counts (5)")


def run(args: argparse.Namespace) -> None:
    for name in ("pictures", "rounds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: allowed are integers >= 1")
    if min(args.batches) < 1:
        raise UserError(f"--batches {min(args.batches)}: allowed are integers >= 1")
    if args.budget and not min(args.budget) > 0:
        raise UserError(f"--budget {min(args.budget):g}: allowed are million multiply-adds above 0")
    options = launch_options(args)
    from mmms_plugin.commands.early_exit_run import Wanted, early_exit

    wanted = Wanted(tuple(args.batches), args.pictures, args.rounds, tuple(args.budget or ()), args.thresholds)
    early_exit(options, args.checkpoint, args.out, wanted)
