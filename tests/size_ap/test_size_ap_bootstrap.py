"""The bootstrap is pycocotools on really duplicated images; pairs, signs, reproducibility, coverage."""

from __future__ import annotations

import numpy as np
import pytest

from mmms_plugin.commands.benchmark import of_checkout
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.evaluate import evaluate
from mmms_plugin.size_ap.kernel.accumulate import Accumulator
from mmms_plugin.size_ap.kernel.bootstrap import bin_figures, bootstrap, draw, interval, probability_positive
from mmms_plugin.size_ap.kernel.matching import IOU_THRESHOLDS, find_candidates, match
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.results import Interval
from tests.size_ap.size_ap_data import in_memory, pycocotools_eval, random_coco

BINS = resolve_bins("coco").bins
THRESHOLDS = np.array(IOU_THRESHOLDS)


def duplicated(coco: dict, results: list[dict], weights: np.ndarray) -> tuple[dict, list[dict]]:
    """The data set with each image as often as drawn, every copy under an id of its own."""
    drawn = dict(zip(sorted(i["id"] for i in coco["images"]), weights.tolist(), strict=True))

    def copies(items: list[dict], key: str) -> list[dict]:
        return [{**item, key: item[key] * 1000 + n} for item in items for n in range(drawn[item[key]])]

    annotations = [{**a, "id": i + 1} for i, a in enumerate(copies(coco["annotations"], "image_id"))]
    data = {**coco, "images": copies(coco["images"], "id"), "annotations": annotations}
    return data, copies(results, "image_id")


@pytest.mark.parametrize("seed", range(4))
def test_a_replicate_equals_pycocotools_on_duplicated_images(seed):
    coco, results = random_coco(seed, images=15)
    truth, run = in_memory(coco, results)
    accumulator = Accumulator(match(find_candidates(truth, run), BINS))
    weights = draw(15, seed, 0)
    assert weights.max() > 1
    assert weights.sum() == 15
    scores = accumulator.scores(weights)
    expected = pycocotools_eval(*duplicated(coco, results, weights))
    precision = expected.eval["precision"][..., -1].transpose(3, 0, 2, 1).mean(-1)
    np.testing.assert_allclose(np.nan_to_num(scores.ap, nan=-1), precision, atol=1e-9, rtol=0)
    recall = expected.eval["recall"][..., -1].transpose(2, 0, 1)
    np.testing.assert_allclose(np.nan_to_num(scores.recall, nan=-1), recall, atol=1e-9, rtol=0)
    figures = np.nan_to_num(bin_figures(scores, THRESHOLDS), nan=-1)
    np.testing.assert_allclose(figures[:, 0], expected.stats[[0, 3, 4, 5]], atol=1e-9, rtol=0)
    np.testing.assert_allclose(figures[0, 1:], expected.stats[[1, 2, 8]], atol=1e-9, rtol=0)


def test_replicates_do_not_depend_on_workers_and_follow_the_seed():
    population = of_checkout("size_ap_population")
    truth, run = population.simulate(40, population.SMALL)
    accumulators = [Accumulator(match(find_candidates(truth, run), BINS))]
    one, three, other = (
        bootstrap(accumulators, THRESHOLDS, 40, 20, seed, workers)[0] for seed, workers in ((1, 1), (1, 3), (2, 2))
    )
    np.testing.assert_array_equal(one.bins, three.bins)
    np.testing.assert_array_equal(one.class_ap, three.class_ap)
    assert not np.array_equal(one.bins, other.bins)


@pytest.mark.slow
def test_pairs_of_runs():
    """A run beside itself differs by nothing; beside one with fewer finds, by something sure and of the right sign."""
    coco, results = random_coco(3, images=60, detections=20)
    truth, run = in_memory(coco, results, "full")
    _, half = in_memory(coco, results[::2], "half")
    options = Options(replicates=150, sweep=False)
    same = evaluate(truth, [run, run], options).comparison
    assert same is not None
    assert all(d.difference == 0 and d.probability_positive == 0.5 for d in same.per_bin if d.first is not None)
    both = evaluate(truth, [half, run], options)
    assert both.comparison is not None
    whole = both.comparison.per_bin[0]
    assert (whole.of, whole.metric) == ("all", "ap")
    assert whole.difference == both.runs[1].bins[0].ap - both.runs[0].bins[0].ap
    assert 0 < whole.interval.low < whole.difference < whole.interval.high
    assert whole.probability_positive == 1
    # draws are shared: the difference is surer than either figure
    widths = [b.bins[0].intervals["ap"].high - b.bins[0].intervals["ap"].low for b in both.runs]
    assert whole.interval.high - whole.interval.low < sum(widths) / 2
    assert [d.of for d in both.comparison.per_class] == list(both.runs[0].classes.category_names)


def test_interval_corrects_bias_and_agrees_with_the_probability_of_sign():
    rng = np.random.default_rng(0)
    draws = rng.normal(1.0, 0.5, 20_000)
    centred = interval(draws, 1.0)
    assert (centred.low, centred.high) == pytest.approx((1 - 0.98, 1 + 0.98), abs=0.03)
    biased = interval(draws, 0.8)  # replicates lie 0.2 above the figure: the truth lies as much below
    assert (biased.low, biased.high) == pytest.approx((0.6 - 0.98, 0.6 + 0.98), abs=0.05)
    assert probability_positive(draws - biased.low, 0.8 - biased.low) == pytest.approx(0.975, abs=2e-3)
    undefined = np.where(np.arange(20_000) % 3, np.nan, draws)
    assert interval(undefined, 1.0).low is None
    assert probability_positive(undefined, 1.0) is None
    assert interval(np.array([0.4]), 0.5) == Interval(0.4, 0.4)  # one replicate


@pytest.mark.thorough
@pytest.mark.slow
def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """40 data sets of 100 images: within what chance allows of 95 in 100 (the benchmark counts more)."""
    coverage = of_checkout("size_ap_coverage").measure_coverage(40, images=100, replicates=100, population_images=4000)
    assert coverage.ap.min() >= 0.8
    assert coverage.difference.min() >= 0.8
    assert (coverage.ap.mean() + coverage.difference.mean()) / 2 >= 0.89
