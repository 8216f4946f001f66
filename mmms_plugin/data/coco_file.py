"""A COCO annotation file as training needs it: every record checked, and what can be computed set right in memory.

Three steps, each of which adds to the findings and goes on: `read_coco` looks at the records alone, `place_pictures`
finds the pictures and reads their headers, `check_objects` compares boxes and masks with their pictures.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmms_plugin.coco.json_files import load_annotations
from mmms_plugin.data.findings import Findings
from mmms_plugin.data.pictures import Picture
from mmms_plugin.files import written_whole

MOST = 1e9  # px; farther out are no boxes
Record = dict[str, Any]


@dataclass
class CocoFile:
    """An annotation file's content, mended so far, and what was found in it.

    Attributes:
        path: the file. content: its JSON. findings: problems so far.
        objects: annotations whose image and category are known. boxed: those of them with a sound box.
        image_dir: folder of the pictures, once placed. pictures: by the image's place in the file.
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
        path: JSON with images, annotations and categories. argument: what the user calls it, for messages.
        severities: of rules, where they differ from the table's.
    Raises:
        UserError: not an annotation file.
    """
    content = load_annotations(path, argument)
    coco = CocoFile(Path(path), content, Findings(str(path), severities))
    _check_categories(coco)
    _check_images(coco)
    for i, record in enumerate(content["annotations"]):
        _check_references(coco, record, i)
    _number_annotations(coco)
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
        number = _as_id(record.get("id"))
        if number is None:
            shown = f"{what} number {i + 1}" + (f": {_short(record['id'])}" if "id" in record else "")
            coco.findings.add(f"{what}-id", shown)
            record["id"] = None
        elif number in seen:
            coco.findings.add(f"{what}-id-twice", str(number))
        else:
            seen.add(number)
            record["id"] = number


def _check_references(coco: CocoFile, record: Record, place: int) -> None:
    """Keep an annotation for the further checks if its image and category are known."""
    known = True
    for key, code, ids in (
        ("image_id", "unknown-image", _ids(coco, "images")),
        ("category_id", "unknown-category", _ids(coco, "categories")),
    ):
        number = _as_id(record.get(key))
        if number not in ids:
            value = _short(record[key]) if key in record else "missing"
            coco.findings.add(code, f"{_name(record, place)}: {key} {value}")
            known = False
        else:
            record[key] = number
    if record.get("iscrowd") not in (0, 1) or isinstance(record.get("iscrowd"), bool | float):
        coco.mend("iscrowd", _name(record, place))
        record["iscrowd"] = int(record.get("iscrowd") in (True, "1", "true", "True"))
    if known:
        coco.objects.append(record)


def _ids(coco: CocoFile, key: str) -> set[int]:
    """Ids of a list of the file, remembered on its first use."""
    known = coco.__dict__.setdefault("_known", {})
    if key not in known:
        known[key] = {number for r in coco.content[key] if (number := _as_id(r.get("id"))) is not None}
    return known[key]


def _number_annotations(coco: CocoFile) -> None:
    """Training and pycocotools need annotation ids that are integers, unique and not 0, which it takes for no match."""
    records = coco.content["annotations"]
    ids = [_as_id(record.get("id")) for record in records]
    counts = Counter(ids)
    wrong = [place for place, number in enumerate(ids) if not number or number < 0 or counts[number] > 1]
    for place in wrong:
        coco.mend("annotation-id", f"annotation number {place + 1}: {_short(records[place].get('id', 'none'))}")
    if wrong:
        for place, record in enumerate(records):
            record["id"] = place + 1


def _check_box(coco: CocoFile, record: Record) -> None:
    box = record.get("bbox")
    who = f"annotation {record['id']}"
    if box is None or box == []:
        if not record.get("segmentation"):
            coco.findings.add("box-and-mask-missing", who)
        return  # taken from the mask later
    shown = f"{who}: {_short(box)}"
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        coco.findings.add("box-not-numbers", shown)
    elif not all(abs(value) <= MOST for value in box):  # nor NaN
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


def as_side(value: Any) -> int:
    """A width or height of an annotation file in px, 0 where it is none."""
    return int(value) if _is_number(value) and 1 <= value < 2**31 and value == int(value) else 0


def is_area(value: Any) -> bool:
    """Whether an ``area`` can be used: a finite number above 0."""
    return _is_number(value) and 0 < value < math.inf


def _as_id(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(record: Record, place: int) -> str:
    return f"annotation {_short(record['id'])}" if "id" in record else f"annotation number {place + 1}"


def _short(value: Any, most: int = 60, write: Callable[[Any], str] = str) -> str:
    text = write(value)
    return text if len(text) <= most else f"{text[:most]}..."
