"""The report of an evaluation by object size: figures, tables, an HTML page, and all numbers as JSON and CSV."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mmms_plugin.errors import UserError
from mmms_plugin.files import files_written_together, write_text
from mmms_plugin.report.page import Output, Section, render
from mmms_plugin.size_ap.evaluate import SWEEP_REPLICATES
from mmms_plugin.size_ap.kernel.error_types import MATCH
from mmms_plugin.size_ap.object_sizes import ObjectSizes, describe_objects
from mmms_plugin.size_ap.report import plots, tables
from mmms_plugin.size_ap.report.confusion import confusion_caption, confusion_table
from mmms_plugin.size_ap.report.gallery import failure_gallery
from mmms_plugin.size_ap.report.suspect_files import corrected_by_hand, suspect_page
from mmms_plugin.size_ap.report.tables import csv_files, shape
from mmms_plugin.size_ap.resizing import Measured
from mmms_plugin.size_ap.results import Comparison, RunResult, SizeAPResults
from mmms_plugin.size_ap.score_files import ScoreCalibration, ScoreThresholds, Sizes

ERROR_MEANINGS = (
    ("classification", "right place, wrong class: IoU of at least 0.5 with an object of another class"),
    ("localisation", "right class, wrong place: IoU of 0.1 to 0.5 with an object of its class"),
    ("both", "wrong class and wrong place: some overlap, but too little, or with an object of another class"),
    ("duplicate", "a better detection already matches the object"),
    ("background", "no object there: IoU of at most 0.1 with any object"),
    ("missed", "an object that no detection matches, not even one whose error is fixed"),
)
# files that reports may hold; figures and score files end in the number of their run
REPORT_FILE = re.compile(
    r"(report|suspects|object_sizes)\.html|(results|suspects|object_sizes|(thresholds|calibration)-\d+)\.json"
    r"|(object_size_)?tables\.(md|tex)|(bins|classes|errors|ap_against_size|confusion|thresholds|calibration"
    r"|reliability|calibration_maps|differences|settling|suspects)\.csv"
    r"|((ap|ar)_per_bin|object_sizes|(errors|precision_recall|reliability|reliability_classes|class_by_size|confusion"
    r"|ap_difference|image_groups|ap_against_size)(-\d+)?)\.(svg|png|pdf)"
)
LVIS_RULES = (
    "LVIS: the best 300 detections of an image count; ignored are those of classes that were not checked in the image, "
    "and unmatched ones of classes that are not exhaustively annotated in it"
)
DRAWN_CLASSES = 8  # of reliability diagrams
UNDEFINED = "n/a: no objects"


def write_report(
    results: SizeAPResults, out_dir: str | PathLike[str], examples: int = 2000, figures: Sequence[str] = ()
) -> list[Path]:
    """Write the report of an evaluation into a folder.

    It consists of ``report.html`` (self-contained), ``results.json``, ``tables.md``, ``tables.tex`` (needs booktabs),
    ``bins.csv``, ``classes.csv``, ``errors.csv``, ``ap_against_size.csv``, if asked for ``confusion.csv``, with
    thresholds ``thresholds.csv`` and ``thresholds-1.json`` (of the first run; for ``mmms predict``), with the
    calibration ``calibration.csv``, ``reliability.csv``, ``calibration_maps.csv`` and ``calibration-1.json``, with
    several runs ``differences.csv`` and, with a bootstrap, ``settling.csv``, with suspects ``suspects.html``,
    ``suspects.csv`` and ``suspects.json``, and every figure as SVG.

    Args:
        results: of at least one run.
        out_dir: created if needed; files of the same names are replaced, all at once.
        examples: largest number of failures per run in the page's gallery, at most 100,000, 0 for no gallery; there is
            none if the types of error were not evaluated.
        figures: further formats of the figures, 'png' and 'pdf'.

    Returns:
        The files, ``report.html`` first.

    Raises:
        UserError: the folder cannot be created.
    """
    gallery = sizes = None
    if inputs := results.inputs:
        truth, options = inputs.truth, inputs.options
        sizes = describe_objects(truth, results.bins, options.area, (), **options.sight)
        if examples and inputs.failures:
            gallery = failure_gallery(inputs, results.bins, examples)
    with files_written_together(Path(out_dir)) as folder:
        out = Output(folder, figures)
        sections = [*_evaluation_sections(results, out), *([_size_section(sizes, out)] if sizes else [])]
        out.texts({"results.json": _json(results.to_json()), **csv_files(results)})
        out.tables(sections, note=results.area_rule)
        links = []
        if inputs and inputs.suspects is not None and inputs.ann:
            out.texts({
                "suspects.html": suspect_page(inputs, results.bins),
                "suspects.json": corrected_by_hand(inputs.truth, inputs.suspects, inputs.ann, inputs.source),
            })  # fmt: skip
            links = [("Annotations that are probably wrong", "suspects.html")]
        names = " and ".join(run.name for run in results.runs)
        lead = f"How well {names} detect objects of different sizes. AP and AR are × 100; {UNDEFINED}."
        sections += [Section("Look at the failures", gallery=gallery)] if gallery else []
        page = render("AP by object size", _facts(results), sections, lead=lead, notes=results.notes,
                      links=links)  # fmt: skip
        files = [write_text(folder / "report.html", page), *out.written]
    return [Path(out_dir, file.name) for file in files]


def left_from_before(folder: str | PathLike[str], written: Sequence[Path]) -> list[str]:
    """Files in a report's folder that an earlier one left and this one, ``written``, lacks; those of commands first."""
    new = {file.name for file in written}
    names = [f.name for f in Path(folder).iterdir() if f.name not in new and REPORT_FILE.fullmatch(f.name)]
    return sorted(names, key=lambda name: (not name.endswith(".json"), name))


