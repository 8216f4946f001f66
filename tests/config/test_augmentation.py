"""Presets of augmentation: every one gives pictures with boxes and masks that fit them, for each task."""

from __future__ import annotations

import copy

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS

from mmms_plugin.config.augmentation import PRESETS, STEPS, augment
from mmms_plugin.config.files import load_config
from mmms_plugin.errors import UserError
from mmms_plugin.registry import use_scope
from mmms_plugin.train.launch import prepare_config
from mmms_plugin.train.options import LaunchOptions


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("demo/mask_rcnn_ps_r18_shapes", "coco_dir"),
        ("deeplabv3_ps_r50_voc12aug", "voc_dir"),
        pytest.param("imagenet/ps_resnet50", "image_dir", marks=pytest.mark.slow),  # imports mmpretrain
    ],
)
def test_pictures_boxes_and_masks_fit_each_other(shapes, tmp_path, name: str, data: str) -> None:
    prepared, _ = prepare_config(LaunchOptions(config=name, work_dir=str(tmp_path), **{data: str(shapes)}))
    use_scope(prepared.default_scope)
    for preset in PRESETS:
        config = copy.deepcopy(prepared)
        remark = augment(config, preset)
        assert remark.startswith(f"--augment {preset}: RandomFlip, ")
        assert remark.endswith(" in place of the config's RandomFlip")
        dataset = DATASETS.build(config.train_dataloader.dataset)
        for i in range(4):
            packed = dataset[i % len(dataset)]
            height, width = packed["inputs"].shape[-2:]
            sample = packed["data_samples"]
            assert sample.img_shape[:2] == (height, width)
            if data == "coco_dir":
                boxes = sample.gt_instances.bboxes.tensor
                assert ((boxes >= 0) & (boxes <= boxes.new_tensor([width, height] * 2))).all()
                assert sample.gt_instances.masks.masks.shape == (len(boxes), height, width)
            elif data == "voc_dir":
                assert sample.gt_sem_seg.data.shape[-2:] == (height, width)


def test_a_crop_of_the_config_is_the_only_one() -> None:
    pipeline = [dict(type="LoadImageFromFile"), dict(type="mmdet.RandomCrop", crop_size=(640, 640)),
                dict(type="YOLOXHSVRandomAug"), dict(type="PackDetInputs")]  # fmt: skip
    mixed = dict(
        type="MultiImageMixDataset", dataset=dict(pipeline=[dict(type="LoadImageFromFile")]), pipeline=pipeline
    )
    config = Config(dict(default_scope="mmdet", train_dataloader=dict(dataset=mixed)))
    assert augment(config, "strong") == "--augment strong: RandomFlip, PhotoMetricDistortion"
    types = [step["type"].rpartition(".")[2] for step in config.train_dataloader.dataset.pipeline]
    assert types == ["LoadImageFromFile", "RandomCrop", "YOLOXHSVRandomAug", "RandomFlip", "PhotoMetricDistortion",
                     "PackDetInputs"]  # fmt: skip
    assert len(config.train_dataloader.dataset.dataset.pipeline) == 1
    assert STEPS["mmdet"]["strong"][1]["type"] == "mmdet.RandomCrop"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(default_scope="own"), "--augment light: default_scope='own'; must be mmdet, mmseg, mmpretrain"),
        ({"train_dataloader.dataset.pipeline": []}, "--augment light: the training data have no pipeline whose last"),
    ],
)
def test_a_config_without_a_place_for_it_is_refused(changes: dict, message: str) -> None:
    config = load_config("mask_rcnn_ps_r50_fpn_1x")
    config.merge_from_dict(changes)
    with pytest.raises(UserError, match=message):
        augment(config, "light")
