"""Evaluate a checkpoint with a config.

Prints metrics; can also write predictions as files and draw them.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmms_plugin.config.tiles import TileOptions
from mmms_plugin.errors import UserError
from mmms_plugin.files import exits_file
from mmms_plugin.options import nested, option
from mmms_plugin.train.options import OUTPUT, EvaluateOptions

EXITS = "early exit, by the thresholds of mmms early-exit"  # heading of --help


@dataclass(kw_only=True)
class Options(EvaluateOptions):
    tiling: TileOptions = nested(TileOptions)
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
    exit_budget: float | None = option(
        "--budget", above=0, metavar="MMAC", group=EXITS,
        help="for classifiers with several exits: also report accuracy and cost if pictures leave early, so as to need "
        "at most this many million multiply-adds per picture on average",
    )  # fmt: skip
    exit_risk: float | None = option(
        "--risk", above=0, most=1, metavar="SHARE", group=EXITS,
        help="likewise, so as to lower accuracy by at most this share of all pictures, such as 0.02, with the "
        "confidence that was asked for",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exit_budget is not None and self.exit_risk is not None:
            raise UserError("--budget and --risk: give one of them")

    def check_files(self) -> None:
        super().check_files()
        if self.exit_budget is not None or self.exit_risk is not None:
            flag = "--budget" if self.exit_risk is None else f"--risk {self.exit_risk:g}"
            path = exits_file(self.checkpoint)
            if not path.is_file():
                command = "mmms early-exit" + ("" if self.exit_risk is None else f" {flag}")
                raise UserError(f"{flag}: no thresholds {path}; choose them with {command}")


def run(options: Options) -> None:
    from mmms_plugin.train.launch import evaluate

    evaluate(options)
