"""A resumed training has the rates of one that ran through with the same config, whatever the earlier one was."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import loops

from mmms_plugin.errors import UserError
from mmms_plugin.report.run_results import FILES, RunResults
from mmms_plugin.train import runner as own_runner
from mmms_plugin.train.results_hook import ResultsHook
from mmms_plugin.train.resuming import parameter_groups
from mmms_plugin.train.runner import ResumableRunner
from mmms_plugin.weights.newest import set_aside
from mmms_plugin.weights.reader import read

RUNS = itertools.count()
PICTURES = 8
LONG = 6  # epochs


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, mode: str = "tensor") -> Any:
        y = self.b(self.a(x))
        return {"loss": (y - 1).square().mean()} if mode == "loss" else [y]

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        if not isinstance(optim_wrapper, OptimWrapperDict):
            return super().train_step(data, optim_wrapper)
        loss = self(**data, mode="loss")["loss"]
        loss.backward()
        for wrapper in optim_wrapper.values():
            wrapper.step()
            wrapper.zero_grad()
        return {"loss": loss.detach()}


class Score(BaseMetric):
    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(float(data_samples[0].mean()))

    empty = False

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {} if self.empty else {"score": results[0], "scores": results}


class Rates(Hook):
    """What every group of parameters is trained with, by iteration."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.seen: dict[int, list] = {}

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        keys = ("lr", "momentum", "betas", "weight_decay")
        groups = parameter_groups(runner.optim_wrapper)
        self.seen[runner.iter] = [[group.get(key) for key in keys] for group in groups]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops.time, "sleep", lambda seconds: None)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(own_runner, "say", lines.append)
    return lines


def train(
    folder: Path, schedule: Any, length: dict, batch: int = 2, resume: Path | None = None, hooks: tuple = (),
    optimizer: dict | None = None, several: bool = False, drop_last: bool = False, **wrapper: Any,
) -> dict[int, list]:  # fmt: skip
    """Train a toy; the rates of every iteration. Its checkpoints are ``iter_N.pth`` or ``epoch_N.pth``."""
    by_epoch, rates = "max_epochs" in length, Rates()
    torch.manual_seed(0)
    data = {"dataset": [{"x": torch.tensor([i / 8, 1.0])} for i in range(PICTURES)], "num_workers": 0,
            "sampler": {"type": "DefaultSampler" if by_epoch else "InfiniteSampler", "shuffle": True},
            "collate_fn": {"type": "default_collate"}, "batch_size": batch}  # fmt: skip
    model, wrapper = Model(), {"optimizer": optimizer or {"type": "SGD", "lr": 0.1, "momentum": 0.9}} | wrapper
    parts = {name: OptimWrapper(torch.optim.SGD(getattr(model, name).parameters(), lr=0.1)) for name in "ab"}
    runner = ResumableRunner(
        model, work_dir=str(folder), default_scope="mmengine", log_level="ERROR",
        train_dataloader=data | {"drop_last": drop_last},
        train_cfg={"by_epoch": by_epoch, "val_interval": 1 if by_epoch else 4, **length},
        val_dataloader=data | {"sampler": {"type": "DefaultSampler", "shuffle": False}}, val_cfg={},
        val_evaluator=[Score()], param_scheduler=schedule, custom_hooks=[rates, *hooks], randomness={"seed": 1},
        optim_wrapper=OptimWrapperDict(**parts) if several else wrapper,
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": by_epoch, "interval": 1}},
        experiment_name=f"resume_schedule_{next(RUNS)}", resume=resume is not None, load_from=resume and str(resume),
    )  # fmt: skip
    runner.train()
    return rates.seen


def length_of(count: int, by_epoch: bool) -> dict[str, int]:
    return {"max_epochs": count} if by_epoch else {"max_iters": 4 * count}


