"""The tables of an evaluation: for the report, for the terminal, and as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from mmms_plugin.errors import UserError
from mmms_plugin.report.tables import (
    NOT_AVAILABLE,
    Cell,
    Column,
    Columns,
    Rows,
    Table,
    bracket,
    decimal,
    percent,
    to_csv,
)
from mmms_plugin.size_ap import RELATIVE
from mmms_plugin.size_ap.bins import Bin
from mmms_plugin.size_ap.object_sizes import ObjectSizes
from mmms_plugin.size_ap.report.confusion import confusion_rows, confusion_table
from mmms_plugin.size_ap.report.suspects import suspect_rows
from mmms_plugin.size_ap.results import (
    ERROR_TYPES,
    METRICS,
    POINT,
    CalibrationCell,
    Comparison,
    Difference,
    ErrorShare,
    Interval,
    OperatingPoint,
    RunResult,
    SizeAPResults,
)

METRIC_NAMES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR"}
MEASURES = {"ap": "AP", "f1_per_class": "F1 per class", "f1_overall": "F1 overall"}
FOLD_AFTER = 15  # rows
OBJECTS = Column("objects", ",")
ENDS = ("", "_low", "_high")
EVALUATED_WITH = {  # what `size_ap` needs for a table or figure
    **dict.fromkeys(("sweep", "ap_against_size"), "sweep=True"), "errors": "errors=True", "confusion": "confusion=0.5",
    **dict.fromkeys(("thresholds", "precision-recall"), "thresholds=True"), "suspects": "suspects=True",
    **dict.fromkeys(("calibration", "reliability", "calibration_maps"), "calibration=True"),
    **dict.fromkeys(("differences", "settling"), "at least two runs and bootstrap=1000"),
}  # fmt: skip
HOW = ("iou_type", "area")  # last columns of CSV files: what overlaps, and what determines an object's size


def bin_table(results: SizeAPResults, run: RunResult, intervals: Sequence[str] = METRICS) -> Table:
    """AP, AP50, AP75 and AR of one run per bin with sample sizes, and with the intervals of some of them."""
    rows: Rows = [
        (
            b.bin.name,
            b.bin.label,
            b.ground_truths,
            b.detections,
            *(figure(getattr(b, m), b.intervals.get(m) if m in intervals else None) for m in METRICS),
        )
        for b in run.bins
    ]
    size = Column(size_of(results.bins), left=True)
    columns: Columns = ("bin", size, OBJECTS, Column("detections", ","), *METRIC_NAMES.values())
    name, caption = f"bins-{position(results, run)}", f"{run.name}: {shape(results)} AP by object size (× 100)"
    return Table(name, caption, columns, rows)


def error_table(results: SizeAPResults, run: RunResult, detailed: bool = True) -> Table:
    """AP50 gained by fixing each type of error, per bin; ``detailed``: with intervals and numbers of errors."""
    rows: Rows = [
        (b.bin.name, percent(b.ap50), *(_share(s) if detailed else percent(s.gain) for s in b.errors.values()))
        for b in run.bins
    ]
    how = "× 100; in parentheses: errors" if detailed else "× 100"
    caption = f"{run.name}: {shape(results)} AP50 gained if all errors of a type were fixed ({how})"
    return Table(f"errors-{position(results, run)}", caption, ("bin", "AP50", *ERROR_TYPES), rows)


def error_difference_table(results: SizeAPResults, comparison: Comparison) -> Table:
    """Second run minus first: what fixing each type of error gains."""
    by_type = {(d.of, d.metric): d for d in comparison.per_error}
    rows: Rows = [(b.name, *(_difference(by_type[b.name, name]) for name in ERROR_TYPES)) for b in results.bins]
    caption = (
        f"AP50 gained by fixing errors, {comparison.second} minus {comparison.first}, × 100: negative if the second "
        "run loses less to errors of that type"
    )
    return Table(f"error-differences{suffix(results, comparison)}", caption, ("bin", *ERROR_TYPES), rows)


def threshold_tables(results: SizeAPResults, run: RunResult, detailed: bool = True) -> list[Table]:
    """The score from which to keep detections: by bin for all classes together; ``detailed``: also by class and bin."""
    operating = run.operating
    if operating is None:
        return []
    name = f"thresholds-{position(results, run)}"
    counts = (Column("kept", ","), Column("matching", ","), OBJECTS)
    how = f"{operating.goal} at IoU {operating.iou:g}"
    rows: Rows = [
        (p.bin, _score(p), *(figure(getattr(p, m), p.intervals.get(m) if detailed else None) for m in POINT[1:]),
         p.kept, p.hits, p.objects)
        for p in operating.points if p.category is None
    ]  # fmt: skip
    caption = f"{run.name}: score from which to keep detections, for the {how}, all classes (figures × 100)"
    tables = [Table(name, caption, ("bin", "score", "precision", "recall", "F1", *counts), rows)]
    if detailed and len(results.runs[0].classes.category_ids) > 1:
        of_class: Rows = [
            (p.category or "", p.bin, _score(p), *(figure(getattr(p, m), p.intervals.get(m)) for m in POINT[1:]),
             p.kept, p.hits, p.objects)
            for p in operating.points if p.category is not None and p.objects
        ]  # fmt: skip
        columns = ("class", Column("bin", left=True), "score", "precision", "recall", "F1", *counts)
        caption = f"{run.name}: score from which to keep detections of each class, for the {how} (figures × 100)"
        tables.append(Table(f"{name}-classes", caption, columns, of_class, len(of_class) > FOLD_AFTER))
    return tables


def _score(point: OperatingPoint) -> Cell:
    limits = point.intervals.get("score")
    if point.score is None:
        return Cell(NOT_AVAILABLE)
    known = limits is not None and limits.low is not None and limits.high is not None
    return Cell(f"{point.score:.3f}", f"[{limits.low:.3f}, {limits.high:.3f}]" if limits and known else "")


def calibration_tables(results: SizeAPResults, run: RunResult, detailed: bool = True) -> list[Table]:
    """Calibration errors by bin, and what maps by size do; ``detailed``: also errors by class and bin."""
    calibration = run.calibration
    if calibration is None:
        return []
    name, how = f"calibration-{position(results, run)}", f"IoU {calibration.iou:g}"

    def row(cell: CalibrationCell) -> list[Cell | str | int]:
        limits = cell.intervals if detailed else {}
        errors = (figure(getattr(cell, key), limits.get(key)) for key in ("precision", "ece", "mce"))
        return [cell.bin, cell.detections, percent(cell.score), *errors]

    columns = ("bin", Column("detections", ","), "mean score", "right", "ECE", "MCE")
    caption = (
        f"{run.name}: are scores probabilities? Share of detections that is right at {how}, expected and maximum "
        "calibration error, by the detections' own size (× 100)"
    )
    tables = [Table(name, caption, columns, [row(cell) for cell in calibration.cells if cell.category is None])]
    if detailed and len(results.runs[0].classes.category_ids) > 1:
        rows: Rows = [[c.category, *row(c)] for c in calibration.cells if c.category is not None and c.detections]
        typed = ("class", Column("bin", left=True), *columns[1:])
        caption = f"{run.name}: calibration errors of each class at {how} (× 100)"
        tables.append(Table(f"{name}-classes", caption, typed, rows, len(rows) > FOLD_AFTER))
    maps: Rows = [
        (m.bin, m.fitted, m.tested, f"{m.slope:.3f}", f"{m.offset:+.3f}".replace("-", "−"),
         *(figure(value, m.intervals.get(key) if detailed else None)
           for key, value in zip(("ece", "ece_one", "ece_size"), m.errors, strict=True)),
         *(f"{value:.3f}" if value is not None else NOT_AVAILABLE for value in (m.losses[0], m.losses[2])))
        for m in calibration.maps
    ]  # fmt: skip
    of_maps = ("bin", Column("fitted", ","), Column("tested", ","), "slope", "offset", "ECE as it is",
               "one map for all", "a map for each size", "log loss as it is", "by size")  # fmt: skip
    caption = (
        f"{run.name}: maps of scores, fitted on half of the images, and the expected calibration error (× 100) and log "
        "loss on the other half"
    )
    return [*tables, Table(f"{name}-maps", caption, of_maps, maps)]


def seed_table(results: SizeAPResults, run: RunResult) -> Table:
    """AP of every seed of a method, by bin."""
    rows: Rows = [(seed.name, *map(percent, seed.ap)) for seed in run.seeds]
    columns: Columns = ("seed", *(b.name for b in results.bins))
    return Table(f"seeds-{position(results, run)}", f"{run.name}: AP of each seed (× 100)", columns, rows)


def settling_table(results: SizeAPResults, comparison: Comparison) -> Table:
    """The parts of the difference's uncertainty, and how many images or seeds would settle it."""
    by_bin = {d.of: d for d in comparison.per_bin if d.metric == "ap"}
    rows: Rows = [
        (s.of, _difference(by_bin[s.of]), 100 * s.images, 100 * s.seeds, 100 * s.both, "yes" if s.settled else "no")
        + (("", "") if s.settled else (s.images_needed, s.seeds_needed))
        for s in comparison.settling
    ]
    deviations = (Column(f"SD, {source}", ".2f") for source in ("images", "seeds", "both"))
    columns: Columns = (
        "bin",
        "Δ AP",
        *deviations,
        "settled",
        Column("images needed", ","),
        Column("seeds needed", ","),
    )
    caption = (
        f"What would settle the difference: {comparison.second} minus {comparison.first}, × 100. SD: standard "
        "deviation of the difference due to the choice of images, of seeds, and to seeds that do better on some images "
        "than on others. Needed: total number of images (with these seeds), or seeds of each method (with these "
        "images), at which the interval would exclude zero if the difference stayed the same; n/a: 1,000 times as many "
        "would not suffice, or there is only one seed"
    )
    return Table(f"settling{suffix(results, comparison)}", caption, columns, rows)


