"""The whole evaluation by object size: one or two runs in, `SizeAPResults` out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.analysis.size_ap.kernel.accumulate import Accumulator, Scores, mean_defined, recall_at
from mmms_plugin.analysis.size_ap.kernel.bootstrap import (
    Replicates,
    bin_figures,
    bootstrap,
    class_figures,
    interval,
    probability_positive,
)
from mmms_plugin.analysis.size_ap.kernel.data import AREAS, Detections, GroundTruth, describe_area
from mmms_plugin.analysis.size_ap.kernel.error_types import MATCH, ErrorGains, error_gains
from mmms_plugin.analysis.size_ap.kernel.groups import group_rows
from mmms_plugin.analysis.size_ap.kernel.matching import IOU_THRESHOLDS, Candidates, Matches, find_candidates, match
from mmms_plugin.analysis.size_ap.objects.bins import BinSet, resolve_bins
from mmms_plugin.analysis.size_ap.reading import lvis
from mmms_plugin.analysis.size_ap.results import (
    ERROR_TYPES,
    METRICS,
    Bin,
    BinResult,
    ClassMatrix,
    Comparison,
    Difference,
    ErrorShare,
    Figure,
    Interval,
    RunResult,
    SizeAPResults,
    SizePoint,
)
from mmms_plugin.errors import UserError

IOU_TYPES = ("bbox", "segm")
LIMITS = {"max_dets": (1, 10**6), "replicates": (0, 10**5), "seed": (0, 2**32 - 1)}
MOST_CONFIDENCE = 0.9999  # more than replicates can resolve
Floats = NDArray[np.float64]
SMALLEST_OCTAVE = -2.0  # of the sweep over sizes; a quarter of a pixel


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Attributes:
        iou_type: 'bbox' or 'segm'.
        area: 'annotation' (pycocotools' rule), 'box' or 'mask'.
        bins, bin_unit, allow_gaps, allow_overlaps: see `mmms_plugin.analysis.size_ap.objects.bins.resolve_bins`.
        max_dets: detections per image and class that count.
        thresholds: of IoU.
        replicates, seed, confidence: of the bootstrap; 0 replicates for none.
        score_threshold: from which a detection predicts its class, for multi-label F1.
        resize: width and height that pictures are made to fit before training; for the advice on anchors only.
        errors: also what each type of error costs (`mmms_plugin.analysis.size_ap.kernel.error_types`).
        sweep: also AP against continuous size.
        progress: show bars.
    """

    iou_type: str = "bbox"
    area: str = "annotation"
    bins: str = "coco"
    bin_unit: str = "side"
    allow_gaps: bool = False
    allow_overlaps: bool = False
    max_dets: int = 100
    thresholds: tuple[float, ...] = IOU_THRESHOLDS
    replicates: int = 0
    seed: int = 0
    confidence: float = 0.95
    score_threshold: float = 0.5
    resize: tuple[int, int] | None = None
    errors: bool = True
    sweep: bool = True
    progress: bool = False

    @property
    def masks(self) -> bool:
        """Whether segmentations are needed."""
        return self.iou_type == "segm" or self.area == "mask"

    def for_rules_of(self, truth: GroundTruth) -> Options:
        """The same, with as many detections of a class as the data set's own rules allow in an image (LVIS)."""
        return replace(self, max_dets=max(self.max_dets, lvis.DETECTIONS)) if truth.federated else self

    def __post_init__(self) -> None:
        for name, allowed in (("iou_type", IOU_TYPES), ("area", tuple(AREAS))):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} {getattr(self, name)!r}: allowed are {', '.join(allowed)}")
        for name, (least, most) in LIMITS.items():
            if not least <= getattr(self, name) <= most:
                shown = f"{'bootstrap' if name == 'replicates' else name}={getattr(self, name)}"
                raise UserError(f"{shown}: must be an integer from {least} to {most:,}")
        if not 0 < self.confidence <= MOST_CONFIDENCE:
            raise UserError(f"confidence={self.confidence}: must be above 0 and at most {MOST_CONFIDENCE}")
        if math.isnan(self.score_threshold):
            raise UserError("score_threshold=nan: must be a number")
        if not self.thresholds or not all(0 < t <= 1 for t in self.thresholds):
            raise UserError(f"thresholds {self.thresholds}: allowed are numbers in (0, 1], at least one")


