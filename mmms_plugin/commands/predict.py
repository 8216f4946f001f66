"""Draw and keep what a model finds in pictures: predictions.json (COCO) of a detector, masks/ of a segmentation model.

    mmms predict CONFIG CHECKPOINT IMAGE|FOLDER|PATTERN... --out DIR
    mmms predict CHECKPOINT IMAGE|FOLDER|PATTERN... --out DIR --trust-checkpoint-config

CONFIG is a file, a name that `mmms configs` lists, or a host's (mmdet::...). The classes are the checkpoint's.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from mmms_plugin.commands.common import parse_cfg_options
from mmms_plugin.errors import UserError

WEIGHTS = (".pth", ".pt", ".tar", ".ckpt", ".safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("inputs", nargs="+", metavar="CONFIG CHECKPOINT IMAGE", help="config, checkpoint, then pictures, folders (with "
        "all below them) or quoted patterns such as 'shots/*.png'")  # fmt: skip
    add("--out", required=True, type=Path, metavar="DIR", help="for predictions.json or masks/, and drawn/")
    add("--score", type=float, metavar="S", help="least score of an object, kept and drawn (0.3); detectors only")
    add("--labels", action=argparse.BooleanOptionalAction, default=True, help="write names and scores beside objects")
    add("--draw", action=argparse.BooleanOptionalAction, default=True, help="draw the pictures into DIR/drawn")
    add("--device", metavar="D", help="cpu, cuda, cuda:1, mps, ... (default: cuda where there is one)")
    add("--image-size", metavar="SIZE", help="picture size in px, as in training: 640 or 1333x800")
    add("--cfg-options", nargs="+", metavar="KEY=VALUE", default=[], help="override config values")
    add("--trust-checkpoint-config", action="store_true", help="use the config saved in the checkpoint. A "
        "config is Python code that is run: only for checkpoints that you would trust as a program")  # fmt: skip
    add("--force", action="store_true", help="use a checkpoint that was trained with another dilation pattern or the "
        "like than the config's, which is refused otherwise")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    if args.score is not None and not 0 <= args.score <= 1:
        raise UserError(f"--score {args.score}: allowed are numbers from 0 to 1")
    config, checkpoint, pictures = _split(args.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts', about their own old calls
        from mmms_plugin.config.image_size import parse_image_size
        from mmms_plugin.train.predict import PredictOptions, predict

        options = PredictOptions(
            config, checkpoint, pictures, args.out, args.score, args.labels, args.draw, args.device
        )
        options.trust_checkpoint_config = args.trust_checkpoint_config
        options.force = args.force
        options.image_size = None if args.image_size is None else parse_image_size(args.image_size)
        options.cfg_options = parse_cfg_options(args.cfg_options)
        predict(options)


def _split(inputs: list[str]) -> tuple[str | None, str, list[str]]:
    """Config or None, checkpoint, pictures: the checkpoint is known by its suffix, first or second."""
    place = next((i for i, item in enumerate(inputs[:2]) if Path(item).suffix.lower() in WEIGHTS), None)
    if place is None:
        raise UserError(f"CHECKPOINT is missing: {inputs[min(1, len(inputs) - 1)]} is none of {' '.join(WEIGHTS)}")
    if len(inputs) == place + 1:
        raise UserError("IMAGE is missing: give pictures, folders or patterns after the checkpoint")
    return (inputs[0] if place else None), inputs[place], inputs[place + 1 :]
