"""Greedy matching of detections to ground truth for all bins and IoU thresholds at once.

The rules are those of pycocotools 2.0 (``COCOeval.evaluateImg``), down to ties: detections of an image and class take,
in order of score, the free object of highest IoU at or above the threshold, an object of the bin before one outside it,
the later annotation before the earlier at equal IoU; crowds can be taken any number of times. Equal scores keep the
order of the file, then of the images. As in pycocotools, a match with the annotation of id 0 does not count.

Why it is fast: IoU is computed only if an image and class hold both objects and detections, of masks by pycocotools'
compiled code, of boxes for many images at once by the same formula. Only detections that reach the lowest threshold
with some object are walked through, the n-th such detection of every pair at once, over all bins and thresholds; all
others are unmatched everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import Detections, GroundTruth, positions
from mmms_plugin.coco.run_lengths import Masks
from mmms_plugin.size_ap.bins import Bin, contains
from mmms_plugin.size_ap.resizing import with_factors

IOU_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
UNMATCHED, REGULAR, IGNORED = 0, 1, 2

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Edges = tuple[Ints, Ints, Floats]
AT_ONCE = 1 << 15  # pairs of boxes that fit into the processor's cache


@dataclass(frozen=True)
class Objects:
    """Ground truth or detections as the matching walks through them: sorted, ids replaced by indices.

    Ground truth is sorted by pair of image and class, detections by class and falling score. A detection with ``crowd``
    is not a false positive if it is unmatched.
    """

    image: Ints
    category: Ints
    area: Floats
    boxes: Floats
    masks: Masks | None
    crowd: NDArray[np.bool_]
    scores: Floats
    rank: Ints  # within image and class, best score first
    id_zero: NDArray[np.bool_]  # of annotations

    def __len__(self) -> int:
        return len(self.image)

    def at(self, index: Ints) -> Objects:
        """The objects at ``index``, in that order."""
        arrays = {name: np.take(getattr(self, name), index, axis=0) for name in _COLUMNS}
        return replace(self, masks=self.masks and self.masks.at(index), **arrays)


_COLUMNS = ("image", "category", "area", "boxes", "crowd", "scores", "rank", "id_zero")


@dataclass(frozen=True)
class Candidates:
    """Objects and detections of one run, and every pair of them that reaches the lowest IoU threshold.

    Attributes:
        images, categories: their numbers.
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
    """The outcome of every detection in every bin and at every threshold; the bootstrap reuses it.

    Attributes:
        candidates: what was matched.
        bins: the bins.
        in_bin: ``(bins, detections)`` whether the detection's own area lies in the bin, so that it is a false positive
            if it is unmatched.
        counted: ``(bins, truths)`` whether the object counts: it is in the bin and not a crowd.
        status: ``(live, bins, thresholds)`` int8 `UNMATCHED`, `REGULAR` (true positive) or `IGNORED`.
        taken: ``(truths, bins, thresholds)`` whether a detection matched the object; False for crowds.
    """

    candidates: Candidates
    bins: tuple[Bin, ...]
    in_bin: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    status: NDArray[np.int8]
    taken: NDArray[np.bool_]


