"""The options of an evaluation; see ``mmms size-ap --help``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mmms_plugin.errors import UserError
from mmms_plugin.options import CommandOptions, option

if TYPE_CHECKING:
    from mmms_plugin.coco.objects import GroundTruth

IOU_TYPES, AREAS = ("bbox", "segm"), ("annotation", "box", "mask")
BINS, EVALUATION, INTERVALS, OUTPUT = "bins", "evaluation", "intervals", "output"  # headings of --help
MOST_CONFIDENCE = 0.9999  # more cannot be resolved by replicates


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from text such as ``1333x800``."""
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not sides:
        raise UserError(f"--resize {text}: must be WIDTHxHEIGHT, such as 1333x800")
    return int(sides[1]), int(sides[2])


def _iou_thresholds() -> tuple[float, ...]:
    from mmms_plugin.size_ap.kernel.matching import IOU_THRESHOLDS

    return IOU_THRESHOLDS


@dataclass(frozen=True, kw_only=True)
class Options(CommandOptions):
    """How to evaluate.

    Attributes:
        bins, bin_unit, allow_gaps, allow_overlaps: see `mmms_plugin.size_ap.bins.resolve_bins`.
        replicates: of the bootstrap, 0 for no intervals.
        resize: width and height in px.
        thresholds: of IoU.
        sweep: also evaluate AP against continuous size.
        progress: show a progress bar.
    """

    bins: str = option(
        default="coco", group=BINS,
        help="bins of object size: coco, tiny (= tinyperson), ai-tod, soda, quantiles:N, or NAME=LOW:HIGH,... such as "
        "tiny=0:16,small=16:32,large=32:inf",
    )  # fmt: skip
    bin_unit: str = option(
        choices=("side", "area"), default="side", group=BINS,
        help="unit of custom limits and quantiles: side = sqrt(area) in px, or area in px²",
    )  # fmt: skip
    allow_gaps: bool = option(default=False, group=BINS, help="accept sizes that are in no bin")
    allow_overlaps: bool = option(default=False, group=BINS, help="accept sizes that are in several bins")
    area: str = option(
        choices=AREAS, default="annotation", group=BINS,
        help="an object's size: the 'area' field of its annotation, as in pycocotools, its box, or its mask",
    )  # fmt: skip
    iou_type: str = option(choices=IOU_TYPES, default="bbox", group=EVALUATION, help="overlap of boxes or of masks")
    max_dets: int = option(
        default=100, least=1, most=10**6, metavar="N", group=EVALUATION,
        help="largest number of detections per image and class that count",
    )  # fmt: skip
    errors: bool = option(
        "--no-errors", default=True, group=EVALUATION,
        help="do not evaluate the cost of each type of error (TIDE), which takes longest",
    )  # fmt: skip
    score_threshold: float = option(
        default=0.5, metavar="S", group=EVALUATION,
        help="lowest score at which a class counts as predicted in an image, for multi-label F1 in comparisons",
    )  # fmt: skip
    replicates: int = option(
        "--bootstrap", default=0, least=0, most=10**5, metavar="N", group=INTERVALS,
        help="replicates of the image bootstrap; 0 for no intervals (default: 0)",
    )  # fmt: skip
    confidence: float = option(
        default=0.95, above=0, most=MOST_CONFIDENCE, metavar="P", group=INTERVALS, help="confidence of intervals"
    )
    seed: int = option(default=0, least=0, most=2**32 - 1, group=INTERVALS, help="random seed of the bootstrap")
    resize: tuple[int, int] | None = option(
        metavar="WxH", reader=parse_size, group=OUTPUT,
        help="width and height in px to which training resizes pictures, such as 1333x800: anchors are then suggested "
        "for resized objects",
    )  # fmt: skip
    thresholds: tuple[float, ...] = field(default_factory=_iou_thresholds)
    sweep: bool = True
    progress: bool = False

    @property
    def masks(self) -> bool:
        """Whether segmentations are needed."""
        return self.iou_type == "segm" or self.area == "mask"

    def for_rules_of(self, truth: GroundTruth) -> Options:
        """These options with the data set's own limit of detections per image and class, if it is higher (LVIS)."""
        from mmms_plugin.coco import lvis

        return replace(self, max_dets=max(self.max_dets, lvis.DETECTIONS)) if truth.federated else self

    def __post_init__(self) -> None:
        super().__post_init__()
        if math.isnan(self.score_threshold):
            raise UserError("--score-threshold nan: must be a number")
        if not self.thresholds or not all(0 < t <= 1 for t in self.thresholds):
            raise UserError(f"thresholds={self.thresholds}: must be at least one number, above 0 and at most 1")
