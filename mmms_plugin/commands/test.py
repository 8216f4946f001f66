"""Evaluate a checkpoint with a config.

Prints metrics; can also write predictions as files and draw them.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmms_plugin.options import option
from mmms_plugin.train.options import OUTPUT, EvaluateOptions


@dataclass(kw_only=True)
class Options(EvaluateOptions):
    out: str | None = option(
        metavar="FILE", group=OUTPUT,
        help="write predictions: COCO JSON for detectors, JSON for classifiers, a folder of label PNGs for segmenters",
    )  # fmt: skip
    show_dir: str | None = option(
        metavar="DIR", group=OUTPUT, help="draw predictions beside the ground truth into this folder"
    )
    size_report: str | None = option(
        metavar="DIR", group=OUTPUT,
        help="for segmenters: folder for IoU and recall by region size, as HTML page, JSON, CSV and figures",
    )  # fmt: skip


def run(options: Options) -> None:
    from mmms_plugin.train.launch import evaluate

    evaluate(options)
