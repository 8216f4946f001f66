"""A loss or a weight that is NaN or infinite ends the training before anything is saved of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel

import mmms_plugin.commands as cli
from mmms_plugin.errors import RunError
from mmms_plugin.train import hooks
from mmms_plugin.train.hooks import EarlierHook, FiniteHook, MemoryHook
from mmms_plugin.train.runner import ResumableRunner
from mmms_plugin.weights.newest import newest_checkpoint
from mmms_plugin.weights.reader import read

RUNS = itertools.count()  # mmengine shares the state of runs of the same name in the same second


class Model(BaseModel):
    """Diverges in the fourth iteration: the loss of one head, or only the gradient."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.layer, self.fault, self.calls = torch.nn.Linear(2, 1), fault, 0

    def forward(self, x: torch.Tensor, mode: str = "tensor") -> dict[str, torch.Tensor]:
        self.calls += 1
        loss = self.layer(x).square().mean()
        if self.calls == 4 and self.fault == "gradient":
            loss = loss + (self.layer.weight * 0).sqrt().sum() * 0  # 0, with the gradient NaN
        bad = float(self.fault) if self.calls == 4 and self.fault != "gradient" else 1.0
        return {"loss_box": loss, "loss_mask": [loss, loss * bad], "acc": torch.tensor(torch.nan)}


def runner_of(folder: Path, fault: str) -> ResumableRunner:
    loader = {"dataset": [{"x": torch.ones(2)}] * 4, "batch_size": 2, "num_workers": 0,
              "sampler": {"type": "InfiniteSampler"}, "collate_fn": {"type": "default_collate"}}  # fmt: skip
    return ResumableRunner(
        Model(fault), work_dir=str(folder), default_scope="mmengine", train_dataloader=loader, log_level="WARNING",
        train_cfg={"by_epoch": False, "max_iters": 6}, optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 1, "max_keep_ckpts": 1}},
        experiment_name=str(next(RUNS)),
    )  # fmt: skip


def test_a_new_training_loses_no_checkpoint_of_an_earlier_one(tmp_path: Path, capsys) -> None:
    """What is made for a checkpoint goes with it; the new training may start from one of them."""
    for i, kept in enumerate(([], ["earlier_1"], ["earlier_1", "earlier_2"])):
        runner = runner_of(tmp_path, "1")
        runner.register_hook(EarlierHook())
        if kept:
            runner._load_from = str(tmp_path / "iter_6.pth")
        (tmp_path / "iter_9.exits.json").touch()
        capsys.readouterr()
        runner.train()
        assert sorted(path.name for path in tmp_path.glob("earlier_*")) == kept
        assert sorted(path.name for path in tmp_path.glob("iter_*")) == [
            "iter_6.pth",
            "iter_9.exits.json",
        ]
        line = f"1 checkpoint of an earlier training, now in {tmp_path / f'earlier_{i}'}; --resume "
        printed = capsys.readouterr()
        assert (line in printed.out + printed.err) is bool(kept)
        (tmp_path / "iter_6.exits.json").write_text(str(i), encoding="utf-8")
    assert newest_checkpoint(tmp_path / "earlier_1")[0] == tmp_path / "earlier_1/iter_6.pth"
    assert (tmp_path / "earlier_2/iter_6.exits.json").read_text(encoding="utf-8") == "1"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", r"iteration 4: loss_mask is nan: training stopped"),
        ("inf", r"iteration 4: loss_mask is inf: training stopped"),
        ("gradient", r"iteration 4: 2 values of layer\.weight are not finite: training stopped, nothing was saved"),
    ],
)
def test_training_stops_and_the_last_good_checkpoint_stays(tmp_path: Path, fault: str, message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        runner_of(tmp_path, fault).train()
    assert f"the last good checkpoint is {tmp_path / 'iter_3.pth'}" in str(caught.value)
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "iter_3.pth"
    state = read(tmp_path / "iter_3.pth")["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())


def test_the_sum_of_the_losses_is_named_where_it_stands_alone(tmp_path: Path) -> None:
    runner = SimpleNamespace(iter=6, work_dir=str(tmp_path), model=torch.nn.BatchNorm1d(2))
    hook, nan = FiniteHook(), torch.tensor([1.0, torch.nan])
    hook.after_train_iter(runner, 6, outputs={"loss": torch.ones(()), "acc": nan, "loss_x": [torch.ones(())] * 2})
    hook.after_train_iter(runner, 6, outputs=None)
    for losses, words in (
        ({"loss": nan}, "loss is nan"),
        ({"loss": nan, "loss_a": torch.tensor(-torch.inf), "loss_b": nan}, "loss_a is -inf, loss_b is nan"),
    ):
        with pytest.raises(RunError) as caught:
            hook.after_train_iter(runner, 6, outputs=losses)
        assert str(caught.value).startswith(
            f"iteration 7: {words}: training stopped; there is no checkpoint yet; lower"
        )
    state = runner.model.state_dict() | {
        "count": torch.tensor(1),
        "text": "x",
        "running_mean": torch.tensor([torch.inf]),
    }
    hook.before_save_checkpoint(runner, dict(state_dict=state, meta=dict(iter=7)))  # a buffer may be infinite
    for name, value in (("running_var", torch.nan), ("weight", torch.inf)):
        bad = state | {name: torch.tensor([1.0, value])}
        with pytest.raises(RunError, match=f"^iteration 7: 1 values of {name} are not finite: training stopped, not"):
            hook.before_save_checkpoint(runner, dict(state_dict=bad, meta=dict(iter=7)))


def test_the_command_ends_with_status_1_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mmms_plugin.commands.flops as command

    def stop(args: object) -> None:
        raise RunError("iteration 4: loss is nan")

    monkeypatch.setattr(command, "run", stop)
    assert cli.main(["flops", "--table", "elastic"]) == 1
    assert capsys.readouterr().err == "mmms flops: error: iteration 4: loss is nan\n"


def test_memory_is_given_back_during_evaluations(monkeypatch):
    given: list[int] = []
    monkeypatch.setattr(hooks, "release_memory", lambda: given.append(1))
    counts = {}
    for name in ("train", "val", "test"):
        for batch in range(11):
            getattr(MemoryHook(), f"after_{name}_iter")(None, batch)
        counts[name] = len(given)
    assert counts == {"train": 0, "val": 2, "test": 4}