def refuse_to_replace(folder: str | PathLike[str], inputs: Iterable[tuple[str, str]]) -> None:
    """Refuse inputs that a report in ``folder`` could replace.

    Args:
        folder: of the report.
        inputs: option and path of each.

    Raises:
        UserError: for the first one.
    """
    for name, path in inputs:
        if REPORT_FILE.fullmatch(Path(path).name) and Path(path).resolve().parent == Path(folder).resolve():
            raise UserError(f"{name} {path}: the report would replace it; give another --out than {folder}")


def write_object_sizes(sizes: ObjectSizes, out_dir: str | PathLike[str], figures: Sequence[str] = ()) -> list[Path]:
    """Write a data set's object sizes into a folder: ``object_sizes.html``, ``.json``, tables and figures.

    Args:
        sizes: of the data set.
        out_dir: created if needed; files of the same names are replaced, all at once.
        figures: formats of the figures besides SVG, 'png' and 'pdf'.

    Raises:
        UserError: the folder cannot be created.
    """
    with files_written_together(Path(out_dir)) as folder:
        out = Output(folder, figures)
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
    if any(run.operating for run in results.runs):
        sections.append(_threshold_section(results, out))
    if any(run.calibration for run in results.runs):
        sections.append(_calibration_section(results, out))
    for comparison in results.comparisons:
        sections += [_difference_section(results, comparison, out)]
        sections += [_group_section(results, comparison, out)] if comparison.groups else []
    if all(run.sweep for run in results.runs):
        sections.append(_sweep_section(results, out))
    if len(results.runs[0].classes.category_ids) > 1:
        sections.append(_class_section(results, out))
    if any(run.confusion for run in results.runs):
        sections.append(_confusion_section(results, out))
    if any(run.stats for run in results.runs):
        sections.append(Section(f"Figures of {tables.evaluator(results)}", tables=[tables.stats_table(results)]))
    return sections


def _bins_section(results: SizeAPResults, out: Output) -> Section:
    pictures = []
    for metric in ("ap", "ar"):
        caption = f"{shape(results)} {metric.upper()} by object size; n: objects.{_interval_text(results)}"
        pictures.append(out.figure(f"{metric}_per_bin", plots.bars(results, metric), caption))
    shown = [tables.bin_table(results, run) for run in results.runs]
    shown += [tables.seed_table(results, run) for run in results.runs if run.seeds]
    return Section("AP per size", pictures=pictures, tables=shown)


