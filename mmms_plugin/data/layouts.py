"""What kind of data set a folder holds, whatever its layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmms_plugin.data.coco_layouts import EXPECTED, annotations_of, describe_folder
from mmms_plugin.data.image_folder import LAYOUT, has_classes, split_folders
from mmms_plugin.data.label_layouts import EXPECTED as LABELS
from mmms_plugin.data.label_table import LAYOUT as TABLES
from mmms_plugin.data.label_table import label_files
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.seg_layouts import EXPECTED as PAIRS
from mmms_plugin.data.seg_layouts import has_masks
from mmms_plugin.errors import UserError

COCO, SEGMENTATION, TABLE, CLASSES = "COCO", "segmentation", "several labels", "classification"  # in `Report`
FLAGS = {COCO: "--coco-dir", SEGMENTATION: "--voc-dir", TABLE: "--image-dir", CLASSES: "--image-dir"}
NOUNS = {
    COCO: "annotations of objects", SEGMENTATION: "pictures and masks of classes", TABLE: "a table of classes",
    CLASSES: "a folder of pictures for each class",
}  # fmt: skip
HOLDS: dict[str, Callable[[OwnData], bool]] = {
    COCO: lambda own: bool(annotations_of(own)),
    SEGMENTATION: lambda own: own.folder is not None and has_masks(own.folder),
    TABLE: lambda own: bool(label_files(own)),
    CLASSES: lambda own: has_classes(split_folders(own)),
}
LAYOUTS = (
    f"{EXPECTED} (boxes); {LABELS}; {PAIRS} (a class for each pixel); {LAYOUT} (a class for each picture); {TABLES} "
    "(several)"
)


def kind_of(own: OwnData, wanted: Sequence[str] = ()) -> str:
    """The kind of a data set, a key of `FLAGS`.

    Args:
        own: its folder, or files that are named instead.
        wanted: kinds to look for before the others.

    Raises:
        UserError: it is none of these, or several files could be the annotations of a split.
    """
    for kind in dict.fromkeys((*wanted, *HOLDS)):
        if HOLDS[kind](own):
            return kind
    found = "" if own.folder is None else describe_folder(own.folder, options="with --ann FILE", expected=LAYOUTS)
    raise UserError(f"{own.where}: neither annotations of objects, nor masks, nor folders of classes; {found}")
