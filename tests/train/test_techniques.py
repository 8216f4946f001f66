"""Trainings with early stopping, averaged weights and the like, and their resumption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.device import get_device

from mmms_plugin.commands import main
from mmms_plugin.errors import UserError
from mmms_plugin.train.processes import on_device
from mmms_plugin.weights.reader import read

CONFIG = "demo/mask_rcnn_ps_r18_shapes"
ALL = ["--patience", "2", "--ema", "--accumulate", "2", "--fraction", "0.5", "--workers", "0", "--device", "cpu"]


def train(folder: Path, shapes: Path, iterations: int, *more: str) -> int:
    data = ["--coco-dir", str(shapes), "--work-dir", str(folder), "--seed", "4", "--image-size", "64"]
    length = ["--batch-size", "1", "--cfg-options", f"train_cfg.max_iters={iterations}", "train_cfg.val_interval=100",
              "default_hooks.checkpoint.interval=1", "default_hooks.checkpoint.max_keep_ckpts=-1"]  # fmt: skip
    return main(["train", CONFIG, *data, *ALL, *more, *length])


def test_a_training_with_all_techniques_resumes_to_the_same_weights(shapes, tmp_path, capfd) -> None:
    """After one of the two batches of a step."""
    assert train(tmp_path / "whole", shapes, 4) == 0
    printed = capfd.readouterr().out
    for line in ("--patience 2: stops after 2 evaluations without a better coco/", "--ema: averaged weights are",
                 "--fraction 0.5: a random share of the training", "batch norm sees each of them alone"):  # fmt: skip
        assert line in printed
    start = tmp_path / "whole/iter_3.pth"
    assert train(tmp_path / "parts", shapes, 4, "--resume", str(start)) == 0
    whole, parts = (read(tmp_path / name / "iter_4.pth") for name in ("whole", "parts"))
    for key in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(value, parts[key][name]) for name, value in whole[key].items()), key
    capfd.readouterr()
    assert train(tmp_path / "frozen", shapes, 4, "--freeze", "1") == 2
    message = capfd.readouterr().err
    assert "--freeze 1: the backbone starts from random weights; give --pretrained FILE" in message


def test_mmengine_computes_on_the_device_of_the_option(monkeypatch) -> None:
    monkeypatch.setattr("mmengine.device.utils.DEVICE", "cuda")
    with on_device("cpu"):
        assert get_device() == "cpu"
    with on_device(None):
        assert get_device() == "cuda"
    with pytest.raises(UserError, match=r"^--device gpu: allowed are cpu, cuda"), on_device("gpu"):
        pass
