"""The whole evaluation by object size: runs, or methods with several seeds, in; `SizeAPResults` out.

Every run is matched and counted once (`kernel`), and all runs are bootstrapped with the same draws of images. The
figures of a method are means over its runs; every further method is compared with the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmms_plugin.coco import lvis
from mmms_plugin.coco.formats import AUTO, Source
from mmms_plugin.coco.objects import Detections, GroundTruth, Method, describe_area
from mmms_plugin.coco.references import listed_twice
from mmms_plugin.errors import UserError, counted
from mmms_plugin.report.tables import percent
from mmms_plugin.size_ap import RELATIVE, SMALLEST_SHARE
from mmms_plugin.size_ap.bins import Bin, BinSet, resolve_bins
from mmms_plugin.size_ap.failures import choose_failures
from mmms_plugin.size_ap.kernel.accumulate import Accumulator, Scores, mean_defined, recall_at
from mmms_plugin.size_ap.kernel.bootstrap import (
    Levels,
    bin_figures,
    bootstrap,
    class_figures,
    combined,
    interval,
    levels,
    needed,
    parts,
    probability_positive,
)
from mmms_plugin.size_ap.kernel.confusion import count_answers
from mmms_plugin.size_ap.kernel.error_types import MATCH, ErrorGains, error_gains
from mmms_plugin.size_ap.kernel.groups import group_rows
from mmms_plugin.size_ap.kernel.matching import Candidates, Matches, find_candidates, match, matched_between
from mmms_plugin.size_ap.options import Options
from mmms_plugin.size_ap.resizing import with_factors
from mmms_plugin.size_ap.results import (
    ERROR_TYPES,
    METRICS,
    Answer,
    BinResult,
    Calibration,
    ClassMatrix,
    Comparison,
    Confusion,
    Difference,
    ErrorShare,
    Failures,
    GroupRow,
    Inputs,
    OperatingPoints,
    RunResult,
    SeedResult,
    Settling,
    SizeAPResults,
    SizePoint,
    figure,
)
from mmms_plugin.size_ap.scores import calibration_of, operating_points
from mmms_plugin.size_ap.suspects import find_suspects

SMALLEST_OCTAVE = -2.0  # log2 of the side: a quarter of a pixel
AT_ONCE = 4  # windows of the sweep; more need more memory
SWEEP_REPLICATES = 200  # enough for a band; the windows together hold every object four times, which takes long
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Run:
    """One prediction file, matched and counted; ``errors`` has one entry per bin, or none; ``failures`` if kept."""

    name: str
    candidates: Candidates
    matches: Matches
    accumulator: Accumulator
    scores: Scores
    errors: list[ErrorGains]
    failures: Failures | None
    operating: OperatingPoints | None
    calibration: Calibration | None


@dataclass(frozen=True)
class _Figures:
    """Figures of a method, of any shape ``...``.

    Attributes:
        by_run: ``(runs, ...)``.
        mean: ``(...)``, over the runs.
        draws: ``(runs, replicates, ...)``, the same draws of images for every run; None without bootstrap.
        levels: how the mean varies; None without bootstrap.
    """

    by_run: Floats
    mean: Floats
    draws: Floats | None
    levels: Levels | None

    @classmethod
    def of(cls, by_run: Floats, draws: Sequence[Floats], seed: int) -> _Figures:
        """From the figures of every run and, unless empty, its draws; ``seed`` is of the draws of seeds."""
        stacked = np.stack(draws) if len(draws) else None
        return cls(by_run, by_run.mean(0), stacked, None if stacked is None else levels(by_run, stacked, seed))

    def intervals(self, confidence: float, shares: bool = True) -> NDArray[np.object_]:
        """``(...)`` intervals, None without bootstrap; wide ones of ``shares`` stay within 0 and 1."""
        limits = np.full(self.mean.shape, None, object)
        if self.levels:
            draws = combined([self.levels], confidence)
            draws = draws.clip(0, 1) if shares else draws
            for place in np.ndindex(limits.shape):
                limits[place] = interval(_draws_at(draws, place), self.mean[place], confidence)
        return limits


@dataclass(frozen=True)
class _Measured:
    """One method.

    Attributes:
        runs: its only run, or one per seed.
        bins: ``(bins, 4)`` the figures `METRICS`.
        class_ap: ``(bins, classes)``.
        by_class: ``(bins, classes, 4)`` means over the runs.
        errors: ``(bins, types)`` AP50 gained if errors were fixed; None if not requested.
    """

    name: str
    runs: tuple[_Run, ...]
    bins: _Figures
    class_ap: _Figures
    by_class: Floats
    errors: _Figures | None


def evaluate(
    truth: GroundTruth,
    runs: Sequence[Detections | Method],
    options: Options,
    notes: Sequence[str] = (),
    source: Source = AUTO,
    ann: str | None = None,
    failures: bool = True,
) -> SizeAPResults:
    """Evaluate runs or methods; compare all others with the first.

    Args:
        truth: ground truth.
        runs: predictions on it; a method with several seeds counts as one run.
        options: how to evaluate.
        notes: remarks of the reader of the files; kept in the results.
        source: formats of the files, and the folder of the images, which the galleries of a saved report show.
        ann: file or folder of the annotations, from which a saved report takes those that are suspects.
        failures: keep the failures that this gallery shows.

    Raises:
        UserError: options or bins that do not fit, or data without the areas or masks they need.
    """
    if not runs:
        raise UserError("no runs: at least one is needed")
    options = options.for_rules_of(truth)
    if options.calibration and any(isinstance(run, Method) and len(run.runs) > 1 for run in runs):
        raise UserError("--calibration: it is of the scores of one run; give files with --pred, not --group")
    if options.operating and any(isinstance(run, Method) and len(run.runs) > 1 for run in runs):
        raise UserError("--thresholds: a threshold is for the scores of one run; give files with --pred, not --group")
    if options.operating and (twice := listed_twice(truth.category_names)):
        raise UserError(
            f"--thresholds: several categories are called {twice[0]!r}; thresholds go by name, so rename one"
        )
    bins = bins_of(truth, options)
    methods = [run if isinstance(run, Method) else Method(run.name, (run,)) for run in runs]
    factors = options.factors(truth)
    measured = _measure(truth, methods, bins.bins, options, factors, failures)
    comparisons = tuple(_comparison(truth, measured[0], other, options) for other in measured[1:])
    first_runs = [method.runs[0] for method in measured]
    kept = tuple(run.failures for run in first_runs if run.failures is not None)
    every = [run for method in methods for run in method.runs]
    suspects = None
    if options.suspects:
        suspects = find_suspects(truth, every, bins.bins, options.area, options.suspects, factors)
    return SizeAPResults(
        iou_type=options.iou_type,
        area=options.area,
        area_rule=describe_area(options.area, options.iou_type, truth.format) + (options.seen and f"; {options.seen}"),
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
            replace(_run_result(truth, method, bins, options), confusion=_confusion(truth, of, bins.bins, options))
            for method, of in zip(measured, methods, strict=True)
        ),
        comparison=comparisons[0] if comparisons else None,
        more_comparisons=comparisons[1:],
        notes=(*notes, *_notes(measured, options), *_id_notes(truth, methods, measured, bins.bins[0], options)),
        data=_fingerprint(truth, with_factors(truth.areas(options.area), truth.image_id, truth.image_ids, factors)),
        inputs=Inputs(truth, tuple(methods), options, source, ann, kept, suspects),
        seen=options.seen,
    )


def bins_of(truth: GroundTruth, options: Options) -> BinSet:
    """The bins of an evaluation; quantiles are those of the objects that are not crowds."""
    areas = with_factors(truth.areas(options.area), truth.image_id, truth.image_ids, options.factors(truth))
    areas = areas[~truth.iscrowd]
    return resolve_bins(options.bins, options.bin_unit, areas, options.allow_gaps, options.allow_overlaps)


def _measure(
    truth: GroundTruth,
    methods: Sequence[Method],
    bins: tuple[Bin, ...],
    options: Options,
    factors: Floats | None,
    failures: bool,
) -> list[_Measured]:
    """Match all runs, and bootstrap them together; ``factors`` as in `find_candidates`.

    With ``failures``, those of every method's first run are kept.
    """
    matched = [
        [_match(truth, run, bins, options, factors, failures and run is method.runs[0]) for run in method.runs]
        for method in methods
    ]
    accumulators = [run.accumulator for runs in matched for run in runs]
    replicates = iter(
        bootstrap(
            accumulators, np.asarray(options.thresholds), matched[0][0].candidates.images,
            options.replicates, options.seed, progress=options.progress,
        ) if options.replicates else ()
    )  # fmt: skip
    measured = []
    for method, runs in zip(methods, matched, strict=True):
        draws = [next(replicates) for _ in runs] if options.replicates else []
        by_class = np.stack([class_figures(run.scores, run.candidates.thresholds) for run in runs])
        errors = None
        if options.errors:
            gains = np.stack([[of_bin.gains for of_bin in run.errors] for run in runs])
            error_draws = [np.stack([of_bin.draws for of_bin in run.errors], 1) for run in runs if options.replicates]
            errors = _Figures.of(gains, error_draws, options.seed)
        measured.append(
            _Measured(
                method.name,
                tuple(runs),
                bins=_Figures.of(mean_defined(by_class, 2), [drawn.bins for drawn in draws], options.seed),
                class_ap=_Figures.of(by_class[..., 0], [drawn.class_ap for drawn in draws], options.seed),
                by_class=by_class.mean(0),
                errors=errors,
            )
        )
    return measured


def _match(
    truth: GroundTruth,
    run: Detections,
    bins: tuple[Bin, ...],
    options: Options,
    factors: Floats | None,
    failures: bool,
) -> _Run:
    how = (truth, run, options.iou_type, options.area, options.max_dets)
    candidates = find_candidates(*how, options.thresholds, factors=factors)
    matches = match(candidates, bins)
    errors: list[ErrorGains] = []
    kept: Failures | None = None
    if options.errors:  # whose candidates may have a lower IoU than those that match
        near = find_candidates(*how, (MATCH,), factors=factors) if min(options.thresholds) > MATCH else candidates
        errors, single = error_gains(near, bins, options.iou_type, options.replicates, options.seed, single=failures)
        kept = choose_failures(truth, near, single) if single else None
    accumulator, operating, calibration = Accumulator(matches), None, None
    if options.operating or options.calibration:
        place, at_match, counted = (
            np.flatnonzero(np.isclose(candidates.thresholds, MATCH)).tolist(),
            matches,
            accumulator,
        )
        if not place:
            place, at_match = [0], match(find_candidates(*how, (MATCH,), factors=factors), bins)
            counted = Accumulator(at_match)
        if options.operating:
            operating = operating_points(truth, at_match, counted, place[0], options)
        if options.calibration:
            calibration = calibration_of(truth, run.name, at_match, place[0], options)
    return _Run(run.name, candidates, matches, accumulator, accumulator.scores(), errors, kept, operating, calibration)


def _run_result(truth: GroundTruth, method: _Measured, bins: BinSet, options: Options) -> RunResult:
    objects = method.runs[0].scores.objects
    detections = _mean_count(  # (bins, classes), those whose own area is in the bin
        [np.bincount(run.candidates.detections.category[inside], minlength=run.candidates.categories)
         for inside in run.matches.in_bin]
        for run in method.runs
    )  # fmt: skip
    figures, limits = method.bins, method.bins.intervals(options.confidence)
    errors = _error_shares(method, options.confidence)
    ap_draws = figures.levels.draws[..., 0].T if figures.levels else [()] * len(bins.bins)
    results = tuple(
        BinResult(
            bin_,
            **dict(zip(METRICS, map(figure, figures.mean[i]), strict=True)),
            ground_truths=int(objects[i].sum()),
            detections=int(detections[i].sum()),
            intervals={name: around for name, around in zip(METRICS, limits[i], strict=True) if around},
            errors=errors[i] if errors else {},
            ap_draws=tuple(map(figure, ap_draws[i])),
        )
        for i, bin_ in enumerate(bins.bins)
    )
    stats = [
        _stats(truth, run, by_bin, "" if options.seen else bins.source, options.max_dets)
        for run, by_bin in zip(method.runs, figures.by_run, strict=True)
    ]
    return RunResult(
        method.name,
        results,
        _class_matrix(truth, method, detections, options.confidence),
        {name: figure(float(np.mean([of_run[name] for of_run in stats]))) for name in stats[0]},
        _sweep([run.candidates for run in method.runs], options) if options.sweep else (),
        _seed_results(method) if len(method.runs) > 1 else (),
        method.runs[0].operating,
        method.runs[0].calibration,
    )


def _mean_count(counts: Iterable) -> NDArray[np.int64]:
    """Mean over the runs, as integers."""
    mean: NDArray[np.int64] = np.mean(list(counts), 0).round().astype(np.int64)
    return mean


def _confusion(truth: GroundTruth, method: Method, bins: tuple[Bin, ...], options: Options) -> Confusion | None:
    """Which class is taken for which; the mean over the runs of a method."""
    if options.confusion is None:
        return None
    how = (options.score_threshold, options.iou_type, options.area, options.max_dets, options.factors(truth))
    counts = _mean_count(count_answers(truth, run, bins, options.confusion, *how) for run in method.runs)
    classes = [*np.unique(truth.category_ids).tolist(), None]
    answers = tuple(
        Answer(bins[i].name, classes[row], classes[column], int(counts[i, row, column]))
        for i, row, column in np.argwhere(counts)
    )
    return Confusion(options.confusion, options.score_threshold, answers)


def _error_shares(method: _Measured, confidence: float) -> list[dict[str, ErrorShare]]:
    """By bin and type of error; empty if error types were not requested."""
    if method.errors is None:
        return []
    counts = _mean_count([errors.counts for errors in run.errors] for run in method.runs)
    limits = method.errors.intervals(confidence, shares=False)
    return [
        {
            name: ErrorShare(int(counts[i, k]), figure(gain), limits[i, k])
            for k, (name, gain) in enumerate(zip(ERROR_TYPES, gains, strict=True))
        }
        for i, gains in enumerate(method.errors.mean)
    ]


def _stats(truth: GroundTruth, run: _Run, by_bin: Floats, bins: str, max_dets: int) -> dict[str, float]:
    """pycocotools' figures by name, those of small, medium and large with the preset 'coco' and sizes on disk only; and
    LVIS's, with its AP of rare, common and frequent classes.
    """
    sizes = dict(zip("sml", by_bin[1:], strict=True)) if bins == "coco" else {}
    early = {f"AR{n}": recall_at(run.matches, n)[0] for n in (1, 10) if n < max_dets}
    stats = dict(zip(("AP", "AP50", "AP75"), by_bin[0, :3].tolist(), strict=True))
    stats |= {f"AP{size}": float(row[0]) for size, row in sizes.items()}
    stats |= {name: float(mean_defined(recall.mean(0), 0)) for name, recall in early.items()}
    stats[f"AR{max_dets}"] = float(by_bin[0, 3])
    stats |= {f"AR{size}": float(row[3]) for size, row in sizes.items()}
    if truth.federated:
        _, first = np.unique(truth.category_ids, return_index=True)
        frequency, ap = np.array(truth.federated.frequency)[first], run.scores.ap[0].mean(0)
        stats |= {name: float(mean_defined(ap[frequency == key], 0)) for key, name in lvis.FREQUENCIES.items()}
    return stats


def _class_matrix(
    truth: GroundTruth, method: _Measured, detections: NDArray[np.int64], confidence: float
) -> ClassMatrix:
    ids, first = np.unique(truth.category_ids, return_index=True)
    by_class = method.by_class.transpose(2, 1, 0)  # (4, classes, bins)
    limits = method.class_ap.intervals(confidence).T if method.class_ap.levels else None
    return ClassMatrix(
        tuple(ids.tolist()),
        tuple(truth.category_names[i] for i in first),
        **{metric: tuple(tuple(map(figure, row)) for row in by_class[j]) for j, metric in enumerate(METRICS)},
        ground_truths=tuple(map(tuple, method.runs[0].scores.objects.T.astype(int).tolist())),
        detections=tuple(map(tuple, detections.T.tolist())),
        ap_intervals=None if limits is None else tuple(map(tuple, limits)),
    )


def _seed_results(method: _Measured) -> tuple[SeedResult, ...]:
    """AP of every run: of every bin, on the images themselves and in every draw of images."""
    points, draws = method.bins.by_run[..., 0], method.bins.draws
    drawn = [()] * len(points) if draws is None else draws[..., 0].transpose(0, 2, 1)
    return tuple(
        SeedResult(run.name, tuple(map(figure, ap)), tuple(tuple(map(figure, of_bin)) for of_bin in of_run))
        for run, ap, of_run in zip(method.runs, points, drawn, strict=True)
    )


def _sweep(runs: Sequence[Candidates], options: Options) -> tuple[SizePoint, ...]:
    """AP and AR against continuous size; empty without objects.

    Windows are one octave of side wide and a quarter octave apart. The band comes from the bootstrap's draws of images,
    at most `SWEEP_REPLICATES` of them.
    """
    truths, thresholds, images = runs[0].truths, runs[0].thresholds, runs[0].images
    area = truths.area[~truths.crowd & (truths.area > 0)]
    if not len(area):
        return ()
    smallest = np.log2(SMALLEST_SHARE) if options.unit == RELATIVE else SMALLEST_OCTAVE
    octave = np.log2(np.sqrt(area)).clip(min=smallest)
    centres = np.arange(np.floor(octave.min() * 4), np.ceil(octave.max() * 4) + 1) / 4
    windows = tuple(Bin(f"{c:g}", float(4 ** (c - 0.5)), float(4 ** (c + 0.5))) for c in centres)
    replicates = min(options.replicates, SWEEP_REPLICATES)
    figures, draws = [], []  # of every run: (windows, 4), (replicates, windows)
    for run in runs:
        own_figures, objects, own_draws = [], [], []
        for start in range(0, len(windows), AT_ONCE):
            part = windows[start : start + AT_ONCE]
            accumulator = Accumulator(match(matched_between(run, part[0].low, part[-1].high), part))
            scores = accumulator.scores()
            own_figures.append(bin_figures(scores, thresholds))
            objects += scores.objects.sum(1).astype(int).tolist()
            if replicates:
                drawn = bootstrap([accumulator], thresholds, images, replicates, options.seed)
                own_draws.append(drawn[0].bins[..., 0])
        figures.append(np.concatenate(own_figures))
        draws += [np.concatenate(own_draws, 1)] if replicates else []
    ap = _Figures.of(np.stack(figures)[..., 0], draws, options.seed)
    ar = np.mean(figures, 0)[:, 3]
    limits = ap.intervals(options.confidence)
    return tuple(
        SizePoint(float(2.0**centre), *window.limits, figure(ap.mean[i]), figure(ar[i]), objects[i], limits[i])
        for i, (centre, window) in enumerate(zip(centres, windows, strict=True))
    )


def _comparison(truth: GroundTruth, first: _Measured, second: _Measured, options: Options) -> Comparison:
    """The second minus the first, in every bin, class and type of error, and by group of images."""
    bins, confidence = first.runs[0].matches.bins, options.confidence
    _, categories = np.unique(truth.category_ids, return_index=True)
    places = [(bin_.name, metric, i, j) for i, bin_ in enumerate(bins) for j, metric in enumerate(METRICS)]
    per_bin = _differences(places, first.bins, second.bins, confidence)
    places = [(truth.category_names[category], "ap", 0, k) for k, category in enumerate(categories)]
    per_class = _differences(places, first.class_ap, second.class_ap, confidence)
    per_error: tuple[Difference, ...] = ()
    if first.errors and second.errors:
        places = [(bin_.name, name, i, k) for i, bin_ in enumerate(bins) for k, name in enumerate(ERROR_TYPES)]
        per_error = _differences(places, first.errors, second.errors, confidence)
    groups: tuple[GroupRow, ...] = ()
    if options.unit != RELATIVE:  # the groups' limits are in px
        groups = group_rows(
            [[run.candidates for run in method.runs] for method in (first, second)],
            [[run.accumulator for run in method.runs] for method in (first, second)],
            options.score_threshold,
        )
    settling = _settling(first, second, per_bin[:: len(METRICS)], confidence)
    return Comparison(first.name, second.name, per_bin, per_class, groups, options.score_threshold, per_error, settling)


def _differences(
    places: Iterable[tuple[str, str, int, int]], first: _Figures, second: _Figures, confidence: float
) -> tuple[Difference, ...]:
    """Second minus first; ``places``: what is compared, the metric, and its place among the figures."""
    draws = combined([first.levels, second.levels], confidence) if first.levels and second.levels else None
    differences = []
    for of, metric, *place in places:
        before, after = (method.mean[tuple(place)] for method in (first, second))
        limits = probability = None
        if draws is not None:
            drawn = _draws_at(draws, place)
            limits = interval(drawn, after - before, confidence)
            probability = probability_positive(drawn, after - before)
        row = Difference(of, metric, figure(before), figure(after), figure(after - before), limits, probability)
        differences.append(row)
    return tuple(differences)


def _draws_at(draws: Floats, place: Sequence[int]) -> Floats:
    """``(replicates,)`` of one figure of ``(replicates, ...)``."""
    return draws.reshape(len(draws), -1)[:, np.ravel_multi_index(tuple(place), draws.shape[1:])]


def _settling(
    first: _Measured, second: _Measured, differences: Sequence[Difference], confidence: float
) -> tuple[Settling, ...]:
    """Of AP in every bin that has a difference."""
    if first.bins.levels is None or second.bins.levels is None:
        return ()
    images, rows = first.runs[0].candidates.images, []
    for i, ap in enumerate(differences):
        if ap.difference is None or ap.interval is None or ap.interval.low is None or ap.interval.high is None:
            continue
        variance = parts(first.bins.levels, second.bins.levels, i, 0)
        settled = ap.interval.low > 0 or ap.interval.high < 0
        counts = (None, None) if settled else needed(variance, ap.difference, confidence, images)
        rows.append(Settling(ap.of, *variance.deviations, settled, *counts))
    return tuple(rows)


def _notes(methods: Sequence[_Measured], options: Options) -> tuple[str, ...]:
    """On objects that no bin but 'all' counts, single runs beside methods of several seeds, and scores without use."""
    notes, matches = [], methods[0].runs[0].matches
    outside = int((matches.counted[0] & ~matches.counted[1:].any(0)).sum())
    if outside:
        notes.append(f"{counted(outside, 'object')} in no bin but 'all'")
    single = [method.name for method in methods if len(method.runs) == 1]
    if 0 < len(single) < len(methods):
        unknown = "how much other seeds would differ is unknown and not in the intervals"
        notes.append(f"one seed only: {', '.join(single)}; {unknown}")
    for run in (run for method in methods for run in method.runs):
        scores = run.candidates.detections.scores
        if options.confusion is not None and not (scores >= options.score_threshold).any():
            notes.append(f"{run.name}: no score reaches {options.score_threshold:g}, so that its confusion is empty")
        if run.calibration and not any(row.fitted for row in run.calibration.maps):
            notes.append(f"{run.name}: nothing to fit the calibration's maps on, which leave scores as they are")
    return tuple(notes)


def _id_notes(
    truth: GroundTruth, methods: Sequence[Method], measured: Sequence[_Measured], all_sizes: Bin, options: Options
) -> tuple[str, ...]:
    """Both figures of every run whose AP pycocotools would give otherwise, because of the file's annotation ids."""
    if truth.file_ids is None or truth.federated:
        return ()
    notes, theirs = [], truth.by_file_ids()
    for method, ours in zip(methods, measured, strict=True):
        found = [
            find_candidates(theirs, run, options.iou_type, options.area, options.max_dets, options.thresholds)
            for run in method.runs
        ]
        figures = [
            bin_figures(Accumulator(match(candidates, (all_sizes,))).scores(), candidates.thresholds)[0, 0]
            for candidates in found
        ]
        ap, other = percent(float(ours.bins.mean[0, 0])), percent(float(np.mean(figures)))
        if ap != other:
            notes.append(
                f"{method.name}: AP {ap} (× 100); pycocotools gives {other}, because of the file's annotation ids"
            )
    return tuple(notes)


def _fingerprint(truth: GroundTruth, areas: Floats) -> str:
    """A hash of all that decides the figures of a given run: images, categories, objects, and LVIS's lists."""
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
