"""`mmms train` and bad values, folders and checkpoints: one line, status 2, and nothing is written."""

from __future__ import annotations

import json
import shutil

import pytest
from mmengine.runner import Runner

from mmms_plugin.commands import main
from mmms_plugin.errors import UserError
from mmms_plugin.train.runner import CheckedBuilds

CONFIG = "demo/mask_rcnn_ps_r18_shapes"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", CONFIG, *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_values_and_folders(shapes, tmp_path, capsys):
    (tmp_path / "file").touch()
    coco = ["--coco-dir", str(shapes)]
    new = ["--work-dir", str(tmp_path / "new")]
    line = refused(capsys, *coco, *new, "--cfg-options", "train_dataloader.batch_size=0")
    assert "train_dataloader.batch_size=0: must be an integer of at least 1" in line
    assert "this folder cannot be made" in refused(capsys, *coco, "--work-dir", str(tmp_path / "file/work"))
    assert "--val-split 1.5: must be above 0 and below 1" in refused(capsys, *coco, *new, "--val-split", "1.5")
    assert "give one of them" in refused(capsys, *coco, "--voc-dir", str(shapes), *new)
    assert "has annotations for validation already" in refused(capsys, *coco, *new, "--val-split", "0.2")
    assert "--train-ann nowhere.json: no such file" in refused(capsys, "--train-ann", "nowhere.json", *new)
    assert "name the data too" in refused(capsys, *new, "--val-split", "0.2")
    assert not (tmp_path / "new").exists()


def test_data_that_would_train_silently_wrong(shapes, tmp_path, capsys):
    folder = tmp_path / "set"
    shutil.copytree(shapes, folder)
    path = folder / "annotations/instances_train.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][0]["bbox"][2] = float("nan")
    content["annotations"][1]["bbox"][2] = -5
    path.write_text(json.dumps(content), encoding="utf-8")
    line = refused(capsys, "--coco-dir", str(folder), "--work-dir", str(tmp_path / "new"))
    assert "boxes with NaN" in line
    assert "also boxes with a negative width or height" in line
    assert f"mmms check-data {folder} lists everything" in line
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_with_anything_in_place_of_states(monkeypatch):
    class Resumed:
        _load_from = "odd.pth"

    def fail(self: Runner) -> None:
        raise AttributeError("'int' object has no attribute 'items'")

    monkeypatch.setattr(Runner, "load_or_resume", fail)
    with pytest.raises(UserError, match=r"^checkpoint odd.pth: AttributeError: 'int' object has no"):
        CheckedBuilds.load_or_resume(Resumed())


@pytest.mark.parametrize("command", [["size-ap", "--ann"], ["check-data"], ["check-data", "--ann"], ["flops"]])
def test_a_path_that_is_too_long_is_one_line(command, capsys):
    assert main([*command, "x" * 5000]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"mmms {command[0]}: error: ")
    assert (printed.out, printed.err.count("\n")) == ("", 1)
