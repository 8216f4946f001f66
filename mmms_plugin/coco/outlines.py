"""One polygon for a mask of any shape, for formats that hold one polygon an object, such as YOLO's.

The outline of run lengths follows the edges of pixels, so that pycocotools draws the same pixels again. Further parts
and holes are joined by bridges: lines that are drawn forth and back, enclose nothing and cancel out where polygons are
filled by the even-odd rule, as pycocotools and OpenCV fill them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from mmms_plugin.coco.objects import RLE
from mmms_plugin.coco.rle import to_rles

Corner = tuple[int, int]
SIDES = (  # of a pixel, clockwise: the neighbour that must be empty, start and end of the side from its upper left
    ((-1, 0), (0, 0), (1, 0)), ((0, 1), (1, 0), (1, 1)), ((1, 0), (1, 1), (0, 1)), ((0, -1), (0, 1), (0, 0)),
)  # fmt: skip


def single_polygon(segmentation: Any, size: tuple[int, int]) -> list[float]:
    """A sound segmentation as one polygon, x y x y ... in px, whose even-odd filling is the mask; empty for no pixel.

    Args:
        segmentation: polygons or run lengths.
        size: width and height of the picture in px.
    """
    if isinstance(segmentation, list) and len(segmentation) == 1:
        return segmentation[0]
    whole = to_rles([segmentation], np.array([size]), "segmentation")[0]
    if isinstance(segmentation, list):
        parts = to_rles([[polygon] for polygon in segmentation], np.array([size] * len(segmentation)), "segmentation")
        if parts.areas.all() and parts.areas.sum() == mask_utils.area(whole):  # apart from each other
            return bridged(segmentation)
    return bridged(outlines(whole))


def bridged(polygons: list[list[float]]) -> list[float]:
    """Several polygons as one: from the first one's first point to each other polygon, around it, and back."""
    if len(polygons) < 2:
        return polygons[0] if polygons else []
    first, *others = polygons
    joined = [*first, *first[:2]]
    for i, polygon in enumerate(others):
        joined += [*polygon, *polygon[:2]]
        if i < len(others) - 1:  # a polygon closes itself
            joined += first[:2]
    return joined


def outlines(rle: RLE) -> list[list[float]]:
    """The outlines of a mask's parts and holes along the edges of pixels, each x y x y ... of its corners."""
    mask = np.pad(mask_utils.decode(rle), 1).astype(bool)
    following: dict[Corner, list[Corner]] = {}
    for (down, across), (x1, y1), (x2, y2) in SIDES:
        ys, xs = np.nonzero(mask & ~np.roll(mask, (-down, -across), (0, 1)))
        for y, x in zip((ys - 1).tolist(), (xs - 1).tolist(), strict=True):
            following.setdefault((x + x1, y + y1), []).append((x + x2, y + y2))
    loops = []
    while following:
        start = next(iter(following))
        corner, before, loop = start, None, []
        while True:
            options = following[corner]
            after = options.pop(_right_turn(before, corner, options)) if len(options) > 1 else options.pop()
            if not options:
                del following[corner]
            if before is None or (corner[0] - before[0], corner[1] - before[1]) != (
                after[0] - corner[0], after[1] - corner[1],
            ):  # fmt: skip
                loop.append(corner)
            before, corner = corner, after
            if corner == start:
                break
        loops.append([float(value) for point in loop for value in point])
    return loops


def _right_turn(before: Corner | None, corner: Corner, options: list[Corner]) -> int:
    """Which of two sides goes on at a corner where two pixels touch: the right one, around the same pixel."""
    if before is None:
        return 0
    dx, dy = corner[0] - before[0], corner[1] - before[1]
    right = (corner[0] - dy, corner[1] + dx)
    return options.index(right) if right in options else 0
