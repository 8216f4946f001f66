"""``mmms check-data``: all problems at once, as a table and as JSON; status 2 where training would stop."""

from __future__ import annotations

import json
import shutil

import pytest

from mmms_plugin.cli import main
from tests.data.small_sets import coco_content, write_coco


@pytest.fixture
def folder(tmp_path):
    """Roboflow's layout."""
    for i, split in enumerate(("train", "valid")):
        write_coco(tmp_path / "set", coco_content(3 * i), f"{split}/_annotations.coco.json", split)
    return tmp_path / "set"


def test_a_sound_data_set(folder, tmp_path, capsys):
    report = tmp_path / "report.json"
    assert main(["check-data", str(folder), "--json", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "train: 3 images, 6 objects, 6 masks, classes: 2" in printed
    assert "0 errors, 0 remarks: training would start" in printed
    content = json.loads(report.read_text(encoding="utf-8"))
    assert content["trains"] is True
    assert content["splits"]["val"]["images"] == 3
    assert content["findings"] == []


def test_all_problems_are_listed_at_once(folder, tmp_path, capsys):
    path = folder / "train/_annotations.coco.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][0]["bbox"] = [1, 2, -3, 4]
    content["annotations"][1]["category_id"] = 9
    content["annotations"][2].pop("area")
    content["images"][2]["file_name"] = "[red]gone\x1b.jpg"
    path.write_text(json.dumps(content), encoding="utf-8")
    shutil.copy(folder / "train/p1.jpg", folder / "valid/p3.jpg")
    assert main(["check-data", str(folder), "--out", str(tmp_path / "report.json")]) == 2
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    found = {(finding["code"], finding["severity"]) for finding in report["findings"]}
    assert found == {
        ("box-negative", "error"), ("unknown-category", "error"), ("picture-missing", "error"), ("area", "mended"),
        ("picture-in-two-splits", "warning"), ("picture-not-listed", "warning"),
    }  # fmt: skip
    assert report["trains"] is False
    assert "3 errors, 3 remarks: training would stop" in printed
    assert "[red]gone" in printed
    assert "\x1b" not in printed
    (leak,) = (finding for finding in report["findings"] if finding["code"] == "picture-in-two-splits")
    assert leak["examples"] == ["train: p1.jpg = val: p3.jpg"]


def test_one_annotation_file(folder, capsys):
    path = folder / "valid/_annotations.coco.json"
    assert main(["check-data", "--ann", str(path)]) == 0
    path.write_text("[1, 2", encoding="utf-8")
    assert main(["check-data", "--ann", str(path)]) == 2
    assert "annotation files that cannot be read" in capsys.readouterr().out


def test_boxes_alone(folder):
    path = folder / "train/_annotations.coco.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert main(["check-data", str(folder)]) == 2
    assert main(["check-data", str(folder), "--boxes"]) == 0


def test_a_folder_of_masks(shapes, tmp_path, capsys):
    shutil.copytree(shapes / "JPEGImages", tmp_path / "images")
    shutil.copytree(shapes / "SegmentationClass", tmp_path / "masks")
    shutil.copy(tmp_path / "images/train_000000.jpg", tmp_path / "images/twice.jpg")
    shutil.copy(tmp_path / "masks/train_000000.png", tmp_path / "masks/twice.png")
    assert main(["check-data", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "train: 7 images, 7 masks" in printed
    assert "pictures with the same content" in printed
    assert main(["check-data", str(shapes), "--seg"]) == 0
    assert "train: 4 images, 4 masks" in capsys.readouterr().out
    assert "--val-split 0.2" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of DIR and --ann FILE"),
        (["nowhere"], "check-data nowhere: no such folder"),
        (["."], "neither COCO annotations nor masks; found: nothing"),
    ],
)
def test_wrong_use_is_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["check-data", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
