"""What a run's scores say, by size: thresholds for a goal, and whether scores are probabilities, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

        draws, figures = _draws(drawn, matches, options), kept.figures
        for k, name in enumerate(names):
            for i, bin_ in enumerate(matches.bins):
                points.append(
                    OperatingPoint(
                        bin_.name,
                        name,
                        **dict(zip(POINT, map(figure, figures[:, i, k]), strict=True)),
                        kept=int(np.nan_to_num(kept.kept[i, k])),
                        hits=int(np.nan_to_num(kept.hits[i, k])),
                        objects=int(kept.objects[i, k]),
                        intervals=_intervals(draws[:, :, i, k], figures[:, i, k], POINT, options),
                    )
                )
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
        for k, category in enumerate(names):
            for i, bin_ in enumerate(matches.bins):
                cells.append(
                    CalibrationCell(
                        bin_.name,
                        category,
                        detections=int(sums[0, i, k].sum()),
                        **dict(zip(OF_CELL, map(figure, errors[:, i, k]), strict=True)),
                        levels=tuple(
                            (int(n), figure(score / n), figure(right / n)) if n else (0, None, None)
                            for n, score, right in sums[:, i, k].T.tolist()
                        ),
                        intervals=_intervals(draws[:, 1:, i, k], errors[1:, i, k], OF_CELL[1:], options),
                    )
                )
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
