"""A COCO annotation file as training needs it: every record is checked, and what can be computed is mended in memory.

Three steps, each of which adds to the findings and continues: `read_coco` looks at the records alone, `place_pictures`
finds the pictures and reads their headers, `check_objects` compares boxes and masks with their pictures.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmms_plugin.coco import lvis
from mmms_plugin.coco.as_coco import coco_content
from mmms_plugin.coco.findings import Findings
from mmms_plugin.coco.json_files import BOM, load_annotations
from mmms_plugin.coco.mending import (
    FARTHEST,
    areas_of,
    as_id,
    as_side,
    crowds_of,
    ids_of,
    is_number,
    mend_areas,
    slack,
    suspicious_boxes,
    unsound_ids,
    without_short_polygons,
)
from mmms_plugin.coco.read import read_labels
from mmms_plugin.coco.references import listed_twice
from mmms_plugin.coco.rle import mask_boxes, segmentation_problems, to_rles
from mmms_plugin.coco.run_lengths import Masks
from mmms_plugin.data.label_layouts import Labelled
from mmms_plugin.data.pictures import Picture
from mmms_plugin.errors import counted, shown
from mmms_plugin.files import written_whole

LONGEST_FILE_NAME = 255  # characters, on the usual file systems
MOST_FOLDERS = 100
COCO, LVIS = "COCO", "LVIS"  # names of formats
LISTS = set(lvis.LISTS)  # of LVIS's images
Record = dict[str, Any]


@dataclass
class CocoFile:
    """An annotation file's content, mended so far, and its findings.

    Attributes:
        path: the file.
        content: its JSON.
        findings: problems so far.
        objects: annotations whose image and category are known.
        boxed: those of them with a sound box.
        image_dir: folder of the pictures, once placed.
        pictures: one for each image, once placed.
        mended: whether ``content`` differs from the file.
        usable: those of ``boxed`` that a detector learns from, once counted.
        origin: the label files of another format that ``content`` was read from.
    """

    path: Path
    content: dict[str, Any]
    findings: Findings
    objects: list[Record] = field(default_factory=list)
    boxed: list[Record] = field(default_factory=list)
    image_dir: Path | None = None
    pictures: list[Picture] = field(default_factory=list)
    mended: bool = False
    usable: list[Record] | None = None
    origin: Labelled | None = None

    @property
    def images(self) -> list[Record]:
        return self.content["images"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories, in the file's order."""
        return tuple(category["name"] for category in self.content["categories"])

    @property
    def format(self) -> str:
        """The name of the format that the annotations were read from."""
        return self.origin.format if self.origin else LVIS if self.is_lvis else COCO

    @property
    def is_lvis(self) -> bool:
        """Whether the images have LVIS's two lists."""
        return bool(self.images) and self.images[0].keys() >= LISTS

    @property
    def mask_count(self) -> int:
        """Number of annotations with a segmentation."""
        return sum(bool(record.get("segmentation")) for record in self.content["annotations"])

    @property
    def counts(self) -> str:
        """Numbers of images and objects in words, and of usable ones where they are fewer."""
        objects = len(self.content["annotations"])
        usable = "" if self.usable is None or len(self.usable) == objects else f", {len(self.usable)} usable"
        return f"{counted(len(self.images), 'image')}, {counted(objects, 'object')}{usable}"

    def sizes_of(self, records: list[Record]) -> np.ndarray:
        """``(n, 2)`` width and height in px of the pictures that annotations are in, 0 where unknown."""
        sizes = {image["id"]: [as_side(image.get(side)) for side in ("width", "height")] for image in self.images}
        return np.array([sizes[record["image_id"]] for record in records], np.int64).reshape(-1, 2)

    def mend(self, code: str, example: str = "") -> None:
        """Note that something was mended."""
        self.findings.add(code, example)
        self.mended = True

    def write(self, path: Path) -> Path:
        """Write the mended content as an annotation file; returns its absolute path."""
        with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(self.content, file)
        return path.resolve()


