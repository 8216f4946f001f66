"""Which class objects of each size are taken for: confusion matrices, one for every bin.

Detections below the score threshold do not exist. In order of score, each takes the free object of its class of highest
IoU at or above the threshold, as AP counts it; then the detections and objects that remain are paired in the same way
whatever their classes. What is left are missed objects, and detections of background, duplicates among them. So an
object whose class is found is never confused with a neighbour, as it is where pairs are formed by IoU alone.

All sizes are matched at once. A pair and a missed object count in the object's bin, other detections in the bin of
their own size, as false positives do in AP. Detections that AP ignores (of crowds, and those that LVIS excuses) do not
count.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import Detections, GroundTruth
from mmms_plugin.coco.run_lengths import Masks
from mmms_plugin.size_ap.bins import Bin, contains
from mmms_plugin.size_ap.kernel.matching import Objects, find_candidates, find_overlaps

NONE = -1
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def count_answers(
    truth: GroundTruth,
    run: Detections,
    bins: tuple[Bin, ...],
    iou: float,
    score: float,
    iou_type: str = "bbox",
    area: str = "annotation",
    max_dets: int = 100,
    factors: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """The confusion matrices of one run.

    Args:
        truth, run: the data.
        bins: of the evaluation.
        iou: lowest IoU of a pair.
        score: lowest that counts.
        iou_type, area, max_dets, factors: as in `find_candidates`.

    Returns:
        ``(bins, classes + 1, classes + 1)`` counts; rows are the objects' classes in the order of their ids, then
        background; columns the detections' classes, then missed.
    """
    confident = at_places(run, np.flatnonzero(run.scores >= score))
    found = find_candidates(truth, confident, iou_type, area, max_dets, (iou,), factors=factors)
    truths, detections, classes = found.truths, found.detections, found.categories
    object_, ignored = pair(found.live[found.edge_live], found.edge_truth, truths, len(detections))
    free = ~truths.crowd
    free[object_[object_ != NONE]] = False
    others = np.flatnonzero((object_ == NONE) & ~ignored & ~detections.crowd)
    detection, near = overlaps(truths, detections, np.flatnonzero(free), others, iou_type, found.thresholds[0])[:2]
    swapped, _ = pair(detection, near, truths, len(detections))
    object_ = np.where(object_ == NONE, swapped, object_)
    missed = ~truths.crowd
    missed[object_[object_ != NONE]] = False

    paired, false = np.flatnonzero(object_ != NONE), others[object_[others] == NONE]
    at = np.r_[object_[paired], np.flatnonzero(missed)]
    inside = np.concatenate([contains(bins, truths.area[at]), contains(bins, detections.area[false])], 1)
    rows = np.r_[truths.category[at], np.full(len(false), classes)]
    columns = np.r_[
        detections.category[paired], np.full(int(missed.sum()), classes), detections.category[false]
    ]  # fmt: skip
    cells = rows * (classes + 1) + columns
    return np.stack(
        [np.bincount(cells[counts], minlength=(classes + 1) ** 2).reshape(classes + 1, -1) for counts in inside]
    )


def at_places(run: Detections, places: Ints) -> Detections:
    """Some detections of a run, in that order."""
    return replace(
        run, image_id=run.image_id[places], category_id=run.category_id[places], boxes=run.boxes[places],
        scores=run.scores[places], rles=None if run.rles is None else Masks.of(run.rles).at(places),
        excused=None if run.excused is None else run.excused[places],
    )  # fmt: skip


def overlaps(
    truths: Objects, detections: Objects, of: Ints, by: Ints, iou_type: str, lowest: float
) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Detection, object and IoU of those in one image, whatever their classes, best scores and IoUs first.

    Args:
        truths, detections: sorted as `find_candidates` does.
        of: places of the objects that are looked at.
        by: places of the detections.
        iou_type: 'bbox' or 'segm'.
        lowest: IoU.
    """
    flat: list[Objects] = []
    for objects, places in ((truths, of), (detections, by)):
        chosen = objects.at(places)
        flat.append(replace(chosen, category=np.zeros_like(chosen.category)))
    detection, object_, iou = find_overlaps(flat[0], flat[1], 1, iou_type, lowest)
    order = np.lexsort((-object_, -iou, detection, -flat[1].scores[detection]))
    return by[detection[order]], of[object_[order]], iou[order]


def pair(detection: Ints, object_: Ints, truths: Objects, detections: int) -> tuple[Ints, Bools]:
    """Let detections take objects, each the first that is free; a crowd is only ever the last resort, and stays free.

    Args:
        detection, object_: pairs that may be formed, those of one detection together, its favourite first.
        truths: the objects.
        detections: their number.

    Returns:
        The object of each detection, or `NONE`; and whether it is ignored, because it lies in a crowd.
    """
    chosen, ignored = np.full(detections, NONE), np.zeros(detections, np.bool_)
    taken: set[int] = set()
    last = NONE  # the detection that has its object
    for d, o, crowd in zip(detection.tolist(), object_.tolist(), truths.crowd[object_].tolist(), strict=True):
        if crowd:
            ignored[d] = True
        elif d != last and o not in taken:
            taken.add(o)
            chosen[d], last = o, d
    return chosen, ignored & (chosen == NONE)
