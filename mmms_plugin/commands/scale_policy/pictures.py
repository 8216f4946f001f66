"""The pictures of ``mmms scale-policy``, with their classes and the sizes of the objects that they show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from mmms_plugin.coco.mending import object_area
from mmms_plugin.data.coco_file import CocoFile
from mmms_plugin.data.coco_layouts import annotation_files
from mmms_plugin.data.coco_set import read_split
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.errors import UserError, printable
from mmms_plugin.train.inputs import find_inputs


@dataclass(frozen=True)
class Source:
    """A picture: its file, its name in the report, its classes, and the sides of its objects in px.

    ``file_name`` is its name in the annotation file, '' for a picture of a folder.
    """

    path: Path
    name: str
    classes: tuple[str, ...] = ()
    sides: tuple[float, ...] = ()
    file_name: str = ""


def find_sources(images: str | None, coco_dir: str | None, split: str, out: Path) -> list[Source]:
    """The pictures of a folder or of a data set, each name once.

    Args:
        images: folder, whose sub-folders are classes. coco_dir: data set with COCO annotations. One of both.
        split: of the data set. out: folder of the results, whose pictures are left out.
    Raises: UserError if there is no picture, or not exactly one of ``images`` and ``coco_dir``.
    """
    if (images is None) == (coco_dir is None):
        raise UserError("give the pictures with --images DIR or --coco-dir DIR, one of them")
    return _of_folder(Path(images), out) if images is not None else _of_data_set(Path(coco_dir or ""), split)


def _of_folder(folder: Path, out: Path) -> list[Source]:
    if not folder.is_dir():
        raise UserError(f"--images {folder}: no such folder")
    sources = []
    for found in find_inputs([str(folder)], out):
        classes = (printable(found.below.parts[0]),) if len(found.below.parts) > 1 else ()
        sources.append(Source(found.path, printable(found.below.as_posix()), classes))
    return sources


def _of_data_set(folder: Path, split: str) -> list[Source]:
    own, file = OwnData("--coco-dir", folder, training=False, split=split), data_set_file(folder, split)
    coco = read_split(own, split, file, masks=False, look=False)
    objects = _objects(coco)
    sources = {}
    for image in coco.images:
        if image["file_name"]:
            classes, sides = objects.get(image["id"], ([], []))
            name = printable(image["file_name"])
            path = (coco.image_dir or folder) / image["file_name"]
            sources[name] = Source(path, name, tuple(sorted(set(classes))), tuple(sides), image["file_name"])
    if not sources:
        raise UserError(f"--coco-dir {folder}: {file} lists no picture")
    return list(sources.values())


def data_set_file(folder: Path, split: str) -> Path:
    """The annotation file of a split.

    Raises: UserError if there is none.
    """
    files = annotation_files(OwnData("--coco-dir", folder, training=False, split=split))
    if split not in files:
        raise UserError(f"--coco-dir {folder}: no annotations for {split} (found: {', '.join(files) or 'none'})")
    return files[split]


def _objects(coco: CocoFile) -> dict[int, tuple[list[str], list[float]]]:
    """Class names and sides in px of the objects of each image; crowds are left out."""
    names = {category["id"]: printable(str(category["name"])) for category in coco.content["categories"]}
    found: dict[int, tuple[list[str], list[float]]] = {}
    for record in coco.boxed:
        if not record.get("iscrowd"):
            classes, sides = found.setdefault(record["image_id"], ([], []))
            classes.append(names[record["category_id"]])
            sides.append(math.sqrt(object_area(record)))
    return found
