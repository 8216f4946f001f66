"""Hooks that watch a training: warnings about its schedule, and an end when its numbers are no longer finite."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmms_plugin.config.schedule import SHORTEST_WARM_UP, accumulated_batches, schedulers_of, warms_up
from mmms_plugin.errors import RunError, counted
from mmms_plugin.inference import optimize_for_inference
from mmms_plugin.processes import release_memory
from mmms_plugin.train.idle import idle_parts, refuse_endless_epochs
from mmms_plugin.train.stopping import shown
from mmms_plugin.weights.newest import newest_checkpoint, set_aside

EVERY = 5  # batches of an evaluation after which memory is given back: after each one it takes 12 % longer
FAR = 2.0  # batches that differ by this factor need another learning rate
ADVICE = "lower the learning rate (optim_wrapper.optimizer.lr) or clip gradients (optim_wrapper.clip_grad)"


def unwrapped(model: Any) -> Any:
    """A model without the wrapper of a distributed run."""
    return model.module if is_model_wrapper(model) else model


class ScheduleHook(Hook):
    """Before training, warns about a schedule that does not fit the data and about parts that never act.

    Raises:
        UserError: an epoch would never end, or a hook never begin.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        refuse_endless_epochs(runner)
        lines = misfits(runner.cfg, len(runner.train_dataloader), runner.max_iters, runner.world_size)
        for line in [*lines, *idle_parts(runner)]:
            print_log(line, "current", logging.WARNING)


class StartHook(Hook):
    """Loads the weights that a training starts from, over the initial ones.

    Args:
        state: tensors by the model's keys; they may be of a file that another hook moves, so this one comes first.
    """

    priority = "HIGHEST"

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        self.state = state

    def before_train(self, runner: Runner) -> None:
        unwrapped(runner.model).load_state_dict(self.state, strict=False)
        self.state = {}


class EarlierHook(Hook):
    """Before a training that resumes none, moves the checkpoints of an earlier one in its folder out of its way.

    By then all processes have read the weights that they start from, which may be among them.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        barrier()
        checkpoints = set_aside(runner.work_dir) if is_main_process() else []
        if checkpoints:
            held = counted(len(checkpoints), "checkpoint")
            print_log(
                f"{shown(runner.work_dir)} held {held} of an earlier training, now in "
                f"{shown(checkpoints[-1].parent)}; --resume {shown(checkpoints[-1])} continues that training instead",
                "current",
                logging.WARNING,
            )


def misfits(config: Any, per_epoch: int, total: int, world: int) -> list[str]:
    """What does not fit in a schedule, a line for each problem.

    Args:
        config: the whole config.
        per_epoch: iterations in an epoch.
        total: iterations in the training.
        world: number of processes.
    """
    lines = []
    for scheduler in schedulers_of(config):
        end = scheduler.get("end")
        rises = scheduler.get("start_factor", 1 / 3) < scheduler.get("end_factor", 1)
        if not (warms_up(scheduler) and rises and isinstance(end, int)):
            continue
        steps = end * per_epoch if scheduler.get("by_epoch", True) else end
        if steps > SHORTEST_WARM_UP and steps * 2 > total:
            lines.append(
                f"the warm-up takes {steps} iterations and the training has {total} ({per_epoch} an epoch): --epochs N "
                "or --preset finetune fit the schedule to the data"
            )
    scaling = config.get("auto_scale_lr") or {}
    base = scaling.get("base_batch_size")
    batch = config.train_dataloader.batch_size * world * accumulated_batches(config)
    if base and not scaling.get("enable") and "fitted" not in scaling and not base / FAR < batch < base * FAR:
        lines.append(
            f"the learning rate is for batches of {base} pictures and these have {batch}: give --auto-scale-lr or --lr"
        )
    return lines


class OptimizeHook(Hook):
    """Tests a copy of the model that is optimized for inference; the model itself stays as it is."""

    priority = "VERY_LOW"  # after hooks that change the weights, such as EMAHook

    def before_test_epoch(self, runner: Runner) -> None:
        self.original = runner.model
        runner.model = optimize_for_inference(unwrapped(runner.model).eval())

    def after_test_epoch(self, runner: Runner, metrics: Any = None) -> None:
        runner.model = self.original


class MemoryHook(Hook):
    """Keeps the memory of long evaluations flat."""

    priority = "VERY_LOW"

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = "train"
    ) -> None:
        if mode != "train" and (batch_idx + 1) % EVERY == 0:
            release_memory()


class FiniteHook(Hook):
    """Raise RunError at the first loss, or the first weight to be saved, that is NaN or infinite.

    It runs before the hooks that log and save, so earlier checkpoints are kept.

    mmdet's ``CheckInvalidLossHook`` is not enough. It looks only at the sum, and only every 50 iterations, so that a
    bad checkpoint may be saved in between. It never looks at the weights, and it stops with a traceback.
    """

    priority = "HIGH"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None, outputs: dict | None = None
    ) -> None:
        """Check every loss of the iteration; ``RuntimeInfoHook`` has brought them to the CPU anyway."""
        losses = {
            name: torch.as_tensor(value).detach().flatten() for name, value in (outputs or {}).items() if "loss" in name
        }
        wrong = [
            f"{name} is {float(loss[~loss.isfinite()][0])}"
            for name, loss in losses.items()
            if not loss.isfinite().all()
        ]
        if wrong:
            parts = [text for text in wrong if not text.startswith("loss ")] or wrong  # the sum only if it stands alone
            raise RunError(
                f"iteration {runner.iter + 1}: {', '.join(parts)}: training stopped; {_last_good(runner)}{ADVICE}"
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check all weights: a finite loss may have had a gradient that was not finite."""
        model = unwrapped(runner.model)
        parameters = {name for name, _ in model.named_parameters()}
        for name, value in checkpoint["state_dict"].items():
            if not torch.is_tensor(value) or not value.is_floating_point():
                continue
            bad = ~torch.isfinite(value) if name in parameters else torch.isnan(value)  # a buffer may hold infinities
            if bad.any():
                raise RunError(
                    f"iteration {checkpoint['meta'].get('iter')}: {int(bad.sum())} values of {name} are not finite: "
                    f"training stopped, nothing was saved; {_last_good(runner)}{ADVICE}"
                )


def _last_good(runner: Runner) -> str:
    checkpoint, _ = newest_checkpoint(runner.work_dir)
    return f"the last good checkpoint is {checkpoint}; " if checkpoint else "there is no checkpoint yet; "
