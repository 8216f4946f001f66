"""Smoke runs of ``mmms reproduce``: a training of one iteration on generated pictures."""

from __future__ import annotations

import shutil
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmms_plugin.commands.compare_seeds_records import read_scalars
from mmms_plugin.config.schedule import ScheduleOptions
from mmms_plugin.datasets import write_shapes
from mmms_plugin.errors import RunError, UserError
from mmms_plugin.train.options import TrainOptions

if TYPE_CHECKING:
    from mmms_plugin.reproduction.items import DataSet, Row

ONE_ITERATION = ScheduleOptions(iters=1, batch_size=2)
LOADERS = {
    f"{split}_dataloader.{key}": value
    for split in ("train", "val")
    for key, value in (("num_workers", 0), ("persistent_workers", False))
}


def draw_data(folder: Path) -> Path:
    """Generated pictures in all views, below ``folder``."""
    write_shapes(folder / "shapes", train=4, val=2, size=96, formats=("coco", "voc", "imagefolder"))
    return folder / "shapes"


def train_row(row: Row, data: DataSet, pictures: Path, folder: Path) -> dict[str, float | None]:
    """Train a row for one iteration and return its metrics; its work folder is removed.

    Raises:
        UserError: a host is not installed.
        RunError: the training stopped, or the config does not evaluate.
    """
    from mmms_plugin.train.launch import train

    work_dir = folder / row.folder
    options: dict[str, Any] = {data.flag: str(pictures), "cfg_options": {**LOADERS, **data.small, **row.options}}
    log = StringIO()  # not a file: loggers of mmengine keep it after the run
    try:
        with redirect_stdout(log), redirect_stderr(log), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(
                TrainOptions(
                    config=row.config, work_dir=str(work_dir), image_size=(data.side, data.side),
                    pretrained="none", schedule=ONE_ITERATION, seed=0, **options,
                )
            )  # fmt: skip
        return read_scalars(work_dir)[0]
    except (UserError, RunError) as error:
        raise type(error)(f"{row.folder}: {error}") from error
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
