"""The report of segmentation by region size: figures, tables, an HTML page, JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmms_plugin.errors import UserError, shown
from mmms_plugin.files import files_written_together, write_text
from mmms_plugin.report.page import Output, Section, render
from mmms_plugin.report.tables import Cell, Columns, Rows, Table, Value, percent, to_csv
from mmms_plugin.size_ap.report import figures
from mmms_plugin.size_ap.report.figures import Series, array
from mmms_plugin.size_ap.report.tables import FOLD_AFTER, figure, limit_columns, size_of
from mmms_plugin.size_ap.results import Interval
from mmms_plugin.size_ap.size_iou import MEASURES, SizeIoUResults

NAMES = {"iou": "IoU", "recall": "recall", "found": "found"}
LEAD = (
    "How well regions of each size are segmented. IoU: of a ground-truth region with the predicted regions of its "
    "class that overlap it. Recall: the share of its pixels with the right class. Found: the share of regions with an "
    "IoU of at least 0.5. Stray: predicted regions without ground truth of their class. Figures are × 100, means over "
    "the regions of a class, then over classes; n/a: no regions."
)


def write_region_report(
    results: SizeIoUResults, report_dir: str | PathLike[str], figures: Sequence[str] = ()
) -> list[Path]:
    """Write ``size_iou.html``, ``.json``, ``.csv``, tables in Markdown and LaTeX, and figures as SVG.

    Args:
        results: of the evaluation.
        report_dir: created if needed; files of the same names are replaced, all at once.
        figures: further formats of the figures, 'png' and 'pdf'.

    Returns:
        The files, the page first.

    Raises:
        UserError: the folder cannot be created.
    """
    with files_written_together(Path(report_dir), "report_dir") as folder:
        out = Output(folder, figures)
        section = _section(results, out)
        content = json.dumps(results.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        data = data_tables(results)
        csv_files = {"size_iou.csv": data["bins"], "size_iou_classes.csv": data["classes"]}
        out.texts({"size_iou.json": content, **{name: to_csv(*table) for name, table in csv_files.items()}})
        out.tables([section], "size_iou_")
        page = render("Segmentation by region size", _facts(results), [section], lead=LEAD, notes=results.notes)
        files = [write_text(folder / "size_iou.html", page), *out.written]
    return [Path(report_dir, file.name) for file in files]


def bin_table(results: SizeIoUResults) -> Table:
    """The figures of every bin with their intervals, and the counts behind them."""
    rows: Rows = []
    for b in results.bins:
        cells = (figure(getattr(b, measure), b.intervals.get(measure)) for measure in MEASURES)
        rows.append((b.bin.name, b.bin.label, b.regions, *cells, b.stray))
    columns: Columns = ("bin", size_of([b.bin for b in results.bins]), "regions", *NAMES.values(), "stray")
    caption = "IoU and recall by region size (× 100)"
    return Table("size-iou", caption, columns, rows, note=results.area_rule, form=",")


def data_tables(results: SizeIoUResults) -> dict[str, tuple[list[str], Rows]]:
    """The figures in full precision, undefined ones None: header and rows of ``bins`` and ``classes``."""
    return {"bins": _bin_rows(results), "classes": _class_rows(results)}


def plot(results: SizeIoUResults, kind: str) -> Figure:
    """One figure; see `SizeIoUResults.plot`.

    Raises:
        UserError: an unknown kind, or no regions.
    """
    if kind not in ("bins", "classes"):
        raise UserError(f"plot {shown(kind)}: must be one of bins, classes")
    if kind == "bins":
        return _bars(results)
    if not any(c.regions[0] for c in results.classes):
        raise UserError("plot 'classes': no class has regions")
    return _class_map(results)


def _bars(results: SizeIoUResults) -> Figure:
    labels = [f"{b.bin.name}\n{b.bin.label}\nn = {b.regions:,}" for b in results.bins]
    series = [
        Series.of(NAMES[m], (getattr(b, m) for b in results.bins), (b.intervals.get(m) for b in results.bins))
        for m in ("iou", "recall")
    ]
    return figures.draw_bars(labels, series, "IoU and recall (× 100)", "region size")


def _class_map(results: SizeIoUResults) -> Figure:
    classes = [c for c in results.classes if c.regions[0]]
    values = np.array([array(c.iou) for c in classes]).reshape(len(classes), len(results.bins))
    names = [b.bin.name for b in results.bins]
    return figures.draw_class_map([c.name for c in classes], names, values, "IoU (× 100)", "region size")


def _section(results: SizeIoUResults, out: Output) -> Section:
    names = [b.bin.name for b in results.bins]
    caption = "IoU and recall by region size; n: regions."
    if results.replicates:
        kind = f"image bootstrap ({results.replicates:,} replicates)"
        caption += f" Lines: {results.confidence:.0%} intervals of the {kind}."
    pictures = [out.figure("size_iou_per_bin", _bars(results), caption)]
    if sum(bool(c.regions[0]) for c in results.classes) > 1:
        caption = "IoU per class and size, best class first; hatched: n/a (no regions)."
        pictures.append(out.figure("size_iou_classes", _class_map(results), caption, wide=True))
    rows: Rows = [
        (c.name, *(Cell(percent(iou), f"({count:,})") for iou, count in zip(c.iou, c.regions, strict=True)))
        for c in sorted(results.classes, key=lambda c: -1.0 if c.iou[0] is None else c.iou[0], reverse=True)
    ]
    caption = "IoU per class and region size (× 100; in parentheses: regions)"
    folded = len(rows) > FOLD_AFTER
    classes = Table("size-iou-classes", caption, ("class", *names), rows, folded, note=results.area_rule)
    return Section("IoU per size", pictures=pictures, tables=(bin_table(results), classes))


def _bin_rows(results: SizeIoUResults) -> tuple[list[str], Rows]:
    header = ["bin", *limit_columns([b.bin for b in results.bins]), "upper_limit_included", "regions", "stray"]
    header += [column for name in MEASURES for column in (name, f"{name}_low", f"{name}_high")]
    rows: Rows = []
    for b in results.bins:
        row: list[Value] = [b.bin.name, b.bin.low, b.bin.high, b.bin.closed, b.regions, b.stray]
        for name in MEASURES:
            interval = b.intervals.get(name, Interval(None, None))
            row += [getattr(b, name), interval.low, interval.high]
        rows.append(row)
    return header, rows


def _class_rows(results: SizeIoUResults) -> tuple[list[str], Rows]:
    rows: Rows = [
        [c.name, b.bin.name, c.regions[i], c.stray[i], *(getattr(c, name)[i] for name in MEASURES)]
        for c in results.classes
        for i, b in enumerate(results.bins)
    ]
    return ["class", "bin", "regions", "stray", *MEASURES], rows


def _facts(results: SizeIoUResults) -> list[tuple[str, str]]:
    bins = ", ".join(f"{b.bin.name} {b.bin.label}" for b in results.bins[1:])
    bootstrap = f"{results.replicates:,} image-bootstrap replicates, {results.confidence:.0%} intervals"
    return [
        ("region", results.area_rule),
        ("bins", bins),
        ("bins from", f"{results.bins_source} ({results.bins_reference})"),
        ("on a limit", results.edge_rule),
        ("images", f"{results.images:,}"),
        ("uncertainty", f"{bootstrap}, seed {results.seed}" if results.replicates else "no bootstrap"),
    ]
