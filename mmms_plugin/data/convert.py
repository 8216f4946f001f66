"""``mmms convert-data``: annotated objects in any layout, written as COCO's, YOLO's or Pascal VOC's data set."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import escape

from mmms_plugin.coco.findings import Finding, errors_first, refuse_errors
from mmms_plugin.coco.outlines import single_polygon
from mmms_plugin.coco.yolo import label_of
from mmms_plugin.data.coco_file import CocoFile, Record, leave_out_groups, read_coco
from mmms_plugin.data.coco_layouts import annotations_of
from mmms_plugin.data.coco_set import align_categories, check_split
from mmms_plugin.data.layouts import COCO, NOUNS, kind_of
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.data.pictures import in_threads
from mmms_plugin.data.splits import is_below
from mmms_plugin.errors import UserError, printable
from mmms_plugin.files import files_written_together, write_text
from mmms_plugin.processes import shell_line

SEVERITIES = {  # where they are not those of training: a split may be empty, every mask has to be written
    **dict.fromkeys(("segmentation-missing", "no-masks", "no-objects", "class-unused"), "none"),
    "segmentation-bad": "error",
}  # fmt: skip
DECIMALS = 10  # of a share, so that COCO's numbers come back to a millionth of a pixel
OF_PIXELS = 6


@dataclass
class Written:
    """What was written, and what was not.

    Attributes:
        lines: for the user, one for each thing that the format cannot hold.
        counts: pictures and objects of each split.
        findings: of the data that were read.
    """

    lines: list[str] = field(default_factory=list)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def convert_data(own: OwnData, out: Path, to: str, images: str = "copy", boxes: bool = False) -> Written:
    """Write a data set of annotated objects in another format, whole or not at all.

    Args:
        own: the data set.
        out: a new or empty folder.
        to: "coco", "yolo" or "voc".
        images: "copy" or "link" (hard links) the pictures, or "none".
        boxes: leave masks out.

    Raises:
        UserError: the data set cannot be read or has errors, the format cannot hold it, or ``out`` is not empty.
    """
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"OUT {out}: must be a new or an empty folder; nothing is overwritten")
    if own.folder and is_below(out, own.folder):
        raise UserError(f"OUT {out}: lies in {own.folder}; nothing is written among the data that are read")
    if to == "yolo" and images == "none":
        raise UserError("--images none: YOLO finds labels beside their pictures; allowed are copy and link")
    splits = _read(own)
    written = Written(findings=errors_first(coco.findings for coco in splits.values()))
    refuse_errors(written.findings, f"mmms check-data {shell_line([str(own.given)])}")
    with files_written_together(out, "OUT") as folder:
        pictures = {"coco": _write_coco, "yolo": _write_yolo, "voc": _write_voc}[to](splits, folder, boxes, written)
        if images != "none":
            _place(pictures, folder, images)
    return written


def _read(own: OwnData) -> dict[str, CocoFile]:
    """All splits, with all findings.

    Raises:
        UserError: there are no annotations of objects, or a file cannot be read.
    """
    if (kind := kind_of(own, [COCO])) != COCO:
        raise UserError(f"{own.where}: {NOUNS[kind]}; allowed are {NOUNS[COCO]}")
    splits = {split: read_coco(path, own.flag, SEVERITIES) for split, path in annotations_of(own).items()}
    leave_out_groups(splits.values())
    for split, coco in splits.items():
        check_split(own, split, coco)
    for split, coco in splits.items():
        if split != "train" and "train" in splits:
            align_categories(coco, splits["train"])
    return splits


def _place(pictures: Mapping[str, Path], folder: Path, images: str) -> None:
    """Copy or link pictures to their places in the folder.

    Raises:
        UserError: the file system has no links from there.
    """
    for name in {os.path.dirname(name) for name in pictures}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    places = dict(zip((folder / name for name in pictures), pictures.values(), strict=True))

    def place(target: Path) -> None:
        if images == "copy":
            shutil.copyfile(places[target], target)
            return
        try:
            os.link(places[target], target)
        except OSError as error:
            raise UserError(f"--images link: no link to {places[target]} ({error.strerror}); give copy") from None

    for _ in in_threads(place, list(places), "copying pictures"):
        pass


def _sources(coco: CocoFile) -> list[tuple[str, Path]]:
    """Name and file of every picture."""
    return [(image["file_name"], Path(coco.image_dir or "", image["file_name"])) for image in coco.images]


def _objects(coco: CocoFile) -> dict[int, list[Record]]:
    """The objects of each image, by its id."""
    objects: dict[int, list[Record]] = {image["id"]: [] for image in coco.images}
    for record in coco.content["annotations"]:
        objects[record["image_id"]].append(record)
    return objects


def _names(splits: Mapping[str, CocoFile]) -> Sequence[str]:
    return next(iter(splits.values())).classes  # the same in all


def _write_coco(splits: Mapping[str, CocoFile], folder: Path, boxes: bool, written: Written) -> dict[str, Path]:
    pictures: dict[str, Path] = {}
    for split, coco in splits.items():
        records = coco.content["annotations"]
        if boxes:
            records = [{key: value for key, value in record.items() if key != "segmentation"} for record in records]
        content = {**coco.content, "annotations": records}
        write_text(folder / f"annotations/instances_{split}.json", json.dumps(content))
        pictures |= {f"images/{split}/{name}": path for name, path in _sources(coco)}
        written.counts[split] = len(coco.images), len(records)
    return pictures


def _write_yolo(splits: Mapping[str, CocoFile], folder: Path, boxes: bool, written: Written) -> dict[str, Path]:
    import yaml

    masked = not boxes and any(coco.mask_count for coco in splits.values())
    pictures: dict[str, Path] = {}
    crowds = bare = outlined = empty = 0
    for split, coco in splits.items():
        sources, objects = _sources(coco), _objects(coco)
        _refuse_twice([f"{split}/{os.path.splitext(name)[0]}" for name, _ in sources], "YOLO")
        numbers = {category["id"]: i for i, category in enumerate(coco.content["categories"])}
        count = 0
        for image, (name, path) in zip(coco.images, sources, strict=True):
            size, lines = (image["width"], image["height"]), []
            for record in objects[image["id"]]:
                mask = record.get("segmentation") if masked else None
                if record["iscrowd"]:
                    crowds += 1
                    continue
                bare += masked and not mask
                outlined += isinstance(mask, dict)
                points = single_polygon(mask, size) if mask else _corners(record["bbox"]) if masked else []
                if masked and not points:
                    empty += 1
                    continue
                lines.append(_yolo_line(numbers[record["category_id"]], record["bbox"], points, size))
            picture = f"images/{split}/{name}"
            write_text(folder / label_of(Path(picture)), "".join(lines))
            pictures[picture] = path
            count += len(lines)
        written.counts[split] = len(coco.images), count
    content = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(_names(splits)))}
    write_text(folder / "data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    written.lines += [f"crowds left out, which YOLO's labels do not know: {crowds}"] * bool(crowds)
    written.lines += [f"masks without a pixel left out: {empty}"] * bool(empty)
    written.lines += [f"run-length masks written as polygons around the same pixels: {outlined}"] * bool(outlined)
    written.lines += [f"objects without a mask written as the polygons of their boxes: {bare}"] * bool(bare)
    return pictures


def _corners(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _yolo_line(number: int, box: Sequence[float], points: Sequence[float], size: tuple[int, int]) -> str:
    x, y, width, height = box
    values = points or (x + width / 2, y + height / 2, width, height)
    shares = (_spelled(value / size[place % 2], DECIMALS) for place, value in enumerate(values))
    return f"{number} {' '.join(shares)}\n"


def _spelled(value: float, decimals: int) -> str:
    """A number without needless digits."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".rstrip("0").rstrip(".")  # + 0.0: no -0


