"""What a task needs that is not installed everywhere, and which data it takes of a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmms_plugin.commands import main
from mmms_plugin.compat import hosts
from mmms_plugin.config.files import load_config
from mmms_plugin.data.own_data import OwnData
from mmms_plugin.datasets import write_shapes
from mmms_plugin.errors import UserError
from mmms_plugin.train.tasks import task_of


@pytest.mark.parametrize("command", ["train", "test", "early-exit", "predict"])
def test_a_missing_host_is_named(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hosts, "find_spec", lambda name: None if name == "torchvision" else object())
    checkpoint = tmp_path / "a.pth"
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, checkpoint)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    work, out = ["--work-dir", str(tmp_path / "work")], ["--out", str(tmp_path / "out")]
    more = {
        "train": work,
        "test": [str(checkpoint), *work],
        "early-exit": [str(checkpoint), *out, *work],
        "predict": [str(checkpoint), str(tmp_path / "a.png"), *out],
    }[command]
    assert main([command, "imagenet/msdnet_step4", *more]) == 2
    error = capsys.readouterr().err
    assert "this config is a classifier: torchvision, which mmpretrain imports, is not installed: install the" in error
    assert not (tmp_path / "work").exists()


CONFIGS = {
    "demo/mask_rcnn_ps_r18_shapes": "COCO", "demo/labels_ps_r18_shapes": "COCO",
    "deeplabv3_ps_r50_voc12aug": "pictures and masks of classes",
    "demo/msdnet_shapes": "a folder of pictures for each class",
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_each_task_takes_its_own_of_a_folder_that_holds_several_kinds(name, shapes, tmp_path):
    config = load_config(name)
    remarks = task_of(config).use_data(config._cfg_dict, OwnData("--data", shapes, tmp_path / "work"))
    pictures = ("12", "5") if "msdnet" in name else ("4", "2")  # one for each object
    found = "; train {} pictures, val {} pictures; ".format(*pictures)
    assert remarks[0].startswith(f"--data {shapes}: {CONFIGS[name]}{found}")
    assert config.train_dataloader.dataset


def test_labels_of_other_formats_are_given_to_hosts_as_coco_files(shapes, tmp_path):
    assert main(["convert-data", str(shapes), str(tmp_path / "yolo"), "--to", "yolo"]) == 0
    before = sorted(tmp_path.glob("yolo/**/*"))
    config = load_config("demo/mask_rcnn_ps_r18_shapes")
    own = OwnData("--data", tmp_path / "yolo/data.yaml", tmp_path / "work")
    remarks = task_of(config).use_data(config._cfg_dict, own)
    assert remarks[0].startswith(f"--data {own.yaml}: YOLO; train 4 pictures, val 2 pictures; ")
    ann = tmp_path / "work/annotations/train.json"
    assert config.train_dataloader.dataset.ann_file == str(ann)
    content = json.loads(ann.read_text(encoding="utf-8"))
    original = json.loads((shapes / "annotations/instances_train.json").read_text(encoding="utf-8"))
    kept = [record for record in original["annotations"] if not record["iscrowd"]]
    assert [record["area"] for record in content["annotations"]] == [record["area"] for record in kept]
    assert config.train_dataloader.dataset.data_prefix["img"] == f"{tmp_path / 'yolo/images/train'}{os.sep}"
    assert sorted(tmp_path.glob("yolo/**/*")) == before


@pytest.mark.parametrize(
    ("name", "layout", "more", "message"),
    [
        ("demo/msdnet_shapes", "coco", {}, "this config is a classifier, whose data are a folder of "),
        ("demo/mask_rcnn_ps_r18_shapes", "voc", {}, "this config is a detector, whose data are annotations"),
        ("demo/mask_rcnn_ps_r18_shapes", "coco", {"binary_masks": True}, "--binary-masks: belongs to --voc-dir"),
        ("deeplabv3_ps_r50_voc12aug", "voc", {"img_dir": Path()}, "--img-dir: belongs to --coco-dir, not to --data"),
    ],
)
def test_data_of_another_task_are_refused(name, layout, more, message, tmp_path):
    write_shapes(tmp_path / "data", train=2, val=1, size=64, formats=(layout,))
    config = load_config(name)
    with pytest.raises(UserError, match=message):
        task_of(config).use_data(config._cfg_dict, OwnData("--data", tmp_path / "data", tmp_path / "work", **more))
