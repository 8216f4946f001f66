"""Segmentation quality by region size: IoU and recall of the connected regions of the ground truth.

Chan et al., SegmentMeIfYouCan: A Benchmark for Anomaly Segmentation, NeurIPS 2021, section 4.2 (after Rottmann et al.,
Prediction Error Meta Classification in Semantic Segmentation, IJCNN 2020): a ground-truth region is compared with the
predicted regions of its class that overlap it. Pixels of the class's other ground-truth regions are left out of the
union, so that one prediction across two objects does not count against either.

Deviations:
1. Every class has its regions, not just one class of anomalies. Regions are 8-connected.
2. Pixels without a label (void) belong to no region, but they connect the predicted region on both sides: a prediction
   that grows over the void border of an object is still one region and counts against the object.

Needs NumPy and OpenCV; neither torch nor a host.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.bins import Bin, contains, resolve_bins
from mmms_plugin.size_ap.kernel.accumulate import mean_defined
from mmms_plugin.size_ap.kernel.bootstrap import draw, interval
from mmms_plugin.size_ap.results import Figure, Interval, figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn
    from pandas import DataFrame

MEASURES = ("iou", "recall", "found")
FOUND = 0.5  # IoU from which a region counts as found
AREA_RULE = "a region is a connected area of one class in the ground truth (8 neighbours); its size is its pixels"
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Regions:
    """Ground-truth regions of any number of images, and predicted regions without ground truth.

    Attributes:
        images: number of images.
        truth: ``(n, 5)`` image, class, and in px: area, area predicted as the class, and area of the overlapping
            predicted regions outside every ground-truth region of the class.
        stray: ``(m, 3)`` image, class and area in px of the predicted regions that overlap no region of their class.
        factors: ``(images,)`` by which areas are multiplied for the bins (`mmms_plugin.size_ap.resizing`); None for 1.
    """

    images: int
    truth: Ints
    stray: Ints
    factors: Floats | None = None

    def sizes(self, regions: Ints) -> Floats:
        """``(n,)`` areas of rows of ``truth`` or ``stray`` as the bins take them."""
        areas = regions[:, 2].astype(np.float64)
        return areas if self.factors is None else areas * self.factors[regions[:, 0]]


@dataclass(frozen=True)
class RegionBin:
    """One bin. Figures are means over the regions of a class, then over the classes that have any; else None.

    Attributes:
        iou: of a region with the predicted regions that overlap it.
        recall: share of a region's pixels that are predicted as its class.
        found: share of regions with an IoU of at least 0.5.
        regions: number of regions.
        stray: number of predicted regions of this size that overlap no region of their class.
        intervals: interval of each measure; empty without bootstrap.
    """

    bin: Bin
    iou: Figure
    recall: Figure
    found: Figure
    regions: int
    stray: int
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class RegionClass:
    """One class: its figures in every bin, in the bins' order."""

    name: str
    iou: tuple[Figure, ...]
    recall: tuple[Figure, ...]
    found: tuple[Figure, ...]
    regions: tuple[int, ...]
    stray: tuple[int, ...]


