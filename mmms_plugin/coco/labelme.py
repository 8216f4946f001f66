"""labelme's JSON files, one per picture: ``imagePath``, ``imageWidth``, ``imageHeight``, and ``shapes`` with ``label``.

Deviations:
1. Shapes of one file that share label and ``group_id`` are one object, as in labelme's own export to COCO.
2. A rectangle is a box without a mask, a circle a polygon of `CORNERS` points. Points and lines are refused: they have
   no area.
3. Pictures embedded in the files (``imageData``) are not read, and a picture is looked for by name only, never by the
   folders that a file states.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmms_plugin.coco.formats import (
    SUFFIXES,
    Labels,
    Rows,
    Source,
    by_stem,
    class_names,
    files_below,
    picture_size,
    pictures_in,
    records,
)
from mmms_plugin.coco.json_files import decode_json
from mmms_plugin.coco.mending import as_side, is_number
from mmms_plugin.coco.picture_files import PictureError, opened_picture
from mmms_plugin.coco.text_files import bytes_of
from mmms_plugin.errors import UserError, shown

WANTED = "a file of labelme's is wanted: a JSON object with shapes and imagePath"
LARGEST = 1 << 28  # bytes of a file, which may hold its picture
FARTHEST = 1e6  # px, as of COCO's polygons
CORNERS = 32  # of a circle
ALLOWED = "polygon, rectangle, circle and mask"
POINTS = {"rectangle": (2, 2), "circle": (2, 2), "mask": (2, 2), "polygon": (3, 10**6)}  # fewest and most
Point = tuple[float, float]
Box = tuple[float, float, float, float]


def read_labelme_truth(path: Path, source: Source, argument: str) -> Labels:
    """Images, categories and objects of a folder of labelme's files.

    Args:
        path: the folder.
        source: its folder of pictures is by default that of the files; without its file of classes, these are in
            alphabetical order.
        argument: the option that names the path, for messages.

    Raises:
        UserError: a file or a shape that does not fit.
    """
    if not path.is_dir():
        raise UserError(f"{argument} {path}: one file; name the folder of labelme's files")
    files, root = by_stem(files_below(path, (".json",)), argument), source.pictures or path
    contents = [_content(file, argument) for file in files.values()]
    by_name = {picture.relative_to(root).as_posix(): picture for picture in reversed(pictures_in(root))}
    by_last = {picture.name: name for name, picture in by_name.items()}
    stems = {picture.stem: name for name, picture in by_name.items()}
    used = {shape["label"] for content in contents for shape in content["shapes"]}
    given = class_names(source.classes, source.naming) if source.classes else sorted(used)
    numbers = {name: i for i, name in enumerate(given, 1)}
    rows, names, sizes = Rows(argument), [], []
    for i, (file, content) in enumerate(zip(files.values(), contents, strict=True), 1):
        stated = PurePosixPath(str(content.get("imagePath") or "").replace("\\", "/")).name
        suffix = Path(stated).suffix if stated.lower().endswith(SUFFIXES) else ".jpg"
        name = by_last.get(stated) or stems.get(file.stem) or f"{file.stem}{suffix}"
        width, height = as_side(content.get("imageWidth")), as_side(content.get("imageHeight"))
        if not (width and height) and name in by_name:
            width, height = picture_size(by_name[name], f"{argument} {file}: picture", source.tolerant)
        names.append(name)
        sizes.append((width, height))
        _add_objects(
            file, content["shapes"], i, numbers, (width, height), rows, f"those of {source.naming} {source.classes}"
        )
    return Labels(*records(names, sizes, [(i, name) for name, i in numbers.items()]), rows.columns(), root)


def _content(file: Path, argument: str) -> dict[str, Any]:
    """A file's content without its picture; its shapes are objects with a label.

    Raises:
        UserError: it is another kind of file.
    """
    where = f"{argument} {file}"
    content = decode_json(bytes_of(file, argument, LARGEST), where, WANTED)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        raise UserError(f"{where}: no list of shapes; {WANTED}")
    for place, shape in enumerate(shapes):
        label = shape.get("label") if isinstance(shape, dict) else None
        if not isinstance(label, str) or not label.strip():
            raise UserError(f"{where}: shapes[{place}].label: {shown(label)}; must be the name of a class")
        shape["label"] = label.strip()
    return {key: content.get(key) for key in ("shapes", "imagePath", "imageWidth", "imageHeight")}


def _add_objects(
    file: Path, shapes: Sequence[Mapping[str, Any]], image: int, numbers: Mapping[str, int], size: tuple[int, int],
    rows: Rows, whose: str,
) -> None:  # fmt: skip
    """Add the objects of a picture: shapes of one label and group together, others alone.

    Labels must be among the ``numbers``, which are ``whose``.
    """
    groups: dict[Any, list[int]] = {}
    for place, shape in enumerate(shapes):
        group = shape.get("group_id")
        alone = not isinstance(group, int | str)
        groups.setdefault((shape["label"], place if alone else str(group), alone), []).append(place)
    for (label, _, _), places in groups.items():
        parts = []
        for place in places:
            part = None
            if label not in numbers:
                problem = f"label {shown(label)}: allowed are {whose}"
            else:
                problem, part = _outline(shapes[place], size)
            if part is None:
                rows.refuse(file, f"shapes[{place}]", problem)
                break
            parts.append(part)
        else:
            box, segmentation = _joined(parts, size)
            rows.add(image, numbers[label], box, segmentation, None)


def _outline(shape: Mapping[str, Any], size: tuple[int, int]) -> tuple[str, tuple[Box, Any] | None]:
    """The box of a shape in px, and its polygon, mask or None; or what is wrong with it."""
    kind = shape.get("shape_type") or "polygon"
    if kind not in POINTS:
        return f"shape_type {shown(kind)}: allowed are {ALLOWED}", None
    points, (least, most) = shape.get("points"), POINTS[kind]
    sound = isinstance(points, list) and all(
        isinstance(point, list) and len(point) == 2 and all(is_number(v) and abs(v) <= FARTHEST for v in point)
        for point in points
    )
    if not sound or not least <= len(points or ()) <= most:
        count = f"{least}" if least == most else f"at least {least}"
        return f"points: a {kind} must have {count} [x, y] in px", None
    corners: list[Point] = [(float(x), float(y)) for x, y in points or ()]
    if kind == "circle":
        (x, y), edge = corners
        radius = math.dist((x, y), edge)
        turns = [2 * math.pi * i / CORNERS for i in range(CORNERS)]
        corners = [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
    xs, ys = zip(*corners, strict=True)
    box = (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    if kind == "mask":
        return _mask(shape.get("mask"), box[:2], size)
    return "", (box, None if kind == "rectangle" else [[value for corner in corners for value in corner]])


def _mask(text: Any, corner: Sequence[float], size: tuple[int, int]) -> tuple[str, tuple[Box, Any] | None]:
    """The box and the run lengths of a mask that a shape has as a PNG picture of its box."""
    width, height = size
    try:
        data: Any = io.BufferedReader(io.BytesIO(base64.b64decode(text, validate=True)))  # type: ignore[arg-type]
        with opened_picture(data, max(1, width * height), decode=True) as picture:
            drawn = np.asarray(picture) > 0
    except (TypeError, ValueError, binascii.Error, PictureError) as error:
        return f"mask: cannot be read ({error}); must be a PNG picture in base64", None
    left, top = (round(value) for value in corner)
    if drawn.ndim != 2 or min(left, top) < 0 or left + drawn.shape[1] > width or top + drawn.shape[0] > height:
        return f"mask: must be a grey picture that lies within the {width} x {height} px of the image", None
    if not drawn.any():
        return "mask: it holds no pixel", None
    from pycocotools import mask as mask_utils

    whole = np.zeros((height, width), np.uint8, order="F")
    whole[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    encoded = mask_utils.encode(whole)
    x, y, w, h = mask_utils.toBbox(encoded).tolist()
    return "", ((x, y, w, h), {"size": [height, width], "counts": encoded["counts"].decode("ascii")})


def _joined(parts: Sequence[tuple[Box, Any]], size: tuple[int, int]) -> tuple[Box, Any]:
    """The box around all parts of an object, and their mask; None if one is a plain box."""
    left, top = min(box[0] for box, _ in parts), min(box[1] for box, _ in parts)
    right, bottom = max(box[0] + box[2] for box, _ in parts), max(box[1] + box[3] for box, _ in parts)
    box, masks = (left, top, right - left, bottom - top), [mask for _, mask in parts]
    if len(masks) == 1 or None in masks:
        return box, masks[0] if len(masks) == 1 else None
    if all(isinstance(mask, list) for mask in masks):
        return box, [polygon for mask in masks for polygon in mask]
    from pycocotools import mask as mask_utils

    from mmms_plugin.coco.rle import to_rles

    rles = to_rles(masks, np.array([size] * len(masks)), "shapes")
    merged = mask_utils.merge(list(rles))
    return box, {"size": list(merged["size"]), "counts": merged["counts"].decode("ascii")}
