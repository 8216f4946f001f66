"""The figures of an evaluation as CSV: full precision, undefined ones empty."""

from __future__ import annotations

from collections.abc import Sequence

from mmms_plugin.report.tables import to_csv
from mmms_plugin.size_ap.results import METRICS, Interval, SizeAPResults

Rows = list[Sequence[object]]
HOW = ("iou_type", "area")  # last columns: what overlaps, and the sentence on what sizes an object
NOWHERE = Interval(None, None)


def csv_files(results: SizeAPResults) -> dict[str, str]:
    """Contents by name: ``bins.csv``, ``classes.csv`` and, where there is such a thing, those of errors, of AP against
    size, of differences and of what would settle them."""
    how = (results.iou_type, results.area_rule)
    files = {"bins.csv": _bins(results, how), "classes.csv": _classes(results, how)}
    if results.runs[0].bins[0].errors:
        files["errors.csv"] = _errors(results, how)
    if all(run.sweep for run in results.runs):
        files["ap_against_size.csv"] = _sweep(results, how)
    if results.comparisons:
        files["differences.csv"] = _differences(results, how)
    if any(comparison.settling for comparison in results.comparisons):
        files["settling.csv"] = _settling(results)
    return files


def _bins(results: SizeAPResults, how: Sequence[object]) -> str:
    """Limits are areas in px²."""
    header = ["run", "bin", "area_low_px2", "area_high_px2", "upper_limit_included", "ground_truths", "detections"]
    header += [column for metric in METRICS for column in (metric, f"{metric}_low", f"{metric}_high")]
    rows: Rows = []
    for run in results.runs:
        for b in run.bins:
            values = [run.name, b.bin.name, b.bin.low, b.bin.high, b.bin.closed, b.ground_truths, b.detections]
            for metric in METRICS:
                interval = b.intervals.get(metric, NOWHERE)
                values += [getattr(b, metric), interval.low, interval.high]
            rows.append([*values, *how])
    return to_csv([*header, *HOW], rows)


def _classes(results: SizeAPResults, how: Sequence[object]) -> str:
    rows: Rows = []
    for run in results.runs:
        m = run.classes
        for i, (category, name) in enumerate(zip(m.category_ids, m.category_names, strict=True)):
            for j, bin_ in enumerate(results.bins):
                interval = m.ap_intervals[i][j] if m.ap_intervals else NOWHERE
                figures = (m.ap[i][j], interval.low, interval.high, m.ap50[i][j], m.ap75[i][j], m.ar[i][j])
                counts = (m.ground_truths[i][j], m.detections[i][j])
                rows.append([run.name, category, name, bin_.name, *counts, *figures, *how])
    header = ["run", "category_id", "category", "bin", "ground_truths", "detections"]
    return to_csv([*header, "ap", "ap_low", "ap_high", "ap50", "ap75", "ar", *HOW], rows)


def _errors(results: SizeAPResults, how: Sequence[object]) -> str:
    rows: Rows = []
    for run in results.runs:
        for b in run.bins:
            for name, share in b.errors.items():
                interval = share.interval or NOWHERE
                values = (b.ap50, share.count, share.gain, interval.low, interval.high)
                rows.append([run.name, b.bin.name, name, *values, *how])
    return to_csv(["run", "bin", "error", "ap50", "count", "gain", "gain_low", "gain_high", *HOW], rows)


def _sweep(results: SizeAPResults, how: Sequence[object]) -> str:
    """A row for every window; sides in px."""
    rows: Rows = []
    for run in results.runs:
        for p in run.sweep:
            interval = p.interval or NOWHERE
            values = (p.side, p.low, p.high, p.ground_truths, p.ap, interval.low, interval.high, p.ar)
            rows.append([run.name, *values, *how])
    header = ["run", "side", "side_low", "side_high", "ground_truths", "ap", "ap_low", "ap_high", "ar", *HOW]
    return to_csv(header, rows)


def _differences(results: SizeAPResults, how: Sequence[object]) -> str:
    rows: Rows = []
    for c in results.comparisons:
        for kind, differences in (("bin", c.per_bin), ("class", c.per_class), ("error", c.per_error)):
            for d in differences:
                interval = d.interval or NOWHERE
                figures = (d.first, d.second, d.difference, interval.low, interval.high, d.probability_positive)
                rows.append([kind, d.of, d.metric, *figures, *how, c.first, c.second])
    header = ["kind", "of", "metric", "first", "second", "difference", "low", "high", "p_positive", *HOW]
    return to_csv([*header, "first_run", "second_run"], rows)


def _settling(results: SizeAPResults) -> str:
    rows = [
        [c.first, c.second, s.of, s.images, s.seeds, s.both, s.settled, s.images_needed, s.seeds_needed]
        for c in results.comparisons
        for s in c.settling
    ]
    header = ["first_run", "second_run", "bin", "sd_images", "sd_seeds", "sd_both", "settled"]
    return to_csv([*header, "images_needed", "seeds_needed"], rows)