def terminal_tables(results: SizeAPResults) -> list[Table]:
    """The figures of every run and its errors, as on the page but with fewer intervals."""
    shown = []
    for run in results.runs:
        shown += [bin_table(results, run, ("ap",))]
        shown += [error_table(results, run, detailed=False)] if run.bins[0].errors else []
        shown += threshold_tables(results, run, detailed=False)
        shown += calibration_tables(results, run, detailed=False)
        shown += [confusion_table(results, run, position(results, run))] if run.confusion else []
    return shown


def notebook_tables(results: SizeAPResults) -> list[Table]:
    """The terminal's tables in the order of a notebook, those of errors folded."""
    tables = terminal_tables(results)
    errors = [replace(table, folded=True) for table in tables if table.name.startswith("errors")]
    tables = [table for table in tables if not table.name.startswith("errors")]
    tables += [difference_table(results, comparison, ("ap",)) for comparison in results.comparisons]
    return [*tables, *errors]


def settling_lines(comparison: Comparison) -> list[str]:
    """What would settle each difference that is not settled, for the terminal."""
    lines = []
    for settling in comparison.settling:
        ways = [f"{settling.images_needed:,} images"] if settling.images_needed else []
        ways += [f"{settling.seeds_needed:,} seeds of each method"] if settling.seeds_needed else []
        way = f"{' or '.join(ways)} would settle it if it stays the same"
        way = way if ways else "even 1,000 times the data would not settle it"
        lines += [] if settling.settled else [f"{settling.of}: the difference is not settled; {way}"]
    return lines


