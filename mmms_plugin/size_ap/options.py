"""How to evaluate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mmms_plugin.coco import lvis
from mmms_plugin.coco.objects import AREAS, GroundTruth
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.kernel.matching import IOU_THRESHOLDS

IOU_TYPES = ("bbox", "segm")
LIMITS = {"max_dets": (1, 10**6), "replicates": (0, 10**5), "seed": (0, 2**32 - 1)}
MOST_CONFIDENCE = 0.9999  # more than replicates can resolve


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Attributes:
        iou_type: 'bbox' or 'segm'.
        area: 'annotation' (pycocotools' rule), 'box' or 'mask'.
        bins, bin_unit, allow_gaps, allow_overlaps: see `mmms_plugin.size_ap.bins.resolve_bins`.
        max_dets: detections per image and class that count.
        thresholds: of IoU.
        replicates, seed, confidence: of the bootstrap; 0 replicates for none.
        score_threshold: from which a detection predicts its class, for multi-label F1.
        resize: width and height that pictures are made to fit before training; for the advice on anchors only.
        errors: also what each type of error costs (`mmms_plugin.size_ap.kernel.error_types`).
        sweep: also AP against continuous size.
        progress: show bars.
    """

    iou_type: str = "bbox"
    area: str = "annotation"
    bins: str = "coco"
    bin_unit: str = "side"
    allow_gaps: bool = False
    allow_overlaps: bool = False
    max_dets: int = 100
    thresholds: tuple[float, ...] = IOU_THRESHOLDS
    replicates: int = 0
    seed: int = 0
    confidence: float = 0.95
    score_threshold: float = 0.5
    resize: tuple[int, int] | None = None
    errors: bool = True
    sweep: bool = True
    progress: bool = False

    @property
    def masks(self) -> bool:
        """Whether segmentations are needed."""
        return self.iou_type == "segm" or self.area == "mask"

    def for_rules_of(self, truth: GroundTruth) -> Options:
        """The same, with as many detections of a class as the data set's own rules allow in an image (LVIS)."""
        return replace(self, max_dets=max(self.max_dets, lvis.DETECTIONS)) if truth.federated else self

    def __post_init__(self) -> None:
        for name, allowed in (("iou_type", IOU_TYPES), ("area", tuple(AREAS))):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} {getattr(self, name)!r}: allowed are {', '.join(allowed)}")
        for name, (least, most) in LIMITS.items():
            if not least <= getattr(self, name) <= most:
                shown = f"{'bootstrap' if name == 'replicates' else name}={getattr(self, name)}"
                raise UserError(f"{shown}: must be an integer from {least} to {most:,}")
        if not 0 < self.confidence <= MOST_CONFIDENCE:
            raise UserError(f"confidence={self.confidence}: must be above 0 and at most {MOST_CONFIDENCE}")
        if math.isnan(self.score_threshold):
            raise UserError("score_threshold=nan: must be a number")
        if not self.thresholds or not all(0 < t <= 1 for t in self.thresholds):
            raise UserError(f"thresholds {self.thresholds}: allowed are numbers in (0, 1], at least one")
