"""What a run's scores say, by size: thresholds for a goal, and whether scores are probabilities, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco.objects import GroundTruth
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.kernel.accumulate import Accumulator, mean_defined
from mmms_plugin.size_ap.kernel.bootstrap import interval, replicated
from mmms_plugin.size_ap.kernel.calibration import Judged, Reliability, errors_of, fit_by_size, halves
from mmms_plugin.size_ap.kernel.matching import Matches
from mmms_plugin.size_ap.kernel.operating_points import Ranked
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.results import (
    POINT,
    Calibration,
    CalibrationCell,
    Interval,
    OperatingPoint,
    OperatingPoints,
    SizeMap,
    figure,
)

OF_CELL = ("score", "precision", "ece", "mce")
OF_MAP = ("ece", "ece_one", "ece_size", "change")
Floats = NDArray[np.float64]
Weights = NDArray[np.int32]


def operating_points(
    truth: GroundTruth, matches: Matches, accumulator: Accumulator, threshold: int, options: Options
) -> OperatingPoints:
    """Thresholds of all classes together and of each.

    Args:
        truth: the ground truth.
        matches: of the run.
        accumulator: of the same matches.
        threshold: place of the IoU threshold.
        options: the goal, and the bootstrap.
    """
    points, thresholds = [], matches.candidates.thresholds
    for names in ([None], _class_names(truth)):
        ranked, goal = Ranked(matches, threshold, merged=names == [None]), options.goal
        chosen = ranked.choose(goal)
        kept = ranked.kept(chosen)

        def drawn(weights: Weights, ranked: Ranked = ranked, chosen: NDArray = chosen) -> Floats:
            return ranked.drawn(options.goal, chosen, weights)

        draws = _draws(drawn, matches, options)
        for cell, common in _cells(names, kept.figures, draws, POINT, POINT, matches, options):
            kept_here, hits = (int(np.nan_to_num(counts[cell])) for counts in (kept.kept, kept.hits))
            points.append(OperatingPoint(**common, kept=kept_here, hits=hits, objects=int(kept.objects[cell])))
    curves = tuple(tuple(map(figure, row)) for row in mean_defined(accumulator.precision(threshold), 1))
    return OperatingPoints(str(options.goal), float(thresholds[threshold]), tuple(points), curves)


def check_probabilities(scores: Floats, option: str, name: str) -> None:
    """Raise a `UserError` if the scores of the run of that name are not from 0 to 1."""
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        limits = f"{scores.min():g} to {scores.max():g}"
        raise UserError(f"{option}: {name} has scores from {limits}; must be from 0 to 1")


def calibration_of(truth: GroundTruth, name: str, matches: Matches, threshold: int, options: Options) -> Calibration:
    """Calibration errors of all classes together and of each, and the maps by size.

    Args:
        truth: the ground truth.
        name: of the run.
        matches: of the run.
        threshold: place of the IoU threshold.
        options: the bootstrap.

    Raises:
        UserError: scores that are not from 0 to 1.
    """
    judged = Judged.of(matches, threshold)
    check_probabilities(judged.score, "--calibration", name)
    cells = []
    for names in ([None], _class_names(truth)):
        reliability = Reliability(judged, 0 if names == [None] else len(names))
        sums = reliability.sums()
        errors = errors_of(sums)

        def drawn(weights: Weights, own: Reliability = reliability) -> Floats:
            return errors_of(own.sums(weights))

        draws = _draws(drawn, matches, options)
        for (i, k), common in _cells(names, errors, draws, OF_CELL, OF_CELL[1:], matches, options):
            levels = tuple(
                (int(n), figure(score / n), figure(right / n)) if n else (0, None, None)
                for n, score, right in sums[:, i, k].T.tolist()
            )
            cells.append(CalibrationCell(**common, detections=int(sums[0, i, k].sum()), levels=levels))
    maps, tested = fit_by_size(judged, halves(matches.candidates.images, options.seed))
    values, draws = tested.errors(), _draws(tested.errors, matches, options)
    rows = tuple(
        SizeMap(
            bin_.name,
            slope=maps.pairs[i][0],
            offset=maps.pairs[i][1],
            fitted=int(maps.fitted[i]),
            tested=int(tested.count[i]),
            errors=tuple(map(figure, values[:3, i])),
            losses=tuple(map(figure, tested.losses[:, i])),
            intervals=_intervals(draws[:, :, i], values[:, i], OF_MAP, options),
        )
        for i, bin_ in enumerate(matches.bins)
    )
    return Calibration(float(matches.candidates.thresholds[threshold]), tuple(cells), rows)


def _cells(
    names: Sequence[str | None], figures: Floats, draws: Floats, fields: Sequence[str], spread: Sequence[str],
    matches: Matches, options: Options,
) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:  # fmt: skip
    """What results say of every bin and class: their place, and names, figures and intervals.

    Args:
        names: of the classes.
        figures: ``(fields, bins, classes)``.
        draws: ``(replicates, fields, bins, classes)``.
        fields: names of the figures.
        spread: those with an interval.
        matches: whose bins they are.
        options: the bootstrap.
    """
    for k, name in enumerate(names):
        for i, bin_ in enumerate(matches.bins):
            values = figures[:, i, k]
            intervals = _intervals(draws[:, :, i, k], values, fields, options)
            kept = {field: interval for field, interval in intervals.items() if field in spread}
            by_field = dict(zip(fields, map(figure, values), strict=True))
            yield (i, k), dict(bin=bin_.name, category=name, intervals=kept, **by_field)


def _class_names(truth: GroundTruth) -> list[str]:
    """In the order of the kernel's classes."""
    _, first = np.unique(truth.category_ids, return_index=True)
    return [truth.category_names[i] for i in first]


def _draws(function: Callable[[Weights], Floats], matches: Matches, options: Options) -> Floats:
    """``(replicates, ...)`` figures in every draw of images; no rows without bootstrap."""
    images = matches.candidates.images
    if not options.replicates:
        return function(np.ones(images, np.int32))[None][:0]
    return np.stack(replicated(function, images, options.replicates, options.seed))


def _intervals(draws: Floats, values: Floats, names: Sequence[str], options: Options) -> dict[str, Interval]:
    """By name, of ``(n,)`` values and ``(replicates, n)`` draws of them; empty without bootstrap."""
    if not len(draws):
        return {}
    return {
        name: interval(drawn, float(value), options.confidence)
        for name, drawn, value in zip(names, draws.T, values, strict=True)
    }
