"""YOLO's text files: one file per image, one line per object.

``class x y width height`` with the box's centre and sides as shares of the image's, or ``class x1 y1 x2 y2 ...`` for a
polygon; predictions have a confidence at the end. As Ultralytics reads them and writes them with ``save_txt`` and
``save_conf`` (https://docs.ultralytics.com/datasets/detect/, .../segment/).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmms_plugin.coco.formats import (
    Labels,
    Rows,
    Source,
    by_stem,
    class_names,
    files_below,
    paired,
    picture_size,
    pictures_in,
    records,
    refuse_two_files,
    unknown_images,
)
from mmms_plugin.coco.records import SHOWN, Columns
from mmms_plugin.coco.references import ImageNames
from mmms_plugin.coco.text_files import lines_of, text_of
from mmms_plugin.errors import UserError, shown

FARTHEST = 4  # larger numbers, far outside the image, are not shares
UNNAMED = 10_000  # classes; each takes time and a row in every table
SPLITS = ("train", "val", "test")  # keys of a YAML file
OTHER_TEXTS = ("classes.txt", "labels.txt")  # beside the labels
BESIDE = ("classes.txt", "../classes.txt", "../data.yaml", "../../data.yaml")


def read_yolo_truth(path: Path, source: Source, argument: str) -> Labels:
    """Images, categories and objects of a labels folder or of a data set's YAML file.

    Args:
        path: folder of ``.txt`` files, or YAML with ``path``, ``train``, ``val``, ``test`` (folders of images, or lists
            of them in ``.txt`` files) and ``names``.
        source: by default, ``labels`` in the path of the labels becomes ``images`` in that of the pictures, and names
            come from ``classes.txt`` or ``data.yaml`` near the labels.
        argument: the option that names the path, for messages.

    Raises:
        UserError: a line, an image or a class that does not fit, with file and line.
    """
    if path.is_dir():
        if not any(path.iterdir()):
            raise UserError(f"{argument} {path}: the folder is empty")
        root = source.pictures or _exchanged(path, "labels", "images")
        if not root.is_dir():
            raise UserError(
                f"{argument} {path}: the images, whose sizes are needed, are not in {root}: "
                "name their folder with --images DIR"
            )
        labels, files = paired(_label_files(path), pictures_in(root), path, root, argument)
    else:
        pictures = listed_pictures(path, source.split, argument)
        root = _common_folder(pictures, path, argument)
        _, files = paired((), pictures, root, root, argument)
        beside = {stem: label_of(file) for stem, file in files.items()}
        labels = {stem: label for stem, label in beside.items() if os.path.isfile(label)}
        if files and not labels:
            raise UserError(f"{argument} {path}: no labels: {next(iter(beside.values()))} and all others are missing")
    if unpaired := [name for name in labels if name not in files]:
        raise UserError(f"{argument} {labels[unpaired[0]]}: no image of that name in {root} ({len(unpaired)} lack one)")
    sizes = [picture_size(file, argument, source.tolerant) for file in files.values()]
    names, whose = [], "; for more, name them with --classes FILE"
    near = next((path / name for name in BESIDE if (path / name).is_file()), None) if path.is_dir() else path
    if naming := source.classes or near:
        names = class_names(naming, source.naming if source.classes else argument)
        whose = f", the classes of {naming}"
    rows = Rows(argument)
    for i, (name, size) in enumerate(zip(files, sizes, strict=True), 1):
        if name in labels:
            _read_lines(labels[name], i, size, rows, argument, len(names) or UNNAMED, whose)
    names = names or [str(i) for i in range(1 + max(rows.category, default=-1))]
    below = [file.relative_to(root).as_posix() for file in files.values()]
    return Labels(*records(below, sizes, list(enumerate(names))), rows.columns(), root)


def read_yolo_detections(
    folder: Path, images: ImageNames, sizes: dict[int, tuple[int, int]], names: Sequence[str], ids: np.ndarray,
    whose: str, argument: str,
) -> Columns:  # fmt: skip
    """Predictions in a folder of text files, with the ids of the ground truth.

    Args:
        folder: with a ``.txt`` file for every image that has predictions.
        images: of the ground truth.
        sizes: width and height in px by id.
        names: of the classes 0, 1, ...
        ids: of the same classes in the ground truth, -1 for those that it does not have.
        whose: classes they are, for messages.
        argument: the option that names the folder, for messages.

    Raises:
        UserError: a line or name that does not fit.
    """
    files = by_stem(_label_files(folder), argument)
    found = {name: images.find(name) for name in files}
    if absent := [name for name, image in found.items() if image is None]:
        raise unknown_images(absent, argument, folder)
    refuse_two_files(found, argument, folder)
    rows = Rows(argument)
    for name, file in files.items():
        image = found[name] or 0
        if not all(sizes[image]):
            raise UserError(f"{argument} {file}: the ground truth has no size of that image, which shares need")
        _read_lines(file, image, sizes[image], rows, argument, len(ids), f", {whose}", scored=True)
    if unknown := sorted({number for number in rows.category if ids[number] < 0}):
        listed = ", ".join(f"{number} is {shown(names[number])}" for number in unknown[:SHOWN])
        raise UserError(f"{argument} {folder}: class {listed}, which the ground truth does not have")
    rows.category = ids[rows.category].tolist() if rows.category else []
    return rows.columns()


def _read_lines(
    path: Path, image: int, size: tuple[int, int], rows: Rows, argument: str, classes: int, whose: str,
    scored: bool = False,
) -> None:  # fmt: skip
    for number, line in enumerate(text_of(path, argument).splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        try:
            values = list(map(float, parts))
        except ValueError:
            values = []
        if wrong := _wrong(values, parts, classes, scored, whose):
            rows.refuse(path, number, wrong)
            continue
        score = values.pop() if scored else None
        rows.add(image, int(values[0]), *_in_pixels(values[1:], size), score)


def _wrong(values: list[float], parts: list[str], classes: int, scored: bool, whose: str) -> str:
    """What is wrong with a line, in words; empty if nothing is. ``whose`` the ``classes`` are, is added."""
    wanted = f"class x y width height{' confidence' if scored else ''} as shares of the image, or class and a polygon"
    if not values or not all(map(math.isfinite, values)):
        return f"{shown(' '.join(parts))} are not numbers; expected are {wanted}"
    if not 0 <= values[0] < classes or values[0] != int(values[0]):
        last = values[0] != int(values[0]) and len(values) > 4 and values[-1] in range(classes)
        hint = f"; is {parts[-1][:20]}, at the end, the class?" if last else ""
        hint = "; do the numbers count from 1?" if values[0] == classes else hint
        return f"class {parts[0][:20]}: must be an integer from 0 to {classes - 1}{whose}{hint}"
    count = len(values) - 1 - scored
    if count != 4 and (count < 6 or count % 2):
        lacks = "; is the confidence missing (save_conf=True)?" if scored and count in (3, *range(5, 10**4, 2)) else ""
        return f"{len(values)} numbers; expected are {wanted}{lacks}"
    shares = values[1 : 1 + count]
    if max(map(abs, shares)) > FARTHEST:
        return f"{max(shares, key=abs):g} is not a share of the image (0 to 1); are these pixels? Expected are {wanted}"
    return f"negative width or height; expected are {wanted}" if count == 4 and min(shares[2:]) < 0 else ""


def _in_pixels(shares: Sequence[float], size: tuple[int, int]) -> tuple[tuple[float, ...], list[list[float]] | None]:
    """The box x y width height in px, and the polygon, None for a plain box."""
    width, height = size
    if len(shares) == 4:
        x, y, w, h = shares
        return ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height), None
    xs, ys = [x * width for x in shares[::2]], [y * height for y in shares[1::2]]
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    return box, [[value for point in zip(xs, ys, strict=True) for value in point]]


def _label_files(folder: Path) -> list[Path]:
    return [path for path in files_below(folder, (".txt",)) if path.name not in OTHER_TEXTS]


def listed_splits(path: Path, argument: str) -> list[str]:
    """The splits that a YAML file names pictures for."""
    from mmms_plugin.coco.yaml_files import yaml_of  # whose import takes a while

    return [split for split in SPLITS if yaml_of(path, argument).get(split)]


def listed_pictures(path: Path, split: str, argument: str) -> list[Path]:
    """Absolute paths of the pictures of a split in a YAML file: of folders, and of lists of paths.

    Relative paths in a list begin at the list's folder.
    """
    from mmms_plugin.coco.yaml_files import yaml_of

    content = yaml_of(path, argument)
    listed, given = content.get(split), content.get("path") or ""
    if not isinstance(given, str):
        raise UserError(f"{argument} {path}: path {shown(given)}: must be a folder")
    if content.get("kpt_shape"):
        raise UserError(f"{argument} {path}: kpt_shape: these labels are keypoints; allowed are boxes and polygons")
    root = path.parent / given
    if not os.path.isdir(root):  # of the computer that wrote the file
        root = path.parent
    pictures: list[Path] = []
    for name in listed if isinstance(listed, list) else [listed]:
        source = root / name if isinstance(name, str) else root
        if isinstance(name, str) and name.startswith("../") and not os.path.exists(source):
            source = root / name[3:]  # as Ultralytics reads Roboflow's exports
        if not isinstance(name, str) or not (os.path.isdir(source) or _is_list(source)):
            raise UserError(f"{argument} {path}: {split} {shown(name)}: no folder or .txt list of images in {root}")
        if _is_list(source):
            pictures += [source.parent / line for line in lines_of(source, argument)]
        elif source.resolve().parent == source.resolve():
            raise UserError(f"{argument} {path}: {split} {shown(name)}: must be a folder of images, not a whole disk")
        else:
            pictures += pictures_in(source)
    return [Path(os.path.abspath(picture)) for picture in pictures]


def _common_folder(pictures: Sequence[Path], path: Path, argument: str) -> Path:
    """The folder that all pictures are below.

    Raises:
        UserError: they lie on several drives, of Windows.
    """
    try:
        return Path(os.path.commonpath([picture.parent for picture in pictures])) if pictures else path.parent
    except ValueError:
        raise UserError(f"{argument} {path}: pictures lie on several drives; move them to one") from None


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and os.path.isfile(path)  # pathlib's raises for names of 300 characters


def label_of(picture: Path) -> Path:
    """The label file of a picture that a YAML file names, by the last ``images`` in its path."""
    return _exchanged(picture.parent, "images", "labels") / f"{picture.stem}.txt"


def _exchanged(path: Path, part: str, other: str) -> Path:
    """The path with its last folder called ``part`` called ``other``."""
    parts = list(path.parts)
    for i in reversed(range(len(parts))):
        if parts[i] == part:
            return Path(*parts[:i], other, *parts[i + 1 :])
    return path.parent / other
