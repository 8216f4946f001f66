"""Annotations that are probably wrong, because models that were trained on others disagree with them.

Detections of all models are grouped: in order of score, each takes those of its picture and class that overlap it with
an IoU of at least 0.5. The support of a group is the mean of the models' best scores in it, 0 for models that are not.
A group takes the annotated object of its class of highest IoU, if that is at least 0.5. Then, with scores from 0 to 1:

    missing  a group without an object. Support, times 1 - 2 IoU with the nearest object of its class
    box      a group and its object, or a free object of its class of IoU 0.1 to 0.5. Support, times twice what the IoU
             lacks of 1, beyond what the models' own boxes lack among each other; at most 1
    class    a group of another class than an object that it overlaps by at least 0.5. Support, times 1 - the support
             of the object's own class

An object, and a group, is suspected once, for its highest score. Overlap is that of boxes, of detections inside their
picture. Groups in crowds of their class, or on a crowd of any class (IoU of at least 0.5), and detections that LVIS's
rules excuse, are left out.

The three kinds are those of ObjectLab (Tkachenko, Thyagarajan, Mueller, arXiv:2309.00832): overlooked, badly located,
swapped. Its scores are of single models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import Detections, GroundTruth, box_areas, positions
from mmms_plugin.size_ap.bins import Bin, contains
from mmms_plugin.size_ap.kernel.matching import Objects, find_overlaps
from mmms_plugin.size_ap.resizing import with_factors
from mmms_plugin.size_ap.results import Suspects
from mmms_plugin.size_ap.scores import check_probabilities

KINDS = ("missing", "box", "class")
MISSING, BOX, CLASS = range(len(KINDS))
NONE = -1
SAME, NEAR = 0.5, 0.1  # IoU
LOWEST = 0.05  # score
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class _Groups(NamedTuple):
    """Groups of detections, most support first: their most confident detection, and what the models say together."""

    leaders: Objects
    support: Floats
    spread: Floats  # 1 - mean IoU of the models' best boxes with the leader's
    models: Ints


def find_suspects(
    truth: GroundTruth,
    runs: Sequence[Detections],
    bins: tuple[Bin, ...],
    area: str,
    most: int,
    factors: Floats | None = None,
) -> Suspects:
    """The most suspicious annotations, and objects that the annotation lacks.

    Args:
        truth: annotations.
        runs: of each model; none should have been trained on these pictures.
        bins: of the evaluation.
        area: what determines an object's size.
        most: number of suspects.
        factors: as in `mmms_plugin.size_ap.kernel.matching.find_candidates`.

    Raises:
        UserError: scores that are not from 0 to 1.
    """
    groups = _grouped(truth, runs)
    leaders, support = groups.leaders, groups.support
    order = np.lexsort((positions(truth.category_id, truth.category_ids), positions(truth.image_id, truth.image_ids)))
    truths = _objects(truth, order)
    group, object_, iou = find_overlaps(_one_class(truths), _one_class(leaders), 1, "bbox", NEAR)
    by_support = np.lexsort((-iou, group))
    group, object_, iou = group[by_support], object_[by_support], iou[by_support]
    crowd, own = truths.crowd[object_], leaders.category[group] == truths.category[object_]
    left_out = np.zeros(len(leaders), np.bool_)
    on_crowd = _inside(leaders.boxes[group], truths.boxes[object_])
    left_out[group[crowd & (iou >= np.where(own, SAME, on_crowd))]] = True

    of_group, of_object = np.full(len(leaders), NONE), np.full(len(truths), NONE)
    same = own & ~crowd & (iou >= SAME)
    for g, o in zip(group[same].tolist(), object_[same].tolist(), strict=True):
        if of_group[g] == NONE and of_object[o] == NONE:
            of_group[g], of_object[o] = o, g
    known = np.where(of_object == NONE, 0.0, np.append(support, 0.0)[of_object])
    free = of_group[group] == NONE
    swapped = ~own & ~crowd & (iou >= SAME) & free
    apart = own & ~crowd & np.where(iou < SAME, free & (of_object[object_] == NONE), of_group[group] == object_)
    nearest, beside = np.zeros(len(leaders)), own & ~crowd
    np.maximum.at(nearest, group[beside], iou[beside])
    left_out[group[swapped]] |= True  # not missing, but swapped
    alone = np.flatnonzero((of_group == NONE) & ~left_out)
    parts = (
        (MISSING, alone, np.full(len(alone), NONE), nearest[alone], support[alone] * (1 - nearest[alone] / SAME)),
        (BOX, group[apart], object_[apart], iou[apart], support[group[apart]]
         * np.clip((1 - iou[apart] - groups.spread[group[apart]]) / SAME, 0, 1)),
        (CLASS, group[swapped], object_[swapped], iou[swapped], support[group[swapped]]
         * (1 - known[object_[swapped]])),
    )  # fmt: skip
    kind = np.concatenate([np.full(len(part[1]), part[0]) for part in parts])
    group, object_, iou, score = (np.concatenate([part[i] for part in parts]) for i in range(1, 5))  # type: ignore
    chosen, total = _once(group, object_, score, most)
    group, object_ = group[chosen], object_[chosen]
    annotation = np.where(object_ == NONE, NONE, np.append(order, NONE)[object_])
    sizes = np.where(object_ == NONE, box_areas(leaders.boxes)[group], np.append(truth.areas(area), 0.0)[annotation])
    sizes = with_factors(sizes, truth.image_ids[leaders.image[group]], truth.image_ids, factors)
    return Suspects(
        kind=kind[chosen], score=score[chosen], image=leaders.image[group], annotation=annotation,
        category=leaders.category[group], box=leaders.boxes[group], iou=iou[chosen], models=groups.models[group],
        in_bin=contains(bins, sizes), of_models=len(runs), total=total,
    )  # fmt: skip


def _inside(boxes: Floats, crowds: Floats) -> Floats:
    """The share of each box inside its crowd, as overlap with crowds is measured, at which the IoU is `SAME`."""
    own, whole = box_areas(boxes), box_areas(crowds)
    return SAME / (1 + SAME) * (own + whole) / own


def _once(group: Ints, object_: Ints, score: Floats, most: int) -> tuple[Ints, int]:
    """Places of the highest scores, every group and object once; and how many there are without a limit."""
    chosen, groups, objects = [], set(), {NONE}
    for place in np.argsort(-score, kind="stable").tolist():
        g, o = int(group[place]), int(object_[place])
        if score[place] < LOWEST:
            break
        if g not in groups and (o == NONE or o not in objects):
            groups.add(g)
            objects.add(o)
            chosen.append(place)
    return np.array(chosen[:most], np.int64), len(chosen)


def _grouped(truth: GroundTruth, runs: Sequence[Detections]) -> _Groups:
    found = [_detections(truth, run) for run in runs]
    model = np.repeat(np.arange(len(runs)), [len(objects) for objects in found])
    every = _joined(found)
    order = np.lexsort((-every.scores, every.category, every.image))
    every, model = every.at(order), model[order]
    classes = len(truth.category_ids)
    member, leader, iou = find_overlaps(every, every, classes, "bbox", SAME)
    by_leader = np.lexsort((-every.scores[member], leader))
    member, leader, iou = member[by_leader], leader[by_leader], iou[by_leader]
    starts = np.searchsorted(leader, np.arange(len(every) + 1)).tolist()
    members, ious, models_of, scores = member.tolist(), iou.tolist(), model.tolist(), every.scores.tolist()
    taken = [False] * len(every)
    leaders, support, spread, models = [], [], [], []
    for first in np.argsort(-every.scores, kind="stable").tolist():
        if taken[first]:
            continue
        best: dict[int, int] = {}  # of each model, its most confident detection
        for i in range(starts[first], starts[first + 1]):
            if not taken[members[i]]:
                taken[members[i]] = True
                best.setdefault(models_of[members[i]], i)
        others = [1 - ious[i] for i in best.values() if members[i] != first]
        leaders.append(first)
        support.append(sum(scores[members[i]] for i in best.values()) / len(runs))
        spread.append(sum(others) / len(others) if others else 0.0)
        models.append(len(best))
    place = np.lexsort((np.arange(len(leaders)), -np.array(support)))
    chosen = every.at(np.array(leaders, np.int64)[place])
    return _Groups(chosen, np.array(support)[place], np.array(spread)[place], np.array(models, np.int64)[place])


def _detections(truth: GroundTruth, run: Detections) -> Objects:
    check_probabilities(run.scores, "--suspects", run.name)
    image, category = positions(run.image_id, truth.image_ids), positions(run.category_id, truth.category_ids)
    sizes = truth.image_sizes[image]
    limits = np.where(sizes > 0, sizes, np.inf)
    low = run.boxes[:, :2].clip(0, limits)
    high = (run.boxes[:, :2] + run.boxes[:, 2:]).clip(0, limits)
    boxes = np.concatenate([low, high - low], 1)
    kept = (image >= 0) & (category >= 0) & (run.scores >= LOWEST) & (box_areas(boxes) > 0)
    kept &= True if run.excused is None else ~run.excused
    places = np.flatnonzero(kept)
    none = np.zeros(len(places), np.bool_)
    return _bare(image[places], category[places], boxes[places], none, run.scores[places])


def _objects(truth: GroundTruth, order: Ints) -> Objects:
    image, category = positions(truth.image_id, truth.image_ids), positions(truth.category_id, truth.category_ids)
    return _bare(image[order], category[order], truth.boxes[order], truth.iscrowd[order], np.zeros(len(order)))


def _bare(image: Ints, category: Ints, boxes: Floats, crowd: NDArray[np.bool_], scores: Floats) -> Objects:
    zeros = np.zeros(len(image), np.int64)
    return Objects(image, category, box_areas(boxes), boxes, None, crowd, scores, zeros, zeros == 1)


def _joined(parts: Sequence[Objects]) -> Objects:
    columns = ("image", "category", "boxes", "crowd", "scores")
    return _bare(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def _one_class(objects: Objects) -> Objects:
    return _bare(objects.image, np.zeros_like(objects.category), objects.boxes, objects.crowd, objects.scores)
