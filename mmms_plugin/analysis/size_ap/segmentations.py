"""COCO segmentations in any of their three spellings, as compressed RLEs of the picture's size.

Polygons, uncompressed and compressed RLEs: https://cocodataset.org/#format-data. Rasterised by pycocotools, so that areas
and IoUs are the ones everybody else gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mmms_plugin.errors import UserError

Rle = dict[str, Any]  # size [height, width], counts bytes


def to_rles(items: Sequence[dict[str, Any]], sizes: Sequence[tuple[int, int] | None], where: str) -> list[Rle]:
    """The ``segmentation`` of every item as a compressed RLE.

    Args:
        items: annotations or results. sizes: (height, width) of each one's picture in px, None where the file lacks it.
        where: argument and file, for messages ("--pred p.json: prediction").
    Raises:
        UserError: no segmentation, a malformed one, or an RLE whose size is not the picture's.
    """
    rles = [_to_rle(item, size, f"{where} {i}") for i, (item, size) in enumerate(zip(items, sizes, strict=True))]
    pixels = np.array([r["size"][0] * r["size"][1] for r in rles], np.float64)
    wrong = np.flatnonzero(mask_areas(rles) > pixels)
    if wrong.size:
        raise UserError(f"{where} {wrong[0]}: segmentation RLE is damaged: its counts exceed its size")
    return rles


def mask_areas(rles: Sequence[Rle]) -> np.ndarray:
    """Pixels inside each mask: (n,) float64."""
    return np.asarray(rle.area(list(rles)), np.float64).reshape(len(rles)) if len(rles) else np.zeros(0)


def mask_boxes(rles: Sequence[Rle]) -> np.ndarray:
    """The tight box around each mask: (n, 4) float64, x y width height in px."""
    return np.asarray(rle.toBbox(list(rles)), np.float64).reshape(len(rles), 4) if len(rles) else np.zeros((0, 4))


def _to_rle(item: dict[str, Any], size: tuple[int, int] | None, where: str) -> Rle:
    segmentation = item.get("segmentation")
    if not segmentation:
        raise UserError(f"{where}: no segmentation; masks need one (polygons or RLE), boxes do not (--iou-type bbox)")
    if isinstance(segmentation, dict):
        return _checked_rle(segmentation, size, where)
    if size is None:
        raise UserError(f"{where}: polygons need the image's width and height in the annotation file")
    polygons = segmentation if isinstance(segmentation, list) else [None]
    if not all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in polygons):
        raise UserError(f"{where}: segmentation polygons must be lists of at least 3 x, y pairs")
    try:
        return rle.merge(rle.frPyObjects(polygons, *size))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: segmentation polygons are not numbers ({error})") from None


def _checked_rle(segmentation: dict[str, Any], size: tuple[int, int] | None, where: str) -> Rle:
    shape, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(shape, list | tuple) and len(shape) == 2 and isinstance(counts, str | bytes | list)):
        raise UserError(f"{where}: segmentation must be polygons or an RLE with size [height, width] and counts")
    if size is not None and tuple(shape) != tuple(size):
        swapped = " (width and height swapped?)" if tuple(shape) == (size[1], size[0]) else ""
        raise UserError(f"{where}: segmentation RLE size {list(shape)} is not the image's {list(size)}{swapped}")
    if not isinstance(counts, list):
        return {"size": list(shape), "counts": counts.encode() if isinstance(counts, str) else counts}
    if not all(isinstance(c, int) and c >= 0 for c in counts) or sum(counts) != shape[0] * shape[1]:
        raise UserError(f"{where}: segmentation RLE counts must be integers >= 0 that sum to {shape[0]} * {shape[1]}")
    return rle.frPyObjects({"size": list(shape), "counts": counts}, *shape)
