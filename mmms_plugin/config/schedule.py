"""``--epochs``, ``--iters``, ``--batch-size``, ``--accumulate``, ``--lr``, ``--preset``: a schedule that fits the data.

Published schedules are for 8 GPUs and 118,000 pictures. A new length alone does not fit the rest: a warm-up longer than
the training, a decay that is never reached, a learning rate for batches of 16. Here everything is fitted together:

1. Length: in the config's own unit, epochs or iterations; ``--iters`` makes an epoch-based config iteration-based.
2. Decay: milestones, ends and periods keep their share of the training.
3. Warm-up: at most a tenth of the training, and never longer than before.
4. Learning rate: in proportion to the pictures for a step of the optimizer, over all processes and accumulated batches
   (Goyal et al., arXiv:1706.02677), from the batch that the config was written for:
   ``auto_scale_lr.base_batch_size``, else its own.
5. Evaluation and checkpoints: about ten times, at most once per pass over the data, and at the end; log lines: often
   enough to see some.

mmengine is imported only by ``count_pictures``: the options of commands import this module.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmms_plugin.config.edit import class_name, dicts_in
from mmms_plugin.errors import UserError, first_line
from mmms_plugin.options import CommandOptions, option

if TYPE_CHECKING:
    from mmengine.config import Config

EVALUATIONS, LOG_LINES, WARM_UP_SHARE = 10, 20, 0.1
SHORTEST_WARM_UP = 2  # steps: a LinearLR of mmengine that ends at 1 never leaves its first rate
WARM_UPS = ("LinearLR", "ConstantLR", "WarmupLR")
EPOCH_ARGUMENTS = ("switch_epoch", "num_last_epochs")  # of hooks that count epochs


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions(CommandOptions):
    """The user's wishes; None keeps the config's own value."""

    epochs: int | None = option(
        metavar="N", least=1, group="schedule",
        help="length of the training; warm-up, decay, evaluation, checkpoints and learning rate are fitted to it and "
        "to the batch, and one line reports what changed (default: the config's)",
    )  # fmt: skip
    iters: int | None = option(
        metavar="N",
        least=1,
        group="schedule",
        help="length of the training in iterations, fitted like --epochs (default: the config's)",
    )
    batch_size: int | None = option(
        metavar="N", least=1, group="schedule",
        help="pictures per batch and process; the learning rate changes in proportion (default: the config's)",
    )  # fmt: skip
    accumulate: int | None = option(
        metavar="N", least=1, group="schedule",
        help="batches that share a step of the optimizer, in the memory of one; the learning rate changes "
        "in proportion (default: the config's)",
    )  # fmt: skip
    lr: float | None = option(above=0, group="schedule", help="learning rate, used as it is (default: the config's)")
    val_every: int | None = option(
        metavar="N", least=1, group="schedule",
        help="evaluate and save a checkpoint every N epochs, or iterations in a training that is counted in them, and "
        "at the end (default: the config's; with --epochs or --iters about ten times, at most once per pass over the "
        "data)",
    )  # fmt: skip
    preset: str | None = option(
        choices=["finetune"], group="schedule",
        help="finetune: length and batch for tens to thousands of pictures, clipped gradients, the best checkpoint "
        "kept",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs is not None and self.iters is not None:
            raise UserError("--epochs and --iters: give one of them")
        if self.lr == math.inf:
            raise UserError("--lr inf: must be a number above 0")

    @property
    def given(self) -> bool:
        """Whether any option is given."""
        return self != ScheduleOptions()

    @property
    def fits(self) -> bool:
        """Whether any option is given that changes more than when evaluations and checkpoints come."""
        return replace(self, val_every=None) != ScheduleOptions()


def count_pictures(config: Config, split: str = "train") -> int:
    """The number of pictures in an epoch of a split's data, by the data set itself: it may drop empty ones.

    Raises:
        UserError: the data set cannot be built, or is empty.
    """
    from mmengine.registry import DATASETS

    from mmms_plugin.config.check import NO_PICTURES, NOTHING_LEFT
    from mmms_plugin.registry import use_scope

    use_scope(config.get("default_scope") or "mmengine")
    dataset = copy.deepcopy(config[f"{split}_dataloader"].dataset)
    for part in dicts_in(dataset):
        if "pipeline" in part:
            part["pipeline"] = []
    try:
        count = len(DATASETS.build(dataset))
    except (ValueError, TypeError, KeyError, OSError, AssertionError) as error:
        if NOTHING_LEFT in str(error):
            raise UserError(f"{split} data: {NO_PICTURES}") from error
        raise UserError(f"{split} data: {type(error).__name__}: {first_line(error)}") from error
    if not count:
        raise UserError(f"{split} data: {NO_PICTURES}")
    return count


def set_schedule(
    config: dict[str, Any], options: ScheduleOptions, pictures: int, world: int = 1, name: str = ""
) -> str:
    """Fit the schedule of ``config`` to ``options``, in place.

    Args:
        config: the whole config.
        options: the user's wishes.
        pictures: number of training pictures, with repetitions.
        world: number of processes that train together.
        name: the config's file; OpenMMLab's file names contain the batch.

    Returns:
        One line that lists the changes.

    Raises:
        UserError: the config has no schedule or no learning rate, or it counts epochs and the options iterations.
    """
    changes: list[str] = []
    loader = config["train_dataloader"]
    if options.preset:
        options = _finetune(config, options, pictures, changes)
    base = _base_batch(config, name) or loader["batch_size"] * world * accumulated_batches(config)
    if options.accumulate is not None:
        if "optimizer" not in (config.get("optim_wrapper") or {}):
            raise UserError("--accumulate: the config has no optim_wrapper.optimizer")
        _change(changes, "batches per step", accumulated_batches(config), options.accumulate)
        config["optim_wrapper"]["accumulative_counts"] = options.accumulate
    if options.batch_size is not None:
        _change(changes, "batch", loader["batch_size"], options.batch_size)
        loader["batch_size"] = options.batch_size
    batch = loader["batch_size"] * world
    per_epoch = max(1, math.ceil(pictures / batch))
    old = _Length.of(config)
    new = old.fitted(options, per_epoch)
    if options.fits:
        _set_rate(config, options.lr, batch * accumulated_batches(config), base, changes)
        if new.unit != old.unit:
            _count_iterations(config)
        _set_length(config, old, new, per_epoch, changes)
        _set_decay(config, old, new, per_epoch, changes)
    _set_intervals(config, old, new, per_epoch, options.val_every, changes)
    asked = " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in vars(options).items() if value is not None
    )
    return f"schedule ({asked}; {pictures} pictures): {'; '.join(changes) or 'nothing to change'}"


def log_as_the_loop_counts(config: dict[str, Any]) -> None:
    """Have evaluations of a training that counts iterations logged at their iteration; mmengine's default is step 0."""
    hooks = config.get("default_hooks") or {}
    if "max_iters" in (config.get("train_cfg") or {}) and hooks.get("logger", True):
        hooks.setdefault("logger", dict(type="LoggerHook")).setdefault("log_metric_by_epoch", False)
        config["default_hooks"] = hooks