@dataclass(frozen=True)
class _Run:
    """One run between matching and results; ``errors`` is one a bin, or empty."""

    name: str
    candidates: Candidates
    matches: Matches
    accumulator: Accumulator
    errors: tuple[ErrorGains, ...] = ()


def evaluate(
    truth: GroundTruth, runs: Sequence[Detections], options: Options, notes: Sequence[str] = ()
) -> SizeAPResults:
    """Evaluate one run, or two and their difference.

    Args:
        truth: ground truth.
        runs: one or two runs on it.
        options: how.
        notes: what the reader of the files had to say; kept in the results.

    Raises:
        UserError: options or bins that do not fit, or data without the areas or masks they need.
    """
    if len(runs) not in (1, 2):
        raise UserError(f"{len(runs)} runs: one or two can be evaluated")
    options = options.for_rules_of(truth)
    areas = truth.areas(options.area)
    objects = areas[~truth.iscrowd]
    bins = resolve_bins(options.bins, options.bin_unit, objects, options.allow_gaps, options.allow_overlaps)
    done = [_match_run(truth, run, bins.bins, options) for run in runs]
    thresholds = np.asarray(options.thresholds)
    replicates = _bootstrap(done, thresholds, options)
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
        runs=tuple(
            _run_result(truth, run, bins, thresholds, draws, options)
            for run, draws in zip(done, replicates, strict=True)
        ),
        comparison=_compare(truth, done, thresholds, replicates, options) if len(done) == 2 else None,
        notes=(*notes, *_unplaced(done[0].matches)),
        data=_fingerprint(truth, areas),
    )


def _fingerprint(truth: GroundTruth, areas: Floats) -> str:
    """Of what decides the figures of a given run: images, categories and objects."""
    columns = (
        truth.image_ids,
        truth.category_ids,
        truth.image_id,
        truth.category_id,
        truth.boxes,
        areas,
        truth.iscrowd,
    )
    digest = hashlib.sha256()
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def _match_run(truth: GroundTruth, run: Detections, bins: tuple[Bin, ...], options: Options) -> _Run:
    candidates = find_candidates(
        truth, run, options.iou_type, options.area, max(options.max_dets, 1), options.thresholds
    )
    matches = match(candidates, bins)
    return _Run(run.name, candidates, matches, Accumulator(matches), _errors(truth, run, candidates, bins, options))


def _errors(
    truth: GroundTruth, run: Detections, candidates: Candidates, bins: tuple[Bin, ...], options: Options
) -> tuple[ErrorGains, ...]:
    if not options.errors:
        return ()
    if min(options.thresholds) > MATCH:  # candidates of lower IoU are needed
        candidates = find_candidates(truth, run, options.iou_type, options.area, options.max_dets, (MATCH,))
    return tuple(error_gains(candidates, bins, options.iou_type, options.replicates, options.seed))


def _bootstrap(runs: list[_Run], thresholds: Floats, options: Options) -> list[Replicates | None]:
    if not options.replicates:
        return [None] * len(runs)
    accumulators = [run.accumulator for run in runs]
    images = runs[0].candidates.images
    return [*bootstrap(accumulators, thresholds, images, options.replicates, options.seed, progress=options.progress)]


