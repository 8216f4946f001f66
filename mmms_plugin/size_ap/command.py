"""``mmms size-ap``: read the files, evaluate, write the report, print the essentials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mmms_plugin.coco.formats import AUTO, Source
from mmms_plugin.coco.objects import GroundTruth, Method
from mmms_plugin.errors import LONGEST, printable
from mmms_plugin.files import check_folder
from mmms_plugin.report.page import Gallery
from mmms_plugin.report.tables import Cell, Column, Table, print_table
from mmms_plugin.size_ap.bins import resolve_bins
from mmms_plugin.size_ap.evaluate import Options, evaluate
from mmms_plugin.size_ap.gate import Condition, check_bins, read_baseline
from mmms_plugin.size_ap.methods import Seeds, read_files
from mmms_plugin.size_ap.object_sizes import STEPS, ObjectSizes, describe_objects
from mmms_plugin.size_ap.report.failures import find_failures
from mmms_plugin.size_ap.report.gallery import make_gallery
from mmms_plugin.size_ap.report.tables import probability, settling_lines, size_label, suggestions
from mmms_plugin.size_ap.results import (
    ERROR_TYPES,
    Bin,
    Comparison,
    Interval,
    RunResult,
    SizeAPResults,
)


@dataclass(frozen=True)
class Outcome:
    """The files written, the HTML page first where there is one, and a line for every condition that failed the run."""

    files: tuple[Path, ...]
    failures: tuple[str, ...]


def run_size_ap(
    ann: str,
    preds: Sequence[str | Seeds],
    out: str | None,
    options: Options,
    names: Sequence[str] = (),
    console: Console | None = None,
    source: Source = AUTO,
    examples: int = 2000,
    conditions: Sequence[Condition] = (),
    baseline: str | None = None,
) -> Outcome:
    """Evaluate prediction files, or without any describe the data set's object sizes, and write the report.

    Args:
        ann: COCO annotation file.
        preds: prediction files, or `Seeds` of methods with several; none to describe the data set.
        out: folder of the report; without predictions it may be None, and nothing is written.
        options: how to evaluate.
        names: of the runs; by default their files' names, with the folder's where two files are called the same.
        console: where to print; standard output by default.
        source: formats of the files, and what some of them need beside; its pictures are cropped for the gallery.
        examples: failures of each run that the report's gallery shows at most, 0 for no gallery; there is none without
            ``options.errors``.
        conditions: figures of the last run that fail it.
        baseline: a ``results.json`` that the last run must not be significantly worse than.

    Raises:
        UserError: the files or options are at fault.
    """
    console = console or Console()
    if out:
        check_folder(out)
    earlier = read_baseline(baseline) if baseline else None
    progress = Console(stderr=True)
    with progress.status("reading"):
        truth, runs, notes = read_files(ann, preds, names, masks=options.masks, source=source)
    objects = truth.areas(options.area)[~truth.iscrowd]
    bins = resolve_bins(options.bins, options.bin_unit, objects, options.allow_gaps, options.allow_overlaps)
    check_bins(conditions, [b.name for b in bins.bins], options.errors)
    sizes = describe_objects(truth, bins.bins, options.area, () if runs else notes, options.resize)
    files: list[Path] = []
    failures: list[str] = []
    if runs and out:
        results = evaluate(truth, runs, options, notes)
        failures += filter(None, (condition.failure(results.runs[-1]) for condition in conditions))
        failures += earlier.failures(results) if earlier else ()
        with progress.status("drawing"):
            from mmms_plugin.size_ap.report.write import write_report  # matplotlib takes a while to import

            shown = _gallery(truth, runs, options, bins.bins, source, examples) if examples and options.errors else None
            files = write_report(results, out, sizes, shown)
        _print_results(console, results)
        notes = results.notes
    else:
        if out:
            with progress.status("drawing"):
                from mmms_plugin.size_ap.report.write import write_object_sizes

                files = write_object_sizes(sizes, out)
        console.print(f"{sizes.objects} objects in {sizes.images} images; {escape(sizes.area_rule)}", soft_wrap=True)
        for bin_, count in zip(sizes.bins, sizes.counts, strict=True):
            console.print(f"  {escape(bin_.name):<18}{size_label(bin_):<22}{count}")
        _print_histogram(console, sizes)
        for what, value in suggestions(sizes):
            console.print(f"{what}: {escape(value)}", soft_wrap=True)
    for note in notes:
        progress.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    if files:
        console.print(
            f"written: {escape(printable(str(files[0]), LONGEST))} and {len(files) - 1} more files", soft_wrap=True
        )
    for failure in failures:
        progress.print(f"[red]failed:[/] {escape(printable(failure, LONGEST))}", soft_wrap=True)
    return Outcome(tuple(files), tuple(failures))


def _gallery(
    truth: GroundTruth, methods: Sequence[Method], options: Options, bins: tuple[Bin, ...], source: Source, most: int
) -> Gallery:
    """Failures of every method, of several seeds those of the first."""
    first = [(m.name if len(m.runs) == 1 else f"{m.name}: {m.runs[0].name}", m.runs[0]) for m in methods]
    failures = [(name, find_failures(truth, run, options, bins, most)) for name, run in first]
    return make_gallery(truth, failures, bins, source.pictures)


def _print_histogram(console: Console, sizes: ObjectSizes) -> None:
    """A bar for every half octave of the side."""
    counts = [sum(sizes.histogram[i : i + STEPS // 2]) for i in range(0, len(sizes.histogram), STEPS // 2)]
    most = max(counts, default=0)
    console.print("objects by side = sqrt(area), px")
    for i, count in enumerate(counts):
        limits = "{:.0f} to {:.0f}".format(
            *(sizes.edges[min(j * STEPS // 2, len(sizes.edges) - 1)] for j in (i, i + 1))
        )
        console.print(f"  {limits:<14}{'█' * round(40 * count / max(most, 1)):<41}{count}", highlight=False)


def _print_results(console: Console, results: SizeAPResults) -> None:
    for run in results.runs:
        print_table(_bin_table(run, results.iou_type), console)
        if run.bins[0].errors:
            print_table(_error_table(run), console)
    for comparison in results.comparisons:
        print_table(_difference_table(comparison), console)
        for line in settling_lines(comparison):
            console.print(escape(line), soft_wrap=True)
    for line in (results.area_rule, f"bins {results.bins_source} ({results.bins_reference})", results.edge_rule):
        console.print(escape(line), soft_wrap=True)


def _bin_table(run: RunResult, iou_type: str) -> Table:
    sizes, counts = Column("size", left=True), (Column("objects", "d"), Column("found", "d"))
    columns = ("bin", sizes, "AP", "AP50", "AP75", "AR", *counts)
    rows = []
    for result in run.bins:
        ap = _cell(result.ap, result.intervals.get("ap"), "{:.4f}", "{:.3f}–{:.3f}")
        figures = (ap, result.ap50, result.ap75, result.ar)
        rows.append((result.bin.name, size_label(result.bin), *figures, result.ground_truths, result.detections))
    return Table("bins", f"{run.name}, {iou_type}", columns, rows, form=".4f")


def _error_table(run: RunResult) -> Table:
    titles = (name if len(name) < 12 else f"{name[:5]}." for name in ERROR_TYPES)  # class., local.
    rows = [(result.bin.name, *(share.gain for share in result.errors.values())) for result in run.bins]
    return Table("errors", f"{run.name}: AP50 gained if errors were mended", ("bin", *titles), rows, form=".4f")


def _difference_table(comparison: Comparison) -> Table:
    rows = [
        (d.of, _cell(d.difference, d.interval, "{:+.4f}", "({:+.3f}, {:+.3f})"),
         "" if d.probability_positive is None else probability(d.probability_positive))
        for d in comparison.per_bin
        if d.metric == "ap"
    ]  # fmt: skip
    title = f"{comparison.second} minus {comparison.first}: AP"
    return Table("differences", title, ("bin", "difference", "P(better)"), rows)


def _cell(value: float | None, limits: Interval | None, form: str, between: str) -> Cell | None:
    """A figure above its interval; None where it is undefined."""
    if value is None:
        return None
    defined = limits is not None and limits.low is not None and limits.high is not None
    return Cell(form.format(value), between.format(limits.low, limits.high) if limits and defined else "")