def class_table(results: SizeAPResults, run: RunResult) -> Table:
    """AP of one run per class and bin, with the number of objects; best class first."""
    names, ap, counts = run.classes.category_names, run.classes.ap, run.classes.ground_truths
    rows: Rows = [
        (names[i], *(Cell(percent(value), f"({count:,})") for value, count in zip(ap[i], counts[i], strict=True)))
        for i in sorted(range(len(names)), key=lambda i: -_or(ap[i][0], -1.0))
    ]
    caption = f"{run.name}: AP per class and object size (× 100; in parentheses: objects)"
    columns: Columns = ("class", *(b.name for b in results.bins))
    return Table(f"classes-{position(results, run)}", caption, columns, rows, len(rows) > FOLD_AFTER)


def difference_table(results: SizeAPResults, comparison: Comparison, metrics: Sequence[str] = METRICS) -> Table:
    """Second run minus first per bin: AP and every metric's difference with its interval, the probability of AP's sign.

    Args:
        metrics: AP first.
    """
    by_bin = {(d.of, d.metric): d for d in comparison.per_bin}
    rows: Rows = []
    for b in results.bins:
        main, *others = (by_bin[b.name, metric] for metric in metrics)
        chance = probability(main.probability_positive)
        rows.append((b.name, *_pair(main), _difference(main), chance, *map(_difference, others)))
    main_title, *titles = (f"Δ {METRIC_NAMES[metric]}" for metric in metrics)
    columns: Columns = ("bin", "AP, first", "AP, second", main_title, "P(Δ AP > 0)", *titles)
    caption = f"{comparison.second} (second) minus {comparison.first} (first), × 100"
    return Table(f"differences{suffix(results, comparison)}", caption, columns, rows)


