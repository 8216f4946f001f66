"""Objects that several tiles found: suppressed (NMS) or joined (NMM), class by class.

The rules are those of SAHI 0.12.8 (github.com/obss/sahi, ``postprocess``): ``NMSPostprocess``, ``GreedyNMMPostprocess``
and ``NMMPostprocess`` with ``class_agnostic=False``.

Deviations:
1. NMM also joins different boxes of equal scores; SAHI joins these only if the boxes are equal too.
2. Overlaps are computed in float64, SAHI's first ones in float32.
3. A threshold of 0, at which SAHI matches boxes that do not touch, is not allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.tiles.rule import GREEDY, NMM, NMS, Rule

AT_ONCE = 1 << 20  # pairs whose overlaps are computed together
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def merged(boxes: Floats, scores: Floats, labels: Ints, rule: Rule) -> list[Ints]:
    """Which boxes remain, the best first, each followed by those that are joined to it.

    Args:
        boxes: ``[n, 4]`` left, top, right, bottom.
        scores: ``[n]``
        labels: ``[n]`` classes.
        rule: of the matches.

    Returns:
        Places in ``boxes``; the object's box is the union of its boxes, its score that of the first.
    """
    boxes = np.asarray(boxes, np.float64)
    ranked = np.lexsort((*boxes.T[::-1], -scores))  # equal scores by their boxes, whatever the order of the tiles
    found: list[Ints] = []
    for label in np.unique(labels):
        places = ranked[labels[ranked] == label]
        found += [places[group] for group in _groups(boxes[places], places, rule)]
    rank = np.argsort(ranked)
    return sorted(found, key=lambda group: rank[group[0]])


def _groups(boxes: Floats, places: Ints, rule: Rule) -> Iterator[list[int]]:
    """The same of one class, of boxes that are sorted, as their numbers."""
    begins, matches = _matches(boxes, rule)
    after = [matches[begins[i] : begins[i + 1]] for i in range(len(boxes))]
    gone = np.zeros(len(boxes), np.bool_)
    if rule.method == NMS:
        for i in range(len(boxes)):
            if not gone[i]:
                gone[after[i]] = True
                yield [i]
        return
    groups: dict[int, list[int]] = {}
    keeper = np.arange(len(boxes))
    for i in range(len(boxes)):
        if not gone[i]:
            groups[i] = []
        elif rule.method == GREEDY:
            continue
        free = after[i][~gone[after[i]]]
        if rule.method == NMM:
            free = free[np.argsort(places[free])]
        gone[free], keeper[free] = True, keeper[i]
        groups[keeper[i]] += free.tolist()
    for i, others in groups.items():
        group, box = [i], boxes[i]
        for other in others:  # the box grows, and may no longer match
            if _overlaps(box[None], boxes[other, None], rule.metric)[0] >= rule.threshold:
                group.append(other)
                box = np.append(np.minimum(box[:2], boxes[other, :2]), np.maximum(box[2:], boxes[other, 2:]))
        yield group


def _matches(boxes: Floats, rule: Rule) -> tuple[Ints, Ints]:
    """The later boxes that each box matches: where each list begins, and the lists, ascending, one after another."""
    order = np.argsort(boxes[:, 0], kind="stable")
    lefts, rights = boxes[order, 0], boxes[order, 2]
    # candidates begin, from left to right, before a box ends
    counts = np.maximum(np.searchsorted(lefts, rights) - np.arange(len(order)) - 1, 0)
    total = np.cumsum(counts)
    pairs: list[Ints] = [np.zeros((0, 2), np.int64)]
    starts = np.arange(0, total[-1] if len(total) else 0, AT_ONCE)  # none where no boxes are candidates
    cuts = [*np.unique(np.searchsorted(total, starts, side="right")), len(order)]
    for begin, end in pairwise(cuts):
        several = counts[begin:end]
        one = np.repeat(np.arange(begin, end), several)
        other = np.arange(len(one)) - np.repeat(np.cumsum(several) - several, several) + one + 1
        one, other = order[one], order[other]
        match = _overlaps(boxes[one], boxes[other], rule.metric) >= rule.threshold
        pairs.append(np.sort(np.stack((one[match], other[match]), 1), 1))
    table = np.concatenate(pairs)
    table = table[np.lexsort(table.T[::-1])]
    return np.searchsorted(table[:, 0], np.arange(len(boxes) + 1)), table[:, 1]


def _overlaps(a: Floats, b: Floats, metric: str) -> Floats:
    """IoU or IoS of boxes in pairs, 0 where an area is 0."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    inter = np.maximum(sides, 0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    whole = areas[0] + areas[1] - inter if metric == "iou" else np.minimum(*areas)
    return np.divide(inter, whole, out=np.zeros_like(inter), where=whole > 0)
