"""Methods with several seeds: variance components and coverage on a linear model, the rest by single runs."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from mmms_plugin.coco.objects import Method
from mmms_plugin.commands.benchmark import of_checkout
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.kernel.bootstrap import (
    Levels,
    Parts,
    combined,
    draw,
    interval,
    levels,
    needed,
    parts,
    quantile,
)
from mmms_plugin.size_ap.options import Options
from tests.size_ap.size_ap_data import in_memory, random_coco

IMAGES, REPLICATES = 40, 200


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    """``(replicates, images)`` shares of a bootstrap."""
    return np.stack([draw(IMAGES, 1, r) for r in range(REPLICATES)]) / IMAGES


def linear(rng, weights, seeds: int, image_sd: float, seed_sd: float, both_sd: float, shared) -> tuple[float, Levels]:
    """A figure that is a sum of effects of images, seeds and both: its value, and its levels."""
    by_image = (
        shared + rng.normal(0, image_sd, IMAGES) + rng.normal(0, seed_sd, (seeds, 1))
        + rng.normal(0, both_sd, (seeds, IMAGES))
    )  # fmt: skip
    return float(by_image.mean()), levels(by_image.mean(1), by_image @ weights.T, 0)


@pytest.mark.parametrize(
    ("seeds", "image_sd", "seed_sd", "both_sd"), [(3, 0.5, 0.2, 0.5), (3, 0.5, 0.0, 1.0), (2, 0.5, 0.1, 0.3)]
)
def test_components_are_found_and_intervals_cover(weights, seeds, image_sd, seed_sd, both_sd):
    """400 data sets: expected variances to within 15 %, and 95 % intervals that hold the truth as often as they say."""
    rng, found, hits = np.random.default_rng(5), [], 0
    for _ in range(400):
        shared = rng.normal(0, 3, IMAGES)  # cancels in the difference
        (first, a), (second, b) = (linear(rng, weights, seeds, image_sd, seed_sd, both_sd, shared) for _ in "ab")
        made_of = parts(a, b)
        variance = np.var(b.draws - a.draws)
        found.append((variance, sum(one[2] / one[0] for one in made_of.methods), a.between + b.between))
        limits = interval(combined([a, b], 0.95), second - first)
        hits += limits.low <= 0 <= limits.high
    fixed, both, between = np.mean(found, 0)
    shrunk = (IMAGES - 1) / IMAGES  # the bootstrap's variance of a mean
    assert both == pytest.approx(2 * both_sd**2 / IMAGES / seeds * shrunk, rel=0.15)
    assert fixed == pytest.approx(2 * image_sd**2 / IMAGES * shrunk + both, rel=0.15)
    assert between == pytest.approx(2 * (seed_sd**2 + both_sd**2 / IMAGES), rel=0.15)
    assert 0.92 <= hits / 400 <= 0.995


def test_students_quantiles():
    found = quantile(0.95, np.ones(4), np.array([0.0, 1 / 4, 1 / 2, 1.0]))
    assert found == pytest.approx([1.95996, 2.77645, 4.30265, 12.7062], abs=1e-4)


def test_what_would_settle_a_difference():
    images_alone = Parts(1e-4, ())
    assert images_alone.deviations == (0.01, 0, 0)
    wanted = 1000 * (1.95996 / 1.5) ** 2  # half the interval falls with the root of the number of images
    assert needed(images_alone, 0.015, 0.95, 1000) == (pytest.approx(wanted, rel=0.011), None)
    assert needed(images_alone, 1e-6, 0.95, 1000) == (None, None)
    seeds_too = Parts(0.0, ((3, 3e-4, 0.0), (3, 3e-4, 0.0)))  # no number of images makes up for seeds
    assert seeds_too.deviations[1] == pytest.approx(2e-4**0.5)
    images, seeds = needed(seeds_too, 0.02, 0.95, 1000)
    assert images is None
    enough, fewer = (seeds_too.reach(0.95, np.ones(1), np.array([float(n)]))[0] for n in (seeds, seeds - 1))
    assert enough < 0.02 <= fewer


@pytest.fixture(scope="module")
def data():
    coco, results = random_coco(3, images=30, classes=2, detections=12)
    rng = np.random.default_rng(2)
    shaken = []
    for keep in (0.6, 0.7, 0.8, 0.95, 0.9):
        kept = [one for one in results if rng.random() < keep]
        shaken.append([{**one, "score": float(np.clip(one["score"] + rng.normal(0, 0.1), 0, 1))} for one in kept])
    truth, first = in_memory(coco, shaken[0], "a0")
    return truth, [first, *(in_memory(coco, one, f"run{i}")[1] for i, one in enumerate(shaken[1:]))]


def test_figures_of_a_method_are_means_of_its_runs(data):
    truth, runs = data
    options = Options(replicates=40, sweep=True)
    alone = evaluate(truth, runs[:3], options)
    results = evaluate(truth, [runs[4], Method("m", tuple(runs[:3]))], options)
    method = results.runs[1]
    assert (method.name, [seed.name for seed in method.seeds]) == ("m", ["a0", "run0", "run1"])
    for i, found in enumerate(method.bins):
        single = [run.bins[i] for run in alone.runs]
        for name in ("ap", "ap50", "ap75", "ar"):
            assert getattr(found, name) == pytest.approx(np.mean([getattr(one, name) for one in single]), abs=1e-12)
        assert [seed.ap[i] for seed in method.seeds] == [one.ap for one in single]
        for kind, share in found.errors.items():
            assert share.gain == pytest.approx(np.mean([one.errors[kind].gain for one in single]), abs=1e-12)
    for name, value in method.stats.items():
        assert value == pytest.approx(np.mean([run.stats[name] for run in alone.runs]), abs=1e-12)
    for point, *single in zip(method.sweep, *(run.sweep for run in alone.runs), strict=True):
        values = [one.ap for one in single]
        assert point.ap == (None if None in values else pytest.approx(np.mean(values), abs=1e-12))
    assert any("one seed only: run3" in note for note in results.notes)
    settling = {one.of: one for one in results.comparison.settling}
    assert settling["all"].seeds > 0 or settling["all"].both > 0
    wider = results.comparison.per_bin[0].interval
    one_seed = evaluate(truth, [runs[4], runs[0]], options).comparison.per_bin[0].interval
    assert wider.low < wider.high
    assert one_seed != wider


def test_a_run_given_as_two_equal_seeds_has_the_intervals_of_the_run(data):
    truth, runs = data
    options = Options(replicates=30, sweep=False)
    once, twice = (evaluate(truth, [one], options).runs[0] for one in (runs[0], Method("a0", (runs[0], runs[0]))))
    for a, b in zip(once.bins, twice.bins, strict=True):
        assert a.ap == pytest.approx(b.ap)
        for name in a.intervals:
            assert astuple(a.intervals[name]) == pytest.approx(astuple(b.intervals[name]), abs=1e-9)


def test_every_further_run_is_compared_with_the_first(data):
    truth, runs = data
    options = Options(replicates=20, sweep=False)
    results = evaluate(truth, runs[:4], options)
    assert [(one.first, one.second) for one in results.comparisons] == [("a0", f"run{i}") for i in range(3)]
    for comparison, other in zip(results.comparisons, runs[1:4], strict=True):
        pair = evaluate(truth, [runs[0], other], options).comparison
        assert comparison == pair


def test_the_band_of_the_curve_is_the_interval_of_a_bin_with_the_limits_of_the_window(data):
    truth, runs = data
    options = Options(replicates=25, errors=False)
    sweep = evaluate(truth, runs[:1], options).runs[0].sweep
    assert all(point.interval is not None for point in sweep)
    for point in sweep[len(sweep) // 2 :][:3]:
        limits = f"w={point.low!r}:{point.high!r}"
        again = evaluate(
            truth, runs[:1], Options(replicates=25, errors=False, sweep=False, bins=limits, allow_gaps=True)
        )
        found = again.runs[0].bins[1]
        assert (point.ap, point.ground_truths) == (pytest.approx(found.ap), found.ground_truths)
        assert astuple(point.interval) == pytest.approx(astuple(found.intervals["ap"]))


def test_intervals_of_a_method_stay_within_zero_and_one(data):
    """Two seeds, one of which finds nothing: Student's t with one degree of freedom would reach far beyond."""
    truth, runs = data
    nothing = in_memory(random_coco(3, images=30, classes=2, detections=12)[0], [], "none")[1]
    for found in evaluate(truth, [Method("m", (runs[0], nothing))], Options(replicates=20)).runs[0].bins:
        for limits in found.intervals.values():
            assert limits.low is None or 0 <= limits.low <= limits.high <= 1


def test_coverage_is_counted():
    """Two data sets: the command that measures coverage runs, and intervals over seeds are the wider ones."""
    coverage = of_checkout("size_ap_seeds").measure_seed_coverage(2, images=40, replicates=20, population_images=500)
    assert coverage.difference.shape == (3, 4)
    assert (coverage.widths[0] > coverage.widths[1]).all()
