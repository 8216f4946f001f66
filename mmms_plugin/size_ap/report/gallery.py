"""The gallery of the report: crops of failures in few large pictures, and what the page's script needs to show them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import GroundTruth
from mmms_plugin.errors import printable
from mmms_plugin.report.sheets import pack, safe_json
from mmms_plugin.size_ap.report.failures import Failures
from mmms_plugin.size_ap.report.tables import size_label
from mmms_plugin.size_ap.results import ERROR_TYPES, Bin

TILE, ACROSS, DOWN = 120, 16, 8  # px of a crop, and crops of a sheet
SMALLEST, MARGIN = 32, 0.35  # of the region shown: px, and share of the boxes' longer side on each side
OUTSIDE = (128, 128, 128)  # of the picture
Window = tuple[float, float, float]  # left, top, side in px


@dataclass(frozen=True)
class Gallery:
    """What the page holds: JSON that is safe inside of HTML, sheets of crops as base64 JPEG, and a remark."""

    data: str
    sheets: tuple[str, ...]
    remark: str


def make_gallery(
    truth: GroundTruth, runs: Sequence[tuple[str, Failures]], bins: Sequence[Bin], pictures: Path | None
) -> Gallery:
    """Crops and facts of every run's failures.

    Args:
        truth: with names of files, without which there are no crops. runs: name and failures.
        bins: of the evaluation. pictures: folder of the images; None shows boxes alone.
    """
    items = [_item(truth, r, failures, i) for r, (_, failures) in enumerate(runs) for i in range(len(failures))]
    images = {place: i for i, place in enumerate(sorted({item["image"] for item in items}))}
    tiles = _tiles(truth, items, pictures)
    order = np.argsort(truth.category_ids)
    shown = "; ".join(f"{name}: {len(f):,} of {f.total:,}" for name, f in runs)
    missing = sum(tile is None for tile in tiles)
    remark = f"Failures shown, those with the highest scores of every size and type first: {shown}."
    if pictures and missing:
        remark += f" {missing:,} have no picture in the folder that was given, and are shown as boxes alone."
    for number, item in enumerate(items):
        item["image"] = images[item["image"]]
        item["tile"] = number if tiles[number] is not None else -1
    data = {
        "runs": [name for name, _ in runs],
        "kinds": ERROR_TYPES,
        "bins": [{"name": one.name, "size": size_label(one)} for one in bins],
        "classes": [truth.category_names[i] for i in order],
        "images": [_name(truth, place) for place in images],
        "items": items,
        "sheet": {"tile": TILE, "across": ACROSS, "down": DOWN},
    }
    sheets = pack(tiles, TILE, ACROSS, DOWN) if len(tiles) > missing else ()
    return Gallery(safe_json(data), sheets, remark)


def _item(truth: GroundTruth, run: int, failures: Failures, i: int) -> dict[str, Any]:
    box, object_box = _box(failures.box[i]), _box(failures.object_box[i])
    return {
        "run": run,
        "kind": int(failures.kind[i]),
        "bins": np.flatnonzero(failures.in_bin[:, i]).tolist(),
        "image": int(failures.image[i]),
        "class": int(failures.category[i]),
        "objectClass": int(failures.object_category[i]),
        "score": _number(failures.score[i], 4),
        "iou": _number(failures.iou[i], 3),
        "box": box,
        "object": object_box,
        "window": window([one for one in (box, object_box) if one], truth.image_sizes[failures.image[i]].tolist()),
    }


def window(boxes: Sequence[Sequence[float]], size: Sequence[int]) -> Window:
    """The square region of a picture that holds all boxes with some room around them, inside of it where it can be.

    Args:
        boxes: x y width height. size: width and height of the picture, 0 where unknown.
    """
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])
    low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
    side = max(SMALLEST, float((high - low).max()) * (1 + 2 * MARGIN))
    middle = (low + high) / 2 - side / 2
    left, top = (at if all_ < side else min(max(at, 0.0), all_ - side) for at, all_ in zip(middle, size, strict=True))
    return round(float(left), 1), round(float(top), 1), round(side, 1)


def _tiles(truth: GroundTruth, items: list[dict[str, Any]], pictures: Path | None) -> list[NDArray[np.uint8] | None]:
    """Every failure's crop, None where its picture cannot be read; each picture is read once."""
    tiles: list[NDArray[np.uint8] | None] = [None] * len(items)
    if pictures is None or not truth.file_names:
        return tiles
    by_image: dict[int, list[int]] = {}
    for number, item in enumerate(items):
        by_image.setdefault(item["image"], []).append(number)

    def crop(place: int) -> None:
        path, size = picture_path(pictures, truth.file_names[place]), tuple(truth.image_sizes[place].tolist())
        windows = [items[number]["window"] for number in by_image[place]]
        for number, tile in zip(by_image[place], _crops(path, size, windows), strict=True):
            tiles[number] = tile

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(crop, by_image))
    return tiles


def picture_path(folder: Path, name: str) -> Path | None:
    """The file of that name in the folder, or of its last part; never one outside the folder."""
    root = folder.resolve()
    for candidate in (root / name, root / Path(name.replace("\\", "/")).name):
        try:
            path = candidate.resolve()
            if path.is_relative_to(root) and path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None


def _crops(path: Path | None, size: tuple[int, ...], windows: Sequence[Window]) -> list[NDArray[np.uint8] | None]:
    from PIL import Image, ImageOps

    if path is None:
        return [None] * len(windows)
    try:
        with Image.open(path) as picture:
            turned = picture.size != size and picture.size[::-1] == size  # annotated as a viewer shows it
            colours = (ImageOps.exif_transpose(picture) if turned else picture).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return [None] * len(windows)
    cut = []
    for left, top, side in windows:
        whole, scale = (0.0, 0.0, float(colours.width), float(colours.height)), TILE / side
        inside = (max(left, whole[0]), max(top, whole[1]), min(left + side, whole[2]), min(top + side, whole[3]))
        tile = Image.new("RGB", (TILE, TILE), OUTSIDE)
        width, height = (round((inside[i + 2] - inside[i]) * scale) for i in (0, 1))
        if min(width, height) > 0:
            part = colours.resize((width, height), Image.Resampling.BILINEAR, inside, reducing_gap=2.0)
            tile.paste(part, (round((inside[0] - left) * scale), round((inside[1] - top) * scale)))
        cut.append(np.asarray(tile))
    return list(cut)


def _name(truth: GroundTruth, place: int) -> str:
    return printable(truth.file_names[place] if truth.file_names else f"image {truth.image_ids[place]}")


def _box(values: NDArray[np.float64]) -> list[float] | None:
    return None if np.isnan(values[0]) else [round(float(value), 1) for value in values]


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None