def _write_voc(splits: Mapping[str, CocoFile], folder: Path, boxes: bool, written: Written) -> dict[str, Path]:
    pictures: dict[str, Path] = {}
    masks = flat = 0
    for split, coco in splits.items():
        names = {category["id"]: category["name"] for category in coco.content["categories"]}
        objects, sources = _objects(coco), _sources(coco)
        masks += coco.mask_count
        count = 0
        for image, (name, path) in zip(coco.images, sources, strict=True):
            last = PurePosixPath(name).name
            boxed = [record for record in objects[image["id"]] if min(record["bbox"][2:]) > 0]
            flat += len(objects[image["id"]]) - len(boxed)
            count += len(boxed)
            text = _voc_xml(last, image, boxed, names)
            target = f"JPEGImages/{last}"
            if pictures.setdefault(target, path) != path:
                raise UserError(
                    f"{path}: {pictures[target].name} is another picture's name too; Pascal VOC's lie in one folder"
                )
            write_text(folder / "Annotations" / PurePosixPath(last).with_suffix(".xml"), text)
        stems = [os.path.splitext(PurePosixPath(name).name)[0] for name, _ in sources]
        write_text(folder / f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems))
        written.counts[split] = len(coco.images), count
    _refuse_twice([os.path.splitext(name)[0] for name in pictures], "Pascal VOC")
    write_text(folder / "classes.txt", "".join(f"{printable(name)}\n" for name in _names(splits)))
    if masks and not boxes:
        written.lines.append(f"masks left out, which Pascal VOC's XML files do not hold: {masks}")
    written.lines += [f"boxes without width or height left out: {flat}"] * bool(flat)
    return pictures


def _voc_xml(file_name: str, image: Record, objects: Sequence[Record], names: Mapping[int, str]) -> str:
    """The XML file of a picture; corners count from 1, both inside the box."""
    lines = [
        "<annotation>", f"  <filename>{escape(printable(file_name))}</filename>",
        f"  <size><width>{image['width']}</width><height>{image['height']}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]  # fmt: skip
    for record in objects:
        x, y, width, height = record["bbox"]
        corners = dict(xmin=x + 1, ymin=y + 1, xmax=x + width, ymax=y + height)
        box = "".join(f"<{key}>{_spelled(value, OF_PIXELS)}</{key}>" for key, value in corners.items())
        lines += [
            "  <object>", f"    <name>{escape(printable(names[record['category_id']]))}</name>",
            "    <pose>Unspecified</pose><truncated>0</truncated>",
            f"    <difficult>{record['iscrowd']}</difficult>", f"    <bndbox>{box}</bndbox>", "  </object>",
        ]  # fmt: skip
    return "\n".join([*lines, "</annotation>", ""])


def _refuse_twice(names: Sequence[str], kind: str) -> None:
    """Raise UserError if two pictures would have one label file, also where case does not count."""
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            raise UserError(
                f"{name}: two pictures have this name but for their types or case; {kind} has one label file for both"
            )
        seen[name.casefold()] = name
