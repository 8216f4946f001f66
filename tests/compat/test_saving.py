"""mmengine's own hook and Runner never leave a folder without a whole checkpoint."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmms_plugin.compat import on_import
from mmms_plugin.errors import UserError
from mmms_plugin.weights.newest import newest_checkpoint, why_unusable

RUNS = itertools.count()  # mmengine shares the state of runs of the same name in the same second


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, mode: str = "tensor") -> dict | list:
        y = self.layer(x)
        return {"loss": y.square().mean()} if mode == "loss" else [y]


class Rising(BaseMetric):
    """Better with each evaluation."""

    value = 0

    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, int]:
        self.value += 1
        return {"acc": self.value}


def runner_of(folder: Path, iterations: int = 6, resume: bool = False) -> Runner:
    loader = {"dataset": [{"x": torch.ones(2)}] * 4, "batch_size": 2, "num_workers": 0,
              "sampler": {"type": "InfiniteSampler"}, "collate_fn": {"type": "default_collate"}}  # fmt: skip
    return Runner(
        Model(), work_dir=str(folder), default_scope="mmengine", train_dataloader=loader, resume=resume,
        experiment_name=str(next(RUNS)),
        train_cfg={"by_epoch": False, "max_iters": iterations, "val_interval": 2}, log_level="WARNING",
        val_dataloader=loader | {"sampler": {"type": "DefaultSampler", "shuffle": False}}, val_cfg={},
        val_evaluator=[Rising()], optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 1, "max_keep_ckpts": 1,
                                      "save_best": "acc", "rule": "greater"}},
    )  # fmt: skip


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The whole checkpoints that a folder holds after each change to it, as a kill at that moment would leave it."""
    seen: list[set[str]] = []

    def watching(change):
        def change_and_look(*paths, **options):
            change(*paths, **options)
            folder = Path(paths[-1]).parent
            if ".pth" in str(paths[-1]) or Path(paths[-1]).name == "last_checkpoint":
                seen.append({path.name for path in folder.glob("[!.]*.pth") if not why_unusable(path)})

        return change_and_look

    for name in ("replace", "remove"):
        monkeypatch.setattr(os, name, watching(getattr(os, name)))
    return seen


def test_there_is_always_a_whole_checkpoint_and_in_the_end_one_of_each(tmp_path: Path, watched) -> None:
    runner_of(tmp_path).train()
    assert len(watched) >= 18
    assert all(watched)
    assert max(map(len, watched)) == 2, "the old one is to be removed once the new one is there"
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["best_acc_iter_6.pth", "iter_6.pth"]
    assert Path((tmp_path / "last_checkpoint").read_text(encoding="utf-8")) == tmp_path / "iter_6.pth"


def test_the_old_best_is_there_until_the_new_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full just when a better checkpoint is to be written."""
    fill_disk_at(monkeypatch, "best_acc_iter_4")
    with pytest.raises(UserError, match=r"best_acc_iter_4\.pth: cannot be written \(No space left on device\)"):
        runner_of(tmp_path).train()
    assert sorted(path.name for path in tmp_path.glob("[!.]*.pth")) == ["best_acc_iter_2.pth", "iter_4.pth"]
    assert not list(tmp_path.glob(".*.pth"))


def fill_disk_at(monkeypatch: pytest.MonkeyPatch, stem: str) -> None:
    write = Path.write_bytes

    def half_written(path: Path, data: bytes) -> int:
        if path.stem != stem:
            return write(path, data)
        write(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half_written)


def test_a_full_disk_takes_nothing_and_training_continues_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk_at(monkeypatch, "iter_3")
    with pytest.raises(UserError, match="No space left on device"):
        runner_of(tmp_path).train()
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "iter_2.pth"
    monkeypatch.undo()
    runner = runner_of(tmp_path, resume=True)
    runner.train()
    assert runner.iter == 6
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "iter_6.pth"


def test_mmengine_s_own_runner_takes_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    """Even if ``last_checkpoint`` is empty and the newest file is damaged."""
    runner_of(tmp_path, iterations=2).train()
    (tmp_path / "last_checkpoint").write_text("", encoding="utf-8")
    (tmp_path / "iter_3.pth").write_bytes((tmp_path / "iter_2.pth").read_bytes()[:-500])
    runner = runner_of(tmp_path, iterations=3, resume=True)
    runner.load_or_resume()
    assert runner.iter == 2


def test_changes_are_made_on_import_or_at_once_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_module.py").write_text("value = 1\n", encoding="utf-8")
    (tmp_path / "changing.py").write_text("def double(module):\n    module.value *= 2\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(on_import, "CHANGES", {"late_module": ("changing:double",)})
    on_import.install()
    import late_module

    assert late_module.value == 2
    assert late_module.__spec__.origin == str(tmp_path / "late_module.py")
    on_import.install()
    assert late_module.value == 4, "install changes what is imported already"
    assert sum(finder is on_import._ChangingFinder for finder in sys.meta_path) == 1
    assert not hasattr(CheckpointHook._save_best_checkpoint.__wrapped__, "__wrapped__")
