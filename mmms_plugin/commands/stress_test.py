"""Evaluate a classifier at several picture sizes, and plot metrics.

Every picture is shown at the size that the network was trained for, and larger: the experiment of Figure 7 of the
ELASTIC paper, which has --sizes 96 224 448 896 for networks of 224 px. Four times the side takes 16 times as long.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmms_plugin.config.edit import class_name
from mmms_plugin.errors import UserError
from mmms_plugin.files import check_folder, make_folder, write_text
from mmms_plugin.options import REQUIRED, option
from mmms_plugin.report.tables import Table, Value
from mmms_plugin.train.options import DATA, OUTPUT, EvaluateOptions

SHOWN = ("labels/F1_per_class", "labels/F1_overall", "labels/mAP", "accuracy/top1", "accuracy/top5")
PIPELINE = "test_dataloader.dataset.pipeline"
EDGE = 256 / 224  # of the shorter side before the crop
MULTIPLES = 1, 2, 4  # of the config's side, by default


@dataclass(kw_only=True)
class Options(EvaluateOptions):
    LEFT_OUT = ("voc_dir", "binary_masks")  # classifiers have no masks

    sizes: tuple[int, ...] | None = option(
        least=32, metavar="PX", group=DATA,
        help="sides of the square pictures in px (default: 1, 2 and 4 times the config's)",
    )  # fmt: skip
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
    from mmms_plugin.config.image_size import set_image_size
    from mmms_plugin.report.terminal import print_table
    from mmms_plugin.train.launch import evaluate
    from mmms_plugin.train.tasks import Classification, task_of

    config = load_config(options.config)
    if not isinstance(task_of(config), Classification):
        raise UserError(f"config {options.config}: stress-test is for classifiers")
    if options.image_size:
        set_image_size(config._cfg_dict, options.image_size)
    sizes = options.sizes or tuple(multiple * test_side(config) for multiple in MULTIPLES)
    folder = Path(str(options.out))
    check_folder(folder)
    print(_cost(options, sizes), flush=True)
    metrics = {}
    for size in sizes:
        cfg_options = {**resized(config, size), **options.cfg_options}
        at_size = replace(options, out=None, work_dir=str(folder / f"{size}px"), cfg_options=cfg_options)
        metrics[size] = {name: value for name, value in evaluate(at_size).items() if name in SHOWN}
    make_folder(folder)
    write_text(folder / "stress_test.json", json.dumps(metrics, indent=1) + "\n")
    _draw(metrics, folder)
    names = list(metrics[sizes[0]])
    rows: list[list[Value]] = [[str(size), *(metrics[size][name] for name in names)] for size in metrics]
    print_table(Table("sizes", "stress test", ("px", *names), rows, form=".2f"), Console())


def test_side(config: Any) -> int:
    """Side in px of a config's test pictures: of the crop, or else of Resize, whose pictures may not be square.

    Raises:
        UserError: the pipeline has no step that sets the size.
    """
    steps = {class_name(step): step for step in config.test_dataloader.dataset.pipeline}
    for name, key in (("CenterCrop", "crop_size"), ("Resize", "scale")):
        if name in steps:
            side = steps[name][key]
            return int(side if isinstance(side, int) else max(side))
    raise UserError("stress-test: the config's test pipeline has no Resize or CenterCrop")


def _cost(options: Options, sizes: Sequence[int]) -> str:
    """The number of pictures, and about how long the network will take, in a line.

    Raises:
        UserError: data or checkpoint do not fit the config.
    """
    import torch
    from mmengine.registry import MODELS

    from mmms_plugin.config.check import user_fault
    from mmms_plugin.config.checkpoint import check_fits
    from mmms_plugin.config.schedule import count_pictures
    from mmms_plugin.devices import usable_device
    from mmms_plugin.train.launch import drop_initial_weights, prepare_config
    from mmms_plugin.weights.files import read_checkpoint

    checkpoint = read_checkpoint(options.checkpoint)
    config, _ = prepare_config(replace(options, out=None, work_dir=str(options.out)), training=False)
    pictures = count_pictures(config, "test")
    drop_initial_weights(config)
    device = usable_device(options.device)
    model: Any = user_fault("config", lambda: MODELS.build(config.model)).to(device).eval()
    check_fits(model, checkpoint, "test")
    total = 0.0
    for size in sizes:
        picture = torch.rand(1, 3, size, size, device=device)
        with torch.inference_mode():
            model(picture)  # the first call takes longer
            started = time.perf_counter()
            model(picture)
            if device.type != "cpu":
                torch.accelerator.synchronize()
            total += pictures * (time.perf_counter() - started)
    listed = ", ".join(map(str, sizes))
    return f"stress-test: {pictures} pictures at each of {listed} px: about {max(1, round(total / 60))} min"


def resized(config: Any, size: int) -> dict[str, Any]:
    """Options that override the config for test pictures of ``size`` x ``size`` px.

    Raises:
        UserError: as `test_side`.
    """
    options: dict[str, Any] = {}
    for place, step in enumerate(config.test_dataloader.dataset.pipeline):
        kind = class_name(step)
        if kind == "Resize":
            options[f"{PIPELINE}.{place}.scale"] = (size, size)
        elif kind == "ResizeEdge":
            options[f"{PIPELINE}.{place}.scale"] = round(size * EDGE)
        elif kind == "CenterCrop":
            options[f"{PIPELINE}.{place}.crop_size"] = size
    batch = round(config.test_dataloader.batch_size * (test_side(config) / size) ** 2)
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
