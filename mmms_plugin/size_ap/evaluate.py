"""The whole evaluation by object size: runs, or methods of several seeds in, `SizeAPResults` out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco import lvis
from mmms_plugin.coco.objects import Detections, GroundTruth, Method, describe_area
from mmms_plugin.errors import UserError
from mmms_plugin.size_ap.compare import compare
from mmms_plugin.size_ap.kernel.accumulate import Accumulator, mean_defined, recall_at
from mmms_plugin.size_ap.kernel.bootstrap import bin_figures, bootstrap, interval
from mmms_plugin.size_ap.kernel.error_types import MATCH, ErrorGains, error_gains
from mmms_plugin.size_ap.kernel.levels import Levels, combined, levels
from mmms_plugin.size_ap.kernel.matching import Candidates, Matches, find_candidates, match
from mmms_plugin.size_ap.kernel.sweep import size_windows, sweep
from mmms_plugin.size_ap.measured import Measured, Run, figure
from mmms_plugin.size_ap.objects.bins import BinSet, resolve_bins
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.results import (
    ERROR_TYPES,
    METRICS,
    Bin,
    BinResult,
    ClassMatrix,
    ErrorShare,
    Figure,
    Interval,
    RunResult,
    SeedResult,
    SizeAPResults,
    SizePoint,
)

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
    methods = [one if isinstance(one, Method) else Method(one.name, (one,)) for one in runs]
    done = _measure(truth, methods, bins.bins, options)
    comparisons = tuple(compare(truth, done[0], other, options) for other in done[1:])
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
        runs=tuple(_run_result(truth, method, bins, options) for method in done),
        comparison=comparisons[0] if comparisons else None,
        more_comparisons=comparisons[1:],
        notes=(*notes, *_unplaced(done[0].runs[0].matches), *_single(done)),
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


def _measure(truth: GroundTruth, methods: Sequence[Method], bins: tuple[Bin, ...], options: Options) -> list[Measured]:
    """Every method's runs matched, and all of them bootstrapped with the same draws of images."""
    runs = [[_match_run(truth, one, bins, options) for one in method.runs] for method in methods]
    every = [run for some in runs for run in some]
    replicates = iter(
        bootstrap(
            [run.accumulator for run in every], np.asarray(options.thresholds), every[0].candidates.images,
            options.replicates, options.seed, progress=options.progress,
        ) if options.replicates else ()
    )  # fmt: skip
    return [
        Measured(method.name, tuple(some), tuple(next(replicates) for _ in some if options.replicates), options.seed)
        for method, some in zip(methods, runs, strict=True)
    ]


def _match_run(truth: GroundTruth, run: Detections, bins: tuple[Bin, ...], options: Options) -> Run:
    candidates = find_candidates(
        truth, run, options.iou_type, options.area, max(options.max_dets, 1), options.thresholds
    )
    matches = match(candidates, bins)
    return Run(run.name, candidates, matches, Accumulator(matches), _errors(truth, run, candidates, bins, options))


def _errors(
    truth: GroundTruth, run: Detections, candidates: Candidates, bins: tuple[Bin, ...], options: Options
) -> tuple[ErrorGains, ...]:
    if not options.errors:
        return ()
    if min(options.thresholds) > MATCH:  # candidates of lower IoU are needed
        candidates = find_candidates(truth, run, options.iou_type, options.area, options.max_dets, (MATCH,))
    return tuple(error_gains(candidates, bins, options.iou_type, options.replicates, options.seed))


def _run_result(truth: GroundTruth, method: Measured, bins: BinSet, options: Options) -> RunResult:
    first, figures = method.runs[0], method.by_bin
    detections = np.mean([class_detections(run.matches) for run in method.runs], 0).round().astype(int)
    draws = _shares(method.bin_levels, options.confidence)
    shares = _error_shares(method, options.confidence)
    results = tuple(
        BinResult(
            bin_,
            *_four(figures[i]),
            ground_truths=int(first.scores.objects[i].sum()),
            detections=int(detections[i].sum()),
            intervals=_bin_intervals(draws, i, figures[i], options.confidence),
            errors=shares[i] if shares else {},
            ap_draws=() if method.bin_levels is None else tuple(map(figure, method.bin_levels.draws[:, i, 0])),
        )
        for i, bin_ in enumerate(bins.bins)
    )
    matrix = _class_matrix(truth, method, detections, options)
    seeds = [
        SeedResult(run.name, tuple(map(figure, row[:, 0])), _seed_draws(method, k))
        for k, (run, row) in enumerate(zip(method.runs, method.by_run, strict=True))
    ]
    return RunResult(
        method.name,
        results,
        matrix,
        _mean_stats([_stats(run, bins, options.max_dets) | _by_frequency(truth, run) for run in method.runs]),
        _sweep([run.candidates for run in method.runs], options) if options.sweep else (),
        tuple(seeds) if len(seeds) > 1 else (),
    )


def _seed_draws(method: Measured, seed: int) -> tuple[tuple[Figure, ...], ...]:
    """AP of one run: of every bin, in every draw of images."""
    return tuple(tuple(map(figure, row)) for row in method.replicates[seed].bins[..., 0].T) if method.replicates else ()


def _error_shares(method: Measured, confidence: float) -> list[dict[str, ErrorShare]]:
    """By bin and type of error."""
    if not method.runs[0].errors:
        return []
    draws = None if method.error_levels is None else combined([method.error_levels], confidence)
    counts = np.mean([[one.counts for one in run.errors] for run in method.runs], 0).round().astype(int)
    return [
        {
            name: ErrorShare(
                int(counts[i, k]), figure(gain), None if draws is None else interval(draws[:, i, k], gain, confidence)
            )
            for k, (name, gain) in enumerate(zip(ERROR_TYPES, gains, strict=True))
        }
        for i, gains in enumerate(method.gains)
    ]


