"""Rules on a detector's scores that ``mmms size-ap`` found, applied to predictions by the size of each object.

Scores are calibrated first; the objects are then sorted again by falling score, equal ones in the model's order. After
that thresholds decide which are kept. Non-maximum suppression is the model's, with its own scores, and is not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from mmms_plugin.errors import UserError, printable
from mmms_plugin.size_ap.score_files import ScoreCalibration, ScoreThresholds, read_both


@dataclass(frozen=True)
class ScoreRules:
    """What becomes of the scores of a picture's objects, and which objects are kept.

    Attributes:
        calibration: maps of scores by size, or None.
        thresholds: lowest scores by class and size, or None.
    """

    calibration: ScoreCalibration | None
    thresholds: ScoreThresholds | None

    @classmethod
    def read(
        cls, calibration: str | Path | None, thresholds: str | Path | None, classes: Sequence[str], detector: bool
    ) -> ScoreRules | None:
        """The rules of files, None without any.

        Args:
            calibration: file of ``mmms size-ap --calibration``.
            thresholds: file of ``mmms size-ap --thresholds``.
            classes: of the model.
            detector: whether the model is one.

        Raises:
            UserError: another file, of other classes, or the model is not a detector.
        """
        if calibration is None and thresholds is None:
            return None
        if not detector:
            option = "--thresholds" if calibration is None else "--calibration"
            raise UserError(f"{option}: only for detectors, whose objects have sizes")
        maps, least = read_both(calibration, thresholds)
        if least is not None and least.classes and not set(least.classes) & set(classes):
            theirs, ours = (printable(", ".join(list(names)[:5])) for names in (least.classes, classes))
            raise UserError(f"--thresholds {thresholds}: its classes ({theirs}) are not the model's ({ours})")
        return cls(maps, least)

    def least_score(self, score: float | None) -> float | None:
        """The lowest score of an object that counts: the user's, or that of the lowest threshold, or None."""
        return self.thresholds.lowest if self.thresholds and score is None else score

    def __call__(self, sample: Any, classes: Sequence[str]) -> Any:
        """The model's data sample after the rules; one without objects stays as it is."""
        instances = sample.get("pred_instances")
        if instances is None or "bboxes" not in instances or not len(instances):
            return sample
        height, width = sample.ori_shape[:2]
        picture, masks = (int(width), int(height)), instances.get("masks")
        boxes = np.asarray(getattr(instances.bboxes, "tensor", instances.bboxes).cpu(), np.float64)
        areas = None if masks is None else np.array([_area(mask) for mask in masks])
        if self.calibration:
            scores = self.calibration.apply(_scores(instances), boxes, areas, picture)
            instances.scores = instances.scores.new_tensor(scores)
            order = np.argsort(-scores, kind="stable")
            instances, boxes, areas = instances[order], boxes[order], None if areas is None else areas[order]
        if self.thresholds:
            names = [classes[label] for label in instances.labels.tolist()]
            kept = self.thresholds.keeps(names, _scores(instances), boxes, areas, picture)
            instances = instances[np.flatnonzero(kept)]
        sample.pred_instances = instances
        return sample


def _area(mask: Any) -> float:
    """The pixels of a mask; those of tiles are run lengths."""
    return float(mask_utils.area(mask) if isinstance(mask, dict) else mask.sum())


def _scores(instances: Any) -> np.ndarray:
    return np.asarray(instances.scores.cpu(), np.float64)