def read_coco(path: str | Path | Labelled, argument: str, severities: Mapping[str, str] | None = None) -> CocoFile:
    """Read an annotation file and check its records without their pictures.

    Args:
        path: JSON with images, annotations and categories, or label files of another format.
        argument: the option that names it, for messages.
        severities: of rules, where they differ from the table's.

    Raises:
        UserError: not an annotation file.
    """
    if isinstance(path, Labelled):
        labels = read_labels(path.path, path.source.truth, path.source, argument)
        unstated = dict.fromkeys(("area", *["object-crowd"] * (path.source.truth == "voc")), "none")
        findings = Findings(str(path), {**unstated, **(severities or {})})
        findings.add_where("difficult", labels.columns.iscrowd, lambda place: f"annotation {place + 1}")
        coco = CocoFile(path.path, coco_content(labels), findings, image_dir=labels.root, mended=True, origin=path)
    else:
        coco = CocoFile(Path(path), load_annotations(path, argument), Findings(str(path), severities))
        _mend_spelling(coco)
    _check_categories(coco)
    _check_images(coco)
    _check_references(coco)
    _mend_crowds_and_ids(coco)
    for record in coco.objects:
        _check_box(coco, record)
    if not coco.content["annotations"]:
        coco.findings.add("no-objects")
    return coco


def _mend_spelling(coco: CocoFile) -> None:
    """What a file of COCO's or LVIS's spells otherwise: a byte-order mark, names of pictures, iscrowd."""
    with open(coco.path, "rb") as file:
        if file.read(len(BOM)) == BOM:
            coco.mend("byte-order-mark")
    for image in coco.images:
        url = image.get("coco_url")
        if "file_name" not in image and isinstance(url, str):  # LVIS: http://.../val2017/000000397133.jpg
            coco.mend("file-name-url", url)
            image["file_name"] = "/".join(PurePosixPath(url).parts[-2:])
    if coco.is_lvis:  # which has no crowds
        for record in coco.content["annotations"]:
            record.setdefault("iscrowd", 0)


def leave_out_groups(files: Collection[CocoFile]) -> None:
    """Drop categories that only group others in all files of a data set.

    Roboflow writes one, often with the name of a class.
    """
    used = set()
    for coco in files:
        ids = {record["category_id"] for record in coco.objects}
        used |= {(category["id"], category["name"]) for category in coco.content["categories"] if category["id"] in ids}
    for coco in files:
        above = Counter(parent for category in coco.content["categories"] if (parent := _parent(category)))
        kept = []
        for category in coco.content["categories"]:
            others = above[category["name"]] - (_parent(category) == category["name"])
            if others > 0 and (category["id"], category["name"]) not in used:
                coco.mend("category-group", category["name"][:40])
            else:
                kept.append(category)
        coco.content["categories"] = kept
        check_names(coco)


def check_names(coco: CocoFile) -> None:
    """Note names that several categories have, once those that only group others are left out."""
    for name in listed_twice(coco.classes):
        coco.findings.add("category-name-twice", shown(name))


def _parent(category: Record) -> str:
    parent = category.get("supercategory")
    return parent if isinstance(parent, str) else ""


def _check_categories(coco: CocoFile) -> None:
    categories = coco.content["categories"]
    if not categories:
        coco.findings.add("no-categories")
    _check_ids(coco, categories, "category")
    for i, category in enumerate(categories):
        if not isinstance(category.get("name"), str) or not category["name"].strip():
            where = f"category {category['id']}" if category["id"] is not None else f"category number {i + 1}"
            coco.findings.add("category-name", where + (f": {shown(category['name'])}" if "name" in category else ""))
            category["name"] = ""


def _check_images(coco: CocoFile) -> None:
    if not coco.images:
        coco.findings.add("no-images")
    _check_ids(coco, coco.images, "image")
    names: Counter[str] = Counter()
    for i, image in enumerate(coco.images):
        name = image.get("file_name")
        if not isinstance(name, str) or not name.strip() or not _is_file_name(name):
            value = f": {shown(name)}" if "file_name" in image else ""
            coco.findings.add("file-name", f"image {i + 1 if image['id'] is None else image['id']}{value}")
            image["file_name"] = ""
            continue
        names[name] += 1
        if "\\" in name:
            coco.mend("backslashes", name)
            image["file_name"] = name.replace("\\", "/")
    for name, count in names.items():
        if count > 1:
            coco.findings.add("file-name-twice", name)


def _check_ids(coco: CocoFile, records: list[Record], kind: str) -> None:
    """Note ids that are not integers, which become None, and ids that are used twice."""
    seen: set[int] = set()
    for i, record in enumerate(records):
        number = as_id(record.get("id"))
        if number is None:
            value = f": {shown(record['id'])}" if "id" in record else ""
            coco.findings.add(f"{kind}-id", f"{kind} number {i + 1}{value}")
        elif number in seen:
            coco.findings.add(f"{kind}-id-twice", str(number))
        else:
            seen.add(number)
        record["id"] = number