def _run_result(
    truth: GroundTruth,
    run: _Run,
    bins: BinSet,
    thresholds: Floats,
    replicates: Replicates | None,
    options: Options,
) -> RunResult:
    scores = run.accumulator.scores()
    figures = bin_figures(scores, thresholds)
    detections = class_detections(run.matches)
    results = tuple(
        BinResult(
            bin_,
            *_four(figures[i]),
            ground_truths=int(scores.objects[i].sum()),
            detections=int(detections[i].sum()),
            intervals=_bin_intervals(replicates, i, figures[i], options.confidence),
            errors=_error_shares(run.errors[i], options.confidence) if run.errors else {},
            ap_draws=() if replicates is None else tuple(map(_figure, replicates.bins[:, i, 0])),
        )
        for i, bin_ in enumerate(bins.bins)
    )
    matrix = _class_matrix(truth, run, class_figures(scores, thresholds), detections, replicates, options)
    sweep = _sweep(run.candidates) if options.sweep else ()
    stats = _stats(run.matches, figures, bins, options.max_dets) | _by_frequency(truth, scores)
    return RunResult(run.name, results, matrix, stats, sweep)


def _error_shares(found: ErrorGains, confidence: float) -> dict[str, ErrorShare]:
    shares = {}
    for k, name in enumerate(ERROR_TYPES):
        limits = interval(found.draws[:, k], found.gains[k], confidence) if len(found.draws) else None
        shares[name] = ErrorShare(int(found.counts[k]), _figure(found.gains[k]), limits)
    return shares


def class_detections(matches: Matches) -> NDArray[np.int64]:
    """``(bins, classes)`` detections whose own area is in the bin."""
    classes, category = matches.candidates.categories, matches.candidates.detections.category
    return np.stack([np.bincount(category[inside], minlength=classes) for inside in matches.in_bin])


def _stats(matches: Matches, figures: Floats, bins: BinSet, max_dets: int) -> dict[str, Figure]:
    """pycocotools' figures by name; those of small, medium and large with the preset 'coco' only."""
    sizes = dict(zip("sml", figures[1:], strict=True)) if bins.source == "coco" else {}
    early = {f"AR{n}": recall_at(matches, n)[0] for n in (1, 10) if n < max_dets}
    stats = dict(zip(("AP", "AP50", "AP75"), _four(figures[0])[:3], strict=True))
    stats |= {f"AP{size}": _figure(row[0]) for size, row in sizes.items()}
    stats |= {name: _figure(float(mean_defined(recall.mean(0), 0))) for name, recall in early.items()}
    stats[f"AR{max_dets}"] = _figure(figures[0, 3])
    return stats | {f"AR{size}": _figure(row[3]) for size, row in sizes.items()}


def _by_frequency(truth: GroundTruth, scores: Scores) -> dict[str, Figure]:
    """LVIS's AP of rare, common and frequent classes."""
    if not truth.federated:
        return {}
    _, first = np.unique(truth.category_ids, return_index=True)
    frequency = np.array(truth.federated.frequency)[first]
    ap = scores.ap[0].mean(0)
    return {name: _figure(float(mean_defined(ap[frequency == one], 0))) for one, name in lvis.FREQUENCIES.items()}


def _class_matrix(
    truth: GroundTruth,
    run: _Run,
    figures: Floats,
    detections: NDArray[np.int64],
    replicates: Replicates | None,
    options: Options,
) -> ClassMatrix:
    ids, first = np.unique(truth.category_ids, return_index=True)
    by_class = figures.transpose(2, 1, 0)  # (4, classes, bins)
    counts = run.accumulator.objects().astype(int)
    intervals = None
    if replicates is not None:
        draws = replicates.class_ap.transpose(2, 1, 0)  # (classes, bins, replicates)
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


def _sweep(candidates: Candidates, at_once: int = 8) -> tuple[SizePoint, ...]:
    """AP in windows one octave of side wide, a quarter octave apart, over the sizes the data set has."""
    area = candidates.truths.area[~candidates.truths.crowd & (candidates.truths.area > 0)]
    if not len(area):
        return ()
    octave = np.log2(np.sqrt(area)).clip(min=SMALLEST_OCTAVE)
    centres = np.arange(np.floor(octave.min() * 4), np.ceil(octave.max() * 4) + 1) / 4
    windows = [Bin(f"{c:g}", float(4 ** (c - 0.5)), float(4 ** (c + 0.5))) for c in centres]
    points: list[SizePoint] = []
    for start in range(0, len(windows), at_once):
        part = tuple(windows[start : start + at_once])
        scores = Accumulator(match(candidates, part)).scores()
        figures = bin_figures(scores, candidates.thresholds)
        for window, row, objects in zip(part, figures, scores.objects.sum(1), strict=True):
            side, (low, high) = 2.0 ** float(window.name), window.limits
            points.append(SizePoint(side, low, high, _figure(row[0]), _figure(row[3]), int(objects)))
    return tuple(points)


