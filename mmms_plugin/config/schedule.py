"""``--epochs``, ``--iters``, ``--batch-size``, ``--lr``, ``--preset``: a config's schedule fitted to the user's data.

Published schedules are for 8 GPUs and 118,000 pictures. Changing their length alone leaves the rest behind: a warm-up
longer than the training, a decay that never comes, a learning rate for 16 pictures a batch. Here all that depends on
each other is set together:

1. Length: in the config's own unit, epochs or iterations; ``--iters`` makes an epoch-based config iteration-based.
2. Decay: milestones, ends and periods keep their share of the training.
3. Warm-up: at most a tenth of the training, and never longer than it was.
4. Learning rate: in proportion to the batch over all processes (Goyal et al., arXiv:1706.02677), from the batch that
   the config was written for: ``auto_scale_lr.base_batch_size``, else its own.
5. Evaluation and checkpoints: some ten times; log lines: often enough to see some.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmms_plugin.errors import UserError
from mmms_plugin.options import CommandOptions, option

EVALUATIONS, LOG_LINES, WARM_UP_SHARE = 10, 20, 0.1
SHORTEST_WARM_UP = 2  # steps: mmengine's LinearLR that ends at 1 leaves the rate at its start for good
WARM_UPS = ("LinearLR", "ConstantLR", "WarmupLR")
EPOCH_HOOKS = {"switch_epoch": 1, "num_last_epochs": 1}  # arguments of hooks that count epochs
SIZES = {"pytorch": "WORLD_SIZE", "slurm": "SLURM_NTASKS", "mpi": "OMPI_COMM_WORLD_SIZE"}


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions(CommandOptions):
    """What the user asks for; None leaves the config's own."""

    epochs: int | None = option(
        metavar="N", least=1, group="schedule",
        help="length of the training; warm-up, decay, evaluation, checkpoints and learning rate are fitted to it and "
        "to the batch, and one line reports what changed",
    )  # fmt: skip
    iters: int | None = option(
        metavar="N", least=1, group="schedule", help="length of the training in iterations, fitted like --epochs"
    )
    batch_size: int | None = option(
        metavar="N", least=1, group="schedule",
        help="pictures per batch and process; the learning rate changes in proportion",
    )  # fmt: skip
    lr: float | None = option(above=0, group="schedule", help="learning rate, used as it is")
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
        """Whether anything is asked for."""
        return self != ScheduleOptions()


def processes(launcher: str) -> int:
    """How many processes a launcher of mmengine's started."""
    return max(1, int(os.environ.get(SIZES.get(launcher, ""), 1)))


def set_schedule(
    config: dict[str, Any], options: ScheduleOptions, pictures: int, world: int = 1, name: str = ""
) -> str:
    """Fit the schedule of ``config`` to ``options``, in place; returns one line on what changed.

    Args:
        pictures: of the training data, with repetitions. world: processes that train together.
        name: of the config's file; OpenMMLab's tell the batch in it.

    Raises:
        UserError: the config has no schedule, no learning rate, or counts epochs where iterations are asked for.
    """
    changes: list[str] = []
    loader = config["train_dataloader"]
    if options.preset:
        options = _finetune(config, options, pictures, changes)
    base = _base_batch(config, name) or loader["batch_size"] * world
    if options.batch_size is not None:
        _change(changes, "batch", loader["batch_size"], options.batch_size)
        loader["batch_size"] = options.batch_size
    batch = loader["batch_size"] * world
    _set_rate(config, options.lr, batch, base, changes)
    per_epoch = max(1, math.ceil(pictures / batch))
    old = _Length.of(config)
    new = old.fitted(options, per_epoch)
    if new.unit != old.unit:
        _count_iterations(config)
    _set_length(config, old, new, per_epoch, changes)
    _set_decay(config, old, new, per_epoch, changes)
    _set_intervals(config, old, new, per_epoch, changes)
    asked = " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in vars(options).items() if value is not None
    )
    return f"schedule ({asked}; {pictures} pictures): {'; '.join(changes) or 'nothing to change'}"


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
        """The length asked for, in this one's unit where it can be."""
        if options.iters is not None:
            return _Length(options.iters, "iterations")
        if options.epochs is None:
            return self
        return _Length(options.epochs * (1 if self.unit == "epochs" else per_epoch), self.unit)

    def iterations(self, per_epoch: int) -> int:
        return self.count * (per_epoch if self.unit == "epochs" else 1)


