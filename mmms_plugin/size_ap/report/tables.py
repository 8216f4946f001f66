"""Which tables the report of an evaluation holds, built from its results."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmms_plugin.report.tables import NOT_AVAILABLE, Cell, Table, bracket, decimal, percent
from mmms_plugin.size_ap.objects.histogram import ObjectSizes
from mmms_plugin.size_ap.objects.suggest import bins_option, readable
from mmms_plugin.size_ap.results import (
    ERROR_TYPES,
    METRICS,
    Bin,
    Comparison,
    Difference,
    ErrorShare,
    Interval,
    RunResult,
    SizeAPResults,
)

METRIC_NAMES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR"}
MEASURES = {"ap": "AP", "f1_per_class": "F1 per class", "f1_overall": "F1 overall"}
HUGE = 1e10  # px²; pycocotools' stand-in for no upper limit
FOLD_AFTER = 15  # rows


def size_label(one: Bin) -> str:
    """A bin's range for narrow columns, with unit, to three digits: ``32–96 px``, ``≥ 96 px``, ``all sizes``."""
    low, high = (readable(limit) for limit in one.limits)
    unit = "px" if one.unit == "side" else "px²"
    if math.isinf(high) or one.high >= HUGE:
        return "all sizes" if low == 0 else f"≥ {low:g} {unit}"
    return f"< {high:g} {unit}" if low == 0 else f"{low:g}–{high:g} {unit}"


def bin_table(results: SizeAPResults, run: RunResult) -> Table:
    """AP, AP50, AP75 and AR of one run per bin, with intervals and sample sizes."""
    rows = tuple(
        (
            Cell(found.bin.name),
            Cell(size_label(found.bin)),
            Cell(f"{found.ground_truths:,}"),
            Cell(f"{found.detections:,}"),
            *(_figure(getattr(found, metric), found.intervals.get(metric)) for metric in METRICS),
        )
        for found in run.bins
    )
    header = ("bin", size_of(results.bins), "objects", "detections", *METRIC_NAMES.values())
    name = f"bins-{position(results, run)}"
    return Table(name, f"{run.name}: {shape(results)} AP by object size (× 100)", header, rows)


def error_table(results: SizeAPResults, run: RunResult) -> Table:
    """AP50 gained by mending each type of error, per bin, with intervals and numbers of errors."""
    rows = tuple(
        (
            Cell(found.bin.name),
            Cell(percent(found.ap50)),
            *(_share(found.errors[name]) for name in ERROR_TYPES),
        )
        for found in run.bins
    )
    caption = (
        f"{run.name}: {shape(results)} AP50 gained if all errors of a type were mended (× 100; in parentheses: errors)"
    )
    return Table(f"errors-{position(results, run)}", caption, ("bin", "AP50", *ERROR_TYPES), rows)


def error_difference_table(results: SizeAPResults, comparison: Comparison) -> Table:
    """Second run minus first: what mending each type of error gains."""
    found = {(d.of, d.metric): d for d in comparison.per_error}
    rows = tuple(
        (Cell(one.name), *(_difference(found[one.name, name]) for name in ERROR_TYPES)) for one in results.bins
    )
    caption = (
        f"AP50 gained by mending, {comparison.second} minus {comparison.first}, × 100: negative where the second run "
        "loses less to errors of a type"
    )
    return Table(f"error-differences{suffix(results, comparison)}", caption, ("bin", *ERROR_TYPES), rows)


def seed_table(results: SizeAPResults, run: RunResult) -> Table:
    """AP of every seed of a method, by bin."""
    rows = tuple((Cell(seed.name), *(Cell(percent(ap)) for ap in seed.ap)) for seed in run.seeds)
    header = ("seed", *(one.name for one in results.bins))
    return Table(f"seeds-{position(results, run)}", f"{run.name}: AP of each seed (× 100)", header, rows)


def settling_table(results: SizeAPResults, comparison: Comparison) -> Table:
    """What the difference's uncertainty is made of, and how many more images or seeds would settle it."""
    by_bin = {d.of: d for d in comparison.per_bin if d.metric == "ap"}
    rows = tuple(
        (
            Cell(one.of),
            _difference(by_bin[one.of]),
            *(Cell(f"{100 * value:.2f}") for value in (one.images, one.seeds, one.both)),
            Cell("yes" if one.settled else "no"),
            Cell(_needed(one.settled, one.images_needed)),
            Cell(_needed(one.settled, one.seeds_needed)),
        )
        for one in comparison.settling
    )
    header = ("bin", "Δ AP", "SD, images", "SD, seeds", "SD, both", "settled", "images needed", "seeds needed")
    caption = (
        f"What would settle it: {comparison.second} minus {comparison.first}, × 100. SD: standard deviation of the "
        "difference due to the choice of images, of seeds, and to seeds that do better on some images than on others. "
        "Needed: images in all (with these seeds) or seeds of each method (with these images) at which the interval "
        "would leave out zero if the difference stayed as it is; n/a: not with a thousand times as "
        "many, or there is one seed only"
    )
    return Table(f"settling{suffix(results, comparison)}", caption, header, rows)


