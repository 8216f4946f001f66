"""The whole evaluation by object size: runs, or methods of several seeds in, `SizeAPResults` out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco import lvis
from mmms_plugin.coco.objects import Detections, GroundTruth, Method, describe_area
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.bins import BinSet, resolve_bins
from mmms_plugin.size_ap.kernel.accumulate import mean_defined, recall_at
from mmms_plugin.size_ap.kernel.bootstrap import bin_figures, interval, probability_positive
from mmms_plugin.size_ap.kernel.groups import group_rows
from mmms_plugin.size_ap.kernel.levels import Levels, combined, needed, parts
from mmms_plugin.size_ap.measured import Measured, Run, measure
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.results import (
    ERROR_TYPES,
    METRICS,
    BinResult,
    ClassMatrix,
    Comparison,
    Difference,
    ErrorShare,
    RunResult,
    SeedResult,
    Settling,
    SizeAPResults,
    figure,
)
from mmms_plugin.size_ap.sweep import sweep

__all__ = ["Options", "evaluate"]
Floats = NDArray[np.float64]


def evaluate(
    truth: GroundTruth, runs: Sequence[Detections | Method], options: Options, notes: Sequence[str] = ()
) -> SizeAPResults:
    """Evaluate runs or methods, each but the first also compared with the first.

    Args:
        truth: ground truth.
        runs: on it; a method of several seeds is one of them.
        options: how.
        notes: what the reader of the files had to say; kept in the results.

    Raises:
        UserError: options or bins that do not fit, or data without the areas or masks they need.
    """
    if not runs:
        raise UserError("no runs: at least one is needed")
    options = options.for_rules_of(truth)
    areas = truth.areas(options.area)
    objects = areas[~truth.iscrowd]
    bins = resolve_bins(options.bins, options.bin_unit, objects, options.allow_gaps, options.allow_overlaps)
    methods = [run if isinstance(run, Method) else Method(run.name, (run,)) for run in runs]
    measured = measure(truth, methods, bins.bins, options)
    comparisons = tuple(_comparison(truth, measured[0], other, options) for other in measured[1:])
    return SizeAPResults(
        iou_type=options.iou_type,
        area=options.area,
        area_rule=describe_area(options.area, options.iou_type),
        bins=bins.bins,
        bins_source=bins.source,
        bins_reference=bins.reference,
        edge_rule=bins.edge_rule,
        images=len(truth.image_ids),
        annotations=len(truth),
        crowds=int(truth.iscrowd.sum()),
        max_dets=options.max_dets,
        iou_thresholds=options.thresholds,
        replicates=options.replicates,
        confidence=options.confidence,
        seed=options.seed,
        runs=tuple(_run_result(truth, method, bins, options) for method in measured),
        comparison=comparisons[0] if comparisons else None,
        more_comparisons=comparisons[1:],
        notes=(*notes, *_notes(measured)),
        data=_fingerprint(truth, areas),
    )


def _fingerprint(truth: GroundTruth, areas: Floats) -> str:
    """Of what decides the figures of a given run: images, categories, objects, and LVIS's lists."""
    columns = (
        truth.image_ids,
        truth.category_ids,
        truth.image_id,
        truth.category_id,
        truth.boxes,
        areas,
        truth.iscrowd,
        *((truth.federated.negative, truth.federated.not_exhaustive) if truth.federated else ()),
    )
    digest = hashlib.sha256()
    for column in columns:
        digest.update(str(np.shape(column)).encode())
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def _run_result(truth: GroundTruth, method: Measured, bins: BinSet, options: Options) -> RunResult:
    first, figures, confidence = method.runs[0], method.by_bin, options.confidence
    # (bins, classes) detections whose own area is in the bin
    detections = _mean_count(
        [
            [np.bincount(run.candidates.detections.category[inside], minlength=run.candidates.categories)
             for inside in run.matches.in_bin]
            for run in method.runs
        ]
    )  # fmt: skip
    draws = _share_draws(method.bin_levels, confidence)
    errors = _error_shares(method, confidence)
    results = tuple(
        BinResult(
            bin_,
            **dict(zip(METRICS, map(figure, figures[i]), strict=True)),
            ground_truths=int(first.scores.objects[i].sum()),
            detections=int(detections[i].sum()),
            intervals={}
            if draws is None
            else {metric: interval(draws[:, i, j], figures[i, j], confidence) for j, metric in enumerate(METRICS)},
            errors=errors[i] if errors else {},
            ap_draws=() if method.bin_levels is None else tuple(map(figure, method.bin_levels.draws[:, i, 0])),
        )
        for i, bin_ in enumerate(bins.bins)
    )
    stats = [_stats(truth, run, bins, options.max_dets) for run in method.runs]
    return RunResult(
        method.name,
        results,
        _class_matrix(truth, method, detections, confidence),
        {name: figure(float(np.mean([of_run[name] for of_run in stats]))) for name in stats[0]},
        sweep([run.candidates for run in method.runs], options) if options.sweep else (),
        _seed_results(method) if len(method.runs) > 1 else (),
    )


def _mean_count(counts: Sequence) -> NDArray[np.int64]:
    """Mean over the runs, as integers."""
    mean: NDArray[np.int64] = np.mean(counts, 0).round().astype(np.int64)
    return mean


def _share_draws(levels: Levels | None, confidence: float) -> Floats | None:
    """A method's figures in every replicate; they are shares, and wide intervals stay within 0 and 1."""
    return None if levels is None else combined([levels], confidence).clip(0, 1)


