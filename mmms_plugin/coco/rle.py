"""COCO's segmentations in their three spellings: checked, then converted to compressed RLEs by pycocotools.

Polygons, uncompressed and compressed RLEs: https://cocodataset.org/#format-data; the spelling of compressed counts is
that of ``rleToString`` in pycocotools. pycocotools trusts its input: run lengths that do not add up to the picture or
an edge to NaN make it loop for ever, and sizes of 2^32 pixels make it hang or divide by zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from mmms_plugin.coco.mending import as_id
from mmms_plugin.coco.objects import RLE
from mmms_plugin.errors import UserError, shown

MOST_PIXELS = 2**32 - 1  # pycocotools counts pixels in 32 bits
FARTHEST = 1e6  # px; coordinates of a polygon
LONGEST = 4e6  # px, outline of one object; pycocotools walks along it in fifths of a pixel
AT_ONCE = 4096  # masks that are checked together, for speed in bounded memory
LETTERS = 7  # of one compressed run length: 5 bits each
Size = tuple[int, int]


def to_rles(
    segmentations: Sequence[Any],
    pixels: np.ndarray,
    where: str,
    numbers: Sequence[int] | np.ndarray | None = None,
) -> tuple[RLE, ...]:
    """Segmentations as compressed RLEs.

    Args:
        segmentations: of annotations or results, as in the file.
        pixels: ``(n, 2)`` width and height of their pictures, 0 if unknown.
        where: argument, file and list, for messages ("--ann a.json: annotations").
        numbers: the items' places in that list.

    Raises:
        UserError: a segmentation is absent, malformed or damaged, or an RLE has another size than the picture.
    """
    numbers = range(len(segmentations)) if numbers is None else numbers
    absent = next((i for i, segmentation in enumerate(segmentations) if not segmentation), None)
    if absent is not None:
        needed = "(polygons or RLE), which masks need; for boxes, give --iou-type bbox"
        raise UserError(f"{where}[{numbers[absent]}]: no segmentation {needed}")
    sizes = [(height, width) for width, height in pixels.tolist()]
    problems = segmentation_problems(segmentations, sizes)
    if problems:
        first = min(problems)
        raise UserError(f"{where}[{numbers[first]}].{problems[first]}")
    return tuple(_to_rle(segmentation, size) for segmentation, size in zip(segmentations, sizes, strict=True))


def mask_boxes(rles: Sequence[RLE]) -> np.ndarray:
    """The tight box around each mask: ``(n, 4)`` float64, x y width height in px."""
    boxes = mask_utils.toBbox(list(rles)) if len(rles) else np.zeros(0)
    return np.asarray(boxes, np.float64).reshape(len(rles), 4)


def _to_rle(segmentation: Any, size: tuple[int, int]) -> RLE:
    """A sound segmentation as a compressed RLE."""
    if not isinstance(segmentation, dict):
        return mask_utils.merge(mask_utils.frPyObjects(segmentation, *size))
    height, width = (int(side) for side in segmentation["size"])
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return mask_utils.frPyObjects({"size": [height, width], "counts": [int(c) for c in counts]}, height, width)
    return {"size": [height, width], "counts": as_bytes(counts)}


def segmentation_problems(segmentations: Sequence[Any], sizes: Sequence[Size]) -> dict[int, str]:
    """What is wrong with COCO segmentations (polygons, RLE with counts as list or compressed text).

    Args:
        segmentations: as read from JSON, any values.
        sizes: (height, width) of their pictures in px, 0 if unknown.

    Returns:
        "segmentation ..." for each that pycocotools must not see, by its place in the list.
    """
    problems: dict[int, str] = {}
    compressed: list[int] = []
    for i, (segmentation, size) in enumerate(zip(segmentations, sizes, strict=True)):
        if isinstance(segmentation, Mapping):
            problem = _rle_problem(segmentation, size)
            if problem is None and not isinstance(segmentation["counts"], list):
                compressed.append(i)
        else:
            problem = _polygons_problem(segmentation, size)
        if problem:
            problems[i] = problem
    for at in damaged([segmentations[i] for i in compressed]):
        height, width = segmentations[compressed[at]]["size"]
        problems[compressed[at]] = (
            f"segmentation RLE is damaged: its counts do not sum to {height:.0f} * {width:.0f} pixels"
        )
    return problems


def damaged(rles: Sequence[Mapping[str, Any]]) -> list[int]:
    """Places of the compressed RLEs whose counts cannot be read or do not sum to height x width.

    Args:
        rles: ``size`` [height, width], known to be sound, and ``counts`` as text or bytes.
    """
    starts = range(0, len(rles), AT_ONCE)
    return [start + at for start in starts for at in _damaged(rles[start : start + AT_ONCE])]


def _damaged(rles: Sequence[Mapping[str, Any]]) -> list[int]:
    texts = [as_bytes(rle["counts"]) for rle in rles]
    pixels = np.array([int(rle["size"][0]) * int(rle["size"][1]) for rle in rles], np.int64)
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    letters = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    broken = np.zeros(len(rles), np.bool_)
    owner = np.repeat(np.arange(len(rles)), np.diff(ends, prepend=0))
    broken[owner[(letters < 0) | (letters > 63)]] = True
    broken |= np.array([not text for text in texts], np.bool_)
    if not len(letters):
        return np.flatnonzero(broken).tolist()
    last = (letters & 32) == 0  # of a number
    last[ends[ends > 0] - 1] = True
    broken[owner[last & ((letters & 32) != 0)]] = True  # the text ends within a number
    number_owner, values, too_long = _numbers(letters, last, owner)
    broken[number_owner[too_long]] = True
    counts = _counts(values, number_owner, len(rles))
    broken[number_owner[(counts < 0) | (counts > MOST_PIXELS)]] = True
    sums = np.zeros(len(rles), np.int64)
    np.add.at(sums, number_owner, np.clip(counts, 0, MOST_PIXELS))
    return np.flatnonzero(broken | (sums != pixels)).tolist()


def as_bytes(counts: str | bytes) -> bytes:
    """Compressed counts as bytes; letters that no RLE contains stay invalid."""
    return counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts


def _numbers(letters: np.ndarray, last: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Owner and value of every number of 5-bit letters, lowest first, and whether it is too long."""
    stop = np.flatnonzero(last)
    start = np.r_[0, stop[:-1] + 1]
    length = stop - start + 1
    place = np.minimum(np.arange(len(letters)) - np.repeat(start, length), LETTERS - 1)
    values = np.add.reduceat((letters & 31) << (5 * place), start)
    negative = (letters[stop] & 16) != 0  # the last letter's fifth bit is the sign
    values -= np.where(negative, np.int64(1) << (5 * np.minimum(length, LETTERS)), 0)
    return owner[stop], values, length > LETTERS


def _counts(values: np.ndarray, owner: np.ndarray, rles: int) -> np.ndarray:
    """Run lengths: from the fourth number of a mask on, each is added to the run two before it."""
    first = np.searchsorted(owner, np.arange(rles))
    place = np.arange(len(values)) - first[owner]
    counts = values.copy()
    for chain in ((place % 2 == 1), (place % 2 == 0) & (place > 0)):
        total = np.cumsum(np.where(chain, values, 0))
        before = np.r_[0, total][first][owner]
        counts[chain] = (total - before)[chain]
    return counts


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
