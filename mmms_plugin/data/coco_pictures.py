"""The pictures of a COCO annotation file: where they are, whether they can be read, and how large they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from mmms_plugin.coco.formats import SUFFIXES, TURNED
from mmms_plugin.coco.mending import as_side, slack
from mmms_plugin.coco.picture_files import MAX_PIXELS
from mmms_plugin.data.coco_file import CocoFile, Record, last_part
from mmms_plugin.data.pictures import Picture, look_at_all, note_picture
from mmms_plugin.files import composed, is_hidden


def place_pictures(
    coco: CocoFile, folders: Sequence[Path], *, decode: bool = False, read: bool = True, follow_outside: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> None:  # fmt: skip
    """Find the folder of the pictures and look at all of them; sets ``image_dir``, file names, widths and heights.

    Args:
        coco: the annotation file.
        folders: where the pictures may be, the likeliest first.
        decode: read every pixel, not only headers.
        read: open the pictures; else only their presence is checked.
        follow_outside: follow names that are absolute or leave the folder with ``..``, as in a config of the user's.
        max_pixels: of a picture; larger ones are a problem.
    """
    named = [image for image in coco.images if image["file_name"]]
    if not follow_outside:
        _keep_inside(coco, named)
    coco.image_dir, by_last_part = _find_folder(folders, [image["file_name"] for image in named])
    if by_last_part:
        _use_last_parts(coco, named)
    spellings = spellings_below(coco.image_dir, (image["file_name"] for image in named))
    for image in named:
        name = image["file_name"]
        if (spelling := spellings.get(name, name)) != name:
            coco.mend("file-name-spelling", name)
            image["file_name"] = spelling
    if read:
        paths = [coco.image_dir / image["file_name"] for image in named]
        pictures = look_at_all(paths, f"looking at the pictures of {coco.path.name}", decode, max_pixels)
    else:
        present = set(spellings.values())
        pictures = [Picture("" if image["file_name"] in present else "picture-missing") for image in named]
    for image, picture in zip(named, pictures, strict=True):
        missing = f" not in {coco.image_dir}" if picture.problem == "picture-missing" else ""
        note_picture(coco.findings, f"{image['file_name']}{missing}", picture)
    of_named = iter(pictures)
    coco.pictures = [next(of_named) if image["file_name"] else Picture() for image in coco.images]
    _compare_sizes(coco)


def _keep_inside(coco: CocoFile, images: list[Record]) -> None:
    for image in images:
        name = image["file_name"]
        absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "://" in name
        if absolute or ".." in PurePosixPath(name).parts:
            coco.mend("file-name-outside", name)
            image["file_name"] = last_part(name)


def _find_folder(folders: Sequence[Path], names: list[str]) -> tuple[Path, bool]:
    """The first folder with all files, else the one with most; and whether only the last parts of the names fit."""
    best, most, last_parts = folders[0], 0, False
    for by_last_part in (False, True):
        wanted = [PurePosixPath(name).name for name in names] if by_last_part else names
        for folder in folders:
            count = len(spellings_below(folder, wanted)) if folder.is_dir() else 0
            if count == len(set(wanted)):
                return folder, by_last_part
            if count > most:
                best, most, last_parts = folder, count, by_last_part
    return best, last_parts


def spellings_below(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Those of ``names`` that exist, each with the spelling of its file.

    Accented letters may be spelled otherwise (see `composed`). Each sub-folder is listed once, which is fast for
    100,000 pictures.
    """

    @cache
    def entries(parent: str) -> tuple[str, dict[str, str]]:
        """The spelling of a sub-folder, and its entries by their names and by their composed names."""
        # os.path, for pathlib raises an error for names that are too long
        spelling = parent if not parent or os.path.isdir(folder / parent) else spelled(parent)
        if spelling is None or not os.path.isdir(folder / spelling):
            return parent, {}
        inside = os.listdir(folder / spelling)
        return spelling, {composed(entry): entry for entry in inside} | {entry: entry for entry in inside}

    def spelled(name: str) -> str | None:
        parent, last = os.path.split(name)
        if not last:
            return None
        spelling, inside = entries(parent)
        entry = inside.get(last) or inside.get(composed(last))
        if spelling == parent and entry == last:
            return name
        return None if entry is None else f"{spelling}/{entry}" if spelling else entry

    spellings = {name: spelled(name) for name in names}
    return {name: spelling for name, spelling in spellings.items() if spelling is not None}


def _use_last_parts(coco: CocoFile, images: list[Record]) -> None:
    counts = Counter(PurePosixPath(name).name for name in {image["file_name"] for image in images})
    for image in images:
        last = PurePosixPath(image["file_name"]).name
        if last == image["file_name"]:
            continue
        if counts[last] > 1:
            coco.findings.add("file-name-ambiguous", image["file_name"])
        else:
            coco.mend("file-name-elsewhere", image["file_name"])
            image["file_name"] = last


def _compare_sizes(coco: CocoFile) -> None:
    """Take the width and height of every image from its picture, and note where the file states others."""
    farthest: dict[int, tuple[float, float]] = {}  # lower right corner of all boxes of an image
    for record in coco.boxed:
        x, y, width, height = record["bbox"]
        right, bottom = farthest.get(record["image_id"], (0, 0))
        farthest[record["image_id"]] = max(right, x + width), max(bottom, y + height)
    for image, picture in zip(coco.images, coco.pictures, strict=True):
        stated = as_side(image.get("width")), as_side(image.get("height"))
        name = image["file_name"]
        if 0 in picture.size:  # noted already
            continue
        if stated == picture.size:
            if picture.orientation > 1:
                coco.findings.add("picture-exif", name)
            continue
        corner = farthest.get(image["id"], (0.0, 0.0))
        boxes_fit = all(far <= side + slack(side) for far, side in zip(corner, picture.size, strict=True))
        shown = f"{name}: {stated[0]} x {stated[1]}, the picture {picture.size[0]} x {picture.size[1]}"
        if 0 in stated:
            coco.mend("image-size", name)
        elif picture.orientation in TURNED and stated == picture.stored_size:
            coco.findings.add("picture-rotated", shown)
            continue
        elif _scaled(stated, picture.size) or not boxes_fit:
            coco.findings.add("image-size-scaled", shown)
            continue
        else:
            coco.mend("image-size-wrong", shown)
        image["width"], image["height"] = picture.size


def _scaled(stated: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether one of two different sizes is the other, enlarged: the same aspect ratio to a pixel's precision."""
    factor = size[0] / stated[0]
    return abs(stated[1] * factor - size[1]) <= max(1.0, factor)


def unlisted(coco: CocoFile, others: Sequence[CocoFile]) -> list[str]:
    """Pictures beside those of an annotation file, in the same folders, that neither it nor the others list."""
    root = coco.image_dir or Path()
    listed = {image["file_name"] for other in (coco, *others) if other.image_dir == root for image in other.images}
    folders = {os.path.dirname(image["file_name"]) for image in coco.images}
    beside = (
        os.path.join(folder, name)
        for folder in sorted(folders)
        if os.path.isdir(root / folder)
        for name in sorted(os.listdir(root / folder))
    )
    return [
        name
        for name in beside
        if name not in listed and name.lower().endswith(SUFFIXES) and not is_hidden(os.path.basename(name))
    ]
