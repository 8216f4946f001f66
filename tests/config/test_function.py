"""What of a config has no weights and decides what they compute: kept in checkpoints, and compared."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmms_plugin.config.checkpoint import check_function, check_resumed, start_remark
from mmms_plugin.config.function import Function, differences
from mmms_plugin.errors import UserError
from mmms_plugin.train.runner import ResumeHook
from mmms_plugin.weights.files import TRAINED, Checkpoint, read_checkpoint

STRIDES = [4, 8, 16, 32, 64]
DETECTOR: dict[str, Any] = dict(
    type="FasterRCNN",
    data_preprocessor=dict(type="DetDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type="ResNet", depth=18, norm_cfg=dict(type="BN", requires_grad=True)),
    neck=dict(type="FPN", in_channels=[64, 128, 256, 512], out_channels=64, num_outs=5),
    rpn_head=dict(
        type="RPNHead", in_channels=64, feat_channels=64,
        anchor_generator=dict(type="AnchorGenerator", scales=[8], ratios=[0.5, 1.0, 2.0], strides=STRIDES),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(type="SingleRoIExtractor", out_channels=64, featmap_strides=STRIDES[:4],
                                roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0)),
        bbox_head=dict(type="Shared2FCBBoxHead", in_channels=64, num_classes=3, reg_class_agnostic=False),
    ),
    train_cfg=dict(rpn=dict(allowed_border=-1)), test_cfg=dict(rcnn=dict(score_thr=0.05)),
)  # fmt: skip
SEGMENTER: dict[str, Any] = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True),
    backbone=dict(type="ResNetV1c", depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    decode_head=dict(type="FCNHead", in_channels=512, in_index=3, channels=64, num_classes=4, align_corners=False),
    auxiliary_head=dict(type="FCNHead", in_channels=256, in_index=2, channels=64, num_classes=4),
    test_cfg=dict(mode="whole"),
)
NORMALIZE = dict(type="Normalize", mean=[1.0] * 3, std=[2.0] * 3)
RESIZE = dict(type="Resize", scale=(64, 64))


def config_of(model: dict[str, Any], changes: dict[str, Any], steps: tuple[dict[str, Any], ...] = (RESIZE,)) -> Config:
    """A config with values set by dotted keys of the model; None removes a value."""
    model = deepcopy(model)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = model
        for parent in parents:
            place = place[parent]
        place[last] = value
        if value is None:
            del place[last]
    data = dict(type="CocoDataset", ann_file="a.json", pipeline=[dict(step) for step in steps])
    scope = "mmseg" if model is SEGMENTER or model["type"] == "EncoderDecoder" else "mmdet"
    return Config(dict(model=model, default_scope=scope, test_dataloader=dict(dataset=data)))


def told(model: dict[str, Any], changes: dict[str, Any]) -> list[str]:
    """What differs for a checkpoint of the model under the changed config, and the other way round."""
    plain, changed = Function.of(config_of(model, {})), Function.of(config_of(model, changes))
    lines, back = differences(plain, changed), differences(changed, plain)
    assert len(lines) == len(back)
    return lines


ANCHORS, ROI = "rpn_head.anchor_generator", "roi_head.bbox_roi_extractor"
OTHER = [
    (DETECTOR, {f"{ANCHORS}.scales": [2.83]}, f"{ANCHORS}.scales=[8], the config has [2.83]"),
    (DETECTOR, {f"{ANCHORS}.ratios": [0.4, 1.0, 2.5]}, f"{ANCHORS}.ratios=[0.5, 1.0, 2.0]"),
    (DETECTOR, {f"{ANCHORS}.strides": [8, 16, 32, 64, 128]}, f"{ANCHORS}.strides=[4, 8, 16, 32, 64]"),
    (DETECTOR, {f"{ANCHORS}.base_sizes": [5, 8, 16, 32, 64]}, f"{ANCHORS}.base_sizes=None"),
    (DETECTOR, {f"{ANCHORS}.center_offset": 0.5}, f"{ANCHORS}.center_offset=0.0, the config has 0.5"),
    (DETECTOR, {f"{ANCHORS}.type": "LegacyAnchorGenerator"}, f"{ANCHORS}.type='AnchorGenerator'"),
    (DETECTOR, {"rpn_head.bbox_coder.target_stds": [0.1, 0.1, 0.2, 0.2]}, "target_stds=[1.0, 1.0, 1.0, 1.0]"),
    (DETECTOR, {"roi_head.bbox_head.bbox_coder": dict(type="DeltaXYWHBBoxCoder", target_stds=[0.03] * 4)},
     "roi_head.bbox_head.bbox_coder.target_stds=[0.1, 0.1, 0.2, 0.2], the config has [0.03,"),
    (DETECTOR, {f"{ROI}.featmap_strides": [8, 16, 32, 64]}, f"{ROI}.featmap_strides=[4, 8, 16, 32]"),
    (DETECTOR, {"backbone.base_channels": 1024}, "backbone.base_channels=64, the config has 1024"),
    (DETECTOR, {"rpn_head.anchor_generator.octave_base_scale": 4}, "octave_base_scale=None, the config has 4"),
    (DETECTOR, {f"{ROI}.finest_scale": 28}, f"{ROI}.finest_scale=56, the config has 28"),
    (DETECTOR, {f"{ROI}.roi_layer.sampling_ratio": 2}, f"{ROI}.roi_layer.sampling_ratio=0"),
    (DETECTOR, {f"{ROI}.roi_layer.aligned": False}, f"{ROI}.roi_layer.aligned=True, the config has False"),
    (DETECTOR, {"roi_head.bbox_head.reg_class_agnostic": True}, "reg_class_agnostic=False"),
    (DETECTOR, {"rpn_head.loss_cls.use_sigmoid": False}, "rpn_head.loss_cls.use_sigmoid=True"),
    (DETECTOR, {"neck.add_extra_convs": "on_input"}, "neck.add_extra_convs=False, the config has 'on_input'"),
    (DETECTOR, {"backbone.norm_cfg": dict(type="BN", eps=1e-3)}, "backbone.norm_cfg.eps=1e-05"),
    (DETECTOR, {"backbone.strides": (1, 2, 2, 1)}, "backbone.strides=[1, 2, 2, 2]"),
    (DETECTOR, {"data_preprocessor.bgr_to_rgb": False}, "data_preprocessor.bgr_to_rgb=True, the config has False"),
    (DETECTOR, {"data_preprocessor.std": [1.0] * 3}, "data_preprocessor.std=[58.395"),
    (DETECTOR, {"data_preprocessor.std": None, "data_preprocessor.mean": None}, "data_preprocessor.mean=[123.675"),
    (SEGMENTER, {"decode_head.align_corners": True}, "decode_head.align_corners=False, the config has True"),
    (SEGMENTER, {"decode_head.dilation": 2}, "decode_head.dilation=1, the config has 2"),
    (SEGMENTER, {"backbone.dilations": (1, 1, 1, 2)}, "backbone.dilations=[1, 1, 2, 4]"),
    (SEGMENTER, {"backbone.contract_dilation": True}, "backbone.contract_dilation="),
]  # fmt: skip
SAME = [
    (DETECTOR, {f"{ANCHORS}.strides": [(4, 4), (8, 8), (16, 16), (32, 32), (64, 64)], f"{ANCHORS}.center_offset": 0.0}),
    (DETECTOR, {f"{ROI}.roi_layer.output_size": (7, 7), f"{ROI}.finest_scale": 56}),
    (DETECTOR, {"backbone.norm_cfg": dict(type="SyncBN"), "backbone.frozen_stages": 1, "backbone.norm_eval": True}),
    (DETECTOR, {"backbone.init_cfg": dict(type="Pretrained", checkpoint="x.pth"), "backbone.with_cp": True}),
    (
        DETECTOR,
        {"train_cfg": None, "test_cfg": dict(rcnn=dict(score_thr=0.5)), "rpn_head.bbox_coder.clip_border": True},
    ),
    (DETECTOR, {"rpn_head.loss_bbox": dict(type="SmoothL1Loss"), "rpn_head.loss_cls.loss_weight": 2.0}),
    (DETECTOR, {"data_preprocessor.mean": (123.68, 116.28, 103.53), "data_preprocessor.pad_size_divisor": 1}),
    (DETECTOR, {"rpn_head.anchor_generator.scales": (8.0,), "roi_head.bbox_head.num_classes": 4}),
    (DETECTOR, {"neck.conv_cfg": dict(type="Conv2d")}),
    (SEGMENTER, {"auxiliary_head": None, "decode_head.dropout_ratio": 0.5, "test_cfg": dict(mode="slide")}),
    (SEGMENTER, {"decode_head.loss_decode": dict(type="DiceLoss"), "decode_head.ignore_index": 3}),
]


@pytest.mark.parametrize(("model", "changes", "words"), OTHER)
def test_a_value_without_weights_is_part_of_the_function(model, changes, words):
    assert words in "; ".join(told(model, changes))


@pytest.mark.parametrize(("model", "changes"), SAME)
def test_defaults_and_values_of_training_are_not(model, changes):
    assert told(model, changes) == []


def test_steps_of_the_pipeline_that_change_values_count_and_sizes_do_not():
    plain, other = (Function.of(config_of(DETECTOR, {}, steps)) for steps in ((NORMALIZE,), (NORMALIZE, RESIZE)))
    assert differences(plain, other) == differences(plain, Function.of(Config(dict(model=DETECTOR)))) == []
    none = Function.of(config_of(DETECTOR, {}))
    assert "pipeline=[], the config has [{'type': 'Normalize'" in differences(none, plain)[0]
    grey = Function.of(config_of(DETECTOR, {}, (dict(NORMALIZE, to_rgb=False),)))
    assert differences(plain, grey) == ["pipeline.0.to_rgb=True, the config has False"]


def test_the_preprocessor_beside_a_model_is_its_own():
    """mmpretrain's configs have it there, and call the order of the channels to_rgb."""
    model = dict(type="ImageClassifier", backbone=dict(type="ResNet"), head=dict(type="LinearClsHead"))
    pixels = dict(mean=[1.0, 2.0, 3.0], std=[1.0] * 3)
    plain, other = (
        Function.of(Config(dict(model=model, data_preprocessor=dict(pixels, to_rgb=rgb)))) for rgb in (True, False)
    )
    assert differences(plain, other) == ["data_preprocessor.bgr_to_rgb=True, the config has False"]


