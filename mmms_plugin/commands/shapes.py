"""Draw the shape of shape-adapted networks beside their human design: side of every map, scales, multiply-adds.

From a work folder also how every scale moved in training.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a config, a checkpoint of mmms convert, or a training's work folder",
    )
    add("--size", nargs=2, type=int, default=[224, 224], metavar=("H", "W"), help="size of the picture in px")
    add("--out", default="shapes", metavar="DIR", help="folder for figures and shapes.json (default: shapes)")


def run(args: argparse.Namespace) -> None:
    from mmms_plugin.commands.shapes_run import show_shapes
    from mmms_plugin.errors import UserError

    if min(args.size) < 1:
        raise UserError(f"--size {args.size[0]} {args.size[1]}: must be at least 1, a height and a width in px")
    show_shapes(args.sources, (args.size[0], args.size[1]), args.out)
