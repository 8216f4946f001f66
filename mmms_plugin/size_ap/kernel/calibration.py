"""Whether scores are probabilities, by size: calibration errors, and a recalibration that depends on size.

A detection is right if it matches an object of its class at IoU 0.5, of any size, by the rules of AP. Those that match
a crowd, or that LVIS excuses, are left out. Its bin is that of its own size, because that is all that is known of it
when it is predicted. Scores are put into ten equal intervals of [0, 1]. With the gap of an interval, |mean score -
share that is right|,

    expected calibration error (ECE)   the mean gap, weighted by the number of detections
    maximum calibration error (MCE)    the largest gap

Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; for detections
Küppers et al., "Multivariate Confidence Calibration for Object Detection", CVPR Workshops 2020, of which this is the
case of precision per score, taken for each size.

Recalibration: Gilg et al., "The Box Size Confidence Bias Harms Your Object Detector", arXiv:2112.01901: what a score
means depends on the size of the box, so each size has its own map. Here it is logistic, sigmoid(slope logit(score) +
offset), fitted by maximum likelihood with a penalty of ``PENALTY / 2 ((slope - 1)^2 + offset^2)``, on half of the
images. The other half shows what it is worth, beside one map for all sizes.

Deviation from Gilg et al.: bins are those of the evaluation, and maps are logistic; theirs are histograms over
quantiles of the size, chosen for AP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.kernel.matching import IGNORED, REGULAR, Matches

LEVELS = 10  # intervals of score
PENALTY = 1.0
FLATTEST = 0.01  # slope; a rising map keeps the order of scores within a bin
CLIP = 1e-6  # scores of 0 and 1 have no logit
FEWEST = 20  # detections from which a bin has a map of its own
ROUNDS = 50  # of Newton's method
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Detections of one run, each right or wrong.

    Attributes:
        score, right, image, category: ``(n,)``.
        in_bin: ``(bins, n)`` by the detection's own size.
    """

    score: Floats
    right: Bools
    image: Ints
    category: Ints
    in_bin: Bools

    @classmethod
    def of(cls, matches: Matches, threshold: int) -> Judged:
        """From the matches of a run, whose first bin holds all sizes, at one of their IoU thresholds."""
        detections, live = matches.candidates.detections, matches.candidates.live
        status = np.zeros(len(detections), np.int8)
        status[live] = matches.status[:, 0, threshold]
        kept = np.flatnonzero((status != IGNORED) & ~(detections.crowd & (status != REGULAR)))
        return cls(detections.scores[kept], status[kept] == REGULAR, detections.image[kept], detections.category[kept],
                   matches.in_bin[:, kept])  # fmt: skip

    def at(self, chosen: Bools) -> Judged:
        """Those that are chosen of ``(n,)``."""
        return Judged(
            self.score[chosen], self.right[chosen], self.image[chosen], self.category[chosen], self.in_bin[:, chosen]
        )


class Reliability:
    """Sums in cells of bin, class and interval of score, for any weights of the images.

    Args:
        judged: the detections.
        classes: their number; 0 puts all into one.
        score: other scores of the same detections.
    """

    def __init__(self, judged: Judged, classes: int = 0, score: Floats | None = None) -> None:
        bin_, self._which = np.nonzero(judged.in_bin)
        self.shape = (len(judged.in_bin), max(classes, 1), LEVELS)
        scores = (judged.score if score is None else score)[self._which]
        level = np.minimum((scores * LEVELS).astype(np.int64), LEVELS - 1)
        category = judged.category[self._which] if classes else 0
        self._cell = (bin_ * self.shape[1] + category) * LEVELS + level
        self._score, self._right = scores, judged.right[self._which].astype(np.float64)
        self._image = judged.image[self._which]

    def sums(self, weights: NDArray[np.int32] | None = None) -> Floats:
        """``(3, bins, classes, intervals)`` detections, sum of scores, and right ones."""
        size = int(np.prod(self.shape))
        if weights is None:
            cell, columns = self._cell, (np.ones(len(self._cell)), self._score, self._right)
        else:
            image, cell, of_image = self._by_image
            weight = weights[image].astype(np.float64)
            columns = (weight * of_image[0], weight * of_image[1], weight * of_image[2])
        return np.stack([np.bincount(cell, column, size).reshape(self.shape) for column in columns])

    @cached_property
    def _by_image(self) -> tuple[Ints, Ints, Floats]:
        """Image and cell of every pair of them that occurs, and their ``(3, pairs)`` sums, for the bootstrap."""
        size = int(np.prod(self.shape))
        pairs, place = np.unique(self._image * size + self._cell, return_inverse=True)
        columns = (None, self._score, self._right)
        image, cell = np.divmod(pairs, size)
        return image, cell, np.stack([np.bincount(place, column, len(pairs)).astype(np.float64) for column in columns])


