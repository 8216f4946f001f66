"""What is mended in annotations, and which boxes look wrong: the same rules for training and for evaluation.

Training writes the mended annotations to a copy, evaluation uses them from memory, so that AP is the same on both. The
words for the user are in `mmms_plugin.coco.rules`.

Boxes given as xyxy instead of xywh show in two shares that no correct file combines: nearly every box would also be a
valid xyxy box inside its picture (third number above the first, fourth above the second), and many leave the picture
when read as x, y, width, height. A correct xywh box that leaves the picture by more than the tolerance is
rare, and one of which width > x and height > y lies in the upper left or fills the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import box_areas

FARTHEST = 1e9  # px, of a box's numbers: beyond any picture, and its square is still exact enough
ENOUGH, JUDGED = 5, 10_000  # boxes to judge from: at least, and about as many of a large file
LEAVING, ORDERED = 0.15, 0.97  # shares that speak for xyxy
Px = TypeVar("Px", float, NDArray[np.float64])
NORMALISED = 1.5  # highest number in normalised boxes, some of which leave their picture


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_id(value: Any) -> int | None:
    """An identifier, also when JSON spells it 4.0; None for anything that is not an integer of 64 bits."""
    if is_number(value) and (isinstance(value, int) or value.is_integer()) and abs(value) < 2**63:
        return int(value)
    return None


def is_area(value: Any) -> bool:
    """Whether an ``area`` (px²) can be used: a number above 0 that a box can have."""
    return is_number(value) and 0 < value <= FARTHEST**2


def object_area(record: Mapping[str, Any]) -> float:
    """The area of an annotation with a sound box in px²: its ``area``, or its box's where that cannot be used."""
    return record["area"] if is_area(record.get("area")) else record["bbox"][2] * record["bbox"][3]


def as_side(value: Any) -> int:
    """A width or height of an image in px, 0 if it is not a positive integer."""
    return int(value) if is_number(value) and 1 <= value < 2**31 and value == int(value) else 0


def ids_of(values: Sequence[Any]) -> NDArray[np.int64]:
    """Annotation ids, 0 if absent or not an integer."""
    if set(map(type, values)) <= {int}:
        try:
            return np.fromiter(values, np.int64, len(values))
        except OverflowError:
            pass
    return np.array([as_id(value) or 0 for value in values], np.int64)


def unsound_ids(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which annotation ids are below 1 or used more than once; if any is, all annotations are numbered from 1.

    pycocotools takes a match with id 0 for no match, and of objects that share an id it counts only the last.
    """
    _, places, counts = np.unique(ids, return_inverse=True, return_counts=True)
    return (ids < 1) | (counts[places] > 1)


def crowds_of(values: Sequence[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """``iscrowd`` as true or false, and which values are spelled correctly, 0 or 1."""
    if set(map(type, values)) <= {int} and set(values) <= {0, 1}:
        return np.fromiter(values, bool, len(values)), np.ones(len(values), bool)
    sound = [type(value) is int and 0 <= value <= 1 for value in values]
    crowds = [value in (True, "1", "true", "True") for value in values]
    return np.array(crowds, bool), np.array(sound, bool)


def areas_of(values: Sequence[Any]) -> NDArray[np.float64]:
    """``area`` in px², NaN where it is not a number."""
    try:
        if set(map(type, values)) <= {int, float}:
            return np.fromiter(values, np.float64, len(values))
    except OverflowError:
        pass
    return np.array([value if is_area(value) or (is_number(value) and value == 0) else math.nan for value in values])


def mend_areas(
    areas: NDArray[np.float64],
    boxes: NDArray[np.float64],
    masked: NDArray[np.bool_],
    of_masks: Callable[[NDArray[np.int64]], NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Areas above 0 px² as they are, others from the mask, or from the box without a mask; an empty object keeps 0.

    Args:
        areas: ``(n,)`` as in the file, NaN where absent.
        boxes: ``(n, 4)`` x y width height.
        masked: which have a mask.
        of_masks: the masks' areas by place.

    Returns:
        ``(n,)`` areas, and which differ from the file's.
    """
    bare = ~((areas > 0) & (areas <= FARTHEST**2))
    computed = box_areas(boxes)
    empty = computed == 0
    places = np.flatnonzero(bare & masked)
    if len(places):
        pixels = of_masks(places)
        empty[places] = pixels == 0
        computed[places] = np.where(pixels > 0, pixels, computed[places])
    changed = bare & ~((areas == 0) & empty)
    return np.where(changed, computed, areas), changed


def without_short_polygons(segmentation: Any) -> Any:
    """A segmentation without its polygons of fewer than 3 points; the same object if it has none, or only such."""
    if not isinstance(segmentation, list):
        return segmentation
    long = [polygon for polygon in segmentation if not isinstance(polygon, list) or len(polygon) >= 6]
    return long if long and len(long) < len(segmentation) else segmentation


def slack(side: Px) -> Px:
    """By how many px a box or polygon may leave its picture, whose width or height is ``side`` px."""
    return 2 + 0.02 * side


def suspicious_boxes(boxes: NDArray[np.float64], pixels: NDArray) -> dict[str, str]:
    """What all boxes together look like: "box-normalised" or "box-corners", with the evidence.

    Args:
        boxes: ``(n, 4)`` x y width height, px.
        pixels: ``(n, 2)`` width and height of their pictures, 0 where unknown.
    """
    if len(boxes) and boxes.max() <= NORMALISED and boxes[:, 2:].max() > 0:
        return {"box-normalised": f"the highest number is {boxes.max():g}"}
    if len(boxes) < ENOUGH:
        return {}
    few = slice(None, None, max(1, len(boxes) // JUDGED))
    leaving, ordered = _xyxy_shares(boxes[few], pixels[few])
    if leaving < LEAVING or ordered < ORDERED:
        return {}
    inside = f"as [x1, y1, x2, y2] {ordered:.0%} are valid boxes inside it"
    return {"box-corners": f"{leaving:.0%} leave their picture as [x, y, width, height]; {inside}"}


def _xyxy_shares(boxes: NDArray, pixels: NDArray) -> tuple[float, float]:
    """Share of boxes that leave their picture read as xywh, and share that are valid inside it read as xyxy."""
    extent = boxes[:, :2].max(0) + 1.0  # of unknown pictures: none is smaller than its boxes' corners
    limits = np.where(pixels > 0, pixels, np.maximum(extent, boxes[:, 2:].max(0)))
    farthest = limits + slack(limits)
    leaving = (boxes[:, :2] + boxes[:, 2:] > farthest).any(1)
    ordered = (boxes[:, 2:] >= boxes[:, :2]).all(1) & (boxes[:, 2:] <= farthest).all(1)
    return float(leaving.mean()), float(ordered.mean())
