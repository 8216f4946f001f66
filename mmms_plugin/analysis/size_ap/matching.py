"""Greedy matching of detections to ground truth for all bins and IoU thresholds at once.

The rules are those of pycocotools 2.0 (``COCOeval.evaluateImg``), to the last tie: detections of an image and class
take, in order of score, the free object of highest IoU at or above the threshold, an object of the bin before one
outside it, the later annotation before the earlier at equal IoU; crowds can be taken any number of times. Equal scores
keep the order of the file, then of the images. A match with the annotation of id 0 counts as none there, and so here.

How it is fast: IoU comes from pycocotools' compiled code and only for pairs of image and class that hold both objects
and detections; only detections that reach the lowest threshold with some object are walked through, the n-th such
detection of every pair at once, over all bins and thresholds; all others are unmatched everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.analysis.size_ap.bins import contains
from mmms_plugin.analysis.size_ap.data import RLE, Detections, GroundTruth
from mmms_plugin.analysis.size_ap.results import Bin

IOU_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
UNMATCHED, REGULAR, IGNORED = 0, 1, 2

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Objects:
    """Ground truth or detections as the matching walks through them: sorted, ids replaced by indices.

    Ground truth is sorted by pair of image and class, detections by class and falling score.
    """

    image: Ints
    category: Ints
    area: Floats
    boxes: Floats
    rles: tuple[RLE, ...] | None
    crowd: NDArray[np.bool_]
    scores: Floats
    rank: Ints  # within image and class, best score first
    id_zero: NDArray[np.bool_]  # of annotations

    def __len__(self) -> int:
        return len(self.image)

    def at(self, index: Ints) -> Objects:
        """The objects at ``index``, in that order."""
        arrays = {name: getattr(self, name)[index] for name in _COLUMNS}
        return replace(self, rles=None if self.rles is None else tuple(self.rles[i] for i in index), **arrays)


_COLUMNS = ("image", "category", "area", "boxes", "crowd", "scores", "rank", "id_zero")


@dataclass(frozen=True)
class Candidates:
    """Objects and detections of one run, and every pair of them that reaches the lowest IoU threshold.

    Attributes:
        images, categories: how many.
        truths, detections: sorted.
        live: ``(l,)`` positions of detections with at least one candidate, ascending.
        edge_live, edge_truth, edge_iou: ``(edges,)`` index into ``live``, object and IoU of every candidate.
        thresholds: IoU thresholds.
    """

    images: int
    categories: int
    truths: Objects
    detections: Objects
    live: Ints
    edge_live: Ints
    edge_truth: Ints
    edge_iou: Floats
    thresholds: Floats


@dataclass(frozen=True)
class Matches:
    """What became of every detection in every bin and at every threshold, and nothing else; the bootstrap reuses it.

    Attributes:
        candidates: what was matched.
        bins: the bins.
        in_bin: ``(bins, detections)`` whether the detection's own area lies in the bin.
        counted: ``(bins, truths)`` whether the object counts: in the bin and no crowd.
        status: ``(live, bins, thresholds)`` int8 `UNMATCHED`, `REGULAR` (true positive) or `IGNORED`.
    """

    candidates: Candidates
    bins: tuple[Bin, ...]
    in_bin: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    status: NDArray[np.int8]


def find_candidates(
    truth: GroundTruth,
    run: Detections,
    iou_type: str = "bbox",
    area: str = "annotation",
    max_dets: int = 100,
    thresholds: tuple[float, ...] = IOU_THRESHOLDS,
    class_agnostic: bool = False,
) -> Candidates:
    """Sort objects and detections and compute the IoUs that can matter.

    Args:
        truth, run: the data; what is in unknown images or categories is left out.
        iou_type: IoU of boxes ('bbox') or of masks ('segm').
        area: where areas come from, a key of `mmms_plugin.analysis.size_ap.data.AREAS`.
        max_dets: detections per image and class, best scores first.
        thresholds: IoU thresholds.
        class_agnostic: treat all classes as one (pycocotools' ``useCats = 0``).
    """
    images, categories = np.unique(truth.image_ids), np.unique(truth.category_ids)
    truths = _sorted_truths(truth, images, categories, truth.areas(area), class_agnostic)
    found = _sorted_detections(run, images, categories, run.areas(area, iou_type), max_dets, class_agnostic)
    limits = np.minimum(np.asarray(thresholds, dtype=np.float64), 1 - 1e-10)  # pycocotools' own upper limit
    classes = 1 if class_agnostic else len(categories)
    detection, object_, iou = _overlaps(truths, found, classes, iou_type, limits.min(initial=1.0))
    order = np.lexsort((-object_, -iou, detection))
    detection, object_, iou = detection[order], object_[order], iou[order]
    live, edge_live = np.unique(detection, return_inverse=True)
    return Candidates(len(images), classes, truths, found, live, edge_live, object_, iou, limits)


def match(candidates: Candidates, bins: tuple[Bin, ...]) -> Matches:
    """Match for all bins and thresholds."""
    truths, detections = candidates.truths, candidates.detections
    counted = contains(bins, truths.area) & ~truths.crowd
    status = np.zeros((len(candidates.live), len(bins), len(candidates.thresholds)), dtype=np.int8)
    taken = np.zeros((len(truths), *status.shape[1:]), dtype=np.bool_)
    for walk in _rounds(candidates):
        _match_round(candidates, walk, counted.T, taken, status)
    return Matches(candidates, bins, contains(bins, detections.area), counted, status)


def _match_round(
    candidates: Candidates,
    walk: list[Ints],
    counted: NDArray[np.bool_],
    taken: NDArray[np.bool_],
    status: NDArray[np.int8],
) -> None:
    """One detection of every pair picks; ``walk`` holds the edges of first choice, of second choice, ..."""
    first = candidates.edge_live[walk[0]]
    slot = np.full(len(status), -1) if len(walk) > 1 else None
    if slot is not None:
        slot[first] = np.arange(len(first))
    chosen = np.full((len(first), *status.shape[1:]), -1)
    state = np.zeros(chosen.shape, dtype=np.int8)
    for edges in walk:
        row = np.arange(len(first)) if slot is None else slot[candidates.edge_live[edges]]
        object_ = candidates.edge_truth[edges]
        free = ~taken[object_] & (candidates.edge_iou[edges, None] >= candidates.thresholds)[:, None, :]
        inside = counted[object_][:, :, None]
        now = state[row]
        regular, ignored = free & inside & (now != REGULAR), free & ~inside & (now == UNMATCHED)
        state[row] = np.where(regular, REGULAR, np.where(ignored, IGNORED, now))
        chosen[row] = np.where(regular | ignored, object_[:, None, None], chosen[row])
    row, bin_, threshold = np.nonzero(chosen >= 0)
    object_ = chosen[row, bin_, threshold]
    lost = candidates.truths.id_zero[object_] & (state[row, bin_, threshold] == REGULAR)
    state[row[lost], bin_[lost], threshold[lost]] = UNMATCHED
    status[first] = state
    taken[object_, bin_, threshold] = ~candidates.truths.crowd[object_]


def _rounds(candidates: Candidates) -> list[list[Ints]]:
    """For the n-th live detection of all pairs: indices of their first edges, of their second edges, ..."""
    if not len(candidates.live):
        return []
    detections = candidates.detections
    pair = detections.image[candidates.live] * candidates.categories + detections.category[candidates.live]
    turn = _rank_within(pair, np.lexsort((detections.rank[candidates.live], pair)))[candidates.edge_live]
    choice = _rank_within(candidates.edge_live, np.arange(len(turn)))
    order = np.lexsort((choice, turn))
    key = turn[order] * (choice.max() + 1) + choice[order]
    groups = np.split(order, np.flatnonzero(np.diff(key)) + 1)
    rounds: list[list[Ints]] = [[] for _ in range(turn.max() + 1)]
    for group in groups:
        rounds[turn[group[0]]].append(group)
    return rounds


def _rank_within(group: Ints, order: Ints) -> Ints:
    """Each element's place (0, 1, ...) within its group, where ``order`` sorts by group first."""
    ordered = group[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, len(ordered)])
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(starts, lengths)
    return rank


