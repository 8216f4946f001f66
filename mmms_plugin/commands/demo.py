"""Train, evaluate and draw a small PS Mask R-CNN on generated pictures; a few minutes on a CPU."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmms_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("demo_out"), metavar="DIR", help="where to write (%(default)s)"
    )
    parser.add_argument("--iterations", type=int, metavar="N", help="training iterations (default: the config's)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (%(default)s)")


def run(args: argparse.Namespace) -> None:
    if args.iterations is not None and args.iterations < 1:
        raise UserError(f"--iterations {args.iterations}: allowed are integers >= 1")
    from mmms_plugin.commands.demo_run import run_demo

    run_demo(args.out, args.iterations, args.seed)
