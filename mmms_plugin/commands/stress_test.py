"""Evaluate a classifier at several picture sizes, and plot metrics.

This is the experiment of Figure 7 of the ELASTIC paper.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmms_plugin.errors import UserError
from mmms_plugin.files import check_folder, make_folder, write_text
from mmms_plugin.options import REQUIRED, option
from mmms_plugin.report.tables import Table, Value
from mmms_plugin.train.options import DATA, OUTPUT, EvaluateOptions

SHOWN = ("labels/F1_per_class", "labels/F1_overall", "labels/mAP", "accuracy/top1", "accuracy/top5")
PIPELINE = "test_dataloader.dataset.pipeline"
EDGE = 256 / 224  # of the shorter side before the crop


@dataclass(kw_only=True)
class Options(EvaluateOptions):
    LEFT_OUT = ("voc_dir", "binary_masks")  # classifiers have no masks

    sizes: tuple[int, ...] = option(
        default=(96, 224, 448, 896), least=32, metavar="PX", group=DATA, help="sides of the square pictures in px"
    )
    out: str | None = option(
        default=REQUIRED, metavar="DIR", group=OUTPUT, help="folder for the plot, its values as JSON, and the logs"
    )


def run(options: Options) -> None:
    """Evaluate a checkpoint at every size and draw the figure.

    Batches shrink as pictures grow, so that memory stays the same.

    Raises:
        UserError: the config is not a classifier's, or does not resize its pictures.
    """
    from rich.console import Console

    from mmms_plugin.config.files import load_config
    from mmms_plugin.report.terminal import print_table
    from mmms_plugin.train.launch import evaluate
    from mmms_plugin.train.tasks import Classification, task_of

    config = load_config(options.config)
    if not isinstance(task_of(config), Classification):
        raise UserError(f"config {options.config}: stress-test is for classifiers")
    folder = Path(str(options.out))
    check_folder(folder)
    metrics = {}
    for size in options.sizes:
        cfg_options = {**resized(config, size), **options.cfg_options}
        at_size = replace(options, out=None, work_dir=str(folder / f"{size}px"), cfg_options=cfg_options)
        metrics[size] = {name: value for name, value in evaluate(at_size).items() if name in SHOWN}
    make_folder(folder)
    write_text(folder / "stress_test.json", json.dumps(metrics, indent=1) + "\n")
    _draw(metrics, folder)
    names = list(metrics[options.sizes[0]])
    rows: list[list[Value]] = [[str(size), *(metrics[size][name] for name in names)] for size in metrics]
    print_table(Table("sizes", "stress test", ("px", *names), rows, form=".2f"), Console())


def resized(config: Any, size: int) -> dict[str, Any]:
    """Options that override the config for test pictures of ``size`` x ``size`` px.

    Raises:
        UserError: the pipeline has no step that sets the size.
    """
    options: dict[str, Any] = {}
    trained = None
    for place, step in enumerate(config.test_dataloader.dataset.pipeline):
        kind = str(step.get("type")).rpartition(".")[2]
        if kind == "Resize":
            trained, options[f"{PIPELINE}.{place}.scale"] = max(step["scale"]), (size, size)
        elif kind == "ResizeEdge":
            options[f"{PIPELINE}.{place}.scale"] = round(size * EDGE)
        elif kind == "CenterCrop":
            trained, options[f"{PIPELINE}.{place}.crop_size"] = step["crop_size"], size
    if trained is None:
        raise UserError("stress-test: the config's test pipeline has no Resize or CenterCrop")
    batch = round(config.test_dataloader.batch_size * (trained / size) ** 2)
    options["test_dataloader.batch_size"] = max(1, min(batch, config.test_dataloader.batch_size))
    return options


def _draw(metrics: dict[int, dict[str, float]], folder: Path) -> None:
    from mmms_plugin.report import figure_style

    names = [name for name in next(iter(metrics.values())) if name != "accuracy/top5"]
    with figure_style.canvas(figure_style.WIDTH, 2.8) as (figure, (axes,)):
        width = 0.8 / len(names)
        for number, (name, colour) in enumerate(zip(names, figure_style.MEASURE_COLOURS, strict=False)):
            left = [place + (number - (len(names) - 1) / 2) * width for place in range(len(metrics))]
            label = name.partition("/")[2].replace("_", " ")
            bars = axes.bar(left, [values[name] for values in metrics.values()], width, label=label, color=colour)
            axes.bar_label(bars, fmt="%.0f", fontsize=7)  # makes a bar of 0 visible
        axes.set_xticks(range(len(metrics)), [f"{size} px" for size in metrics])
        axes.set(ylabel="%", ylim=(0, 105))
        figure.legend(loc="outside upper center", ncols=len(names))
    figure_style.save(figure, folder, "stress_test", ("png",))
