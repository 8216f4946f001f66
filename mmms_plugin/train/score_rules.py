"""Rules on a detector's scores that ``mmms size-ap`` found, applied to predictions: thresholds by class and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmms_plugin.errors import UserError, printable
from mmms_plugin.size_ap.score_files import ScoreThresholds, read_thresholds


@dataclass(frozen=True)
class ScoreRules:
    """Which objects of a picture are kept.

    Attributes:
        thresholds: lowest scores by class and size.
    """

    thresholds: ScoreThresholds

    @classmethod
    def read(cls, thresholds: str | Path | None, classes: Sequence[str], detector: bool) -> ScoreRules | None:
        """The rules of a file, None without one.

        Args:
            thresholds: file of ``mmms size-ap --thresholds``.
            classes: of the model.
            detector: whether the model is one.

        Raises:
            UserError: another file, of other classes, or the model is no detector.
        """
        if thresholds is None:
            return None
        if not detector:
            raise UserError("--thresholds: they are for detectors, whose objects have sizes")
        content = read_thresholds(thresholds)
        if content.classes and not set(content.classes) & set(classes):
            theirs, ours = (printable(", ".join(list(names)[:5])) for names in (content.classes, classes))
            raise UserError(f"--thresholds {thresholds}: its classes ({theirs}) are not the model's ({ours})")
        return cls(content)

    @property
    def lowest(self) -> float:
        """Objects below this score are never kept."""
        return self.thresholds.lowest

    def __call__(self, sample: Any, classes: Sequence[str]) -> Any:
        """The model's data sample with the objects that are kept; others have no objects and stay as they are."""
        instances = sample.get("pred_instances")
        if instances is None or "bboxes" not in instances or not len(instances):
            return sample
        boxes = np.asarray(getattr(instances.bboxes, "tensor", instances.bboxes).cpu(), np.float64)
        scores, labels = (np.asarray(part.cpu()) for part in (instances.scores, instances.labels))
        areas = None
        if self.thresholds.sizes.of == "mask" and "masks" in instances:
            areas = np.array([float(mask.sum()) for mask in instances.masks])
        height, width = sample.ori_shape[:2]
        names = [classes[label] for label in labels]
        kept = self.thresholds.keeps(names, scores.astype(np.float64), boxes, areas, (int(width), int(height)))
        sample.pred_instances = instances[np.flatnonzero(kept)]
        return sample