def class_difference_table(results: SizeAPResults, comparison: Comparison, objects: Sequence[tuple[str, int]]) -> Table:
    """Second run minus first per class over all sizes, largest gain first.

    Args:
        objects: (name, number of objects) of every class, in the order of ``comparison.per_class``.
    """
    pairs = sorted(
        zip(comparison.per_class, objects, strict=True), key=lambda pair: -_or(pair[0].difference, -math.inf)
    )
    rows: Rows = [
        (name, count, *_pair(d), _difference(d), probability(d.probability_positive)) for d, (name, count) in pairs
    ]
    columns: Columns = ("class", OBJECTS, "AP, first", "AP, second", "Δ AP", "P(Δ AP > 0)")
    caption = f"Per class: {comparison.second} (second) minus {comparison.first} (first), × 100"
    name = f"class-differences{suffix(results, comparison)}"
    return Table(name, caption, columns, rows, len(rows) > FOLD_AFTER)


def group_table(results: SizeAPResults, comparison: Comparison) -> Table:
    """ELASTIC's Table 4: the relative improvement on images grouped by the object sizes they contain."""
    rows: Rows = []
    for group in comparison.groups:
        cells = []
        for measure in MEASURES:
            first, second = group.first.get(measure), group.second.get(measure)
            small = "" if first is None and second is None else f"({percent(first)} → {percent(second)})"
            cells.append(Cell(percent(group.relative.get(measure), sign=True), small))
        rows.append((" + ".join(group.sizes), group.images, *cells))
    caption = (
        f"Relative improvement of {comparison.second} over {comparison.first} in images that contain objects of "
        f"exactly these sizes (%; in parentheses: first → second, × 100)"
    )
    columns: Columns = ("sizes in the image", Column("images", ","), *MEASURES.values())
    return Table(f"image-groups{suffix(results, comparison)}", caption, columns, rows)


def stats_table(results: SizeAPResults) -> Table:
    """pycocotools' figures of every run, or lvis-api's."""
    columns: Columns = ("figure", *(run.name for run in results.runs))
    rows: Rows = [(name, *(percent(run.stats[name]) for run in results.runs)) for name in results.runs[0].stats]
    return Table("coco-figures", f"The figures that {evaluator(results)} prints (× 100)", columns, rows)


