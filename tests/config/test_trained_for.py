"""Weights under another config than they were trained with: reported, although every shape fits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import get_state_dict, weights_to_cpu
from torch import nn

from mmms_plugin.config.checkpoint import check_function as check_read
from mmms_plugin.config.checkpoint import start_of
from mmms_plugin.config.checkpoint import start_remark as remark_of
from mmms_plugin.config.function import Function
from mmms_plugin.errors import UserError
from mmms_plugin.weights.files import TRAINED, read_checkpoint
from mmms_plugin.weights.publish import publish

PS = dict(type="mmms_plugin.PSResNet", depth=18, out_indices=(3,))
PLAIN = dict(PS, dilation_pattern=(1, 1, 1, 1))
HOST = dict(type="mmdet.ResNet", depth=18, out_indices=(3,), norm_cfg=dict(type="BN", requires_grad=True))
V1C = dict(type="mmseg.ResNetV1c", depth=18, out_indices=(3,))
D8 = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
LAYERS = dict(HOST, conv_cfg=dict(type="mmms_plugin.PSConv"))
PIXELS = dict(type="DetDataPreprocessor", mean=[123.675, 116.28, 103.53], bgr_to_rgb=True, pad_size_divisor=32)


def checkpoint(folder: Path, backbone: dict[str, Any] | None, converted: bool = False, **more: Any) -> str:
    """A file that says what it was trained for: as mmms train does it, or as mmms convert does."""
    model = dict(type="FasterRCNN", data_preprocessor={**PIXELS, **more}, backbone=backbone)
    meta = dict(model) if converted else {TRAINED: dict(Function.of(Config(dict(model=model))).parts)}
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {} if backbone is None else meta}, folder / "x.pth")
    return str(folder / "x.pth")


def check_function(model: nn.Module, own: Function, path: str, force: bool) -> str | None:
    return check_read(model, own, read_checkpoint(path), force)


def start_remark(model: nn.Module, own: Function, path: str) -> str | None:
    return remark_of(model, own, path, start_of(path))


def function(**parts: Any) -> Function:
    """Of a config's model; of which only these parts are compared."""
    return Function(parts, "mmdet")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.device("meta"):
        return nn.ModuleDict({"backbone": MODELS.build(dict(PS))})


SAME = [(PS, dict(PS, frozen_stages=1, dilation_pattern=[1, 2, 1, 4])), (PLAIN, HOST), (HOST, PLAIN), (PS, LAYERS),
        (LAYERS, PS), (dict(PLAIN, deep_stem=True, **D8), dict(V1C, **D8)), (None, PS),
        (HOST, dict(HOST, norm_cfg=dict(type="SyncBN"), norm_eval=True))]  # fmt: skip
OTHER = [
    (PS, PLAIN, "backbone.dilation_pattern=[1, 2, 1, 4], the config has [1]"),
    (PS, HOST, "backbone.dilation_pattern=[1, 2, 1, 4], the config has [1]"),
    (HOST, PS, "backbone.dilation_pattern=[1], the config has [1, 2, 1, 4]"),
    (HOST, LAYERS, "backbone.dilation_pattern=[1], the config has [1, 2, 1, 4]"),
    (HOST, dict(HOST, conv_cfg=dict(type="mmms_plugin.ElasticConv")), "conv_cfg=None, the config has {'type': 'Elast"),
    (dict(PS, axes="input"), PS, "backbone.axes='input', the config has 'both'"),
    (dict(PS, style="caffe"), PS, "backbone.style='caffe', the config has 'pytorch'"),
    (dict(PS, dilations=[1, 1, 1, 2]), PS, "backbone.dilations=[1, 1, 1, 2]"),
    (dict(PLAIN, deep_stem=True), dict(V1C, **D8), "backbone.dilations=[1, 1, 1, 1], the config has [1, 1, 2, 4]"),
    (dict(type="mmms_plugin.DLA", arch="34"), PS, "backbone.type='DLA', the config has 'PSResNet'"),
]


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize(("theirs", "own"), SAME)
def test_the_same_function_passes(theirs, own, converted, model, tmp_path):
    if own.get("type") == "mmdet.ResNet":
        with torch.device("meta"):
            model = nn.ModuleDict({"backbone": MODELS.build(dict(own))})
    config = function(backbone=own, data_preprocessor=PIXELS)
    remark = check_function(model, config, checkpoint(tmp_path, theirs, converted), force=False)
    told = "does not say what it was trained with: only shapes are compared with the config"
    assert remark is None if theirs else str(remark).endswith(told)


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize(("theirs", "own", "words"), OTHER)
def test_another_function_is_refused_unless_forced(theirs, own, words, converted, model, tmp_path):
    if own.get("type") == "mmdet.ResNet":
        with torch.device("meta"):
            model = nn.ModuleDict({"backbone": MODELS.build(dict(own))})
    path, config = checkpoint(tmp_path, theirs, converted), function(backbone=own, data_preprocessor=PIXELS)
    with pytest.raises(UserError) as caught:
        check_function(model, config, path, force=False)
    assert words in str(caught.value)
    assert words in check_function(model, config, path, force=True)
    remark = start_remark(model, config, path)
    assert "dilations" in words or words in remark  # of which a backbone may be given others


