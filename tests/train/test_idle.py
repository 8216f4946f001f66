"""Hooks and schedulers that never act, epochs that never end: each is named before training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from mmms_plugin.errors import UserError
from mmms_plugin.train.idle import idle_parts, refuse_endless_epochs

EPOCHS, PER_EPOCH = 12, 5


def runner_of(by_epoch: bool, hooks: Any = (), schedulers: Any = (), **loop: Any) -> Any:
    """A Runner before a training of 12 epochs of 5 iterations."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1)
    kind = EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop
    built = kind.__new__(kind)
    built._max_epochs, built._max_iters = (EPOCHS if by_epoch else 1), EPOCHS * PER_EPOCH
    built.val_begin, built.val_interval, built.dynamic_intervals = 1, 1 if by_epoch else PER_EPOCH, [1]
    built.dataloader = range(PER_EPOCH)
    built.__dict__.update(loop)
    return SimpleNamespace(
        train_loop=built, val_loop=loop.get("val_loop", 1),
        hooks=[hook if isinstance(hook, Hook) else HOOKS.build(hook) for hook in hooks],
        param_schedulers=[PARAM_SCHEDULERS.build(dict(optimizer=optimizer, **part)) for part in schedulers],
    )  # fmt: skip


def plain(name: str, **attributes: Any) -> Hook:
    """A hook of a host, which need not be installed."""
    hook: Hook = type(name, (Hook,), {})()
    hook.__dict__.update(attributes)
    return hook


def checkpoint(**changes: Any) -> dict[str, Any]:
    return dict(type="CheckpointHook") | changes


def stopping(patience: int, **changes: Any) -> dict[str, Any]:
    return dict(type="EarlyStoppingHook", monitor="mAP", patience=patience) | changes


@pytest.mark.parametrize(
    ("by_epoch", "hook", "line"),
    [
        (False, checkpoint(interval=1), "CheckpointHook counts epochs, this training iterations: it saves only at"),
        (False, checkpoint(interval=1, save_last=False), "it saves nothing; set by_epoch=False"),
        (False, checkpoint(interval=10, by_epoch=False), None),
        (False, checkpoint(interval=61, by_epoch=False), None),  # saves at the end
        (False, checkpoint(interval=61, by_epoch=False, save_last=False), "saves nothing: its interval is 61, thi"),
        (True, checkpoint(interval=12, save_last=False), None),
        (True, checkpoint(interval=13, save_last=False), "its interval is 13, this training has 12 epochs"),
        (True, checkpoint(interval=1, save_begin=13, save_last=False), "saves nothing"),
        (True, checkpoint(interval=-1), None),
        (True, stopping(11), None),
        (True, stopping(12), "EarlyStoppingHook with patience=12 needs 13 evaluations, this training has 12: it"),
        (True, stopping(12, stopping_threshold=0.5), None),
        (False, stopping(12), "needs 13 evaluations, this training has 12"),
        (True, dict(type="EMAHook", begin_epoch=12), None),
        (True, dict(type="EMAHook", begin_iter=60), None),
        (False, dict(type="EMAHook", begin_iter=60), None),
        (True, dict(type="EMAHook", interval=60), None),
        (True, dict(type="EMAHook", interval=61), "EMAHook averages every 61 iterations, this training has 60: it nev"),
        (True, dict(type="LoggerHook", interval=500), None),  # logs at the end of an epoch
        (False, dict(type="LoggerHook", log_metric_by_epoch=False), None),
        (False, dict(type="LoggerHook"), "LoggerHook counts epochs, this training iterations: it logs every"),
        (True, plain("DetVisualizationHook", interval=500), None),  # counts pictures of the validation
        (True, plain("MeanTeacherHook", interval=60), None),
        (True, plain("MeanTeacherHook", interval=61), "MeanTeacherHook acts every 61 iterations, this training has 60"),
        (True, plain("AnyHook", interval=13, by_epoch=True), "AnyHook acts every 13 epochs, this training has 12"),
        (True, plain("PreciseBNHook", interval=13), "acts every 13 epochs"),
        (False, plain("PreciseBNHook", interval=13), None),
        (True, plain("ShapeAdaptorHook", step=61, report=500), None),  # also acts first in each epoch,
        (True, plain("PipelineSwitchHook", switch_epoch=11), None),
        (True, plain("PipelineSwitchHook", switch_epoch=12), "acts after 12 epochs, this training has 12: it never"),
        (False, plain("PipelineSwitchHook", switch_epoch=2), "counts epochs, this training iterations"),
        (True, plain("YOLOXModeSwitchHook", num_last_epochs=5), None),
        (True, plain("YOLOXModeSwitchHook", num_last_epochs=15), "acts in the last 15 epochs, this training has 12"),
        (False, plain("YOLOXModeSwitchHook", num_last_epochs=5), "counts epochs, this training iterations: it acts f"),
        (True, plain("SwitchRecipeHook", schedule={12: {}}), None),
        (True, plain("SwitchRecipeHook", schedule={1: {}, 13: {}}), "acts after 12 epochs, this training has 12"),
    ],
)  # fmt: skip
def test_a_hook_that_never_acts(by_epoch: bool, hook: Any, line: str | None) -> None:
    lines = idle_parts(runner_of(by_epoch, [hook]))
    assert len(lines) == (line is not None), lines
    assert line is None or line in lines[0]


