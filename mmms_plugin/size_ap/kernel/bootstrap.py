"""How sure the figures are: the bootstrap over images, paired for two runs.

A replicate draws as many images as there are, with replacement. An image drawn twice counts twice, as if it were there
under two ids (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13); evaluators that keep
the drawn images once each get intervals that are too narrow. Objects of one image share its fate, which is why images
are drawn and not objects. Matching happens within an image, so it is done once and every replicate only re-weights it.

Two runs see the same draws, so that what an image does to both cancels in their difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.size_ap.kernel.accumulate import Accumulator, Scores, mean_defined
from mmms_plugin.size_ap.results import Interval

Floats = NDArray[np.float64]
NORMAL = NormalDist()


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
    """``(images,)`` how often each image is drawn in this replicate; the same for every run and number of workers."""
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
        images: how many the data set has.
        replicates: how many draws; 1000 for intervals that do not wobble in the second digit.
        seed: of the draws; results do not depend on ``workers``.
        workers: threads (NumPy works outside Python's lock).
        progress: show a bar.
    """

    def one(replicate: int) -> list[tuple[Floats, Floats]]:
        weights = draw(images, seed, replicate)
        every = (accumulator.scores(weights) for accumulator in accumulators)
        return [(bin_figures(scores, thresholds), scores.ap.mean(1)) for scores in every]

    with ThreadPoolExecutor(workers) as pool:
        rows = list(_shown(pool.map(one, range(replicates)), replicates, progress))
    return [
        Replicates(np.stack([row[i][0] for row in rows]), np.stack([row[i][1] for row in rows]))
        for i in range(len(accumulators))
    ]


def interval(values: Floats, point: float, confidence: float = 0.95) -> Interval:
    """The bias-corrected percentile interval (Efron and Tibshirani, chapter 14, with acceleration 0).

    AP of a resample tends to lie above that of the sample, the more so the fewer objects a class has; plain percentiles
    would shift with it and cover too rarely.

    Args:
        values: ``(replicates,)`` figures, NaN where undefined.
        point: the figure of the data itself.
        confidence: such as 0.95.

    Returns:
        The interval, without limits if the figure or most replicates are undefined.
    """
    defined = values[~np.isnan(values)]
    if np.isnan(point) or 2 * len(defined) <= len(values):
        return Interval(None, None)
    reach = NORMAL.inv_cdf((1 + confidence) / 2)
    shift = 2 * _quantile_of(defined, point)
    low, high = np.quantile(defined, [NORMAL.cdf(shift - reach), NORMAL.cdf(shift + reach)])
    return Interval(float(low), float(high))


def probability_positive(differences: Floats, point: float) -> float | None:
    """How probable it is that the true difference is above zero, given ``(replicates,)`` differences.

    The share of replicates above zero, ties counted half, corrected for bias like the interval: 0.975 exactly where the
    lower limit of the 95 % interval touches zero. None where the interval has no limits.
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