@dataclass(frozen=True)
class SizeIoUResults:
    """The whole evaluation; the first of ``bins`` is 'all'."""

    area_rule: str
    bins_source: str
    bins_reference: str
    edge_rule: str
    images: int
    replicates: int
    confidence: float
    seed: int
    bins: tuple[RegionBin, ...]
    classes: tuple[RegionClass, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values in full precision; infinite limits become the text 'inf', undefined figures null."""
        return plain(asdict(self))

    def plot(self, kind: str = "bins") -> Drawn:
        """Draw IoU and recall by bin ('bins'), or IoU by class and bin ('classes'), as a matplotlib figure.

        Raises:
            UserError: an unknown kind, or no regions.
        """
        from mmms_plugin.size_ap.report.size_iou import plot

        return plot(self, kind)

    def save(self, folder: str | PathLike[str], figures: Sequence[str] = ()) -> list[Path]:
        """Write the report of ``mmms test --size-report`` into a folder; return its files, the page first.

        ``figures`` are formats besides SVG, 'png' and 'pdf'.

        Raises:
            UserError: the folder cannot be created.
        """
        from mmms_plugin.size_ap.report.size_iou import write_region_report

        return write_region_report(self, folder, figures)

    def to_pandas(self, table: str = "bins") -> DataFrame:
        """The report's CSV file of 'bins' or 'classes' as a pandas table, with figures from 0 to 1 in full precision.

        Raises:
            UserError: another table, or pandas is not installed.
        """
        from mmms_plugin.report.tables import data_frame
        from mmms_plugin.size_ap.report.size_iou import data_tables

        return data_frame(data_tables(self), table)

    def _repr_html_(self) -> str:
        from mmms_plugin.report.page import tables_html
        from mmms_plugin.size_ap.report.size_iou import bin_table

        return tables_html([bin_table(self)], self.notes)


@dataclass(frozen=True)
class RegionOptions:
    """How to evaluate.

    Attributes:
        bins, bin_unit, allow_gaps, allow_overlaps: as for `resolve_bins`.
        min_area: px; smaller regions, true and predicted, are left out. Hand-drawn masks leave specks at the void
            borders of objects: about half of PASCAL VOC's regions are single pixels.
        replicates, seed, confidence: of the bootstrap; 0 replicates for none.
        seen: how sizes differ from those on disk, in words.
    """

    bins: str = "coco"
    bin_unit: str = "side"
    allow_gaps: bool = False
    allow_overlaps: bool = False
    min_area: int = 16
    replicates: int = 0
    seed: int = 0
    confidence: float = 0.95
    seen: str = ""


def image_regions(truth: NDArray, predicted: NDArray, classes: int, ignore_index: int = 255) -> tuple[Ints, Ints]:
    """The regions of one image, as the columns of `Regions` without the first.

    Args:
        truth: ``(height, width)`` labels, 0 to ``classes`` - 1; all other values are void.
        predicted: ``(height, width)`` labels.
        classes: number of classes.
        ignore_index: label of void pixels.

    Raises:
        ValueError: label maps of different sizes.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"predicted {predicted.shape}: must have the ground truth's shape {truth.shape}")
    known = (truth >= 0) & (truth < classes) & (truth != ignore_index)
    guessed = known & (predicted >= 0) & (predicted < classes)
    present = [np.bincount(labels[at], minlength=classes) > 0 for labels, at in ((truth, known), (predicted, guessed))]
    regions, stray = [np.empty((0, 4), np.int64)], [np.empty((0, 2), np.int64)]
    for category in np.flatnonzero(present[0] | present[1]).tolist():
        rows, areas = _class_regions(known & (truth == category), predicted == category, known)
        regions.append(np.column_stack([np.full(len(rows), category), rows]))
        stray.append(np.column_stack([np.full(len(areas), category), areas]))
    return np.concatenate(regions), np.concatenate(stray)


def _class_regions(truth: Bools, predicted: Bools, known: Bools) -> tuple[Ints, Ints]:
    """``(n, 3)`` area, hit, outside of every true region, and ``(m,)`` areas of the predicted regions without one."""
    (count, of_truth), (predictions, of_prediction) = _label(truth), _label(predicted)
    pair, pixels = _counts(np.where(known, of_truth.astype(np.int64) * (predictions + 1) + of_prediction, 0).ravel())
    region, guess = np.divmod(pair, predictions + 1)
    both = (region > 0) & (guess > 0)

    def total(of: Ints, chosen: Bools, values: Ints, groups: int) -> Ints:
        return np.bincount(of[chosen], values[chosen], groups + 1).astype(np.int64)

    alone = total(guess, region == 0, pixels, predictions)  # px of each predicted region outside every true one
    area, hit = total(region, region > 0, pixels, count), total(region, both, pixels, count)
    outside = total(region, both, alone[guess], count)
    stray = alone[1:] * (total(guess, both, pixels, predictions)[1:] == 0)
    return np.column_stack([area, hit, outside])[1:], stray[stray > 0]


def _counts(codes: Ints) -> tuple[Ints, Ints]:
    """The distinct numbers above 0, and how often each occurs; fast where equal ones are neighbours."""
    starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
    lengths = np.diff(starts, append=len(codes))
    values, which = np.unique(codes[starts], return_inverse=True)
    counts = np.bincount(which, lengths).astype(np.int64)
    return values[values > 0], counts[values > 0]


def _label(mask: Bools) -> tuple[int, NDArray[np.int32]]:
    """The number of 8-connected regions, and ``(height, width)`` the region of each pixel, 0 for none."""
    import cv2

    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return count - 1, np.asarray(labels, np.int32)


def join_images(parts: Iterable[tuple[Ints, Ints]], factors: Sequence[float] | None = None) -> Regions:
    """The regions of several images in one table; images are numbered in their order.

    Args:
        parts: of each image.
        factors: of each image, by which areas are multiplied for the bins.
    """
    parts = list(parts)
    truth, stray = (
        np.concatenate(
            [np.empty((0, width), np.int64)]
            + [np.column_stack([np.full(len(part[k]), image), part[k]]) for image, part in enumerate(parts)]
        )
        for k, width in ((0, 5), (1, 3))
    )
    return Regions(len(parts), truth, stray, None if factors is None else np.array(factors, np.float64))


