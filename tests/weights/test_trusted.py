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
    "a head": (dict(type="MultiExitHead", num_classes=2, in_channels=[1]), "is no backbone"),
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
    """The command that a stranger's file used to run by way of the config that it is merged into."""
    from mmms_plugin.cli import main

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
       {"palette": [(1, 2, 300)]}, {"palette": ["abc"]}]  # fmt: skip


@pytest.mark.parametrize("data", ODD)
def test_odd_classes_are_none(data):
    meta = {} if data is None else {"dataset_meta": data}
    assert (class_names(meta), class_colours(meta)) == ((), None)


def test_classes_and_colours_are_plain():
    meta = {"dataset_meta": {"classes": ("a\x1b[31m", "猫"), "palette": [[1, 2, 3], (4, 5, 255)]}}
    assert class_names(meta) == ("a\\x1b[31m", "猫")
    assert class_colours(meta) == [(1, 2, 3), (4, 5, 255)]
    assert class_names({"dataset_meta": {"CLASSES": "nucleus"}}) == ("nucleus",)