def find_candidates(
    truth: GroundTruth,
    run: Detections,
    iou_type: str = "bbox",
    area: str = "annotation",
    max_dets: int = 100,
    thresholds: tuple[float, ...] = IOU_THRESHOLDS,
    class_agnostic: bool = False,
    factors: Floats | None = None,
) -> Candidates:
    """Sort objects and detections and compute the IoUs that can matter.

    Args:
        truth, run: the data; anything in unknown images or categories is left out.
        iou_type: IoU of boxes ('bbox') or of masks ('segm').
        area: where areas come from, a key of `mmms_plugin.coco.objects.AREAS`.
        max_dets: largest number of detections per image and class, best scores first.
        thresholds: IoU thresholds.
        class_agnostic: treat all classes as one (pycocotools' ``useCats = 0``).
        factors: ``(images,)`` by which areas in each of ``truth.image_ids`` are multiplied; None for 1.
    """
    images, categories = np.unique(truth.image_ids), np.unique(truth.category_ids)
    areas = with_factors(truth.areas(area), truth.image_id, truth.image_ids, factors)
    truths = _sorted_truths(truth, images, categories, areas, class_agnostic)
    areas = with_factors(run.areas(area, iou_type), run.image_id, truth.image_ids, factors)
    detections = _sorted_detections(run, images, categories, areas, max_dets, class_agnostic)
    limits = np.minimum(np.asarray(thresholds, dtype=np.float64), 1 - 1e-10)  # pycocotools' own upper limit
    classes = 1 if class_agnostic else len(categories)
    detection, object_, iou = find_overlaps(truths, detections, classes, iou_type, limits.min(initial=1.0))
    order = np.lexsort((-object_, -iou, detection))
    detection, object_, iou = detection[order], object_[order], iou[order]
    live, edge_live = np.unique(detection, return_inverse=True)
    return Candidates(len(images), classes, truths, detections, live, edge_live, object_, iou, limits)


def matched_between(candidates: Candidates, low: float, high: float) -> Candidates:
    """What can change matches and figures of bins from area ``low`` to ``high``: the results are the same.

    Left out are detections of other areas that have no candidate, and pairs of image and class in which neither an
    object nor a detection with a candidate has such an area. Boxes, masks and scores, which matching does not need, are
    left out too.
    """
    truths, detections, live = candidates.truths, candidates.detections, candidates.live
    truth_inside, inside = ((low <= o.area) & (o.area <= high) for o in (truths, detections))
    changes = (np.diff(truths.image, prepend=-1) != 0) | (np.diff(truths.category, prepend=-1) != 0)
    pair = np.cumsum(changes) - 1  # truths are sorted by it
    live_pair = np.zeros(len(live), np.int64)
    live_pair[candidates.edge_live] = pair[candidates.edge_truth]
    needed = np.zeros(len(truths), np.bool_)  # pairs
    needed[pair[truth_inside]] = True
    needed[live_pair[inside[live]]] = True
    kept_truths, kept_live = needed[pair], needed[live_pair]
    kept = inside
    kept[live] = kept_live
    edges = kept_live[candidates.edge_live]
    return replace(
        candidates,
        truths=_without_shapes(truths).at(np.flatnonzero(kept_truths)),
        detections=_without_shapes(detections).at(np.flatnonzero(kept)),
        live=(np.cumsum(kept) - 1)[live[kept_live]],
        edge_live=(np.cumsum(kept_live) - 1)[candidates.edge_live[edges]],
        edge_truth=(np.cumsum(kept_truths) - 1)[candidates.edge_truth[edges]],
        edge_iou=candidates.edge_iou[edges],
    )


def _without_shapes(objects: Objects) -> Objects:
    nothing = np.zeros((len(objects), 0))
    return replace(objects, boxes=nothing, scores=nothing, masks=None)


def match(candidates: Candidates, bins: tuple[Bin, ...]) -> Matches:
    """Match for all bins and thresholds."""
    truths, detections = candidates.truths, candidates.detections
    counted = contains(bins, truths.area) & ~truths.crowd
    status = np.zeros((len(candidates.live), len(bins), len(candidates.thresholds)), dtype=np.int8)
    taken = np.zeros((len(truths), *status.shape[1:]), dtype=np.bool_)
    single = np.bincount(candidates.edge_live, minlength=len(status)) == 1
    for walk in _rounds(candidates):
        alone = single[candidates.edge_live[walk[0]]]
        _match_single(candidates, walk[0][alone], counted.T, taken, status)
        if not alone.all():
            _match_round(candidates, [walk[0][~alone], *walk[1:]], counted.T, taken, status)
    in_bin = contains(bins, detections.area) & ~detections.crowd
    return Matches(candidates, bins, in_bin, counted, status, taken)


