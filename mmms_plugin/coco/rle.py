"""COCO's segmentations in their three spellings: checked, then converted to compressed RLEs by pycocotools.

Polygons, uncompressed and compressed RLEs: https://cocodataset.org/#format-data. pycocotools trusts its input: run
lengths that do not add up to the picture or an edge to NaN make it loop for ever, and sizes of 2^32 pixels make it hang
or divide by zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from pycocotools import mask as mask_utils

from mmms_plugin.coco.mending import as_id
from mmms_plugin.coco.run_lengths import MOST_PIXELS, RLE, Masks, RunLengths, decode, text_of
from mmms_plugin.errors import UserError, shown

FARTHEST = 1e6  # px; coordinates of a polygon
LONGEST = 4e6  # px, outline of one object; pycocotools walks along it in fifths of a pixel
Size = tuple[int, int]


def to_rles(
    segmentations: Sequence[Any],
    pixels: np.ndarray,
    where: str,
    numbers: Sequence[int] | np.ndarray | None = None,
) -> Masks:
    """Segmentations as masks.

    Args:
        segmentations: of annotations or results, as in the file or as `RunLengths`.
        pixels: ``(n, 2)`` width and height of their pictures, 0 if unknown.
        where: argument, file and list, for messages ("--ann a.json: annotations").
        numbers: the items' places in that list.

    Raises:
        UserError: a segmentation is absent, malformed or damaged, or an RLE has another size than the picture.
    """
    sizes = pixels.reshape(-1, 2)[:, ::-1]
    if masks := _masks_of_texts(segmentations, sizes):
        return masks
    numbers = range(len(segmentations)) if numbers is None else numbers
    absent = next((i for i, segmentation in enumerate(segmentations) if not segmentation), None)
    if absent is not None:
        needed = "(polygons or RLE), which masks need; for boxes, give --iou-type bbox"
        raise UserError(f"{where}[{numbers[absent]}]: no segmentation {needed}")
    shapes = [(height, width) for height, width in sizes.tolist()]
    problems = segmentation_problems(segmentations, shapes)
    if problems:
        first = min(problems)
        raise UserError(f"{where}[{numbers[first]}].{problems[first]}")
    return Masks.of([_to_rle(segmentation, size) for segmentation, size in zip(segmentations, shapes, strict=True)])


def _masks_of_texts(segmentations: Sequence[Any], sizes: np.ndarray) -> Masks | None:
    """Sound compressed RLEs of a file, all checked at once; None if any is unsound or something else."""
    if set(map(type, segmentations)) != {RunLengths}:
        return None
    texts = list(map(attrgetter("counts"), segmentations))
    if set(map(type, texts)) != {str}:
        return None
    try:
        shapes = np.fromiter(chain.from_iterable(map(attrgetter("size"), segmentations)), np.int64).reshape(-1, 2)
    except OverflowError:
        return None
    known = (sizes > 0).all(1)
    if not (shapes.min() > 0 and shapes.max() <= MOST_PIXELS and (shapes == sizes)[known].all()):
        return None
    runs = decode(texts)
    sound = ~runs.broken & (runs.pixels == shapes.prod(1)) & (runs.pixels <= MOST_PIXELS)
    return Masks.of_runs(texts, shapes, runs) if sound.all() else None


def mask_boxes(rles: Sequence[RLE]) -> np.ndarray:
    """The tight box around each mask: ``(n, 4)`` float64, x y width height in px."""
    boxes = mask_utils.toBbox(list(rles)) if len(rles) else np.zeros(0)
    return np.asarray(boxes, np.float64).reshape(len(rles), 4)


def _to_rle(segmentation: Any, size: tuple[int, int]) -> RLE:
    """A sound segmentation as a compressed RLE."""
    rle = _plain(segmentation)
    if not isinstance(rle, dict):
        return mask_utils.merge(mask_utils.frPyObjects(rle, *size))
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    if isinstance(counts, list):
        return mask_utils.frPyObjects({"size": [height, width], "counts": [int(c) for c in counts]}, height, width)
    return {"size": [height, width], "counts": counts}


def _plain(segmentation: Any) -> Any:
    """A segmentation as in the file."""
    return msgspec.structs.asdict(segmentation) if isinstance(segmentation, RunLengths) else segmentation


def segmentation_problems(segmentations: Sequence[Any], sizes: Sequence[Size]) -> dict[int, str]:
    """What is wrong with COCO segmentations (polygons, RLE with counts as list or compressed text).

    Args:
        segmentations: as read from JSON, any values, or as `RunLengths`.
        sizes: (height, width) of their pictures in px, 0 if unknown.

    Returns:
        "segmentation ..." for each that pycocotools must not see, by its place in the list.
    """
    problems: dict[int, str] = {}
    compressed: dict[int, Mapping[str, Any]] = {}
    for i, (segmentation, size) in enumerate(zip(map(_plain, segmentations), sizes, strict=True)):
        if isinstance(segmentation, Mapping):
            problem = _rle_problem(segmentation, size)
            if problem is None and not isinstance(segmentation["counts"], list):
                compressed[i] = segmentation
        else:
            problem = _polygons_problem(segmentation, size)
        if problem:
            problems[i] = problem
    places = [*compressed]
    for at in damaged([*compressed.values()]):
        height, width = compressed[places[at]]["size"]
        problems[places[at]] = (
            f"segmentation RLE is damaged: its counts do not sum to {height:.0f} * {width:.0f} pixels"
        )
    return problems


def damaged(rles: Sequence[Mapping[str, Any]]) -> list[int]:
    """Places of the compressed RLEs whose counts cannot be read or do not sum to height x width.

    Args:
        rles: ``size`` [height, width], known to be sound, and ``counts`` as text or bytes.
    """
    runs = decode([text_of(rle["counts"]) for rle in rles])
    pixels = np.array([int(rle["size"][0]) * int(rle["size"][1]) for rle in rles], np.int64)
    return np.flatnonzero(runs.broken | (runs.pixels != pixels)).tolist()


def _rle_problem(rle: Mapping[str, Any], size: Size) -> str | None:
    shape, counts = rle.get("size"), rle.get("counts")
    if not (isinstance(shape, list | tuple) and len(shape) == 2 and isinstance(counts, str | bytes | list)):
        return "segmentation must be polygons or an RLE with size [height, width] and counts"
    if (
        not all(as_id(side) is not None and 0 < side <= MOST_PIXELS for side in shape)
        or shape[0] * shape[1] > MOST_PIXELS
    ):
        allowed = "[height, width], integers >= 1, below 2^32 pixels"
        return f"segmentation RLE size {shown(list(shape))}: must be {allowed}"
    if 0 not in size and tuple(shape) != size:
        swapped = " (width and height swapped?)" if tuple(shape) == (size[1], size[0]) else ""
        return f"segmentation RLE size {list(shape)} is not the image's {list(size)}{swapped}"
    whole = not isinstance(counts, list) or all(as_id(c) is not None and c >= 0 for c in counts)
    if not whole or (isinstance(counts, list) and sum(counts) != shape[0] * shape[1]):
        return f"segmentation RLE counts must be integers >= 0 that sum to {shape[0]:.0f} * {shape[1]:.0f}"
    return None


def _polygons_problem(polygons: Any, size: Size) -> str | None:
    if not polygons or not isinstance(polygons, list | tuple):
        return "segmentation must be polygons or an RLE with size [height, width] and counts"
    if 0 in size:
        return "segmentation polygons need the image's width and height in the annotation file"
    if size[0] * size[1] > MOST_PIXELS:
        return f"segmentation polygons: the image's {size[1]} x {size[0]} pixels are more than 2^32"
    if not all(isinstance(p, list | tuple) and len(p) >= 6 and len(p) % 2 == 0 for p in polygons):
        return "segmentation polygons must be lists of at least 3 x, y pairs"
    outline = 0.0
    for polygon in polygons:
        points = _numeric(polygon)
        if points is None:
            return "segmentation polygons must be lists of x, y, x, y, ...; these are not numbers"
        if not np.abs(points).max() <= FARTHEST:  # nor NaN
            return f"segmentation polygons must be lists of x, y, x, y, ... within ±{FARTHEST:,.0f} px"
        outline += float(np.abs(points - np.roll(points, 2)).sum())
    if outline > LONGEST:
        return f"segmentation polygons have an outline of {outline:,.0f} px; {LONGEST:,.0f} px are allowed"
    return None


def _numeric(values: Sequence[Any]) -> np.ndarray | None:
    """Float64 of a flat list of numbers; None for anything else, also for the text of numbers."""
    try:
        array = np.array(values)
    except ValueError:  # lists of different lengths
        return None
    return array.astype(np.float64) if array.ndim == 1 and array.dtype.kind in "biuf" else None
