"""Weights under another config than they were trained with: told, though every shape fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import nn

from mmms_plugin.config.checkpoint import TRAINED, check_function, start_remark, trained_meta
from mmms_plugin.errors import UserError
from mmms_plugin.weights.publish import publish

PS = dict(type="mmms_plugin.PSResNet", depth=18, out_indices=(3,))
PLAIN = dict(PS, dilation_pattern=(1, 1, 1, 1))
HOST = dict(type="mmdet.ResNet", depth=18, out_indices=(3,), norm_cfg=dict(type="BN", requires_grad=True))
LAYERS = dict(HOST, conv_cfg=dict(type="mmms_plugin.PSConv"))
PIXELS = dict(type="DetDataPreprocessor", mean=[123.675, 116.28, 103.53], bgr_to_rgb=True, pad_size_divisor=32)


def checkpoint(folder: Path, backbone: dict[str, Any] | None, converted: bool = False, **more: Any) -> str:
    """A file that says what it was trained for: as mmms train does it, or as mmms convert does."""
    model = dict(type="FasterRCNN", data_preprocessor={**PIXELS, **more}, backbone=backbone)
    meta = dict(model) if converted else {TRAINED: trained_meta(Config(dict(model=model)).model)} if backbone else {}
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {} if backbone is None else meta}, folder / "x.pth")
    return str(folder / "x.pth")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.device("meta"):
        return nn.ModuleDict({"backbone": MODELS.build(dict(PS))})


SAME = [(PS, dict(PS, frozen_stages=1, dilation_pattern=[1, 2, 1, 4])), (PLAIN, HOST), (HOST, PLAIN), (PS, LAYERS),
        (LAYERS, PS), (HOST, dict(HOST, norm_cfg=dict(type="SyncBN"), norm_eval=True)), (None, PS)]  # fmt: skip
OTHER = [
    (PS, PLAIN, "backbone.dilation_pattern=[1, 2, 1, 4], the config has [1]"),
    (PS, HOST, "backbone.dilation_pattern=[1, 2, 1, 4], the config has [1]"),
    (HOST, PS, "backbone.dilation_pattern=[1], the config has [1, 2, 1, 4]"),
    (HOST, LAYERS, "backbone.dilation_pattern=[1], the config has [1, 2, 1, 4]"),
    (HOST, dict(HOST, conv_cfg=dict(type="mmms_plugin.ElasticConv")), "conv_cfg=None, the config has {'type': 'Elast"),
    (dict(PS, axes="input"), PS, "backbone.axes=input, the config has both"),
    (dict(PS, style="caffe"), PS, "backbone.style=caffe, the config has pytorch"),
    (dict(PS, dilations=[1, 1, 1, 2]), PS, "backbone.dilations=[1, 1, 1, 2]"),
    (dict(type="mmms_plugin.DLA", arch="34"), PS, "backbone.type=DLA, the config has PSResNet"),
]


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize(("theirs", "own"), SAME)
def test_the_same_function_passes(theirs, own, converted, model, tmp_path):
    if own.get("type") == "mmdet.ResNet":
        with torch.device("meta"):
            model = nn.ModuleDict({"backbone": MODELS.build(dict(own))})
    config = dict(backbone=own, data_preprocessor=PIXELS)
    assert check_function(model, config, checkpoint(tmp_path, theirs, converted), force=False) is None


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize(("theirs", "own", "words"), OTHER)
def test_another_function_is_refused_unless_forced(theirs, own, words, converted, model, tmp_path):
    if own.get("type") == "mmdet.ResNet":
        with torch.device("meta"):
            model = nn.ModuleDict({"backbone": MODELS.build(dict(own))})
    path, config = checkpoint(tmp_path, theirs, converted), dict(backbone=own, data_preprocessor=PIXELS)
    with pytest.raises(UserError) as caught:
        check_function(model, config, path, force=False)
    assert words in str(caught.value)
    assert words in check_function(model, config, path, force=True)
    remark = start_remark(model, config, path)
    assert "dilations" in words or words in remark  # of which a backbone may be given others


def test_pixels_in_another_order_are_told(model, tmp_path):
    path = checkpoint(tmp_path, PS, bgr_to_rgb=False, mean=(0.1, 0, 0))
    with pytest.raises(UserError, match=r"data_preprocessor\.mean=.*data_preprocessor\.bgr_to_rgb=False"):
        check_function(model, dict(backbone=PS, data_preprocessor=PIXELS), path, force=False)


def test_weights_that_say_nothing_may_be_a_plain_networks(model, tmp_path):
    for source in ("torchvision://resnet18", checkpoint(tmp_path, None)):
        remark = start_remark(model, dict(backbone=PS), source)
        assert "trained with dilation 1, this backbone has the pattern 1, 2, 1, 4" in remark
        with torch.device("meta"):
            plain = MODELS.build(dict(PLAIN))
        assert start_remark(plain, dict(backbone=PLAIN), source) is None
    assert start_remark(model, dict(backbone=PS), checkpoint(tmp_path, PS)) is None


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
    remark = check_function(model, dict(backbone=PS), "x.pth", force=True) or ""
    assert len(remark) < 1000
    assert remark.isprintable()
    start_remark(model, dict(backbone=PS), "x.pth")
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
                check_function(other, dict(backbone=PLAIN), str(file), force=False)
        assert check_function(nn.ModuleDict({"backbone": layers}), dict(backbone=LAYERS), str(file), False) is None
        assert "not the same function" in str(start_remark(model, dict(backbone=PLAIN), str(file)))
        with pytest.raises(RuntimeError, match="its weights were trained with"):
            load_checkpoint(nn.ModuleDict({"module": model} if file.stem == "wrapped" else {"backbone": plain}),
                            str(file), strict=True)  # fmt: skip