def test_pixels_in_another_order_are_reported(model, tmp_path):
    path = checkpoint(tmp_path, PS, bgr_to_rgb=False, mean=(0.1, 0, 0))
    with pytest.raises(UserError, match=r"data_preprocessor\.mean=.*data_preprocessor\.bgr_to_rgb=False"):
        check_function(model, function(backbone=PS, data_preprocessor=PIXELS), path, force=False)


def test_weights_that_say_nothing_may_be_a_plain_networks(model, tmp_path):
    for source in ("torchvision://resnet18", checkpoint(tmp_path, None)):
        remark = start_remark(model, function(backbone=PS), source)
        assert "trained with dilation 1, this backbone has the pattern 1, 2, 1, 4" in remark
        with torch.device("meta"):
            plain = MODELS.build(dict(PLAIN))
        assert start_remark(plain, function(backbone=PLAIN), source) is None
    assert start_remark(model, function(backbone=PS), checkpoint(tmp_path, PS)) is None


ODD: list[Any] = [
    {"cfg": "model = __import__('os').system('touch ran')"},
    {TRAINED: ["model"]},
    {TRAINED: {"backbone": {"depth": 2**70}}},
    {TRAINED: {"backbone": {"type": 1, "depth": "\0"}, "data_preprocessor": {"mean": {}}}},
    {"backbone": "PSResNet"},
    {"backbone": {"type": ["a"], 3: 4, "dilation_pattern": {"a": [[[[[[[[1]]]]]]]]}}, "data_preprocessor": [1]},
    {"backbone": {"type": "PSResNet", "dilation_pattern": torch.zeros(2), "axes": None}},
    {"backbone": {"type": "PSResNet", "axes": "\x1b[31m" + "a" * 10_000}},
]


@pytest.mark.parametrize("meta", ODD, ids=range(len(ODD)))
def test_odd_meta_is_no_reason_to_stop(meta, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": meta}, "x.pth")
    remark = check_function(model, function(backbone=PS), "x.pth", force=True) or ""
    assert len(remark) < 1000
    assert remark.isprintable()
    start_remark(model, function(backbone=PS), "x.pth")
    assert not Path("ran").exists()


def test_a_psconv_carries_its_pattern_and_refuses_another(tmp_path):
    """In torch's state dicts, in mmengine's checkpoints, in published files of both formats, and under wrappers."""
    ps, plain, host, layers = (MODELS.build(dict(kind)) for kind in (PS, PLAIN, HOST, LAYERS))
    ps.load_state_dict(ps.state_dict())
    plain.load_state_dict(ps.state_dict() | {})  # a dict without metadata
    layers.load_state_dict(ps.state_dict())  # the same network of mmdet's
    text = "conv1: its weights were trained with dilation_pattern=[1, 2, 1, 4]"
    with pytest.raises(RuntimeError) as caught:
        plain.load_state_dict(ps.state_dict())
    assert str(caught.value).count("the shapes agree, the functions differ") == 1
    assert f"layer1.0.{text}" in str(caught.value)
    model, state = nn.ModuleDict({"backbone": plain}), nn.ModuleDict({"backbone": ps}).state_dict()
    wrapped = nn.ModuleDict({"module": nn.ModuleDict({"backbone": ps})}).state_dict()
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    assert torch.load(tmp_path / "x.pth", weights_only=True)["state_dict"]._metadata == state._metadata
    torch.save({"state_dict": wrapped, "meta": {}}, tmp_path / "wrapped.pth")
    files = [tmp_path / "x.pth", tmp_path / "wrapped.pth"]
    files += [publish(str(files[1]), str(tmp_path / name)).path for name in ("a.pth", "b.safetensors")]
    for file in files:
        words = r"backbone\.layer1\.0\.conv1\.dilation_pattern=\[1, 2, 1, 4\], the config has \[1\]"
        for other in (model, nn.ModuleDict({"backbone": host})):
            with pytest.raises(UserError, match=words):
                check_function(other, function(backbone=PLAIN), str(file), force=False)
        remark = check_function(nn.ModuleDict({"backbone": layers}), function(backbone=LAYERS), str(file), False)
        assert str(remark).endswith("says only what some of its layers compute: of all else only shapes are compared")
        assert "not the same function" in str(start_remark(model, function(backbone=PLAIN), str(file)))
        with pytest.raises(RuntimeError, match="its weights were trained with"):
            load_checkpoint(nn.ModuleDict({"module": model} if file.stem == "wrapped" else {"backbone": plain}),
                            str(file), strict=True)  # fmt: skip


DEPTHWISE, DYNAMIC, ELASTIC, CONV = (f"mmms_plugin.{name}" for name in ("DepthwisePSConv", "DynamicPSConv",
                                                                        "ElasticConv", "PSConv"))  # fmt: skip
LAYER_PAIRS: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    (dict(type=DEPTHWISE), dict(type=DEPTHWISE, dilation_pattern=(1, 4)), "dilation_pattern=[1, 2, 1, 4]", "[1, 4]"),
    (dict(type=DEPTHWISE), dict(type=DEPTHWISE, channel_order="cyclic"), "channel_order='block'", "'cyclic'"),
    (dict(type=DEPTHWISE), dict(type=CONV, groups=8), "axes='channels'", "'both'"),
    (dict(type=DEPTHWISE), dict(type="Conv2d", groups=8), "dilation_pattern=[1, 2, 1, 4]", "[1]"),
    (dict(type=DYNAMIC), dict(type=DYNAMIC, dilations=(1, 3)), "dilations=[1, 2]", "[1, 3]"),
    (dict(type=ELASTIC), dict(type=ELASTIC, ratios=(1, 4)), "ratios=[1, 2]", "[1, 4]"),
    (dict(type=ELASTIC), dict(type=ELASTIC, shares=(0.25, 0.75)), "shares=[0.5, 0.5]", "[0.25, 0.75]"),
    (dict(type=ELASTIC), dict(type=ELASTIC, method="nearest"), "method='bilinear'", "'nearest'"),
    (dict(type=ELASTIC), dict(type=ELASTIC, pool=False), "pool=True", "False"),
    (dict(type=ELASTIC), dict(type="Conv2d"), "ratios=[1, 2]", "None"),
]  # fmt: skip
EQUAL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (dict(type=DEPTHWISE), dict(type=DEPTHWISE, dilation_pattern=[1, 2, 1, 4], stride=2)),
    (dict(type=DEPTHWISE, dilation_pattern=(1, 1)), dict(type="Conv2d", groups=8)),
    (dict(type=DEPTHWISE, dilation_pattern=(1, 1)), dict(type=CONV, groups=8, dilation_pattern=(1,))),
    (dict(type=DYNAMIC), dict(type=DYNAMIC, dilations=[1, 2])),
    (dict(type=ELASTIC), dict(type=ELASTIC, stride=2, ratios=[1, 2])),  # segmentation has other strides
    (dict(type=ELASTIC, ratios=(1, 1)), dict(type="Conv2d")),
]