def _compare(
    truth: GroundTruth,
    runs: list[_Run],
    thresholds: Floats,
    replicates: list[Replicates | None],
    options: Options,
) -> Comparison:
    scores = [run.accumulator.scores() for run in runs]
    by_bin = [bin_figures(s, thresholds) for s in scores]
    class_ap = [s.ap[0].mean(0) for s in scores]
    draws = None if replicates[0] is None else replicates[1].bins - replicates[0].bins  # type: ignore[union-attr]
    class_draws = (
        None if replicates[0] is None else (replicates[1].class_ap - replicates[0].class_ap)[:, 0]  # type: ignore[union-attr]
    )
    bins = runs[0].matches.bins
    _, first = np.unique(truth.category_ids, return_index=True)
    return Comparison(
        runs[0].name,
        runs[1].name,
        per_bin=tuple(
            _difference(bin_.name, metric, by_bin[0][i, j], by_bin[1][i, j], _column(draws, i, j), options.confidence)
            for i, bin_ in enumerate(bins)
            for j, metric in enumerate(METRICS)
        ),
        per_class=tuple(
            _difference(
                truth.category_names[place],
                "ap",
                class_ap[0][k],
                class_ap[1][k],
                _column(class_draws, k),
                options.confidence,
            )
            for k, place in enumerate(first)
        ),
        per_error=_error_differences(runs, options.confidence),
        groups=group_rows(
            (runs[0].candidates, runs[1].candidates),
            (runs[0].accumulator, runs[1].accumulator),
            options.score_threshold,
        ),
        score_threshold=options.score_threshold,
    )


def _error_differences(runs: list[_Run], confidence: float) -> tuple[Difference, ...]:
    found: list[Difference] = []
    for bin_, first, second in zip(
        runs[0].matches.bins if runs[0].errors else (), runs[0].errors, runs[1].errors, strict=True
    ):
        draws = second.draws - first.draws if len(first.draws) else None
        for k, name in enumerate(ERROR_TYPES):
            gains = (first.gains[k], second.gains[k])
            found.append(_difference(bin_.name, name, *gains, _column(draws, k), confidence))
    return tuple(found)


def _difference(
    of: str, metric: str, first: float, second: float, draws: Floats | None, confidence: float
) -> Difference:
    limits = None if draws is None else interval(draws, second - first, confidence)
    sign = None if draws is None else probability_positive(draws, second - first)
    return Difference(of, metric, _figure(first), _figure(second), _figure(second - first), limits, sign)


def _column(draws: Floats | None, *index: int) -> Floats | None:
    return None if draws is None else draws[:, index[0]] if len(index) == 1 else draws[:, index[0], index[1]]


def _bin_intervals(replicates: Replicates | None, bin_: int, row: Floats, confidence: float) -> dict[str, Interval]:
    if replicates is None:
        return {}
    return {metric: interval(replicates.bins[:, bin_, j], row[j], confidence) for j, metric in enumerate(METRICS)}


def _unplaced(matches: Matches) -> tuple[str, ...]:
    """A note on objects that no bin but 'all' counts."""
    outside = int((matches.counted[0] & ~matches.counted[1:].any(0)).sum())
    return (f"{outside} objects are in no bin but 'all'",) if outside else ()


def _four(row: Floats) -> tuple[Figure, Figure, Figure, Figure]:
    ap, ap50, ap75, ar = map(_figure, row)
    return ap, ap50, ap75, ar


def _table(values: Floats) -> tuple[tuple[Figure, ...], ...]:
    return tuple(tuple(_figure(value) for value in row) for row in values)


def _figure(value: float) -> Figure:
    return None if np.isnan(value) else float(value)