def _overlaps(truths: Objects, found: Objects, classes: int, iou_type: str, lowest: float) -> tuple[Ints, Ints, Floats]:
    """Detection, object and IoU of every two of one image and class that overlap by ``lowest`` or more."""
    from pycocotools import mask as mask_utils

    truth_pair = truths.image * classes + truths.category
    found_pair = found.image * classes + found.category
    by_pair = np.lexsort((found.rank, found_pair))
    by_pair = by_pair[np.isin(found_pair[by_pair], truth_pair)]
    pairs, starts = np.unique(found_pair[by_pair], return_index=True)
    ends = np.r_[starts, len(by_pair)][1:]
    firsts, lasts = np.searchsorted(truth_pair, pairs), np.searchsorted(truth_pair, pairs, side="right")
    crowd = truths.crowd.astype(np.uint8)
    boxes = found.boxes[by_pair]
    edges: list[tuple[Ints, Ints, Floats]] = []
    limits = np.stack((starts, ends, firsts, lasts), 1)
    for start, end, first, last in limits.tolist():
        if iou_type == "bbox":
            ious = mask_utils.iou(boxes[start:end], truths.boxes[first:last], crowd[first:last])
        else:
            masks = [found.rles[i] for i in by_pair[start:end]]  # type: ignore[index]
            ious = mask_utils.iou(masks, list(truths.rles[first:last]), crowd[first:last])  # type: ignore[index]
        row, column = np.nonzero(ious >= lowest)
        if len(row):
            edges.append((row + start, column + first, ious[row, column]))
    if not edges:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    row, column, iou = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    return by_pair[row], column, iou


