"""Do 95 % intervals over images and seeds hold the truth 95 times in 100? Counted on made-up data.

Many test sets of one population are drawn, each with several simulated training seeds of two methods: a seed shifts a
detector's skill at random. The truth is the expected AP over images and seeds. The benchmark counts how often the
interval of each bin holds the true difference of the methods, and the interval of a method its true AP.

Two simpler intervals are counted for comparison: the bootstrap over images alone, which takes the mean over the given
seeds for the method, and that of one seed of each method, which is what most papers report.

With 300 data sets and three seeds per method, intervals over images and seeds held the true difference 95 to 98 times
in 100, those over images alone 65 to 87 times, those of one seed 64 to 85 times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from size_ap_coverage import BINS, GAIN, POPULATION_SEED, THRESHOLDS, holds
from size_ap_population import SMALL, Population, simulate

from mmms_plugin.report.tables import Table
from mmms_plugin.report.terminal import print_table
from mmms_plugin.size_ap.kernel.accumulate import Accumulator
from mmms_plugin.size_ap.kernel.bootstrap import Levels, bin_figures, bootstrap, combined, interval, levels
from mmms_plugin.size_ap.kernel.matching import find_candidates, match

SEED_SPREAD = 0.08  # standard deviation of skill between seeds
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)  # expectation over a normal skill
WAYS = ("images and seeds", "images only", "one seed")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SeedCoverage:
    """Shares of data sets whose interval holds the truth.

    Attributes:
        method: ``(bins,)`` of a method's AP.
        difference: ``(ways, bins)`` of the difference of two methods, by each of `WAYS`.
        widths: ``(ways, bins)`` mean widths of those intervals.
    """

    method: Floats
    difference: Floats
    widths: Floats


def measure_seed_coverage(
    data_sets: int = 300,
    seeds: int = 3,
    images: int = 200,
    replicates: int = 200,
    population: Population = SMALL,
    population_images: int = 20_000,
    progress: bool = False,
) -> SeedCoverage:
    """Coverage of 95 % intervals of AP of methods with several seeds, in COCO's bins.

    Args:
        data_sets: number to draw.
        seeds: number for each of the two methods.
        images: number in each data set.
        replicates: number in each bootstrap.
        population: what data sets are drawn from.
        population_images: number to compute the truth from.
        progress: show a progress bar.
    """
    truth = _truth(population, population_images)
    method, hits, widths = np.zeros(len(BINS)), np.zeros((3, len(BINS))), np.zeros((3, len(BINS)))
    numbers = range(data_sets)
    for number in track(numbers, "data sets", console=Console(stderr=True)) if progress else numbers:
        points, draws = _data_set(number, seeds, images, replicates, population)
        both = [levels(points[m], draws[m], number) for m in (0, 1)]
        single = [levels(points[m, :1], draws[m, :1], number) for m in (0, 1)]
        fixed = [without_seeds(method) for method in both]
        means = points.mean(1)
        ways = [(both, means[1] - means[0]), (fixed, means[1] - means[0]), (single, points[1, 0] - points[0, 0])]
        own = combined(both[:1], 0.95)
        for i in range(len(BINS)):
            method[i] += holds(interval(own[:, i], means[0, i]), truth[0, i])
        for way, (methods, point) in enumerate(ways):
            differences = combined(methods, 0.95)
            for i in range(len(BINS)):
                limits = interval(differences[:, i], point[i])
                hits[way, i] += holds(limits, truth[1, i] - truth[0, i])
                widths[way, i] += (limits.high or 0.0) - (limits.low or 0.0)
    return SeedCoverage(method / data_sets, hits / data_sets, widths / data_sets)


def run_seed_coverage(data_sets: int, seeds: int) -> None:
    """Print `measure_seed_coverage` as a table."""
    coverage = measure_seed_coverage(data_sets, seeds, progress=True)
    error = 1.96 * np.sqrt(0.95 * 0.05 / data_sets)
    columns = ("bin", "AP of a method", *(f"difference: {way}" for way in WAYS))
    title = f"share of 95 % intervals that hold the truth, {data_sets} data sets, {seeds} seeds of two methods"
    note = (
        f"200 images, 200 replicates each; in parentheses the mean width; chance alone moves a share by ± {error:.3f}"
    )
    rows = []
    for i, bin_ in enumerate(BINS):
        cells = [f"{coverage.difference[way, i]:.3f} ({coverage.widths[way, i]:.3f})" for way in range(len(WAYS))]
        rows.append((bin_.name, f"{coverage.method[i]:.3f}", *cells))
    print_table(Table("seed-coverage", title, columns, rows, note=note), Console())


def without_seeds(method: Levels) -> Levels:
    """The same without the variance between seeds."""
    nothing = np.zeros_like(method.between)
    return replace(method, seeds=1, deviations=np.zeros_like(method.deviations), between=nothing, both=nothing)


def _data_set(number: int, seeds: int, images: int, replicates: int, population: Population) -> tuple[Floats, Floats]:
    """AP ``(methods, seeds, bins)`` and its draws ``(methods, seeds, replicates, bins)``."""
    skill = np.random.default_rng([number, 7]).normal(0, SEED_SPREAD, (2, seeds)) + np.array([[0.0], [GAIN]])
    runs = [
        _evaluated(replace(population, skill=population.skill + float(skill[m, k])), images, number, m * seeds + k)
        for m in (0, 1)
        for k in range(seeds)
    ]
    points = np.stack([bin_figures(run.scores(), THRESHOLDS)[:, 0] for run in runs])
    draws = np.stack([run_draws.bins[..., 0] for run_draws in bootstrap(runs, THRESHOLDS, images, replicates, number)])
    return points.reshape(2, seeds, -1), draws.reshape(2, seeds, replicates, -1)


def _truth(population: Population, images: int) -> Floats:
    """``(methods, bins)`` AP expected over images and seeds."""
    expected = []
    for gain in (0.0, GAIN):
        skills = population.skill + gain + SEED_SPREAD * NODES
        runs = [_evaluated(replace(population, skill=float(s)), images, POPULATION_SEED, 0) for s in skills]
        figures = np.stack([bin_figures(run.scores(), THRESHOLDS)[:, 0] for run in runs])
        expected.append(WEIGHTS @ figures / WEIGHTS.sum())
    return np.stack(expected)


def _evaluated(population: Population, images: int, seed: int, run: int) -> Accumulator:
    truth, detections = simulate(images, population, seed, run)
    return Accumulator(match(find_candidates(truth, detections), BINS))
