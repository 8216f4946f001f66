"""Score thresholds by bin and class: the score from which to keep detections, for F1, or a precision or recall.

Counted is what AP50 counts (`kernel.matching`): objects of the bin, detections that match them, and unmatched
detections of the bin's size. Keeping detections of score s or more, precision is TP / (TP + FP), recall TP / objects,
and F1 their harmonic mean, 2 TP / (TP + FP + objects). Detections of equal score are kept together. Of equally good
scores the highest is chosen:

    f1         the largest F1 above 0
    precision  the largest recall among scores whose precision is at least that asked for
    recall     the highest score whose recall is at least that asked for
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.kernel.matching import REGULAR, UNMATCHED, Matches, falling_order

GOALS = ("f1", "precision", "recall")
NONE = -1
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Goal:
    """What a threshold is chosen for: a name of `GOALS`, and the precision or recall asked for."""

    name: str = "f1"
    value: float = 0.0

    def __str__(self) -> str:
        return "highest F1" if self.name == "f1" else f"{self.name} of at least {self.value:g}"


@dataclass(frozen=True)
class Kept:
    """Of every cell: ``(bins, classes)`` floats, NaN where nothing is chosen; weighted counts."""

    score: Floats
    hits: Floats
    kept: Floats
    objects: Floats

    @property
    def figures(self) -> Floats:
        """``(4, bins, classes)`` score, precision, recall, F1; NaN where undefined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = self.hits / self.kept
            recall = np.where(self.objects > 0, self.hits / self.objects, np.nan)
            f1 = np.where(self.objects > 0, 2 * self.hits / (self.kept + self.objects), np.nan)
        return np.stack([self.score, precision, recall, f1])


class Ranked:
    """The detections of one run that count at one IoU threshold, in cells of bin and class, by falling score.

    Args:
        matches: of the run.
        threshold: place of the IoU threshold.
        merged: put all classes into one, ranked together.
    """

    def __init__(self, matches: Matches, threshold: int, merged: bool = False) -> None:
        candidates, detections = matches.candidates, matches.candidates.detections
        status = np.zeros((len(matches.bins), len(detections)), np.int8)
        status[:, candidates.live] = matches.status[:, :, threshold].T
        counts = (status == REGULAR) | (matches.in_bin & (status == UNMATCHED))
        order = falling_order(np.arange(len(detections)), detections.scores) if merged else None
        bin_, place = np.nonzero(counts if order is None else counts[:, order])
        place = place if order is None else order[place]
        classes = 1 if merged else candidates.categories
        self.shape = (len(matches.bins), classes)
        cell = bin_ * classes + (0 if merged else detections.category[place])
        self._score, self._image = detections.scores[place], detections.image[place]
        self._hit = (status[bin_, place] == REGULAR).astype(np.int64)
        last = np.ones(len(cell), np.bool_)  # of its score in its cell
        last[:-1] = (cell[1:] != cell[:-1]) | (self._score[1:] != self._score[:-1])
        ends = np.flatnonzero(last)
        # a score without a match is never better than the one above it
        self._ends = ends[np.diff(np.cumsum(self._hit)[ends], prepend=0) > 0]
        self._cell = cell[self._ends]
        self._starts = np.flatnonzero(np.diff(self._cell, prepend=NONE))
        self._group = np.cumsum(np.diff(self._cell, prepend=NONE) != 0) - 1  # of every end, the place in _starts
        self._before = np.searchsorted(cell, self._cell)  # detections before the end's cell
        object_bin, which = np.nonzero(matches.counted)
        self._object_image = candidates.truths.image[which]
        self._object_cell = object_bin * classes + (0 if merged else candidates.truths.category[which])

    def drawn(self, goal: Goal, chosen: Ints, weights: NDArray[np.int32]) -> Floats:
        """``(4, bins, classes)`` in a draw of images: the score chosen anew; precision, recall and F1 of ``chosen``."""
        counts = self._counts(weights)
        anew = self._kept(self._chosen(goal, *counts), *counts).score
        return np.concatenate([anew[None], self._kept(chosen, *counts).figures[1:]])

    def _counts(self, weights: NDArray[np.int32] | None) -> tuple[Floats, Floats, Floats]:
        """Hits and kept detections at every end, and objects of every cell."""
        weight = None if weights is None else weights[self._image].astype(np.int64)
        hits = np.concatenate([[0], np.cumsum(self._hit if weight is None else self._hit * weight)])
        seen = np.arange(len(self._hit) + 1) if weight is None else np.concatenate([[0], np.cumsum(weight)])
        after, before = self._ends + 1, self._before
        of_objects = None if weights is None else weights[self._object_image]
        objects = np.bincount(self._object_cell, of_objects, self.shape[0] * self.shape[1]).astype(np.float64)
        return (hits[after] - hits[before]).astype(float), (seen[after] - seen[before]).astype(float), objects

    def choose(self, goal: Goal, weights: NDArray[np.int32] | None = None) -> Ints:
        """``(bins * classes,)`` place of the chosen score, or `NONE`; ``weights`` say how often every image counts."""
        return self._chosen(goal, *self._counts(weights))

    def kept(self, chosen: Ints, weights: NDArray[np.int32] | None = None) -> Kept:
        """Score and counts of ``chosen`` places, with ``weights`` of the images."""
        return self._kept(chosen, *self._counts(weights))

    def _chosen(self, goal: Goal, hits: Floats, seen: Floats, objects: Floats) -> Ints:
        chosen = np.full(self.shape[0] * self.shape[1], NONE)
        if not len(self._ends):
            return chosen
        total = objects[self._cell]
        if goal.name == "f1":
            worth = 2 * hits / np.maximum(seen + total, 1)
        elif goal.name == "precision":
            worth = np.where(hits / np.maximum(seen, 1) >= goal.value, hits, 0.0)
        else:
            worth = ((hits > 0) & (hits / np.maximum(total, 1) >= goal.value)).astype(np.float64)
        worth = np.where(total > 0, worth, 0.0)
        best = np.maximum.reduceat(worth, self._starts)
        places = np.where(worth == best[self._group], np.arange(len(worth)), len(worth))
        first = np.minimum.reduceat(places, self._starts)
        chosen[self._cell[self._starts]] = np.where(best > 0, first, NONE)
        return chosen

    def _kept(self, chosen: Ints, hits: Floats, seen: Floats, objects: Floats) -> Kept:
        defined = chosen != NONE

        def at(values: Floats) -> Floats:
            taken = np.full(len(chosen), np.nan)
            taken[defined] = values[chosen[defined]]
            return taken.reshape(self.shape)

        return Kept(at(self._score[self._ends]), at(hits), at(seen), objects.reshape(self.shape))
