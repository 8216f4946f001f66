"""Why AP is lost, by object size: TIDE's error types for every bin, as the AP50 gained if one type were fixed.

Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2.
Types and fixes are those of the paper and its package (tidecv 1.0.1), assigned in this order to unmatched detections,
with IoU 0.5 for a match and 0.1 for background:

    localisation    overlaps an object of its class by 0.1 to 0.5. Fixed: it matches that object, if no other does
    classification  overlaps an object of another class by 0.5. Fixed: it gets that class, and matches if no other does
    duplicate       overlaps an object of its class that another detection matches. Fixed: it is removed
    background      overlaps nothing by more than 0.1. Fixed: it is removed
    both            all others. Fixed: it is removed
    missed          an object that no detection matches, nor a fixed one. Fixed: it no longer counts as an object

Of several detections that would match one object only the best is fixed; the others are removed. Gains do not add up.

A bin counts what its AP counts: its objects, detections that match them, and unmatched detections of its size. A
detection of another size is not a false positive there, but once fixed it can match an object of the bin.

Deviations from tidecv:
1. A class without objects (in a bin: without objects there) has no AP; tidecv counts it as 0 if it has detections.
2. AP is pycocotools': its 101 recall levels differ from tidecv's in the last bit, which moves AP if recall is exactly a
   whole hundredth. With tidecv's levels the figures are equal.
3. Detections are limited per image and class, as in AP; tidecv takes the best 100 of an image. Files of detectors that
   keep 100 per image give the same figures.
4. A fixed error can cost AP (a class may lose its last object); tidecv shows 0 instead of the negative gain.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.bins import Bin
from mmms_plugin.size_ap.kernel.accumulate import Accumulator, mean_defined
from mmms_plugin.size_ap.kernel.bootstrap import draw
from mmms_plugin.size_ap.kernel.matching import (
    IGNORED,
    REGULAR,
    UNMATCHED,
    Candidates,
    Matches,
    Objects,
    falling_order,
    find_overlaps,
    match,
    stable_order,
)
from mmms_plugin.size_ap.results import ERROR_TYPES

MATCH, BACKGROUND = 0.5, 0.1  # IoU
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND_TYPE, MISSED = range(len(ERROR_TYPES))
NONE = -1
Ints = NDArray[np.int64]
Places = NDArray[np.int32]  # of millions of detections, which 64 bits would double
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorGains:
    """One bin's errors: by type, in the order of `ERROR_TYPES`.

    Attributes:
        ap50: the bin's AP50 as it is, NaN without objects.
        counts: (types,) int64, errors of each type.
        gains: (types,) AP50 if all errors of that type were fixed, minus AP50 as it is.
        draws: (replicates, types) gains in every replicate of the bootstrap; no rows without bootstrap.
    """

    ap50: float
    counts: Ints
    gains: Floats
    draws: Floats


@dataclass(frozen=True)
class _Neighbours:
    """The object that every detection overlaps most, of its own and of other classes, and the IoU (0 if below 0.1)."""

    own: Floats
    own_object: Places
    other: Floats
    other_object: Places
    twins: tuple[Ints, Ints]  # detection and object of its class, of IoU 0.5 and above


@dataclass(frozen=True)
class _Errors:
    """Of one bin: error type of every detection or `NONE`, whether and what it matches when fixed; missed objects."""

    kind: NDArray[np.int8]
    fixed: Bools
    target: Places
    missed: Bools
    hit: Bools
    false: Bools  # positives


@dataclass(frozen=True)
class Instances:
    """The single errors of one run.

    Attributes:
        kind: ``(n,)`` index into `ERROR_TYPES`.
        detection, object_: ``(n,)`` positions among the candidates' detections and truths, or `NONE`: the detection,
            and the object that it overlaps most (of its class or of another, depending on the type).
        iou: ``(n,)`` of the two, 0 if they do not overlap by more than 0.1.
        in_bin: ``(bins, n)`` whether the bin counts the error.
    """

    kind: NDArray[np.int8]
    detection: Places
    object_: Places
    iou: Floats
    in_bin: Bools


def error_gains(
    candidates: Candidates,
    bins: tuple[Bin, ...],
    iou_type: str,
    replicates: int = 0,
    seed: int = 0,
    workers: int = 2,
    single: bool = False,
) -> tuple[list[ErrorGains], Instances | None]:
    """The errors of one run in every bin, and, if asked for, the ``single`` errors behind the counts.

    Args:
        candidates: of the run, at any thresholds.
        bins: the first holds all sizes.
        iou_type: 'bbox' or 'segm'.
        replicates, seed: of the image bootstrap; its draws are those of `kernel.bootstrap`.
        workers: number of threads.
        single: whether to return `Instances`; else None.
    """
    kept = candidates.edge_iou >= MATCH
    matches = match(_at_one_threshold(candidates, kept), bins)
    neighbours = _neighbours(candidates, iou_type)
    detections = candidates.detections
    by_score = falling_order(stable_order(np.arange(len(detections)), detections.image), detections.scores)
    by_bin, codes = [], []
    for i in range(len(bins)):
        errors = _classify(matches, i, neighbours)
        rows = np.stack([_ap50(scenario, matches.counted[i], replicates, seed, workers)
                         for scenario in _scenarios(matches, i, errors, by_score)], 1)  # fmt: skip
        gains = rows[:, 1:] - rows[:, :1]
        counted = np.flatnonzero(_counted(errors, matches.in_bin[i]))
        kinds = errors.kind[counted].astype(np.int64)
        counts = np.bincount(kinds, minlength=len(ERROR_TYPES))
        counts[MISSED] = errors.missed.sum()
        by_bin.append(ErrorGains(float(rows[0, 0]), counts, gains[0], gains[1:]))
        if single:  # a number for a detection and its type, then for a missed object
            missed = MISSED * len(detections) + np.flatnonzero(errors.missed)
            codes.append(np.append(kinds * len(detections) + counted, missed))
    return by_bin, _instances(candidates, neighbours, codes) if single else None


def _instances(candidates: Candidates, near: _Neighbours, codes: list[Ints]) -> Instances:
    """The errors that every bin counts, by their ``codes``."""
    detections = len(candidates.detections)
    every = np.sort(np.concatenate(codes))
    every = every[np.diff(every, prepend=-1) > 0]  # np.unique hashes, which takes ten times as long
    in_bin = np.zeros((len(codes), len(every)), np.bool_)
    for inside, code in zip(in_bin, codes, strict=True):
        inside[np.searchsorted(every, code)] = True
    starts = np.arange(MISSED + 1) * detections  # of each type
    counts = np.diff(np.searchsorted(every, starts), append=len(every))
    kind = np.repeat(np.arange(MISSED + 1, dtype=np.int8), counts)
    place = (every - np.repeat(starts, counts)).astype(np.int32)
    missed_ = kind == MISSED
    detection = np.where(missed_, np.int32(NONE), place)
    other = (kind == CLASSIFICATION) | (np.isin(kind, (BOTH, BACKGROUND_TYPE)) & _at(near.other > near.own, detection))
    object_ = np.where(other, _at(near.other_object, detection), _at(near.own_object, detection))
    iou = np.where(other, _at(near.other, detection), _at(near.own, detection))
    object_ = np.where(missed_, place, object_)
    return Instances(kind, detection, object_, np.where(missed_, 0.0, iou), in_bin)


def _at(values: NDArray, places: Ints) -> NDArray:
    """The values at the places; at `NONE` an arbitrary value."""
    return np.append(values, values[:1])[places] if len(values) else np.zeros(len(places), values.dtype)


def _counted(errors: _Errors, in_bin: Bools) -> Bools:
    """Detections whose error the bin counts."""
    return (errors.false | errors.fixed | in_bin) & (errors.kind != NONE)


def _at_one_threshold(candidates: Candidates, kept: Bools) -> Candidates:
    """Only the candidates of IoU 0.5 and above."""
    detection = candidates.live[candidates.edge_live[kept]]
    live, edge_live = np.unique(detection, return_inverse=True)
    edges = candidates.edge_truth[kept], candidates.edge_iou[kept]
    return replace(candidates, live=live, edge_live=edge_live, edge_truth=edges[0], edge_iou=edges[1],
                   thresholds=np.array([MATCH]))  # fmt: skip


def _neighbours(candidates: Candidates, iou_type: str) -> _Neighbours:
    truths, detections = candidates.truths, candidates.detections
    flat = [replace(o, category=np.zeros_like(o.category)) for o in (truths, detections)]
    detection, object_, iou = find_overlaps(flat[0], flat[1], 1, iou_type, BACKGROUND)
    real = ~truths.crowd[object_]
    detection, object_, iou = detection[real], object_[real], iou[real]
    own = detections.category[detection] == truths.category[object_]
    best = [_best(detection[side], object_[side], iou[side], len(detections)) for side in (own, ~own)]
    twins = own & (iou >= MATCH)
    return _Neighbours(*best[0], *best[1], twins=(detection[twins], object_[twins]))


def _best(detection: Ints, object_: Ints, iou: Floats, detections: int) -> tuple[Floats, Places]:
    """Every detection's highest IoU, 0 if it has none, and the object, the earlier of equals.

    The pairs of a detection follow each other, its objects rising, as `find_overlaps` returns them.
    """
    highest, at = np.zeros(detections), np.full(detections, NONE, np.int32)
    if len(detection):
        starts = np.flatnonzero(np.diff(detection, prepend=NONE))
        highest[detection[starts]] = np.maximum.reduceat(iou, starts)
        best = np.flatnonzero(iou == highest[detection])[::-1]  # the last one written stays
        at[detection[best]] = object_[best]
    return highest, at


def _classify(matches: Matches, bin_: int, near: _Neighbours) -> _Errors:
    detections, truths = matches.candidates.detections, matches.candidates.truths
    status, everywhere = (_status(matches, i) for i in (bin_, 0))
    used, counted = matches.taken[:, bin_, 0], matches.counted[bin_]
    # a match outside the bin is not an error there; one with a crowd region may be, if fixing makes it a match
    error = (status == UNMATCHED) | ((status == IGNORED) & (everywhere == IGNORED))
    twin = np.zeros(len(detections), np.bool_)
    twin[near.twins[0][used[near.twins[1]]]] = True
    types = (
        (LOCALISATION, (near.own >= BACKGROUND) & (near.own <= MATCH)),
        (CLASSIFICATION, near.other >= MATCH),
        (DUPLICATE, twin),
        (BACKGROUND_TYPE, np.maximum(near.own, near.other) <= BACKGROUND),
    )
    kind = np.full(len(detections), NONE, np.int8)
    kind[error] = BOTH
    for number, fits in reversed(types):  # the first that fits stays
        kind[error & fits] = number
    target = np.full(len(detections), NONE, np.int32)
    for number, objects in ((LOCALISATION, near.own_object), (CLASSIFICATION, near.other_object)):
        np.copyto(target, objects, where=kind == number)
    reachable = np.flatnonzero(target != NONE)
    reachable = reachable[counted[target[reachable]] & ~used[target[reachable]]]
    order = reachable[np.lexsort((detections.rank[reachable], -detections.scores[reachable], target[reachable]))]
    _, first = np.unique(target[order], return_index=True)
    fixed = np.zeros(len(detections), np.bool_)
    fixed[order[first]] = True
    missed = counted & ~used
    missed[target[reachable]] = False
    false = (status == UNMATCHED) & matches.in_bin[bin_]
    return _Errors(kind, fixed, target, missed & ~truths.crowd, status == REGULAR, false)


def _status(matches: Matches, bin_: int) -> NDArray[np.int8]:
    """Status of every detection, including those without candidates."""
    status = np.zeros(len(matches.candidates.detections), np.int8)
    status[matches.candidates.live] = matches.status[:, bin_, 0]
    return status


def _scenarios(matches: Matches, bin_: int, errors: _Errors, by_score: Ints) -> Iterator[Matches]:
    """One bin at one threshold as it is, then with the errors of each type fixed.

    ``by_score`` are the detections by falling score, those of equal score by image.
    """
    counted = matches.counted[bin_]
    detections = matches.candidates.detections
    yield _points(matches, errors.hit, errors.false, detections.category, counted, by_score)
    for kind in range(len(ERROR_TYPES)):
        chosen = errors.kind == kind
        fixed = chosen & errors.fixed
        category = detections.category
        if kind == CLASSIFICATION:
            category = category.copy()
            category[fixed] = matches.candidates.truths.category[errors.target[fixed]]
        remaining = counted & ~errors.missed if kind == MISSED else counted
        yield _points(matches, errors.hit | fixed, errors.false & ~chosen, category, remaining, by_score)


def _points(matches: Matches, hit: Bools, false: Bools, category: Ints, counted: Bools, by_score: Ints) -> Matches:
    """Matches of one bin with these true and false positives; other detections do not exist."""
    candidates, detections = matches.candidates, matches.candidates.detections
    exists = hit | false
    at = np.flatnonzero(exists)
    if category is not detections.category:
        at = stable_order(by_score[exists[by_score]], category)
    # the only columns that the accumulator reads; a copy of all takes longer than the rest of a scenario
    nothing: dict[str, Any] = dict.fromkeys(("area", "boxes", "crowd", "scores", "rank", "id_zero"), np.zeros(0))
    chosen: Objects = replace(detections, image=detections.image[at], category=category[at], masks=None, **nothing)
    status = np.where(hit[at], REGULAR, UNMATCHED).astype(np.int8)[:, None, None]
    points = replace(candidates, detections=chosen, live=np.arange(len(at)))
    return Matches(points, matches.bins[:1], np.ones((1, len(at)), np.bool_), counted[None], status, matches.taken)


def _ap50(points: Matches, asked: Bools, replicates: int, seed: int, workers: int) -> Floats:
    """(1 + replicates,) mean AP50 over classes: of the images themselves, then of every draw.

    The classes of the objects ``asked`` count. A class without objects once its missed ones are fixed has AP 0 if it
    has detections, as in tidecv; otherwise its AP is undefined.
    """
    accumulator = Accumulator(points)
    truths, detections, classes = points.candidates.truths, points.candidates.detections, points.candidates.categories

    def classes_of(objects: Objects, kept: Bools | slice, weights: NDArray[np.int32] | None) -> Bools:
        weight = None if weights is None else weights[objects.image[kept]]
        return np.bincount(objects.category[kept], weight, classes) > 0

    def ap50(replicate: int) -> float:
        weights = draw(points.candidates.images, seed, replicate) if replicate >= 0 else None
        ap = accumulator.scores(weights).ap[0, 0]
        if points.counted[0].sum() < asked.sum():
            bare = np.isnan(ap) & classes_of(truths, asked, weights) & classes_of(detections, slice(None), weights)
            ap = np.where(bare, 0.0, ap)
        return float(mean_defined(ap, 0))

    with ThreadPoolExecutor(workers) as pool:
        return np.array(list(pool.map(ap50, range(-1, replicates))))
