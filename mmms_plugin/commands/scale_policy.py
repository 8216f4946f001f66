"""Show what a multi-scale network does with scale: the scale policy of every picture, exits, dilations, shapes, and
the receptive field of every stage. Writes numbers, figures and a page to browse the pictures."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

from mmms_plugin.commands.common import parse_cfg_options
from mmms_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", help="a config file or name. A config is a Python program and runs as one: use only those you trust")
    add("checkpoint", help="weights of the config's model")
    add("--images", metavar="DIR", help="folder of pictures, with all below it; sub-folders are classes")
    add("--coco-dir", metavar="DIR", help="data set with COCO annotations: classes and sizes of objects are used too")
    add("--split", choices=["train", "val", "test"], default="val", help="of --coco-dir (val)")
    add("--out", required=True, type=Path, metavar="DIR", help="for policy.html, numbers and figures")
    add("--fields", type=int, default=4, metavar="N", help="pictures that receptive fields are measured on, 0 for none")
    add("--confidence", type=float, default=0.9, metavar="P", help="at which a picture leaves a network with several "
        "exits (0.9)")  # fmt: skip
    add("--compare", metavar="CHECKPOINT", help="a second network on the same pictures, beside the first; with "
        "--coco-dir, the errors of two detectors by object size too")  # fmt: skip
    add("--compare-config", metavar="CONFIG", help="of --compare (default: the same config)")
    add("--device", metavar="D", help="cpu, cuda, cuda:1, mps, ... (default: cuda where there is one)")
    add("--image-size", metavar="SIZE", help="picture size in px, as in training: 640 or 1333x800")
    add("--force", action="store_true", help="use a checkpoint that was trained as another function of the same "
        "weights, with a warning")  # fmt: skip
    add("--cfg-options", nargs="+", metavar="KEY=VALUE", default=[], help="override config values")


def run(args: argparse.Namespace) -> None:
    if args.fields < 0:
        raise UserError(f"--fields {args.fields}: must be 0 or more, a number of pictures")
    if not 0 < args.confidence <= 1:
        raise UserError(f"--confidence {args.confidence}: must be above 0 and at most 1")
    if args.compare_config and not args.compare:
        raise UserError("--compare-config: give the checkpoint too, with --compare")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts', about their own old calls
        from mmms_plugin.commands.scale_policy_run import Network, PolicyOptions, scale_policy
        from mmms_plugin.config.image_size import parse_image_size

        size = None if args.image_size is None else parse_image_size(args.image_size)
        changes = parse_cfg_options(args.cfg_options)
        network = Network(args.config, args.checkpoint, args.device, size, changes, args.force)
        second = (
            replace(network, config=args.compare_config or args.config, checkpoint=args.compare)
            if args.compare
            else None
        )
        scale_policy(
            PolicyOptions(
                network, args.out, args.images, args.coco_dir, args.split, args.fields, args.confidence, second
            )
        )
