"""A COCO annotation file as training needs it: every record checked, and what can be computed set right in memory.

Three steps, each of which adds to the findings and goes on: `read_coco` looks at the records alone, `place_pictures`
finds the pictures and reads their headers, `check_objects` compares boxes and masks with their pictures.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmms_plugin.coco.findings import Findings
from mmms_plugin.coco.json_files import load_annotations
from mmms_plugin.coco.mending import FARTHEST, as_id, crowds_of, ids_of, is_number, unsound_ids
from mmms_plugin.data.pictures import Picture
from mmms_plugin.files import written_whole

Record = dict[str, Any]


@dataclass
class CocoFile:
    """An annotation file's content, mended so far, and what was found in it.

    Attributes:
        path: the file.
        content: its JSON.
        findings: problems so far.
        objects: annotations whose image and category are known.
        boxed: those of them with a sound box.
        image_dir: folder of the pictures, once placed.
        pictures: by the image's place in the file.
        mended: whether ``content`` differs from the file.
    """

    path: Path
    content: dict[str, Any]
    findings: Findings
    objects: list[Record] = field(default_factory=list)
    boxed: list[Record] = field(default_factory=list)
    image_dir: Path | None = None
    pictures: dict[int, Picture] = field(default_factory=dict)
    mended: bool = False

    @property
    def images(self) -> list[Record]:
        return self.content["images"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories, in the file's order."""
        return tuple(str(category.get("name", category.get("id"))) for category in self.content["categories"])

    @property
    def has_masks(self) -> bool:
        """Whether any annotation has a segmentation."""
        return any(record.get("segmentation") for record in self.content["annotations"])

    def mend(self, code: str, example: str = "") -> None:
        """Note that something was set right."""
        self.findings.add(code, example)
        self.mended = True

    def write(self, path: Path) -> Path:
        """Write the mended content as an annotation file; returns its absolute path."""
        with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(self.content, file)
        return path.resolve()


def read_coco(path: str | Path, argument: str, severities: Mapping[str, str] | None = None) -> CocoFile:
    """Read an annotation file and check its records without their pictures.

    Args:
        path: JSON with images, annotations and categories.
        argument: what the user calls it, for messages.
        severities: of rules, where they differ from the table's.

    Raises:
        UserError: not an annotation file.
    """
    content = load_annotations(path, argument)
    coco = CocoFile(Path(path), content, Findings(str(path), severities))
    _check_categories(coco)
    _check_images(coco)
    _check_references(coco)
    _mend_crowds_and_ids(coco)
    for record in coco.objects:
        _check_box(coco, record)
    if not content["annotations"]:
        coco.findings.add("no-objects")
    return coco


def _check_categories(coco: CocoFile) -> None:
    categories = coco.content["categories"]
    if not categories:
        coco.findings.add("no-categories")
    _check_ids(coco, categories, "category")
    for i, category in enumerate(categories):
        if not isinstance(category.get("name"), str) or not category["name"].strip():
            shown = f"category {_short(category['id'])}" if category["id"] is not None else f"category number {i + 1}"
            coco.findings.add("category-name", shown)
            category["name"] = ""
    names = Counter(category["name"] for category in categories if category["name"])
    for name, count in names.items():
        if count > 1:
            coco.findings.add("category-name-twice", repr(name))


def _check_images(coco: CocoFile) -> None:
    if not coco.images:
        coco.findings.add("no-images")
    _check_ids(coco, coco.images, "image")
    names: Counter[str] = Counter()
    for i, image in enumerate(coco.images):
        name = image.get("file_name")
        if not isinstance(name, str) or not name.strip() or not _is_file_name(name):
            coco.findings.add("file-name", f"image {i + 1 if image['id'] is None else image['id']}")
            image["file_name"] = ""
            continue
        names[name] += 1
        if "\\" in name:
            coco.mend("backslashes", name)
            image["file_name"] = name.replace("\\", "/")
    for name, count in names.items():
        if count > 1:
            coco.findings.add("file-name-twice", name)


def _check_ids(coco: CocoFile, records: list[Record], what: str) -> None:
    seen: set[int] = set()
    for i, record in enumerate(records):
        number = as_id(record.get("id"))
        if number is None:
            shown = f"{what} number {i + 1}" + (f": {_short(record['id'])}" if "id" in record else "")
            coco.findings.add(f"{what}-id", shown)
            record["id"] = None
        elif number in seen:
            coco.findings.add(f"{what}-id-twice", str(number))
        else:
            seen.add(number)
            record["id"] = number


def _check_references(coco: CocoFile) -> None:
    """Keep those annotations for the further checks whose image and category are known."""
    known = {
        kind: {number for record in coco.content[kind] if (number := as_id(record.get("id"))) is not None}
        for kind in ("images", "categories")
    }
    for place, record in enumerate(coco.content["annotations"]):
        fits = True
        for key, code, ids in (
            ("image_id", "unknown-image", known["images"]),
            ("category_id", "unknown-category", known["categories"]),
        ):
            number = as_id(record.get(key))
            if number in ids:
                record[key] = number
            else:
                value = _short(record[key]) if key in record else "missing"
                coco.findings.add(code, f"{_name(record, place)}: {key} {value}")
                fits = False
        if fits:
            coco.objects.append(record)


def _mend_crowds_and_ids(coco: CocoFile) -> None:
    records = coco.content["annotations"]
    crowds, sound = crowds_of([record.get("iscrowd") for record in records])
    for place in np.flatnonzero(~sound).tolist():
        coco.mend("iscrowd", _name(records[place], place))
        records[place]["iscrowd"] = int(crowds[place])
    unsound = np.flatnonzero(unsound_ids(ids_of([record.get("id") for record in records]))).tolist()
    for place in unsound:
        coco.mend("annotation-id", f"annotation number {place + 1}: {_short(records[place].get('id', 'none'))}")
    for place, record in enumerate(records if unsound else ()):
        record["id"] = place + 1


def _check_box(coco: CocoFile, record: Record) -> None:
    box = record.get("bbox")
    who = f"annotation {record['id']}"
    if box is None or box == []:
        if not record.get("segmentation"):
            coco.findings.add("box-and-mask-missing", who)
        return  # taken from the mask later
    shown = f"{who}: {_short(box)}"
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        coco.findings.add("box-not-numbers", shown)
    elif not all(abs(value) <= FARTHEST for value in box):  # nor NaN
        coco.findings.add("box-nan", shown)
    elif box[2] < 0 or box[3] < 0:
        coco.findings.add("box-negative", shown)
    else:
        coco.boxed.append(record)
        if box[2] < 1 or box[3] < 1:
            coco.findings.add("box-small", shown)


def _is_file_name(name: str) -> bool:
    """Whether the operating system can have a file of that name."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _name(record: Record, place: int) -> str:
    return f"annotation {_short(record['id'])}" if "id" in record else f"annotation number {place + 1}"


def _short(value: Any, most: int = 60, write: Callable[[Any], str] = str) -> str:
    text = write(value)
    return text if len(text) <= most else f"{text[:most]}..."
