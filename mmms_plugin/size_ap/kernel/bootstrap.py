"""How certain the figures are: the bootstrap over images, paired for two runs, and over the seeds of a method.

Images. A replicate draws as many images as there are, with replacement. An image drawn twice counts twice, as if it
were there under two ids (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13); evaluators
that keep the drawn images once each get intervals that are too narrow. Objects of one image share its fate, which is
why images are drawn and not objects. Matching happens within an image, so it is done once and every replicate only
re-weights it. All runs see the same draws, so that what an image does to two runs cancels in their difference.

Seeds. A method's figure is the mean over its seeds (runs trained alike but for the random seed). Three things move it:
which images were tested on, which seeds were trained, and that a seed does better on some images than on others. With
``K`` seeds and ``N`` images

    variance = images / N + (seeds + both / N) / K

All three come from one bootstrap over images, the same draws for every run:

- The mean over seeds varies from draw to draw by ``images / N + both / (N K)``.
- Seeds differ by ``seeds + both / N`` on the images themselves: their sample variance.
- From draw to draw, the differences between seeds vary by ``both / N``.

The second level draws ``K - 1`` of ``K`` seeds with replacement, which makes the variance of their mean unbiased (Rao
and Wu, Resampling inference with complex survey data, JASA 83, 1988); drawing ``K`` would give only ``(K - 1) / K`` of
it, two thirds with three seeds. Their deviations are shrunk to what is due to seeds alone, because the draws of images
hold the rest already. A variance from few seeds is itself uncertain, so the replicates are stretched by the quantile of
Student's t over the normal one, with the degrees of freedom of Welch and Satterthwaite.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.kernel.accumulate import Accumulator, Scores, mean_defined
from mmms_plugin.size_ap.results import Interval

Floats = NDArray[np.float64]
Row = TypeVar("Row")
NORMAL = NormalDist()
MOST = 1000  # times the images, or seeds: beyond that, needing more of them is not useful advice


@dataclass(frozen=True)
class Replicates:
    """One run's figures in every replicate, NaN where undefined.

    Attributes:
        bins: ``(replicates, bins, 4)``: AP, AP50, AP75, AR.
        class_ap: ``(replicates, bins, classes)``.
    """

    bins: Floats
    class_ap: Floats


def class_figures(scores: Scores, thresholds: Floats) -> Floats:
    """``(bins, classes, 4)``: AP, AP50, AP75, AR of every class; NaN without objects or without that threshold."""
    at = [np.flatnonzero(np.isclose(thresholds, t)) for t in (0.5, 0.75)]
    columns = [scores.ap.mean(1)]
    columns += [scores.ap[:, index[0]] if len(index) else np.full_like(columns[0], np.nan) for index in at]
    return np.stack((*columns, scores.recall.mean(1)), -1)


def bin_figures(scores: Scores, thresholds: Floats) -> Floats:
    """``(bins, 4)``: the mean over classes with objects, NaN where there are none."""
    return mean_defined(class_figures(scores, thresholds), 1)


def draw(images: int, seed: int, replicate: int) -> NDArray[np.int32]:
    """``(images,)`` how often each image is drawn in a replicate; independent of the run and the number of workers."""
    rng = np.random.default_rng([seed, replicate])
    return np.bincount(rng.integers(images, size=images), minlength=images).astype(np.int32)


def bootstrap(
    accumulators: Sequence[Accumulator],
    thresholds: Floats,
    images: int,
    replicates: int,
    seed: int = 0,
    workers: int = 2,
    progress: bool = False,
) -> list[Replicates]:
    """Every run's figures in ``replicates`` draws of images, the same draws for all runs.

    Args:
        accumulators: one per run, of the same images.
        thresholds: IoU thresholds of the matching.
        images: number of images of the data set.
        replicates: number of draws; with 1000, the second digit of the intervals is stable.
        seed: of the draws; results do not depend on ``workers``.
        workers: number of threads (NumPy releases Python's lock).
        progress: show a progress bar.
    """

    def figures(weights: NDArray[np.int32]) -> list[tuple[Floats, Floats]]:
        every = (accumulator.scores(weights) for accumulator in accumulators)
        return [(bin_figures(scores, thresholds), scores.ap.mean(1)) for scores in every]

    rows = replicated(figures, images, replicates, seed, workers, progress)
    return [
        Replicates(np.stack([row[i][0] for row in rows]), np.stack([row[i][1] for row in rows]))
        for i in range(len(accumulators))
    ]


def replicated(
    function: Callable[[NDArray[np.int32]], Row],
    images: int,
    replicates: int,
    seed: int = 0,
    workers: int = 2,
    progress: bool = False,
) -> list[Row]:
    """What a function returns for the weights of the images in every draw; arguments as for `bootstrap`."""
    with ThreadPoolExecutor(workers) as pool:
        rows = pool.map(lambda replicate: function(draw(images, seed, replicate)), range(replicates))
        return list(_shown(rows, replicates, progress))


def interval(values: Floats, point: float, confidence: float = 0.95) -> Interval:
    """The bias-corrected percentile interval (Efron and Tibshirani, chapter 14, with acceleration 0).

    AP of a resample tends to lie above that of the sample, the more so the fewer objects a class has; plain percentiles
    would shift with it and cover too rarely.

    Args:
        values: ``(replicates,)`` figures, NaN where undefined.
        point: the figure of the data itself.
        confidence: such as 0.95.

    Returns:
        The interval; its limits are None if the figure or most replicates are undefined.
    """
    defined = values[~np.isnan(values)]
    if np.isnan(point) or 2 * len(defined) <= len(values):
        return Interval(None, None)
    reach = NORMAL.inv_cdf((1 + confidence) / 2)
    shift = 2 * _quantile_of(defined, point)
    low, high = np.quantile(defined, [NORMAL.cdf(shift - reach), NORMAL.cdf(shift + reach)])
    return Interval(float(low), float(high))


def probability_positive(differences: Floats, point: float) -> float | None:
    """Probability that the true difference is above zero, given ``(replicates,)`` differences.

    The share of replicates above zero, ties counted half, corrected for bias like the interval: exactly 0.975 if the
    lower limit of the 95 % interval is zero. None if the interval has no limits.
    """
    defined = differences[~np.isnan(differences)]
    if np.isnan(point) or 2 * len(defined) <= len(differences):
        return None
    if (defined > 0).all() or (defined < 0).all():
        return float(defined[0] > 0)
    return 1 - NORMAL.cdf(_quantile_of(defined, 0.0) - 2 * _quantile_of(defined, point))


def _quantile_of(values: Floats, point: float) -> float:
    """Normal deviate of the share of ``values`` below ``point``, kept off the ends by one replicate."""
    below = float((values < point).mean() + 0.5 * (values == point).mean())
    end = 1 / max(len(values), 2)
    return NORMAL.inv_cdf(min(max(below, end), 1 - end))


def _shown(rows: Iterator, total: int, progress: bool) -> Iterator:
    if not progress:
        return rows
    from rich.console import Console
    from rich.progress import track

    return iter(track(rows, "bootstrap", total=total, console=Console(stderr=True)))


@dataclass(frozen=True)
class Levels:
    """Figures of one method of any shape ``...``, and how they vary.

    Attributes:
        seeds: how many.
        draws: ``(replicates, ...)`` the mean over seeds in every draw of images.
        deviations: ``(replicates, ...)`` what a draw of seeds adds to it; zeros for one seed.
        between: ``(...)`` sample variance between seeds; zeros for one seed.
        both: ``(...)`` the part of it that is due to the images.
    """

    seeds: int
    draws: Floats
    deviations: Floats
    between: Floats
    both: Floats

    @property
    def alone(self) -> Floats:
        """``(...)`` variance between seeds on endlessly many images."""
        return np.maximum(self.between - self.both, 0.0)


@dataclass(frozen=True)
class Parts:
    """The parts of the variance of a figure, or of the difference of two methods; scalars.

    Attributes:
        images: the part due to images, which all seeds share.
        methods: of each method with several seeds: number of seeds, variance between seeds alone, and of seeds with
            images.
    """

    images: float
    methods: tuple[tuple[int, float, float], ...]

    @property
    def deviations(self) -> tuple[float, float, float]:
        """Standard deviations of the figure due to images, to seeds, and to both together."""
        seeds, both = (sum(method[i] / method[0] for method in self.methods) for i in (1, 2))
        return self.images**0.5, seeds**0.5, both**0.5

    def reach(self, confidence: float, images: Floats, seeds: Floats | None = None) -> Floats:
        """Half the width of intervals with ``images`` times as many images and ``seeds`` per method; ``(n,)`` each."""
        variance: Floats = self.images / images
        uncertain: Floats = np.zeros(len(images))
        for count, alone, both in self.methods:
            number = np.full(len(images), float(count)) if seeds is None else seeds
            own = (alone + both / images) / number
            variance = variance + own
            uncertain = uncertain + own**2 / (number - 1)
        return quantile(confidence, variance, uncertain) * np.sqrt(variance)


def levels(points: Floats, draws: Floats, seed: int) -> Levels:
    """One method's figures at both levels.

    Args:
        points: ``(seeds, ...)`` figures on the data set itself.
        draws: ``(seeds, replicates, ...)`` in every draw of images, the same draws for all.
        seed: of the draws of seeds. The same figures give the same draws, other figures independent ones.
    """
    count, replicates = draws.shape[:2]
    mean = draws.mean(0)
    if count == 1:
        nothing = np.zeros(points.shape[1:])
        return Levels(1, mean, np.zeros_like(mean), nothing, nothing)
    between = points.var(0, ddof=1)
    both = mean_defined((draws - points[:, None]).var(0, ddof=1), 0)
    both = np.where(np.isnan(both), 0.0, both)
    shrink = np.sqrt(np.clip(1 - both / np.where(between > 0, between, 1.0), 0.0, 1.0))
    rng = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(points).tobytes())])
    chosen = rng.integers(count, size=(replicates, count - 1))
    times = np.stack([(chosen == k).sum(1) for k in range(count)], 1) / (count - 1)
    deviations = np.tensordot(times, points - points.mean(0), 1) * shrink
    return Levels(count, mean, deviations, between, both)


def combined(methods: Sequence[Levels], confidence: float) -> Floats:
    """``(replicates, ...)`` figures of one method, or of the second less the first, for intervals of ``confidence``."""
    draws, deviations = methods[-1].draws, methods[-1].deviations
    if len(methods) > 1:
        draws, deviations = draws - methods[0].draws, deviations - methods[0].deviations
    several = [method for method in methods if method.seeds > 1]
    if not several:
        return draws
    variance = _variance(draws) + sum(method.alone / method.seeds for method in several)
    uncertain = sum((method.between / method.seeds) ** 2 / (method.seeds - 1) for method in several)
    both = draws + deviations
    centre = mean_defined(both, 0)
    stretch = quantile(confidence, variance, np.asarray(uncertain)) / NORMAL.inv_cdf((1 + confidence) / 2)
    return centre + stretch * (both - centre)


def parts(first: Levels, second: Levels, *index: int) -> Parts:
    """The parts of the variance of the difference of two methods, for one of their figures."""
    fixed = float(_variance(second.draws - first.draws)[index])
    several = [method for method in (first, second) if method.seeds > 1]
    methods = tuple((method.seeds, float(method.alone[index]), float(method.both[index])) for method in several)
    return Parts(max(fixed - sum(both / count for count, _, both in methods), 0.0), methods)


def needed(variance: Parts, difference: float, confidence: float, images: int) -> tuple[int | None, int | None]:
    """Number of images (with these seeds), and of seeds of each method (with these images), that settle a difference.

    It is settled when its interval excludes zero, assuming that the difference stays the same. None if 1,000 times the
    images, or 1,000 seeds, would not suffice.
    """
    factors: Floats = np.geomspace(1.01, MOST, 700, dtype=np.float64)
    enough = variance.reach(confidence, factors) < abs(difference)
    more_images = int(np.ceil(images * factors[enough.argmax()])) if enough.any() else None
    if not variance.methods:
        return more_images, None
    counts: Floats = np.arange(max(count for count, *_ in variance.methods) + 1.0, MOST + 1, dtype=np.float64)
    enough = variance.reach(confidence, np.ones(len(counts)), counts) < abs(difference)
    return more_images, int(counts[enough.argmax()]) if enough.any() else None


def quantile(confidence: float, variance: Floats, uncertain: Floats) -> Floats:
    """Student's quantile for a ``variance`` whose own variance is twice ``uncertain``; the normal quantile at zero."""
    normal = NORMAL.inv_cdf((1 + confidence) / 2)
    if not (uncertain > 0).any():
        return np.full_like(variance, normal)
    from scipy.special import stdtrit

    freedom = np.full_like(variance, np.inf)
    np.divide(variance**2, uncertain, out=freedom, where=uncertain > 0)
    return np.where(freedom < 1e6, stdtrit(np.minimum(freedom, 1e6), (1 + confidence) / 2), normal)


def _variance(draws: Floats) -> Floats:
    """Variance over the replicates that are defined."""
    return mean_defined((draws - mean_defined(draws, 0)) ** 2, 0)
