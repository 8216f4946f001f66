"""The gallery of single failures of a run: prediction, object, and type of error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmms_plugin.coco.objects import GroundTruth
from mmms_plugin.errors import printable
from mmms_plugin.report.page import OUTSIDE, Gallery, Tile, in_threads, open_picture
from mmms_plugin.size_ap.bins import Bin
from mmms_plugin.size_ap.results import ERROR_TYPES, Failures, Inputs

TILE, ACROSS, DOWN = 120, 16, 8  # px of a crop, and crops of a sheet
SMALLEST, MARGIN = 32, 0.35  # of the region shown: px, and share of the boxes' longer side on each side
ORDERS = (
    dict(key="score", name="score", sign=-1), dict(key="iou", name="IoU", sign=-1),
    dict(key="area", name="size, small first"),
)  # fmt: skip
TABLES = {"bins": dict(row="bin"), "errors": dict(row="bin", column="kind"), "classes": dict(row="class", column="bin")}
Window = tuple[float, float, float]  # left, top, side in px
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def failure_gallery(inputs: Inputs, bins: tuple[Bin, ...], most: int) -> Gallery:
    """At most ``most`` failures of every method; of several seeds, those of the first."""
    names = [m.name if len(m.runs) == 1 else f"{m.name}: {m.runs[0].name}" for m in inputs.methods]
    failures = [of_run.first(most) for of_run in inputs.failures]
    return make_gallery(inputs.truth, [*zip(names, failures, strict=True)], bins, inputs.source.pictures)


def make_gallery(
    truth: GroundTruth,
    runs: Sequence[tuple[str, Failures]],
    bins: Sequence[Bin],
    pictures: Path | None,
    kinds: Sequence[str] = ERROR_TYPES,
    noun: str = "failures",
) -> Gallery:
    """Crops and facts of every run's failures.

    Args:
        truth: ground truth; without file names there are no crops.
        runs: name and failures of each.
        bins: of the evaluation.
        pictures: folder of the images; None shows only boxes.
        kinds: names of the kinds that the failures' ``kind`` counts.
        noun: plural noun for them.
    """
    classes = [truth.category_names[i] for i in np.argsort(truth.category_ids)]
    names = [name for name, _ in runs]
    items = [
        _item(truth, (r, names), failures, i, bins, classes, kinds)
        for r, (_, failures) in enumerate(runs)
        for i in range(len(failures))
    ]
    places = [int(image) for _, failures in runs for image in failures.image]
    tiles = _tiles(truth, places, [item["window"] for item in items], pictures)
    for number, item in enumerate(items):
        item["tile"] = number if tiles[number] is not None else -1
    shown = "; ".join(f"{name}: {len(f):,} of {f.total:,}" for name, f in runs)
    remark = f"Failures shown, chosen by highest score in every size and type: {shown}."
    advice, title = "Click a bin, class or type of error in the tables above, or choose here.", "type of error"
    if noun != "failures":
        remark, advice, title = f"{noun.capitalize()} shown: {shown}.", "Highest score first.", "kind"
    missing = sum(tile is None for tile in tiles)
    if pictures and missing:
        remark += f" {missing:,} have no picture in the given folder that can be read, and are shown as boxes only."
    filters = [
        *([dict(key="run", name="run", values=names)] if len(names) > 1 else []),
        dict(key="bin", name="bin", values=[b.name for b in bins], notes=[b.label for b in bins]),
        dict(key="kind", name=title, values=kinds),
        dict(key="class", name="class", values=classes),
    ]
    return Gallery(
        noun,
        (remark, advice),
        (("there", "solid", "ground truth"), ("found", "dashed", "detection")),
        items, filters, ORDERS, tiles, TILE, ACROSS, DOWN, large=448,
        tables=TABLES,
    )  # fmt: skip


def _item(
    truth: GroundTruth, run: tuple[int, Sequence[str]], failures: Failures, i: int, bins: Sequence[Bin],
    classes: Sequence[str], kinds: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    box, object_box = _box(failures.box[i]), _box(failures.object_box[i])
    score, iou = _number(failures.score[i], 4), _number(failures.iou[i], 3)
    numbers = [(name, f"{value:.2f}") for name, value in (("score", score), ("IoU", iou)) if value is not None]
    predicted, there = int(failures.category[i]), int(failures.object_category[i])
    name, known = ("" if k < 0 else classes[k] for k in (predicted, there))
    what = f"{name}, object: {known}" if name and known and name != known else name or known
    kind, in_bins = kinds[failures.kind[i]], np.flatnonzero(failures.in_bin[:, i]).tolist()
    place = int(failures.image[i])
    image = printable(truth.file_names[place] if truth.file_names else f"image {truth.image_ids[place]}")
    number, names = run
    facts = [
        ("image", image), *numbers, ("object", _coordinates(object_box)), ("detection", _coordinates(box)),
        ("bins", ", ".join(bins[k].name for k in in_bins)), *([("run", names[number])] if len(names) > 1 else []),
    ]  # fmt: skip
    width, height = (object_box or box or [0.0] * 4)[2:]
    return {
        "title": f"{kind}: {what}", "hover": image, "facts": facts,
        "lines": [kind, what, " · ".join(" ".join(pair) for pair in numbers) or "no detection"],
        "run": number, "bin": in_bins, "kind": int(failures.kind[i]), "class": list(dict.fromkeys((predicted, there))),
        "score": score, "iou": iou, "area": width * height, "box": box, "object": object_box,
        "window": window([known for known in (box, object_box) if known], truth.image_sizes[place].tolist()),
    }  # fmt: skip


def window(boxes: Sequence[Sequence[float]], size: Sequence[int]) -> Window:
    """The square region of a picture that holds all boxes with a margin; inside the picture if it fits.

    Args:
        boxes: x y width height in px.
        size: width and height of the picture in px, 0 if unknown.
    """
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])
    low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
    side = max(SMALLEST, float((high - low).max()) * (1 + 2 * MARGIN))
    corner = (low + high) / 2 - side / 2
    left, top = (
        start if whole < side else min(max(start, 0.0), whole - side) for start, whole in zip(corner, size, strict=True)
    )
    return round(float(left), 1), round(float(top), 1), round(side, 1)


def _tiles(
    truth: GroundTruth, places: Sequence[int], windows: Sequence[Window], pictures: Path | None
) -> list[Tile | None]:
    """The crop of each failure, None if its picture cannot be read; each picture is read once."""
    tiles: list[Tile | None] = [None] * len(places)
    if pictures is None or not truth.file_names:
        return tiles
    by_image: dict[int, list[int]] = {}
    for number, place in enumerate(places):
        by_image.setdefault(place, []).append(number)

    def crop(place: int, folder: Path = pictures) -> None:
        path, size = picture_path(folder, truth.file_names[place]), tuple(truth.image_sizes[place].tolist())
        if colours := open_picture(path, size):
            for number in by_image[place]:
                tiles[number] = _crop(colours, windows[number])

    in_threads(crop, by_image)
    return tiles


def picture_path(folder: Path, name: str) -> Path | None:
    """The file of that name in the folder, or else of the name's last part; never a file outside the folder."""
    root = folder.resolve()
    for candidate in (root / name, root / Path(name.replace("\\", "/")).name):
        try:
            path = candidate.resolve()
            if path.is_relative_to(root) and path.is_file():
                return path
        except (OSError, ValueError, RuntimeError):  # a name too long, with a zero byte, a loop of links
            continue
    return None


def _crop(colours: Image.Image, region: Window) -> Tile:
    left, top, side = region
    scale = TILE / side
    ends = min(left + side, float(colours.width)), min(top + side, float(colours.height))
    inside = (max(left, 0.0), max(top, 0.0), *ends)
    tile = Image.new("RGB", (TILE, TILE), OUTSIDE)
    width, height = (round((inside[i + 2] - inside[i]) * scale) for i in (0, 1))
    if min(width, height) > 0:
        part = colours.resize((width, height), Image.Resampling.BILINEAR, inside, reducing_gap=2.0)
        tile.paste(part, (round((inside[0] - left) * scale), round((inside[1] - top) * scale)))
    return np.asarray(tile)


def _coordinates(box: Sequence[float] | None) -> str:
    return "none" if box is None else ", ".join(f"{value:.1f}" for value in box)


def _box(values: NDArray[np.float64]) -> list[float] | None:
    return None if np.isnan(values[0]) else [round(float(value), 1) for value in values]


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None
