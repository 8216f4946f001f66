"""List everything that is wrong with a data set.

It has annotations of COCO, LVIS, YOLO, Pascal VOC or labelme, pictures and masks of classes, or a folder of pictures
for each class. Errors stop training; what can be mended is mended in a copy when training starts; warnings are for you
to judge. The exit status is 2 if training would stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.data.own_data import OwnData, PictureOptions
from mmms_plugin.errors import UserError
from mmms_plugin.options import option, positional


@dataclass(kw_only=True)
class Options(PictureOptions):
    folder: Path | None = positional(
        default=None,
        metavar="DIR",
        help="folder of the data set, or data.yaml of YOLO's, as for --data of mmms train",
    )
    ann: Path | None = option(metavar="FILE", group="data", help="COCO annotation file, in place of DIR")
    boxes: bool = option(
        default=False, group="checks", help="check for box detectors: problems of masks do not stop training"
    )
    seg: bool = option(
        default=False, group="checks",
        help="check pictures and masks of classes, even if there are annotations of objects",
    )  # fmt: skip
    decode: bool = option(
        default=False, group="checks",
        help="read every pixel, not only headers, which finds damage inside files but is slow",
    )  # fmt: skip
    json: str | None = option(
        "--json", "--out", metavar="FILE", group="output", help="file to write the report to, as JSON"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folder is None and self.ann is None:
            raise UserError("give DIR, the folder of a data set, or --ann FILE, one annotation file")
        if self.folder is not None and self.ann is not None:
            raise UserError("DIR and --ann: give one of them")


def run(options: Options) -> int:
    from mmms_plugin.data.check import run_check

    own = OwnData(
        "check-data" if options.ann is None else "--ann", options.folder, train_ann=options.ann,
        img_dir=None if options.img_dir is None else Path(options.img_dir), binary_masks=options.binary_masks,
        ignore_label=options.ignore_label, max_pixels=options.max_pixels,
    )  # fmt: skip
    return run_check(own, options.json, masks=not options.boxes, decode=options.decode, segmentation=options.seg)