# Schedules for a training of n epochs, and of n steps of the scheduler
SCHEDULES: dict[str, Any] = {
    "warm-up, cosine": lambda n: [
        dict(type="LinearLR", start_factor=0.01, end=3, by_epoch=False),
        dict(type="CosineAnnealingLR", begin=1, T_max=n - 1, end=n, convert_to_iter_based=True),
    ],
    "cosine": lambda n: dict(type="CosineAnnealingLR", T_max=n, end=n, eta_min=1e-4),
    "restarts": lambda n: dict(
        type="CosineRestartLR", periods=[n // 2, n - n // 2], restart_weights=[1, 0.5], eta_min=0
    ),
    "step": lambda n: dict(type="StepLR", step_size=max(1, n // 3), gamma=0.5),
    "multi-step": lambda n: dict(type="MultiStepLR", milestones=[n // 2, n - 1], gamma=0.3),
    "poly": lambda n: dict(type="PolyLR", end=n, power=0.9, eta_min=1e-5),
    "linear": lambda n: dict(type="LinearLR", start_factor=1, end_factor=0.1, end=n),
    "exponential": lambda n: dict(type="ExponentialLR", gamma=0.8),
    "constant": lambda n: dict(type="ConstantLR", factor=0.2, end=max(2, n // 2)),
    "one cycle": lambda n: dict(type="OneCycleLR", eta_max=0.05, total_steps=n),
    "none": lambda n: None,
    "momentum": lambda n: [
        dict(type="CosineAnnealingMomentum", T_max=n, eta_min=0.5),
        dict(type="StepLR", step_size=2),
    ],
}  # fmt: skip


# What is resumed does not depend on the kind of schedule: two kinds are tried in every unit, the others in one each.
UNITS = ("epochs", "epochs as iterations", "iterations")
CASES = [
    (name, unit)
    for name, own in zip(SCHEDULES, itertools.cycle(UNITS), strict=False)
    for unit in UNITS
    if unit == own or name in ("multi-step", "one cycle")
]
QUICK = [("warm-up, cosine", "epochs"), ("one cycle", "iterations"), ("multi-step", "epochs as iterations")]


@pytest.mark.parametrize(
    ("name", "unit"), [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_rates_are_those_of_a_straight_run(tmp_path: Path, name: str, unit: str) -> None:
    """After a shorter and after a longer training, by epochs, by iterations, and by both."""
    by_epoch = unit != "iterations"

    def schedule(epochs: int) -> Any:
        parts = SCHEDULES[name](4 * epochs if unit == "iterations" else epochs)
        parts = parts if isinstance(parts, list) else [parts] if parts else []
        for part in parts:
            if unit == "epochs as iterations":
                part.update(convert_to_iter_based=True)
            elif unit == "iterations":
                part.pop("convert_to_iter_based", None)
                part.update(by_epoch=False)
        return parts or None

    straight = train(tmp_path / "straight", schedule(4), length_of(4, by_epoch))
    for earlier, done in ((2, 2), (LONG, 3)):
        folder = tmp_path / str(earlier)
        train(folder, schedule(earlier), length_of(earlier, by_epoch))
        checkpoint = folder / (f"epoch_{done}.pth" if by_epoch else f"iter_{4 * done}.pth")
        resumed = train(tmp_path / "resumed", schedule(4), length_of(4, by_epoch), resume=checkpoint)
        assert resumed == {i: rates for i, rates in straight.items() if i >= 4 * done}


@pytest.mark.parametrize(
    ("earlier", "later", "done"),
    [
        ((dict(max_epochs=2), 2), (dict(max_epochs=4), 1), 16),  # batches of half the size: epochs of 8
        ((dict(max_epochs=2), 2), (dict(max_epochs=4), 4), 4),
        ((dict(max_epochs=1), 2), (dict(max_epochs=3), 1), 8),
        ((dict(max_epochs=2), 2), (dict(max_iters=20), 2), 8),
        ((dict(max_iters=12), 2), (dict(max_epochs=4), 2), 12),
        ((dict(max_iters=10), 2), (dict(max_epochs=4), 2), 10),  # in the middle of an epoch
        ((dict(max_iters=6), 2), (dict(max_iters=12), 4), 6),
        ((dict(max_epochs=3), 2), (dict(max_epochs=3), 2), 12),  # complete: nothing is left to train
    ],
)
def test_the_position_is_counted_as_by_the_resumed_loop(
    tmp_path: Path, said: list[str], earlier: Any, later: Any, done: int
) -> None:
    schedule = [dict(type="LinearLR", start_factor=0.1, end=30, by_epoch=False), dict(type="ExponentialLR", gamma=0.5)]
    straight = train(tmp_path / "straight", schedule, later[0], later[1])
    train(tmp_path / "earlier", schedule, earlier[0], earlier[1])
    length = next(iter(earlier[0].values()))
    checkpoint = tmp_path / "earlier" / f"{'epoch' if 'max_epochs' in earlier[0] else 'iter'}_{length}.pth"
    resumed = train(tmp_path / "resumed", schedule, later[0], later[1], resume=checkpoint)
    assert resumed == {i: rates for i, rates in straight.items() if i >= done}
    moved = done != read(checkpoint)["meta"]["iter"]
    assert [line for line in said if "of the earlier training is iteration" in line] == [
        f"--resume: iteration {read(checkpoint)['meta']['iter']} of the earlier training is iteration {done} of this "
        f"one, after {length} epochs of {PICTURES // later[1]} iterations"
    ] * bool(moved)
    assert any("nothing is left to train" in line for line in said) == (not resumed)


def test_an_edited_schedule_is_followed_and_said(tmp_path: Path, said: list[str]) -> None:
    """Other types, other numbers of schedulers, another rate and weight decay, and groups with rates of their own."""
    old = [dict(type="MultiStepLR", milestones=[1])] * 2
    new = [dict(type="LinearLR", start_factor=0.1, end=10, by_epoch=False), dict(type="PolyLR", end=4, power=2),
           dict(type="CosineAnnealingMomentum", T_max=4)]  # fmt: skip
    groups = dict(paramwise_cfg=dict(custom_keys=dict(b=dict(lr_mult=0.1, decay_mult=0))))
    adam = dict(type="AdamW", lr=0.02, weight_decay=0.1)
    straight = train(tmp_path / "straight", new, dict(max_epochs=4), optimizer=adam | dict(lr=0.03), **groups)
    train(tmp_path / "old", old, dict(max_epochs=2), optimizer=adam | dict(weight_decay=0.5), **groups)
    checkpoint = tmp_path / "old/epoch_2.pth"
    for schedule in (new, old, None):
        options = groups | dict(optimizer=adam | dict(lr=0.03), resume=checkpoint)
        resumed = train(tmp_path / "new", schedule, dict(max_epochs=4), **options)
        if schedule is new:
            assert resumed == {i: rates for i, rates in straight.items() if i >= 8}
        else:
            assert resumed[8][0][0] == pytest.approx(0.03 * (0.01 if schedule else 1))
    lines = [line for line in said if "learning rate" in line]
    end, rates = f"by this config's schedule; {checkpoint} had 0.0002", (f"{straight[8][0][0]:.3g}", "0.0003", "0.03")
    assert lines == [f"--resume: the learning rate goes on at {rate}, {end}" for rate in rates]


def test_results_have_a_row_for_each_evaluation_of_all_runs(tmp_path: Path, said: list[str]) -> None:
    """Those of iterations that are trained again are replaced; damaged results stop no training."""
    hooks = (ResultsHook("small", ("small", "--seed", "1")),)
    train(tmp_path, None, dict(max_epochs=4), hooks=hooks)
    straight = RunResults.read(tmp_path / "results.json")
    assert [(e.epoch, e.iteration, e.rate, *e.metrics) for e in straight.evaluations] == [
        (n, 4 * n, 0.1, "score") for n in (1, 2, 3, 4)
    ]
    assert all(e.loss for e in straight.evaluations)
    assert (straight.metric, straight.seed, straight.length, straight.unit, straight.done) == (
        "score", 1, 4, "epochs", True,
    )  # fmt: skip
    hooks = (ResultsHook("small"),)
    train(tmp_path, None, dict(max_epochs=5), hooks=hooks, resume=tmp_path / "epoch_2.pth")
    resumed = RunResults.read(tmp_path / "results.json")
    assert [e.epoch for e in resumed.evaluations] == [1, 2, 3, 4, 5]
    assert [e.loss for e in resumed.evaluations][:4] == pytest.approx([e.loss for e in straight.evaluations])
    assert all(b.seconds >= a.seconds for a, b in itertools.pairwise(resumed.evaluations))
    (tmp_path / "results.json").write_text("{", encoding="utf-8")
    train(tmp_path, None, dict(max_epochs=3), hooks=hooks, resume=tmp_path / "epoch_2.pth")
    assert [e.epoch for e in RunResults.read(tmp_path / "results.json").evaluations] == [3]
    train(tmp_path / "counted", None, dict(max_iters=9, val_interval=3), hooks=hooks)
    counted = RunResults.read(tmp_path / "counted/results.json")
    assert [(e.epoch, e.iteration) for e in counted.evaluations] == [(0, 3), (1, 6), (2, 9)]
    set_aside(tmp_path)
    assert {path.name for path in (tmp_path / "earlier_1").iterdir()} >= set(FILES)


@pytest.mark.parametrize("at", [3, 4, 5])
def test_a_half_done_accumulation_goes_on(tmp_path: Path, at: int) -> None:
    """Steps of three batches, and a last one of two; in a run without accumulation, nothing is left of it."""
    hooks = (dict(type="EMAHook"),)
    train(tmp_path / "straight", None, dict(max_iters=8), hooks=hooks, accumulative_counts=3)
    checkpoint, whole = tmp_path / f"straight/iter_{at}.pth", read(tmp_path / "straight/iter_8.pth")
    for count, equal in ((3, True), (1, False)):
        folder = tmp_path / str(count)
        train(folder, None, dict(max_iters=8), hooks=hooks, accumulative_counts=count, resume=checkpoint)
        parts = read(folder / "iter_8.pth")
        assert equal == all(
            torch.equal(value, parts["state_dict"][name]) for name, value in whole["state_dict"].items()
        )
    assert bool(read(checkpoint)["gradients"]) == (at > 3)
    assert not whole["gradients"]


def test_each_of_several_optimizers_has_its_rates(tmp_path: Path) -> None:
    def schedule(n: int) -> dict[str, Any]:
        return dict(a=[dict(type="PolyLR", end=n)], b=[dict(type="CosineAnnealingLR", T_max=4 * n, by_epoch=False)])

    straight = train(tmp_path / "straight", schedule(4), dict(max_epochs=4), several=True)
    train(tmp_path / "earlier", schedule(2), dict(max_epochs=2), several=True)
    checkpoint = tmp_path / "earlier/epoch_2.pth"
    resumed = train(tmp_path / "resumed", schedule(4), dict(max_epochs=4), several=True, resume=checkpoint)
    assert resumed == {i: rates for i, rates in straight.items() if i >= 8}
    assert resumed[8][0] != resumed[8][1]


PLATEAU = dict(type="ReduceOnPlateauLR", monitor="score", rule="greater", threshold=9, threshold_rule="abs", patience=1,
               factor=0.5)  # fmt: skip


def stopper(patience: int = 9) -> dict[str, Any]:
    return dict(type="EarlyStoppingHook", monitor="score", rule="greater", min_delta=9, patience=patience)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_what_follows_evaluations_goes_on_as_in_a_straight_run(tmp_path: Path, at: int) -> None:
    """Rates on a plateau, averaged weights and the optimizer; the evaluation that is due is made up for."""
    schedule = [PLATEAU, dict(type="ExponentialLR", gamma=0.9)]
    hooks = (dict(type="EMAHook", ema_type="MomentumAnnealingEMA"), stopper())
    straight = train(tmp_path / "straight", schedule, dict(max_epochs=7), hooks=hooks)
    train(tmp_path / "earlier", schedule, dict(max_epochs=at), hooks=hooks)
    checkpoint = tmp_path / f"earlier/epoch_{at}.pth"
    resumed = train(tmp_path / "resumed", schedule, dict(max_epochs=7), hooks=hooks, resume=checkpoint)
    assert resumed == {i: rates for i, rates in straight.items() if i >= 4 * at}
    assert straight[27][0][0] < 0.1 * 0.9**6 / 3  # it was reduced twice
    whole, parts = (read(tmp_path / name / "epoch_7.pth") for name in ("straight", "resumed"))
    for key in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(value, parts[key][name]) for name, value in whole[key].items())
    assert str(whole["optimizer"]) == str(parts["optimizer"])
    assert whole["meta"]["evaluations"] == parts["meta"]["evaluations"]
    assert len(whole["meta"]["evaluations"]["score"]) == 6  # that of the last epoch comes after the checkpoint


def test_early_stopping_counts_on_and_is_said(tmp_path: Path, said: list[str]) -> None:
    straight = train(tmp_path / "straight", None, dict(max_epochs=9), hooks=(stopper(3),))
    assert len(straight) == 4 * 4  # the first evaluation and three without an improvement
    checkpoint = tmp_path / "straight/epoch_3.pth"
    for patience, last in ((3, 4), (4, 5), (1, 3)):
        resumed = train(
            tmp_path / str(patience), None, dict(max_epochs=9), hooks=(stopper(patience),), resume=checkpoint
        )
        assert list(resumed) == list(range(12, 4 * last))
    iterations = train(tmp_path / "iterations", None, dict(max_iters=20), hooks=(stopper(3),))
    assert len(iterations) == 16
    ends = ("epoch 4 of 9", "epoch 4 of 9", "epoch 5 of 9", "epoch 3 of 9", "iteration 16 of 20")
    assert said == [f"EarlyStoppingHook ended the training after {end}" for end in ends]


def edited(path: Path, **meta: Any) -> Path:
    content = torch.load(path, weights_only=False)
    content["meta"] = {key: value for key, value in (content["meta"] | meta).items() if value is not None}
    torch.save(content, path.with_name("edited.pth"))
    return path.with_name("edited.pth")


@pytest.mark.parametrize(
    "record", [[], {"score": 3}, {"score": [[1, 4]]}, {"score": [[-1, 4, 0.5]]}, {3: [[1, 4, "x"]]}]
)
def test_a_record_that_is_not_one_counts_as_none(tmp_path: Path, said: list[str], record: Any) -> None:
    train(tmp_path, None, dict(max_epochs=1), hooks=(stopper(),))
    checkpoint = edited(tmp_path / "epoch_1.pth", evaluations=record)
    train(tmp_path, None, dict(max_epochs=2), hooks=(stopper(),), resume=checkpoint)
    assert said == [f"--resume: {checkpoint} has no record of score: EarlyStoppingHook counts from here"]


def test_a_schedule_without_end_is_one_line(tmp_path: Path) -> None:
    train(tmp_path, [PLATEAU], dict(max_epochs=1))
    content = torch.load(tmp_path / "epoch_1.pth", weights_only=False)
    content["param_schedulers"].append(content["param_schedulers"])
    torch.save(content, tmp_path / "endless.pth")
    with pytest.raises(UserError, match=r"^--resume .*endless.pth: "):
        train(tmp_path, [PLATEAU], dict(max_epochs=2), resume=tmp_path / "endless.pth")


def test_without_a_record_of_evaluations_one_line_says_which_schedule_is_used(tmp_path: Path, said: list[str]) -> None:
    """As in checkpoints of mmengine alone."""
    train(tmp_path / "earlier", [PLATEAU], dict(max_epochs=3))
    checkpoint = edited(tmp_path / "earlier/epoch_3.pth", evaluations=None)
    steeper = [PLATEAU | dict(factor=0.1)]
    train(tmp_path / "resumed", steeper, dict(max_epochs=5), resume=checkpoint)
    line = (
        f"--resume: {checkpoint} has no record of the evaluations of score, which the schedule follows: its schedule is"
    )
    assert said == [f"{line} used, whatever this config says"]
    assert "evaluations" not in read(tmp_path / "resumed/epoch_5.pth")["meta"]  # a part of the record would be wrong
    said.clear()
    train(tmp_path / "stopping", None, dict(max_epochs=5), hooks=(stopper(),), resume=checkpoint)
    assert said == [f"--resume: {checkpoint} has no record of score: EarlyStoppingHook counts from here"]


@pytest.mark.parametrize(
    ("length", "meta", "words"),
    [
        (dict(max_epochs=2), dict(epoch=3), "3 epochs, and this training has 2"),
        (dict(max_epochs=2), dict(epoch=10**18), f"{10**18} epochs, and this training has 2"),
        (dict(max_iters=8), dict(iter=10**18), f"{10**18} iterations, and this training has 8"),
        (dict(max_iters=8), dict(iter=9), "9 iterations, and this training has 8"),
    ],
)
def test_a_checkpoint_beyond_the_end_is_refused(tmp_path: Path, length: dict, meta: dict, words: str) -> None:
    train(tmp_path, None, dict(max_epochs=1))
    with pytest.raises(UserError, match=f"edited.pth: it was saved after {words}: train longer, with --epochs or"):
        train(tmp_path, None, length, resume=edited(tmp_path / "epoch_1.pth", **meta))


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        (dict(total_steps=2), r"total_steps=2: shorter than this training, 3 epochs"),
        (dict(total_steps=2, convert_to_iter_based=True), r"total_steps=8: shorter than this training, 12 iterations"),
        (dict(total_steps=3), None),
        (dict(total_steps=2, begin=1), None),
        (dict(total_steps=2, end=2), None),
    ],
)
def test_a_cycle_that_is_shorter_than_the_training_is_refused_before_it(
    tmp_path: Path, extra: Any, fault: str | None
) -> None:
    """mmengine goes on beyond the end of the cycle, and then raises in the middle."""
    train(tmp_path, None, dict(max_epochs=1))
    run = partial(
        train, tmp_path, dict(type="OneCycleLR", eta_max=0.05) | extra, dict(max_epochs=3),
        resume=tmp_path / "epoch_1.pth",
    )  # fmt: skip
    if fault is None:
        assert len(run()) == 8
        return
    with pytest.raises(UserError, match=rf"^param_scheduler: OneCycleLR.{fault}"):
        run()


def test_an_epoch_without_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^train_dataloader.drop_last=True: 8 pictures are less than a batch"):
        train(tmp_path, None, dict(max_epochs=2), batch=9, drop_last=True)
    assert len(train(tmp_path, None, dict(max_iters=2), batch=9, drop_last=True)) == 2  # a sampler without end


@pytest.mark.parametrize(("epochs", "done"), [(1, 10**18), (2, 10**18), (2, 1), (2, 9)])
def test_iterations_that_contradict_the_epochs_do_no_harm(tmp_path: Path, epochs: int, done: int) -> None:
    """As in checkpoints of trainings that were resumed with other batches by mmengine alone."""
    train(tmp_path, None, dict(max_epochs=epochs))
    resumed = train(tmp_path, None, dict(max_epochs=2), resume=edited(tmp_path / "epoch_1.pth", iter=done))
    assert list(resumed) == [4, 5, 6, 7]


@pytest.mark.parametrize("follower", ["save_best", "ReduceOnPlateauLR"])
def test_a_metric_that_is_not_reported_ends_the_first_evaluation_in_one_line(tmp_path: Path, follower: str) -> None:
    """Of a metric class that nobody knows before."""
    hooks = (dict(type="CheckpointHook", save_best="scor", rule="greater"),) if follower == "save_best" else ()
    schedule = None if hooks else [PLATEAU | dict(monitor="scor")]
    with pytest.raises(UserError, match=f"^{follower}: the validation does not report scor; it reports score$"):
        train(tmp_path, schedule, dict(max_epochs=2), hooks=hooks)
    assert (tmp_path / "epoch_1.pth").is_file()


def test_early_stopping_that_finds_no_metric_and_empty_evaluations_are_no_end(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = train(tmp_path / "a", None, dict(max_epochs=3), hooks=(stopper() | dict(monitor="scor"),))
    assert len(rates) == 12
    assert said == ["EarlyStoppingHook skips this evaluation, which does not report scor but score"] * 3
    monkeypatch.setattr(Score, "empty", True)  # a detector that finds nothing yet
    assert len(train(tmp_path / "b", [PLATEAU], dict(max_epochs=3), hooks=(stopper(),))) == 12
