"""Objects that a detector cannot see well: smaller than its cells, off its anchors, wider than its receptive field.

All lengths are px of the picture as the network gets it, so after resizing. The size bins are COCO's, of the pictures
as they are on disk, so that the numbers stand beside AP_S, AP_M and AP_L.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.analysis.size_ap.objects.bins import contains, resolve_bins

FITTING = 0.5  # IoU with the best anchor from which an object counts as covered
SCALES = 2.0 ** np.arange(-3, 3.01, 0.5)  # multiples of the anchors that are tried
PLACES = 32  # where an object may lie on the grid of anchors
MOST = 2000  # objects that are laid on the grid; of more, some of every size


@dataclass(frozen=True)
class Objects:
    """Objects of a data set, crowds left out.

    Attributes:
        areas: ``[n]`` px² on disk. boxes: ``[n, 2]`` width and height in px of the network's input. pictures: number.
    """

    areas: NDArray[np.float64]
    boxes: NDArray[np.float64]
    pictures: int

    @property
    def sides(self) -> NDArray[np.float64]:
        """``[n]`` square roots of the boxes' areas."""
        return np.sqrt(self.boxes.prod(1))

    def scaled(self, factor: float) -> Objects:
        """The same objects in pictures that are resized by another factor."""
        return Objects(self.areas, self.boxes * factor, self.pictures)


@dataclass(frozen=True)
class Geometry:
    """What a detector sees.

    Attributes:
        strides: of the maps that it predicts from.
        anchors: ``[k, 4]`` width and height, and the distances to the next of the same kind across and down; None
            without anchors.
        field: effective receptive field of the deepest stage, two standard deviations to each side.
        theoretical: of the same stage; None where it is above what was measured.
        size: width and height that pictures are resized to fit.
    """

    strides: tuple[int, ...]
    anchors: NDArray[np.float64] | None
    field: float
    theoretical: int | None
    size: tuple[int, int]


@dataclass(frozen=True)
class Shares:
    """Of the objects of one size: their number, and which share is below a cell, off the anchors, beyond the field."""

    name: str
    objects: int
    below_cell: float
    off_anchors: float | None
    beyond_field: float


def shares(objects: Objects, geometry: Geometry) -> list[Shares]:
    """Of all objects, then of small, medium and large ones; sizes without objects are left out."""
    bins = resolve_bins("coco").bins
    rows = zip(bins, contains(bins, objects.areas), strict=True)
    return [_share(one.name, objects, geometry, inside) for one, inside in rows if inside.any()]


def _share(name: str, objects: Objects, geometry: Geometry, inside: NDArray[np.bool_]) -> Shares:
    anchors = geometry.anchors
    return Shares(
        name,
        int(inside.sum()),
        float((objects.sides[inside] < min(geometry.strides)).mean()),
        None if anchors is None else off_anchors(objects.boxes[inside], anchors),
        float((objects.boxes[inside].max(1) > geometry.field).mean()),
    )


def off_anchors(boxes: NDArray[np.float64], anchors: NDArray[np.float64]) -> float:
    """Share of boxes ``[n, 2]`` without an anchor ``[k, 4]`` of IoU 0.5, over all the places where they may lie.

    An anchor that fits an object's size is of no use where the next of its kind is half an object away.
    """
    order = np.argsort(boxes.prod(1), kind="stable")
    chosen = boxes[order[np.linspace(0, len(boxes) - 1, min(MOST, len(boxes))).round().astype(int)]]
    return float((best_ious(chosen, anchors) < FITTING).mean())


def best_ious(boxes: NDArray[np.float64], anchors: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[n, 32]``: the largest IoU of each box ``[n, 2]`` with an anchor, at evenly spread places of the grid."""
    places = _places(anchors[:, 2:].max(0))
    best = np.zeros((len(boxes), len(places)))
    for width, height, *steps in anchors:
        away = np.abs((places + np.divide(steps, 2)) % steps - np.divide(steps, 2))  # from the nearest anchor's middle
        both = _overlap(boxes[:, 0], width, away[:, 0]) * _overlap(boxes[:, 1], height, away[:, 1])
        best = np.maximum(best, both / np.maximum(boxes.prod(1)[:, None] + width * height - both, 1e-12))
    return best


def _places(largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[32, 2]`` middles of an object in one cell of the coarsest grid, evenly spread there and in all finer ones."""
    golden = np.array([0.7548776662466927, 0.5698402909980532])  # x^3 = x + 1: the golden ratio of the plane
    return (np.arange(PLACES)[:, None] * golden % 1) * largest


def _overlap(side: NDArray[np.float64], other: float, away: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[n, 32]`` px that two intervals share whose middles are ``away`` from each other."""
    shared = (side[:, None] + other) / 2 - away
    return np.clip(np.minimum(shared, np.minimum(side, other)[:, None]), 0, None)


def best_scale(boxes: NDArray[np.float64], anchors: NDArray[np.float64]) -> tuple[float, float]:
    """The multiple of the anchors that leaves fewest objects off them, and that share; of equals the nearest to 1."""
    trials = [(off_anchors(boxes, anchors * [scale, scale, 1, 1]), float(scale)) for scale in SCALES]
    share, scale = min(trials, key=lambda trial: (round(trial[0], 6), abs(np.log2(trial[1]))))
    return scale, share


def share_beyond(objects: Objects, field: float) -> float:
    """Of all objects, those wider or higher than a receptive field."""
    return float((objects.boxes.max(1) > field).mean())


def quantile(values: Sequence[float] | NDArray[np.float64], share: float) -> float:
    """As NumPy's, a Python number."""
    return float(np.quantile(values, share))