def accumulated_batches(config: Mapping[str, Any]) -> int:
    """The number of batches that share a step of a config's optimizer."""
    return (config.get("optim_wrapper") or {}).get("accumulative_counts") or 1


@dataclass(frozen=True)
class _Length:
    """Length of a training in its unit, 'epochs' or 'iterations'."""

    count: int
    unit: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> _Length:
        loop = config.get("train_cfg") or {}
        for key, unit in (("max_epochs", "epochs"), ("max_iters", "iterations")):
            if isinstance(loop.get(key), int):
                return cls(loop[key], unit)
        raise UserError("the config's train_cfg has neither max_epochs nor max_iters: its length cannot be set")

    def fitted(self, options: ScheduleOptions, per_epoch: int) -> _Length:
        """The length that the options ask for, in this length's unit if possible."""
        if options.iters is not None:
            return _Length(options.iters, "iterations")
        if options.epochs is None:
            return self
        return _Length(options.epochs * (1 if self.unit == "epochs" else per_epoch), self.unit)

    def iterations(self, per_epoch: int) -> int:
        return self.count * (per_epoch if self.unit == "epochs" else 1)


def _base_batch(config: Mapping[str, Any], name: str) -> int | None:
    """The batch over all GPUs that a config's learning rate is for; None if the config does not state it.

    '8xb32' in the file's name comes first: RTMDet's configs inherit a base_batch_size of 16, but are for 256.
    """
    if match := re.search(r"_(\d+)xb(\d+)[-_.]", name):
        return int(match.group(1)) * int(match.group(2))
    return (config.get("auto_scale_lr") or {}).get("base_batch_size")


def _change(changes: list[str], what: str, old: Any, new: Any, unit: str = "") -> None:
    if old != new:
        changes.append(f"{what} {old} -> {new}{unit}")


