"""Pascal VOC's XML files, one an image: ``size``, and ``object`` with ``name``, ``bndbox`` and ``difficult``.

Deviations:
1. Corners are whole pixels counted from 1, both inside the box (VOC development kit): a box is ``xmin - 1``,
   ``ymin - 1``, ``xmax - xmin + 1``, ``ymax - ymin + 1``, as Detectron2 takes it.
2. Objects marked ``difficult`` are taken as COCO's crowds: a detection on one counts neither as found nor as false.
3. Predictions are the same files with a ``score`` or ``confidence`` in every object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from mmms_plugin.analysis.size_ap.columns import Columns
from mmms_plugin.analysis.size_ap.reading.formats import (
    LARGEST,
    Rows,
    by_stem,
    picture_size,
    records,
    text_of,
    unknown_images,
)
from mmms_plugin.analysis.size_ap.reading.yolo import class_names
from mmms_plugin.errors import UserError

Records = list[dict[str, Any]]
CORNERS = ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
SCORES = ("score", "confidence")
DEEPEST = 20  # elements inside of each other


@dataclass
class _File:
    """The texts of an XML file: of the image by path, of every object by path, each with its line."""

    image: dict[str, str] = field(default_factory=dict)
    objects: list[tuple[int, dict[str, tuple[int, str]]]] = field(default_factory=list)


def read_voc_truth(
    path: Path, pictures: Path | None, classes: Path | None, argument: str
) -> tuple[Records, Records, Columns]:
    """Images, categories and objects of a folder of XML files, or of those that a list in ``ImageSets`` names.

    Args:
        path: folder, or ``ImageSets/Main/val.txt`` with names of files in ``Annotations``.
        pictures: folder of the images, for sizes that the files lack. classes: names in order, else by alphabet.
        argument: what the user calls the path.
    Raises:
        UserError: files that do not fit, with file and line.
    """
    files = _xml_files(path, argument)
    parsed = [_parse(file, argument) for file in files.values()]
    used = sorted({found["name"][1] for one in parsed for _, found in one.objects if "name" in found})
    names = class_names(classes) if classes else used
    numbers = {name: i for i, name in enumerate(names, 1)}
    rows, sizes, file_names = Rows(), [], []
    for i, (file, one) in enumerate(zip(files.values(), parsed, strict=True), 1):
        file_names.append(one.image.get("filename") or file.stem)
        sizes.append(_size(one, file, file_names[-1], pictures, argument))
        _add_objects(file, one, i, numbers, rows, scored=False)
    images, categories = records(file_names, sizes, [(i, name) for name, i in numbers.items()])
    for image, file in zip(images, files.values(), strict=True):
        image["file_name"] = f"{file.stem}{Path(image['file_name']).suffix}"
    return images, categories, rows.columns(argument)


def read_voc_detections(folder: Path, images: dict[str, int], classes: dict[str, int], argument: str) -> Columns:
    """Predictions in XML files, with the ids of the ground truth.

    Args:
        folder: of XML files whose objects have scores. images: ids by name without suffix. classes: ids by name.
        argument: what the user calls the folder.
    Raises:
        UserError: files that do not fit, with file and line.
    """
    files = _xml_files(folder, argument)
    if absent := [name for name in files if name not in images]:
        raise unknown_images(absent, argument, folder)
    rows = Rows()
    for name, file in files.items():
        _add_objects(file, _parse(file, argument), images[name], classes, rows, scored=True)
    return rows.columns(argument)


def _add_objects(file: Path, one: _File, image: int, classes: dict[str, int], rows: Rows, scored: bool) -> None:
    for line, found in one.objects:
        name = found.get("name", (line, ""))
        if name[1] not in classes:
            known = "the other files' or --classes" if not scored else "the ground truth's"
            what = f"class {name[1]!r}: allowed are {known} classes" if name[1] else "an object without name"
            rows.problems.append((file, name[0], what))
            continue
        wanted = [*CORNERS] + [next((s for s in SCORES if s in found), SCORES[0])] * scored
        values = []
        for key in wanted:
            at, text = found.get(key, (line, ""))
            value = _number(text)
            if value is None:
                rows.problems.append((file, at, f"{key} {text!r}: must be a number"))
                break
            values.append(value)
        if len(values) < len(wanted):
            continue
        left, top, right, bottom = values[:4]
        if right < left or bottom < top:
            rows.problems.append((file, line, f"box {left:g} {top:g} {right:g} {bottom:g}: min is above max"))
            continue
        rows.image.append(image)
        rows.category.append(classes[name[1]])
        rows.box.append((left - 1, top - 1, right - left + 1, bottom - top + 1))
        rows.segmentation.append(None)
        rows.crowd.append(not scored and found.get("difficult", (0, "0"))[1] == "1")
        rows.score += values[4:]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _size(one: _File, file: Path, name: str, pictures: Path | None, argument: str) -> tuple[int, int]:
    """Width and height, from the file or from the image; 0 where neither has them."""
    sides = [_number(one.image.get(f"size/{side}", "")) or 0 for side in ("width", "height")]
    if not all(1 <= side < 2**31 for side in sides) and pictures and (pictures / Path(name).name).is_file():
        return picture_size(pictures / Path(name).name, f"{argument} {file}: image")
    return (int(sides[0]), int(sides[1])) if all(1 <= side < 2**31 for side in sides) else (0, 0)


def _xml_files(path: Path, argument: str) -> dict[str, Path]:
    if path.is_dir():
        return by_stem(path.glob("*.xml"), argument)
    if path.suffix.lower() == ".xml":
        raise UserError(f"{argument} {path}: one file; name the folder of the .xml files")
    folder = path.parent.parent.parent / "Annotations"
    names = [line.split()[0] for line in text_of(path, argument).splitlines() if line.split()]
    files = {Path(name).name: folder / f"{Path(name).name}.xml" for name in names}
    if absent := [file for file in files.values() if not file.is_file()]:
        raise UserError(f"{argument} {path}: no file {absent[0]} ({len(absent)} of {len(files)} are missing)")
    return files


def _parse(path: Path, argument: str) -> _File:
    """The texts of one file; entities of its own, which can grow without limit, are refused."""
    found = _File()
    stack: list[str] = []
    text: list[str] = []
    parser = expat.ParserCreate()

    def start(name: str, _: dict[str, str]) -> None:
        stack.append(name)
        text.clear()
        if len(stack) > DEEPEST:
            raise _refused("elements are nested too deep")
        if stack[1:] == ["object"]:
            found.objects.append((parser.CurrentLineNumber, {}))

    def end(_: str) -> None:
        value, key = "".join(text).strip(), "/".join(stack[1:])
        if key.startswith("object/") and found.objects:
            found.objects[-1][1].setdefault(key[len("object/") :], (parser.CurrentLineNumber, value))
        else:
            found.image.setdefault(key, value)
        stack.pop()
        text.clear()

    def _refused(what: str) -> UserError:
        return UserError(f"{argument} {path}, line {parser.CurrentLineNumber}: {what}")

    def entity(*_: Any) -> None:
        raise _refused("an entity is declared; labels need none")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text.append
    parser.EntityDeclHandler = entity
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{argument} {path}: {path.stat().st_size:,} bytes; too large for labels of one image")
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise UserError(f"{argument} {path}, line {error.lineno}: not XML ({expat.ErrorString(error.code)})") from None
    except OSError as error:
        raise UserError(f"{argument} {path}: cannot be read ({error.strerror})") from None
    return found
