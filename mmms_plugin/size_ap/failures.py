"""The failures of a run that its report can show."""

from __future__ import annotations

import numpy as np

from mmms_plugin.coco.objects import GroundTruth
from mmms_plugin.size_ap.kernel.error_types import NONE, Floats, Instances, Ints
from mmms_plugin.size_ap.kernel.matching import Candidates, falling_order, stable_order
from mmms_plugin.size_ap.results import ERROR_TYPES, Failures

MOST = 100_000  # that results keep for their report


def choose_failures(truth: GroundTruth, candidates: Candidates, errors: Instances, most: int = MOST) -> Failures:
    """The errors of a run, at most ``most`` of them.

    Chosen in turn from every bin and type: detections with the highest scores and the largest missed objects first.
    """
    truths, detections = candidates.truths, candidates.detections
    scores, sizes = np.append(detections.scores, np.nan), np.append(truths.area, np.nan)
    worth = np.where(errors.detection == NONE, sizes[errors.object_], scores[errors.detection])
    chosen = _in_turn(errors, worth)[:most]
    detection, object_ = errors.detection[chosen], errors.object_[chosen]
    nowhere = np.full((1, 4), np.nan)
    image = np.where(
        detection == NONE, np.append(truths.image, NONE)[object_], np.append(detections.image, 0)[detection]
    )
    return Failures(
        kind=errors.kind[chosen].astype(np.int64),
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
    group: Ints = last_bin.astype(np.int64) * len(ERROR_TYPES) + errors.kind
    order = stable_order(falling_order(np.arange(len(worth)), worth), group)
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    turn = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return order[stable_order(np.arange(len(turn)), turn)]