def _error_section(results: SizeAPResults, out: Output) -> Section:
    pictures = []
    for run in results.runs:
        caption = (
            f"{run.name}: what each type of error costs, as the AP50 gained if all errors of that type were fixed "
            f"(TIDE, Bolya et al. 2020, per size).{_interval_text(results)}"
        )
        pictures.append(out.figure(f"errors-{tables.position(results, run)}", plots.errors(results, run), caption))
    shown = [tables.error_table(results, run) for run in results.runs]
    shown += [tables.error_difference_table(results, comparison) for comparison in results.comparisons]
    return Section("Why AP is lost", ERROR_MEANINGS, pictures, shown)


def _threshold_section(results: SizeAPResults, out: Output) -> Section:
    pictures, shown, files = [], [], {}
    for run in results.runs:
        number = tables.position(results, run)
        caption = (
            f"{run.name}: precision against recall at IoU {MATCH:g} in every bin, as AP50 takes it: the mean over "
            "classes of the highest precision at each recall or above."
        )
        pictures.append(out.figure(f"precision_recall-{number}", plots.precision_recall(results, run), caption))
        shown += tables.threshold_tables(results, run)
        if results.inputs and not isinstance(results.inputs.options.resizing, Measured):  # that no file can hold
            files[f"thresholds-{number}.json"] = score_thresholds(results, run).to_json()
    out.texts(files)
    facts = [("the same, for mmms predict", f"--thresholds {name}") for name in files]
    return Section("From which score to keep detections", facts, pictures, shown)


def _calibration_section(results: SizeAPResults, out: Output) -> Section:
    pictures, shown, files = [], [], {}
    for run in results.runs:
        number = tables.position(results, run)
        caption = (
            f"{run.name}: share of detections that is right against their mean score, in ten intervals of score, by "
            "the detections' own size. Dots are as large as the intervals are full; dashed: perfect scores."
        )
        pictures.append(out.figure(f"reliability-{number}", plots.reliability(results, run), caption))
        if len(results.runs[0].classes.category_ids) > 1:
            caption = f"{run.name}: the same for up to {DRAWN_CLASSES} most frequent classes, a curve for each bin."
            drawn = plots.reliability(results, run, DRAWN_CLASSES)
            pictures.append(out.figure(f"reliability_classes-{number}", drawn, caption))
        shown += tables.calibration_tables(results, run)
        if results.inputs and not isinstance(results.inputs.options.resizing, Measured):  # that no file can hold
            files[f"calibration-{number}.json"] = score_calibration(results, run).to_json()
    out.texts(files)
    facts = [("the maps, for mmms predict", f"--calibration {name}") for name in files]
    return Section("Are scores probabilities?", facts, pictures, shown)


def score_calibration(results: SizeAPResults, run: RunResult) -> ScoreCalibration:
    """A run's maps as the file that ``mmms predict --calibration`` takes."""
    assert run.calibration is not None
    maps = {row.bin: (row.slope, row.offset) for row in run.calibration.maps}
    return ScoreCalibration(sizes_of(results), maps, run.calibration.iou, run.name, _hash_of_scores(results, run))


def score_thresholds(results: SizeAPResults, run: RunResult) -> ScoreThresholds:
    """A run's thresholds as the file that ``mmms predict --thresholds`` takes."""
    assert run.operating is not None
    tables_by_class: dict[str | None, dict[str, float]] = {}
    for point in run.operating.points:
        by_bin = tables_by_class.setdefault(point.category, {})
        if point.score is not None:
            by_bin[point.bin] = point.score
    everything = tables_by_class.pop(None, {})
    by_name = {name: table for name, table in tables_by_class.items() if name is not None}
    return ScoreThresholds(
        sizes_of(results), everything, by_name, run.operating.goal, run.operating.iou, run.name,
        _hash_of_scores(results, run),
    )  # fmt: skip