def _base_batch(config: Mapping[str, Any], name: str) -> int | None:
    """The batch over all GPUs that the learning rate of a config is for, as far as it says so.

    '8xb32' in a file's name goes first: RTMDet's configs inherit a base_batch_size of 16, and are for 256.
    """
    told = re.search(r"_(\d+)xb(\d+)[-_.]", name)
    if told:
        return int(told.group(1)) * int(told.group(2))
    return (config.get("auto_scale_lr") or {}).get("base_batch_size")


def _change(changes: list[str], what: str, old: Any, new: Any, unit: str = "") -> None:
    if old != new:
        changes.append(f"{what} {old} -> {new}{unit}")


def _set_rate(config: dict[str, Any], lr: float | None, batch: int, base: int, changes: list[str]) -> None:
    """The learning rate asked for, or the config's by the linear rule; least rates of schedulers go with it."""
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
        config["auto_scale_lr"].update(enable=False, fitted=True)  # mmengine must not do it again


def schedulers_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameter schedulers of a config, which may name one alone."""
    found = config.get("param_scheduler") or []
    return [found] if isinstance(found, dict) else list(found)


def _count_iterations(config: dict[str, Any]) -> None:
    """Make an epoch-based config iteration-based, its hooks and sampler with it."""
    for hook in _epoch_hooks(config):
        raise UserError(f"--iters: {hook['type']} of this config counts epochs, give --epochs")
    config["train_cfg"] = dict(type="IterBasedTrainLoop", max_iters=1, val_interval=1)
    config["train_dataloader"]["sampler"] = dict(type="InfiniteSampler", shuffle=True)
    hooks = config.get("default_hooks") or {}
    for name, key in (("checkpoint", "by_epoch"), ("logger", "log_metric_by_epoch")):
        if hooks.get(name):
            hooks[name][key] = False
    config["log_processor"] = {**(config.get("log_processor") or {}), "by_epoch": False}


def _epoch_hooks(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for hook in config.get("custom_hooks") or ():
        if any(key in hook for key in EPOCH_HOOKS):
            yield hook


def _set_length(config: dict[str, Any], old: _Length, new: _Length, per_epoch: int, changes: list[str]) -> None:
    config["train_cfg"]["max_epochs" if new.unit == "epochs" else "max_iters"] = new.count
    detail = f" of {per_epoch} iterations" if new.unit == "epochs" else ""
    _change(changes, "length", f"{old.count} {old.unit}", f"{new.count} {new.unit}", detail)
    if old.unit == new.unit == "epochs":
        for hook in _epoch_hooks(config):
            for key in EPOCH_HOOKS:
                if key in hook:
                    hook[key] = _share(hook[key], old.count, new.count)


def _share(value: float, old: int, new: int) -> int:
    """A place in a training of ``old`` steps, at the same share of one of ``new`` steps."""
    return min(new, int(value * new / old + 1e-9))


def _set_decay(config: dict[str, Any], old: _Length, new: _Length, per_epoch: int, changes: list[str]) -> None:
    """Warm-ups cut to a tenth of the training; all else at its share; what followed a warm-up follows it again."""
    total = new.iterations(per_epoch)
    moved: dict[int, int] = {}  # ends of warm-ups that are counted as the training is
    for scheduler in schedulers_of(config):
        counted_alike = scheduler.get("by_epoch", True) == (old.unit == "epochs")
        if _warms_up(scheduler) and (old.unit == "iterations" or not counted_alike):
            end = min(scheduler["end"], max(SHORTEST_WARM_UP, int(total * WARM_UP_SHARE)))
            _change(changes, "warm-up", scheduler["end"], end, " iterations")
            if counted_alike:
                moved[scheduler["end"]] = end
            scheduler["end"] = end
        elif counted_alike:
            _stretch(scheduler, old, new, moved, changes)


def _warms_up(scheduler: Mapping[str, Any]) -> bool:
    return str(scheduler["type"]).endswith(WARM_UPS) and not scheduler.get("begin") and "end" in scheduler


def _stretch(scheduler: dict[str, Any], old: _Length, new: _Length, moved: dict[int, int], changes: list[str]) -> None:
    """Bring everything that a scheduler counts to the new length, in the new unit."""
    if new.unit != old.unit:
        scheduler["by_epoch"] = False
        scheduler.pop("convert_to_iter_based", None)
    before = dict(scheduler)
    shortest = SHORTEST_WARM_UP if _warms_up(before) and not before.get("convert_to_iter_based") else 1
    for key, least in (("begin", 0), ("end", shortest)):
        if isinstance(scheduler.get(key), int) and scheduler[key]:
            scheduler[key] = moved.get(scheduler[key], max(least, _share(scheduler[key], old.count, new.count)))
    if scheduler.get("end", new.count) <= scheduler.get("begin", 0):  # trainings of a few steps
        scheduler["begin"] = max(0, scheduler.get("end", new.count) - 1)
    if _warms_up(before):
        moved[before["end"]] = scheduler["end"]
    if isinstance(before.get("T_max"), int):
        whole = before["T_max"] == before.get("end", old.count) - before.get("begin", 0)
        scheduler["T_max"] = max(1, scheduler.get("end", new.count) - scheduler.get("begin", 0) if whole
                                 else _share(before["T_max"], old.count, new.count))  # fmt: skip
    fewest = 1 if before.get("convert_to_iter_based") else 2  # one epoch of a one-cycle schedule has steps enough
    for key, least in (("step_size", 1), ("total_steps", fewest)):
        if isinstance(before.get(key), int):
            scheduler[key] = max(least, _share(before[key], old.count, new.count))
    if "milestones" in before:
        places = sorted({_share(one, old.count, new.count) for one in before["milestones"]})
        scheduler["milestones"] = [one for one in places if 0 < one < new.count]
        points = [", ".join(map(str, one["milestones"])) or "no point" for one in (before, scheduler)]
        _change(changes, "decay at", points[0], points[1])
    elif before.get("end") != scheduler.get("end"):
        changes.append(f"{scheduler['type']} until {before['end']} -> {scheduler['end']}")


def _set_intervals(config: dict[str, Any], old: _Length, new: _Length, per_epoch: int, changes: list[str]) -> None:
    loop, hooks = config["train_cfg"], config.get("default_hooks") or {}
    if new != old:
        at_the_end_only = old.unit == new.unit and loop.get("val_interval", 1) >= old.count
        interval = new.count if at_the_end_only else max(1, new.count // EVALUATIONS)
        loop["val_interval"] = interval
        loop.pop("dynamic_intervals", None)
        if loop.get("val_begin"):
            loop["val_begin"] = _share(loop["val_begin"], old.count, new.count)
        if hooks.get("checkpoint"):
            hooks["checkpoint"]["interval"] = interval
        often = f"{interval} {new.unit}" if interval > 1 else new.unit[:-1]
        changes.append(f"evaluation and checkpoint every {often}")
    if hooks.get("logger"):
        lines = max(1, new.iterations(per_epoch) // LOG_LINES)
        most = min(lines, per_epoch) if new.unit == "epochs" else lines
        before = hooks["logger"].get("interval", 10)
        hooks["logger"]["interval"] = min(before, most)
        _change(changes, "log line every", before, min(before, most), " iterations")


def _finetune(config: dict[str, Any], options: ScheduleOptions, pictures: int, changes: list[str]) -> ScheduleOptions:
    """The preset's choices, where the user made none: see docs for the reasons.

    Epochs: 600 / sqrt(pictures), 12 to 100: 60 for a hundred pictures, 19 for a thousand. Batches: at least eight an
    epoch. Gradients are clipped, and the best checkpoint is kept.
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
    config["train_cfg"]["val_interval"] = 1  # set to a tenth below, also where the config evaluates at the end only
    return ScheduleOptions(
        epochs=options.epochs if options.epochs or options.iters else epochs,
        iters=options.iters,
        batch_size=options.batch_size or batch,
        lr=options.lr,
        preset=options.preset,
    )
