"""Where a resumed training goes on, and with which learning rate.

mmengine restores the schedule of the checkpoint, with its length, milestones and rates, whatever the config says now,
and counts iterations on from there, though an epoch may have another number of them. Here the training goes on as if it
had been run with this config from the start:

1. Position: the share of the epochs that is done, or the number of iterations where the loop counts those.
2. Schedule: new schedulers make all steps up to that position, so that every rate equals that of a straight run, bit
   for bit. Early stopping and schedulers that follow a metric (``ReduceOnPlateauLR``) repeat the evaluations, which
   checkpoints record.
3. From the checkpoint: weights, averaged weights, the optimizer's state, the gradients of a half-done accumulation and
   mmengine's message hub.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from mmengine.optim import OptimWrapperDict
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from torch import nn

from mmms_plugin.config.edit import dicts_in

EVALUATIONS = "evaluations"  # key in the meta of a checkpoint
GRADIENTS = "gradients"  # key in a checkpoint: of a half-done accumulation, by the names of the parameters
# Entries of an optimizer's parameter groups that follow the config also if it does not name them. Others may be the
# optimizer's own state, as in Prodigy.
SETTINGS = ("lr", "momentum", "betas", "weight_decay")
OF_SCHEDULERS = ("initial_", "max_", "min_")  # what schedulers keep there, with the name of what they change


class Evaluation(NamedTuple):
    """Value of a metric, and the epochs and iterations that were done."""

    epoch: int
    iter: int
    value: float


@dataclass
class EarlierRun:
    """What a checkpoint says about the training that it was saved in.

    Attributes:
        epoch, iter: epochs and iterations that were done.
        epoch_length: iterations in an epoch; None if that training counted iterations, or unknown.
        followed: metrics that its schedulers followed.
        evaluations: of each metric that something followed, in order, if it was recorded.
    """

    epoch: int
    iter: int
    epoch_length: int | None = None
    followed: frozenset[str] = frozenset()
    evaluations: dict[str, list[Evaluation]] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> EarlierRun:
        """Read the content of a checkpoint that training can resume from."""
        meta, info = content["meta"], content["message_hub"].get("runtime_info")
        epoch, done = meta["epoch"], meta["iter"]
        epochs, iterations = (info.get(key) if isinstance(info, dict) else None for key in ("max_epochs", "max_iters"))
        length = None
        if type(epochs) is int and type(iterations) is int and 1 < epochs <= iterations:
            length = iterations // epochs
        elif epoch:
            length = max(1, done // epoch)
        recorded = meta.get(EVALUATIONS)
        recorded = recorded if isinstance(recorded, dict) else {}
        evaluations = {name: [Evaluation(*value) for value in values] for name, values in recorded.items()
                       if isinstance(values, list) and all(map(_is_evaluation, values))}  # fmt: skip
        states = dicts_in(content.get("param_schedulers"))
        followed = frozenset(state["monitor"] for state in states if isinstance(state.get("monitor"), str))
        return cls(epoch, done, length, followed, evaluations)

    def position(self, epoch_length: int | None) -> tuple[int, int]:
        """Epochs and iterations that are done, in a loop with that epoch length; None if it counts iterations."""
        return self._convert(self.epoch, self.iter, epoch_length)

    def converted(self, epoch_length: int | None) -> dict[str, list[Evaluation]]:
        """The evaluations with their positions in such a loop."""
        return {
            name: [Evaluation(*self._convert(epoch, done, epoch_length), value) for epoch, done, value in values]
            for name, values in self.evaluations.items()
        }

    def _convert(self, epoch: int, done: int, length: int | None) -> tuple[int, int]:
        if length is None:
            return 0, done
        if self.epoch_length in (None, length) and epoch * length <= done <= (epoch + 1) * length:
            return epoch, done
        if self.epoch_length is None:
            return done // length, done
        rest = done - epoch * self.epoch_length
        if not 0 <= rest <= self.epoch_length:  # the earlier training had epochs of several lengths: at the end of one
            rest = 0
        return epoch, epoch * length + rest * length // self.epoch_length


def _is_evaluation(value: object) -> bool:
    return isinstance(value, list | tuple) and list(map(type, value)) == [int, int, float] and min(value[:2]) >= 0


def figures_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are single numbers; others are lists, of a figure for each class."""
    numbers = {}
    for name, value in metrics.items():
        with suppress(TypeError, ValueError):
            numbers[name] = float(value)
    return numbers


