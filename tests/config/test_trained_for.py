"""Weights under another config than they were trained with: told, though every shape fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmms_plugin.config.files import config_names
from mmms_plugin.config.text import UNKNOWN, assigned
from mmms_plugin.config.trained_for import check_function, start_remark
from mmms_plugin.errors import UserError

PS = dict(type="mmms_plugin.PSResNet", depth=18, out_indices=(3,))
PLAIN = dict(PS, dilation_pattern=(1, 1, 1, 1))
HOST = dict(type="mmdet.ResNet", depth=18, out_indices=(3,), norm_cfg=dict(type="BN", requires_grad=True))
LAYERS = dict(HOST, conv_cfg=dict(type="mmms_plugin.PSConv"))
PIXELS = dict(type="DetDataPreprocessor", mean=[123.675, 116.28, 103.53], bgr_to_rgb=True, pad_size_divisor=32)


def checkpoint(folder: Path, backbone: dict[str, Any] | None, converted: bool = False, **more: Any) -> str:
    """A file that says what it was trained for: as mmengine does it, or as mmms convert does."""
    model = dict(type="FasterRCNN", data_preprocessor={**PIXELS, **more}, backbone=backbone)
    meta = dict(model) if converted else {"cfg": Config(dict(model=model, epochs=12)).pretty_text}
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
    {"cfg": "model = dict(backbone=dict(**{'type': 1}))"},
    {"cfg": "model = dict(backbone=" + "[" * 100_000},
    {"cfg": "model = " + "-" * 100_000 + "1"},
    {"cfg": "model = dict(backbone=dict(type='PSResNet', depth=" + "9" * 10_000 + "))"},
    {"cfg": "model = '''"},
    {"cfg": "\0"},
    {"cfg": ["model"]},
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


def test_the_text_of_a_config_reads_as_mmengine_wrote_it():
    for path in list(config_names().values())[::9]:
        config = Config.fromfile(path)
        text = config.pretty_text
        assert assigned(text, "model") == _lists(Config.fromstring(text, ".py")["model"]), path
    text = "a = 1\nb = dict(c=d, e=-1e-05, f=(1), g=('x' 'y', ), h={'i': None}, j=f())\nmodel = dict(a=[-2., True])\n"
    assert assigned(text, "model") == {"a": [-2.0, True]}
    assert assigned(text, "a") == 1
    assert assigned(text, "b") is None  # a call
    assert assigned(text.replace("f()", "f"), "b")["c"] is UNKNOWN
    assert assigned(text, "z") is None


WITHIN = "b=0\n" * 24_999  # 99,996 tokens
TEXTS: list[tuple[str, Any]] = [
    ("a = 12", 12),
    ("a = 1.5e3", 1500.0),
    ("a = .5", 0.5),
    ("a = 2.", 2.0),
    ("a = 1E2", 100.0),
    ("a = 0x10", UNKNOWN),
    ("a = 1_000", UNKNOWN),
    ("a = 2j", UNKNOWN),
    ("a = " + "9" * 40, int("9" * 40)),
    ("a = " + "9" * 41, UNKNOWN),
    ("a = -3", -3),
    ("a = -x", UNKNOWN),
    ("a = -True", UNKNOWN),
    ("a = -'x'", UNKNOWN),
    ("a = 'x'", "x"),
    ("a = r'x'", UNKNOWN),
    ("a = 'x\\n'", UNKNOWN),
    ("a = ('x'\n  \"y\")", "xy"),
    ("a = ('x' r'y')", UNKNOWN),
    ("a = [1]", [1]),
    ("a = (1)", 1),
    ("a = (1,)", [1]),
    ("a = [(1, 2), ()]", [[1, 2], []]),
    ("a = [1 2]", None),
    ("a = [1, 2", None),
    ("a = dict(b=1, c=dict(), )", {"b": 1, "c": {}}),
    ("a = dict(b=1 c=2)", None),
    ("a = dict(b, c=2)", None),
    ("a = dict", UNKNOWN),
    ("a = dict + 1", UNKNOWN),
    ("a = {'b': 1, 2: 3, 'c': None}", {"b": 1, "c": None}),
    ("a = {'b' 1}", None),
    ("a = {'b', 1}", None),
    ("a = True  # a comment", True),
    ("a = b", UNKNOWN),
    ("a = *b", None),
    ("a =", None),
    ("a", None),
    ("a == 1", None),
    ("a += 1", None),
    ("a.b = 1\na = 2", 2),
    ("b = dict(\n  a = 1)\n", None),
    ("if b:\n  a = 1\na = 2", 2),
    ("b = [\n# a comment\n1]\na = 2", 2),
    ("a = " + "[" * 40 + "1" + "]" * 40, ...),
    ("a = " + "[" * 41 + "1" + "]" * 41, None),
    ("a = " + "{'b': " * 40 + "1" + "}" * 40, ...),
    ("a = " + "dict(b=" * 41 + "1" + ")" * 41, None),
    ("a = " + "-" * 41 + "1", None),
    (f"{WITHIN}a=-1", -1),  # the 100,000th token
    (f"{WITHIN}a=--1", None),
    ("a = 1 #" + "x" * 999_993, 1),  # a million characters
    ("a = 1 #" + "x" * 999_994, None),
]


@pytest.mark.parametrize(("text", "value"), TEXTS, ids=range(len(TEXTS)))
def test_a_plain_value_is_read_and_nothing_else(text, value):
    found = assigned(text, "a")
    if value is ...:
        assert found is not None
    elif value is UNKNOWN:
        assert found is UNKNOWN
    else:
        assert (found, type(found)) == (value, type(value))


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