def _check_references(coco: CocoFile) -> None:
    """Keep those annotations for the further checks whose image and category are known."""
    references = [
        (key, code, {record["id"] for record in coco.content[kind]} - {None})
        for key, code, kind in (
            ("image_id", "unknown-image", "images"),
            ("category_id", "unknown-category", "categories"),
        )
    ]
    for place, record in enumerate(coco.content["annotations"]):
        known = True
        for key, code, ids in references:
            number = as_id(record.get(key))
            if number in ids:
                record[key] = number
            else:
                value = shown(record[key]) if key in record else "missing"
                coco.findings.add(code, f"{_name(record, place)}: {key} {value}")
                known = False
        if known:
            coco.objects.append(record)


def _mend_crowds_and_ids(coco: CocoFile) -> None:
    records = coco.content["annotations"]
    crowds, sound = crowds_of([record.get("iscrowd") for record in records])
    for place in np.flatnonzero(~sound).tolist():
        coco.mend("iscrowd", _name(records[place], place))
        records[place]["iscrowd"] = int(crowds[place])
    unsound = np.flatnonzero(unsound_ids(ids_of([record.get("id") for record in records]))).tolist()
    for place in unsound:
        value = shown(records[place]["id"]) if "id" in records[place] else "none"
        coco.mend("annotation-id", f"annotation number {place + 1}: {value}")
    for place, record in enumerate(records if unsound else ()):
        record["id"] = place + 1


def _check_box(coco: CocoFile, record: Record) -> None:
    box = record.get("bbox")
    name = f"annotation {record['id']}"
    if box is None or box == []:
        if not record.get("segmentation"):
            coco.findings.add("box-and-mask-missing", name)
        return  # taken from the mask later
    example = _shown_box(record)
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        coco.findings.add("box-not-numbers", example)
    elif not all(abs(value) <= FARTHEST for value in box):  # nor NaN
        coco.findings.add("box-nan", example)
    elif box[2] < 0 or box[3] < 0:
        coco.findings.add("box-negative", example)
    else:
        coco.boxed.append(record)


def _shown_box(record: Record) -> str:
    return f"annotation {record['id']}: {shown(record['bbox'])}"


def last_part(name: str) -> str:
    """The file's own name in a ``file_name``, which may be a URL; empty for the root."""
    return PurePosixPath(name.split("?")[0] if "://" in name else name).name


def _is_file_name(name: str) -> bool:
    """Whether the operating system can have a file of that name."""
    name = name.replace("\\", "/")
    own = last_part(name)
    if own in ("", "..") or len(own) > LONGEST_FILE_NAME or name.count("/") > MOST_FOLDERS:
        return False
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _name(record: Record, place: int) -> str:
    return f"annotation {shown(record['id'])}" if "id" in record else f"annotation number {place + 1}"


def check_objects(coco: CocoFile) -> None:
    """Check boxes and masks against the pictures' sizes, and compute what is absent. The last of the checks."""
    _mend_boxes_and_areas(coco, sound=_check_masks(coco))
    if coco.boxed:
        _check_bounds(coco)
    seen: dict[tuple, int] = {}
    for record in coco.boxed:
        first = seen.setdefault((record["image_id"], record["category_id"], *record["bbox"]), record["id"])
        if first != record["id"]:
            coco.findings.add("object-twice", f"annotations {first} and {record['id']}")
    if coco.objects:
        used = {(key, record[key]) for record in coco.objects for key in ("category_id", "image_id")}
        for category in coco.content["categories"]:
            if ("category_id", category["id"]) not in used:
                coco.findings.add("class-unused", category["name"][:40])
        for image in coco.images:
            if ("image_id", image["id"]) not in used:
                coco.findings.add("image-unused", str(image["file_name"] or image["id"])[:80])