def evaluate_regions(regions: Regions, classes: Sequence[str], options: RegionOptions) -> SizeIoUResults:
    """IoU, recall and share found per bin and class.

    Args:
        regions: of all images.
        classes: their names, in the order of the labels.
        options: how to evaluate.

    Raises:
        UserError: bins that do not fit.
    """
    specks = int((regions.truth[:, 2] < options.min_area).sum())
    truth, stray = (part[part[:, 2] >= options.min_area] for part in (regions.truth, regions.stray))
    regions = replace(regions, truth=truth, stray=stray)
    areas = regions.sizes(truth)
    bins = resolve_bins(options.bins, options.bin_unit, areas, options.allow_gaps, options.allow_overlaps)
    table = _Table(regions, bins.bins, len(classes))
    by_class, count = table.means(None)
    strays = table.stray()
    figures = mean_defined(by_class, 2)  # (measures, bins)
    intervals = _intervals(table, figures, regions.images, options)
    rows = tuple(
        RegionBin(
            bin_,
            **dict(zip(MEASURES, map(figure, figures[:, i]), strict=True)),
            regions=int(count[i].sum()),
            stray=int(strays[i].sum()),
            intervals=intervals[i],
        )
        for i, bin_ in enumerate(bins.bins)
    )
    per_class = tuple(
        RegionClass(
            name,
            **{m: tuple(map(figure, by_class[i, :, k])) for i, m in enumerate(MEASURES)},
            regions=tuple(count[:, k].astype(int).tolist()),
            stray=tuple(strays[:, k].tolist()),
        )
        for k, name in enumerate(classes)
    )
    notes = [f"{specks} regions of fewer than {options.min_area} px are left out (min_area)"] if specks else []
    outside = int((~contains(bins.bins[1:], areas).any(0)).sum())
    if outside:
        notes.append(f"{outside} regions are in no bin but 'all'")
    how = (options.replicates, options.confidence, options.seed)
    rule = AREA_RULE + (options.seen and f"; {options.seen}")
    return SizeIoUResults(
        rule, bins.source, bins.reference, bins.edge_rule, regions.images, *how, rows, per_class, tuple(notes)
    )


class _Table:
    """Every region once for each bin that holds it, ready to be summed with any weight of the images."""

    def __init__(self, regions: Regions, bins: tuple[Bin, ...], classes: int) -> None:
        self.shape = (len(bins), classes)
        image, category, area, hit, outside = regions.truth.T
        bin_, which = np.nonzero(contains(bins, regions.sizes(regions.truth)))
        iou = hit / (area + outside)
        self.values = np.stack([iou, hit / area, iou >= FOUND]).astype(np.float64)[:, which]
        self.image, self.cell = image[which], bin_ * classes + category[which]
        stray_bin, stray = np.nonzero(contains(bins, regions.sizes(regions.stray)))
        self.stray_cell = stray_bin * classes + regions.stray[stray, 1]

    def means(self, weights: NDArray[np.int32] | None) -> tuple[Floats, Floats]:
        """``(measures, bins, classes)`` means, NaN without regions, and ``(bins, classes)`` counts."""
        weight = np.ones(len(self.cell)) if weights is None else weights[self.image].astype(np.float64)
        size = self.shape[0] * self.shape[1]
        count = np.bincount(self.cell, weight, size)
        total = np.stack([np.bincount(self.cell, weight * value, size) for value in self.values])
        means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return means.reshape(len(MEASURES), *self.shape), count.reshape(self.shape).astype(np.float64)

    def stray(self) -> NDArray[np.int64]:
        """``(bins, classes)`` predicted regions without ground truth."""
        return np.bincount(self.stray_cell, minlength=self.shape[0] * self.shape[1]).reshape(self.shape)


def _intervals(table: _Table, figures: Floats, images: int, options: RegionOptions) -> list[dict[str, Interval]]:
    bins = figures.shape[1]
    if not options.replicates:
        return [{} for _ in range(bins)]
    draws = np.stack(
        [mean_defined(table.means(draw(images, options.seed, i))[0], 2) for i in range(options.replicates)]
    )
    return [
        {name: interval(draws[:, m, i], figures[m, i], options.confidence) for m, name in enumerate(MEASURES)}
        for i in range(bins)
    ]