def size_tables(sizes: ObjectSizes) -> tuple[Table, ...]:
    """A data set's objects per bin, their quantiles, and the same per class."""
    total, unit = max(1, sizes.objects), side_unit(sizes)
    bins: Rows = [
        (b.name, b.label, count, f"{100 * count / total:.1f} %")
        for b, count in zip(sizes.bins, sizes.counts, strict=True)
    ]
    quantiles: Rows = [
        (f"{100 * share:g} %", decimal(side), decimal(aspect))
        for (share, side), (_, aspect) in zip(sizes.quantiles, sizes.aspects, strict=False)
    ]
    classes: Rows = [(c.name, *c.counts, decimal(c.median_side), decimal(c.median_aspect)) for c in sizes.classes]
    counts = (Column(b.name, ",") for b in sizes.bins)
    columns: Columns = ("class", *counts, f"median side, {unit}", "median height / width")
    return (
        Table("object-bins", "Objects per bin", ("bin", size_of(sizes.bins), OBJECTS, "share"), bins),
        Table(
            "object-quantiles", "Quantiles over objects", ("share below", f"side, {unit}", "height / width"), quantiles
        ),
        Table("object-classes", "Objects per class and bin", columns, classes, len(classes) > FOLD_AFTER),
    )


def suggestions(sizes: ObjectSizes) -> list[tuple[str, str]]:
    """Pairs of a description and the option or values to copy: bins of equal count, and anchors for a pyramid."""
    lines, relative = [], " --bin-unit relative" if sizes.bins[0].unit == RELATIVE else ""
    for count, edges in sizes.equal_bins.items():
        if len(edges) == count - 1:
            limits = pairwise(("0", *(f"{edge:g}" for edge in edges), "inf"))
            bins = ",".join(f"q{i}={low}:{high}" for i, (low, high) in enumerate(limits, 1))
            lines.append((f"{count} bins with equally many objects", f'--bins "{bins}"{relative}'))
    if anchors := sizes.anchors:
        ratios, strides = [float(ratio) for ratio in anchors.ratios], list(anchors.strides)
        values = f"scales=[{anchors.scale:g}], ratios={ratios}, strides={strides}"
        sides = ", ".join(f"{side:g}" for side in anchors.sides)
        where = "in pixels of the original pictures (--resize 1333x800 takes resizing into account)"
        if sizes.resize:
            where = f"in pixels after resizing ({sizes.resize})"
        covered = f"{anchors.covered:.0%} of objects have an IoU of 0.5 with an anchor, averaged over positions"
        lines.append((f"anchors for a pyramid, {where}", f"{values}: sides {sides} px; {covered}"))
    return lines


def csv_files(results: SizeAPResults) -> dict[str, str]:
    """The figures in full precision, undefined ones empty: contents of the CSV files by name."""
    return {f"{name}.csv": to_csv(*content) for name, content in data_tables(results).items()}


def not_evaluated(what: str, name: str) -> UserError:
    """The error for a table or figure of ``EVALUATED_WITH`` that the results lack."""
    return UserError(f"{what} {name!r}: not evaluated; evaluate with {EVALUATED_WITH[name]}")