def _match_single(
    candidates: Candidates,
    edges: Ints,
    counted: NDArray[np.bool_],
    taken: NDArray[np.bool_],
    status: NDArray[np.int8],
) -> None:
    """One detection of every pair takes its only candidate: what `_match_round` does, in a quarter of the time."""
    object_ = candidates.edge_truth[edges]
    took = ~taken[object_] & (candidates.edge_iou[edges, None] >= candidates.thresholds)[:, None]
    inside = counted[object_]
    inside_state = np.where(candidates.truths.id_zero[object_], UNMATCHED, REGULAR).astype(np.int8)
    status[candidates.edge_live[edges]] = took * np.where(inside, inside_state[:, None], np.int8(IGNORED))[:, :, None]
    kept = np.flatnonzero(~candidates.truths.crowd[object_])
    taken[object_[kept]] |= took[kept]


def _match_round(
    candidates: Candidates,
    walk: list[Ints],
    counted: NDArray[np.bool_],
    taken: NDArray[np.bool_],
    status: NDArray[np.int8],
) -> None:
    """One detection of every pair chooses; ``walk`` holds the edges of first choice, of second choice, ..."""
    first = candidates.edge_live[walk[0]]
    slot = np.full(len(status), -1) if len(walk) > 1 else None
    if slot is not None:
        slot[first] = np.arange(len(first))
    chosen = np.full((len(first), *status.shape[1:]), -1, np.int32)
    state = np.zeros(chosen.shape, dtype=np.int8)
    for edges in walk:
        row = np.arange(len(first)) if slot is None else slot[candidates.edge_live[edges]]
        object_ = candidates.edge_truth[edges]
        free = ~taken[object_] & (candidates.edge_iou[edges, None] >= candidates.thresholds)[:, None, :]
        inside = counted[object_][:, :, None]
        now = state[row]
        regular, ignored = free & inside & (now != REGULAR), free & ~inside & (now == UNMATCHED)
        state[row] = np.where(regular, REGULAR, np.where(ignored, IGNORED, now))
        chosen[row] = np.where(regular | ignored, object_.astype(np.int32)[:, None, None], chosen[row])
    for edges in walk:  # the detections of a round are of different pairs, and so are the objects
        row = np.arange(len(first)) if slot is None else slot[candidates.edge_live[edges]]
        object_ = candidates.edge_truth[edges]
        took = chosen[row] == object_[:, None, None]
        taken[object_] |= took & ~candidates.truths.crowd[object_][:, None, None]
        zero = np.flatnonzero(candidates.truths.id_zero[object_])
        if len(zero):
            state[row[zero]] = np.where(took[zero] & (state[row[zero]] == REGULAR), UNMATCHED, state[row[zero]])
    status[first] = state


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
    rank = np.zeros(len(group), dtype=np.int64)
    rank[order] = np.arange(len(ordered)) - np.repeat(starts, lengths)
    return rank


def find_overlaps(
    truths: Objects, detections: Objects, classes: int, iou_type: str, lowest: float
) -> tuple[Ints, Ints, Floats]:
    """Detection, object and IoU of all that are in one image and class and have an IoU of at least ``lowest``."""
    truth_pair = truths.image * classes + truths.category
    by_pair = stable_order(np.arange(len(detections)), detections.image)  # in an image by class and score, as they are
    pair = detections.image[by_pair] * classes + detections.category[by_pair]
    starts = np.flatnonzero(np.diff(pair, prepend=-1))
    ends = np.append(starts, len(pair))[1:]
    firsts, lasts = (np.searchsorted(truth_pair, pair[starts], side=side) for side in ("left", "right"))
    both = lasts > firsts
    limits = np.stack((starts, ends, firsts, lasts), 1)[both]
    parts = [_box_overlaps, _mask_overlaps][iou_type == "segm"](truths, detections, by_pair, limits, lowest)
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    detection, object_, iou = (np.concatenate(part) for part in zip(*parts, strict=True))
    return detection, object_, iou