def _seed_results(method: Measured) -> tuple[SeedResult, ...]:
    """AP of every run: of every bin, on the images themselves and in every draw of images."""
    drawn = [draws.bins[..., 0].T for draws in method.replicates] or [()] * len(method.runs)
    return tuple(
        SeedResult(run.name, tuple(map(figure, row[:, 0])), tuple(tuple(map(figure, ap)) for ap in draws))
        for run, row, draws in zip(method.runs, method.by_run, drawn, strict=True)
    )


def _error_shares(method: Measured, confidence: float) -> list[dict[str, ErrorShare]]:
    """By bin and type of error."""
    if not method.runs[0].errors:
        return []
    draws = None if method.error_levels is None else combined([method.error_levels], confidence)
    counts = _mean_count([[errors.counts for errors in run.errors] for run in method.runs])
    return [
        {
            name: ErrorShare(
                int(counts[i, k]), figure(gain), None if draws is None else interval(draws[:, i, k], gain, confidence)
            )
            for k, (name, gain) in enumerate(zip(ERROR_TYPES, gains, strict=True))
        }
        for i, gains in enumerate(method.gains)
    ]


def _stats(truth: GroundTruth, run: Run, bins: BinSet, max_dets: int) -> dict[str, float]:
    """pycocotools' figures by name, those of small, medium and large with the preset 'coco' only; and LVIS's, with its
    AP of rare, common and frequent classes.
    """
    figures = bin_figures(run.scores, run.candidates.thresholds)
    sizes = dict(zip("sml", figures[1:], strict=True)) if bins.source == "coco" else {}
    early = {f"AR{n}": recall_at(run.matches, n)[0] for n in (1, 10) if n < max_dets}
    stats = dict(zip(("AP", "AP50", "AP75"), figures[0, :3].tolist(), strict=True))
    stats |= {f"AP{size}": float(row[0]) for size, row in sizes.items()}
    stats |= {name: float(mean_defined(recall.mean(0), 0)) for name, recall in early.items()}
    stats[f"AR{max_dets}"] = float(figures[0, 3])
    stats |= {f"AR{size}": float(row[3]) for size, row in sizes.items()}
    if truth.federated:
        _, first = np.unique(truth.category_ids, return_index=True)
        frequency, ap = np.array(truth.federated.frequency)[first], run.scores.ap[0].mean(0)
        stats |= {name: float(mean_defined(ap[frequency == key], 0)) for key, name in lvis.FREQUENCIES.items()}
    return stats


def _class_matrix(
    truth: GroundTruth, method: Measured, detections: NDArray[np.int64], confidence: float
) -> ClassMatrix:
    ids, first = np.unique(truth.category_ids, return_index=True)
    by_class = method.by_class.transpose(2, 1, 0)  # (4, classes, bins)
    draws, intervals = _share_draws(method.class_levels, confidence), None
    if draws is not None:
        intervals = tuple(
            tuple(interval(draw, point, confidence) for draw, point in zip(row, points, strict=True))
            for row, points in zip(draws.transpose(2, 1, 0), by_class[0], strict=True)  # (classes, bins, replicates)
        )
    return ClassMatrix(
        tuple(ids.tolist()),
        tuple(truth.category_names[i] for i in first),
        **{metric: tuple(tuple(map(figure, row)) for row in by_class[j]) for j, metric in enumerate(METRICS)},
        ground_truths=tuple(map(tuple, method.runs[0].accumulator.objects().T.astype(int).tolist())),
        detections=tuple(map(tuple, detections.T.tolist())),
        ap_intervals=intervals,
    )


def _notes(methods: Sequence[Measured]) -> tuple[str, ...]:
    """On objects that no bin but 'all' counts, and on single runs beside methods of several seeds."""
    notes, matches = [], methods[0].runs[0].matches
    outside = int((matches.counted[0] & ~matches.counted[1:].any(0)).sum())
    if outside:
        notes.append(f"{outside} objects are in no bin but 'all'")
    single = [method.name for method in methods if len(method.runs) == 1]
    if 0 < len(single) < len(methods):
        unknown = "how much other seeds would differ is unknown and in no interval"
        notes.append(f"one seed only: {', '.join(single)}; {unknown}")
    return tuple(notes)


def _comparison(truth: GroundTruth, first: Measured, second: Measured, options: Options) -> Comparison:
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
    # error types are left out by --no-errors
    error_bins, error_draws = (
        bins if first.runs[0].errors else (),
        _draws(first.error_levels, second.error_levels, confidence),
    )
    per_error = tuple(
        _difference(bin_.name, name, first.gains[i, k], second.gains[i, k], _at(error_draws, i, k), confidence)
        for i, bin_ in enumerate(error_bins)
        for k, name in enumerate(ERROR_TYPES)
    )
    groups = group_rows(
        [[run.candidates for run in method.runs] for method in (first, second)],
        [[run.accumulator for run in method.runs] for method in (first, second)],
        options.score_threshold,
    )
    settling = _settling(first, second, per_bin[:: len(METRICS)], confidence)
    return Comparison(first.name, second.name, per_bin, per_class, groups, options.score_threshold, per_error, settling)


def _settling(
    first: Measured, second: Measured, differences: tuple[Difference, ...], confidence: float
) -> tuple[Settling, ...]:
    """Of AP in every bin that has a difference."""
    if first.bin_levels is None or second.bin_levels is None:
        return ()
    images, rows = first.runs[0].candidates.images, []
    for i, ap in enumerate(differences):
        if ap.difference is None or ap.interval is None or ap.interval.low is None or ap.interval.high is None:
            continue
        variance = parts(first.bin_levels, second.bin_levels, i, 0)
        settled = ap.interval.low > 0 or ap.interval.high < 0
        counts = (None, None) if settled else needed(variance, ap.difference, confidence, images)
        rows.append(Settling(ap.of, *variance.deviations, settled, *counts))
    return tuple(rows)


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