def data_tables(results: SizeAPResults) -> dict[str, tuple[list[str], Rows]]:
    """The figures in full precision, undefined ones None: header and rows by the name of the table.

    ``bins`` and ``classes`` always; ``errors``, ``confusion``, ``ap_against_size``, ``thresholds``, ``calibration``,
    ``reliability``, ``calibration_maps``, ``differences``, ``settling`` and ``suspects`` if the results have any.
    """
    how = (results.iou_type, results.area_rule)
    files = {"bins": _bin_rows(results, how), "classes": _class_rows(results, how)}
    header = ["run", "bin", "error", "ap50", "count", "gain", "gain_low", "gain_high", *HOW]
    rows: Rows = [
        (run.name, b.bin.name, name, b.ap50, share.count, share.gain, *_limits(share.interval), *how)
        for run in results.runs
        for b in run.bins
        for name, share in b.errors.items()
    ]
    files |= {"errors": (header, rows)} if rows else {}
    if all(run.sweep for run in results.runs):
        header = ["run", "side", "side_low", "side_high", "ground_truths", "ap", "ap_low", "ap_high", "ar", *HOW]
        files["ap_against_size"] = (
            header,
            [  # a row for every window; sides in px
                (run.name, p.side, p.low, p.high, p.ground_truths, p.ap, *_limits(p.interval), p.ar, *how)
                for run in results.runs
                for p in run.sweep
            ],
        )
    header = ["run", "category", "bin", *(f"{m}{end}" for m in POINT for end in ENDS)]
    rows = [
        (run.name, p.category, p.bin, *(v for m in POINT for v in (getattr(p, m), *_limits(p.intervals.get(m)))),
         p.kept, p.hits, p.objects, run.operating.goal, run.operating.iou, *how)
        for run in results.runs if run.operating
        for p in run.operating.points
    ]  # fmt: skip
    files |= {"thresholds": ([*header, "kept", "hits", "objects", "goal", "iou", *HOW], rows)} if rows else {}
    files |= _calibration_rows(results, how)
    files |= {"confusion": confusion_rows(results)} if any(run.confusion for run in results.runs) else {}
    header = ["kind", "of", "metric", "first", "second", "difference", "low", "high", "p_positive", *HOW]
    rows = [
        (kind, d.of, d.metric, d.first, d.second, d.difference, *_limits(d.interval), d.probability_positive, *how,
         c.first, c.second)
        for c in results.comparisons
        for kind, differences in (("bin", c.per_bin), ("class", c.per_class), ("error", c.per_error))
        for d in differences
    ]  # fmt: skip
    files |= {"differences": ([*header, "first_run", "second_run"], rows)} if rows else {}
    header = ["first_run", "second_run", "bin", "sd_images", "sd_seeds", "sd_both", "settled", "images_needed"]
    rows = [
        (c.first, c.second, s.of, s.images, s.seeds, s.both, s.settled, s.images_needed, s.seeds_needed)
        for c in results.comparisons
        for s in c.settling
    ]
    files |= {"settling": ([*header, "seeds_needed"], rows)} if rows else {}
    if results.inputs and (suspects := results.inputs.suspects) is not None:
        files["suspects"] = suspect_rows(results.inputs.truth, suspects, results.bins)
    return files


def _calibration_rows(results: SizeAPResults, how: Sequence[str]) -> dict[str, tuple[list[str], Rows]]:
    """Errors, reliability by interval of score, and maps; empty if the calibration was not evaluated."""
    runs = [(run.name, run.calibration) for run in results.runs if run.calibration]
    keys = ("precision", "ece", "mce")
    header = [
        "run",
        "category",
        "bin",
        "detections",
        "score",
        *(f"{k}{end}" for k in keys for end in ENDS),
        "iou",
        *HOW,
    ]
    cells: Rows = [
        (name, c.category, c.bin, c.detections, c.score,
         *(v for k in keys for v in (getattr(c, k), *_limits(c.intervals.get(k)))), of_run.iou, *how)
        for name, of_run in runs for c in of_run.cells
    ]  # fmt: skip
    levels: Rows = [
        (name, c.category, c.bin, i / len(c.levels), (i + 1) / len(c.levels), *level)
        for name, of_run in runs for c in of_run.cells for i, level in enumerate(c.levels)
    ]  # fmt: skip
    of_levels = ["run", "category", "bin", "score_from", "score_to", "detections", "score", "precision"]
    three = [f"{what}{end}" for what in ("ece", "loss") for end in ("", "_one", "_size")]
    limits = [f"{key}_{end}" for key in ("ece", "ece_one", "ece_size", "change") for end in ("low", "high")]
    maps: Rows = [
        (name, m.bin, m.slope, m.offset, m.fitted, m.tested, *m.errors, *m.losses,
         *(v for key in ("ece", "ece_one", "ece_size", "change") for v in _limits(m.intervals.get(key))))
        for name, of_run in runs for m in of_run.maps
    ]  # fmt: skip
    if not runs:
        return {}
    return {
        "calibration": (header, cells),
        "reliability": (of_levels, levels),
        "calibration_maps": (["run", "bin", "slope", "offset", "fitted", "tested", *three, *limits], maps),
    }


