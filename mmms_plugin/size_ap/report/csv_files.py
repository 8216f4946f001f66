"""The figures of an evaluation as CSV: full precision, undefined ones empty."""

from __future__ import annotations

from mmms_plugin.report.tables import to_csv
from mmms_plugin.size_ap.results import METRICS, BinResult, Interval, SizeAPResults

HOW = ("iou_type", "area")  # last columns of every file


def bins_csv(results: SizeAPResults) -> str:
    """Every run, bin and metric in full precision; limits are areas in px², ``area`` says of what."""
    header = ["run", "bin", "area_low_px2", "area_high_px2", "upper_limit_included", "ground_truths", "detections"]
    header += [column for metric in METRICS for column in (metric, f"{metric}_low", f"{metric}_high")]
    rows = [[run.name, *_bin_values(found), *_how(results)] for run in results.runs for found in run.bins]
    return to_csv([*header, *HOW], rows)


def classes_csv(results: SizeAPResults) -> str:
    """Every run, class and bin in full precision, one row each."""
    rows = []
    for run in results.runs:
        m = run.classes
        for i, (category, name) in enumerate(zip(m.category_ids, m.category_names, strict=True)):
            for j, one in enumerate(results.bins):
                around = m.ap_intervals[i][j] if m.ap_intervals else Interval(None, None)
                figures = (m.ap[i][j], around.low, around.high, m.ap50[i][j], m.ap75[i][j], m.ar[i][j])
                counts = (m.ground_truths[i][j], m.detections[i][j])
                rows.append([run.name, category, name, one.name, *counts, *figures, *_how(results)])
    header = ["run", "category_id", "category", "bin", "ground_truths", "detections"]
    return to_csv([*header, "ap", "ap_low", "ap_high", "ap50", "ap75", "ar", *HOW], rows)


def errors_csv(results: SizeAPResults) -> str:
    """Every run, bin and type of error in full precision."""
    rows = []
    for run in results.runs:
        for found in run.bins:
            for name, share in found.errors.items():
                around = share.interval or Interval(None, None)
                values = (found.ap50, share.count, share.gain, around.low, around.high)
                rows.append([run.name, found.bin.name, name, *values, *_how(results)])
    return to_csv(["run", "bin", "error", "ap50", "count", "gain", "gain_low", "gain_high", *HOW], rows)


def differences_csv(results: SizeAPResults) -> str:
    """Every paired difference of every comparison in full precision."""
    rows = []
    for one in results.comparisons:
        for kind, differences in (("bin", one.per_bin), ("class", one.per_class), ("error", one.per_error)):
            for d in differences:
                around = d.interval or Interval(None, None)
                figures = (d.first, d.second, d.difference, around.low, around.high, d.probability_positive)
                rows.append([kind, d.of, d.metric, *figures, *_how(results), one.first, one.second])
    header = ["kind", "of", "metric", "first", "second", "difference", "low", "high", "p_positive", *HOW]
    return to_csv([*header, "first_run", "second_run"], rows)


def settling_csv(results: SizeAPResults) -> str:
    """What would settle each difference; standard deviations in full precision."""
    rows = [
        [one.first, one.second, s.of, s.images, s.seeds, s.both, s.settled, s.images_needed, s.seeds_needed]
        for one in results.comparisons
        for s in one.settling
    ]
    header = ["first_run", "second_run", "bin", "sd_images", "sd_seeds", "sd_both", "settled"]
    return to_csv([*header, "images_needed", "seeds_needed"], rows)


def sweep_csv(results: SizeAPResults) -> str:
    """AP against size with its band, every window in full precision; sides in px."""
    rows: list[list[object]] = []
    for run in results.runs:
        for p in run.sweep:
            around = p.interval or Interval(None, None)
            values = (p.side, p.low, p.high, p.ground_truths, p.ap, around.low, around.high, p.ar)
            rows.append([run.name, *values, *_how(results)])
    header = ["run", "side", "side_low", "side_high", "ground_truths", "ap", "ap_low", "ap_high", "ar", *HOW]
    return to_csv(header, rows)


def _how(results: SizeAPResults) -> tuple[str, str]:
    return results.iou_type, results.area_rule


def _bin_values(found: BinResult) -> list[object]:
    one = found.bin
    values: list[object] = [one.name, one.low, one.high, one.closed, found.ground_truths, found.detections]
    for metric in METRICS:
        interval = found.intervals.get(metric, Interval(None, None))
        values += [getattr(found, metric), interval.low, interval.high]
    return values
