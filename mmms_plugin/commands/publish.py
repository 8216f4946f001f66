"""Make a checkpoint ready for release: weights and meta only, the file named with its hash as OpenMMLab does."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", help="checkpoint of a training run, or any other")
    parser.add_argument("prefix", metavar="OUT_PREFIX", help="name without hash: models/mask_rcnn_ps_r50 becomes "
                        "models/mask_rcnn_ps_r50-1a2b3c4d.pth; ending in .safetensors it is written so")  # fmt: skip
    parser.add_argument("--freeze-shapes", action="store_true", help="make the shape that shape adaptors learned "
                        "constant, for export and speed; outputs stay the same")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    from rich.console import Console

    from mmms_plugin.errors import one_line
    from mmms_plugin.weights.publish import publish

    console = Console(soft_wrap=True, highlight=False)
    with console.status("writing"):
        done = publish(args.input, args.prefix, args.freeze_shapes)
    sizes = f"{done.before / 1e6:.1f} MB -> {done.after / 1e6:.1f} MB"
    line = f"{done.path}: {sizes}; left out: {', '.join(done.stripped) or 'nothing'}"
    console.print(one_line(line), markup=False)
