"""Progress of training and evaluation on the console: a bar in a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mmms_plugin.processes import peak_memory
from mmms_plugin.registry import HOOKS
from mmms_plugin.train.console import bar_on, say

WINDOW = 50  # iterations that loss and time are averaged over
MOST = 12  # metrics on one line


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show iterations done, loss, time left and memory, and the metrics of every evaluation.

    Args:
        interval: where there is no terminal, iterations between two lines; None for a line every ``seconds``.
        seconds: time between two lines.
        clock: what tells the time, in seconds.
    """

    priority = "VERY_LOW"

    def __init__(
        self, interval: int | None = None, seconds: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval, self.seconds, self.clock = interval, seconds, clock
        self.console = Console(file=sys.stderr)
        self._bars: Progress | None = None
        self._open = ExitStack()
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._last_line = clock()

    def before_train(self, runner: Runner) -> None:
        self._begin(runner, "train", "training", runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None, outputs: dict | None = None
    ) -> None:
        done, total = runner.iter + 1, runner.max_iters
        name = "training" if runner.max_epochs == 1 else f"epoch {runner.epoch + 1}/{runner.max_epochs}"
        due = done == total or (self.interval is not None and done % self.interval == 0)
        self._show(runner, "train", name, done, total, _training_note(runner, total - done), due)

    def after_train(self, runner: Runner) -> None:
        self.close()

    def before_val_epoch(self, runner: Runner) -> None:
        self._begin(runner, "val", "evaluating", len(runner.val_dataloader))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None,
        outputs: Sequence | None = None,
    ) -> None:  # fmt: skip
        self._evaluated(runner, "val", batch_idx + 1, len(runner.val_dataloader))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._end("val")
        if metrics:
            after = f"iteration {runner.iter}" if runner.max_epochs == 1 else f"epoch {runner.epoch}"
            say(f"{after}: {', '.join(_metric_texts(metrics, MOST))}")

    def before_test_epoch(self, runner: Runner) -> None:
        self._begin(runner, "test", "evaluating", len(runner.test_dataloader))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None,
        outputs: Sequence | None = None,
    ) -> None:  # fmt: skip
        self._evaluated(runner, "test", batch_idx + 1, len(runner.test_dataloader))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.close()
        for text in _metric_texts(metrics or {}):
            say(text)

    def close(self) -> None:
        """Take the bars off the terminal, also when a run has stopped with an error."""
        if self._bars is not None:
            self._bars.stop()
        self._open.close()
        self._bars, self._tasks = None, {}

    def _begin(self, runner: Runner, stage: str, name: str, total: int, done: int = 0) -> None:
        self._started[stage] = self.clock()
        if runner.rank or not self.console.is_terminal:
            return
        if self._bars is None:
            columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn())
            self._bars = Progress(
                *columns, TextColumn("{task.fields[note]}"), console=self.console, transient=True,
                redirect_stdout=False,
            )  # fmt: skip
            self._bars.start()
            self._open.enter_context(bar_on(self.console))
        self._tasks[stage] = self._bars.add_task(name, total=total, completed=done, note="")

    def _end(self, stage: str) -> None:
        if self._bars is not None and stage in self._tasks:
            self._bars.remove_task(self._tasks.pop(stage))
            if not self._tasks:
                self.close()

    def _show(self, runner: Runner, stage: str, name: str, done: int, total: int, note: str, due: bool) -> None:
        if runner.rank:
            return
        if self._bars is not None:
            self._bars.update(self._tasks[stage], description=name, completed=done, note=note)
        elif due or (self.interval is None and self.clock() - self._last_line >= self.seconds):
            self._last_line = self.clock()
            self.console.print(f"{name}: {done} of {total}, {note}", highlight=False, soft_wrap=True)

    def _evaluated(self, runner: Runner, stage: str, done: int, total: int) -> None:
        left = (self.clock() - self._started[stage]) / done * (total - done)
        note = f"{_time(left)} left" if done < total else "computing metrics"
        self._show(runner, stage, "evaluating", done, total, f"{note}, {_memory()}", due=False)


def _training_note(runner: Runner, left: int) -> str:
    scalars = runner.message_hub.log_scalars
    loss = [f"loss {scalars['train/loss'].mean(WINDOW):.3g}"] if "train/loss" in scalars else []
    remaining = [f"{_time(scalars['train/time'].mean(WINDOW) * left)} left"] if "train/time" in scalars else []
    return ", ".join([*loss, *remaining, _memory()])


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _memory() -> str:
    """The most that was used so far: of the GPU, or of this process."""
    used = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory()
    return f"{used / 2**30:.1f} GiB"


def _metric_texts(metrics: Mapping[str, Any], most: int | None = None) -> list[str]:
    """Names and values, ``most`` of them at most; -1 is how pycocotools says that there is nothing to measure."""
    texts = [
        f"{name}: {'n/a' if value == -1 else f'{value:.4f}'}"
        for name, value in metrics.items()
        if isinstance(value, int | float | np.number)
    ]
    shown = texts if most is None else texts[:most]
    return [*shown, f"{len(texts) - len(shown)} more in the log"] if len(shown) < len(texts) else shown
