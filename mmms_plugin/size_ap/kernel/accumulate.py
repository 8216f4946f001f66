"""From matches to precision, recall and AP, for any weights of the images, without loops over detections or classes.

Weights are how often an image counts: ones are the data set itself, zeros and ones a part of it, multinomial counts a
bootstrap replicate. A weight of two is the same as the image being there twice under different ids (of equal scores
within one image and class, all copies of the first come before those of the second).

Rules are pycocotools' (``COCOeval.accumulate``): precision at 101 recall levels, each the highest precision at that
recall or above; AP is their mean, undefined without objects. Precision changes only where a true positive is, so curves
are kept at those alone: with ``c`` true positives and ``f`` false positives up to there, precision is
``c / (f + c + eps)`` and recall ``c / objects``. False positives are the detections of the bin up to there less those
that are matched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.kernel.matching import IGNORED, REGULAR, Matches

RECALLS = np.linspace(0.0, 1.00, int(np.round((1.00 - 0.0) / 0.01)) + 1, endpoint=True)  # as pycocotools writes it
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """AP and recall by bin, IoU threshold and class; NaN where there is no object.

    Attributes:
        ap, recall: ``(bins, thresholds, classes)`` float64.
        objects: ``(bins, classes)`` weighted count of objects.
    """

    ap: Floats
    recall: Floats
    objects: Floats


@dataclass(frozen=True)
class _Curves:
    """Of every entry: envelope of precision, and number of recall levels reached before and after it."""

    envelope: Floats
    before: Ints
    after: Ints
    recall: Floats  # of every segment


class _Buffers(threading.local):
    """Arrays that a thread reuses in every replicate: allocating them would take longer than filling them.

    The length and type of an array are those of its first use.
    """

    def __init__(self) -> None:
        self._held: dict[str, NDArray] = {}

    def get(self, name: str, size: int, dtype: type) -> NDArray:
        if name not in self._held:
            self._held[name] = np.empty(size, dtype)
        return self._held[name]


def _new(_: str, size: int, dtype: type) -> NDArray:
    return np.empty(size, dtype)


class Accumulator:
    """Matches sorted once into curves, one segment per bin, threshold and class that has matches.

    Args:
        matches: of one run.
        max_det: largest number of detections per image and class that count; None for all that were matched.
    """

    def __init__(self, matches: Matches, max_det: int | None = None) -> None:
        candidates = matches.candidates
        detections, live = candidates.detections, candidates.live
        self._buffers = _Buffers()
        self.shape = (len(matches.bins), len(candidates.thresholds), candidates.categories)
        kept = np.ones(len(detections), np.bool_) if max_det is None else detections.rank < max_det
        in_bin = matches.in_bin & kept
        status = np.where(kept[live, None, None], matches.status, 0).transpose(1, 2, 0)
        truths = candidates.truths
        object_bin, which = np.nonzero(matches.counted)
        self._object_image = truths.image[which]
        self._object_cell = object_bin * self.shape[2] + truths.category[which]
        used = np.flatnonzero((status == REGULAR) | ((status == IGNORED) & in_bin[:, None, live]))
        true_positive = np.take(status, used) == REGULAR
        cell, which = np.divmod(used, max(len(live), 1))  # of bin and threshold
        bin_, place = cell // self.shape[1], live[which]
        del used, which  # half a million entries for COCO's validation set
        self._entry_image = detections.image[place].astype(np.int32)
        self._hit = true_positive.astype(np.int32)
        # a matched detection is no false positive, although the detections of the bin hold it
        self._correction = self._hit - in_bin[bin_, place]
        cell *= self.shape[2]
        cell += detections.category[place]
        self._segments, self._starts, self._lengths = _runs(cell)
        del cell
        self._sort_bins(in_bin, detections.image, detections.category, bin_, place)

    def _sort_bins(self, in_bin: NDArray[np.bool_], image: Ints, category: Ints, bin_: Ints, place: Ints) -> None:
        """Count the detections of the bin before each entry and each segment; keep their images, for the bootstrap."""
        self._in_bin, self._image = in_bin, image
        first = np.searchsorted(category, np.arange(self.shape[2]))
        segment_bin, _, segment_class = np.unravel_index(self._segments, self.shape)
        begin = first[segment_class]
        self._entry_place, self._segment_place = np.zeros(len(place), np.int32), np.zeros(len(begin), np.int64)
        up_to, offset = np.zeros(len(image) + 1, np.int32), 0  # one bin at a time: all together take much memory
        for number, inside in enumerate(in_bin):
            np.cumsum(inside, out=up_to[1:])
            entries, segments = (slice(*np.searchsorted(of, (number, number + 1))) for of in (bin_, segment_bin))
            self._entry_place[entries] = up_to[1:][place[entries]] + offset
            self._segment_place[segments] = up_to[begin[segments]] + offset
            offset += int(up_to[-1])

    @cached_property
    def _places(self) -> tuple[Ints, Ints, Ints]:
        """For the bootstrap: images of every entry and of the detections of every bin, and places of the entries.

        In 64 bits, to which NumPy would otherwise convert them on every use.
        """
        images = np.concatenate([self._image[inside] for inside in self._in_bin])
        return self._entry_image.astype(np.int64), images.astype(np.int64), self._entry_place.astype(np.int64)

    @cached_property
    def _of_entry(self) -> tuple[Ints, Floats]:
        """Every entry's segment, and a number that falls by 1 from segment to segment."""
        segment = np.repeat(np.arange(len(self._segments)), self._lengths)
        return segment, (len(self._segments) - segment).astype(np.float64)

    def scores(self, weights: NDArray[np.int32] | None = None) -> Scores:
        """AP and recall with ``weights`` ``(images,)`` integers, how often every image counts; None once each."""
        objects = self.objects(weights)
        curves = self._curves(weights, objects)
        ap, recall = (np.where(objects > 0, 0.0, np.nan)[:, None].repeat(self.shape[1], 1) for _ in range(2))
        if len(self._segments):
            area = np.add.reduceat(curves.envelope * (curves.after - curves.before), self._starts) / len(RECALLS)
            defined = ~np.isnan(ap.ravel()[self._segments])
            ap.ravel()[self._segments[defined]] = area[defined]
            recall.ravel()[self._segments[defined]] = curves.recall[defined]
        return Scores(ap, recall, objects)

    def precision(self, threshold: int) -> Floats:
        """``(bins, classes, 101)`` precision at the recall levels, for one IoU threshold; NaN without objects.

        Its mean over the levels is AP.
        """
        objects = self.objects()
        curves = self._curves(None, objects)
        table = np.where(objects > 0, 0.0, np.nan)[..., None].repeat(len(RECALLS), 2)
        bins, thresholds, classes = np.unravel_index(self._segments, self.shape)
        segment = self._of_entry[0]
        chosen = np.flatnonzero((thresholds == threshold)[segment] & (curves.after > curves.before))
        chosen = chosen[objects[bins[segment[chosen]], classes[segment[chosen]]] > 0]
        count = curves.after[chosen] - curves.before[chosen]
        level = np.arange(count.sum()) + np.repeat(curves.before[chosen] - np.cumsum(count) + count, count)
        cell = np.repeat(segment[chosen], count)
        table[bins[cell], classes[cell], level] = np.repeat(curves.envelope[chosen], count)
        return table

    def objects(self, weights: NDArray[np.int32] | None = None) -> Floats:
        """``(bins, classes)`` weighted count of objects."""
        weight = None if weights is None else weights[self._object_image]
        size = self.shape[0] * self.shape[2]
        count = np.bincount(self._object_cell, weight, size)
        return count.reshape(self.shape[0], self.shape[2]).astype(np.float64)

    def _curves(self, weights: NDArray[np.int32] | None, objects: Floats) -> _Curves:
        size, get = len(self._hit), _new if weights is None else self._buffers.get
        hits, seen = self._counts(weights, get)
        precision, recall = get("precision", size, np.float64), get("recall", size, np.float64)
        np.add(seen, np.spacing(1), out=precision)
        np.divide(hits, precision, out=precision)
        segment_bin, _, segment_class = np.unravel_index(self._segments, self.shape)
        total = np.maximum(objects[segment_bin, segment_class], 1)
        np.take(total, self._of_entry[0], out=recall, mode="clip")
        np.divide(hits, recall, out=recall)
        last = recall[self._starts + self._lengths - 1] if size else recall
        after, before = get("after", size, np.int64), get("before", size, np.int64)
        _levels(recall, after, get("level", size, np.float64))
        after *= hits > 0
        before[1:] = after[:-1]
        before[self._starts] = 0
        return _Curves(self._envelope(precision), before, after, last)

    def _counts(self, weights: NDArray[np.int32] | None, get: Callable[[str, int, type], NDArray]) -> tuple[Ints, Ints]:
        """True positives, and detections of the bin, of every entry's segment up to the entry."""
        size = len(self._hit)
        hits, seen = get("hits", size, np.int64), get("seen", size, np.int64)
        if weights is None:
            np.cumsum(self._hit, out=hits)
            np.cumsum(self._correction, out=seen)
            corrected = _before(seen, self._starts) + self._segment_place
            seen += self._entry_place
        else:
            entry_image, bin_image, entry_place = self._places
            in_bin = get("in_bin", len(bin_image) + 1, np.int64)
            drawn, entry = get("drawn", len(bin_image), np.int64), get("entry", size, np.int64)
            weights = weights.astype(np.int64)
            in_bin[0] = 0
            np.cumsum(np.take(weights, bin_image, out=drawn, mode="clip"), out=in_bin[1:])
            np.take(weights, entry_image, out=entry, mode="clip")
            np.cumsum(np.multiply(entry, self._hit, out=hits), out=hits)
            np.cumsum(np.multiply(entry, self._correction, out=seen), out=seen)
            corrected = _before(seen, self._starts) + in_bin[self._segment_place]
            seen += np.take(in_bin, entry_place, out=entry, mode="clip")
        segment, other = self._of_entry[0], get("other", size, np.int64)
        hits -= np.take(_before(hits, self._starts), segment, out=other, mode="clip")
        seen -= np.take(corrected, segment, out=other, mode="clip")
        return hits, seen

    def _envelope(self, precision: Floats) -> Floats:
        """Highest precision from each entry to the end of its segment, computed in place."""
        # precision is at most 1, so a step of 1 from segment to segment keeps the maximum within the segment
        step = self._of_entry[1]
        precision += step
        np.maximum.accumulate(precision[::-1], out=precision[::-1])
        precision -= step
        return precision


