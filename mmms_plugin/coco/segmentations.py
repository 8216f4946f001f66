"""COCO segmentations in any of their three spellings as compressed RLEs.

Polygons, uncompressed and compressed RLEs: https://cocodataset.org/#format-data. Rasterised by
pycocotools, so that areas and IoUs are the ones everybody else gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mmms_plugin.coco.objects import RLE
from mmms_plugin.coco.rle import as_bytes, segmentation_problems
from mmms_plugin.errors import UserError


def to_rles(
    segmentations: Sequence[Any],
    pixels: np.ndarray,
    where: str,
    numbers: Sequence[int] | np.ndarray | None = None,
) -> tuple[RLE, ...]:
    """Segmentations as compressed RLEs.

    Args:
        segmentations: of annotations or results, as in the file.
        pixels: (n, 2) width and height of each one's picture, 0 where the file lacks it.
        where: argument and file, for messages ("--pred p.json: prediction").
        numbers: the items' places in that file.
    Raises:
        UserError: no segmentation, a malformed or damaged one, or an RLE whose size is not the picture's.
    """
    numbers = range(len(segmentations)) if numbers is None else numbers
    absent = next((i for i, one in enumerate(segmentations) if not one), None)
    if absent is not None:
        needed = "masks need one (polygons or RLE), boxes do not (--iou-type bbox)"
        raise UserError(f"{where} {numbers[absent]}: no segmentation; {needed}")
    sizes = [(height, width) for width, height in pixels.tolist()]
    problems = segmentation_problems(segmentations, sizes)
    if problems:
        first = min(problems)
        raise UserError(f"{where} {numbers[first]}: {problems[first]}")
    return tuple(_to_rle(one, size) for one, size in zip(segmentations, sizes, strict=True))


def mask_boxes(rles: Sequence[RLE]) -> np.ndarray:
    """The tight box around each mask: (n, 4) float64, x y width height in px."""
    return np.asarray(rle.toBbox(list(rles)), np.float64).reshape(len(rles), 4) if len(rles) else np.zeros((0, 4))


def _to_rle(segmentation: Any, size: tuple[int, int]) -> RLE:
    """A sound segmentation as a compressed RLE."""
    if not isinstance(segmentation, dict):
        return rle.merge(rle.frPyObjects(segmentation, *size))
    height, width = (int(side) for side in segmentation["size"])
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return rle.frPyObjects({"size": [height, width], "counts": [int(c) for c in counts]}, height, width)
    return {"size": [height, width], "counts": as_bytes(counts)}
