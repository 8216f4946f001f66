"""Write a data set of objects as COCO, YOLO or Pascal VOC.

IN has annotations of COCO, LVIS, YOLO, Pascal VOC or labelme, as for mmms train --data; it is checked and mended as for
training. Boxes keep their digits. YOLO has one polygon an object: parts and holes are joined to it by lines, and
run-length masks become polygons around the same pixels; crowds are left out. Pascal VOC's files hold boxes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.data.own_data import OwnData, PixelOptions
from mmms_plugin.options import REQUIRED, option, positional

FORMATS = ("coco", "yolo", "voc")
IMAGES = ("copy", "link", "none")


@dataclass(kw_only=True)
class Options(PixelOptions):
    folder: Path = positional(metavar="IN", help="folder of the data set, or data.yaml of YOLO's")
    out: Path = positional(metavar="OUT", help="folder to write: new or empty, and not inside IN")
    to: str = option(default=REQUIRED, choices=FORMATS, group="output", help="format to write")
    images: str = option(
        default="copy", choices=IMAGES, group="output",
        help="copy the pictures, make hard links, which need no room, or none, with which --img-dir names their folder",
    )  # fmt: skip
    boxes: bool = option(default=False, group="output", help="leave masks out")
    img_dir: str | None = option(
        metavar="DIR", group="data", help="folder that the file names of the pictures start from"
    )

    def check_files(self) -> None:
        super().check_files()
        self.own  # noqa: B018 - it refuses folders that do not exist

    @property
    def own(self) -> OwnData:
        """The data set to read."""
        pictures = None if self.img_dir is None else Path(self.img_dir)
        return OwnData("convert-data", self.folder, img_dir=pictures, max_pixels=self.max_pixels)


def run(options: Options) -> None:
    from mmms_plugin.data.convert import convert_data
    from mmms_plugin.errors import counted
    from mmms_plugin.processes import shell_line
    from mmms_plugin.report.terminal import say

    written = convert_data(options.own, options.out, options.to, options.images, options.boxes)
    for split, (pictures, objects) in written.counts.items():
        say(f"{split}: {counted(pictures, 'picture')}, {counted(objects, 'object')}")
    for line in written.lines:
        say(line)
    if written.findings:
        check = shell_line(["mmms", "check-data", str(options.folder)])
        say(f"for remarks on the data, see {check}")
    words = ["mmms", "train", "CONFIG", "--data", str(options.out)]
    if options.images == "none":
        words += ["--img-dir", options.img_dir or str(options.own.folder)]
    say(f"written: {options.out}; train with: {shell_line(words)}")
