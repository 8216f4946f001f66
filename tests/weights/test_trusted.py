"""A file chooses no type, path or code; what it may choose is built, and gives what its authors recorded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mmms_plugin.backbones import PSResNet
from mmms_plugin.errors import UserError
from mmms_plugin.weights import load_model
from mmms_plugin.weights.loading import load_backbone
from mmms_plugin.weights.tables import load_table, sources
from mmms_plugin.weights.trusted import check_components, check_part, class_colours, class_names
from tests.golden.records import load_record, make_state_dict
from tests.weights.small import convert

PLAIN = dict(type="mmms_plugin.PSResNet", depth=18, dilation_pattern=[1, 1, 1, 1])


SMALL = dict(type="PSResNet", depth=18, base_channels=8, stem_channels=8, num_stages=2, out_indices=[1],
             strides=[1, 2], dilations=[1, 1])  # fmt: skip


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Of a small PSResNet: 8 channels, two stages."""
    return PSResNet(**{key: value for key, value in SMALL.items() if key != "type"}).state_dict()


COMMAND = dict(type="os.system", command="touch ran")
HOSTILE: dict[str, tuple[Any, str]] = {
    "a function": (COMMAND, "type='os.system': a file may name ASPPHead"),
    "another package": (dict(SMALL, type="mmdet.ResNet"), "type='mmdet.ResNet'"),
    "dotted": (dict(SMALL, type="mmms_plugin.backbones.PSResNet"), "type="),
    "a layer": (dict(type="mmms_plugin.PSConv", in_channels=1), "type="),
    "no type": ({"depth": 18}, "type=None"),
    "a class as type": (dict(SMALL, type=["PSResNet"]), "type=list"),
    "not a dict": ("PSResNet", "expected a dict"),
    "init_cfg": (dict(SMALL, init_cfg=dict(type="Pretrained", checkpoint="/etc/passwd")), "init_cfg: a file may give"),
    "init_cfg, empty": (dict(SMALL, init_cfg=None), "init_cfg: a file may give"),
    "unknown argument": (dict(SMALL, pretrained="x"), "pretrained: a file may give depth"),
    "scope": (dict(SMALL, _scope_="os"), "_scope_: a file may give"),
    "nested type": (dict(SMALL, norm_cfg=COMMAND), "norm_cfg.type='os.system': a file may name BN"),
    "nested in nested": (dict(SMALL, norm_cfg=dict(type="BN", eps=COMMAND)), "norm_cfg=list"),
    "dict where there is none": (dict(SMALL, strides=COMMAND), "strides: a file may give no such dict"),
    "path": (dict(SMALL, style="/etc/passwd"), "style='/etc/passwd'"),
    "huge number": (dict(SMALL, base_channels=10**9), "base_channels=1000000000"),
    "not a number": (dict(SMALL, se_ratio=float("nan")), "se_ratio=nan"),
    "long list": (dict(SMALL, dilation_pattern=[1] * 1000), "dilation_pattern=list"),
    "deep list": (dict(SMALL, dilation_pattern=[[[[1]]]]), "dilation_pattern=list"),
    "too wide for the file": (dict(SMALL, base_channels=1 << 15), "tensors in the file"),
    "another depth": (dict(SMALL, depth=34), "not of the tensors in the file"),
    "wide kernels": (dict(SMALL, dilation_pattern=[1, 30000]), "dilated by more than"),
    "refused by the network": (dict(SMALL, depth=19), "depth=19: allowed are"),
    "a head": (dict(type="MultiExitHead", num_classes=2, in_channels=[1]), "is not a backbone"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_config_of_a_file_does_more_than_name_a_network_here(name, state, tmp_path, monkeypatch):
    config, words = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state, "meta": {"backbone": config, "prefix": ""}}, "bad.pth")
    for load in (load_backbone, load_model):
        with pytest.raises(UserError) as caught:
            load("bad.pth")
        assert words in str(caught.value), str(caught.value)
        assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "arguments": (
        {f"k{i}": 1 for i in range(62)}, {f"k{i}": 1 for i in range(63)}, "expected a dict with a type"),
    "names": ({"depth": 18}, {1: 18}, "expected a dict with a type"),
    "number": (dict(base_channels=1 << 15), dict(base_channels=(1 << 15) + 1), "base_channels=32769: a file may give"),
    "negative": (dict(frozen_stages=-(1 << 15)), dict(frozen_stages=-(1 << 15) - 1), "frozen_stages=-32769"),
    "fraction": (dict(se_ratio=32768.0), dict(se_ratio=32768.5), "se_ratio=32768.5"),
    "infinite": (dict(se_ratio=1.5), dict(se_ratio=float("inf")), "se_ratio=inf"),
    "list": (dict(strides=[1] * 64), dict(strides=[1] * 65), "strides=list: a file may give"),
    "list in a list": (dict(strides=[[1]]), dict(strides=[[[1]]]), "strides=list"),
    "word": (dict(style="x" * 64), dict(style="x" * 65), f"style='{'x' * 32} ... {'x' * 32}': a file may give a word"),
    "letters": (dict(style="A_b.c+d-5"), dict(style="a b"), "style='a b'"),
    "none": (dict(se_ratio=None, with_cp=True), dict(se_ratio=b""), "se_ratio=bytes"),
    "words in lists": (dict(strides=["a"]), dict(strides=["/"]), "strides=list"),
    "type of a norm": (dict(norm_cfg=dict(type="IN")), dict(norm_cfg=dict(eps=1)), "norm_cfg: a file may give no such"),
    "type of a layer": (
        dict(conv_cfg=dict(type="mmms_plugin.PSConv")), dict(conv_cfg=dict(type="PSConv")),
        "conv_cfg.type='PSConv': a file may name Conv2d, Conv, mmms_plugin.PSConv"),
    "long dict": (
        dict(norm_cfg=dict(type="BN", **{f"k{i}": 1 for i in range(31)})),
        dict(norm_cfg=dict(type="BN", **{f"k{i}": 1 for i in range(32)})), "norm_cfg=list"),
    "longer dict": ({}, dict(norm_cfg=dict(type="BN", **{f"k{i}": 1 for i in range(64)})), "no such dict"),
    "other file": ({}, dict(init_cfg=None), "init_cfg: a file may give depth"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_arguments_at_their_limits(name):
    inside, outside, words = LIMITS[name]
    plain = dict(type="PSResNet", depth=18)
    with pytest.raises(UserError) as caught:
        check_part({**plain, **outside}, "meta.backbone")
    assert words in str(caught.value)
    if name == "arguments":  # as many as are looked at; they have none of these names
        with pytest.raises(UserError, match=r"meta\.backbone\.k0: a file may give depth"):
            check_part({**plain, **inside}, "meta.backbone")
    else:
        part = check_part({**plain, **inside}, "meta.backbone", out_indices=(1,))
        assert part.cls is PSResNet
        assert part.arguments == dict(depth=18, out_indices=(1,)) | inside


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (dict(dilation_pattern=[1, 1024]), dict(dilation_pattern=[1, 1025])),
        (dict(dilations=[1, 1024]), dict(dilations=[1, 1025])),
        (dict(dilations=[1, 512], dilation_pattern=[1, 2]), dict(dilations=[1, 512], dilation_pattern=[1, 3])),
    ],
)
def test_kernels_are_1024_pixels_wide_at_most(inside, outside, state, tmp_path):
    for change in (inside, outside):
        meta = {"backbone": {**SMALL, "dilation_pattern": [1, 1], **change}}
        torch.save({"state_dict": state, "meta": meta}, tmp_path / "in.pth")
        if change is inside:
            assert isinstance(load_backbone(tmp_path / "in.pth"), PSResNet)
        else:
            with pytest.raises(UserError, match=r"meta\.backbone: dilated by more than 1024 pixels"):
                load_backbone(tmp_path / "in.pth")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"fc.bias": None}, r"expected fc\.weight \[classes, 16\] and fc\.bias"),
        ({"fc.weight": None}, r"expected fc\.weight \[classes, 16\] and fc\.bias"),
        ({"fc.scale": torch.ones(3)}, r"expected fc\.weight"),
        ({"fc.weight": torch.ones(16)}, r"expected fc\.weight"),
        ({"fc.weight": torch.ones(3, 15)}, r"expected fc\.weight"),
        ({"fc.bias": torch.ones(4)}, r"head\.fc\.bias is \[4\], expected \[3\]"),
        ({"fc.bias": torch.ones(3, 1)}, r"head\.fc\.bias is \[3, 1\], expected \[3\]"),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_a_classifier_has_a_weight_and_a_bias(change, words, beside, state, tmp_path):
    head = {"fc.weight": torch.randn(3, 16), "fc.bias": torch.randn(3)} | change
    head = {key: value for key, value in head.items() if value is not None}
    whole = {f"backbone.{key}": value for key, value in state.items()} | {f"head.{k}": v for k, v in head.items()}
    content = {"state_dict": state, "head": head} if beside else {"state_dict": whole}
    meta = {"backbone": SMALL, **({} if beside else {"prefix": "backbone."})}
    torch.save({**content, "meta": meta}, tmp_path / "in.pth")
    if words is None:
        model, x = load_model(tmp_path / "in.pth"), torch.randn(2, 3, 32, 48)
        last = load_backbone(tmp_path / "in.pth").eval()(x)[-1]
        assert torch.allclose(model(x), last.mean((2, 3)) @ head["fc.weight"].T + head["fc.bias"])
        assert (model.neck, model.decode_head) == (None, None)
    else:
        with pytest.raises(UserError, match=words):
            load_model(tmp_path / "in.pth")


