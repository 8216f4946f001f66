"""Smoke runs of ``mmms reproduce``: a training of one iteration on generated pictures."""

from __future__ import annotations

import functools
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

from mmms_plugin.commands.compare_seeds_records import read_scalars
from mmms_plugin.config.schedule import ScheduleOptions
from mmms_plugin.datasets import write_shapes
from mmms_plugin.errors import RunError, UserError
from mmms_plugin.train.options import TrainOptions

if TYPE_CHECKING:
    from mmms_plugin.reproduction.items import DataSet, Row

T = TypeVar("T")
ONE_ITERATION = ScheduleOptions(iters=1, batch_size=2)
LOADERS = {
    f"{split}_dataloader.{key}": value
    for split in ("train", "val")
    for key, value in (("num_workers", 0), ("persistent_workers", False))
}
NO_CHECKPOINT = {"default_hooks.checkpoint": None}  # writing it takes as long as the training


@contextmanager
def hosts_repeat_no_slow_steps() -> Iterator[None]:
    """Cache what mmengine repeats for every config and training with the same result.

    For every config with an ``mmdet::`` base it reads the index of all of mmdet's models, dozens of files, which takes
    most of the loading time. A training formats the text of its config five times, asks compilers for versions, and
    collects garbage after every reading of annotations.
    """
    import mmengine.config.config
    import mmengine.dataset.base_dataset
    import mmengine.runner.runner
    from mmengine.config import utils

    config, dataset, runner = mmengine.config.config, mmengine.dataset.base_dataset, mmengine.runner.runner
    with ExitStack() as stack:
        for module, name, quick in (
            (utils, "load", functools.cache(utils.load)),
            (config, "FormatCode", _cached_by_text(config.FormatCode)),
            (runner, "collect_env", functools.cache(runner.collect_env)),
            (dataset, "gc", SimpleNamespace(collect=lambda: 0)),
        ):
            stack.enter_context(patch.object(module, name, quick))
        yield


def _cached_by_text(function: Callable[..., T]) -> Callable[..., T]:
    results: dict[str, T] = {}

    @functools.wraps(function)
    def cached(text: str, **options: object) -> T:
        if text not in results:
            results[text] = function(text, **options)
        return results[text]

    return cached


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
    changes = {**LOADERS, **NO_CHECKPOINT, **data.small, **row.options}
    options: dict[str, Any] = {data.flag: str(pictures), "cfg_options": changes}
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