def _pairs(by_pair: Ints, limits: Ints) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Detections, some thousand at a time, and all pairs of one and an object: the place among them, the object."""
    starts, ends, firsts, lasts = limits.T
    row = by_pair[_spans(starts, ends)]
    first, objects = np.repeat(firsts, ends - starts), np.repeat(lasts - firsts, ends - starts)
    cuts = np.searchsorted(np.cumsum(objects), np.arange(AT_ONCE, objects.sum() + AT_ONCE, AT_ONCE)) + 1
    begin = 0
    for end in np.minimum(cuts, len(row)).tolist():
        mine = np.repeat(np.arange(end - begin), objects[begin:end])
        yield row[begin:end], mine, _spans(first[begin:end], first[begin:end] + objects[begin:end])
        begin = end


def _box_overlaps(truths: Objects, detections: Objects, by_pair: Ints, limits: Ints, lowest: float) -> list[Edges]:
    """As ``bbIou`` of pycocotools, for all pairs of image and class at once, some thousand boxes at a time."""
    theirs, edges = _corners(truths.boxes), []
    for part, mine, other in _pairs(by_pair, limits):
        ours = _corners(np.take(detections.boxes, part, axis=0))
        mine, other, iou = _box_ious(ours, theirs, mine, other, truths.crowd)
        kept = iou >= lowest
        edges.append((part[mine[kept]], other[kept], iou[kept]))
    return edges


def _corners(boxes: Floats) -> list[Floats]:
    """Left, right, upper and lower sides, and areas."""
    x, y, width, height = (np.ascontiguousarray(column) for column in boxes.T)
    return [x, x + width, y, y + height, width * height]


def _box_ious(ours: list[Floats], theirs: list[Floats], mine: Ints, other: Ints, crowd: NDArray[np.bool_]) -> Edges:
    """The pairs that overlap, and their IoU (of a crowd, the share of the detection in it)."""
    sides: list[Floats] = []
    for low, high in ((0, 1), (2, 3)):
        side = np.minimum(ours[high][mine], theirs[high][other]) - np.maximum(ours[low][mine], theirs[low][other])
        kept = np.flatnonzero(side > 0)
        mine, other, sides = mine[kept], other[kept], [lengths[kept] for lengths in (*sides, side)]
    common, area = sides[0] * sides[1], ours[4][mine]
    return mine, other, common / np.where(crowd[other], area, area + theirs[4][other] - common)


def _mask_overlaps(truths: Objects, detections: Objects, by_pair: Ints, limits: Ints, lowest: float) -> list[Edges]:
    """By pycocotools, of the detections that can have such an IoU: by area, and by the columns of pixels they reach."""
    from pycocotools import mask as mask_utils

    ours, theirs, crowd = detections.masks, truths.masks, truths.crowd.astype(np.uint8)
    assert ours is not None
    assert theirs is not None
    edges: list[Edges] = []
    pair = truths.image * (truths.category.max(initial=0) + 1) + truths.category
    for part, mine, other in _pairs(by_pair, limits):
        area, columns, areas = ours.areas[part][mine], ours.columns[part][mine], theirs.areas[other]
        highest = np.minimum(area, areas) / np.maximum(np.where(truths.crowd[other], area, np.maximum(area, areas)), 1)
        beside = (columns[:, 1] <= theirs.columns[other, 0]) | (theirs.columns[other, 1] <= columns[:, 0])
        kept = np.flatnonzero((highest >= lowest) & ~beside)
        rows, first = np.unique(mine[kept], return_index=True)
        objects = np.unique(other[kept])
        our_rles, their_rles = ours.rles(part[rows]), theirs.rles(objects)
        our_groups, their_groups = (pairwise(_limits(pair[of])) for of in (other[kept][first], objects))
        for (start, end), (begin, stop) in zip(our_groups, their_groups, strict=True):
            near = objects[begin:stop]
            ious = mask_utils.iou(our_rles[start:end], their_rles[begin:stop], crowd[near])
            row, column = np.nonzero(ious >= lowest)
            edges.append((part[rows[start + row]], near[column], ious[row, column]))
    return edges


def _limits(groups: Ints) -> list[int]:
    """Where every run of equal values starts, and the end of the last."""
    return [*np.flatnonzero(np.diff(groups, prepend=-1)).tolist(), len(groups)]


def _spans(starts: Ints, ends: Ints) -> Ints:
    """The integers from each start to before each end, one span after the other."""
    lengths = ends - starts
    return np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)


def stable_order(order: Ints, key: Ints, keys: int | None = None) -> Ints:
    """``order`` stably sorted by the ``key`` of the elements it points to; keys are small integers >= 0.

    NumPy sorts 16 bits by counting, in a tenth of the time that 64 bits take.
    """
    most = int(key.max(initial=0)) if keys is None else keys
    for shift in range(0, max(most.bit_length(), 1), 16):
        digit = (key >> shift & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def falling_order(order: Ints, scores: Floats) -> Ints:
    """``order`` stably sorted by falling score of the elements it points to.

    NumPy sorts integers several times as fast as it argsorts. So the place goes into the last bits of a score; scores
    that differ only in those bits are sorted again, the slow way.
    """
    ordered = scores[order] + 0.0  # no -0.0
    bits = ordered.view(np.int64)
    rising = np.where(bits < 0, ~bits ^ np.int64(-(2**63)), bits)  # integers in the order of the floats
    shift = max(len(order) - 1, 1).bit_length()
    packed = (~rising >> shift << shift) | np.arange(len(order))
    packed.sort()
    by_score = packed & ((1 << shift) - 1)
    ranked = ordered[by_score]
    if (ranked[1:] > ranked[:-1]).any():
        rest = packed >> shift
        alike = np.append(rest[1:] == rest[:-1], False)
        alike[1:] |= alike[:-1]
        places = np.flatnonzero(alike)
        by_score[places] = by_score[places][np.argsort(-ordered[by_score[places]], kind="stable")]
    return order[by_score]


def _sorted_truths(truth: GroundTruth, images: Ints, categories: Ints, area: Floats, agnostic: bool) -> Objects:
    image, category, known = _indices(truth, images, categories)
    zeros = np.zeros(len(truth), np.int64)
    masks = None if truth.rles is None else Masks.of(truth.rles)
    objects = Objects(image, category, area, truth.boxes, masks, truth.iscrowd, zeros.astype(float), zeros,
                      truth.ids == 0)  # fmt: skip
    order = np.lexsort((category, image))
    objects = objects.at(order[known[order]])
    return replace(objects, category=np.zeros_like(objects.category)) if agnostic else objects


def _sorted_detections(
    run: Detections, images: Ints, categories: Ints, area: Floats, max_dets: int, agnostic: bool
) -> Objects:
    image, category, known = _indices(run, images, categories)
    group = np.zeros_like(category) if agnostic else category
    order = np.flatnonzero(known)
    if agnostic:  # the original classes settle ties of score where classes are merged
        order = stable_order(order, category)
    order = stable_order(falling_order(stable_order(order, image), run.scores), group)
    rank = _rank_within(image * (len(categories) + 1) + group, stable_order(order, image))[order]
    if rank.max(initial=0) >= max_dets:
        order, rank = order[rank < max_dets], rank[rank < max_dets]
    image, group = image[order], group[order]
    none = np.zeros(len(order), np.bool_)
    excused = none if run.excused is None else run.excused[order]
    masks = None if run.rles is None else Masks.of(run.rles).at(order)
    boxes = np.take(run.boxes, order, axis=0)  # NumPy's brackets take five times as long
    return Objects(image, group, area[order], boxes, masks, excused, run.scores[order], rank, none)


def _indices(data: GroundTruth | Detections, images: Ints, categories: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    image, category = positions(data.image_id, images), positions(data.category_id, categories)
    known = (image >= 0) & (category >= 0)
    return image, category, known
