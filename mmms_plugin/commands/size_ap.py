"""AP by object size of prediction files, several seeds too; without predictions, the object sizes of a data set."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mmms_plugin.errors import UserError

FORMATS = ("auto", "coco", "lvis", "yolo", "voc")
BINS_HELP = (
    "coco, tiny (= tinyperson), ai-tod, soda, quantiles:N, or NAME=LOW:HIGH,... "
    "such as tiny=0:16,small=16:32,large=32:inf (%(default)s)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``mmms size-ap``."""
    add = parser.add_argument
    fail_if = (
        'exit with status 1 if it holds for the last --pred, such as "small.AP < 0.20" or "all.missed > 0.1"; '
        "may be given several times"
    )
    baseline = "earlier results.json: exit with status 1 if a bin is significantly worse; needs --bootstrap"
    resize = "what training makes pictures fit, such as 1333x800: anchors are then suggested for resized objects"
    truth = "COCO or LVIS annotation file; folder or data.yaml of YOLO; folder or ImageSets list of Pascal VOC"
    images = "folder of the images: the report then shows crops of failures; YOLO labels need their sizes"
    second = (
        "COCO result file, Ultralytics' predictions.json, or folder of YOLO's or VOC's; the first is compared with "
    )
    second += "each further one"
    group = (
        "method and its runs with different random seeds, such as ps=a.json,b.json,c.json, in place of --pred: their "
    )
    group += "mean is evaluated, with intervals over images and seeds"
    unit = "of own limits and quantiles: side = sqrt(area) in px, or area in px² (%(default)s)"
    area = "an object's size: the 'area' field as pycocotools takes it, box, or pixels of the mask (%(default)s)"
    score = "from this score on a class counts as predicted in an image: multi-label F1 in comparisons (%(default)s)"
    add("--ann", metavar="FILE", required=True, help=truth)
    add("--format", choices=FORMATS, default="auto", help="of --ann (%(default)s: judged by the files)")
    add("--pred-format", choices=FORMATS, default="auto", help="of --pred (%(default)s)")
    add("--images", metavar="DIR", help=images)
    add("--classes", metavar="FILE", help="names of the classes, one a line or YAML, of YOLO or VOC labels")
    add("--pred", metavar="FILE", action="append", default=[], help=second)
    add("--group", metavar="NAME=FILE,...", dest="pred", action="append", type=_Group, help=group)
    add(
        "--out", metavar="DIR", help="report: HTML, figures, tables, JSON and CSV in full precision; needed with --pred"
    )
    add("--names", nargs="+", metavar="NAME", default=[], help="of every --pred (default: their files')")
    add("--bins", default="coco", help=BINS_HELP)
    add("--bin-unit", choices=["side", "area"], default="side", help=unit)
    add("--allow-gaps", action="store_true", help="accept sizes between bins that are in none")
    add("--allow-overlaps", action="store_true", help="accept sizes that are in several bins")
    add("--iou-type", choices=["bbox", "segm"], default="bbox", help="overlap of boxes or of masks (%(default)s)")
    add("--area", choices=["annotation", "box", "mask"], default="annotation", help=area)
    add("--max-dets", type=int, default=100, metavar="N", help="detections per image and class (%(default)s)")
    add("--bootstrap", type=int, default=0, metavar="N", help="replicates of the image bootstrap (%(default)s)")
    add("--fail-if", metavar="CONDITION", action="append", default=[], help=fail_if)
    add("--baseline", metavar="FILE", help=baseline)
    add("--no-errors", action="store_true", help="leave out what each type of error costs (TIDE), which takes longest")
    add("--gallery", type=int, default=2000, metavar="N", help="most failures of a run in the report's gallery, 0 for "
        "none (%(default)s)")  # fmt: skip
    add("--confidence", type=float, default=0.95, metavar="P", help="of intervals (%(default)s)")
    add("--seed", type=int, default=0, help="of the bootstrap (%(default)s)")
    add("--resize", metavar="WxH", help=resize)
    add("--score-threshold", type=float, default=0.5, metavar="S", help=score)


class _Group(str):
    """What ``--group`` was given, in one list with ``--pred`` because their order decides what is compared."""


def _size(text: str | None) -> tuple[int, int] | None:
    """``1333x800`` as numbers."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text or "")
    if text is not None and not found:
        raise UserError(f"--resize {text}: must be WIDTHxHEIGHT, such as 1333x800")
    return (int(found[1]), int(found[2])) if found else None


def run(args: argparse.Namespace) -> int:
    if not 0 <= args.gallery <= 10**5:
        raise UserError(f"--gallery {args.gallery}: must be an integer from 0 to 100,000")
    if args.pred and not args.out:
        raise UserError("--out DIR is missing: the folder of the report")
    single = sum(not isinstance(one, _Group) for one in args.pred)
    if args.names and len(args.names) != single:
        raise UserError(f"--names {' '.join(args.names)}: allowed is one for each --pred ({single})")
    if len(set(args.names)) < len(args.names):
        raise UserError(f"--names {' '.join(args.names)}: the runs need different names")
    if not all(name.strip() for name in args.names):
        raise UserError("--names: an empty name; every run needs one")
    from mmms_plugin.coco.formats import Source
    from mmms_plugin.size_ap.command import run_size_ap
    from mmms_plugin.size_ap.evaluate import Options
    from mmms_plugin.size_ap.gate import parse_conditions
    from mmms_plugin.size_ap.methods import parse_group

    preds = [parse_group(one) if isinstance(one, _Group) else one for one in args.pred]
    conditions = parse_conditions(args.fail_if)
    if (conditions or args.baseline) and not args.pred:
        raise UserError("--fail-if and --baseline need a --pred to judge")
    if args.baseline and not args.bootstrap:
        raise UserError("--baseline needs --bootstrap N: whether a bin is worse is judged by intervals")
    names = ("iou_type", "area", "bins", "bin_unit", "allow_gaps", "allow_overlaps", "max_dets", "seed", "confidence",
             "score_threshold")  # fmt: skip
    options = Options(
        **{n: getattr(args, n) for n in names},
        replicates=args.bootstrap,
        resize=_size(args.resize),
        errors=not args.no_errors,
        progress=True,
    )
    source = Source(args.format, args.pred_format, *(Path(one) if one else None for one in (args.images, args.classes)))
    outcome = run_size_ap(
        args.ann, preds, args.out, options, args.names, source=source, examples=args.gallery,
        conditions=conditions, baseline=args.baseline
    )  # fmt: skip
    return 1 if outcome.failures else 0