@pytest.fixture
def saved(tmp_path) -> Checkpoint:
    """A checkpoint of DETECTOR for the classes a, b."""
    meta = {TRAINED: dict(Function.of(config_of(DETECTOR, {})).parts), "dataset_meta": {"classes": ("a", "b")}}
    torch.save({"state_dict": {"w": torch.zeros(1)}, "meta": meta}, tmp_path / "x.pth")
    return read_checkpoint(tmp_path / "x.pth")


def test_tests_and_resuming_refuse_another_function_and_new_trainings_say_it(saved):
    model, words = nn.Module(), r"rpn_head\.anchor_generator\.scales=\[8\], the config has \[4\]"
    own, plain = Function.of(config_of(DETECTOR, {f"{ANCHORS}.scales": [4]})), Function.of(config_of(DETECTOR, {}))
    with pytest.raises(UserError, match=rf"was trained with {words}.*--force"):
        check_function(model, own, saved, force=False)
    with pytest.raises(UserError, match=rf"--resume .* {words}.*load_from="):
        check_resumed(model, own, saved, None)
    assert "scales=[8]" in check_function(model, own, saved, force=True)
    assert "scales=[8]" in start_remark(model, own, "x.pth", saved, whole=True)
    assert start_remark(model, own, "x.pth", saved) is None  # of the backbone alone
    assert check_function(model, plain, saved, force=False, classes=("a", "b")) is None
    check_resumed(model, plain, saved, ("a", "b"))


