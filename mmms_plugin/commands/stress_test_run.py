"""``mmms stress-test``: one classifier on pictures of several sizes (Figure 7 of the ELASTIC paper)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mmms_plugin.config.files import load_config
from mmms_plugin.errors import UserError
from mmms_plugin.files import check_folder, make_folder, write_text
from mmms_plugin.report import figure_style
from mmms_plugin.report.tables import Table, Value, print_table
from mmms_plugin.train.launch import LaunchOptions, evaluate
from mmms_plugin.train.tasks import Classification, task_of

SHOWN = ("labels/F1_per_class", "labels/F1_overall", "labels/mAP", "accuracy/top1", "accuracy/top5")
PIPELINE = "test_dataloader.dataset.pipeline"
EDGE = 256 / 224  # of the shorter side before the crop


def stress_test(options: LaunchOptions, checkpoint: str, out: str, sizes: Sequence[int]) -> dict[int, dict[str, float]]:
    """Evaluate a checkpoint at every size in px and draw the figure; returns size -> metrics.

    Batches shrink as pictures grow, so that memory stays the same.
    Raises: UserError if the config is no classifier's, or its pictures are not resized.
    """
    config = load_config(options.config)
    if not isinstance(task_of(config), Classification):
        raise UserError(f"config {options.config}: stress-test is for classifiers")
    check_folder(out)
    folder = Path(out)
    found = {}
    for size in sizes:
        cfg_options = {**resized(config, size), **options.cfg_options}
        at_size = replace(options, work_dir=str(folder / f"{size}px"), cfg_options=cfg_options)
        found[size] = {name: value for name, value in evaluate(at_size, checkpoint).items() if name in SHOWN}
    make_folder(folder)
    write_text(folder / "stress_test.json", json.dumps(found, indent=1) + "\n")
    _draw(found, folder)
    names = list(next(iter(found.values())))
    rows: list[list[Value]] = [[str(size), *(found[size][name] for name in names)] for size in found]
    print_table(Table("sizes", "stress test", ("px", *names), rows, form=".2f"), Console())
    return found


def resized(config: Any, size: int) -> dict[str, Any]:
    """What to override for test pictures of ``size`` x ``size`` px.

    Raises: UserError if the pipeline has no step that decides the size.
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


def _draw(found: dict[int, dict[str, float]], folder: Path) -> None:
    names = [name for name in next(iter(found.values())) if name != "accuracy/top5"]
    with figure_style.canvas(figure_style.WIDTH, 2.8) as (figure, (axes,)):
        width = 0.8 / len(names)
        for number, (name, colour) in enumerate(zip(names, figure_style.MEASURE_COLOURS, strict=False)):
            left = [place + (number - (len(names) - 1) / 2) * width for place in range(len(found))]
            label = name.partition("/")[2].replace("_", " ")
            bars = axes.bar(left, [metrics[name] for metrics in found.values()], width, label=label, color=colour)
            axes.bar_label(bars, fmt="%.0f", fontsize=7)  # a bar of 0 is seen, too
        axes.set_xticks(range(len(found)), [f"{size} px" for size in found])
        axes.set(ylabel="%", ylim=(0, 105))
        figure.legend(loc="outside upper center", ncols=len(names))
    figure_style.save(figure, folder, "stress_test", ("png",))
