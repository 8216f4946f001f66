"""A hook that keeps a training's results, one row for each evaluation, in its work folder."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmms_plugin.config.monitors import followed_metric
from mmms_plugin.errors import UserError, one_line
from mmms_plugin.report.run_results import NAME, Evaluated, RunResults
from mmms_plugin.report.tables import metric_figure
from mmms_plugin.train.console import say
from mmms_plugin.train.resuming import figures_of


class ResultsHook(Hook):
    """Writes ``results.json``, ``results.csv`` and ``results.png`` after every evaluation.

    A resumed training goes on in the files of its folder.

    Args:
        config: name of the config, as it was given.
        command: words of the command line.
    """

    priority = "VERY_LOW"

    def __init__(self, config: str, command: Sequence[str] = ()) -> None:
        self.config, self.command = config, tuple(command)
        self._since = 0  # iterations that are done since the evaluation before

    def before_train(self, runner: Runner) -> None:
        """Begin, or go on after the iterations that are done."""
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        metric, rule = _followed(runner)
        self._results = RunResults(
            self.config, runner.seed or 0, runner.max_epochs if by_epoch else runner.max_iters,
            "epochs" if by_epoch else "iterations", metric, rule, self.command,
        )  # fmt: skip
        file, elapsed = Path(runner.work_dir, f"{NAME}.json"), 0.0
        if runner.iter and file.is_file():
            try:
                self._results.evaluations = list(RunResults.read(file).before(runner.iter + 1))
            except UserError as error:
                say(one_line(f"--resume: {error}; its evaluations are left out"))
        if self._results.evaluations:
            elapsed, self._since = self._results.evaluations[-1].seconds, self._results.evaluations[-1].iteration
        self._start = time.monotonic() - elapsed

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Add the evaluation."""
        figures = {name: metric_figure(value) for name, value in figures_of(metrics or {}).items()}
        if not self._results.metric and figures:
            self._results.metric = next(iter(figures))
        history = runner.message_hub.log_scalars.get("train/loss")
        steps, self._since = runner.iter - self._since, runner.iter
        loss = metric_figure(float(history.mean(steps))) if history is not None and steps > 0 else None
        rates = runner.optim_wrapper.get_lr()
        rate = rates.get("lr", next(iter(rates.values())))[0]
        seconds = round(time.monotonic() - self._start, 1)
        self._results.add(Evaluated(_passes(runner), runner.iter, seconds, rate, loss, figures))
        self._write(runner)

    def after_train(self, runner: Runner) -> None:
        """Note that the training is complete."""
        self._results.done = True
        self._write(runner)

    def _write(self, runner: Runner) -> None:
        if is_main_process() and self._results.evaluations:
            self._results.write(Path(runner.work_dir))


def _passes(runner: Runner) -> int:
    """Whole passes over the data that are done; mmengine counts no epochs where its loop counts iterations."""
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return runner.epoch
    loader = runner.train_dataloader
    if not hasattr(loader.dataset, "__len__"):  # a stream of pictures
        return 0
    batch = loader.batch_size or getattr(loader.batch_sampler, "batch_size", 1)
    return runner.iter // math.ceil(len(loader.dataset) / (batch * get_world_size()))


def _followed(runner: Runner) -> tuple[str, Any]:
    """The metric that chooses the best evaluation, or '' for the first that is reported, and its rule."""
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook):
            return hook.monitor, hook.rule
        if isinstance(hook, CheckpointHook) and hook.save_best:
            return ("", "greater") if hook.save_best == ["auto"] else (hook.key_indicators[0], hook.rules[0])
    try:
        return followed_metric(runner.cfg), "greater"
    except UserError:  # a metric of the user's own
        return "", "greater"
