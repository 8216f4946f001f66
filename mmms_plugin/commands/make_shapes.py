"""Generate the multi-scale shapes data set.

It has COCO, VOC and ImageFolder views of the same pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmms_plugin.datasets import FORMATS, ShapeSettings
from mmms_plugin.errors import UserError
from mmms_plugin.options import CommandOptions, option, positional
from mmms_plugin.processes import shell_line
from mmms_plugin.report.tables import Table

if TYPE_CHECKING:
    from rich.console import Console

    from mmms_plugin.datasets import ShapesWritten

# Task: view of the pictures, config, option that takes the folder.
TASKS = {
    "detection": ("coco", "demo/mask_rcnn_ps_r18_shapes", "--coco-dir"),
    "segmentation": ("voc", "deeplabv3_ps_r50_voc12aug", "--voc-dir"),
    "classification": ("imagefolder", "demo/msdnet_shapes", "--image-dir"),
    "multilabel": ("coco", "demo/labels_ps_r18_shapes", "--coco-dir"),
}


@dataclass(kw_only=True)
class Options(CommandOptions):
    out: str = positional(metavar="OUT", help="folder to write: new, empty, or written by this command before")
    train: int = option(default=ShapeSettings.train, metavar="N", help="number of training pictures")
    val: int = option(default=ShapeSettings.val, metavar="N", help="number of validation pictures")
    size: int = option(default=ShapeSettings.size, metavar="PX", help="width and height of the pictures in px")
    seed: int = option(default=ShapeSettings.seed, metavar="S", help="random seed; another seed draws other pictures")
    format: str = option(choices=(*FORMATS, "all"), default="all", help="view of the pictures to write")
    task: str | None = option(choices=tuple(TASKS), help="write what a task needs, and print how to train on it")
    crowds: bool = option(default=False, help="mark regions of the COCO view as iscrowd")
    large: bool = option(default=False, help="draw large objects only, one or two per picture")
    small: bool = option(default=False, help="draw small objects only, of 10 to 24 px, many per picture")
    colours: bool = option(default=False, help="give each class colours of its own, as the demo does")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task and self.format != "all":
            raise UserError("--task and --format: give one of them")
        if self.large and self.small:
            raise UserError("--large and --small: give one of them")


def run(options: Options) -> None:
    """Write the data set and print what is in it."""
    from rich.console import Console
    from rich.progress import Progress

    from mmms_plugin.datasets import write_shapes
    from mmms_plugin.report.terminal import say

    formats = TASKS[options.task][0] if options.task else options.format
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("drawing", total=options.train + options.val)
        try:
            written = write_shapes(
                options.out, options.train, options.val, options.size, options.seed, formats, options.crowds,
                options.large, options.small, options.colours,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"--{error}") from error
    _print(console, written)
    if options.task:
        _, config, flag = TASKS[options.task]
        say(shell_line(["mmms", "train", config, flag, str(options.out)]), console)


def _print(console: Console, written: ShapesWritten) -> None:
    from mmms_plugin.report.terminal import print_table, say

    state = "exists already with these settings, left as it is" if written.reused else "written"
    say(f"{written.root}: {state}", console)
    columns = ("split", "pictures", *next(iter(written.objects.values())))
    rows = [(split, getattr(written.settings, split), *bins.values()) for split, bins in written.objects.items()]
    print_table(Table("objects", "objects by COCO size", columns, rows), console)