def class_detections(matches: Matches) -> NDArray[np.int64]:
    """``(bins, classes)`` detections whose own area is in the bin."""
    classes, category = matches.candidates.categories, matches.candidates.detections.category
    return np.stack([np.bincount(category[inside], minlength=classes) for inside in matches.in_bin])


def _stats(run: Run, bins: BinSet, max_dets: int) -> dict[str, float]:
    """pycocotools' figures by name; those of small, medium and large with the preset 'coco' only."""
    figures = bin_figures(run.scores, run.candidates.thresholds)
    sizes = dict(zip("sml", figures[1:], strict=True)) if bins.source == "coco" else {}
    early = {f"AR{n}": recall_at(run.matches, n)[0] for n in (1, 10) if n < max_dets}
    stats = dict(zip(("AP", "AP50", "AP75"), figures[0, :3].tolist(), strict=True))
    stats |= {f"AP{size}": float(row[0]) for size, row in sizes.items()}
    stats |= {name: float(mean_defined(recall.mean(0), 0)) for name, recall in early.items()}
    stats[f"AR{max_dets}"] = float(figures[0, 3])
    return stats | {f"AR{size}": float(row[3]) for size, row in sizes.items()}


def _by_frequency(truth: GroundTruth, run: Run) -> dict[str, float]:
    """LVIS's AP of rare, common and frequent classes."""
    if not truth.federated:
        return {}
    _, first = np.unique(truth.category_ids, return_index=True)
    frequency = np.array(truth.federated.frequency)[first]
    ap = run.scores.ap[0].mean(0)
    return {name: float(mean_defined(ap[frequency == one], 0)) for one, name in lvis.FREQUENCIES.items()}


def _mean_stats(stats: Sequence[dict[str, float]]) -> dict[str, Figure]:
    return {name: figure(float(np.mean([one[name] for one in stats]))) for name in stats[0]}


def _class_matrix(truth: GroundTruth, method: Measured, detections: NDArray[np.int64], options: Options) -> ClassMatrix:
    ids, first = np.unique(truth.category_ids, return_index=True)
    by_class = method.by_class.transpose(2, 1, 0)  # (4, classes, bins)
    counts = method.runs[0].accumulator.objects().astype(int)
    intervals = None
    found = _shares(method.class_levels, options.confidence)
    if found is not None:
        draws = found.transpose(2, 1, 0)  # (classes, bins, replicates)
        intervals = tuple(
            tuple(interval(draw, point, options.confidence) for draw, point in zip(row, points, strict=True))
            for row, points in zip(draws, by_class[0], strict=True)
        )
    return ClassMatrix(
        tuple(ids.tolist()),
        tuple(truth.category_names[i] for i in first),
        ap=_table(by_class[0]),
        ap50=_table(by_class[1]),
        ap75=_table(by_class[2]),
        ar=_table(by_class[3]),
        ground_truths=tuple(tuple(row) for row in counts.T.tolist()),
        detections=tuple(tuple(row) for row in detections.T.tolist()),
        ap_intervals=intervals,
    )


def _sweep(runs: Sequence[Candidates], options: Options) -> tuple[SizePoint, ...]:
    """AP against size with its band, the mean over the runs of a method."""
    windows = size_windows(runs[0])
    if not windows:
        return ()
    figures, objects, draws = zip(*(sweep(run, options.replicates, options.seed) for run in runs), strict=True)
    means = np.mean(figures, 0)
    found = levels(np.stack(figures)[..., 0], np.stack(draws), options.seed) if options.replicates else None
    band = _shares(found, options.confidence)
    return tuple(
        SizePoint(
            side, *window.limits, figure(means[i, 0]), figure(means[i, 1]), int(objects[0][i]),
            None if band is None else interval(band[:, i], means[i, 0], options.confidence),
        )
        for i, (side, window) in enumerate(windows)
    )  # fmt: skip


def _shares(found: Levels | None, confidence: float) -> Floats | None:
    """A method's figures in every replicate; they are shares, and wide intervals stay within 0 and 1."""
    return None if found is None else combined([found], confidence).clip(0, 1)


def _bin_intervals(draws: Floats | None, bin_: int, row: Floats, confidence: float) -> dict[str, Interval]:
    if draws is None:
        return {}
    return {metric: interval(draws[:, bin_, j], row[j], confidence) for j, metric in enumerate(METRICS)}


def _single(methods: Sequence[Measured]) -> tuple[str, ...]:
    """A note on single runs beside methods of several seeds."""
    alone = [one.name for one in methods if len(one.runs) == 1]
    if not alone or len(alone) == len(methods):
        return ()
    return (f"one seed only: {', '.join(alone)}; how much other seeds would differ is unknown and in no interval",)


def _unplaced(matches: Matches) -> tuple[str, ...]:
    """A note on objects that no bin but 'all' counts."""
    outside = int((matches.counted[0] & ~matches.counted[1:].any(0)).sum())
    return (f"{outside} objects are in no bin but 'all'",) if outside else ()


def _four(row: Floats) -> tuple[Figure, Figure, Figure, Figure]:
    ap, ap50, ap75, ar = map(figure, row)
    return ap, ap50, ap75, ar


def _table(values: Floats) -> tuple[tuple[Figure, ...], ...]:
    return tuple(tuple(figure(value) for value in row) for row in values)
