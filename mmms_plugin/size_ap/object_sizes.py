"""How large a data set's objects are: what to look at before choosing size bins and anchors.

Side is the square root of the area in px, as in the bins. Crowd regions are left out, as in evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import GroundTruth, box_areas
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.anchors import AnchorSuggestion, suggest_anchors
from mmms_plugin.size_ap.bins import contains
from mmms_plugin.size_ap.results import Bin, plain, readable

SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)  # the quantiles that are listed
THINNEST = 1e-3  # px, of boxes that have an aspect
STEPS = 4  # histogram columns an octave
AREA_RULES = {
    "annotation": "square root of the annotation's 'area' field, which is the mask's in COCO",
    "box": "square root of box width × height",
    "mask": "square root of the mask's pixels",
}
QUANTILE_BINS = (3, 4, 5)  # numbers of equal-count bins that are suggested


@dataclass(frozen=True)
class ClassSizes:
    """The objects of one class: ``counts`` per bin, median side in px, median height / width (NaN without objects)."""

    name: str
    objects: int
    counts: tuple[int, ...]
    median_side: float
    median_aspect: float


@dataclass(frozen=True)
class ObjectSizes:
    """Sizes of a data set's objects, crowds left out.

    Attributes:
        images, objects, crowds: counts. images_without: images that have no object.
        area, area_rule: where areas come from, a key of `AREA_RULES`, and the sentence that says it.
        bins, counts: the bins and the objects in each.
        edges, histogram: (n + 1,) sides in px, four columns an octave, and (n,) objects.
        quantiles: (share, side in px). aspects: (share, height / width of the box).
        classes: most objects first.
        equal_bins: inner edges (side, px) of 3, 4 and 5 bins with equally many objects, by the number of bins.
        anchors: a start for a feature pyramid, from the boxes; None without objects.
        resize: (width, height) that pictures are made to fit, for the anchors; None: they are for pictures as they are.
    """

    images: int
    images_without: int
    objects: int
    crowds: int
    area: str
    area_rule: str
    bins: tuple[Bin, ...]
    counts: tuple[int, ...]
    edges: tuple[float, ...]
    histogram: tuple[int, ...]
    quantiles: tuple[tuple[float, float], ...]
    aspects: tuple[tuple[float, float], ...]
    classes: tuple[ClassSizes, ...]
    equal_bins: dict[int, tuple[float, ...]]
    anchors: AnchorSuggestion | None
    resize: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Dicts, lists and numbers in full precision; infinite limits become the text 'inf', undefined figures null."""
        return plain(asdict(self))


def describe_objects(
    truth: GroundTruth,
    bins: tuple[Bin, ...],
    area: str = "annotation",
    notes: tuple[str, ...] = (),
    resize: tuple[int, int] | None = None,
) -> ObjectSizes:
    """Count a data set's objects by size, and suggest bins and anchors.

    Args:
        truth: the data set. bins: to count in. area: a key of `AREA_RULES`.
        notes: what was unusual in the file, kept for the report.
        resize: (width, height) in px that training makes pictures fit; anchors are then for the resized objects.
    Raises:
        UserError: the areas asked for are not in the data, or sizes of pictures that resizing needs.
    """
    keep = ~truth.iscrowd
    areas, boxes = truth.areas(area)[keep], truth.boxes[keep]
    sides, inside = np.sqrt(areas), contains(bins, areas)
    real = (boxes[:, 2:] >= THINNEST).all(1)  # aspect and anchors need both sides
    aspects = boxes[real, 3] / boxes[real, 2]
    edges = _octave_edges(sides)
    return ObjectSizes(
        images=len(truth.image_ids),
        images_without=len(truth.image_ids) - len(np.unique(truth.image_id[keep])),
        objects=int(keep.sum()),
        crowds=int(truth.iscrowd.sum()),
        area=area,
        area_rule=AREA_RULES[area],
        bins=bins,
        counts=tuple(inside.sum(1).tolist()),
        edges=tuple(edges.tolist()),
        histogram=tuple(np.histogram(np.clip(sides, edges[0], edges[-1]), edges)[0].tolist()),
        quantiles=_quantiles(sides),
        aspects=_quantiles(aspects),
        classes=_classes(truth, keep, sides, inside),
        equal_bins={count: quantile_edges(sides, count) for count in QUANTILE_BINS if len(sides)},
        anchors=suggest_anchors(np.sqrt(box_areas(boxes[real])) * _factors(truth, resize)[keep][real], aspects),
        resize=resize,
        notes=notes,
    )


def _factors(truth: GroundTruth, resize: tuple[int, int] | None) -> NDArray:
    """``(n,)`` by how much each object grows when its picture is made to fit, as ``Resize(keep_ratio=True)`` does."""
    if resize is None:
        return np.ones(len(truth))
    if (truth.image_sizes == 0).any():
        lack = int((truth.image_sizes == 0).any(1).sum())
        raise UserError(f"--resize: {lack} of {len(truth.image_sizes)} images have no width and height")
    by_picture = (np.sort(resize) / np.sort(truth.image_sizes, 1)).min(1)
    order = np.argsort(truth.image_ids)
    return by_picture[order[np.searchsorted(truth.image_ids, truth.image_id, sorter=order)]]


def _octave_edges(sides: NDArray) -> NDArray:
    """Histogram edges at whole quarters of an octave that hold all objects; sides under 1 px join the first column."""
    if not len(sides):
        return np.array([1.0, 2.0])
    logs = np.log2(np.maximum(sides, 1.0))
    low, high = np.floor(logs.min()), np.ceil(logs.max() + 1e-9)
    return 2.0 ** np.arange(low, max(high, low + 1) + 1e-9, 1 / STEPS)


def _quantiles(values: NDArray) -> tuple[tuple[float, float], ...]:
    if not len(values):
        return ()
    return tuple(zip(SHARES, np.quantile(values, SHARES).tolist(), strict=True))


def _classes(truth: GroundTruth, keep: NDArray, sides: NDArray, inside: NDArray) -> tuple[ClassSizes, ...]:
    classes = []
    for category, name in zip(truth.category_ids, truth.category_names, strict=True):
        chosen = truth.category_id[keep] == category
        boxes = truth.boxes[keep][chosen]
        boxes = boxes[(boxes[:, 2:] >= THINNEST).all(1)]
        side = float(np.median(sides[chosen])) if chosen.any() else float("nan")
        aspect = float(np.median(boxes[:, 3] / boxes[:, 2])) if len(boxes) else float("nan")
        classes.append(ClassSizes(name, int(chosen.sum()), tuple(inside[:, chosen].sum(1).tolist()), side, aspect))
    return tuple(sorted(classes, key=lambda sizes: -sizes.objects))


def quantile_edges(sides: np.ndarray, count: int) -> tuple[float, ...]:
    """Inner edges of ``count`` bins with equally many objects: side in px, rounded to what stays readable.

    Args:
        sides: (n,) square roots of the areas, px.
        count: bins wanted; edges that coincide are merged.
    """
    if not len(sides):
        return ()
    edges = np.quantile(sides, np.arange(1, count) / count)
    return tuple(sorted({readable(float(edge)) for edge in edges if edge > 0}))


def bins_option(edges: Sequence[float]) -> str:
    """``--bins`` for bins between the edges (side in px): ``q1=0:12,q2=12:31,q3=31:``."""
    bounds = ["0", *(f"{edge:g}" for edge in edges), "inf"]
    return ",".join(f"q{i + 1}={low}:{high}" for i, (low, high) in enumerate(pairwise(bounds)))