def _sorted_truths(truth: GroundTruth, images: Ints, categories: Ints, area: Floats, agnostic: bool) -> Objects:
    image, category, known = _indices(truth, images, categories)
    zeros = np.zeros(len(truth), np.int64)
    objects = Objects(image, category, area, truth.boxes, truth.rles, truth.iscrowd, zeros.astype(float), zeros,
                      truth.ids == 0)  # fmt: skip
    order = np.lexsort((category, image))
    objects = objects.at(order[known[order]])
    return replace(objects, category=np.zeros_like(objects.category)) if agnostic else objects


def _sorted_detections(
    run: Detections, images: Ints, categories: Ints, area: Floats, max_dets: int, agnostic: bool
) -> Objects:
    image, category, known = _indices(run, images, categories)
    group = np.zeros_like(category) if agnostic else category
    zeros = np.zeros(len(run), np.int64)
    objects = Objects(image, group, area, run.boxes, run.rles, zeros.astype(bool), run.scores, zeros,
                      zeros.astype(bool))  # fmt: skip
    # the original classes settle ties of score where classes are merged
    order = np.lexsort((category, -run.scores, group, image))
    order = order[known[order]]
    pair = image[order] * (len(categories) + 1) + group[order]
    rank = np.zeros(len(run), np.int64)
    rank[order] = _rank_within(pair, np.arange(len(order)))
    order = order[rank[order] < max_dets]
    order = order[np.lexsort((-run.scores[order], group[order]))]
    return replace(objects, rank=rank).at(order)


def _indices(data: GroundTruth | Detections, images: Ints, categories: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    image, known_image = _positions(data.image_id, images)
    category, known_category = _positions(data.category_id, categories)
    return image, category, known_image & known_category


def _positions(ids: Ints, known: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    if not len(known):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
    place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return place, known[place] == ids
