"""Do 95 % intervals hold the truth 95 times in 100? Counted on made-up data whose true AP is known.

Many data sets of one population are drawn and two detectors are evaluated on each. The benchmark counts how often the
interval of each bin holds the population's AP, and the interval of the difference the true difference.

A known limit: AP of a class with a handful of objects lies above the population's on average, and resampling does not
fully show this. With 20 classes of falling frequency and 200 images, intervals of AP over all sizes held the truth 92
times in 100, those of the bin with the fewest objects 78 times (plain percentiles: 85 and 58).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from size_ap_population import SMALL, Population, simulate

from mmms_plugin.report.tables import Table
from mmms_plugin.report.terminal import print_table
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.kernel.accumulate import Accumulator
from mmms_plugin.size_ap.kernel.bootstrap import bin_figures, bootstrap, interval
from mmms_plugin.size_ap.kernel.matching import IOU_THRESHOLDS, find_candidates, match
from mmms_plugin.size_ap.results import Interval

THRESHOLDS = np.array(IOU_THRESHOLDS)
BINS = resolve_bins("coco").bins
GAIN = 0.3  # in skill, of the second detector
POPULATION_SEED = 10**6  # different from those of the data sets


@dataclass(frozen=True)
class Coverage:
    """Shares of data sets whose interval holds the truth: ``(bins,)`` of AP, and of the difference of two runs."""

    ap: NDArray[np.float64]
    difference: NDArray[np.float64]


def measure_coverage(
    data_sets: int = 500,
    images: int = 200,
    replicates: int = 300,
    population: Population = SMALL,
    population_images: int = 20_000,
    progress: bool = False,
) -> Coverage:
    """Coverage of 95 % intervals of AP in COCO's bins.

    Args:
        data_sets: number to draw.
        images: number in each data set.
        replicates: number in each bootstrap.
        population: what data sets are drawn from.
        population_images: number to compute the truth from.
        progress: show a progress bar.
    """
    truth = np.stack(
        [bin_figures(a.scores(), THRESHOLDS)[:, 0] for a in _two(population_images, POPULATION_SEED, population)]
    )
    hits = np.zeros((2, len(BINS)))
    seeds = range(data_sets)
    for seed in track(seeds, "data sets", console=Console(stderr=True)) if progress else seeds:
        runs = _two(images, seed, population)
        points = [bin_figures(run.scores(), THRESHOLDS)[:, 0] for run in runs]
        draws = [r.bins[..., 0] for r in bootstrap(runs, THRESHOLDS, images, replicates, seed)]
        for i in range(len(BINS)):
            hits[0, i] += holds(interval(draws[0][:, i], points[0][i]), truth[0, i])
            gain = interval(draws[1][:, i] - draws[0][:, i], points[1][i] - points[0][i])
            hits[1, i] += holds(gain, truth[1, i] - truth[0, i])
    return Coverage(*(hits / data_sets))


def run_coverage(data_sets: int) -> None:
    """Print `measure_coverage` as a table."""
    coverage = measure_coverage(data_sets, progress=True)
    error = np.sqrt(0.95 * 0.05 / data_sets)
    title = f"share of 95 % intervals that hold the truth, {data_sets} data sets"
    note = f"200 images, 300 replicates each; chance alone moves a share by ± {1.96 * error:.3f}"
    rows = [(bin_.name, *shares) for bin_, *shares in zip(BINS, coverage.ap, coverage.difference, strict=True)]
    columns = ("bin", "AP", "difference of two runs")
    print_table(Table("coverage", title, columns, rows, note=note, form=".3f"), Console())


def _two(images: int, seed: int, population: Population) -> list[Accumulator]:
    """Two detectors' accumulators on the same images; the second has more skill."""
    runs = []
    for drawn in (population, replace(population, skill=population.skill + GAIN)):
        truth, run = simulate(images, drawn, seed)
        runs.append(Accumulator(match(find_candidates(truth, run), BINS)))
    return runs


def holds(limits: Interval, value: float) -> bool:
    """Whether an interval has limits and ``value`` lies between them."""
    return limits.low is not None and limits.high is not None and limits.low <= value <= limits.high
