"""Train configs with several seeds each, and report mean and spread of their metrics beside their costs.

Seed 0 of every config is trained first, then seed 1 of every config, one run at a time. A command that was interrupted
goes on where it stopped when it is given again; runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import warnings

from mmms_plugin.errors import UserError
from mmms_plugin.processes import shell_words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("configs", nargs="+", metavar="CONFIG", help="config files, or names that `mmms configs` lists; the others are "
        "compared with the first")  # fmt: skip
    add("--out", metavar="DIR", required=True, help="folder for the runs, for seeds.json and for the table, seeds.md")
    add("--seeds", type=int, default=3, metavar="N", help="train with the seeds 0 to N - 1 (%(default)s)")
    add("--train", metavar="OPTIONS", default="", help="options of mmms train for every run, as one argument: "
        "--train='--image-dir DIR --epochs 2'")  # fmt: skip
    add("--metrics", nargs="+", metavar="NAME", help="metrics of the table, such as accuracy/top1 (the first that is "
        "reported); seeds.json has all")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: allowed are integers >= 1")
    try:
        options = shell_words(args.train)
    except ValueError as error:
        raise UserError(f"--train {args.train}: {error}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts', about their own old calls
        from mmms_plugin.commands.compare_seeds_run import compare_seeds

        compare_seeds(args.configs, args.seeds, args.out, options, args.metrics)
