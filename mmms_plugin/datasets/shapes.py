"""The generated multi-scale data set on disk: COCO, VOC and ImageFolder views of the same pictures.

Layout: all views share one folder, which is the root of each::

    shapes.json                                  settings and counts
    preview.png                                  the first training pictures with their masks outlined
    annotations/instances_{train,val}.json       COCO; masks as RLE, since a ring has a hole
    images/{train,val}_000000.png                COCO
    JPEGImages/*.jpg, SegmentationClass/*.png    VOC; 0 background, 255 where an edge mixes two things
    ImageSets/Segmentation/{train,val}.txt       VOC
    labels.txt                                   VOC; class names, background first
    {train,val}/<class>/*.png                    ImageFolder; square crops around single objects
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmms_plugin.datasets import FORMATS, ShapeSettings
from mmms_plugin.datasets.shape_pictures import CLASSES, SPLITS, Picture, draw_picture
from mmms_plugin.errors import UserError
from mmms_plugin.files import replace, unfinished

VERSION = 1  # raise it with every change to a picture or a file
_SETTINGS_FILE = "shapes.json"
_VAL_ID = 1_000_000  # first id of validation pictures, so that the splits share none
_PNG: dict[str, Any] = {
    "compress_level": 1,
    "compress_type": 3,
}  # zlib's run-length strategy: grain has no repeats worth a search
_BINS = (("small", 32**2), ("medium", 96**2), ("large", 10**10))  # area in px, as COCO has them

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class ShapesWritten:
    """A data set on disk: object counts are ``objects[split][bin]``; ``reused`` if it existed already."""

    root: Path
    settings: ShapeSettings
    objects: dict[str, dict[str, int]]
    reused: bool


def write_shapes(
    out_dir: str | Path,
    train: int = ShapeSettings.train,
    val: int = ShapeSettings.val,
    size: int = ShapeSettings.size,
    seed: int = ShapeSettings.seed,
    formats: str | Sequence[str] = "all",
    crowds: bool = False,
    large: bool = False,
    small: bool = False,
    colours: bool = False,
    progress: Report | None = None,
) -> ShapesWritten:
    """Write the data set to ``out_dir``, whole or not at all; a data set of the same settings is left as it is.

    Args:
        out_dir: a new or an empty folder, or one that holds the same data set.
        train: number of training pictures; the first n are the same in a larger set.
        val: number of validation pictures; as ``train``.
        size: width and height of the pictures in px.
        seed: of everything random.
        formats: 'all' or some of 'coco', 'voc', 'imagefolder'.
        crowds: in crowded pictures, make the objects of one class one region with ``iscrowd`` 1 (COCO view only).
        large: draw large objects only, one or two per picture.
        small: draw small objects only, many per picture.
        colours: give each class colours of its own, which networks learn sooner than shapes.
        progress: called with the number of pictures written and of all.

    Raises:
        ValueError: settings out of range.
        UserError: ``out_dir`` holds something else, is the current folder, or cannot be written.
    """
    wanted = FORMATS if formats == "all" else (formats,) if isinstance(formats, str) else tuple(formats)
    settings = ShapeSettings(train, val, size, seed, wanted, crowds, large, small, colours)
    root = Path(out_dir).resolve()
    try:
        return _reuse(root, settings) or _write_whole(root, settings, progress or (lambda done, total: None))
    except OSError as error:
        raise UserError(f"cannot write {root}: {error}; name a folder that can be written") from error


def _write_whole(root: Path, settings: ShapeSettings, progress: Report) -> ShapesWritten:
    """Write beside ``root``, then rename; whatever stops the work, nothing stays behind."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(root.parent) as place:
        partial = place / root.name
        partial.mkdir()
        objects = _write_all(partial, settings, progress)
        if root.exists():
            root.rmdir()  # it is empty; rename replaces an empty folder on POSIX only
        replace(partial, root)
    return ShapesWritten(root, settings, objects, reused=False)