def _bin_rows(results: SizeAPResults, how: Sequence[str]) -> tuple[list[str], Rows]:
    """Limits are areas in px², or as shares of the picture's."""
    header = ["run", "bin", *limit_columns(results.bins), "upper_limit_included", "ground_truths", "detections"]
    header += [column for metric in METRICS for column in (metric, f"{metric}_low", f"{metric}_high")]
    rows: Rows = []
    for run in results.runs:
        for b in run.bins:
            figures = [value for metric in METRICS for value in (getattr(b, metric), *_limits(b.intervals.get(metric)))]
            limits = (b.bin.low, b.bin.high, b.bin.closed)
            rows.append((run.name, b.bin.name, *limits, b.ground_truths, b.detections, *figures, *how))
    return [*header, *HOW], rows


def limit_columns(bins: Sequence[Bin]) -> tuple[str, str]:
    """Headers of a bin's limits, which are areas."""
    unit = "share" if bins[0].unit == RELATIVE else "px2"
    return f"area_low_{unit}", f"area_high_{unit}"


def _class_rows(results: SizeAPResults, how: Sequence[str]) -> tuple[list[str], Rows]:
    rows: Rows = []
    for run in results.runs:
        m = run.classes
        for i, (category, name) in enumerate(zip(m.category_ids, m.category_names, strict=True)):
            for j, bin_ in enumerate(results.bins):
                limits = _limits(m.ap_intervals[i][j] if m.ap_intervals else None)
                counts = (m.ground_truths[i][j], m.detections[i][j])
                figures = (m.ap[i][j], *limits, m.ap50[i][j], m.ap75[i][j], m.ar[i][j])
                rows.append((run.name, category, name, bin_.name, *counts, *figures, *how))
    header = ["run", "category_id", "category", "bin", "ground_truths", "detections"]
    return [*header, "ap", "ap_low", "ap_high", "ap50", "ap75", "ar", *HOW], rows


def _limits(interval: Interval | None) -> tuple[float | None, float | None]:
    return (interval.low, interval.high) if interval else (None, None)


def suffix(results: SizeAPResults, comparison: Comparison) -> str:
    """Suffix of files and tables: empty for the first comparison, then -2, -3, ..."""
    place = results.comparisons.index(comparison)
    return f"-{place + 1}" if place else ""


def position(results: SizeAPResults, run: RunResult) -> int:
    """1 for the first run, 2 for the second, ...; for file names, which do not depend on the names of runs."""
    return results.runs.index(run) + 1


def evaluator(results: SizeAPResults) -> str:
    """The evaluator whose rules and figures these are."""
    return "lvis-api" if "APr" in results.runs[0].stats else "pycocotools"


def shape(results: SizeAPResults) -> str:
    """'box' or 'mask'."""
    return "mask" if results.iou_type == "segm" else "box"


def size_of(bins: Sequence[Bin]) -> str:
    """The header of a column of sizes."""
    return {"side": "side = √area", "area": "area", RELATIVE: "√(share of the picture's area)"}[bins[0].unit]


def side_unit(sizes: SizeAPResults | ObjectSizes) -> str:
    """The unit of sides on axes and in headers."""
    if sizes.bins[0].unit == RELATIVE:
        return "share of the picture's"
    return "px after resizing" if "resizing" in sizes.seen else "px"


def probability(value: float | None) -> str:
    """To three decimals, but never 0 or 1, which no number of replicates can show."""
    if value is None:
        return NOT_AVAILABLE
    return "< 0.001" if value < 0.0005 else "> 0.999" if value >= 0.9995 else f"{value:.3f}"


def figure(value: float | None, interval: Interval | None, sign: bool = False) -> Cell:
    """A figure times 100 beside its interval."""
    defined = interval is not None and value is not None
    return Cell(percent(value, sign), bracket(interval.low, interval.high, sign) if interval and defined else "")


def _share(share: ErrorShare) -> Cell:
    cell = figure(share.gain, share.interval)
    return Cell(cell.text, f"{cell.small} ({share.count:,})".strip())


def _difference(difference: Difference) -> Cell:
    return figure(difference.difference, difference.interval, sign=True)


def _pair(difference: Difference) -> tuple[str, str]:
    return percent(difference.first), percent(difference.second)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
