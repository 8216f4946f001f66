"""How large a data set's objects are: what to look at before choosing size bins and anchors.

Side is the square root of the area in px, as in the bins: on disk, as the network sees it, or relative to the picture
(`mmms_plugin.size_ap.resizing`). Crowd regions are left out, as in evaluation.

Anchors are ``[k, 4]``: width, height, and the distances to the next anchor of the same kind across and down, in px. An
anchor of an object's size is useless if the next one is half an object away: on 2,422 nuclei of about 20 px, anchors of
16 px on a grid of 16 px, which fit in size, gave a box AP of 0.215, and on a grid of 4 px 0.369.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import SHAPES, GroundTruth, positions
from mmms_plugin.size_ap import RELATIVE, SMALLEST_SHARE
from mmms_plugin.size_ap.bins import Bin, contains, readable
from mmms_plugin.size_ap.resizing import (
    AnyResizing,
    area_factors,
    describe_seen,
    known_sizes,
    seen_scales,
    with_factors,
)
from mmms_plugin.size_ap.results import plain

SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)  # the quantiles that are listed
THINNEST = 1e-3  # px; thinner boxes have no aspect
STEPS = 4  # histogram columns per octave
AREA_RULES = {
    "annotation": "square root of the annotation's 'area' field, which is the mask's in COCO",
    "box": "square root of box width × height",
    "mask": "square root of the mask's pixels",
}
QUANTILE_BINS = (3, 4, 5)  # numbers of equal-count bins that are suggested
FITTING = 0.5  # IoU with the best anchor from which an object counts as covered
SCALES = 2.0 ** np.arange(-3, 3.01, 0.5)  # multiples of the anchors that are tried
PLACES = 32  # positions on the grid of anchors at which an object is tried
MOST = 2000  # objects that are tried on the grid; of more, a sample of all sizes
FPN_STRIDES = (4, 8, 16, 32, 64)  # of the hosts' Mask R-CNN
DEFAULT_SCALE = 8.0  # of the hosts' Mask R-CNN
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassSizes:
    """The objects of one class: ``counts`` per bin, median side in px, median height / width (NaN without objects)."""

    name: str
    objects: int
    counts: tuple[int, ...]
    median_side: float
    median_aspect: float


@dataclass(frozen=True)
class AnchorSuggestion:
    """Anchors for a feature pyramid: sides are ``scale * stride`` px, one octave apart.

    Attributes:
        scale: for ``anchor_generator.scales=[scale]``.
        strides: of the pyramid's levels, px.
        sides: of the anchors, px.
        ratios: height / width.
        covered: share of the objects with an anchor of IoU 0.5, over all positions on its grid.
    """

    scale: float
    strides: tuple[int, ...]
    sides: tuple[float, ...]
    ratios: tuple[float, ...]
    covered: float


@dataclass(frozen=True)
class ObjectSizes:
    """Sizes of a data set's objects, crowds left out.

    Attributes:
        images, objects, crowds: counts.
        images_without: number of images without objects.
        area: source of the areas, a key of `AREA_RULES`.
        area_rule: the sentence about it.
        bins: the bins.
        counts: objects in each bin.
        edges: ``(n + 1,)`` limits of the histogram's columns, sides in px or relative, four columns per octave.
        histogram: ``(n,)`` objects in each column.
        quantiles: pairs of share and side in px.
        aspects: pairs of share and height / width of the box.
        classes: most objects first.
        equal_bins: inner edges (side, px) of 3, 4 and 5 bins with equally many objects, by the number of bins.
        anchors: a start for a feature pyramid, from the boxes; None without objects.
        resize: what is done to pictures, in words; empty for nothing.
        seen: how sizes differ from those on disk, empty if they do not.
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
    resize: str = ""
    seen: str = ""
    notes: tuple[str, ...] = ()

    def save(self, folder: str | PathLike[str], figures: Sequence[str] = ()) -> list[Path]:
        """Write the report that ``mmms size-ap --out`` writes without predictions; return its files, the page first.

        ``figures`` are formats besides SVG, 'png' and 'pdf'.

        Raises:
            UserError: the folder cannot be created.
        """
        from mmms_plugin.size_ap.report.write import write_object_sizes

        return write_object_sizes(self, folder, figures)

    def to_json(self) -> dict[str, Any]:
        """Dicts, lists and numbers in full precision; infinite limits become the text 'inf', undefined figures null."""
        return plain(asdict(self))


