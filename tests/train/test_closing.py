"""The command that a training ends with evaluates its checkpoint; threads fit the machine."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook

import mmms_plugin.commands as cli
from mmms_plugin.commands import test as test_command
from mmms_plugin.errors import UserError
from mmms_plugin.options import add_options, from_args
from mmms_plugin.train.console import ProgressHook
from mmms_plugin.train.launch import closing_lines
from mmms_plugin.train.options import LaunchOptions
from mmms_plugin.train.processes import check_launcher, settle_threads, usable_cores, use_no_workers


def test_the_command_to_test_is_read_as_it_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"model.neck.num_outs": 5, "model.backbone.dilation_pattern": (1, 2, 1, 4), "train_cfg.max_iters": 3}
    options = LaunchOptions(config="my config.py", work_dir="out", coco_dir="/my data", cfg_options=settings)
    hook = CheckpointHook(save_best="mAP", rule="greater")
    hook.last_ckpt, hook.best_ckpt_path = str(tmp_path / "out/iter_3.pth"), str(tmp_path / "out/best_mAP_iter_2.pth")
    runner = SimpleNamespace(hooks=[hook], work_dir="out")
    assert closing_lines(runner, options)[0].startswith("no checkpoint was saved")
    (tmp_path / "out").mkdir()
    Path(hook.last_ckpt).touch()
    assert closing_lines(runner, options)[0] == "last checkpoint: out/iter_3.pth"
    Path(hook.best_ckpt_path).touch()
    first, second = closing_lines(runner, options)
    assert first == "best checkpoint: out/best_mAP_iter_2.pth"
    words = shlex.split(second.removeprefix("test it: "))
    assert words[:2] == ["mmms", "test"]
    parser = argparse.ArgumentParser()
    add_options(parser, test_command.Options)
    read = from_args(test_command.Options, parser.parse_args(words[2:]))
    assert read.checkpoint == "out/best_mAP_iter_2.pth"
    del settings["train_cfg.max_iters"]
    assert (read.config, read.coco_dir, read.work_dir) == ("my config.py", "/my data", "out")
    assert read.cfg_options == settings


def test_every_option_that_a_test_needs_is_in_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # paths below it would be relative
    hook = CheckpointHook()
    runner = SimpleNamespace(hooks=[ProgressHook(), hook], work_dir=str(tmp_path))
    options = LaunchOptions(
        config="c", voc_dir="v", val_split=0.25, split_seed=3, binary_masks=True, seed=5,
        cfg_options={"randomness.seed": 1, "a": [1, (2, 3)], "b": True, "val_dataloader.x": 1},
        image_size=(640, 480),
    )  # fmt: skip
    assert closing_lines(runner, options) == [
        "no checkpoint was saved: default_hooks.checkpoint.interval is larger than the training"
    ]
    content = dict(state_dict={}, optimizer={}, message_hub={}, meta=dict(iter=7, epoch=0))
    torch.save(content, tmp_path / "iter_7.pth")  # of an earlier run of the same training: this one had nothing to do
    kind, command = closing_lines(runner, options)
    assert kind == f"last checkpoint: {tmp_path / 'iter_7.pth'}"
    more = "--voc-dir v --binary-masks --val-split 0.25 --split-seed 3 --image-size 640x480"
    words = f"test it: mmms test c {tmp_path / 'iter_7.pth'} {more} --cfg-options a=[1,(2,3)] b=True"
    assert shlex.split(command) == words.split()


@pytest.mark.parametrize(("text", "most"), [("50000 100000", 1), ("290000 100000", 2), ("max 100000", 999), ("?", 999)])
def test_a_container_s_share_of_the_cores_counts(tmp_path: Path, text: str, most: int) -> None:
    (tmp_path / "cpu.max").write_text(text, encoding="utf-8")
    assert usable_cores(tmp_path / "cpu.max") == min(most, usable_cores(tmp_path / "absent"))


def test_threads_are_shared_between_processes_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    monkeypatch.setenv("OMP_NUM_THREADS", str(before))
    try:
        settle_threads()
        assert torch.get_num_threads() == before
        monkeypatch.delenv("OMP_NUM_THREADS")
        settle_threads()
        assert torch.get_num_threads() == 1
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(9))
        cores = usable_cores()
        for own, processes, share in ((8, "3", max(1, cores // 3)), (2, "1", min(2, cores))):
            torch.set_num_threads(own)
            monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
            settle_threads()
            assert torch.get_num_threads() == share
        monkeypatch.delenv("LOCAL_WORLD_SIZE")
        settle_threads()
        assert torch.get_num_threads() == min(2, usable_cores())
    finally:
        torch.set_num_threads(before)


def test_idle_threads_do_not_spin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured at 11 times on a busy machine; the benchmark keeps torch's own setting, so does the user's."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert cli.main(["benchmark", "--nonsense"]) == 2
    assert "OMP_WAIT_POLICY" not in os.environ
    cli.main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    cli.main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_processes_that_nobody_started_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"the environment has no RANK: start it with torchrun or tools/dist_train\.sh"):
        check_launcher("pytorch")
    monkeypatch.setattr("mmms_plugin.train.processes.on_cpu", lambda: True)
    for launcher in ("slurm", "mpi"):
        with pytest.raises(UserError, match=f"--launcher {launcher}: torch sees no GPU; on CPUs start torchrun"):
            check_launcher(launcher)
    check_launcher("none")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        with pytest.raises(UserError, match=f"the environment has no {name}:"):
            check_launcher("pytorch")
        monkeypatch.setenv(name, "1")
    check_launcher("pytorch")
    monkeypatch.setattr("mmms_plugin.train.processes.on_cpu", lambda: False)
    check_launcher("slurm")


def test_data_are_loaded_without_workers_where_they_cannot_share_memory(tmp_path, monkeypatch):
    """As in containers without /dev/shm."""
    monkeypatch.setattr("sys.platform", "linux")
    config = dict(train_dataloader=dict(num_workers=2), val_dataloader=dict(num_workers=0), test_dataloader=None)
    assert use_no_workers(config, shared=tmp_path) == []
    assert config["train_dataloader"]["num_workers"] == 2
    (remark,) = use_no_workers(config, shared=tmp_path / "absent")
    assert "absent cannot be written" in remark
    assert config["train_dataloader"]["num_workers"] == 0
    assert use_no_workers(config, shared=tmp_path / "absent") == [], "nothing is left to change"
    for split in ("val", "test"):
        assert use_no_workers({f"{split}_dataloader": dict(num_workers=2)}, shared=tmp_path / "absent")
    monkeypatch.setattr("sys.platform", "win32")
    assert use_no_workers(dict(train_dataloader=dict(num_workers=2)), shared=tmp_path / "absent") == []
