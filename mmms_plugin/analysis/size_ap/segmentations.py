"""COCO segmentations in any of their three spellings as compressed RLEs.

Polygons, uncompressed and compressed RLEs: https://cocodataset.org/#format-data. Rasterised by
pycocotools, so that areas and IoUs are the ones everybody else gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mmms_plugin.analysis.size_ap.data import RLE, mask_areas
from mmms_plugin.errors import UserError

FARTHEST = 1e6  # px; pycocotools walks along every edge in fifths of a pixel, and for ever along one to NaN


def to_rles(
    items: Sequence[Mapping[str, Any]],
    pixels: np.ndarray,
    where: str,
    numbers: Sequence[int] | np.ndarray | None = None,
) -> tuple[RLE, ...]:
    """The ``segmentation`` of every item as a compressed RLE.

    Args:
        items: annotations or results. pixels: (n, 2) width and height of each one's picture, 0 where the file lacks it.
        where: argument and file, for messages ("--pred p.json: prediction"). numbers: the items' places in that file.
    Raises:
        UserError: no segmentation, a malformed one, or an RLE whose size is not the picture's.
    """
    numbers = range(len(items)) if numbers is None else numbers
    sizes = [(height, width) for width, height in pixels.tolist()]
    rles = tuple(_to_rle(item, size, f"{where} {i}") for item, size, i in zip(items, sizes, numbers, strict=True))
    wrong = np.flatnonzero(mask_areas(rles) > np.array([r["size"][0] * r["size"][1] for r in rles], np.float64))
    if wrong.size:
        raise UserError(f"{where} {numbers[wrong[0]]}: segmentation RLE is damaged: its counts exceed its size")
    return rles


def mask_boxes(rles: Sequence[RLE]) -> np.ndarray:
    """The tight box around each mask: (n, 4) float64, x y width height in px."""
    return np.asarray(rle.toBbox(list(rles)), np.float64).reshape(len(rles), 4) if len(rles) else np.zeros((0, 4))


def _to_rle(item: Mapping[str, Any], size: tuple[int, int], where: str) -> RLE:
    segmentation = item.get("segmentation")
    if not segmentation:
        raise UserError(f"{where}: no segmentation; masks need one (polygons or RLE), boxes do not (--iou-type bbox)")
    if isinstance(segmentation, dict):
        return _checked_rle(segmentation, size, where)
    if 0 in size:
        raise UserError(f"{where}: polygons need the image's width and height in the annotation file")
    polygons = segmentation if isinstance(segmentation, list) else [None]
    if not all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in polygons):
        raise UserError(f"{where}: segmentation polygons must be lists of at least 3 x, y pairs")
    try:
        points = [np.asarray(polygon, np.float64) for polygon in polygons]
        if all(p.ndim == 1 and abs(p).max() <= FARTHEST for p in points):  # not so with NaN
            return rle.merge(rle.frPyObjects(polygons, *size))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: segmentation polygons are not numbers ({error})") from None
    raise UserError(f"{where}: segmentation polygons must be lists of x, y, x, y, ... within ±{FARTHEST:,.0f} px")


def _checked_rle(segmentation: Mapping[str, Any], size: tuple[int, int], where: str) -> RLE:
    shape, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(shape, list | tuple) and len(shape) == 2 and isinstance(counts, str | bytes | list)):
        raise UserError(f"{where}: segmentation must be polygons or an RLE with size [height, width] and counts")
    if 0 not in size and tuple(shape) != size:
        swapped = " (width and height swapped?)" if tuple(shape) == (size[1], size[0]) else ""
        raise UserError(f"{where}: segmentation RLE size {list(shape)} is not the image's {list(size)}{swapped}")
    if not isinstance(counts, list):
        return {"size": list(shape), "counts": counts.encode() if isinstance(counts, str) else counts}
    if not all(isinstance(c, int) and c >= 0 for c in counts) or sum(counts) != shape[0] * shape[1]:
        raise UserError(f"{where}: segmentation RLE counts must be integers >= 0 that sum to {shape[0]} * {shape[1]}")
    return rle.frPyObjects({"size": list(shape), "counts": counts}, *shape)
