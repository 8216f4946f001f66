"""The report of an evaluation by object size: figures, tables, an HTML page, and all numbers as JSON and CSV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmms_plugin.coco.objects import AREA_NAMES
from mmms_plugin.files import files_written_together, write_text
from mmms_plugin.report.figure_style import shorten
from mmms_plugin.report.page import Gallery, Output, Section, render
from mmms_plugin.size_ap.evaluate import SWEEP_REPLICATES
from mmms_plugin.size_ap.object_sizes import ObjectSizes
from mmms_plugin.size_ap.report import figures, tables
from mmms_plugin.size_ap.report.figures import Series, array
from mmms_plugin.size_ap.report.tables import MEASURES, csv_files, shape
from mmms_plugin.size_ap.results import ERROR_TYPES, Comparison, SizeAPResults

ERROR_MEANINGS = (
    ("classification", "right place, wrong class: IoU of at least 0.5 with an object of another class"),
    ("localisation", "right class, wrong place: IoU of 0.1 to 0.5 with an object of its class"),
    ("both", "wrong class and wrong place: some overlap, but too little, or with an object of another class"),
    ("duplicate", "a better detection already matches the object"),
    ("background", "no object there: IoU of at most 0.1 with any object"),
    ("missed", "an object that no detection matches, not even one whose error is fixed"),
)
LVIS_RULES = (
    "LVIS: the best 300 detections of an image count; ignored are those of classes that were not checked in the image, "
    "and unmatched ones of classes that are not exhaustively annotated in it"
)
UNDEFINED = "n/a: no objects"
SIDE_AXIS = "object side = √({}), px (log scale)"


def write_report(
    results: SizeAPResults, out_dir: str | Path, sizes: ObjectSizes | None = None, gallery: Gallery | None = None
) -> list[Path]:
    """Write the report of an evaluation into a folder.

    It consists of ``report.html`` (self-contained), ``results.json``, ``tables.md``, ``tables.tex`` (needs booktabs),
    ``bins.csv``, ``classes.csv``, ``errors.csv``, ``ap_against_size.csv``, with several runs ``differences.csv`` and,
    with a bootstrap, ``settling.csv``, and of every figure as PNG, PDF and SVG.

    Args:
        results: of at least one run.
        out_dir: created if needed; files of the same names are replaced, all at once.
        sizes: the data set's object sizes, for a section about them.
        gallery: failures, for the page.

    Returns:
        The files, ``report.html`` first.

    Raises:
        UserError: the folder cannot be created.
    """
    with files_written_together(out_dir) as folder:
        out = Output(folder)
        sections = [*_evaluation_sections(results, out), *([_size_section(sizes, out)] if sizes else [])]
        out.texts({"results.json": _json(results.to_json()), **csv_files(results)})
        out.tables(sections, note=results.area_rule)
        names = " and ".join(run.name for run in results.runs)
        lead = f"How well {names} detect objects of different sizes. AP and AR are × 100; {UNDEFINED}."
        sections += [Section("Look at the failures", gallery=gallery)] if gallery else []
        page = render("AP by object size", _facts(results), sections, lead=lead, notes=results.notes)
        files = [write_text(folder / "report.html", page), *out.written]
    return [Path(out_dir, file.name) for file in files]


def write_object_sizes(sizes: ObjectSizes, out_dir: str | Path) -> list[Path]:
    """Write a data set's object sizes into a folder: ``object_sizes.html``, ``.json``, tables and figures.

    Raises:
        UserError: the folder cannot be created.
    """
    with files_written_together(out_dir) as folder:
        out = Output(folder)
        sections = [_size_section(sizes, out)]
        out.texts({"object_sizes.json": _json(sizes.to_json())})
        out.tables(sections, "object_size_", sizes.area_rule)
        facts = [
            ("images", f"{sizes.images:,} ({sizes.images_without:,} without objects)"),
            ("objects", f"{sizes.objects:,}, not counting {sizes.crowds:,} crowd regions"),
            ("object size", sizes.area_rule),
            ("classes", f"{len(sizes.classes):,}"),
        ]
        page = render("Object sizes of a data set", facts, sections, notes=sizes.notes)
        files = [write_text(folder / "object_sizes.html", page), *out.written]
    return [Path(out_dir, file.name) for file in files]


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def _evaluation_sections(results: SizeAPResults, out: Output) -> list[Section]:
    sections = [_bins_section(results, out)]
    if all(run.bins[0].errors for run in results.runs):
        sections.append(_error_section(results, out))
    for comparison in results.comparisons:
        sections += [_difference_section(results, comparison, out)]
        sections += [_group_section(results, comparison, out)] if comparison.groups else []
    if all(run.sweep for run in results.runs):
        sections.append(_sweep_section(results, out))
    if len(results.runs[0].classes.category_ids) > 1:
        sections.append(_class_section(results, out))
    if any(run.stats for run in results.runs):
        sections.append(Section(f"Figures of {tables.evaluator(results)}", tables=[tables.stats_table(results)]))
    return sections


def _bins_section(results: SizeAPResults, out: Output) -> Section:
    labels = [f"{b.bin.name}\n{b.bin.label}\nn = {b.ground_truths:,}" for b in results.runs[0].bins]
    pictures = []
    for metric in ("ap", "ar"):
        series = [
            Series.of(run.name, (getattr(b, metric) for b in run.bins), (b.intervals.get(metric) for b in run.bins))
            for run in results.runs
        ]
        name = f"{shape(results)} {metric.upper()}"
        drawn = figures.draw_bars(labels, series, f"{name} (× 100)", _size_axis(results))
        caption = f"{name} by object size; n: objects.{_interval_text(results)}"
        pictures.append(out.figure(f"{metric}_per_bin", drawn, caption))
    shown = [tables.bin_table(results, run) for run in results.runs]
    shown += [tables.seed_table(results, run) for run in results.runs if run.seeds]
    return Section("AP per size", pictures=pictures, tables=shown)


def _error_section(results: SizeAPResults, out: Output) -> Section:
    labels = [f"{b.name}\n{b.label}" for b in results.bins]
    pictures = []
    for run in results.runs:
        series = []
        for name in ERROR_TYPES:
            shares = [b.errors[name] for b in run.bins]
            series.append(Series.of(name, (share.gain for share in shares), (share.interval for share in shares)))
        drawn = figures.draw_errors(labels, series, f"{shape(results)} AP50 gained (× 100)", _size_axis(results))
        caption = (
            f"{run.name}: what each type of error costs, as the AP50 gained if all errors of that type were fixed "
            f"(TIDE, Bolya et al. 2020, per size).{_interval_text(results)}"
        )
        pictures.append(out.figure(f"errors-{tables.position(results, run)}", drawn, caption))
    shown = [tables.error_table(results, run) for run in results.runs]
    shown += [tables.error_difference_table(results, comparison) for comparison in results.comparisons]
    return Section("Why AP is lost", ERROR_MEANINGS, pictures, shown)


def _difference_section(results: SizeAPResults, comparison: Comparison, out: Output) -> Section:
    by_bin = {d.of: d for d in comparison.per_bin if d.metric == "ap"}
    differences = [by_bin[b.name] for b in results.bins]
    series = Series.of("difference", (d.difference for d in differences), (d.interval for d in differences))
    labels = []
    for b in results.bins:
        value = by_bin[b.name].probability_positive
        chance = "" if value is None else tables.probability(value)
        labels.append(f"{b.name}\n{b.label}" + (chance and f"\nP {chance if chance[0] in '<>' else f'= {chance}'}"))
    drawn = figures.draw_difference(labels, series, f"Δ {shape(results)} AP (× 100)", _size_axis(results))
    caption = f"{comparison.second} minus {comparison.first}."
    if results.replicates:
        caption += (
            f" Lines: {results.confidence:.0%} intervals of the paired {_bootstrap_of(results)} "
            f"({results.replicates:,} replicates); coloured if they exclude zero (green: better, pink: worse). "
            "P: probability that the difference is above zero."
        )
    classes = results.runs[0].classes
    objects = [(name, row[0]) for name, row in zip(classes.category_names, classes.ground_truths, strict=True)]
    shown = [tables.difference_table(results, comparison)]
    shown += [tables.class_difference_table(results, comparison, objects)] if len(objects) > 1 else []
    shown += [tables.settling_table(results, comparison)] if comparison.settling else []
    picture = out.figure(f"ap_difference{tables.suffix(results, comparison)}", drawn, caption)
    title = f"Difference: {comparison.second}" if results.more_comparisons else "Difference of the two runs"
    return Section(title, pictures=[picture], tables=shown)


def _group_section(results: SizeAPResults, comparison: Comparison, out: Output) -> Section:
    groups = comparison.groups
    labels = [f"{' + '.join(group.sizes)}  ({group.images:,})" for group in groups]
    nothing = [None] * len(groups)
    series = [Series.of(name, (group.relative.get(key) for group in groups), nothing) for key, name in MEASURES.items()]
    first, second = (shorten(name, 60) for name in (comparison.first, comparison.second))
    drawn = figures.draw_groups(labels, series, f"improvement of {second}\nover {first}, %")
    caption = (
        "Images grouped by the sizes of the objects they contain, number of images in parentheses, as in ELASTIC "
        f"(Wang et al. 2019, Table 4). F1: multi-label; a class counts as predicted in an image if a detection of it "
        f"scores at least {comparison.score_threshold:g}."
    )
    picture = out.figure(f"image_groups{tables.suffix(results, comparison)}", drawn, caption)
    title = "By the object sizes in an image" + (f": {comparison.second}" if results.more_comparisons else "")
    return Section(title, pictures=[picture], tables=[tables.group_table(results, comparison)])


def _sweep_section(results: SizeAPResults, out: Output) -> Section:
    points = results.runs[0].sweep
    series = [Series.of(run.name, (p.ap for p in run.sweep), (p.interval for p in run.sweep)) for run in results.runs]
    sides, counts = array(p.side for p in points), array(p.ground_truths for p in points)
    axis = SIDE_AXIS.format(AREA_NAMES[results.area])
    drawn = figures.draw_curves(sides, series, counts, f"{shape(results)} AP (× 100)", axis)
    ratio = points[0].high / points[0].low if points[0].low > 0 else float("nan")
    width = f" from side / {ratio**0.5:.3g} to side × {ratio**0.5:.3g}" if np.isfinite(ratio) else ""
    caption = f"AP of the objects in a window that slides over size{width}; above: objects in the window."
    if points[0].interval:
        count = min(results.replicates, SWEEP_REPLICATES)
        caption += f" Bands: {results.confidence:.0%} intervals of the {_bootstrap_of(results)} ({count:,} replicates)."
    return Section("AP against object size", pictures=[out.figure("ap_against_size", drawn, caption)])


def _class_section(results: SizeAPResults, out: Output) -> Section:
    pictures = []
    for number, run in enumerate(results.runs, 1):
        names, bins = run.classes.category_names, [b.name for b in results.bins]
        values = np.array([array(row) for row in run.classes.ap]).reshape(len(names), len(bins))
        drawn = figures.draw_class_map(names, bins, values, f"{shape(results)} AP (× 100)", _size_axis(results))
        caption = f"{run.name}: AP per class and size, best class first; hatched: n/a (no objects)."
        pictures.append(out.figure(f"class_by_size-{number}", drawn, caption, wide=True))
    shown = [tables.class_table(results, run) for run in results.runs]
    return Section("Class by size", pictures=pictures, tables=shown)


def _size_section(sizes: ObjectSizes, out: Output) -> Section:
    spans = [(b.name, b.low**0.5, b.high**0.5) for b in sizes.bins if b.name != "all"]
    axis = SIDE_AXIS.format(AREA_NAMES[sizes.area])
    drawn = figures.draw_sizes(np.array(sizes.edges), np.array(sizes.histogram), spans, axis)
    caption = f"Objects by size, four columns per octave; side: {sizes.area_rule}; dashed: limits of the bins."
    picture = out.figure("object_sizes", drawn, caption)
    return Section("Objects by size", tables.suggestions(sizes), [picture], tables.size_tables(sizes))


def _facts(results: SizeAPResults) -> list[tuple[str, str]]:
    first, last, steps = results.iou_thresholds[0], results.iou_thresholds[-1], len(results.iou_thresholds)
    ious = f"{first:.2f} to {last:.2f} ({steps} steps)" if steps > 1 else f"{first:.2f}"
    bins = ", ".join(f"{b.name} {b.label}" for b in results.bins if b.name != "all")
    uncertainty = "no bootstrap (--bootstrap N adds it)"
    if results.replicates:
        uncertainty = (
            f"{results.replicates:,} replicates of the {_bootstrap_of(results)}, {results.confidence:.0%} "
            f"bias-corrected percentile intervals, seed {results.seed}"
        )
    return [
        ("runs", ", ".join(f"{run.name} ({len(run.seeds)} seeds)" if run.seeds else run.name for run in results.runs)),
        ("overlap of", f"{'masks' if results.iou_type == 'segm' else 'boxes'} ({results.iou_type}), IoU {ious}"),
        ("object size", results.area_rule),
        ("bins", f"{bins} ({tables.size_of(results.bins)})"),
        ("bins from", f"{results.bins_source} ({results.bins_reference})"),
        ("on a limit", results.edge_rule),
        ("images", f"{results.images:,}"),
        ("objects", f"{results.annotations:,}, including {results.crowds:,} crowd regions"),
        ("detections", f"at most {results.max_dets} per image and class count"),
        *([("rules", LVIS_RULES)] if tables.evaluator(results) == "lvis-api" else []),
        ("uncertainty", uncertainty),
    ]


def _size_axis(results: SizeAPResults) -> str:
    return f"object size by {AREA_NAMES[results.area]}"


def _interval_text(results: SizeAPResults) -> str:
    if not results.replicates:
        return ""
    kind = _bootstrap_of(results)
    return f" Lines: {results.confidence:.0%} intervals of the {kind} ({results.replicates:,} replicates)."


def _bootstrap_of(results: SizeAPResults) -> str:
    seeds = any(run.seeds for run in results.runs)
    return "bootstrap over images and seeds" if seeds else "image bootstrap"
