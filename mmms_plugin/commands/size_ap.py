"""Evaluate AP by object size, with intervals, of prediction files.

Several prediction files are compared, also methods with several seeds each. Without predictions, describes the object
sizes of a data set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mmms_plugin.errors import UserError
from mmms_plugin.options import REQUIRED, CommandOptions, nested, option
from mmms_plugin.size_ap.options import OUTPUT
from mmms_plugin.size_ap.options import Options as EvaluationOptions

FORMATS = ("auto", "coco", "lvis", "yolo", "voc")
DATA, GATE = "data", "conditions, for CI"  # headings of --help


class Group(str):
    """What ``--group`` was given, in one list with ``--pred`` because their order decides what is compared."""


@dataclass(kw_only=True)
class Options(CommandOptions):
    ann: str = option(
        default=REQUIRED, metavar="FILE", group=DATA,
        help="ground truth: COCO or LVIS annotation file; folder or data.yaml of YOLO; folder or ImageSets list of "
        "Pascal VOC",
    )  # fmt: skip
    pred: tuple[str, ...] = option(
        default=(), action="append", metavar="FILE", group=DATA,
        help="predictions: COCO result file, Ultralytics' predictions.json, or folder of YOLO's or VOC's; may be given "
        "several times: the first is compared with each further one",
        also=dict(
            flags=("--group",), action="append", type=Group, metavar="NAME=FILE,...",
            help="method and its runs with different random seeds, such as ps=a.json,b.json,c.json, in place of "
            "--pred: their mean is evaluated, with intervals over images and seeds",
        ),
    )  # fmt: skip
    names: tuple[str, ...] = option(
        default=(), metavar="NAME", group=DATA, help="names of the runs, one for every --pred (default: their files')"
    )
    format: str = option(
        choices=FORMATS, default="auto", group=DATA, help="format of --ann (default: auto, judged by the files)"
    )
    pred_format: str = option(
        choices=FORMATS, default="auto", group=DATA, help="format of --pred (default: auto, judged by the files)"
    )
    images: Path | None = option(
        metavar="DIR", group=DATA,
        help="folder of the images: the report then shows crops of failures; YOLO labels need their sizes",
    )  # fmt: skip
    classes: Path | None = option(
        metavar="FILE", group=DATA, help="names of the classes of YOLO or VOC labels, one a line or YAML"
    )
    evaluation: EvaluationOptions = nested(EvaluationOptions)
    fail_if: tuple[str, ...] = option(
        default=(), action="append", metavar="CONDITION", group=GATE,
        help='exit with status 1 if it holds for the last --pred, such as "small.AP < 0.20" or "all.missed > 0.1"; '
        "may be given several times",
    )  # fmt: skip
    baseline: str | None = option(
        metavar="FILE", group=GATE,
        help="earlier results.json: exit with status 1 if a bin is significantly worse; needs --bootstrap",
    )  # fmt: skip
    out: str | None = option(
        metavar="DIR", group=OUTPUT,
        help="folder for the report: HTML, figures, tables, JSON and CSV in full precision; needed with --pred",
    )  # fmt: skip
    gallery: int = option(
        default=2000, least=0, most=100_000, metavar="N", group=OUTPUT,
        help="largest number of failures per run in the report's gallery, 0 for none",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pred and not self.out:
            raise UserError("--out DIR is missing: the folder of the report")
        single, names = sum(not isinstance(pred, Group) for pred in self.pred), " ".join(self.names)
        if self.names and len(self.names) != single:
            raise UserError(f"--names {names}: allowed is one for each --pred ({single})")
        if len(set(self.names)) < len(self.names):
            raise UserError(f"--names {names}: the runs need different names")
        if not all(name.strip() for name in self.names):
            raise UserError("--names: an empty name; every run needs one")
        if (self.fail_if or self.baseline) and not self.pred:
            raise UserError("--fail-if and --baseline need a --pred to judge")
        if self.baseline and not self.evaluation.replicates:
            raise UserError("--baseline needs --bootstrap N: whether a bin is worse is judged by intervals")


def run(options: Options) -> int:
    from mmms_plugin.coco.formats import Source
    from mmms_plugin.size_ap.command import run_size_ap
    from mmms_plugin.size_ap.gate import parse_conditions
    from mmms_plugin.size_ap.methods import parse_group

    outcome = run_size_ap(
        options.ann, [parse_group(pred) if isinstance(pred, Group) else pred for pred in options.pred], options.out,
        replace(options.evaluation, progress=True), options.names, examples=options.gallery, baseline=options.baseline,
        source=Source(options.format, options.pred_format, options.images, options.classes),
        conditions=parse_conditions(options.fail_if),
    )  # fmt: skip
    return 1 if outcome.failures else 0