def test_what_only_a_config_builds_is_named_up_to_five(state, tmp_path):
    whole = {f"backbone.{key}": value for key, value in state.items()}
    whole |= {f"{name}.w": torch.ones(1) for name in "fedcba"}
    torch.save({"state_dict": whole, "meta": {"backbone": SMALL, "prefix": "backbone."}}, tmp_path / "in.pth")
    with pytest.raises(UserError, match="it holds a, b, c, d, e, which a config builds"):
        load_model(tmp_path / "in.pth")


def test_no_part_beside_the_backbone_does_either(state, tmp_path):
    whole = {f"backbone.{key}": value for key, value in state.items()} | {"head.fc.weight": torch.zeros(1)}
    for model, words in (
        ({"head": COMMAND}, "meta.model.head.type='os.system'"),
        (["head"], "meta.model: expected a dict"),
        ({}, "head: expected fc.weight [classes, 16] and fc.bias"),
    ):
        meta = {"backbone": SMALL, "prefix": "backbone.", "model": model}
        torch.save({"state_dict": whole, "meta": meta}, tmp_path / "bad.pth")
        with pytest.raises(UserError) as caught:
            load_model(tmp_path / "bad.pth")
        assert words in str(caught.value)
    torch.save({"state_dict": whole, "meta": {"backbone": SMALL, "prefix": "roi_head."}}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"meta\.prefix"):
        load_model(tmp_path / "bad.pth")
    whole["roi_head.x"] = whole.pop("head.fc.weight")
    torch.save({"state_dict": whole, "meta": {"backbone": SMALL, "prefix": "backbone."}}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="mmms test CONFIG"):
        load_model(tmp_path / "bad.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_components_are_those_of_the_tables(suffix, shapes, tmp_path, capsys, monkeypatch):
    """The command that an untrusted file used to run through the config that it is merged into."""
    from mmms_plugin.commands import main

    command = {"DetDataPreprocessor": {"batch_augments": [{**COMMAND, "command": f"touch {tmp_path}/ran"}]}}
    content = {"x": torch.zeros(1)}
    if suffix == ".pth":
        torch.save({"state_dict": content, "meta": {"components": command}}, tmp_path / "bad.pth")
    else:
        save_file(content, tmp_path / "bad.safetensors", {"mmms_meta": json.dumps({"components": command})})
    arguments = ["--coco-dir", str(shapes), "--work-dir", str(tmp_path / "work")]
    assert main(["test", "demo/mask_rcnn_ps_r18_shapes", str(tmp_path / f"bad{suffix}"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert "meta.components['DetDataPreprocessor']: a file may give AnchorGenerator" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "ran").exists()


def test_known_components_pass_and_changed_ones_do_not():
    known = {kind: dict(settings) for kind, settings in load_table("psconv").components.items()}
    assert check_components(known) == known
    for change in (
        {"RoIAlign": dict(aligned=False, sampling_ratio=10**6)},
        {"RoIAlign": dict(aligned=False, sampling_ratio=2, type="os.system")},
        {"RoIAlign": dict(aligned=0, sampling_ratio=2)},
        {"DeltaXYWHBBoxCoder": dict(type="os.system")},
        {"AnchorGenerator": None},
        {("RoIAlign",): {}},
        [known],
    ):
        with pytest.raises(UserError, match=r"meta\.components"):
            check_components(change)


def test_every_config_that_the_converter_writes_is_accepted():
    for source in sources():
        for arch in load_table(source).archs.values():
            for config in (arch.backbone, *arch.parts.values()):
                check_part(json.loads(json.dumps(dict(config))), "meta")
    check_part(dict(type="DLA", arch="60x", elastic=True, elastic_cfg=dict(ratios=[1, 2], shares=[0.5, 0.5])), "meta")
    check_part(dict(PLAIN, norm_cfg=dict(type="GN", num_groups=4)), "meta")


def test_load_model_of_backbones_with_and_without_classifier(tmp_path):
    torch.save(make_state_dict(load_record("timm_dla46_c")), tmp_path / "in.pth")
    x = torch.randn(2, 3, 65, 64)
    logits = {}
    for name, options in {"a.pth": (), "b.pth": ("--part", "whole"), "c.safetensors": ("--part", "whole")}.items():
        assert convert(tmp_path / "in.pth", tmp_path / name, *options) == 0
        model = load_model(tmp_path / name)
        assert not model.training
        logits[name] = model(x)
        assert model.meta["normalisation"]["channel_order"] == "RGB"
    assert logits["a.pth"].shape == (2, 1000)
    assert all(torch.equal(value, logits["a.pth"]) for value in logits.values())
    assert convert(tmp_path / "in.pth", tmp_path / "d.safetensors") == 0
    maps = load_model(tmp_path / "d.safetensors")(x)
    assert [y.shape[1] for y in maps] == [64, 64, 128, 256]


def test_load_model_needs_a_converted_file(tmp_path, state):
    torch.save(state, tmp_path / "bare.pth")
    with pytest.raises(UserError, match=r"meta\.backbone is missing; convert the file first"):
        load_model(tmp_path / "bare.pth")
    assert not os.path.exists("ran")


ODD = [None, [1], {"classes": 3}, {"classes": [1]}, {"classes": ["a"] * 10**6}, {"palette": 1}, {"palette": [(1, 2)]},
       {"palette": [(1, 2, 256)]}, {"palette": ["abc"]}, {"palette": [(1, 2, -1)]}, {"palette": [(1, 2, True)]},
       {"palette": [[0, 0, 0]] * 32769}, {"classes": ["a"] * 32769}, {"classes": ["a", 1]}]  # fmt: skip


@pytest.mark.parametrize("data", ODD)
def test_odd_classes_are_none(data):
    meta = {} if data is None else {"dataset_meta": data}
    assert (class_names(meta), class_colours(meta)) == ((), None)


def test_classes_and_colours_are_plain():
    meta = {"dataset_meta": {"classes": ("a\x1b[31m", "猫"), "palette": [[1, 2, 3], (4, 5, 255)]}}
    assert class_names(meta) == ("a\\x1b[31m", "猫")
    assert class_colours(meta) == [(1, 2, 3), (4, 5, 255)]
    assert class_names({"dataset_meta": {"CLASSES": "nucleus"}}) == ("nucleus",)
    assert class_names({"dataset_meta": {"classes": ["a"], "CLASSES": ["b"]}}) == ("a",)
    many = {"classes": ["a"] * 32768, "palette": [[0, 255, 0]] * 32768}
    assert class_names({"dataset_meta": many}) == ("a",) * 32768
    assert class_colours({"dataset_meta": many}) == [(0, 255, 0)] * 32768
