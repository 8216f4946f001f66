"""Evaluate a checkpoint with a config: metrics, predictions as COCO JSON, drawn pictures."""

from __future__ import annotations

import argparse

from mmms_plugin.commands.common import add_launch_arguments, launch_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_launch_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file to evaluate")
    parser.add_argument("--split", choices=["train", "val", "test"], default="val", help="pictures to evaluate, of "
                        "--coco-dir or --voc-dir (%(default)s)")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="keep predictions: COCO JSON with boxes and masks for detectors, "
                        "a folder of label PNGs for segmenters")  # fmt: skip
    parser.add_argument("--show-dir", metavar="DIR", help="draw predictions beside the ground truth into this folder")
    parser.add_argument("--size-report", metavar="DIR", help="IoU and recall of regions by their size, of a segmenter: "
                        "HTML page, JSON, CSV and figures in this folder")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="evaluate a checkpoint that was trained with another "
                        "dilation pattern or the like, which is refused otherwise")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    options = launch_options(args)
    from mmms_plugin.train.launch import evaluate

    evaluate(options, args.checkpoint, out=args.out, show_dir=args.show_dir, size_report=args.size_report,
             force=args.force)  # fmt: skip