@pytest.mark.parametrize(
    ("by_epoch", "hook", "message"),
    [
        (True, dict(begin_epoch=13), r"^EMAHook.begin_epoch=13: must be at most 12, this training's epochs"),
        (True, dict(begin_iter=61), r"^EMAHook.begin_iter=61: must be at most 60, this training's iterations"),
        (False, dict(begin_epoch=2), r"^EMAHook.begin_epoch=2: this training counts iterations; give begin_iter"),
    ],
)
def test_averaging_that_never_begins_is_refused(by_epoch: bool, hook: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        idle_parts(runner_of(by_epoch, [dict(type="EMAHook") | hook]))


@pytest.mark.parametrize("never", [dict(val_loop=None), dict(val_begin=13)])
def test_what_needs_an_evaluation(never: Any) -> None:
    plateau = dict(type="ReduceOnPlateauLR", monitor="mAP")
    lines = idle_parts(runner_of(True, [checkpoint(interval=1, save_best="mAP"), stopping(1)], [plateau], **never))
    if "val_begin" in never:
        assert lines.pop(0) == "train_cfg.val_begin=13: this training has 12 epochs and is never evaluated"
    assert lines == [
        "ReduceOnPlateauLR with patience=10 needs 12 evaluations, this training has 0: it never changes the learning "
        "rate",
        "CheckpointHook saves no best checkpoint: save_best=['mAP'], and this training is never evaluated",
        "EarlyStoppingHook with patience=1 needs 2 evaluations, this training has 0: it never stops it",
    ]
    for loop, count in ((dict(val_interval=5), 3), (dict(val_interval=4, val_begin=5), 2), (dict(val_interval=99), 1)):
        (line,) = idle_parts(runner_of(True, [stopping(9)], **loop))
        assert f"this training has {count}: it never stops it" in line
    assert idle_parts(runner_of(True, [stopping(50)], dynamic_intervals=[1, 2])) == []  # unknown
    short = runner_of(False, [dict(type="LoggerHook", interval=500)], dataloader=range(99), val_interval=99)
    assert idle_parts(short) == ["LoggerHook logs every 500 iterations, this training has 60: it never does"]


@pytest.mark.parametrize(
    ("by_epoch", "scheduler", "line"),
    [
        (True, dict(type="MultiStepLR", milestones=[8, 11, 20]), None),
        (True, dict(type="MultiStepLR", milestones=[12, 20]), "MultiStepLR begins after 12 epochs, this training"),
        (True, dict(type="MultiStepLR", milestones=[6], begin=6), "begins after 12 epochs"),
        (True, dict(type="StepMomentum", step_size=12), "this training has 12: it never changes the momentum"),
        (False, dict(type="StepLR", step_size=12, by_epoch=False), None),
        (False, dict(type="StepLR", step_size=12), "StepLR counts epochs, this training iterations: it never changes"),
        (False, dict(type="ExponentialLR", gamma=0.9, by_epoch=False, begin=60), "begins after 60 iterations"),
        (True, dict(type="LinearLR", end=10, by_epoch=False), None),  # a warm-up
        (True, dict(type="ExponentialLR", gamma=0.9, by_epoch=False), None),
        (True, dict(type="CosineAnnealingLR", T_max=12), None),
        (True, dict(type="CosineAnnealingLR", T_max=300, end=300), "ends after 300 epochs, this training after 12:"),
        (False, dict(type="PolyLR", end=160000, by_epoch=False), "PolyLR ends after 160000 iterations, this trainin"),
        (False, dict(type="OneCycleLR", eta_max=1, total_steps=600, by_epoch=False), "ends after 600 iterations"),
        (True, dict(type="ReduceOnPlateauLR", patience=10), None),
        (True, dict(type="ReduceOnPlateauLR", patience=11), "with patience=11 needs 13 evaluations, this train"),
    ],
)  # fmt: skip
def test_a_scheduler_that_never_changes_anything(by_epoch: bool, scheduler: Any, line: str | None) -> None:
    lines = idle_parts(runner_of(by_epoch, (), [scheduler]))
    assert len(lines) == (line is not None), lines
    assert line is None or line in lines[0]


@pytest.mark.parametrize(
    "scheduler",
    [
        dict(type="MultiStepLR", milestones=[8, 11]),
        dict(type="MultiStepLR", milestones=[2], begin=9),
        dict(type="CosineAnnealingLR", T_max=12),
        dict(type="PolyLR", end=12),
        dict(type="OneCycleLR", eta_max=1, total_steps=12),
    ],
)
def test_epochs_that_are_counted_as_iterations(scheduler: Any) -> None:
    scheduler = scheduler | dict(by_epoch=False)
    (line,) = idle_parts(runner_of(True, (), [scheduler], dataloader=range(50)))
    assert f"{scheduler['type']} counts iterations and is over after 1" in line
    assert line.endswith(", in the first of 12 epochs; set by_epoch=True")
    assert idle_parts(runner_of(False, (), [scheduler], dataloader=range(50))) == []


class Endless(list):
    def __iter__(self) -> Any:
        while True:
            yield from range(len(self))


def test_an_epoch_that_never_ends_is_refused() -> None:
    data = list(range(10))
    samplers = {"InfiniteSampler": InfiniteSampler(data), "Endless": Endless(data)}
    for name, sampler in samplers.items():
        loader = DataLoader(data, batch_sampler=BatchSampler(sampler, 2, drop_last=False))
        runner = runner_of(True)
        runner.train_dataloader = loader
        with pytest.raises(UserError, match=rf"^train_dataloader\.sampler\.type={name}: its epoch never ends"):
            refuse_endless_epochs(runner)
        runner = runner_of(False)
        runner.train_dataloader = loader
        refuse_endless_epochs(runner)
    state = torch.get_rng_state()
    for sampler in (DefaultSampler(data), RandomSampler(data)):
        runner = runner_of(True)
        runner.train_dataloader = DataLoader(data, batch_size=2, sampler=sampler)
        refuse_endless_epochs(runner)
    assert torch.equal(torch.get_rng_state(), state)
    runner.train_dataloader = DataLoader(data, batch_size=None)
    refuse_endless_epochs(runner)