def settling_lines(comparison: Comparison) -> tuple[str, ...]:
    """For the terminal: what would settle each difference that is not settled."""
    lines = []
    for one in comparison.settling:
        ways = [f"{one.images_needed:,} images"] if one.images_needed else []
        ways += [f"{one.seeds_needed:,} seeds of each method"] if one.seeds_needed else []
        would = (
            f"{' or '.join(ways)} would do, if it stays as it is" if ways else "a thousand times the data would not do"
        )
        lines += [] if one.settled else [f"{one.of}: the difference is not settled; {would}"]
    return tuple(lines)


def class_table(results: SizeAPResults, run: RunResult) -> Table:
    """AP of one run per class and bin, the number of objects beside it; best class first."""
    matrix = run.classes
    order = sorted(range(len(matrix.category_ids)), key=lambda i: -_or(matrix.ap[i][0], -1.0))
    rows = tuple(
        (
            Cell(matrix.category_names[i]),
            *(
                Cell(percent(ap), f"({count:,})")
                for ap, count in zip(matrix.ap[i], matrix.ground_truths[i], strict=True)
            ),
        )
        for i in order
    )
    caption = f"{run.name}: AP per class and object size (× 100; in parentheses: objects)"
    header = ("class", *(one.name for one in results.bins))
    return Table(f"classes-{position(results, run)}", caption, header, rows, len(rows) > FOLD_AFTER)


def difference_table(results: SizeAPResults, comparison: Comparison) -> Table:
    """Second run minus first per bin: every metric's difference with its interval, and the probability of AP's sign."""
    by_bin = {(d.of, d.metric): d for d in comparison.per_bin}
    rows = []
    for one in results.bins:
        main = by_bin[one.name, "ap"]
        differences = [by_bin[one.name, metric] for metric in METRICS]
        chance = Cell(probability(main.probability_positive))
        cells = [_difference(d) for d in differences]
        rows.append(
            (Cell(one.name), Cell(percent(main.first)), Cell(percent(main.second)), cells[0], chance, *cells[1:])
        )
    metrics = [f"Δ {name}" for name in METRIC_NAMES.values()]
    header = ("bin", "AP, first", "AP, second", metrics[0], "P(Δ AP > 0)", *metrics[1:])
    caption = f"{comparison.second} (second) minus {comparison.first} (first), × 100"
    return Table(f"differences{suffix(results, comparison)}", caption, header, tuple(rows))


def class_difference_table(results: SizeAPResults, comparison: Comparison, objects: Sequence[tuple[str, int]]) -> Table:
    """Second run minus first per class over all sizes, largest gain first.

    Args:
        objects: (name, number of objects) of every class, in the order of ``comparison.per_class``.
    """
    pairs = list(zip(comparison.per_class, objects, strict=True))
    pairs.sort(key=lambda pair: -_or(pair[0].difference, -math.inf))
    rows = tuple(
        (
            Cell(name),
            Cell(f"{count:,}"),
            Cell(percent(d.first)),
            Cell(percent(d.second)),
            _difference(d),
            Cell(probability(d.probability_positive)),
        )
        for d, (name, count) in pairs
    )
    header = ("class", "objects", "AP, first", "AP, second", "Δ AP", "P(Δ AP > 0)")
    caption = f"Per class: {comparison.second} (second) minus {comparison.first} (first), × 100"
    return Table(f"class-differences{suffix(results, comparison)}", caption, header, rows, len(rows) > FOLD_AFTER)


def group_table(results: SizeAPResults, comparison: Comparison) -> Table:
    """ELASTIC's Table 4: the relative improvement on images grouped by the object sizes they contain."""
    rows = []
    for row in comparison.groups:
        cells = [Cell(relative(row.relative.get(m)), _from_to(row.first.get(m), row.second.get(m))) for m in MEASURES]
        rows.append((Cell(" + ".join(row.sizes)), Cell(f"{row.images:,}"), *cells))
    caption = (
        f"Relative improvement of {comparison.second} over {comparison.first} in images that contain objects of just "
        f"these sizes (%; in parentheses: first → second, × 100)"
    )
    return Table(
        f"image-groups{suffix(results, comparison)}",
        caption,
        ("sizes in the image", "images", *MEASURES.values()),
        tuple(rows),
    )


def stats_table(results: SizeAPResults) -> Table:
    """pycocotools' figures of every run, or lvis-api's."""
    header = ("figure", *(run.name for run in results.runs))
    names = results.runs[0].stats
    rows = tuple((Cell(name), *(Cell(percent(run.stats[name])) for run in results.runs)) for name in names)
    return Table("coco-figures", f"The figures that {evaluator(results)} prints (× 100)", header, rows)


