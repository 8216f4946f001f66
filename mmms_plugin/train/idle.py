"""Hooks and schedulers that never act in a training: they begin after its end, or count what its loop does not.

mmengine builds and runs them without a word, or stops with a traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mmengine.hooks import CheckpointHook, EarlyStoppingHook, EMAHook, Hook, LoggerHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmms_plugin.errors import UserError
from mmms_plugin.train.batches import kept_generators
from mmms_plugin.train.resuming import flat, followed_metric

CUT_OFF = 2.0  # a decay that ends later than this many lengths of the training is hardly seen
AS_THE_LOOP = ("PreciseBNHook",)  # hooks whose interval has the loop's unit
OTHER_INTERVALS = ("VisualizationHook", "ProgressHook")  # ends of names; their interval counts other things
COUNTS_EPOCHS = "counts epochs, this training iterations"


def refuse_endless_epochs(runner: Runner) -> None:
    """Raise UserError if the loop counts epochs and the sampler gives pictures without end."""
    sampler: Any = getattr(runner.train_dataloader.batch_sampler, "sampler", None)
    if not isinstance(runner.train_loop, EpochBasedTrainLoop) or not hasattr(sampler, "__len__"):
        return
    with kept_generators():
        endless = len(list(islice(sampler, len(sampler) + 1))) > len(sampler)
    if endless:
        raise UserError(
            f"train_dataloader.sampler.type={type(sampler).__name__}: its epoch never ends, and train_cfg counts "
            "epochs: use DefaultSampler, or train_cfg with type=IterBasedTrainLoop and max_iters"
        )


def idle_parts(runner: Runner) -> list[str]:
    """A line for each hook and scheduler that never acts in the training that begins.

    Raises:
        UserError: EMAHook would never begin, at which mmengine stops.
    """
    if not isinstance(runner.train_loop, EpochBasedTrainLoop | IterBasedTrainLoop):
        return []  # other loops count in their own way
    training = _Training.of(runner)
    lines = []
    if runner.val_loop is not None and training.evaluations == 0:
        length, unit = training.length(training.by_epoch)
        begin = runner.train_loop.val_begin
        lines.append(f"train_cfg.val_begin={begin}: this training has {length} {unit} and is never evaluated")
    for scheduler in flat(runner.param_schedulers):
        lines += [f"{type(scheduler).__name__} {line}" for line in _faults_of_scheduler(scheduler, training)]
    for hook in runner.hooks:
        lines += [f"{type(hook).__name__} {line}" for line in _faults_of_hook(hook, training)]
    return lines


@dataclass(frozen=True)
class _Training:
    """Lengths of a training and its epochs, and the number of its evaluations, None if unknown."""

    by_epoch: bool
    epochs: int
    iterations: int
    per_epoch: int
    evaluations: int | None

    @classmethod
    def of(cls, runner: Runner) -> _Training:
        loop: Any = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        length = loop.max_epochs if by_epoch else loop.max_iters
        evaluations: int | None = 0
        if runner.val_loop is not None and loop.val_begin <= length:
            evaluations = length // loop.val_interval - max(0, loop.val_begin - 1) // loop.val_interval
            evaluations += length % loop.val_interval > 0  # the end is always evaluated
        if runner.val_loop is not None and len(loop.dynamic_intervals) > 1:
            evaluations = None
        return cls(by_epoch, loop.max_epochs, loop.max_iters, len(loop.dataloader), evaluations)

    def length(self, by_epoch: bool) -> tuple[int, str]:
        return (self.epochs, "epochs") if by_epoch else (self.iterations, "iterations")

    def fewer_evaluations_than(self, needed: int) -> bool:
        return self.evaluations is not None and self.evaluations < needed


def _faults_of_scheduler(scheduler: Any, training: _Training) -> Iterator[str]:
    what = {"lr": "learning rate"}.get(scheduler.param_name, scheduler.param_name)
    if followed_metric(scheduler) is not None:
        if training.fewer_evaluations_than(needed := scheduler.patience + 2):
            yield (
                f"with patience={scheduler.patience} needs {needed} evaluations, this training has "
                f"{training.evaluations}: it never changes the {what}"
            )
        return
    if scheduler.by_epoch and not training.by_epoch:
        yield f"{COUNTS_EPOCHS}: it never changes the {what}; set by_epoch=False"
        return
    length, unit = training.length(scheduler.by_epoch)
    points = [*getattr(scheduler, "milestones", ()), *filter(None, [getattr(scheduler, "step_size", None)])]
    first = scheduler.begin + min(points, default=0)
    if first >= length:
        yield f"begins after {first} {unit}, this training has {length}: it never changes the {what}"
    span = getattr(scheduler, "T_max", getattr(scheduler, "total_steps", None))
    end = scheduler.begin + span if span else scheduler.end if hasattr(scheduler, "power") else 0
    last = scheduler.begin + max(points) if points else end
    if training.by_epoch and not scheduler.by_epoch and 0 < last <= training.epochs < training.per_epoch:
        yield f"counts iterations and is over after {last}, in the first of {training.epochs} epochs; set by_epoch=True"
    if end > CUT_OFF * length > first:
        yield (
            f"ends after {end} {unit}, this training after {length}: the {what} stays far from its end; --epochs N and "
            "--iters N fit the schedule"
        )


def _faults_of_hook(hook: Hook, training: _Training) -> Iterator[str]:
    name = type(hook).__name__
    by_epoch = getattr(hook, "by_epoch", training.by_epoch if name in AS_THE_LOOP else False)
    length, unit = training.length(by_epoch)
    if isinstance(hook, EMAHook):
        _check_begin(hook, name, training)
        if (interval := hook.ema_cfg.get("interval", 1)) > training.iterations:
            yield f"averages every {interval} iterations, this training has {training.iterations}: it never does"
    elif isinstance(hook, CheckpointHook):
        if by_epoch and not training.by_epoch and hook.interval > 0:
            yield f"{COUNTS_EPOCHS}: it saves {'only at the end' if hook.save_last else 'nothing'}; set by_epoch=False"
        elif not hook.save_last and not 0 < max(hook.interval, hook.save_begin) <= length:
            yield f"saves nothing: its interval is {hook.interval}, this training has {length} {unit}"
        if hook.save_best and training.evaluations == 0:
            yield f"saves no best checkpoint: save_best={hook.save_best}, and this training is never evaluated"
    elif isinstance(hook, EarlyStoppingHook):
        needed = hook.patience + 1 if hook.stopping_threshold is None else 1
        if training.fewer_evaluations_than(needed):
            yield (
                f"with patience={hook.patience} needs {needed} evaluations, this training has "
                f"{training.evaluations}: it never stops it"
            )
    elif isinstance(hook, LoggerHook):
        if hook.log_metric_by_epoch and not training.by_epoch and not training.fewer_evaluations_than(2):
            yield f"{COUNTS_EPOCHS}: it logs every evaluation at step 0; set log_metric_by_epoch=False"
        if length < min(hook.interval, training.per_epoch):  # it also logs at the end of an epoch
            yield f"logs every {hook.interval} iterations, this training has {length}: it never does"
    elif not name.endswith(OTHER_INTERVALS):
        interval = getattr(hook, "interval", None)
        if isinstance(interval, int) and interval > length:
            yield f"acts every {interval} {unit}, this training has {length}: it never does"
    epochs = [getattr(hook, "switch_epoch", None)]
    if name == "SwitchRecipeHook":
        epochs = [epoch - 1 for epoch in hook.schedule]  # type: ignore[attr-defined]
    for epoch in epochs:
        if isinstance(epoch, int) and epoch and not training.by_epoch:
            yield f"{COUNTS_EPOCHS}: what it does after {epoch} epochs never comes"
        elif isinstance(epoch, int) and epoch >= training.epochs:
            yield f"acts after {epoch} epochs, this training has {training.epochs}: it never does"
    last = getattr(hook, "num_last_epochs", None)
    if isinstance(last, int) and not training.by_epoch:
        yield f"{COUNTS_EPOCHS}: it acts from the start"
    elif isinstance(last, int) and last >= training.epochs:
        yield f"acts in the last {last} epochs, this training has {training.epochs}: it acts from the start"


def _check_begin(hook: EMAHook, name: str, training: _Training) -> None:
    if hook.begin_epoch > 1 and not training.by_epoch:
        raise UserError(f"{name}.begin_epoch={hook.begin_epoch}: this training counts iterations; give begin_iter")
    for key, by_epoch in (("begin_epoch", True), ("begin_iter", False)):
        begin, (length, unit) = getattr(hook, key), training.length(by_epoch)
        if begin > length:
            raise UserError(f"{name}.{key}={begin}: must be at most {length}, this training's {unit}")
