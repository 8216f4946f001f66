"""``mmms demo`` without its training: what it draws, keeps and prints, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import mmms_plugin.datasets as datasets
import mmms_plugin.train.launch as launch
from mmms_plugin.commands import main
from mmms_plugin.datasets import write_shapes
from mmms_plugin.train.options import EvaluateOptions, TrainOptions

SUFFIXES = ("", "_50", "_75", "_s", "_m", "_l")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list:
    """How the training and the evaluation were called; both do nothing but print."""
    found: list = []

    def train(options: TrainOptions) -> SimpleNamespace:
        print("the log of mmengine")
        found.append(options)
        return SimpleNamespace(iter=3)

    def evaluate(options: EvaluateOptions) -> dict[str, float]:
        found.append(options.checkpoint)
        Path(str(options.out)).write_text("[]", encoding="utf-8")
        values = [0.5, 0.25, 0.125, float("nan"), 0.0, 1.0]
        metrics = {}
        for key, share in (("bbox", 1), ("segm", 0.5)):
            metrics |= {
                f"coco/{key}_mAP{suffix}": value * share for suffix, value in zip(SUFFIXES, values, strict=True)
            }
        return metrics

    def few_shapes(out: Path, **options: Any) -> None:
        assert options == dict(formats="coco", colours=True)
        write_shapes(out, train=1, val=2, size=96, **options)

    monkeypatch.setattr(launch, "train", train)
    monkeypatch.setattr(launch, "evaluate", evaluate)
    monkeypatch.setattr(datasets, "write_shapes", few_shapes)
    return found


def test_everything_is_written_and_an_earlier_demo_is_replaced(calls, tmp_path, capsys, monkeypatch):
    out = tmp_path / "new/demo"
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["demo", "--out", str(out), "--iterations", "1", "--seed", "7"]) == 0
    printed = capsys.readouterr().out
    (options, checkpoint) = calls
    assert (options.config, options.coco_dir, options.work_dir, options.seed) == (
        "demo/mask_rcnn_ps_r18_shapes", str(out / "data"), str(out / "train"), 7,
    )  # fmt: skip
    assert options.schedule.iters == 1
    assert checkpoint == str(out / "train/iter_3.pth")
    lines = [line.split() for line in printed.splitlines()]
    assert ["box", "0.500", "0.250", "0.125", "n/a", "0.000", "1.000"] in lines
    assert ["mask", "0.250", "0.125", "0.062", "n/a", "0.000", "0.500"] in lines
    assert [line.split()[0] for line in printed.splitlines() if "/4 " in line] == ["1/4", "2/4", "3/4", "4/4"]
    assert "done in 0.0 minutes" in printed or "done in 0." in printed
    assert "the log of mmengine" not in printed
    assert "the log of mmengine" in (out / "log.txt").read_text(encoding="utf-8")
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8"))["coco/segm_mAP_50"] == 0.125
    for name in ("overlays.png", "ap_by_size.png"):
        assert Image.open(out / name).width > 300
        assert f"{out / name}  " in printed
    (out / "train").mkdir()
    (out / "train/old.pth").touch()
    (out / "link").symlink_to(tmp_path)
    calls.clear()
    assert main(["demo", "--out", str(out)]) == 0
    assert not (out / "train").exists()
    assert not (out / "link").is_symlink()
    assert calls[0].schedule.iters is None  # the config's own length
    assert calls[0].seed == 0


def test_other_folders_are_left_alone_and_empty_ones_are_used(calls, tmp_path, capsys):
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file"):
        assert main(["demo", "--out", str(out)]) == 2
        assert f"--out {out}: holds something other than an earlier demo" in capsys.readouterr().err
    assert main(["demo", "--out", str(tmp_path / "file/inside")]) == 2
    assert "cannot be cleared (" in capsys.readouterr().err
    assert calls == []
    (tmp_path / "empty").mkdir()
    assert main(["demo", "--out", str(tmp_path / "empty")]) == 0