def _before(total: Ints, starts: Ints) -> Ints:
    return np.where(starts > 0, total[starts - 1], 0) if len(starts) else starts


def _levels(recall: Floats, out: Ints, level: Floats) -> None:
    """Number of recall levels up to ``recall``, compared as pycocotools' searchsorted does; overwrites ``level``."""
    np.multiply(recall, len(RECALLS) - 1, out=level)
    level += 1e-9
    np.copyto(out, level, casting="unsafe")
    np.take(RECALLS, out, out=level, mode="clip")
    out += recall >= level


def _runs(values: Ints) -> tuple[Ints, Ints, Ints]:
    """Value, start and length of every run of equal values."""
    if not len(values):
        empty = np.zeros(0, np.int64)
        return empty, empty, empty
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    return values[starts], starts, np.diff(np.r_[starts, len(values)])


def recall_at(matches: Matches, max_det: int) -> Floats:
    """``(bins, thresholds, classes)`` recall of the best ``max_det`` detections per image and class.

    Matching goes by falling score, so detections after the first ``max_det`` do not affect them.
    """
    detections, live = matches.candidates.detections, matches.candidates.live
    best = detections.rank[live] < max_det
    hit, classes = (matches.status[best] == REGULAR), matches.candidates.categories
    starts = np.searchsorted(detections.category[live[best]], np.arange(classes + 1))
    total = np.zeros((len(hit) + 1, *hit.shape[1:]), np.int32)
    np.cumsum(hit, 0, out=total[1:])
    hits = np.diff(total[starts], axis=0).transpose(1, 2, 0)
    truths = matches.candidates.truths
    objects = np.stack([np.bincount(truths.category[inside], minlength=classes) for inside in matches.counted])
    return np.where(objects[:, None] > 0, hits / np.maximum(objects, 1)[:, None], np.nan)


def mean_defined(values: Floats, axis: int | tuple[int, ...]) -> Floats:
    """Mean over ``axis`` of the defined values; NaN, without a warning, if there are none."""
    defined = ~np.isnan(values)
    count = defined.sum(axis)
    total = np.where(defined, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
