"""Single failures of a run, for people to look at: what was predicted, what is there, and why it counts as an error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import Detections, GroundTruth
from mmms_plugin.size_ap.evaluate import Options
from mmms_plugin.size_ap.kernel.error_types import MATCH, NONE, Instances, error_instances
from mmms_plugin.size_ap.kernel.matching import find_candidates
from mmms_plugin.size_ap.results import ERROR_TYPES, Bin

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Failures:
    """The failures of one run that are shown, those with the highest score first.

    Attributes:
        kind: ``(n,)`` index into `ERROR_TYPES`.
        in_bin: ``(bins, n)`` bool, the bins in which it counts.
        image: ``(n,)`` position in the ground truth's ``image_ids``.
        category, object_category: ``(n,)`` position among the sorted category ids, -1 for none.
        score, iou: ``(n,)``, NaN where there is no detection, 0 where it overlaps nothing.
        box, object_box: ``(n, 4)`` x y width height in px, NaN for none.
        total: how many the run has, shown or not.
    """

    kind: Ints
    in_bin: NDArray[np.bool_]
    image: Ints
    category: Ints
    object_category: Ints
    score: Floats
    iou: Floats
    box: Floats
    object_box: Floats
    total: int

    def __len__(self) -> int:
        return len(self.kind)


def find_failures(truth: GroundTruth, run: Detections, options: Options, bins: tuple[Bin, ...], most: int) -> Failures:
    """The errors of a run, at most so many of them.

    Of every bin and type the detections with the highest scores and the largest missed objects come first, in turn.
    """
    options = options.for_rules_of(truth)
    limit = min(MATCH, *options.thresholds)
    candidates = find_candidates(truth, run, options.iou_type, options.area, options.max_dets, (limit,))
    errors = error_instances(candidates, bins, options.iou_type)
    truths, detections = candidates.truths, candidates.detections
    scores, sizes = np.append(detections.scores, np.nan), np.append(truths.area, np.nan)
    chosen = _in_turn(
        errors, np.where(errors.kind == len(ERROR_TYPES) - 1, sizes[errors.object_], scores[errors.detection])
    )
    chosen = chosen[:most]
    chosen = chosen[np.argsort(-np.nan_to_num(scores[errors.detection[chosen]], nan=-np.inf), kind="stable")]
    detection, object_ = errors.detection[chosen], errors.object_[chosen]
    nowhere = np.full((1, 4), np.nan)
    image = np.where(
        detection == NONE, np.append(truths.image, NONE)[object_], np.append(detections.image, 0)[detection]
    )
    return Failures(
        kind=errors.kind[chosen],
        in_bin=errors.in_bin[:, chosen],
        image=np.argsort(truth.image_ids, kind="stable")[image],
        category=np.append(detections.category, NONE)[detection],
        object_category=np.append(truths.category, NONE)[object_],
        score=scores[detection],
        iou=np.where(detection == NONE, np.nan, errors.iou[chosen]),
        box=np.concatenate([detections.boxes, nowhere])[detection],
        object_box=np.concatenate([truths.boxes, nowhere])[object_],
        total=len(errors.kind),
    )


def _in_turn(errors: Instances, worth: Floats) -> Ints:
    """Places of all failures: the first of every bin and type, then the second of each, and so on."""
    last_bin = len(errors.in_bin) - 1 - np.argmax(errors.in_bin[::-1], axis=0) if len(errors.kind) else errors.kind
    group = last_bin * len(ERROR_TYPES) + errors.kind
    order = np.lexsort((-worth, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    turn = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return order[np.argsort(turn, kind="stable")]
