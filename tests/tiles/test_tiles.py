"""Where tiles lie, masks moved between frames, and the merging of boxes, compared with slow references."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmms_plugin.coco.frames import moved
from mmms_plugin.tiles.grid import tiles_in
from mmms_plugin.tiles.merging import merged
from mmms_plugin.tiles.rule import METHODS, METRICS, Rule
from tests.oracles.merging import merge


def test_the_last_tile_is_moved_inward() -> None:
    assert tiles_in(250, 100, 100, 0.2) == [(0, 0, 100, 100), (80, 0, 180, 100), (150, 0, 250, 100)]
    assert tiles_in(260, 100, 100, 0.2)[-1] == (160, 0, 260, 100), "a tile that ends with the picture is the last one"
    assert tiles_in(60, 150, 100, 0.0) == [(0, 0, 60, 100), (0, 50, 60, 150)]


@pytest.mark.parametrize("seed", range(5))
def test_tiles_cover_the_picture_with_the_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height, size = rng.integers(1, 300, 3).tolist()
    overlap = float(rng.uniform(0, 0.9))
    tiles = tiles_in(width, height, size, overlap)
    seen = np.zeros((height, width), int)
    for left, top, right, bottom in tiles:
        assert (right - left, bottom - top) == (min(size, width), min(size, height))
        seen[top:bottom, left:right] += 1
    assert seen.min() == 1
    assert len(set(tiles)) == len(tiles)
    lefts = sorted({tile.left for tile in tiles})
    assert all(later - earlier <= size - int(overlap * size) for earlier, later in itertools.pairwise(lefts))


@pytest.mark.parametrize("seed", range(40))
def test_a_moved_mask_is_the_moved_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tall, wide, height, width = rng.integers(1, 30, 4).tolist()
    pixels = rng.random((tall, wide)) < rng.choice([0.0, 0.1, 0.5, 0.95, 1.0])
    left, top = rng.integers(-12, 12, 2).tolist()
    expected = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            if 0 <= y + top < tall and 0 <= x + left < wide:
                expected[y, x] = pixels[y + top, x + left]
    rle = moved(mask_utils.encode(np.asfortranarray(pixels.astype(np.uint8))), left, top, height, width)
    assert rle == mask_utils.encode(np.asfortranarray(expected))


def crowded(seed: int, count: int = 120, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 100, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 40, (count, 2))], 1)
    return boxes, rng.permutation(count) / count, rng.integers(0, classes, count)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("count", "threshold"), [(120, 0.2), (120, 0.5), (120, 0.9), (1, 0.5), (3, 0.5), (6, 0.2), (12, 0.2)]
)
def test_merging_equals_the_slow_reference(count: int, threshold: float, method: str, metric: str, monkeypatch) -> None:
    monkeypatch.setattr("mmms_plugin.tiles.merging.AT_ONCE", 50)
    boxes, scores, labels = crowded(seed=count, count=count)  # of few boxes, some classes have one, or none that meet
    groups = merged(boxes, scores, labels, Rule(method, metric, threshold))
    found = [
        (scores[group[0]], labels[group[0]], [*boxes[group, :2].min(0), *boxes[group, 2:].max(0)]) for group in groups
    ]
    assert found == merge(boxes.tolist(), scores.tolist(), labels.tolist(), method, metric, threshold)


def test_results_do_not_depend_on_the_order_of_the_tiles() -> None:
    boxes, _, labels = crowded(7)
    scores, order = np.ones(len(boxes)), np.random.default_rng(0).permutation(len(boxes))
    rule = Rule("greedy-nmm")
    groups = merged(boxes, scores, labels, rule)
    again = merged(boxes[order], scores[order], labels[order], rule)
    assert [boxes[group].tolist() for group in groups] == [boxes[order][group].tolist() for group in again]
    assert merged(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), rule) == []


def test_equal_scores_are_joined_too() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 0, 5], [0, 0, 0, 5.0]])
    for method in METHODS[1:]:
        groups = merged(boxes, np.ones(4), np.zeros(4, int), Rule(method, "iou"))
        assert [group.tolist() for group in groups] in ([[2], [3], [0, 1]], [[3], [2], [0, 1]])
