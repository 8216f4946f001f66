"""Objects that a detector cannot see well: smaller than its cells, off its anchors, wider than its receptive field.

All lengths are px of the picture as the network gets it, so after resizing. The size bins are COCO's, of the pictures
as they are on disk, so that the numbers stand beside AP_S, AP_M and AP_L.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.anchors import off_anchors
from mmms_plugin.size_ap.bins import contains, resolve_bins


@dataclass(frozen=True)
class Objects:
    """Objects of a data set, crowds left out.

    Attributes:
        areas: ``[n]`` px² on disk.
        boxes: ``[n, 2]`` width and height in px of the network's input.
        pictures: number.
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
        anchors: ``[k, 4]`` as in `mmms_plugin.size_ap.anchors`; None without anchors.
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
    return [
        Shares(
            bin_.name,
            int(inside.sum()),
            float((objects.sides[inside] < min(geometry.strides)).mean()),
            None if geometry.anchors is None else off_anchors(objects.boxes[inside], geometry.anchors),
            float((objects.boxes[inside].max(1) > geometry.field).mean()),
        )
        for bin_, inside in rows
        if inside.any()
    ]


def share_beyond(objects: Objects, field: float) -> float:
    """Of all objects, those wider or higher than a receptive field."""
    return float((objects.boxes.max(1) > field).mean())


def quantile(values: Sequence[float] | NDArray[np.float64], share: float) -> float:
    """As NumPy's, a Python number."""
    return float(np.quantile(values, share))