def describe_objects(
    truth: GroundTruth,
    bins: tuple[Bin, ...],
    area: str = "annotation",
    notes: tuple[str, ...] = (),
    unit: str = "side",
    resize: AnyResizing | None = None,
    tiles: tuple[int, int] | None = None,
) -> ObjectSizes:
    """Count a data set's objects by size, and suggest bins and anchors.

    Args:
        truth: the data set.
        bins: in which objects are counted.
        area: a key of `AREA_RULES`.
        notes: what was unusual in the file; kept for the report.
        unit: of the bins.
        resize: what is done to pictures on their way into the network; sizes and anchors are then of resized objects.
        tiles: (width, height) in px of the tiles that the network sees.

    Raises:
        UserError: the data lacks these areas, or the sizes of pictures that resizing needs.
    """
    own = area == "annotation" and truth.format in SHAPES
    keep = ~truth.iscrowd
    factors = area_factors(truth, unit, resize, tiles)
    areas, boxes = with_factors(truth.areas(area), truth.image_id, truth.image_ids, factors)[keep], truth.boxes[keep]
    sides, inside = np.sqrt(areas), contains(bins, areas)
    real = (boxes[:, 2:] >= THINNEST).all(1)  # aspect and anchors need both sides
    edges, seen = _octave_edges(sides, SMALLEST_SHARE if unit == RELATIVE else 1.0), boxes[real, 2:]
    if resize:
        scales = seen_scales(known_sizes(truth, "--resize"), resize, tiles)
        seen = seen * scales[positions(truth.image_id, truth.image_ids)][keep][real]
    aspects = seen[:, 1] / seen[:, 0]
    return ObjectSizes(
        images=len(truth.image_ids),
        images_without=len(truth.image_ids) - len(np.unique(truth.image_id[keep])),
        objects=int(keep.sum()),
        crowds=int(truth.iscrowd.sum()),
        area=area,
        area_rule=f"square root of {SHAPES[truth.format]}" if own else AREA_RULES[area],
        bins=bins,
        counts=tuple(inside.sum(1).tolist()),
        edges=tuple(edges.tolist()),
        histogram=tuple(np.histogram(np.clip(sides, edges[0], edges[-1]), edges)[0].tolist()),
        quantiles=_quantiles(sides),
        aspects=_quantiles(aspects),
        classes=_classes(truth, keep, sides, inside),
        equal_bins={count: quantile_edges(sides, count) for count in QUANTILE_BINS if len(sides)},
        anchors=suggest_anchors(np.sqrt(seen.prod(1)), aspects),
        resize=resize.text if resize else "",
        seen=describe_seen(unit, resize, tiles),
        notes=notes,
    )


def _octave_edges(sides: NDArray, smallest: float) -> NDArray:
    """Histogram edges at whole quarters of an octave that hold all objects; ``smallest`` joins those below it."""
    if not len(sides):
        return np.array([smallest, 2 * smallest])
    logs = np.log2(np.maximum(sides, smallest))
    low, high = np.floor(logs.min()), np.ceil(logs.max() + 1e-9)
    return 2.0 ** np.arange(low, max(high, low + 1) + 1e-9, 1 / STEPS)


def _quantiles(values: NDArray) -> tuple[tuple[float, float], ...]:
    if not len(values):
        return ()
    return tuple(zip(SHARES, np.quantile(values, SHARES).tolist(), strict=True))


def _classes(truth: GroundTruth, keep: NDArray, sides: NDArray, inside: NDArray) -> tuple[ClassSizes, ...]:
    category, boxes = truth.category_id[keep], truth.boxes[keep]
    order = np.argsort(category, kind="stable")
    starts, ends = (np.searchsorted(category[order], truth.category_ids, side=side) for side in ("left", "right"))
    classes = []
    for name, start, end in zip(truth.category_names, starts.tolist(), ends.tolist(), strict=True):
        chosen = order[start:end]
        real = boxes[chosen][(boxes[chosen, 2:] >= THINNEST).all(1)]
        side = float(np.median(sides[chosen])) if len(chosen) else float("nan")
        aspect = float(np.median(real[:, 3] / real[:, 2])) if len(real) else float("nan")
        classes.append(ClassSizes(name, len(chosen), tuple(inside[:, chosen].sum(1).tolist()), side, aspect))
    return tuple(sorted(classes, key=lambda sizes: -sizes.objects))


def quantile_edges(sides: np.ndarray, count: int) -> tuple[float, ...]:
    """Inner edges of ``count`` bins with equally many objects: side in px, rounded to be readable.

    Args:
        sides: (n,) square roots of the areas, px.
        count: number of bins; edges that coincide are merged.
    """
    if not len(sides):
        return ()
    edges = np.quantile(sides, np.arange(1, count) / count)
    return tuple(sorted({readable(float(edge)) for edge in edges if edge > 0}))