def one_layer(config: dict[str, Any]) -> nn.ModuleDict:
    arguments = dict(config, in_channels=8, out_channels=8, kernel_size=3, padding=1)
    plain = arguments.pop("type") == "Conv2d"
    return nn.ModuleDict({"conv": nn.Conv2d(**arguments) if plain else MODELS.build(dict(config, **arguments))})


def saved_files(config: dict[str, Any], folder: Path) -> list[Path]:
    """By mmengine, from under DistributedDataParallel, and published in both formats."""
    plain, wrapped = folder / "plain.pth", folder / "wrapped.pth"
    save_checkpoint(dict(state_dict=weights_to_cpu(get_state_dict(one_layer(config))), meta={}), str(plain))
    save_checkpoint(dict(state_dict=nn.ModuleDict({"module": one_layer(config)}).state_dict(), meta={}), str(wrapped))
    published = [publish(str(wrapped), str(folder / name)).path for name in ("a.pth", "b.safetensors")]
    return [plain, wrapped, *map(Path, published)]


@pytest.mark.parametrize(("theirs", "own", "words", "other"), LAYER_PAIRS)
def test_layers_of_the_same_shapes_refuse_weights_of_another_function(theirs, own, words, other, tmp_path):
    model = one_layer(own)
    for file in saved_files(theirs, tmp_path):
        with pytest.raises(UserError, match=re.escape(f"conv.{words}, the config has {other}")):
            check_function(model, function(), str(file), force=False)
        assert words in str(start_remark(model, function(), str(file)))
    state = torch.load(tmp_path / "plain.pth", weights_only=True)["state_dict"]
    if own["type"] == "Conv2d":  # knows nothing of metadata: only the project's commands notice
        return
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=rf"conv: .*trained with .*{re.escape(words)}.* the shapes agree"):
            model.load_state_dict(state, strict=strict)


@pytest.mark.parametrize(("theirs", "own"), EQUAL)
def test_layers_of_the_same_function_load_each_others_weights(theirs, own, tmp_path):
    model = one_layer(own)
    for file in saved_files(theirs, tmp_path):
        assert check_function(model, function(), str(file), force=False) is None
    state = torch.load(tmp_path / "plain.pth", weights_only=True)["state_dict"]
    model.load_state_dict(state)
    assert torch.equal(model["conv"].weight, state["conv.weight"])
    model.load_state_dict(state | {})  # without metadata, as in files of older versions