def _reuse(root: Path, settings: ShapeSettings) -> ShapesWritten | None:
    """The data set that the folder holds, None if it is empty or absent. Raises UserError if it holds another one."""
    if not root.exists():
        return None
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; name a new or an empty one")
    if root == Path.cwd():
        raise UserError(f"{root} is the current folder; name a new one")
    if not any(root.iterdir()):
        return None
    try:
        note = json.loads((root / _SETTINGS_FILE).read_text(encoding="utf-8"))
        noted = {"large": False, "small": False, "colours": False, **note["settings"]}  # older data sets lack them
        present = {key: noted[key] for key in (*asdict(settings), "version")}
        objects, files = note["objects"], int(note["files"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{root} is not empty and not a shapes data set; name a new or an empty folder") from None
    asked = _plain(settings)
    if present != asked:
        differing = ", ".join(f"{key} {present[key]}, not {asked[key]}" for key in asked if present[key] != asked[key])
        raise UserError(f"{root} holds a shapes data set with other settings ({differing}); name another folder")
    if sum(len(names) for _, _, names in os.walk(root)) < files:
        raise UserError(f"{root} holds this shapes data set with files missing; delete it or name another folder")
    return ShapesWritten(root, settings, objects, reused=True)


def _plain(settings: ShapeSettings) -> dict[str, Any]:
    return {**asdict(settings), "formats": list(settings.formats), "version": VERSION}


def _write_all(folder: Path, settings: ShapeSettings, progress: Report) -> dict[str, dict[str, int]]:
    counts = {"train": settings.train, "val": settings.val}
    objects: dict[str, dict[str, int]] = {}
    shown: list[Picture] = []
    _make_folders(folder, settings.formats)
    done = 0
    for split in SPLITS:
        names = [f"{split}_{index:06d}" for index in range(counts[split])]
        annotations: list[dict[str, Any]] = []
        areas: list[int] = []
        for index, name in enumerate(names):
            picture = draw_picture(
                settings.seed, split, index, settings.size, settings.large, settings.small, settings.colours
            )
            areas += np.bincount(picture.ids.ravel(), minlength=len(picture.labels) + 1)[1:].tolist()
            if "coco" in settings.formats:
                Image.fromarray(picture.image).save(folder / "images" / f"{name}.png", **_PNG)
                annotations += _coco_annotations(picture, _image_id(split, index), settings.crowds)
            if "voc" in settings.formats:
                _write_voc(folder, name, picture)
            if "imagefolder" in settings.formats:
                _write_crops(folder / split, name, picture)
            if len(shown) < 16:
                shown.append(picture)
            done += 1
            progress(done, sum(counts.values()))
        _write_lists(folder, settings, split, names, annotations)
        objects[split] = _count_by_bin(areas)
    Image.fromarray(contact_sheet(shown)).save(folder / "preview.png")
    files = 1 + sum(len(names) for _, _, names in os.walk(folder))
    note = {"settings": _plain(settings), "classes": CLASSES, "objects": objects, "files": files}
    _write_json(folder / _SETTINGS_FILE, note, indent=1)
    return objects


def _make_folders(folder: Path, formats: Sequence[str]) -> None:
    wanted = {
        "coco": ["annotations", "images"],
        "voc": ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"],
        # every class has its folder in both splits, so that class numbers by sorted folder name agree
        "imagefolder": [f"{split}/{name}" for split in SPLITS for name in CLASSES],
    }
    for name in (name for view in formats for name in wanted[view]):
        (folder / name).mkdir(parents=True)


def _count_by_bin(areas: Sequence[int]) -> dict[str, int]:
    lower = (0, *(edge for _, edge in _BINS))
    return {name: sum(low <= a < edge for a in areas) for low, (name, edge) in zip(lower, _BINS, strict=False)}


def _write_lists(
    folder: Path, settings: ShapeSettings, split: str, names: list[str], annotations: list[dict[str, Any]]
) -> None:
    if "coco" in settings.formats:
        size = {"width": settings.size, "height": settings.size}
        images = [{"id": _image_id(split, k), "file_name": f"{name}.png", **size} for k, name in enumerate(names)]
        categories = [{"id": k + 1, "name": name, "supercategory": "shape"} for k, name in enumerate(CLASSES)]
        info = {"description": "generated multi-scale shapes", "version": str(VERSION), "split": split}
        content = {"info": info, "licenses": [], "categories": categories, "images": images, "annotations": annotations}
        _write_json(folder / "annotations" / f"instances_{split}.json", content)
    if "voc" in settings.formats:
        _write_text(folder / "ImageSets" / "Segmentation" / f"{split}.txt", names)
        _write_text(folder / "labels.txt", ["background", *CLASSES])


def _write_json(path: Path, content: dict[str, Any], indent: int | None = None) -> None:
    separators = None if indent else (",", ":")
    _write_text(path, [json.dumps(content, indent=indent, separators=separators)])


def _write_text(path: Path, lines: Sequence[str]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def _image_id(split: str, index: int) -> int:
    return index + 1 + (_VAL_ID if split == "val" else 0)


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Tight (left, top, width, height) of a mask in px."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def _coco_annotations(picture: Picture, image_id: int, crowds: bool) -> list[dict[str, Any]]:
    """COCO annotations of a picture: visible masks, areas and boxes exact, ids unique over both splits."""
    from pycocotools import mask as mask_utils

    groups = [[k + 1] for k in range(len(picture.labels))]
    if crowds and picture.scene == "crowded" and picture.labels:
        first = picture.labels[0]
        crowd = [k + 1 for k, label in enumerate(picture.labels) if label == first]
        groups = [crowd] + [[k + 1] for k, label in enumerate(picture.labels) if label != first]
    annotations = []
    for number, group in enumerate(groups):
        mask = np.logical_or.reduce([picture.ids == k for k in group])
        rle = mask_utils.encode(np.asfortranarray(mask, np.uint8))
        annotation = {
            "id": image_id * 100 + number,
            "image_id": image_id,
            "category_id": picture.labels[group[0] - 1] + 1,
            "segmentation": {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")},
            "area": int(mask.sum()),
            "bbox": list(_box(mask)),
            "iscrowd": int(len(group) > 1),
        }
        annotations.append(annotation)
    return annotations


def _voc_palette() -> list[int]:
    """VOC's colours of labels 0 to 255: the bits of a label go in turn to red, green and blue."""
    colours = []
    for label in range(256):
        for channel in range(3):
            colours.append(sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)))
    return colours


_PALETTE = _voc_palette()


def _write_voc(folder: Path, name: str, picture: Picture) -> None:
    classes = np.array([0, *(label + 1 for label in picture.labels)], np.uint8)
    labels = Image.fromarray(np.where(picture.void, np.uint8(255), classes[picture.ids]))
    labels.putpalette(_PALETTE)
    labels.save(folder / "SegmentationClass" / f"{name}.png")
    Image.fromarray(picture.image).save(folder / "JPEGImages" / f"{name}.jpg", quality=95, subsampling=0)


def _write_crops(folder: Path, name: str, picture: Picture) -> None:
    """One square crop per object, with a margin, inside the picture; neighbours may show at its edges."""
    height, width = picture.ids.shape
    for k, label in enumerate(picture.labels):
        left, top, w, h = _box(picture.ids == k + 1)
        side = min(max(16, -(-max(w, h) * 5 // 4)), height, width)
        x = min(max(0, left + w // 2 - side // 2), width - side)
        y = min(max(0, top + h // 2 - side // 2), height - side)
        crop = np.ascontiguousarray(picture.image[y : y + side, x : x + side])
        Image.fromarray(crop).save(folder / CLASSES[label] / f"{name}_{k:02d}.png", **_PNG)


def contact_sheet(pictures: Sequence[Picture], columns: int = 4, gap: int = 6) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: each picture beside a tinted copy that shows its masks, ``columns`` such pairs in a row."""
    size = pictures[0].ids.shape[0]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (size + gap) + gap, columns * (2 * size + gap) + gap, 3), 255, np.uint8)
    palette = np.array(_PALETTE, np.float64).reshape(-1, 3)
    for k, picture in enumerate(pictures):
        top, left = gap + k // columns * (size + gap), gap + k % columns * (2 * size + gap)
        sheet[top : top + size, left : left + size] = picture.image
        colours = palette[np.array([0, *(label + 1 for label in picture.labels)])][picture.ids]
        grey = picture.image.mean(axis=2, keepdims=True)
        tinted = np.where(picture.ids[..., None] > 0, 0.25 * grey + 0.75 * colours, 0.5 * grey + 120.0)
        edges = np.zeros(picture.ids.shape, np.bool_)
        edges[:, 1:] |= picture.ids[:, 1:] != picture.ids[:, :-1]
        edges[1:] |= picture.ids[1:] != picture.ids[:-1]
        tinted[edges] = 255.0
        sheet[top : top + size, left + size : left + 2 * size] = np.clip(tinted, 0, 255).astype(np.uint8)
    return sheet
