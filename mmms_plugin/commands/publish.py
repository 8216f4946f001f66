"""Prepare a checkpoint for release.

Keeps only weights and meta, and puts the hash into the file's name, as OpenMMLab does.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmms_plugin.files import checkpoint_file
from mmms_plugin.options import CommandOptions, option, positional


@dataclass(kw_only=True)
class Options(CommandOptions):
    input: str = positional(
        metavar="IN", exists=checkpoint_file, help="checkpoint to publish, of a training run or any other"
    )
    prefix: str = positional(
        metavar="OUT_PREFIX",
        help="name of the new file without its hash: models/mask_rcnn_ps_r50 becomes "
        "models/mask_rcnn_ps_r50-1a2b3c4d.pth; a name that ends in .safetensors gives a file of that format",
    )
    freeze_shapes: bool = option(
        default=False,
        help="fix the sizes that shape adaptors have learned, for export and speed; outputs stay the same",
    )


def run(options: Options) -> None:
    from rich.console import Console

    from mmms_plugin.report.terminal import say
    from mmms_plugin.weights.publish import publish

    console = Console()
    with console.status("writing"):
        done = publish(options.input, options.prefix, options.freeze_shapes)
    sizes = f"{done.before / 1e6:.1f} MB -> {done.after / 1e6:.1f} MB"
    say(f"{done.path}: {sizes}; left out: {', '.join(done.stripped) or 'nothing'}", console)
