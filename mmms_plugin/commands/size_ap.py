"""Evaluate AP by object size of prediction files, with intervals.

Compares several prediction files, or methods with several seeds each. Without predictions, describes the object sizes
of a data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmms_plugin.errors import UserError, counted
from mmms_plugin.files import check_folder
from mmms_plugin.options import REQUIRED, CommandOptions, nested, option
from mmms_plugin.report import FIGURES
from mmms_plugin.size_ap import RELATIVE
from mmms_plugin.size_ap.options import OUTPUT
from mmms_plugin.size_ap.options import Options as EvaluationOptions

if TYPE_CHECKING:
    from rich.console import Console

    from mmms_plugin.coco.formats import Source
    from mmms_plugin.size_ap.gate import Condition
    from mmms_plugin.size_ap.methods import Seeds
    from mmms_plugin.size_ap.object_sizes import ObjectSizes

FORMATS = ("auto", "coco", "lvis", "yolo", "voc")  # of predictions; ground truth may be labelme's too
DATA, GATE = "data", "conditions, for CI"  # headings of --help


class Group(str):
    """The value of ``--group``, in one list with those of ``--pred`` because their order decides what is compared."""


@dataclass(kw_only=True)
class Options(CommandOptions):
    ann: str = option(
        default=REQUIRED, metavar="FILE", group=DATA,
        help="ground truth: COCO or LVIS annotation file; folder or data.yaml of YOLO; folder or ImageSets list of "
        "Pascal VOC; folder of labelme",
    )  # fmt: skip
    pred: tuple[str, ...] = option(
        default=(), action="append", metavar="FILE", group=DATA,
        help="predictions: COCO result file, predictions.json of mmms predict or Ultralytics, or folder of YOLO or VOC "
        "files; if given several times, the others are compared with the first",
        also=dict(
            flags=("--group",), action="append", type=Group, metavar="NAME=FILE,...",
            help="a method and its runs with different random seeds, such as ps=a.json,b.json,c.json, in place of "
            "--pred: evaluates their mean, with intervals over images and seeds",
        ),
    )  # fmt: skip
    names: tuple[str, ...] = option(
        default=(), metavar="NAME", group=DATA, help="names of the runs, one for each --pred (default: file names)"
    )
    format: str = option(
        choices=(*FORMATS, "labelme"),
        default="auto",
        group=DATA,
        help="format of --ann (default: auto, detected from the files)",
    )
    pred_format: str = option(
        choices=FORMATS, default="auto", group=DATA, help="format of --pred (default: auto, detected from the files)"
    )
    images: Path | None = option(
        metavar="DIR", group=DATA,
        help="folder of the images: lets the report show crops of failures, and gives YOLO labels the image sizes",
    )  # fmt: skip
    classes: Path | None = option(
        metavar="FILE",
        group=DATA,
        help="class names of YOLO, VOC or labelme labels, or of YOLO predictions, one per line or as YAML",
    )
    evaluation: EvaluationOptions = nested(EvaluationOptions)
    fail_if: tuple[str, ...] = option(
        default=(), action="append", metavar="CONDITION", group=GATE,
        help='exit with status 1 if this holds for the last --pred, such as "small.AP < 0.20" or "all.missed > 10%"; '
        "may be given several times",
    )  # fmt: skip
    baseline: str | None = option(
        metavar="FILE", group=GATE,
        help="earlier results.json: exit with status 1 if a bin is now significantly worse; needs --bootstrap",
    )  # fmt: skip
    out: str | None = option(
        metavar="DIR", group=OUTPUT,
        help="folder for the report: HTML, figures, tables, JSON and CSV in full precision (default: only print "
        "tables)",
    )  # fmt: skip
    figures: tuple[str, ...] = option(
        default=(), choices=FIGURES, group=OUTPUT,
        help="formats of the report's figures besides SVG, such as png pdf (default: none)",
    )  # fmt: skip
    gallery: int = option(
        default=2000, least=0, most=100_000, metavar="N", group=OUTPUT,
        help="largest number of failures per run in the report's gallery, 0 for no gallery",
    )  # fmt: skip

    def check_files(self) -> None:
        super().check_files()
        if isinstance(self.evaluation.resize, str):
            from mmms_plugin.config.files import find_config

            find_config(self.evaluation.resize)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluation.suspects and not self.pred:
            raise UserError("--suspects needs the --pred of at least one model, better of several")
        if (self.fail_if or self.baseline) and not self.pred:
            raise UserError("--fail-if and --baseline need a --pred to judge")
        for name, asked in (
            ("--thresholds", self.evaluation.operating),
            ("--calibration", self.evaluation.calibration),
        ):
            if asked and not self.pred:
                raise UserError(f"{name}: needs a --pred, whose scores it is about")
        if self.baseline and not self.evaluation.replicates:
            raise UserError("--baseline needs --bootstrap N: a bin is judged by its interval")


@dataclass(frozen=True)
class Outcome:
    """The files written, the HTML page first if there is one, and a line for every condition that failed the run."""

    files: tuple[Path, ...]
    failures: tuple[str, ...]


def run(options: Options) -> int:
    from mmms_plugin.coco.formats import Source
    from mmms_plugin.size_ap.gate import parse_conditions
    from mmms_plugin.size_ap.methods import parse_group

    evaluation = replace(options.evaluation, progress=True)
    if isinstance(evaluation.resize, str):
        from mmms_plugin.config.files import load_config
        from mmms_plugin.config.resizing import pipeline_resizing

        evaluation = replace(evaluation, resize=pipeline_resizing(load_config(evaluation.resize), evaluation.resize))
    outcome = run_size_ap(
        options.ann, [parse_group(pred) if isinstance(pred, Group) else pred for pred in options.pred], options.out,
        evaluation, options.names, examples=options.gallery, baseline=options.baseline,
        figures=options.figures,
        source=Source(options.format, options.pred_format, options.images, options.classes),
        conditions=parse_conditions(options.fail_if),
    )  # fmt: skip
    return 1 if outcome.failures else 0


def run_size_ap(
    ann: str,
    preds: Sequence[str | Seeds],
    out: str | None,
    options: EvaluationOptions,
    names: Sequence[str] = (),
    console: Console | None = None,
    source: Source | None = None,
    examples: int = 2000,
    conditions: Sequence[Condition] = (),
    baseline: str | None = None,
    figures: Sequence[str] = (),
) -> Outcome:
    """Evaluate prediction files, or without any describe the data set's object sizes; write the report.

    Args:
        ann: COCO annotation file.
        preds: prediction files, or `Seeds` of methods with several; empty to describe the data set.
        out: folder of the report; None writes nothing.
        options: how to evaluate.
        names: of the runs; by default their files' names, with the folder's if two files have the same name.
        console: where to print; standard output by default.
        source: formats of the files, and what some of them need besides; its pictures are cropped for the gallery.
        examples: largest number of failures per run in the report's gallery, 0 for no gallery; there is none without
            ``options.errors``.
        conditions: figures of the last run that fail it.
        baseline: a ``results.json``; the last run must not be significantly worse.
        figures: formats of the report's figures besides SVG.

    Raises:
        UserError: the files or options are at fault.
    """
    from rich.console import Console
    from rich.text import Text

    from mmms_plugin.coco.formats import AUTO
    from mmms_plugin.coco.records import few
    from mmms_plugin.report.terminal import literal, say
    from mmms_plugin.size_ap.evaluate import bins_of, evaluate
    from mmms_plugin.size_ap.gate import check_bins, read_baseline
    from mmms_plugin.size_ap.methods import read_files
    from mmms_plugin.size_ap.object_sizes import describe_objects
    from mmms_plugin.size_ap.report.printed import print_results

    console, progress, source = console or Console(), Console(stderr=True), source or AUTO
    if out:
        from mmms_plugin.size_ap.report.write import left_from_before, refuse_to_replace

        read = [("--pred", path) for pred in preds for path in ([pred] if isinstance(pred, str) else pred.files)]
        refuse_to_replace(out, [("--ann", ann), *read, *([("--baseline", baseline)] if baseline else [])])
        check_folder(out)
    earlier = read_baseline(baseline) if baseline else None
    with progress.status("reading"):
        truth, runs, notes = read_files(ann, preds, names, masks=options.masks, source=source)
    bins = bins_of(truth, options).bins
    check_bins(conditions, [b.name for b in bins], options.errors)
    if earlier:
        earlier.check_bins([b.name for b in bins])
    files: list[Path] = []
    failures: list[str] = []
    if runs:
        how = options if out else replace(options, sweep=False)
        results = evaluate(truth, runs, how, notes, source, ann, failures=bool(out and examples))
        notes = results.notes
        failures += filter(None, (condition.failure(results.runs[-1]) for condition in conditions))
        failures += earlier.failures(results) if earlier else ()
        if out:
            with progress.status("drawing"):
                files = results.save(out, examples, figures)
        print_results(results, console)
    else:
        sizes = describe_objects(truth, bins, options.area, notes, **options.sight)
        if out:
            with progress.status("drawing"):
                files = sizes.save(out, figures)
        _print_sizes(console, sizes)
    if out and (left := left_from_before(out, files)):
        notes = (*notes, f"{out}: files there that an earlier report left, and that are not of this one: {few(left)}")
    for note in notes:
        progress.print(Text.assemble(("note:", "yellow"), f" {literal(note)}"), soft_wrap=True)
    if files:
        pages = [file for file in files if file.suffix == ".html"]
        say(f"written: {', '.join(map(str, pages))} and {len(files) - len(pages)} more files", console)
    if (conditions or earlier) and not failures:
        held = [f"no condition of --fail-if ({len(conditions)}) holds"] if conditions else []
        held += [f"no bin is significantly worse than in {baseline}"] if earlier else []
        say(f"passed: {'; '.join(held)}", console)
    for failure in failures:
        progress.print(Text.assemble(("failed:", "red"), f" {literal(failure)}"), soft_wrap=True)
    return Outcome(tuple(files), tuple(failures))


def _print_sizes(console: Console, sizes: ObjectSizes) -> None:
    """Objects per bin, a bar for every half octave of the side, and suggestions."""
    from mmms_plugin.report.terminal import say
    from mmms_plugin.size_ap.object_sizes import STEPS
    from mmms_plugin.size_ap.report.tables import side_unit, suggestions

    say(f"{counted(sizes.objects, 'object')} in {counted(sizes.images, 'image')}; {sizes.area_rule}", console)
    for bin_, count in zip(sizes.bins, sizes.counts, strict=True):
        say(f"  {bin_.name:<18}{bin_.label:<22}{count}", console)
    half = STEPS // 2
    counts = [sum(sizes.histogram[i : i + half]) for i in range(0, len(sizes.histogram), half)]
    edges, most = [*sizes.edges[::half], sizes.edges[-1]], max(counts, default=0)
    say(f"objects by side = sqrt(area), {side_unit(sizes)}", console)
    form = ".3g" if sizes.bins[0].unit == RELATIVE else ".0f"
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        limits, bar = f"{low:{form}} to {high:{form}}", "█" * round(40 * count / max(most, 1))
        say(f"  {limits:<18}{bar:<41}{count}", console)
    for what, value in suggestions(sizes):
        say(f"{what}: {value}", console)
