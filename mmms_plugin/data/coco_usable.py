"""Which objects of an annotation file a detector learns from: the rules of mmdet's ``CocoDataset``, without mmdet.

It leaves an object out that is marked ``ignore``, has a side below 1 px or no area, lies outside its picture, or whose
category is not among the classes. It reads crowds, but learns nothing from them. With ``filter_cfg.min_size``, it
leaves out small pictures with all their objects.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mmms_plugin.data.coco_file import CocoFile
from mmms_plugin.errors import counted

REASONS = {
    "object-ignored": "marked ignore",
    "box-small": "with a side below 1 px",
    "box-outside": "outside their picture",
    "object-empty": "without a pixel in their mask",
    "object-other-class": "of other categories than the config's classes",
    "object-crowd": "crowds",
    "picture-small": "in pictures below filter_cfg.min_size",
}


def note_usable(
    coco: CocoFile, *, checked: bool = True, classes: Collection[str] | None = None, min_size: float = 0
) -> None:
    """Find the objects that a detector learns from, set ``usable``, and note why others are left out.

    Args:
        coco: the annotation file.
        checked: its objects were checked, and their areas are right.
        classes: names of the classes; by default all categories are classes.
        min_size: px, pictures with a shorter side are left out.
    """
    records = coco.boxed
    boxes = np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4)
    sides = coco.sizes_of(records)
    known = (sides > 0).all(1)
    starts, ends = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    ids = np.array([record["category_id"] for record in records], np.int64)
    named = {
        category["id"] for category in coco.content["categories"] if classes is None or category["name"] in classes
    }
    left_out = {
        "object-ignored": np.array([bool(record.get("ignore")) for record in records], bool),
        "box-small": (boxes[:, 2:] < 1).any(1),
        "box-outside": known & (np.minimum(ends, sides) <= np.maximum(starts, 0)).any(1),
        "object-empty": np.array([checked and record["area"] <= 0 for record in records], bool),
        "object-other-class": ~np.isin(ids, list(named)),
        "object-crowd": np.array([bool(record["iscrowd"]) for record in records], bool),
        "picture-small": known & (sides.min(1) < min_size),
    }
    note_small_pictures(coco, min_size)
    usable, reasons = np.ones(len(records), bool), []
    for code, which in left_out.items():
        if count := np.count_nonzero(which & usable):
            reasons.append(f"{REASONS[code]}: {count}")
            if code not in coco.findings:
                coco.findings.add_where(code, which, lambda place: f"annotation {records[place]['id']}", len(records))
        usable &= ~which
    coco.usable = [records[place] for place in np.flatnonzero(usable).tolist()]
    if len(records) < len(coco.content["annotations"]) or not records:
        return  # other errors come first
    if coco.usable:
        learned = set(ids[usable].tolist())
        noted = {name for finding in coco.findings if finding.code == "class-unused" for name in finding.examples}
        for category in coco.content["categories"]:
            if category["id"] in named - learned and (name := category["name"][:40]) not in noted:
                coco.findings.add("class-unusable", name)
    else:
        question = "; are the boxes normalised?" if "box-normalised" in coco.findings else ""
        coco.findings.add("no-usable-objects", f"{counted(len(records), 'object')}; {', '.join(reasons)}{question}")


def note_small_pictures(coco: CocoFile, min_size: float) -> None:
    """Note the pictures that ``filter_cfg.min_size`` leaves out of training."""
    sizes = [(image["file_name"], *picture.size) for image, picture in zip(coco.images, coco.pictures, strict=True)]
    small = np.array([0 < min(width, height) < min_size for _, width, height in sizes], bool)
    coco.findings.add_where("picture-small", small, lambda place: "{}: {} x {}".format(*sizes[place]), len(sizes))
