"""Say what a detector should look like for your own data: input size, levels, anchors and layers, from the sizes of
the objects, the strides, the anchors and the measured receptive field; each with its reason."""

from __future__ import annotations

import argparse
import warnings

from mmms_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--coco-dir", required=True, metavar="DIR", help="data set with COCO annotations; training data are looked at")
    add("--config", help="a detector's config; default: mmdet's Mask R-CNN, or Faster R-CNN for data without masks")
    add("--checkpoint", metavar="FILE", help="weights of the config's model, to measure the receptive field with; else "
        "they are random")  # fmt: skip
    add("--image-size", metavar="SIZE", help="picture size in px to start from: 640 or 1333x800 (the config's)")
    add("--write", metavar="FILE", help="write the advice as a config, with the data in it: mmms train FILE")
    add("--json", metavar="FILE", help="all figures as JSON")


def run(args: argparse.Namespace) -> None:
    if args.checkpoint and not args.config:
        raise UserError("--checkpoint: give its --config too")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts', about their own old calls
        from mmms_plugin.commands.advise_run import AdviseOptions, run_advise
        from mmms_plugin.config.image_size import parse_image_size

        size = None if args.image_size is None else parse_image_size(args.image_size)
        run_advise(AdviseOptions(args.coco_dir, args.config, args.checkpoint, args.write, args.json, size))