def _set_rate(config: dict[str, Any], lr: float | None, batch: int, base: int, changes: list[str]) -> None:
    """Set the given rate, or the config's by the linear rule; the lowest rates of schedulers change in proportion."""
    optimizer = (config.get("optim_wrapper") or {}).get("optimizer") or {}
    old = optimizer.get("lr")
    if not isinstance(old, int | float):
        if lr is not None:
            raise UserError("--lr: the config has no optim_wrapper.optimizer.lr")
        return
    new = float(f"{old * batch / base:.6g}") if lr is None else lr
    why = "" if lr is not None else f" (for a batch of {batch} in place of {base})"
    _change(changes, "learning rate", old, new, why)
    optimizer["lr"] = new
    for scheduler in schedulers_of(config):
        for key in ("eta_min", "eta_max"):
            if scheduler.get(key):
                scheduler[key] = float(f"{scheduler[key] * new / old:.6g}")
    if config.get("auto_scale_lr"):
        config["auto_scale_lr"].update(enable=False, fitted=True)  # mmengine must not scale it again


def schedulers_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameter schedulers of a config: a single one, a list, or such for each of several optimizers."""
    return [part for part in dicts_in(config.get("param_scheduler")) if "type" in part]


def _count_iterations(config: dict[str, Any]) -> None:
    """Make an epoch-based config iteration-based, including its hooks and sampler."""
    for hook in config.get("custom_hooks") or ():
        if any(key in hook for key in EPOCH_ARGUMENTS):
            raise UserError(f"--iters: {hook['type']} of this config counts epochs, give --epochs")
    config["train_cfg"] = dict(type="IterBasedTrainLoop", max_iters=1, val_interval=1)
    config["train_dataloader"]["sampler"] = dict(type="InfiniteSampler", shuffle=True)
    hooks = config.get("default_hooks") or {}
    for name, key in (("checkpoint", "by_epoch"), ("logger", "log_metric_by_epoch")):
        if hooks.get(name):
            hooks[name][key] = False
    config["log_processor"] = {**(config.get("log_processor") or {}), "by_epoch": False}


def _set_length(config: dict[str, Any], old: _Length, new: _Length, per_epoch: int, changes: list[str]) -> None:
    config["train_cfg"]["max_epochs" if new.unit == "epochs" else "max_iters"] = new.count
    detail = f" of {per_epoch} iterations" if new.unit == "epochs" else ""
    _change(changes, "length", f"{old.count} {old.unit}", f"{new.count} {new.unit}", detail)
    if old.unit == new.unit == "epochs":
        for hook in config.get("custom_hooks") or ():
            for key in EPOCH_ARGUMENTS:
                if key in hook:
                    hook[key] = _share(hook[key], old.count, new.count)


def _share(value: float, old: int, new: int) -> int:
    """The step of a training of ``new`` steps that corresponds to step ``value`` of ``old``."""
    return min(new, int(value * new / old + 1e-9))


def _set_decay(config: dict[str, Any], old: _Length, new: _Length, per_epoch: int, changes: list[str]) -> None:
    """Cut warm-ups to a tenth of the training and keep the share of the rest; what followed a warm-up still does."""
    total = new.iterations(per_epoch)
    moved: dict[int, int] = {}  # old and new ends of the warm-ups that count in the training's unit
    for scheduler in schedulers_of(config):
        counted_alike = scheduler.get("by_epoch", True) == (old.unit == "epochs")
        if warms_up(scheduler) and (old.unit == "iterations" or not counted_alike):
            end = min(scheduler["end"], max(SHORTEST_WARM_UP, int(total * WARM_UP_SHARE)))
            _change(changes, "warm-up", scheduler["end"], end, " iterations")
            if counted_alike:
                moved[scheduler["end"]] = end
            scheduler["end"] = end
        elif counted_alike:
            _stretch(scheduler, old, new, moved, changes)


def warms_up(scheduler: Mapping[str, Any]) -> bool:
    """Whether a scheduler's config is that of a warm-up."""
    return class_name(scheduler).endswith(WARM_UPS) and not scheduler.get("begin") and "end" in scheduler


