"""Smoke runs of ``mmms reproduce``: trainings of one iteration on generated pictures, and the items made of them."""

from __future__ import annotations

import functools
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

from rich.console import Console
from rich.progress import track

from mmms_plugin.commands.reproduce_results import (
    Measured,
    Metrics,
    count_costs,
    read_metrics,
    result,
    stress_metrics,
)
from mmms_plugin.config.schedule import ScheduleOptions
from mmms_plugin.datasets import write_shapes
from mmms_plugin.errors import RunError, UserError
from mmms_plugin.processes import release_memory
from mmms_plugin.report.tables import Table
from mmms_plugin.report.terminal import print_table, say
from mmms_plugin.reproduction.items import Item, Row, Trained
from mmms_plugin.reproduction.page import published
from mmms_plugin.train.options import TrainOptions
from mmms_plugin.weights.newest import newest_checkpoint

T = TypeVar("T")
NOTE = "here: one iteration on generated pictures, which says nothing about accuracy"
ONE_ITERATION = ScheduleOptions(iters=1, batch_size=2)
LOADERS = {
    f"{split}_dataloader.{key}": value
    for split in ("train", "val")
    for key, value in (("num_workers", 0), ("persistent_workers", False))
}
NO_CHECKPOINT = {"default_hooks.checkpoint": None}  # writing it takes as long as the training


@contextmanager
def hosts_repeat_no_slow_steps(formatted: bool = True) -> Iterator[None]:
    """Cache what mmengine repeats for every config and training with the same result.

    For every config with an ``mmdet::`` base it reads the index of all of mmdet's models, dozens of files, which takes
    most of the loading time. A training formats the text of its config, asks compilers for versions, and collects
    garbage after every reading of annotations.

    Args:
        formatted: format the text of configs at all.
    """
    import mmengine.config.config
    import mmengine.dataset.base_dataset
    import mmengine.runner.runner
    import yapf.yapflib.yapf_api
    from mmengine.config import utils

    config, dataset, runner = mmengine.config.config, mmengine.dataset.base_dataset, mmengine.runner.runner
    config = config if hasattr(config, "FormatCode") else yapf.yapflib.yapf_api  # imported at each use by the forks
    with ExitStack() as stack:
        for module, name, quick in (
            (utils, "load", functools.cache(utils.load)),
            (config, "FormatCode", _cached_by_text(config.FormatCode) if formatted else _unformatted),
            (runner, "collect_env", functools.cache(runner.collect_env)),
            (dataset, "gc", SimpleNamespace(collect=lambda: 0)),
        ):
            stack.enter_context(patch.object(module, name, quick))
        yield


def _unformatted(text: str, **_: object) -> tuple[str, bool]:
    return text, False


def _cached_by_text(function: Callable[..., T]) -> Callable[..., T]:
    results: dict[str, T] = {}

    @functools.wraps(function)
    def cached(text: str, **options: object) -> T:
        if text not in results:
            results[text] = function(text, **options)
        return results[text]

    return cached


def smoke(
    items: Sequence[Item], out: Path | None, keep: Callable[[Item, Table, Measured, Path], Sequence[Path]]
) -> None:
    """Run items and print their tables.

    Args:
        items: to run; a training that several have runs once.
        out: folder for what ``keep`` and the items' commands write; None for a temporary one.
        keep: writes a table and draws a figure.

    Raises:
        UserError: a host is not installed.
        RunError: a training or a command stopped.
    """
    console, bar = Console(file=sys.stdout), Console(file=sys.stderr)  # also while a training's output is kept back
    measured: dict[str, list[Metrics]] = {}
    with TemporaryDirectory() as scratch, hosts_repeat_no_slow_steps(formatted=False):
        folder = Path(scratch)
        pictures = draw_data(folder)
        for item in (replace(item, rows=item.rows[: item.smoke_rows]) for item in items):
            if item.command and not item.counted:
                print_table(published(item), console)
                _run(item.small(item.command), item)
                continue
            results = out or folder / "out"
            new = [row for row in item.trainings if row.folder not in measured or item.after]
            for row in track(new, item.name, console=bar, transient=True, disable=not bar.is_terminal):
                measured[row.folder] = [_train(row, item, pictures, folder)]
            sizes: dict[str, str] = {}
            if item.after:
                sizes = _run_after(item, pictures, folder, results / item.name)
            for row in item.trainings:
                by_size = stress_metrics(results / item.name / row.folder, sizes)
                measured[row.folder] = [{**metrics, **by_size} for metrics in measured[row.folder]]
            costs = count_costs(item, measured)
            table = result(item, costs, "" if item.counted else NOTE)
            print_table(table, console) if item.measures else say(table.caption)
            files = keep(item, table, costs, results)
            if out and (files or item.after):
                names = [*(file.name for file in files), *([item.name] if item.after else [])]
                say(f"written to {out}: {', '.join(names)}")


def _run(words: Sequence[str], item: Item, log: StringIO | None = None) -> None:
    """Run a command, whose output goes to ``log`` if that is given.

    Raises:
        RunError: it failed; with the last line of the log.
    """
    from mmms_plugin.commands import main

    if status := main([*words]):
        lines = log.getvalue().split("\n") if log else []
        why = "".join(f": {line}" for line in [line for line in lines if line.strip()][-1:])
        raise RunError(f"{item.name}: its command ended with status {status}{why}")


def _run_after(item: Item, pictures: Path, folder: Path, out: Path) -> dict[str, str]:
    """Run the commands that follow the trainings; the work folders are removed.

    Returns:
        The published names of the sizes of a stress test, by those that were tested.
    """
    trained = [
        Trained(row.config, row.folder, str(newest_checkpoint(path)[0]), str(path))
        for row in item.trainings
        for path in [folder / row.folder]
    ]
    commands = item.filled([item.small(words) for words in item.after], trained, str(out), str(pictures))
    for words in commands:
        log = StringIO()
        with redirect_stdout(log), redirect_stderr(log), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _run(words, item, log)
    for row in item.trainings:
        shutil.rmtree(folder / row.folder)
    last = commands[-1]
    tested = last[len(last) - last[::-1].index("--sizes") :] if "--sizes" in last else []
    return dict(zip(tested, (row.part for row in item.rows), strict=False))


def draw_data(folder: Path) -> Path:
    """Generated pictures in all views, below ``folder``."""
    write_shapes(folder / "shapes", train=4, val=2, size=96, formats=("coco", "voc", "imagefolder"))
    return folder / "shapes"


def _train(row: Row, item: Item, pictures: Path, folder: Path) -> Metrics:
    """Train a row for one iteration and return its metrics; its work folder is removed if no command needs it."""
    from mmms_plugin.train.launch import train

    data = item.data
    assert data is not None  # an item with trainings has data
    work_dir = folder / row.folder
    # trainings of one config that start in one second would share a log
    name = {"experiment_name": row.folder}
    changes = {**LOADERS, **name, **data.small, **row.options} | ({} if item.after else NO_CHECKPOINT)
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
        return read_metrics(item, work_dir)
    except (UserError, RunError) as error:
        raise type(error)(f"{row.folder}: {error}") from error
    finally:
        if not item.after:
            shutil.rmtree(work_dir, ignore_errors=True)
        release_memory()  # freed by one network after the other: 10 GB and more in all
