"""Files about segmentation by region size: figures, tables, one HTML page, JSON and CSV."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mmms_plugin.files import files_written_together, write_text
from mmms_plugin.report.page import Output, Section, render
from mmms_plugin.report.tables import Cell, Table, bracket, percent, to_csv
from mmms_plugin.size_ap.report import figures
from mmms_plugin.size_ap.report.figures import Series, array
from mmms_plugin.size_ap.report.tables import FOLD_AFTER, size_label, size_of
from mmms_plugin.size_ap.results import Interval
from mmms_plugin.size_ap.size_iou.evaluate import MEASURES, RegionBin, RegionClass, SizeIoUResults

NAMES = {"iou": "IoU", "recall": "recall", "found": "found"}
LEAD = (
    "How well regions of each size are segmented. IoU: of a ground-truth region with the predicted regions of its "
    "class that overlap it. Recall: the share of its pixels with the right class. Found: the share of regions with an "
    "IoU of at least 0.5. Stray: predicted regions without ground truth of their class. Figures are x 100, means over "
    "the regions of a class, then over classes; n/a: no region to judge by."
)


def write_region_report(results: SizeIoUResults, report_dir: str | Path) -> list[Path]:
    """Write ``size_iou.html``, ``.json``, ``.csv``, tables in Markdown and LaTeX, and figures as PNG, PDF and SVG.

    Args:
        results: to write. report_dir: made if need be; files of the same names are replaced, all at once.
    Returns:
        The files, the page first.
    Raises:
        UserError: the folder cannot be made.
    """
    with files_written_together(report_dir, "report_dir") as folder:
        out = Output(folder)
        section = _section(results, out)
        content = json.dumps(results.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        csv_files = {"size_iou.csv": _bins_csv(results), "size_iou_classes.csv": _classes_csv(results)}
        out.texts({"size_iou.json": content, **csv_files})
        out.tables([section], "size_iou_")
        page = render("Segmentation by region size", _facts(results), [section], lead=LEAD, notes=results.notes)
        files = [write_text(folder / "size_iou.html", page), *out.written]
    return [Path(report_dir, file.name) for file in files]


def bin_table(results: SizeIoUResults) -> Table:
    """The figures of every bin with their intervals, and the counts behind them."""
    rows = tuple(
        (
            Cell(found.bin.name),
            Cell(size_label(found.bin)),
            Cell(f"{found.regions:,}"),
            *(_with_interval(found, measure) for measure in MEASURES),
            Cell(f"{found.stray:,}"),
        )
        for found in results.bins
    )
    header = ("bin", size_of([found.bin for found in results.bins]), "regions", *NAMES.values(), "stray")
    return Table("size-iou", "IoU and recall by region size (× 100)", header, rows, note=results.area_rule)


def _section(results: SizeIoUResults, out: Output) -> Section:
    names = [found.bin.name for found in results.bins]
    labels = [f"{b.bin.name}\n{size_label(b.bin)}\nn = {b.regions:,}" for b in results.bins]
    series = [_series(results, measure) for measure in ("iou", "recall")]
    bars = figures.draw_bars(labels, series, "IoU and recall (× 100)", "region size")
    caption = f"IoU and recall by region size; n: regions.{_interval_text(results)}"
    pictures = [out.figure("size_iou_per_bin", bars, caption)]
    seen = [one for one in results.classes if one.regions[0]]
    if len(seen) > 1:
        values = np.array([array(one.iou) for one in seen])
        drawn = figures.draw_class_map([one.name for one in seen], names, values, "IoU (× 100)", "region size")
        caption = "IoU per class and size, best class first; hatched: n/a (no region)."
        pictures.append(out.figure("size_iou_classes", drawn, caption, wide=True))
    return Section("IoU per size", pictures=pictures, tables=(bin_table(results), _class_table(results)))


def _class_table(results: SizeIoUResults) -> Table:
    order = sorted(results.classes, key=lambda one: -1.0 if one.iou[0] is None else one.iou[0], reverse=True)
    rows = tuple(
        (
            Cell(one.name),
            *(Cell(percent(iou), f"({count:,})") for iou, count in zip(one.iou, one.regions, strict=True)),
        )
        for one in order
    )
    header = ("class", *(found.bin.name for found in results.bins))
    caption = "IoU per class and region size (× 100; in parentheses: regions)"
    return Table("size-iou-classes", caption, header, rows, len(rows) > FOLD_AFTER, results.area_rule)


def _bins_csv(results: SizeIoUResults) -> str:
    header = ["bin", "area_low_px2", "area_high_px2", "upper_limit_included", "regions", "stray"]
    header += [column for name in MEASURES for column in (name, f"{name}_low", f"{name}_high")]
    rows: list[list[object]] = []
    for found in results.bins:
        row: list[object] = [found.bin.name, found.bin.low, found.bin.high, found.bin.closed]
        row += [found.regions, found.stray]
        for name in MEASURES:
            around = found.intervals.get(name, Interval(None, None))
            row += [getattr(found, name), around.low, around.high]
        rows.append(row)
    return to_csv(header, rows)


def _classes_csv(results: SizeIoUResults) -> str:
    def row(one: RegionClass, i: int) -> list[object]:
        figures_ = (getattr(one, name)[i] for name in MEASURES)
        return [one.name, results.bins[i].bin.name, one.regions[i], one.stray[i], *figures_]

    header = ["class", "bin", "regions", "stray", *MEASURES]
    return to_csv(header, [row(one, i) for one in results.classes for i in range(len(results.bins))])


def _facts(results: SizeIoUResults) -> list[tuple[str, str]]:
    bins = ", ".join(f"{b.bin.name} {size_label(b.bin)}" for b in results.bins[1:])
    bootstrap = f"{results.replicates:,} image-bootstrap replicates, {results.confidence:.0%} intervals"
    return [
        ("region", results.area_rule),
        ("bins", bins),
        ("bins from", f"{results.bins_source} ({results.bins_reference})"),
        ("on a limit", results.edge_rule),
        ("images", f"{results.images:,}"),
        ("uncertainty", f"{bootstrap}, seed {results.seed}" if results.replicates else "no bootstrap"),
    ]


def _with_interval(found: RegionBin, measure: str) -> Cell:
    value, around = getattr(found, measure), found.intervals.get(measure)
    return Cell(percent(value), bracket(around.low, around.high) if around and value is not None else "")


def _series(results: SizeIoUResults, measure: str) -> Series:
    around = [found.intervals.get(measure, Interval(None, None)) for found in results.bins]
    values = [getattr(found, measure) for found in results.bins]
    return Series(NAMES[measure], array(values), array([a.low for a in around]), array([a.high for a in around]))


def _interval_text(results: SizeIoUResults) -> str:
    if not results.replicates:
        return ""
    return f" Lines: {results.confidence:.0%} intervals of the image bootstrap ({results.replicates:,} replicates)."