def _stretch(scheduler: dict[str, Any], old: _Length, new: _Length, moved: dict[int, int], changes: list[str]) -> None:
    """Convert everything that a scheduler counts to the new length and unit."""
    if new.unit != old.unit:
        scheduler["by_epoch"] = False
        scheduler.pop("convert_to_iter_based", None)
    before = dict(scheduler)
    shortest = SHORTEST_WARM_UP if warms_up(before) and not before.get("convert_to_iter_based") else 1
    for key, least in (("begin", 0), ("end", shortest)):
        if isinstance(scheduler.get(key), int) and scheduler[key]:
            scheduler[key] = moved.get(scheduler[key], max(least, _share(scheduler[key], old.count, new.count)))
    if scheduler.get("end", new.count) <= scheduler.get("begin", 0):  # a training of a few steps
        scheduler["begin"] = max(0, scheduler.get("end", new.count) - 1)
    if warms_up(before):
        moved[before["end"]] = scheduler["end"]
    if isinstance(before.get("T_max"), int):
        whole = before["T_max"] == before.get("end", old.count) - before.get("begin", 0)
        scheduler["T_max"] = max(1, scheduler.get("end", new.count) - scheduler.get("begin", 0) if whole
                                 else _share(before["T_max"], old.count, new.count))  # fmt: skip
    fewest = 1 if before.get("convert_to_iter_based") else 2  # a one-cycle schedule needs two steps
    for key, least in (("step_size", 1), ("total_steps", fewest)):
        if isinstance(before.get(key), int):
            scheduler[key] = max(least, _share(before[key], old.count, new.count))
    if "milestones" in before:
        steps = sorted({_share(step, old.count, new.count) for step in before["milestones"]})
        scheduler["milestones"] = [step for step in steps if 0 < step < new.count]
        points = [", ".join(map(str, part["milestones"])) or "no point" for part in (before, scheduler)]
        _change(changes, "decay at", points[0], points[1])
    elif before.get("end") != scheduler.get("end"):
        changes.append(f"{scheduler['type']} until {before['end']} -> {scheduler['end']}")


def _interval(count: int, least: int) -> int:
    """About a tenth of ``count``, so that no two evaluations, the last one included, are closer than ``least``."""
    intervals = range(max(least, count // EVALUATIONS), count)
    return next((length for length in intervals if not 0 < count % length < least), count)


def _set_intervals(
    config: dict[str, Any], old: _Length, new: _Length, per_epoch: int, every: int | None, changes: list[str]
) -> None:
    """Set how often the training evaluates, saves and logs; ``every`` is the user's wish for the first two."""
    loop, hooks = config["train_cfg"], config.get("default_hooks") or {}
    if new != old or every is not None:
        at_the_end_only = old.unit == new.unit and loop.get("val_interval", 1) >= old.count
        usual = new.count if at_the_end_only else _interval(new.count, 1 if new.unit == "epochs" else per_epoch)
        interval = min(every or usual, new.count)
        loop["val_interval"] = interval
        loop.pop("dynamic_intervals", None)
        if loop.get("val_begin"):
            loop["val_begin"] = _share(loop["val_begin"], old.count, new.count)
        if checkpoint := hooks.get("checkpoint"):
            counts_iterations = new.unit == "epochs" and checkpoint.get("by_epoch") is False
            checkpoint["interval"] = interval * (per_epoch if counts_iterations else 1)
        often = f"{interval} {new.unit}" if interval > 1 else new.unit[:-1]
        changes.append(f"evaluation and checkpoint every {often}")
    if hooks.get("logger"):
        lines = max(1, new.iterations(per_epoch) // LOG_LINES)
        most = min(lines, per_epoch) if new.unit == "epochs" else lines
        before = hooks["logger"].get("interval", 10)
        hooks["logger"]["interval"] = min(before, most)
        _change(changes, "log line every", before, min(before, most), " iterations")


def _finetune(config: dict[str, Any], options: ScheduleOptions, pictures: int, changes: list[str]) -> ScheduleOptions:
    """The preset's choices for options that the user left out; the docs give the reasons.

    Epochs: 600 / sqrt(pictures), from 12 to 100: 60 for a hundred pictures, 19 for a thousand. Batches: at least eight
    an epoch. Gradients are clipped, and the best checkpoint is kept.
    """
    batch = min(config["train_dataloader"]["batch_size"], max(2, pictures // 8))
    epochs = min(100, max(12, round(600 / math.sqrt(pictures))))
    if config["optim_wrapper"].get("clip_grad") is None:
        config["optim_wrapper"]["clip_grad"] = dict(max_norm=35, norm_type=2)
        changes.append("gradients clipped at norm 35")
    checkpoint = (config.get("default_hooks") or {}).get("checkpoint")
    if checkpoint is not None:
        checkpoint.update(save_best="auto", max_keep_ckpts=1)
        changes.append("best checkpoint kept")
    config["train_cfg"]["val_interval"] = 1  # _set_intervals makes it a tenth, also if only the end was evaluated
    epochs_asked = options.epochs if options.epochs or options.iters else epochs
    return replace(options, epochs=epochs_asked, batch_size=options.batch_size or batch)
