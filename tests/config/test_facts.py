"""What is read from a config without building its network: task, method, sizes, anchors, and what can be changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmms_plugin.config.facts as facts_module
from mmms_plugin.commands import main
from mmms_plugin.commands.stress_test import resized
from mmms_plugin.commands.stress_test import test_side as side_of
from mmms_plugin.config.detector_facts import anchors_of, has_objects, options_of, strides_of, with_changes
from mmms_plugin.config.facts import Facts, method_name, picture_size, task_name
from mmms_plugin.errors import UserError


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (dict(type="EncoderDecoder", decode_head={}), "semantic segmentation"),
        (dict(type="MaskRCNN", roi_head=dict(mask_head={})), "instance segmentation"),
        (dict(type="mmpretrain.ImageClassifier"), "classification"),
        (dict(type="RetinaNet"), "object detection"),
    ],
)
def test_the_task_of_a_model(model, task):
    assert task_name(model) == task


@pytest.mark.parametrize(
    ("backbone", "method"),
    [
        (dict(type="mmms_plugin.PSResNet"), "PSConv"),
        (dict(type="PSResNet", dilation_pattern=(1, 1)), "plain"),
        (dict(type="ElasticResNeXt"), "plain"),
        (dict(type="ElasticResNeXt", elastic="none"), "plain"),
        (dict(type="DLA", elastic=False), "plain"),
        (dict(type="DLA", elastic=True), "ELASTIC"),
        (dict(type="ElasticDenseNet", elastic="simple"), "ELASTIC"),
        (dict(type="ShapeAdaptorVGG"), "Shape Adaptor"),
        (dict(type="ShapeAdaptorVGG", mode="human"), "plain"),
        (dict(type="mmms_plugin.MSDNet"), "MSDNet"),
        (dict(type="ResNet"), "plain"),
        (dict(type="ResNet", conv_cfg=None), "plain"),
        (dict(type="ResNet", conv_cfg=dict(type="mmms_plugin.PSConv")), "PSConv"),
    ],
)
def test_the_method_of_a_backbone(backbone, method):
    assert method_name(dict(backbone=backbone)) == method


@pytest.mark.parametrize(
    ("model", "steps", "size"),
    [
        (dict(type="X", decode_head={}), [dict(type="RandomCrop", crop_size=(513, 257))], (513, 257)),
        (dict(type="X"), [dict(type="Resize", scale=(1333, 800))], (800, 1344)),
        (dict(type="X"), [dict(type="Resize", scale=(1344, 801))], (832, 1344)),
        (dict(type="X", mask_head={}), [dict(type="A"), dict(type="Resize", scale=33), dict(type="B")], (64, 64)),
        (dict(type="ImageClassifier"), [dict(type="ResizeEdge", scale=256), dict(type="CenterCrop", crop_size=224)],
         (224, 224)),
        (dict(type="ImageClassifier"), [dict(type="Resize", scale=(33, 31))], (31, 33)),
    ],
)  # fmt: skip
def test_the_size_of_a_picture_is_padded_as_detectors_do(model, steps, size):
    config = Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=steps))))
    assert picture_size(config) == size


def test_only_new_configs_are_measured_unless_all_are_asked_for(tmp_path, monkeypatch, capsys):
    heads = {"new": "# It gives 39.4 box AP and 35.6 mask AP here.\na = 1\n# 9 top-1 error of 5", "known": "#\n# top-1 "
             "error of 22.5, and more", "last": "# reports 78.8 mIoU, of others"}  # fmt: skip
    paths = {}
    for name, text in heads.items():
        paths[name] = tmp_path / f"{name}.py"
        paths[name].write_text(text, encoding="utf-8")
    listing = tmp_path / "list.json"
    known = Facts("known", "t", "m", 1, 2, (3, 4), "old")
    listing.write_text(json.dumps([vars(known)]), encoding="utf-8")
    monkeypatch.setattr(facts_module, "FACTS_FILE", listing)
    monkeypatch.setattr(facts_module, "config_names", lambda: paths)
    monkeypatch.setattr(facts_module, "facts_of", lambda name: Facts(name, "t", "m", 9, 9, (9, 9), ""))
    for again, params in ((False, [9, 1, 9]), (True, [9, 9, 9])):
        facts_module.measure_all(again)
        lines = listing.read_text(encoding="utf-8").splitlines()
        assert (lines[0], lines[-1], len(lines)) == ("[", "]", 5)
        entries = json.loads("\n".join(lines))
        assert [entry["name"] for entry in entries] == list(heads)
        assert [entry["params"] for entry in entries] == params
        assert [entry["published"] for entry in entries] == [
            "39.4 box AP and 35.6 mask AP", "22.5 % top-1 error", "78.8 mIoU",
        ]  # fmt: skip


def test_the_list_is_sorted_by_task_and_shows_what_is_not_measured_yet(monkeypatch, capsys):
    measured = [
        Facts("b", "classification", "PSConv", 1_250_000, 500_000_001, (32, 64), "5.5 % top-1 error"),
        Facts("a", "classification", "plain", 1_000_000, 500_000_000, (32, 64), ""),
        Facts(
            "d", "object detection", "plain", 44_400_000, 148_500_000_000, (800, 1344), "39.4 box AP and 35.6 mask AP"
        ),
    ]
    monkeypatch.setattr(facts_module, "read_facts", lambda: {facts.name: facts for facts in measured})
    monkeypatch.setattr("mmms_plugin.config.files.config_names", lambda: ["b", "a", "d", "n"])
    assert main(["configs"]) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    for row in (["b", "PSConv", "1.2", "0.5", "5.5"], ["a", "plain", "1.0", "0.500"], ["n"],
                ["d", "plain", "44.4", "148.5", "39.4/35.6"], ["params", "box/mask"], ["params", "top-1"]):  # fmt: skip
        assert row in lines or any(line[: len(row)] == row for line in lines), row
    titles = ("not measured yet", "classification, pictures of 32 x 64 px", "object detection, pictures of 800 x 1344")
    places = [printed.find(title) for title in titles]
    assert places == sorted(places)
    assert places[0] >= 0


PLAIN, CONV, PATTERN = "model.backbone.dilation_pattern", "model.backbone.conv_cfg", (1, 2, 1, 4)


def detector(backbone: dict[str, Any], **model: Any) -> Config:
    return Config(dict(model=dict(backbone=backbone, **model)))


@pytest.mark.parametrize(
    ("backbone", "plain", "multi_scale", "others"),
    [
        (dict(type="mmms_plugin.PSResNet"), {PLAIN: (1, 1, 1, 1)}, {PLAIN: PATTERN}, ""),
        (dict(type="PSResNet", dilation_pattern=[2, 1]), {PLAIN: (1, 1, 1, 1)}, {PLAIN: (2, 1)}, ""),
        (dict(type="PSResNet", dilation_pattern=[1, 1]), None, {PLAIN: PATTERN}, ""),
        (dict(type="ResNet", conv_cfg=dict(type="mmms_plugin.PSConv", axes="input")),
         {CONV: None}, {CONV: dict(type="mmms_plugin.PSConv", axes="input")}, ""),
        (dict(type="ResNet", conv_cfg=dict(type="ElasticConv")), None, None, "ElasticConv"),
        (dict(type="ResNet", conv_cfg=dict(type="DCN")), None, None, ""),
        (dict(type="HRNet"), None, None, ""),
        (dict(type="HRNet", conv_cfg=dict(type="mmms_plugin.PSConv")), None, None, ""),
        (dict(type="mmms_plugin.DLA"), None, None, ""),
        (dict(type="mmms_plugin.DLA", elastic=False), None, None, ""),
        (dict(type="mmms_plugin.DLA", elastic=True), None, None, "DLA"),
        (dict(type="mmms_plugin.MSDNet"), None, None, "MSDNet"),
        (dict(type="ShapeAdaptorResNet"), None, None, "ShapeAdaptorResNet"),
        (dict(type="ShapeAdaptorResNet", mode="human"), None, None, ""),
    ],
)  # fmt: skip
def test_the_multi_scale_form_of_a_backbone_and_its_plain_one(backbone, plain, multi_scale, others):
    options = options_of(detector(backbone))
    assert (options.plain, options.multi_scale, options.other_layers) == (plain, multi_scale, others)
    assert (options.two_stage, options.scales, options.finer, options.finer_anchors) == (False, None, None, None)
    assert options_of(detector(backbone, roi_head={})).two_stage


@pytest.mark.parametrize(
    ("backbone", "changes"),
    [
        (dict(type="ResNet", depth=50), dict(norm_eval=True, stem_channels=64)),
        (dict(type="ResNet", depth=50, conv_cfg=dict(type="Conv2d"), base_channels=8, norm_eval=False),
         dict(conv_cfg=None, stem_channels=8)),
        (dict(type="ResNeXt", groups=32), dict(norm_eval=True, stem_channels=64, base_width=4)),
        (dict(type="ResNeXt", groups=1), dict(norm_eval=True, stem_channels=64)),
        (dict(type="ResNetV1d", stem_channels=32), dict(norm_eval=True, deep_stem=True, avg_down=True)),
        (dict(type="ResNet", pretrained="x.pth"),
         dict(norm_eval=False, stem_channels=64, frozen_stages=-1, pretrained=None,
              init_cfg=dict(type="Pretrained", checkpoint="x.pth"))),
        (dict(type="ResNet", init_cfg=dict(type="X"), frozen_stages=1, norm_eval=True),
         dict(norm_eval=False, stem_channels=64, frozen_stages=-1)),
    ],
)  # fmt: skip
def test_a_resnet_becomes_a_psresnet_with_the_defaults_of_mmdet(backbone, changes):
    expected = dict(type="mmms_plugin.PSResNet", dilation_pattern=PATTERN) | changes
    found = options_of(detector(backbone)).multi_scale
    assert found == {f"model.backbone.{key}": value for key, value in expected.items()}


@pytest.mark.parametrize(
    ("generator", "scales"),
    [
        (dict(type="AnchorGenerator", scales=[4, 8], strides=[4], ratios=[1.0]), ("scales", (4.0, 8.0))),
        (dict(type="AnchorGenerator", octave_base_scale=3, scales_per_octave=1, strides=[4], ratios=[1.0]),
         ("octave_base_scale", (3.0,))),
        (dict(type="SSDAnchorGenerator", scales=[4], strides=[4], ratios=[[2]], basesize_ratio_range=(0.1, 0.9)), None),
        (None, None),
    ],
)  # fmt: skip
def test_the_scales_of_anchors_can_be_set_where_there_are_some(generator, scales):
    head = {} if generator is None else dict(anchor_generator=generator)
    found = options_of(detector(dict(type="HRNet"), rpn_head=head)).scales
    assert found == (scales and (f"model.rpn_head.anchor_generator.{scales[0]}", scales[1]))


def test_strides_and_anchors_of_heads():
    init_default_scope("mmdet")
    generator = dict(type="AnchorGenerator", scales=[2], strides=[(4, 4), 8], ratios=[1.0])
    two_stage = detector({}, rpn_head=dict(anchor_generator=generator), bbox_head=dict(strides=[64]))
    assert strides_of(two_stage, 2) == (4, 8)
    assert anchors_of(two_stage).tolist() == [[8, 8, 4, 4], [16, 16, 8, 8]]
    points = detector({}, bbox_head=dict(prior_generator=dict(strides=[8, 16])))
    assert strides_of(points, 2) == (8, 16)
    assert anchors_of(points) is None
    assert (
        anchors_of(detector({}, bbox_head=dict(anchor_generator=dict(type="MlvlPointGenerator", strides=[8])))) is None
    )
    assert strides_of(detector({}, bbox_head=dict(strides=(32,))), 2) == (32,)
    assert strides_of(detector({}, bbox_head=dict(strides=[])), 2) == (2,)
    assert strides_of(detector({}, bbox_head=[dict(strides=[4])]), 2) == (2,)  # a list of heads


@pytest.mark.parametrize(
    ("change", "finer"),
    [
        ({}, True),
        ({"model.neck.start_level": 2}, True),
        ({"model.neck.start_level": 0}, False),
        ({"model.neck.start_level": None}, False),
        ({"model.neck.type": "PAFPN"}, False),
        ({"model.neck": None}, False),
        ({"model.bbox_head.anchor_generator.strides": []}, False),
        ({"model.bbox_head.anchor_generator": None}, False),
        ({"model.backbone.out_indices": (1, 2, 3)}, False),
        ({"model.backbone.out_indices": (0, 1)}, True),
        ({"model.rpn_head": {}}, False),  # two stages: its pyramid begins at the first
    ],
)
def test_a_finer_level_is_offered_where_the_backbone_has_it(change, finer):
    init_default_scope("mmdet")
    generator = dict(type="AnchorGenerator", scales=[2], strides=[8, 16], ratios=[1.0])
    neck = dict(type="mmdet.FPN", start_level=1, num_outs=5)
    config = with_changes(detector(dict(type="HRNet"), neck=neck, bbox_head=dict(anchor_generator=generator)), change)
    found = options_of(config)
    if not finer:
        assert (found.finer, found.finer_anchors) == (None, None)
        return
    start = config.model.neck.start_level
    assert found.finer == {
        "model.neck.start_level": start - 1, "model.neck.num_outs": 6,
        "model.bbox_head.anchor_generator.strides": [4, 8, 16],
    }  # fmt: skip
    assert found.finer_anchors[:, 2].tolist() == [4, 8, 16]


def test_only_detectors_with_a_backbone_can_be_measured():
    assert has_objects(detector(dict(type="X")))
    assert not has_objects(detector(dict(depth=1)))
    assert not has_objects(Config({}))
    assert not has_objects(Config(dict(model=dict(type="X"))))


@pytest.mark.parametrize(
    ("steps", "size", "expected"),
    [
        ([dict(type="Resize", scale=(64, 32))], 128, {"0.scale": (128, 128), "batch_size": 4}),
        ([dict(type="Resize", scale=(64, 32))], 32, {"0.scale": (32, 32), "batch_size": 16}),
        ([dict(type="Resize", scale=(64, 32))], 1024, {"0.scale": (1024, 1024), "batch_size": 1}),
        ([dict(type="X"), dict(type="mmpretrain.ResizeEdge", scale=256), dict(type="CenterCrop", crop_size=224)], 448,
         {"1.scale": 512, "2.crop_size": 448, "batch_size": 4}),
    ],
)  # fmt: skip
def test_pictures_of_a_stress_test_have_one_size_and_batches_the_same_memory(steps, size, expected):
    config = Config(dict(test_dataloader=dict(batch_size=16, dataset=dict(pipeline=steps))))
    places = {key: f"test_dataloader.{'' if key == 'batch_size' else 'dataset.pipeline.'}{key}" for key in expected}
    assert resized(config, size) == {places[key]: value for key, value in expected.items()}
    assert side_of(config) == (224 if len(steps) > 1 else 64)
    config.test_dataloader.dataset.pipeline = [dict(type="ResizeEdge", scale=256)]
    with pytest.raises(UserError, match="stress-test: the config's test pipeline has no Resize or CenterCrop"):
        resized(config, size)
