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

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.analysis.size_ap.accumulate import Accumulator, Scores, mean_defined
from mmms_plugin.analysis.size_ap.results import Interval

Floats = NDArray[np.float64]


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


def interval(values: Floats, confidence: float = 0.95) -> Interval:
    """The percentile interval of ``(replicates,)`` values; without limits if most of them are undefined."""
    defined = values[~np.isnan(values)]
    if 2 * len(defined) <= len(values):
        return Interval(None, None)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def probability_positive(differences: Floats) -> float | None:
    """Share of defined ``(replicates,)`` differences above zero, ties counted half; None if most are undefined."""
    defined = differences[~np.isnan(differences)]
    if 2 * len(defined) <= len(differences):
        return None
    return float((defined > 0).mean() + 0.5 * (defined == 0).mean())


def _shown(rows: Iterator, total: int, progress: bool) -> Iterator:
    if not progress:
        return rows
    from rich.console import Console
    from rich.progress import track

    return iter(track(rows, "bootstrap", total=total, console=Console(stderr=True)))
