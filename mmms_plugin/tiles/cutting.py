"""What of a picture's objects each of its tiles holds, for training.

An object that a border cuts counts in the tiles that hold at least half of its box, and in those that hold most of it,
so that every object counts somewhere, also one that is larger than a tile. Elsewhere the rest of it is ignored, as
crowds are: it is neither learned nor held against the detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from mmms_plugin.coco.frames import moved
from mmms_plugin.tiles.grid import Tile

KEPT = 0.5  # share of an object's box from which it counts in a tile
SMALLEST = 1.0  # px, side of a rest that is an object


def cut_objects(
    objects: Sequence[Mapping[str, Any]],
    tiles: Sequence[Tile],
    size: tuple[int, int],
    kept: float = KEPT,
    polygons: bool = False,
) -> list[list[dict[str, Any]]]:
    """The objects of every tile, in its own pixels.

    Args:
        objects: mmdet's instances: ``bbox`` left, top, right, bottom in px, ``ignore_flag``, perhaps ``mask``, polygons
            or an RLE; other keys are kept.
        tiles: of the picture, which they cover.
        size: width and height of the picture, px.
        kept: share of its box from which an object counts.
        polygons: keep polygons that a border cuts as they are; else they become run lengths.

    Returns:
        For each tile the objects that reach into it, with the flag set where they do not count.
    """
    corners = np.array(tiles, float)
    parts: list[list[dict[str, Any]]] = [[] for _ in tiles]
    for item in objects:
        box = np.clip(np.array(item["bbox"], float), 0, np.tile(np.array(size, float), 2))
        inside = np.concatenate((np.maximum(box[:2], corners[:, :2]), np.minimum(box[2:], corners[:, 2:])), 1)
        sides = inside[:, 2:] - inside[:, :2]
        shares = np.maximum(sides, 0).prod(1) / max(float(np.prod(box[2:] - box[:2])), 1e-9)
        counts = (shares >= min(kept, float(shares.max()))) & (shares > 0)
        for i in np.flatnonzero((sides >= np.minimum(SMALLEST, box[2:] - box[:2])).all(1) & (shares > 0)).tolist():
            left, top = tiles[i][:2]
            part = {**item, "bbox": (inside[i] - [left, top, left, top]).tolist()}
            if "mask" in item:
                part["mask"] = cut_mask(item["mask"], tiles[i], size, polygons or shares[i] == 1)
            part["ignore_flag"] = int(bool(item.get("ignore_flag")) or not counts[i] or _is_empty(part, tiles[i]))
            parts[i].append(part)
    return parts


def cut_mask(mask: Any, tile: Tile, size: tuple[int, int], polygons: bool) -> Any:
    """The part of a mask that a tile holds, in the tile's pixels.

    Args:
        mask: polygons or an RLE of COCO.
        tile: of the picture.
        size: width and height of the picture, px.
        polygons: whether polygons stay polygons, which may reach beyond the tile; pycocotools, which leaves parts
            outside out, then misses some of the pixels at the border.
    """
    left, top, right, bottom = tile
    if isinstance(mask, list) and polygons:
        return [(np.array(polygon, float).reshape(-1, 2) - [left, top]).ravel().tolist() for polygon in mask]
    if isinstance(mask, list):
        mask = mask_utils.merge(mask_utils.frPyObjects(mask, size[1], size[0]))
    rle = mask_utils.frPyObjects(mask, size[1], size[0]) if isinstance(mask["counts"], list) else mask
    part = moved(rle, left, top, bottom - top, right - left)
    return {"size": part["size"], "counts": part["counts"].decode("ascii")}


def _is_empty(part: Mapping[str, Any], tile: Tile) -> bool:
    """Whether a tile holds no pixel of an object's mask, only of its box."""
    mask, height, width = part.get("mask"), tile.bottom - tile.top, tile.right - tile.left
    if not mask:
        return False
    if isinstance(mask, dict):
        return not mask_utils.area(mask)
    return not mask_utils.area(mask_utils.merge(mask_utils.frPyObjects(mask, height, width)))
