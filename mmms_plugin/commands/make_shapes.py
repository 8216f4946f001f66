"""Generate the multi-scale shapes data set: COCO, VOC and ImageFolder views of the same pictures."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.progress import Progress

from mmms_plugin.datasets.shapes import FORMATS, ShapeSettings, ShapesWritten, write_shapes
from mmms_plugin.errors import UserError
from mmms_plugin.report.tables import Table, print_table

# Task -> view of the pictures, config, option that takes the folder.
TASKS = {
    "detection": ("coco", "demo/mask_rcnn_ps_r18_shapes", "--coco-dir"),
    "segmentation": ("voc", "deeplabv3_ps_r50_voc12aug", "--voc-dir"),
    "classification": ("imagefolder", "demo/msdnet_shapes", "--image-dir"),
    "multilabel": ("coco", "demo/labels_ps_r18_shapes", "--coco-dir"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``mmms make-shapes``."""
    default = ShapeSettings()
    parser.add_argument("out", metavar="OUT", help="folder to write; new, empty, or one made before")
    parser.add_argument("--train", type=int, default=default.train, metavar="N", help="training pictures (%(default)s)")
    parser.add_argument("--val", type=int, default=default.val, metavar="N", help="held-out pictures (%(default)s)")
    parser.add_argument("--size", type=int, default=default.size, metavar="PX", help="width and height (%(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, metavar="S", help="another seed, other pictures (0)")
    parser.add_argument("--format", choices=(*FORMATS, "all"), default="all", help="which views to write (all)")
    parser.add_argument("--task", choices=list(TASKS), help="write what one task needs, and tell how to train on it")
    parser.add_argument("--crowds", action="store_true", help="COCO view: mark some regions as iscrowd")
    parser.add_argument("--large", action="store_true", help="large objects only, one or two in a picture")


def run(args: argparse.Namespace) -> int:
    """Write the data set and tell what is in it."""
    if args.task and args.format != "all":
        raise UserError("--task and --format: give one of them")
    wanted = TASKS[args.task][0] if args.task else args.format
    formats = FORMATS if wanted == "all" else (wanted,)
    try:
        settings = ShapeSettings(args.train, args.val, args.size, args.seed, formats, args.crowds, args.large)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("drawing", total=settings.train + settings.val)
        written = write_shapes(
            args.out,
            settings.train,
            settings.val,
            settings.size,
            settings.seed,
            settings.formats,
            settings.crowds,
            settings.large,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _tell(console, written)
    if args.task:
        _, config, flag = TASKS[args.task]
        console.print(f"mmms train {config} {flag} {args.out}", soft_wrap=True, highlight=False)
    return 0


def _tell(console: Console, written: ShapesWritten) -> None:
    state = "already there with these settings, left as it is" if written.reused else "written"
    console.print(f"{written.root}: {state}", soft_wrap=True, highlight=False)
    columns = ("split", "pictures", *next(iter(written.objects.values())))
    rows = [(split, getattr(written.settings, split), *bins.values()) for split, bins in written.objects.items()]
    print_table(Table("objects", "objects by COCO size", columns, rows), console)
