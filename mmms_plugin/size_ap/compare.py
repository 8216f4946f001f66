"""Two methods on the same images: differences with intervals, and what would settle them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import GroundTruth
from mmms_plugin.size_ap.kernel.bootstrap import interval, probability_positive
from mmms_plugin.size_ap.kernel.groups import group_rows
from mmms_plugin.size_ap.kernel.levels import Levels, combined, needed, parts
from mmms_plugin.size_ap.measured import Measured, figure
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.results import ERROR_TYPES, METRICS, Comparison, Difference, Settling

Floats = NDArray[np.float64]


def compare(truth: GroundTruth, first: Measured, second: Measured, options: Options) -> Comparison:
    """The second minus the first, in every bin, class and type of error, and by group of images."""
    bins, confidence = first.runs[0].matches.bins, options.confidence
    draws = _draws(first.bin_levels, second.bin_levels, confidence)
    class_draws = _draws(first.class_levels, second.class_levels, confidence)
    _, places = np.unique(truth.category_ids, return_index=True)
    per_bin = tuple(
        _difference(bin_.name, metric, first.by_bin[i, j], second.by_bin[i, j], _at(draws, i, j), confidence)
        for i, bin_ in enumerate(bins)
        for j, metric in enumerate(METRICS)
    )
    per_class = tuple(
        _difference(
            truth.category_names[place], "ap", first.by_class[0, k, 0], second.by_class[0, k, 0],
            _at(class_draws, 0, k), confidence,
        )
        for k, place in enumerate(places)
    )  # fmt: skip
    return Comparison(
        first.name,
        second.name,
        per_bin,
        per_class,
        group_rows(
            [[run.candidates for run in one.runs] for one in (first, second)],
            [[run.accumulator for run in one.runs] for one in (first, second)],
            options.score_threshold,
        ),
        options.score_threshold,
        _error_differences(first, second, confidence),
        _settling(first, second, per_bin[:: len(METRICS)], confidence),
    )


def _error_differences(first: Measured, second: Measured, confidence: float) -> tuple[Difference, ...]:
    bins = first.runs[0].matches.bins if first.runs[0].errors else ()
    draws = _draws(first.error_levels, second.error_levels, confidence)
    return tuple(
        _difference(bin_.name, name, first.gains[i, k], second.gains[i, k], _at(draws, i, k), confidence)
        for i, bin_ in enumerate(bins)
        for k, name in enumerate(ERROR_TYPES)
    )


def _settling(
    first: Measured, second: Measured, differences: tuple[Difference, ...], confidence: float
) -> tuple[Settling, ...]:
    """Of AP in every bin that has a difference."""
    if first.bin_levels is None or second.bin_levels is None:
        return ()
    images, found = first.runs[0].candidates.images, []
    for i, one in enumerate(differences):
        if one.difference is None or one.interval is None or one.interval.low is None or one.interval.high is None:
            continue
        made_of = parts(first.bin_levels, second.bin_levels, i, 0)
        settled = one.interval.low > 0 or one.interval.high < 0
        counts = (None, None) if settled else needed(made_of, one.difference, confidence, images)
        found.append(Settling(one.of, *made_of.deviations, settled, *counts))
    return tuple(found)


def _draws(first: Levels | None, second: Levels | None, confidence: float) -> Floats | None:
    return None if first is None or second is None else combined([first, second], confidence)


def _difference(
    of: str, metric: str, first: float, second: float, draws: Floats | None, confidence: float
) -> Difference:
    limits = None if draws is None else interval(draws, second - first, confidence)
    sign = None if draws is None else probability_positive(draws, second - first)
    return Difference(of, metric, figure(first), figure(second), figure(second - first), limits, sign)


def _at(draws: Floats | None, *index: int) -> Floats | None:
    return None if draws is None else draws.reshape(len(draws), -1)[:, np.ravel_multi_index(index, draws.shape[1:])]
