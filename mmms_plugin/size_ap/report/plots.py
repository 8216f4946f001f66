"""The figures of an evaluation, from its results; `figures` draws them from plain arrays."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from mmms_plugin.coco.objects import AREA_NAMES
from mmms_plugin.errors import UserError, shown
from mmms_plugin.report.figure_style import shorten
from mmms_plugin.report.tables import percent
from mmms_plugin.size_ap.object_sizes import ObjectSizes
from mmms_plugin.size_ap.report import figures, tables
from mmms_plugin.size_ap.report.confusion import BACKGROUND, MISSED, SHOWN, confusion_matrices
from mmms_plugin.size_ap.report.figures import Series, array
from mmms_plugin.size_ap.report.tables import MEASURES, not_evaluated, shape
from mmms_plugin.size_ap.results import ERROR_TYPES, Comparison, RunResult, SizeAPResults

SIDE_AXIS = "object side = √({}), {} (log scale)"
OF_RESULTS, OF_RUNS, OF_COMPARISONS = (
    ("ap", "ar", "sweep"),
    ("errors", "classes", "confusion", "precision-recall", "reliability"),
    ("difference", "groups"),
)


def plot(results: SizeAPResults, kind: str, name: str | None) -> Figure:
    """One figure; see `SizeAPResults.plot`.

    Raises:
        UserError: an unknown kind or run, or a figure for which the evaluation has no numbers.
    """
    if kind in OF_RESULTS:
        if kind == "sweep" and not all(run.sweep for run in results.runs):
            raise not_evaluated("plot", kind)
        return sweep(results) if kind == "sweep" else bars(results, kind)
    if kind in OF_RUNS:
        run = {run.name: run for run in results.runs}.get(results.runs[0].name if name is None else name)
        if run is None:
            raise UserError(f"run={shown(name)}: must be one of {', '.join(run.name for run in results.runs)}")
        if kind == "errors" and not run.bins[0].errors:
            raise not_evaluated("plot", kind)
        if kind == "precision-recall":
            if run.operating is None:
                raise not_evaluated("plot", kind)
            return precision_recall(results, run)
        if kind == "reliability":
            if run.calibration is None:
                raise not_evaluated("plot", kind)
            return reliability(results, run)
        if kind == "confusion":
            if not run.confusion:
                raise not_evaluated("plot", kind)
            return confusion(results, run)
        return errors(results, run) if kind == "errors" else classes(results, run)
    if kind in OF_COMPARISONS:
        if not results.comparison:
            raise UserError(f"plot {shown(kind)}: needs at least two runs")
        others = {comparison.second: comparison for comparison in results.comparisons}
        comparison = others.get(results.comparison.second if name is None else name)
        if comparison is None:
            raise UserError(f"run={shown(name)}: must be one of {', '.join(others)}")
        if kind == "groups" and not comparison.groups:
            raise UserError("plot 'groups': not evaluated for relative sizes; its groups have limits in px")
        return difference(results, comparison) if kind == "difference" else groups(results, comparison)
    raise UserError(f"plot {shown(kind)}: must be one of {', '.join((*OF_RESULTS, *OF_RUNS, *OF_COMPARISONS))}")


def bars(results: SizeAPResults, metric: str) -> Figure:
    """AP or AR of every run by bin."""
    labels = [f"{b.bin.name}\n{b.bin.label}\nn = {b.ground_truths:,}" for b in results.runs[0].bins]
    series = [
        Series.of(run.name, (getattr(b, metric) for b in run.bins), (b.intervals.get(metric) for b in run.bins))
        for run in results.runs
    ]
    return figures.draw_bars(labels, series, f"{shape(results)} {metric.upper()} (× 100)", _size_axis(results))


def errors(results: SizeAPResults, run: RunResult) -> Figure:
    """What each type of error costs a run, by bin."""
    labels = [f"{b.name}\n{b.label}" for b in results.bins]
    series = []
    for name in ERROR_TYPES:
        shares = [b.errors[name] for b in run.bins]
        series.append(Series.of(name, (share.gain for share in shares), (share.interval for share in shares)))
    return figures.draw_errors(labels, series, f"{shape(results)} AP50 gained (× 100)", _size_axis(results))


def precision_recall(results: SizeAPResults, run: RunResult) -> Figure:
    """Precision against recall of a run, a curve for each bin."""
    assert run.operating is not None
    curves = [(b, array(row)) for b, row in zip(results.bins, run.operating.curves, strict=True)]
    labels = [f"{b.name} ({b.label})" for b, _ in curves]
    how = f"{shape(results)}, IoU {run.operating.iou:g}, mean over classes"
    return figures.draw_precision_recall(labels, np.array([row for _, row in curves]), how)


def reliability(results: SizeAPResults, run: RunResult, classes: int = 0) -> Figure:
    """Share of right detections against score: a panel for each bin, or for each of the most frequent ``classes``."""
    assert run.calibration is not None
    cells = {(cell.bin, cell.category): cell for cell in run.calibration.cells}
    labels = {b.name: f"{b.name} ({b.label})" for b in results.bins}
    if classes:
        names = sorted(run.classes.category_names, key=lambda name: -cells["all", name].detections)[:classes]
        panels = [
            (name, [(labels[b.name], cells[b.name, name].levels) for b in results.bins if b.name != "all"])
            for name in names
        ]
    else:
        panels = []
        for b in results.bins:
            ece = percent(cells[b.name, None].ece)
            panels.append((f"{labels[b.name]}\nECE {ece}", [(b.name, cells[b.name, None].levels)]))
    return figures.draw_reliability(panels, f"right at IoU {run.calibration.iou:g} (× 100)")


def difference(results: SizeAPResults, comparison: Comparison) -> Figure:
    """The difference of AP of two runs by bin."""
    by_bin = {d.of: d for d in comparison.per_bin if d.metric == "ap"}
    differences = [by_bin[b.name] for b in results.bins]
    series = Series.of("difference", (d.difference for d in differences), (d.interval for d in differences))
    labels = []
    for b in results.bins:
        value = by_bin[b.name].probability_positive
        chance = "" if value is None else tables.probability(value)
        labels.append(f"{b.name}\n{b.label}" + (chance and f"\nP {chance if chance[0] in '<>' else f'= {chance}'}"))
    return figures.draw_difference(labels, series, f"Δ {shape(results)} AP (× 100)", _size_axis(results))


def groups(results: SizeAPResults, comparison: Comparison) -> Figure:
    """What one run gains on another in images grouped by the sizes of their objects."""
    rows = comparison.groups
    labels = [f"{' + '.join(group.sizes)}  ({group.images:,})" for group in rows]
    nothing = [None] * len(rows)
    series = [Series.of(name, (group.relative.get(key) for group in rows), nothing) for key, name in MEASURES.items()]
    first, second = (shorten(name, 60) for name in (comparison.first, comparison.second))
    return figures.draw_groups(labels, series, f"improvement of {second}\nover {first}, %")


def sweep(results: SizeAPResults) -> Figure:
    """AP of every run against continuous size."""
    points = results.runs[0].sweep
    series = [Series.of(run.name, (p.ap for p in run.sweep), (p.interval for p in run.sweep)) for run in results.runs]
    sides, counts = array(p.side for p in points), array(p.ground_truths for p in points)
    axis = SIDE_AXIS.format(AREA_NAMES[results.area], tables.side_unit(results))
    return figures.draw_curves(sides, series, counts, f"{shape(results)} AP (× 100)", axis)


def classes(results: SizeAPResults, run: RunResult) -> Figure:
    """AP of a run by class and bin."""
    names, bins = run.classes.category_names, [b.name for b in results.bins]
    values = np.array([array(row) for row in run.classes.ap]).reshape(len(names), len(bins))
    return figures.draw_class_map(names, bins, values, f"{shape(results)} AP (× 100)", _size_axis(results))


def confusion(results: SizeAPResults, run: RunResult) -> Figure:
    """Which class a run takes for which, by bin: rows are objects, columns detections."""
    _, matrices = confusion_matrices(results, run)
    classes = matrices.shape[1] - 1
    swapped = matrices[0, :-1, :-1] * (1 - np.eye(classes, dtype=np.int64))
    order = np.sort(np.argsort(-(swapped.sum(0) + swapped.sum(1)), kind="stable")[:SHOWN])
    places = np.append(order, classes)
    wholes = matrices.sum(2, keepdims=True)
    shares = np.where(wholes > 0, matrices / np.maximum(wholes, 1), np.nan)[:, places[:, None], places]
    shares[:, -1, -1] = np.nan
    titles = [
        f"{shorten(b.name, 20)}, n = {int(n):,}" for b, n in zip(results.bins, wholes[:, :-1].sum((1, 2)), strict=True)
    ]
    names = [shorten(run.classes.category_names[place], 14) for place in order]
    return figures.draw_confusion(titles, [*names, BACKGROUND], [*names, MISSED], shares)


def sizes_histogram(sizes: ObjectSizes) -> Figure:
    """A data set's objects by size."""
    spans = [(b.name, b.low**0.5, b.high**0.5) for b in sizes.bins if b.name != "all"]
    axis = SIDE_AXIS.format(AREA_NAMES[sizes.area], tables.side_unit(sizes))
    return figures.draw_sizes(np.array(sizes.edges), np.array(sizes.histogram), spans, axis)


def _size_axis(results: SizeAPResults) -> str:
    seen = f", {tables.side_unit(results)}" if results.seen else ""
    return f"object size by {AREA_NAMES[results.area]}{seen}"
