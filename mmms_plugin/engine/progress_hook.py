"""A progress bar for training in a terminal, beside the log that mmengine writes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmms_plugin.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show iterations done, loss and time left; a line every ``interval`` iterations where there is no terminal."""

    priority = "VERY_LOW"

    def __init__(self, interval: int = 25) -> None:
        self.interval = interval
        self.console = Console(file=sys.stderr)
        self._bar: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        if not self.console.is_terminal:
            return
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._bar = Progress(TextColumn("training {task.fields[loss]}"), *columns, console=self.console)
        self._bar.start()
        self._task = self._bar.add_task("train", total=runner.max_iters, completed=runner.iter, loss="")

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None, outputs: dict | None = None
    ) -> None:
        done = runner.iter + 1
        loss = runner.message_hub.get_scalar("train/loss").mean(self.interval)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, loss=f"loss {loss:.3f}")
        elif done % self.interval == 0 or done == runner.max_iters:
            self.console.print(f"iteration {done} of {runner.max_iters}, loss {loss:.3f}", highlight=False)

    def after_train(self, runner: Runner) -> None:
        if self._bar is not None:
            self._bar.stop()

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Nothing: mmengine logs evaluation by itself."""