def errors_of(sums: Floats) -> Floats:
    """``(4, bins, classes)`` mean score, share that is right, ECE and MCE; NaN without detections."""
    count, score, right = sums
    total = count.sum(-1)
    gap = np.abs(score - right)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = [np.where(total > 0, part.sum(-1) / total, np.nan) for part in (score, right, gap)]
        largest = np.where(count > 0, gap / count, 0.0).max(-1)
    return np.stack([*means, np.where(total > 0, largest, np.nan)])


def logit(score: Floats) -> Floats:
    """Of scores, kept off 0 and 1."""
    kept = np.clip(score, CLIP, 1 - CLIP)
    return np.log(kept / (1 - kept))


def mapped(score: Floats, slope: Floats | float, offset: Floats | float) -> Floats:
    """Scores after a logistic map."""
    return _sigmoid(slope * logit(score) + offset)


def _sigmoid(values: Floats) -> Floats:
    return 0.5 + 0.5 * np.tanh(values / 2)  # without overflow


def fit(score: Floats, right: Bools) -> tuple[float, float]:
    """Slope and offset of the map of largest penalised likelihood; (1, 0), the identity, without detections."""
    features = np.stack([logit(score), np.ones(len(score))], 1)
    identity = np.array([1.0, 0.0])
    chosen, loss = identity, _loss(features, right, identity)
    for _ in range(ROUNDS):
        guess = _sigmoid(features @ chosen)
        gradient = features.T @ (guess - right) + PENALTY * (chosen - identity)
        curvature = (features * (guess * (1 - guess))[:, None]).T @ features + PENALTY * np.eye(2)
        step, length = np.linalg.solve(curvature, gradient), 1.0
        while length > CLIP and _loss(features, right, chosen - length * step) > loss:
            length /= 2
        chosen = chosen - length * step
        before, loss = loss, _loss(features, right, chosen)
        if before - loss < 1e-10 * max(1.0, before):
            break
    return max(float(chosen[0]), FLATTEST), float(chosen[1])


def _loss(features: Floats, right: Bools, chosen: Floats) -> float:
    """Negative penalised log-likelihood."""
    values = features @ chosen
    penalty = PENALTY / 2 * ((chosen[0] - 1) ** 2 + chosen[1] ** 2)
    return float(np.logaddexp(0, values).sum() - values[right].sum() + penalty)


def halves(images: int, seed: int) -> Bools:
    """``(images,)`` which images the maps are fitted on; the others test them."""
    order = np.random.default_rng([seed, images]).permutation(images)
    return order < (images + 1) // 2


@dataclass(frozen=True)
class Maps:
    """Slope and offset of every bin's map, and the number of detections it was fitted on."""

    pairs: list[tuple[float, float]]
    fitted: Ints


class Tested:
    """The scores of the other half, as they are, after one map, and after the map of each size.

    Attributes:
        count: ``(bins,)`` detections.
        losses: ``(3, bins)`` mean negative log-likelihood of the three; NaN without detections.
    """

    def __init__(self, judged: Judged, maps: Maps) -> None:
        own, pairs = own_bin(judged.in_bin), np.array(maps.pairs)
        scores = [
            judged.score,
            mapped(judged.score, *maps.pairs[0]),
            mapped(judged.score, pairs[own, 0], pairs[own, 1]),
        ]
        self._reliabilities = [Reliability(judged, score=score) for score in scores]
        self.count = judged.in_bin.sum(1)
        likely = [np.where(judged.right, score, 1 - score).clip(CLIP) for score in scores]
        with np.errstate(divide="ignore", invalid="ignore"):
            self.losses = np.stack([-(judged.in_bin * np.log(part)).sum(1) / self.count for part in likely])

    def errors(self, weights: NDArray[np.int32] | None = None) -> Floats:
        """``(4, bins)`` ECE of the three, and the third less the first, with ``weights`` of the images."""
        errors = [errors_of(reliability.sums(weights))[2, :, 0] for reliability in self._reliabilities]
        return np.stack([*errors, errors[2] - errors[0]])


def fit_by_size(judged: Judged, chosen: Bools) -> tuple[Maps, Tested]:
    """Maps fitted on the chosen images, tested on the others.

    A bin of fewer than ``FEWEST`` detections has the map for all sizes.
    """
    part = judged.at(chosen[judged.image])
    own = own_bin(part.in_bin)
    pairs = [fit(part.score, part.right)]
    fitted = [len(part.score)]
    for i in range(1, len(part.in_bin)):
        inside = own == i
        pairs.append(fit(part.score[inside], part.right[inside]) if inside.sum() >= FEWEST else pairs[0])
        fitted.append(int(inside.sum()))
    maps = Maps(pairs, np.array(fitted))
    return maps, Tested(judged.at(~chosen[judged.image]), maps)


def own_bin(in_bin: Bools) -> Ints:
    """``(n,)`` the first bin but 'all' that holds a detection; 0, all sizes, if none does."""
    return (
        np.where(in_bin[1:].any(0), in_bin[1:].argmax(0) + 1, 0) if len(in_bin) > 1 else np.zeros(in_bin.shape[1], int)
    )
