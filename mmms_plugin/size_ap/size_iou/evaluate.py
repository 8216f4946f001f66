"""From regions to IoU and recall per bin of region size, with bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.bins import contains, resolve_bins
from mmms_plugin.size_ap.kernel.accumulate import mean_defined
from mmms_plugin.size_ap.kernel.bootstrap import draw, interval
from mmms_plugin.size_ap.results import Bin, Figure, Interval, figure, plain
from mmms_plugin.size_ap.size_iou.regions import Regions

MEASURES = ("iou", "recall", "found")
FOUND = 0.5  # IoU from which a region counts as found
AREA_RULE = "a region is a connected area of one class in the ground truth (8 neighbours); its size is its pixels"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RegionBin:
    """One bin. Figures are means over the regions of a class, then over the classes that have some; else None.

    Attributes:
        iou: of a region with the predicted regions that overlap it (`mmms_plugin.size_ap.size_iou.regions`).
        recall: share of a region's pixels that are predicted as its class.
        found: share of regions with an IoU of at least 0.5.
        regions: how many. stray: predicted regions of this size that overlap no region of their class.
        intervals: a measure's name to its interval; empty without bootstrap.
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
    """The whole evaluation; ``bins`` begins with 'all'."""

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

    def to_json(self) -> dict:
        """Plain values in full precision; infinite limits become the text 'inf', undefined figures null."""
        return plain(asdict(self))


@dataclass(frozen=True)
class RegionOptions:
    """How to evaluate.

    Attributes:
        bins, bin_unit, allow_gaps, allow_overlaps: as `resolve_bins` takes them.
        min_area: px; smaller regions are left out, true and predicted ones. Masks drawn by hand leave specks at the
            void borders of objects: of PASCAL VOC's regions about half are single pixels.
        replicates, seed, confidence: of the bootstrap; 0 replicates for none.
    """

    bins: str = "coco"
    bin_unit: str = "side"
    allow_gaps: bool = False
    allow_overlaps: bool = False
    min_area: int = 16
    replicates: int = 0
    seed: int = 0
    confidence: float = 0.95


def evaluate_regions(regions: Regions, classes: Sequence[str], options: RegionOptions) -> SizeIoUResults:
    """IoU, recall and share found per bin and class.

    Args:
        regions: of all images.
        classes: names in the order of the labels.
        options: how.

    Raises:
        UserError: bins that do not fit.
    """
    specks = int((regions.truth[:, 2] < options.min_area).sum())
    regions = Regions(
        regions.images, *(part[part[:, 2] >= options.min_area] for part in (regions.truth, regions.stray))
    )
    areas = regions.truth[:, 2].astype(np.float64)
    bins = resolve_bins(options.bins, options.bin_unit, areas, options.allow_gaps, options.allow_overlaps)
    table = _Table(regions, bins.bins, len(classes))
    by_class, count = table.means(None)
    stray = table.stray()
    figures = mean_defined(by_class, 2)  # (measures, bins)
    intervals = _intervals(table, figures, regions.images, options)
    rows = tuple(
        RegionBin(
            bin_,
            **dict(zip(MEASURES, map(figure, figures[:, i]), strict=True)),
            regions=int(count[i].sum()),
            stray=int(stray[i].sum()),
            intervals=intervals[i],
        )
        for i, bin_ in enumerate(bins.bins)
    )
    per_class = tuple(
        RegionClass(
            name,
            **{m: tuple(map(figure, by_class[i, :, k])) for i, m in enumerate(MEASURES)},
            regions=tuple(count[:, k].astype(int).tolist()),
            stray=tuple(stray[:, k].tolist()),
        )
        for k, name in enumerate(classes)
    )
    notes = [f"{specks} regions of fewer than {options.min_area} px are left out (min_area)"] if specks else []
    outside = int((~contains(bins.bins[1:], areas).any(0)).sum())
    if outside:
        notes.append(f"{outside} regions are in no bin but 'all'")
    how = (options.replicates, options.confidence, options.seed)
    return SizeIoUResults(
        AREA_RULE, bins.source, bins.reference, bins.edge_rule, regions.images, *how, rows, per_class, tuple(notes)
    )


class _Table:
    """Every region once for each bin that holds it, ready to be summed with any weight of the images."""

    def __init__(self, regions: Regions, bins: tuple[Bin, ...], classes: int) -> None:
        self.shape = (len(bins), classes)
        image, category, area, hit, outside = regions.truth.T
        bin_, which = np.nonzero(contains(bins, area.astype(np.float64)))
        iou = hit / (area + outside)
        self.values = np.stack([iou, hit / area, iou >= FOUND]).astype(np.float64)[:, which]
        self.image, self.cell = image[which], bin_ * classes + category[which]
        stray_bin, stray = np.nonzero(contains(bins, regions.stray[:, 2].astype(np.float64)))
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
