"""Objects of the tiles of a picture, compared with pixels that are cut out one by one."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmms_plugin.tiles.cutting import cut_mask, cut_objects
from mmms_plugin.tiles.grid import Tile, tiles_in

WIDTH, HEIGHT = 70, 50


def pixels_of(mask, height: int, width: int) -> np.ndarray:
    """As mmdet's LoadAnnotations decodes it."""
    rle = mask_utils.merge(mask_utils.frPyObjects(mask, height, width)) if isinstance(mask, list) else mask
    return mask_utils.decode(rle)


@pytest.mark.parametrize("kind", ["polygons", "compressed", "counts"])
@pytest.mark.parametrize("seed", range(4))
def test_masks_are_cut_like_their_pixels(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    polygons = [(rng.random((rng.integers(3, 9), 2)) * [WIDTH, HEIGHT]).ravel().tolist() for _ in range(2)]
    mask = mask_utils.merge(mask_utils.frPyObjects(polygons, HEIGHT, WIDTH))
    whole = mask_utils.decode(mask)
    if kind == "counts":
        edges = np.flatnonzero(np.diff(np.concatenate(([0], whole.T.ravel(), [0])).astype(int)))
        mask = {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges, HEIGHT * WIDTH]).tolist()}
    for tile in tiles_in(WIDTH, HEIGHT, 32, 0.2):
        part = cut_mask(polygons if kind == "polygons" else mask, tile, (WIDTH, HEIGHT), polygons=False)
        left, top, right, bottom = tile
        assert np.array_equal(pixels_of(part, bottom - top, right - left), whole[top:bottom, left:right])


def test_polygons_stay_polygons_where_they_are_whole_or_needed() -> None:
    star = [[12.0, 12, 30, 14, 20, 25], [22.0, 22, 30, 30, 15, 30]]
    item = dict(bbox=[12, 12, 30, 30], bbox_label=0, ignore_flag=0, mask=star)
    whole, cut = (tiles[0] for tiles in cut_objects([item], [Tile(8, 4, 48, 44), Tile(20, 4, 60, 44)], (WIDTH, HEIGHT)))
    assert whole["mask"] == [[4, 8, 22, 10, 12, 21], [14, 18, 22, 26, 7, 26]]
    assert set(cut["mask"]) == {"size", "counts"}
    (kept,) = cut_objects([item], [Tile(20, 4, 60, 44)], (WIDTH, HEIGHT), polygons=True)[0]
    assert kept["mask"][0] == [-8, 8, 10, 10, 0, 21]


def test_an_object_counts_where_half_of_it_is_or_most_of_it() -> None:
    tiles = [Tile(0, 0, 40, 40), Tile(30, 0, 70, 40)]
    objects = [
        dict(bbox=[26, 0, 36, 10], bbox_label=3, ignore_flag=0),  # all of it in the first, 0.6 in the second
        dict(bbox=[0, 0, 34, 10], bbox_label=0, ignore_flag=0),  # all of it, and 4 of 34
        dict(bbox=[36, 30, 60, 40], bbox_label=1, ignore_flag=1),  # a crowd
        dict(bbox=[-9, 0, 999, 40], bbox_label=2, ignore_flag=0),  # 40 of 70 columns in both
        dict(bbox=[39.5, 0, 44, 9], bbox_label=4, ignore_flag=0),  # half a pixel in the first
    ]
    first, second = cut_objects(objects, tiles, (70, 50))
    assert [(part["bbox_label"], part["bbox"], part["ignore_flag"]) for part in first] == [
        (3, [26, 0, 36, 10], 0), (0, [0, 0, 34, 10], 0), (1, [36, 30, 40, 40], 1), (2, [0, 0, 40, 40], 0),
    ]  # fmt: skip
    assert [(part["bbox_label"], part["bbox"], part["ignore_flag"]) for part in second] == [
        (3, [0, 0, 6, 10], 0), (0, [0, 0, 4, 10], 1), (1, [6, 30, 30, 40], 1), (2, [0, 0, 40, 40], 0),
        (4, [9.5, 0, 14, 9], 0),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_every_object_counts_somewhere_and_whole_ones_wherever_they_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.random((60, 2)) * [WIDTH - 4, HEIGHT - 4]
    boxes = np.concatenate((corners, np.minimum(corners + rng.uniform(2, 60, (60, 2)), [WIDTH, HEIGHT])), 1)
    objects = [dict(bbox=box.tolist(), bbox_label=i, ignore_flag=0) for i, box in enumerate(boxes)]
    tiles = tiles_in(WIDTH, HEIGHT, 24, 0.25)
    parts = cut_objects(objects, tiles, (WIDTH, HEIGHT))
    assert {part["bbox_label"] for tile in parts for part in tile if not part["ignore_flag"]} == set(range(60))
    for tile, found in zip(tiles, parts, strict=True):
        counted = {part["bbox_label"] for part in found if not part["ignore_flag"]}
        inside = (boxes[:, :2] >= tile[:2]).all(1) & (boxes[:, 2:] <= tile[2:]).all(1)
        assert set(np.flatnonzero(inside)) <= counted


@pytest.mark.parametrize("polygons", [False, True])
def test_a_part_without_a_pixel_of_the_mask_is_ignored(polygons: bool) -> None:
    """A frame whose box has its half in the tile, and whose sides are outside."""
    side = [[0.0, 0, 4, 0, 4, 40, 0, 40]]
    mask = side if polygons else mask_utils.merge(mask_utils.frPyObjects(side, HEIGHT, WIDTH))
    (part,) = cut_objects([dict(bbox=[0, 0, 40, 40], bbox_label=0, ignore_flag=0, mask=mask)], [Tile(10, 0, 50, 40)],
                          (WIDTH, HEIGHT))[0]  # fmt: skip
    assert part["ignore_flag"] == 1
