"""Evaluate one classifier on pictures of several sizes, and plot it."""

from __future__ import annotations

import argparse

from mmms_plugin.commands.common import add_launch_arguments, launch_options
from mmms_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_launch_arguments(parser)
    add = parser.add_argument
    add("checkpoint", help="checkpoint file to evaluate")
    add("--split", choices=["train", "val", "test"], default="val", help="pictures to evaluate (%(default)s)")
    add("--sizes", type=int, nargs="+", default=[96, 224, 448, 896], metavar="PX", help="(96 224 448 896)")
    add("--out", metavar="DIR", required=True, help="folder for the figure, the figures and the logs")


def run(args: argparse.Namespace) -> None:
    if min(args.sizes) < 32:
        raise UserError(f"--sizes {min(args.sizes)}: allowed are sizes from 32 px")
    options = launch_options(args)
    from mmms_plugin.commands.stress_test_run import stress_test

    stress_test(options, args.checkpoint, args.out, args.sizes)