def test_classes_in_another_order_are_refused(saved):
    plain = Function.of(config_of(DETECTOR, {}))
    for check in (lambda: check_function(nn.Module(), plain, saved, False, ("b", "a")),
                  lambda: check_resumed(nn.Module(), plain, saved, ("b", "a"))):  # fmt: skip
        with pytest.raises(UserError, match=r"class 0 a, the data has b there \(the same classes in another order\)"):
            check()
    assert check_function(nn.Module(), plain, saved, False, ("c", "a")) is None  # renamed: check_fits reports it


def test_a_file_that_says_nothing_gets_one_note(tmp_path):
    torch.save({"state_dict": {"w": torch.zeros(1)}, "meta": {}}, tmp_path / "x.pth")
    own, checkpoint = Function.of(config_of(DETECTOR, {})), read_checkpoint(tmp_path / "x.pth")

    def remark(own: Function, checkpoint: Any, **options: Any) -> str | None:
        return check_function(nn.Module(), own, checkpoint, force=False, **options)

    assert "does not say what it was trained with" in str(remark(own, checkpoint))
    assert remark(own, checkpoint, from_file=True) is None
    assert "does not say what it was trained with" in str(check_resumed(nn.Module(), own, checkpoint, None))
    only_backbone = replace(checkpoint, meta={"backbone": DETECTOR["backbone"]})
    assert "says only what its backbone was trained with" in str(remark(own, only_backbone))
    classifier = Function({"type": "ImageClassifier", "backbone": DETECTOR["backbone"], "head": {}})
    assert remark(classifier, only_backbone) is None


def test_trainings_keep_the_whole_config_of_the_model(tmp_path):
    runner = SimpleNamespace(
        cfg=config_of(DETECTOR, {}), _randomness_cfg={}, evaluations=None, optim_wrapper=SimpleNamespace()
    )
    content: dict[str, Any] = {"meta": {}, "state_dict": {"w": torch.zeros(1)}}
    ResumeHook().before_save_checkpoint(runner, content)
    torch.save(content, tmp_path / "x.pth")
    kept = read_checkpoint(tmp_path / "x.pth").meta[TRAINED]
    assert differences(Function(kept), Function.of(config_of(DETECTOR, {}))) == []
    assert set(kept) >= {"type", "neck", "rpn_head", "roi_head", "data_preprocessor", "pipeline"}