def _hash_of_scores(results: SizeAPResults, run: RunResult) -> str:
    assert results.inputs is not None
    (detections,) = results.inputs.methods[tables.position(results, run) - 1].runs
    return hashlib.sha256(detections.scores.tobytes()).hexdigest()[:16]


def sizes_of(results: SizeAPResults) -> Sizes:
    """How the sizes of detections are measured."""
    assert results.inputs is not None
    masks = results.area == "mask" or (results.area == "annotation" and results.iou_type == "segm")
    return Sizes.of_evaluation(results.bins, masks, **results.inputs.options.sight)


def _difference_section(results: SizeAPResults, comparison: Comparison, out: Output) -> Section:
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
    drawn = plots.difference(results, comparison)
    picture = out.figure(f"ap_difference{tables.suffix(results, comparison)}", drawn, caption)
    title = f"Difference: {comparison.second}" if results.more_comparisons else "Difference of the two runs"
    return Section(title, pictures=[picture], tables=shown)


def _group_section(results: SizeAPResults, comparison: Comparison, out: Output) -> Section:
    caption = (
        "Images grouped by the sizes of the objects they contain, number of images in parentheses, as in ELASTIC "
        f"(Wang et al. 2019, Table 4). F1: multi-label; a class counts as predicted in an image if a detection of it "
        f"scores at least {comparison.score_threshold:g}."
    )
    drawn = plots.groups(results, comparison)
    picture = out.figure(f"image_groups{tables.suffix(results, comparison)}", drawn, caption)
    title = "By the object sizes in an image" + (f": {comparison.second}" if results.more_comparisons else "")
    return Section(title, pictures=[picture], tables=[tables.group_table(results, comparison)])


def _sweep_section(results: SizeAPResults, out: Output) -> Section:
    points = results.runs[0].sweep
    ratio = points[0].high / points[0].low if points[0].low > 0 else float("nan")
    width = f" from side / {ratio**0.5:.3g} to side × {ratio**0.5:.3g}" if np.isfinite(ratio) else ""
    caption = f"AP of the objects in a window that slides over size{width}; above: objects in the window."
    if points[0].interval:
        count = min(results.replicates, SWEEP_REPLICATES)
        caption += f" Bands: {results.confidence:.0%} intervals of the {_bootstrap_of(results)} ({count:,} replicates)."
    return Section("AP against object size", pictures=[out.figure("ap_against_size", plots.sweep(results), caption)])


def _class_section(results: SizeAPResults, out: Output) -> Section:
    pictures = []
    for number, run in enumerate(results.runs, 1):
        caption = f"{run.name}: AP per class and size, best class first; hatched: n/a (no objects)."
        pictures.append(out.figure(f"class_by_size-{number}", plots.classes(results, run), caption, wide=True))
    shown = [tables.class_table(results, run) for run in results.runs]
    return Section("Class by size", pictures=pictures, tables=shown)


def _confusion_section(results: SizeAPResults, out: Output) -> Section:
    pictures = [
        out.figure(f"confusion-{number}", plots.confusion(results, run), confusion_caption(run), wide=True)
        for number, run in enumerate(results.runs, 1)
    ]
    shown = [confusion_table(results, run, number) for number, run in enumerate(results.runs, 1)]
    return Section("Which class is taken for which", pictures=pictures, tables=shown)


def _size_section(sizes: ObjectSizes, out: Output) -> Section:
    caption = f"Objects by size, four columns per octave; side: {sizes.area_rule}; dashed: limits of the bins."
    picture = out.figure("object_sizes", plots.sizes_histogram(sizes), caption)
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


def _interval_text(results: SizeAPResults) -> str:
    if not results.replicates:
        return ""
    kind = _bootstrap_of(results)
    return f" Lines: {results.confidence:.0%} intervals of the {kind} ({results.replicates:,} replicates)."


def _bootstrap_of(results: SizeAPResults) -> str:
    seeds = any(run.seeds for run in results.runs)
    return "bootstrap over images and seeds" if seeds else "image bootstrap"