def suggest_anchors(
    sides: np.ndarray, aspects: np.ndarray, strides: tuple[int, ...] = FPN_STRIDES
) -> AnchorSuggestion | None:
    """The scale (a power of sqrt 2) whose anchors cover most objects, wherever these lie, and three ratios.

    Parametrised as in RetinaNet (Lin et al. 2017, section 4: a base side per pyramid level, octaves between) and in the
    hosts' anchor generators (``scales``, ``ratios`` = height / width, ``strides``).

    Args:
        sides: (n,) box sides sqrt(w h), px, > 0.
        aspects: (n,) height / width.
        strides: of the levels, px.

    Returns:
        None without objects. The scale is from 1 to 64; of those that cover equally many objects, the nearest to 8, the
        hosts' default.
    """
    if not len(sides):
        return None
    logs = np.quantile(np.log2(np.clip(aspects, 1 / 64, 64)), [1 / 6, 1 / 2, 5 / 6])
    ratios = tuple(sorted({readable(float(ratio)) for ratio in 2**logs}))
    boxes = np.stack([sides / np.sqrt(aspects), sides * np.sqrt(aspects)], 1)
    anchors = [(DEFAULT_SCALE * step / ratio**0.5, DEFAULT_SCALE * step * ratio**0.5, step, step)
               for step in strides for ratio in ratios]  # fmt: skip
    multiple, left_out = best_scale(boxes, np.array(anchors))
    best = DEFAULT_SCALE * multiple
    sides_px = tuple(readable(best * stride) for stride in strides)
    return AnchorSuggestion(readable(best), strides, sides_px, ratios, 1 - left_out)


def best_scale(boxes: Floats, anchors: Floats) -> tuple[float, float]:
    """The multiple of the anchors off which fewest objects are (of equals, the nearest to 1), and their share."""
    trials = [(off_anchors(boxes, anchors * [scale, scale, 1, 1]), float(scale)) for scale in SCALES]
    share, scale = min(trials, key=lambda trial: (round(trial[0], 6), abs(np.log2(trial[1]))))
    return scale, share


def off_anchors(boxes: Floats, anchors: Floats) -> float:
    """Share of boxes ``[n, 2]``, width and height, without an anchor of IoU 0.5, over all positions on the grid."""
    order = np.argsort(boxes.prod(1), kind="stable")
    chosen = boxes[order[np.linspace(0, len(boxes) - 1, min(MOST, len(boxes))).round().astype(int)]]
    return float((best_ious(chosen, anchors, FITTING) < FITTING).mean())


def best_ious(boxes: Floats, anchors: Floats, least: float = 0.0) -> Floats:
    """``[n, 32]``: the largest IoU of each box ``[n, 2]`` with an anchor, at evenly spread positions on the grid.

    Args:
        boxes, anchors: sides in px; anchors also with the steps of their grids.
        least: a lower IoU may be given as 0: boxes of very different areas are not compared.
    """
    # middles of an object in one cell of the coarsest grid, evenly spread there and in all finer ones
    golden = np.array([0.7548776662466927, 0.5698402909980532])  # x^3 = x + 1: the golden ratio of the plane
    places = (np.arange(PLACES)[:, None] * golden % 1) * anchors[:, 2:].max(0)
    best, areas = np.zeros((len(boxes), len(places))), boxes.prod(1)
    for width, height, *steps in anchors:
        ratio = np.minimum(areas, width * height) / np.maximum(np.maximum(areas, width * height), 1e-12)
        near = np.flatnonzero(ratio >= least * (1 - 1e-9))  # no IoU is above the ratio
        away = np.abs((places + np.divide(steps, 2)) % steps - np.divide(steps, 2))  # from the nearest anchor's middle
        both = _overlap(boxes[near, 0], width, away[:, 0]) * _overlap(boxes[near, 1], height, away[:, 1])
        iou = both / np.maximum(areas[near, None] + width * height - both, 1e-12)
        best[near] = np.maximum(best[near], iou)
    return best


def _overlap(side: Floats, other: float, away: Floats) -> Floats:
    """``[n, 32]`` px that two intervals share whose middles are ``away`` from each other."""
    shared = (side[:, None] + other) / 2 - away
    return np.clip(np.minimum(shared, np.minimum(side, other)[:, None]), 0, None)