def _check_masks(coco: CocoFile) -> set[int]:
    """Ids of the annotations whose segmentation is sound."""
    masked = []
    for record in coco.objects:
        if not record.get("segmentation"):
            coco.findings.add("segmentation-missing", f"annotation {record['id']}")
            continue
        long = without_short_polygons(record["segmentation"])
        if long is not record["segmentation"]:
            coco.mend("polygon-short", f"annotation {record['id']}")
            record["segmentation"] = long
        masked.append(record)
    sizes: list[tuple[int, int]] = [(width, height) for width, height in coco.sizes_of(masked).tolist()]
    shapes = [(height, width) for width, height in sizes]
    problems = segmentation_problems([record["segmentation"] for record in masked], shapes)
    for place, problem in problems.items():
        coco.findings.add("segmentation-bad", f"annotation {masked[place]['id']}: {problem}")
    sound = [(record, size) for i, (record, size) in enumerate(zip(masked, sizes, strict=True)) if i not in problems]
    for record, size in sound:
        if isinstance(record["segmentation"], list) and _leaves(record["segmentation"], size):
            coco.findings.add("polygon-outside", f"annotation {record['id']}")
    doubtful = [record for record, size in sound if _may_be_empty(record["segmentation"], size)]
    empty = _masks(coco, doubtful).areas == 0
    coco.findings.add_where("mask-empty", empty, lambda place: f"annotation {doubtful[place]['id']}", len(masked))
    if masked and empty.sum() == len(masked):
        coco.findings.add("no-masks", f"{len(masked)} masks")
    return {record["id"] for record, _ in sound}


def _may_be_empty(segmentation: Any, size: tuple[int, int]) -> bool:
    """Whether a mask may hold no pixel: run lengths, or polygons that are thin or do not lie in their picture."""
    if not isinstance(segmentation, list):
        return True
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in segmentation])
    low, high = np.maximum(points.min(0), 0), np.minimum(points.max(0), size)
    return bool((high - low < 1).any())


def _masks(coco: CocoFile, records: list[Record]) -> Masks:
    segmentations, ids = ([record[key] for record in records] for key in ("segmentation", "id"))
    return to_rles(segmentations, coco.sizes_of(records), f"{coco.path}: annotations", ids)


def _leaves(polygons: list[list[float]], size: tuple[int, int]) -> bool:
    return any(
        min(polygon[axis::2]) < -slack(side) or max(polygon[axis::2]) > side + slack(side)
        for axis, side in enumerate(size)
        for polygon in polygons
    )


def _mend_boxes_and_areas(coco: CocoFile, sound: set[int]) -> None:
    """Compute absent boxes and areas from the masks, of which those of the ``sound`` ids can be used."""
    bare = [record for record in coco.objects if record.get("bbox") in (None, [])]
    for record in bare:
        if record.get("segmentation") and record["id"] not in sound:
            coco.findings.add("box-and-mask-missing", f"annotation {record['id']}: its segmentation is of no use")
    bare = [record for record in bare if record["id"] in sound]
    for record, box in zip(bare, mask_boxes(_masks(coco, bare)).tolist(), strict=True):
        coco.mend("box-missing", f"annotation {record['id']}")
        record["bbox"] = box
        coco.boxed.append(record)
    records = coco.boxed
    areas, changed = mend_areas(
        areas_of([record.get("area") for record in records]),
        np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4),
        np.array([record["id"] in sound for record in records], bool),
        lambda places: _masks(coco, [records[place] for place in places]).areas,
    )
    for place in np.flatnonzero(changed).tolist():
        value = shown(records[place]["area"]) if "area" in records[place] else "none"
        coco.mend("area", f"annotation {records[place]['id']}: {value}")
        records[place]["area"] = areas[place].item()


def _check_bounds(coco: CocoFile) -> None:
    boxes = np.array([record["bbox"] for record in coco.boxed], np.float64)
    pixels = coco.sizes_of(coco.boxed).astype(np.float64)
    known = (pixels > 0).all(1)
    starts, ends = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    outside = known & np.any((ends <= 0) | (starts >= pixels), axis=1)
    leaves = known & ~outside & np.any((starts < -slack(pixels)) | (ends > pixels + slack(pixels)), axis=1)

    def named(place: int) -> str:
        record, (width, height) = coco.boxed[place], pixels[place]
        return f"annotation {record['id']}: {record['bbox']} in {width:.0f} x {height:.0f}"

    small = np.any(boxes[:, 2:] < 1, axis=1)
    coco.findings.add_where("box-small", small, lambda place: _shown_box(coco.boxed[place]), len(boxes))
    coco.findings.add_where("box-outside", outside, named, len(boxes))
    coco.findings.add_where("box-leaves", leaves, named)
    for code, figures in suspicious_boxes(boxes, pixels).items():
        coco.findings.add(code, figures)