def evaluator(results: SizeAPResults) -> str:
    """Whose rules and figures the evaluation has."""
    return "lvis-api" if "APr" in results.runs[0].stats else "pycocotools"


def size_tables(sizes: ObjectSizes) -> tuple[Table, ...]:
    """A data set's objects per bin, their quantiles, and the same per class."""
    total = max(1, sizes.objects)
    bins = tuple(
        (Cell(one.name), Cell(size_label(one)), Cell(f"{count:,}"), Cell(f"{100 * count / total:.1f} %"))
        for one, count in zip(sizes.bins, sizes.counts, strict=True)
    )
    quantiles = tuple(
        (Cell(f"{100 * share:g} %"), Cell(decimal(side)), Cell(decimal(aspect)))
        for (share, side), (_, aspect) in zip(sizes.quantiles, sizes.aspects, strict=False)
    )
    classes = tuple(
        (
            Cell(one.name),
            *(Cell(f"{count:,}") for count in one.counts),
            Cell(decimal(one.median_side)),
            Cell(decimal(one.median_aspect)),
        )
        for one in sizes.classes
    )
    header = ("class", *(one.name for one in sizes.bins), "median side, px", "median height / width")
    return (
        Table("object-bins", "Objects per bin", ("bin", size_of(sizes.bins), "objects", "share"), bins),
        Table("object-quantiles", "Quantiles over objects", ("share below", "side, px", "height / width"), quantiles),
        Table("object-classes", "Objects per class and bin", header, classes, len(classes) > FOLD_AFTER),
    )


def suggestions(sizes: ObjectSizes) -> tuple[tuple[str, str], ...]:
    """(what, the option or values to copy): equal-count bins, and anchors for a feature pyramid."""
    lines = [
        (f"{count} bins with equally many objects", f'--bins "{bins_option(edges)}"')
        for count, edges in sizes.equal_bins.items()
        if len(edges) == count - 1
    ]
    if sizes.anchors:
        a = sizes.anchors
        values = f"scales=[{a.scale:g}], ratios={[float(r) for r in a.ratios]}, strides={list(a.strides)}"
        sides = ", ".join(f"{side:g}" for side in a.sides)
        where = "in pixels of the original pictures (--resize 1333x800 takes resizing into account)"
        if sizes.resize:
            where = f"in pixels of pictures resized to fit {sizes.resize[0]}x{sizes.resize[1]}"
        covered = f"{a.covered:.0%} of objects have an IoU of 0.5 with one, as a mean over where they may lie"
        lines.append((f"anchors for a pyramid, {where}", f"{values}: sides {sides} px; {covered}"))
    return tuple(lines)


def suffix(results: SizeAPResults, comparison: Comparison) -> str:
    """Nothing for the first comparison, -2, -3, ... for the further ones, in names of files and tables."""
    place = results.comparisons.index(comparison)
    return f"-{place + 1}" if place else ""


def _needed(settled: bool, count: int | None) -> str:
    return "" if settled else NOT_AVAILABLE if count is None else f"{count:,}"


def shape(results: SizeAPResults) -> str:
    """ "box" or "mask"."""
    return "mask" if results.iou_type == "segm" else "box"


def size_of(bins: Sequence[Bin]) -> str:
    """The header of a column of sizes."""
    return "side = √area" if bins[0].unit == "side" else "area"


def position(results: SizeAPResults, run: RunResult) -> int:
    """1 for the first run, 2 for the second, ...: file names come from it, not from the runs' names."""
    return results.runs.index(run) + 1


def relative(value: float | None) -> str:
    """A relative improvement in percent, signed, or n/a."""
    return percent(value, sign=True)


def _figure(value: float | None, interval: Interval | None) -> Cell:
    return Cell(percent(value), bracket(interval.low, interval.high) if interval and value is not None else "")


def _share(share: ErrorShare) -> Cell:
    around = bracket(share.interval.low, share.interval.high) if share.interval and share.gain is not None else ""
    return Cell(percent(share.gain), f"{around} ({share.count:,})".strip())


def _difference(d: Difference) -> Cell:
    if d.difference is None or d.interval is None:
        return Cell(percent(d.difference, sign=True))
    return Cell(percent(d.difference, sign=True), bracket(d.interval.low, d.interval.high, sign=True))


def probability(value: float | None) -> str:
    """To three decimals, but never 0 or 1: no number of replicates can show that."""
    if value is None:
        return NOT_AVAILABLE
    return "< 0.001" if value < 0.0005 else "> 0.999" if value >= 0.9995 else f"{value:.3f}"


def _from_to(first: float | None, second: float | None) -> str:
    return "" if first is None and second is None else f"({percent(first)} → {percent(second)})"


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
