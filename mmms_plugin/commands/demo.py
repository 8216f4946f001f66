"""Train and evaluate a small PS Mask R-CNN on generated pictures.

Draws the pictures, trains, evaluates AP by object size and draws predictions; takes a few minutes on a CPU.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mmms_plugin.config.schedule import ScheduleOptions
from mmms_plugin.errors import UserError
from mmms_plugin.files import write_text
from mmms_plugin.options import CommandOptions, option

if TYPE_CHECKING:
    from rich.console import Console

CONFIG = "demo/mask_rcnn_ps_r18_shapes"
MARK = "demo.json"  # marks a folder as the demo's own


@dataclass(kw_only=True)
class Options(CommandOptions):
    out: Path = option(default=Path("demo_out"), metavar="DIR", help="folder to write")
    iterations: int | None = option(least=1, metavar="N", help="training iterations (default: the config's)")
    seed: int = option(default=0, help="random seed of the training")


def run(options: Options) -> None:
    """Draw pictures, train a small PS Mask R-CNN on them, evaluate it, and draw its predictions.

    Everything is written below ``out``; a folder of an earlier demo is replaced.

    Raises:
        UserError: ``out`` holds anything else.
    """
    from rich.console import Console

    from mmms_plugin.compat.hosts import not_installed
    from mmms_plugin.datasets import write_shapes
    from mmms_plugin.report.overlays import draw_ap_bars, draw_overlays
    from mmms_plugin.report.terminal import say

    if line := not_installed("mmdet"):  # before an earlier demo is removed
        raise UserError(line)
    out = options.out
    started, console = time.monotonic(), Console(file=sys.stdout)  # the real one, even while stdout goes to the log
    _clear(out)
    say(f"1/4 drawing pictures into {out / 'data'}", console)
    write_shapes(out / "data", formats="coco", colours=True)
    say("2/4 loading mmdet and building a Mask R-CNN with a PS-ResNet-18 of half width", console)
    with (out / "log.txt").open("w", encoding="utf-8") as log:
        metrics = _train_and_evaluate(options, log, console)
    say("4/4 drawing predictions", console)
    truth = out / "data/annotations/instances_val.json"
    draw_overlays(truth, out / "data/images", out / "predictions.json", out / "overlays.png")
    draw_ap_bars(metrics, out / "ap_by_size.png")
    write_text(out / "metrics.json", json.dumps(metrics, indent=1))
    _print(console, out, metrics, time.monotonic() - started)


def _train_and_evaluate(options: Options, log: TextIO, console: Console) -> dict[str, float]:
    """mmengine's and pycocotools' output goes to the log file; the progress bar, on stderr, stays in sight."""
    with contextlib.redirect_stdout(log), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmms_plugin.compat import mmcv_ops
        from mmms_plugin.report.terminal import say
        from mmms_plugin.train.launch import evaluate, train
        from mmms_plugin.train.options import EvaluateOptions, TrainOptions

        out = options.out
        shared: dict[str, Any] = dict(work_dir=str(out / "train"), coco_dir=str(out / "data"), seed=options.seed)
        say(mmcv_ops(), console)
        runner = train(TrainOptions(config=CONFIG, schedule=ScheduleOptions(iters=options.iterations), **shared))
        say("3/4 evaluating on held-out pictures", console)
        checkpoint = out / "train" / f"iter_{runner.iter}.pth"
        return evaluate(
            EvaluateOptions(config=CONFIG, checkpoint=str(checkpoint), out=str(out / "predictions.json"), **shared)
        )


def _clear(out: Path) -> None:
    if out.exists() and not (out / MARK).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: holds something other than an earlier demo; give another folder")
    try:
        for path in out.iterdir() if out.exists() else ():
            if path.name != MARK:  # it stays, so that the folder remains a demo's whatever happens
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be cleared ({error.filename}: {error.strerror})") from error
    write_text(out / MARK, json.dumps({"config": CONFIG}))


def _print(console: Console, out: Path, metrics: dict[str, float], seconds: float) -> None:
    from mmms_plugin.report.tables import Table, metric_figure
    from mmms_plugin.report.terminal import print_table, say

    columns = ("", "AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
    rows = []
    for label, key in (("box", "bbox"), ("mask", "segm")):
        values = [metrics[f"coco/{key}_mAP{suffix}"] for suffix in ("", "_50", "_75", "_s", "_m", "_l")]
        rows.append((label, *map(metric_figure, values)))
    print_table(Table("ap", "", columns, rows, form=".3f"), console)
    say(f"done in {seconds / 60:.1f} minutes; look at", console)
    for name, what in (
        ("overlays.png", "ground truth and predictions"),
        ("ap_by_size.png", "AP by object size"),
        ("predictions.json", "COCO results"),
        ("log.txt", "the log"),
        ("train", "config and checkpoint"),
    ):
        say(f"  {out / name}  {what}", console)
