"""List everything that is wrong with a data set: COCO annotations, or pictures and masks of classes.

Errors stop training; what is mended is set right in a copy when training starts; warnings are for you to judge. Exit
status 2 if training would stop.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmms_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", nargs="?", metavar="DIR", help="the folder that --coco-dir or --voc-dir would get")
    add("--ann", metavar="FILE", help="one COCO annotation file, in place of DIR")
    add("--img-dir", metavar="DIR", help="folder that the file names of the pictures start from")
    add("--boxes", action="store_true", help="judge for box detectors: problems of masks do not stop training")
    add("--seg", action="store_true", help="check pictures and masks of classes, also where there are COCO annotations")
    add("--binary-masks", action="store_true", help="masks have the values 0 and 255: read 255 as class 1")
    add("--decode", action="store_true", help="read every pixel, not only headers: finds damage inside of files, slow")
    add("--json", "--out", metavar="FILE", dest="json", help="write the report as JSON")


def run(args: argparse.Namespace) -> int:
    if (args.folder is None) == (args.ann is None):
        raise UserError("give one of DIR and --ann FILE")
    from mmms_plugin.data.check import run_check
    from mmms_plugin.data.own_data import OwnData

    folder, ann, images = (None if value is None else Path(value) for value in (args.folder, args.ann, args.img_dir))
    flag = "check-data" if ann is None else "--ann"
    own = OwnData(flag, folder, train_ann=ann, img_dir=images, binary_masks=args.binary_masks)
    return run_check(own, args.json, masks=not args.boxes, decode=args.decode, segmentation=args.seg)