def flat(schedulers: Any) -> list[_ParamScheduler]:
    """The schedulers of a Runner, which has a list of them, a list for each of several optimizers, or None."""
    lists = schedulers.values() if isinstance(schedulers, dict) else [schedulers or []]
    return [scheduler for part in lists for scheduler in part]


def followed_metric(scheduler: _ParamScheduler) -> str | None:
    """The metric that a scheduler such as ReduceOnPlateauLR follows, else None."""
    return scheduler.monitor if getattr(scheduler, "need_val_args", False) else None  # type: ignore[attr-defined]


def replay(
    schedulers: Iterable[_ParamScheduler], done: tuple[int, int], epoch_length: int | None,
    evaluations: Mapping[str, Sequence[Evaluation]],
) -> None:  # fmt: skip
    """Let new schedulers make the steps of a training, in its order.

    Args:
        schedulers: as built.
        done: epochs and iterations of the training so far.
        epoch_length: iterations in an epoch; None if the training counts iterations.
        evaluations: of every metric that a scheduler follows.
    """
    epochs, iterations = done
    of_iterations = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    of_epochs = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    metrics: dict[int, dict[str, float]] = defaultdict(dict)
    for name, values in evaluations.items():
        for value in values:
            metrics[value.epoch if epoch_length else value.iter][name] = value.value

    def evaluate(position: int) -> None:
        for scheduler in of_epochs if position in metrics else ():
            if followed_metric(scheduler) in metrics[position]:
                scheduler.step(metrics[position])  # type: ignore[call-arg]

    for scheduler in schedulers:
        scheduler.optimizer._global_step = 0  # type: ignore[union-attr]  # else they warn that it made no step
    for iteration in range(1, iterations + 1):
        for scheduler in of_iterations:
            scheduler.step()
        if epoch_length is None:
            evaluate(iteration)
        elif iteration % epoch_length == 0 and iteration // epoch_length <= epochs:
            for scheduler in of_epochs:
                scheduler.step()
            evaluate(iteration // epoch_length)


def parameter_groups(optimizer: Any) -> Iterator[dict[str, Any]]:
    """The parameter groups of an optimizer wrapper, or of each of several."""
    for wrapper in optimizer.values() if isinstance(optimizer, OptimWrapperDict) else [optimizer]:
        yield from wrapper.param_groups


def accumulation_counts(optimizer: Any) -> list[int]:
    """The number of batches for a step of an optimizer wrapper, or of each of several."""
    wrappers = optimizer.values() if isinstance(optimizer, OptimWrapperDict) else [optimizer]
    return [getattr(wrapper, "_accumulative_counts", 1) for wrapper in wrappers]


def set_gradients(model: nn.Module, gradients: Any) -> None:
    """Give the parameters the gradients that a checkpoint has for them; others have none."""
    gradients = gradients if isinstance(gradients, Mapping) else {}
    for name, parameter in model.named_parameters():
        gradient = gradients.get(name)
        if torch.is_tensor(gradient) and gradient.shape == parameter.shape and parameter.requires_grad:
            parameter.grad = gradient.to(parameter)


def settings(optimizer: Any, config: Any) -> list[dict[str, Any]]:
    """What config and schedulers decide in each parameter group of an optimizer wrapper.

    Args:
        optimizer: wrapper of one optimizer or several.
        config: of the wrapper.
    """
    named = {key for part in dicts_in(config) for key in part}
    return [
        {key: value for key, value in group.items()
         if key != "params" and (key in SETTINGS or key in named or key.startswith(OF_SCHEDULERS))}
        for group in parameter_groups(optimizer)
    ]  # fmt: skip
