"""Boxes and masks of a COCO annotation file beside their pictures; absent boxes and areas are computed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from mmms_plugin.coco.mending import areas_of, as_side, mend_areas, suspicious_boxes, without_short_polygons
from mmms_plugin.coco.objects import mask_areas
from mmms_plugin.coco.rle import mask_boxes, segmentation_problems, to_rles
from mmms_plugin.data.coco_file import CocoFile, Record

SLACK = 2, 0.02  # px and share of the side by which a box may leave its picture


def check_objects(coco: CocoFile) -> None:
    """Check boxes and masks against the pictures' sizes, and compute what is absent. The last of the checks."""
    sizes = {image.get("id"): (as_side(image.get("width")), as_side(image.get("height"))) for image in coco.images}
    sound = _check_masks(coco, sizes)
    _boxes_from_masks(coco, sound, sizes)
    _areas(coco, sound, sizes)
    _check_bounds(coco, sizes)
    _check_twice(coco)
    _check_unused(coco)


def _check_masks(coco: CocoFile, sizes: dict[Any, tuple[int, int]]) -> set[int]:
    """Ids of the annotations whose segmentation is sound."""
    masked = [record for record in coco.objects if record.get("segmentation")]
    for record in coco.objects:
        if not record.get("segmentation"):
            coco.findings.add("segmentation-missing", f"annotation {record['id']}")
    for record in masked:
        long = without_short_polygons(record["segmentation"])
        if long is not record["segmentation"]:
            coco.mend("polygon-short", f"annotation {record['id']}")
            record["segmentation"] = long
    shapes = [sizes[record["image_id"]][::-1] for record in masked]
    problems = segmentation_problems([record["segmentation"] for record in masked], shapes)
    for place, problem in problems.items():
        coco.findings.add("segmentation-bad", f"annotation {masked[place]['id']}: {problem}")
    sound = [record for place, record in enumerate(masked) if place not in problems]
    for record in sound:
        if isinstance(record["segmentation"], list) and _leaves(record["segmentation"], sizes[record["image_id"]]):
            coco.findings.add("polygon-outside", f"annotation {record['id']}")
    return {record["id"] for record in sound}


def _leaves(polygons: list[list[float]], size: tuple[int, int]) -> bool:
    for axis, side in enumerate(size):
        slack = SLACK[0] + SLACK[1] * side
        if any(min(p[axis::2]) < -slack or max(p[axis::2]) > side + slack for p in polygons):
            return True
    return False


def _boxes_from_masks(coco: CocoFile, sound: set[int], sizes: dict[Any, tuple[int, int]]) -> None:
    bare = [record for record in coco.objects if record.get("bbox") in (None, [])]
    for record in bare:
        if record.get("segmentation") and record["id"] not in sound:
            coco.findings.add("box-and-mask-missing", f"annotation {record['id']}: its segmentation is of no use")
    bare = [record for record in bare if record["id"] in sound]
    if not bare:
        return
    boxes = mask_boxes(_rles(coco, bare, sizes)).tolist()
    for record, box in zip(bare, boxes, strict=True):
        coco.mend("box-missing", f"annotation {record['id']}")
        record["bbox"] = box
        coco.boxed.append(record)


def _areas(coco: CocoFile, sound: set[int], sizes: dict[Any, tuple[int, int]]) -> None:
    records = coco.boxed
    areas, changed = mend_areas(
        areas_of([record.get("area") for record in records]),
        np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4),
        np.array([record["id"] in sound for record in records], bool),
        lambda places: mask_areas(_rles(coco, [records[place] for place in places], sizes)),
    )
    for place in np.flatnonzero(changed).tolist():
        record = records[place]
        coco.mend("area", f"annotation {record['id']}: {str(record.get('area', 'none'))[:40]}")
        record["area"] = areas[place].item()


def _rles(coco: CocoFile, records: list[Record], sizes: dict[Any, tuple[int, int]]) -> tuple:
    pixels = np.array([sizes[record["image_id"]] for record in records], np.int64).reshape(-1, 2)
    segmentations = [record["segmentation"] for record in records]
    return to_rles(segmentations, pixels, f"{coco.path}: annotations", [record["id"] for record in records])


def _check_bounds(coco: CocoFile, sizes: dict[Any, tuple[int, int]]) -> None:
    if not coco.boxed:
        return
    boxes = np.array([record["bbox"] for record in coco.boxed], np.float64)
    pixels = np.array([sizes[record["image_id"]] for record in coco.boxed], np.float64)
    known = (pixels > 0).all(1)
    corners = boxes[:, :2] + boxes[:, 2:]
    outside = known & ((corners <= 0) | (boxes[:, :2] >= pixels)).any(1)
    slack = SLACK[0] + SLACK[1] * pixels
    leaves = known & ~outside & ((boxes[:, :2] < -slack) | (corners > pixels + slack)).any(1)
    for code, chosen in (("box-outside", outside), ("box-leaves", leaves)):
        for place in np.flatnonzero(chosen).tolist():
            record = coco.boxed[place]
            shown = f"annotation {record['id']}: {record['bbox']} in {pixels[place][0]:.0f} x {pixels[place][1]:.0f}"
            coco.findings.add(code, shown)
    for code, figures in suspicious_boxes(boxes, pixels).items():
        coco.findings.add(code, figures)


def _check_twice(coco: CocoFile) -> None:
    seen: dict[tuple, int] = {}
    for record in coco.boxed:
        key = (record["image_id"], record["category_id"], *record["bbox"])
        if key in seen:
            coco.findings.add("object-twice", f"annotations {seen[key]} and {record['id']}")
        else:
            seen[key] = record["id"]


def _check_unused(coco: CocoFile) -> None:
    by_class = Counter(record["category_id"] for record in coco.objects)
    for category in coco.content["categories"]:
        if not by_class[category.get("id")] and coco.objects:
            coco.findings.add("class-unused", str(category.get("name"))[:40])
    with_objects = {record["image_id"] for record in coco.objects}
    for image in coco.images:
        if image.get("id") not in with_objects and coco.objects:
            coco.findings.add("image-unused", str(image["file_name"] or image.get("id"))[:80])
