"""Train a detector or segmenter from a config; resumes, and points any config at data of your own."""

from __future__ import annotations

import argparse

from mmms_plugin.commands.common import add_launch_arguments, add_schedule_arguments, launch_options
from mmms_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_launch_arguments(parser)
    add_schedule_arguments(parser)
    parser.add_argument("--pretrained", metavar="FILE", help="backbone weights to fine-tune from; none: random ones, "
                        "whatever the config names")  # fmt: skip
    parser.add_argument("--resume", nargs="?", const="auto", metavar="FILE", help="go on from a checkpoint, by default "
                        "from the newest one in the work folder")  # fmt: skip
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision (GPU)")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size")


def run(args: argparse.Namespace) -> None:
    if args.auto_scale_lr and args.lr is not None:
        raise UserError("--auto-scale-lr and --lr: give one of them")
    options = launch_options(args)
    from mmms_plugin.train.launch import train

    train(options, pretrained=args.pretrained, resume=args.resume, amp=args.amp, auto_scale_lr=args.auto_scale_lr)
