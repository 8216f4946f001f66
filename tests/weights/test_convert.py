"""What a conversion says, checks and writes, on small published checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

import mmms_plugin
from mmms_plugin.backbones import PSResNet
from mmms_plugin.commands import main
from mmms_plugin.layers import PSConv2d
from mmms_plugin.weights.files import TRAINED, Checkpoint, read_checkpoint, sha256_of
from mmms_plugin.weights.loading import load_backbone
from mmms_plugin.weights.mapping import expected
from mmms_plugin.weights.recognise import recognise
from mmms_plugin.weights.tables import Arch, Normalisation, Rule, Table, dla, load_table, sources
from mmms_plugin.weights.tables.psconv import join_published
from tests.golden.records import load_record, make_state_dict
from tests.weights.small import convert, refusal, state_dict, written


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.save(state_dict(), tmp_path / "in.pth")
    return tmp_path / "in.pth"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_meta_says_what_it_is_and_loads_strictly(source, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    assert convert(source, out) == 0
    backbone = load_backbone(out)
    assert all(torch.equal(value, written(out)[key]) for key, value in backbone.state_dict().items())
    assert set(backbone.state_dict()) == set(written(out))
    if suffix == ".pth":
        meta = torch.load(out)["meta"]
        assert meta["backbone"] == dict(type="mmms_plugin.DLA", arch="46_c")
        assert (meta["source"], meta["arch"], meta["sha256"]) == ("dla", "dla46_c", sha256_of(source))
        assert meta["data_preprocessor"]["mean"] == [123.675, 116.28, 103.53]
        assert meta["normalisation"]["range"] == [0, 1]
        assert meta["licence"] == "BSD-3-Clause"
        assert meta["tool"] == f"mmms_plugin {mmms_plugin.__version__}"


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_init_cfg_loads_it_in_every_host(source, tmp_path, scope):
    outs = [tmp_path / "out.pth", tmp_path / "out.safetensors"]
    code = f"""
import mmms_plugin, torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
init_default_scope({scope!r})
for path in {[str(out) for out in outs]!r}:
    init_cfg = dict(type="Pretrained", checkpoint=path)
    model = MODELS.build(dict(type="mmms_plugin.DLA", arch="46_c", init_cfg=init_cfg))
    model.init_weights()
    torch.save(model.state_dict(), path + ".loaded")
    assert load_checkpoint(model, path, strict=True)["meta"]["arch"] == "dla46_c"
"""
    for out in outs:
        assert convert(source, out) == 0
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for out in outs:
        loaded = torch.load(f"{out}.loaded")
        assert all(torch.equal(value, loaded[key]) for key, value in written(out).items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_init_cfg_finds_the_backbone_in_a_whole_file(source, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    assert convert(source, out, "--part", "whole") == 0
    init_cfg = dict(type="Pretrained", checkpoint=str(out))
    model = MODELS.build(dict(type="mmms_plugin.DLA", arch="46_c", init_cfg=init_cfg))
    model.init_weights()
    state = written(out)
    assert all(torch.equal(value, state[f"backbone.{key}"]) for key, value in model.state_dict().items())
    model.load_state_dict(state)
    del state["backbone.base_layer.0.weight"]
    with pytest.raises(RuntimeError, match=r"base_layer\.0\.weight"):
        model.load_state_dict(state)


def test_part_whole_is_a_classifier_of_mmpretrain(source, tmp_path):
    assert convert(source, tmp_path / "out.safetensors", "--part", "whole") == 0
    state = written(tmp_path / "out.safetensors")
    assert {key.split(".")[0] for key in state} == {"backbone", "head"}
    assert state["head.fc.weight"].shape == (1000, 256)
    load_backbone(tmp_path / "out.safetensors")


def test_report_counts_and_names_every_key(tmp_path, capsys):
    """Batch counters that old files lack are started at zero; unused projections are dropped by name."""
    state = make_state_dict(load_record("dla_dla34"))
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "in.pth")
    options = ["--source", "dla", "--arch", "dla34", "--report", str(tmp_path / "report.json")]
    assert convert(tmp_path / "in.pth", tmp_path / "out.safetensors", *options) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert set(report["mapped"]) | set(report["dropped"]) == {k for k in state if "num_batches" not in k}
    assert not set(report["mapped"]) & set(report["dropped"])
    assert report["counts"] == {name: len(report[name]) for name in ("mapped", "dropped", "initialised")}
    assert all(key.endswith("num_batches_tracked") for key in report["initialised"])
    assert "level3.project.0.weight" in report["dropped"]
    assert "does not depend on it" in report["dropped"]["level3.project.0.weight"]
    assert report["dropped"]["fc.weight"].startswith("classifier")
    printed = capsys.readouterr().out
    assert ", ".join(f"{count} {name}" for name, count in report["counts"].items()) in printed


def test_unknown_misshapen_and_missing_keys_are_named(source, tmp_path, capsys):
    state = state_dict()
    out = tmp_path / "out.pth"
    torch.save({**state, "level4.tree1.tree1.convv1.weight": torch.zeros(1), "ema": torch.zeros(1)}, source)
    message = refusal(capsys, source, out)
    assert "level4.tree1.tree1.convv1.weight (nearest known: level4.tree1.tree1.conv1.weight), ema" in message
    key = "level2.tree1.conv1.weight"
    torch.save({**state, key: torch.zeros(32, 32, 3, 3)}, source)
    assert f"{key} is [32, 32, 3, 3], expected [32, 32, 1, 1]" in refusal(capsys, source, out)
    torch.save({k: v for k, v in state.items() if k != key}, source)
    assert f"1 tensors are missing (first: backbone.{key})" in refusal(capsys, source, out)
    torch.save({**state, "fc.weight": torch.zeros(1000, 512)}, source)
    assert "expected [classes, 256]" in refusal(capsys, source, out)
    keys = [name for name in state if name.endswith("conv1.weight")][:4]
    names = ", ".join(f"backbone.{name}" for name in keys[:3])
    torch.save({k: v for k, v in state.items() if k not in keys}, source)
    assert f"4 tensors are missing (first: {names})" in refusal(capsys, source, out)
    torch.save({k: v[:1] if k in keys else v for k, v in state.items()}, source)
    message = refusal(capsys, source, out)
    assert "4 tensors have another shape" in message
    assert [name in message for name in keys] == [True] * 3 + [False]


@pytest.mark.parametrize(("key", "said"), [("sha256", 0), ("backbone", 0), ("both", 2)])
def test_what_was_converted_already_is_refused(key, said, source, tmp_path, capsys):
    meta = {"sha256": "0", "backbone": {}} if key == "both" else {key: "0"}
    torch.save({"meta": meta, "state_dict": state_dict()}, source)
    assert convert(source, tmp_path / "out.pth") == said
    assert ("it was made by mmms convert already" in capsys.readouterr().err) == bool(said)


@pytest.mark.parametrize(
    ("pixels", "mean", "std", "turned"),
    [
        (Normalisation((0.5, 0.25, 0.125), (0.5, 0.2, 0.1)), [127.5, 63.75, 31.875], [127.5, 51.0, 25.5], True),
        (Normalisation((103.5, 116.0, 1.0), (1.0, 2.0, 3.0), "BGR", 255.0), [103.5, 116, 1], [1, 2, 3], False),
    ],
)
def test_meta_has_the_pixels_that_the_source_was_trained_on(pixels, mean, std, turned, source, tmp_path, monkeypatch):
    table = dla.TABLE
    arch = replace(table.archs["dla46_c"], note="a note")
    monkeypatch.setattr(dla, "TABLE", replace(table, normalisation=pixels, licence=None, archs={"dla46_c": arch}))
    report = tmp_path / "report.json"
    assert convert(source, tmp_path / "out.pth", "--report", str(report)) == 0
    meta = torch.load(tmp_path / "out.pth")["meta"]
    assert meta["data_preprocessor"] == dict(mean=mean, std=std, bgr_to_rgb=turned)
    assert meta["normalisation"] == dict(
        mean=list(pixels.mean), std=list(pixels.std), channel_order=pixels.channel_order, range=[0, pixels.maximum]
    )
    assert (meta["licence"], meta["remarks"], meta["input"], meta["prefix"]) == ("unknown", ["a note"], "in.pth", "")
    assert "model" not in meta
    assert "components" not in meta
    assert json.loads(report.read_text(encoding="utf-8"))["remarks"] == ["a note"]
    own = Normalisation((0, 0, 0), (1, 1, 1))
    monkeypatch.setattr(dla, "TABLE", replace(table, archs={"dla46_c": replace(arch, normalisation=own)}))
    assert convert(source, tmp_path / "out.pth", "--force") == 0
    assert torch.load(tmp_path / "out.pth")["meta"]["normalisation"]["mean"] == [0, 0, 0]


def test_exits_are_left_out_of_a_backbone_and_still_tried(tmp_path, capsys):
    torch.save(make_state_dict(load_record("msdnet_cifar100_anytime")), tmp_path / "in.pth")
    options = ["--source", "msdnet", "--arch", "cifar100_anytime", "--verify"]
    names = [f"exit{i + 1}" for i in range(7)]
    for suffix, part in ((".safetensors", "backbone"), (".safetensors", "whole")):
        out, report = tmp_path / f"{part}{suffix}", tmp_path / "report.json"
        assert convert(tmp_path / "in.pth", out, *options, "--part", part, "--report", str(report)) == 0
        said = json.loads(report.read_text(encoding="utf-8"))
        assert [row["name"] for row in said["outputs"]][-7:] == names
        reasons = set(said["dropped"].values())
        assert any("safetensors has no place" in reason for reason in reasons) == (part == "backbone")
        assert all(name.startswith(("backbone.", "head.")) == (part == "whole") for name in written(out))
        assert any(name.startswith("head.") for name in written(out)) == (part == "whole")


def test_auto_names_what_keeps_the_nearest_architecture_from_fitting(source, tmp_path, capsys):
    state, auto = state_dict(), ("--source", "auto")
    state = {f"module.{key}": value for key, value in state.items()}
    torch.save({**state, "n_averaged": torch.zeros(1)}, source)
    message = refusal(capsys, source, tmp_path / "out.pth", *auto)
    assert "fits nothing, dla dla46_c comes nearest: source dla knows no key n_averaged" in message
    keys = [f"module.level2.tree1.conv{i}.weight" for i in (1, 2)]
    torch.save({k: v for k, v in state.items() if k not in keys}, source)
    message = refusal(capsys, source, tmp_path / "out.pth", *auto)
    assert "2 tensors are missing (first: backbone.level2.tree1.conv1.weight, backbone.level2.tree1.conv2" in message
    torch.save({**state, keys[0]: torch.zeros(3)}, source)
    message = refusal(capsys, source, tmp_path / "out.pth", *auto)
    assert "backbone.level2.tree1.conv1.weight is [3], expected [32, 32, 1, 1]" in message


def test_values_that_are_not_finite_are_reported(source, tmp_path, capsys):
    state = state_dict()
    state["level5.root.bn.running_var"][3] = torch.nan
    torch.save(state, source)
    assert convert(source, tmp_path / "out.pth") == 0
    words = "1 tensors hold values that are not finite (first: backbone.level5.root.bn.running_var)"
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "best", "others"),
    [
        (
            "torchvision resnet50",
            "torchvision resnet50",
            [
                "timm resnet50",
                "openmmlab resnet50",
                "openmmlab resnet50_caffe",
                "shape_adaptor resnet50_human-imagenet_224",
            ],
        ),
        ("timm seresnext101_32x4d", "timm seresnext101_32x4d", []),
        ("openmmlab resnet101_v1c", "openmmlab resnet101_v1c", []),
        ("timm densenet161", "torchvision densenet161", ["timm densenet161"]),
        ("elastic resnext50_elastic", None, []),
    ],
)
def test_plain_networks_are_not_taken_for_another_method(key, best, others):
    """Keys as they stand in the target; those of Elastic have no such file."""
    source, arch = key.split()
    shapes = expected(load_table(source).archs[arch].backbone).shapes
    prefix = "features." if "densenet" in arch else ""
    state = {prefix + name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    guesses = [str(guess) for guess in recognise(Checkpoint(Path("in.pth"), state))]
    assert guesses == ([best, *others] if best else [])


IN_A_ROW = (("0.0", "0"), ("0.1", "1"), ("1.0", "3"), ("1.1", "4"), ("2", "6"), ("3", "7"))


def mobilenet(row: bool = False) -> dict[str, Tensor]:
    """MobileNetV2 in torchvision's keys, today's or those of old files, which number the layers of a block in a row."""
    state = expected(load_table("torchvision").archs["mobilenet_v2"].backbone).shapes
    places = {f"features.{i}.conv.{new}.": f"features.{i}.conv.{old}." for i in range(2, 18) for new, old in IN_A_ROW}
    first = {
        f"features.1.conv.{new}.": f"features.1.conv.{old}." for new, old in (("1", "3"), ("2", "4"), *IN_A_ROW[:2])
    }
    named = {}
    for key, shape in state.items():
        start = next((place for place in (places | first) if row and key.startswith(place)), "")
        named[(places | first).get(start, "") + key.removeprefix(start)] = torch.zeros(shape)
    return named


@pytest.mark.parametrize("row", [False, True])
def test_strides_that_keys_do_not_show_are_asked_for(row, tmp_path, capsys):
    """The same keys and shapes: torchvision's, and those of networks for CIFAR, whose stem has stride 1."""
    path, out, state = tmp_path / "in.pth", tmp_path / "out.pth", mobilenet(row)
    torch.save(state, path)
    ours, theirs = (
        "--source torchvision --arch mobilenet_v2",
        "--source shape_adaptor --arch mobilenetv2_human-cifar_32",
    )
    line = refusal(capsys, path, out, "--source", "auto")
    assert f"do not show whether it has stride 2 in the stem and the first widening block: give {ours} if so" in line
    if not row:
        assert f"or {theirs} if it has stride 1 in the stem" in line
        line = refusal(capsys, path, out, "--source", "shape_adaptor")
        assert f"do not show whether it has stride 1 in the stem and the first widening block: give {theirs}" in line
        assert convert(path, out, *theirs.split()) == 0
        assert (
            "stride 1 in the stem and the first widening block: by --arch, the file does not" in capsys.readouterr().out
        )
        assert load_backbone(out).out_strides[-1] == 8
    torch.save(state | {"classifier.1.weight": torch.zeros(9, 1280), "classifier.1.bias": torch.zeros(9)}, path)
    for options in (("--source", "auto"), ours.split()):  # the classifier shows it
        assert convert(path, out, *options, "--force") == 0
        assert "does not show" not in capsys.readouterr().out
        assert load_backbone(out).out_strides[-1] == 32
    torch.save(state | {"classifier.0.weight": torch.zeros(9, 1280), "classifier.0.bias": torch.zeros(9)}, path)
    if not row:  # of shape_adaptor, whose two designs look alike
        large = theirs.replace("cifar_32", "imagenet_224")
        line = refusal(capsys, path, out, "--source", "auto", "--force")
        assert f"give {theirs} if so, or {large} if it has stride 2 in the stem" in line
        assert convert(path, out, *large.split(), "--force") == 0
        assert load_backbone(out).out_strides[-1] == 32
    del state["features.18.0.weight"]
    torch.save(state, path)
    assert "backbone.features.18.0.weight" in refusal(capsys, path, out, *ours.split(), "--force")


@pytest.mark.parametrize("row", [False, True])
def test_a_mobilenet_without_its_last_layer(row, tmp_path, capsys):
    path, out = tmp_path / "in.pth", tmp_path / "out.pth"
    torch.save({key: value for key, value in mobilenet(row).items() if "features.18" not in key}, path)
    arch = ("--source", "torchvision", "--arch", "mobilenet_v2_headless")
    assert f"give {' '.join(arch)} if so" in refusal(capsys, path, out, "--source", "auto")
    assert convert(path, out, *arch) == 0
    backbone = load_backbone(out)
    assert (backbone.out_channels, backbone.out_strides) == ((16, 24, 32, 64, 96, 160, 320), (2, 4, 8, 16, 16, 32, 32))


@pytest.mark.parametrize(
    ("arch", "source", "number", "stride"),
    [
        ("mobilenetv2_autosc_96_width0.25", "auto", 4, 32),
        ("mobilenetv2_autosc_64_width0.25", "shape_adaptor", 4, 8),
        ("mobilenetv2_human-cifar_224_width0.25", "auto", 0, 16),
        ("mobilenetv2_human-imagenet_33_width0.25", "auto", 0, 16),
        ("mobilenetv2_shape-adaptor_300_width0.25", "auto", 7, 32),
    ],
)
def test_architectures_that_are_named_by_network_mode_and_side(arch, source, number, stride, tmp_path):
    """Those of Shape Adaptor's authors, for any side and width, which need not be listed."""
    path, out, config = tmp_path / "in.pth", tmp_path / "out.pth", load_table("shape_adaptor").archs[arch].backbone
    state = {
        key.replace("stem_adaptor.alpha", "alpha_init").replace("resize.", ""): torch.zeros(shape)
        for key, shape in expected(config).shapes.items()
    }
    torch.save(state, path)
    assert convert(path, out, "--source", source, "--arch", arch) == 0
    backbone = load_backbone(out)
    assert (len(backbone.plan.adaptors), backbone.out_strides[-1]) == (number, stride)
    assert backbone.plan.options.design_size == int(arch.split("_")[2])


@pytest.mark.parametrize(
    "arch",
    ["mobilenetv2_autosc_8", "mobilenetv2_autosc_8193", "mobilenetv2_autosc_32_width0", "vgg16_autosc_32_width0.5",
     "vgg16_autotl_224", "vgg19_autosc_32", "resnet50_autosc", "resnet50_autosc_٣٢"],
)  # fmt: skip
def test_names_that_are_no_architecture_are_refused_with_their_form(arch, tmp_path, capsys):
    torch.save(mobilenet(), tmp_path / "in.pth")
    line = refusal(capsys, tmp_path / "in.pth", tmp_path / "out.pth", "--source", "shape_adaptor", "--arch", arch)
    assert f"--arch {arch}: source shape_adaptor has NETWORK_MODE_SIDE with NETWORK of vgg16, resnet50, " in line
    assert "MODE of shape-adaptor, autosc, autotl (ResNet alone), " in line
    assert "SIDE from 9 to 8192 px, such as resnet50_autosc_96" in line


def test_help_names_every_source(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(sources()) <= set(words)


@pytest.mark.parametrize(
    ("arch", "stem", "kernel", "out_stride"),
    [
        ("resnet50_shape-adaptor_64", "cifar", 3, 8),
        ("resnet50_shape-adaptor_65", "imagenet", 7, 32),
        ("resnet101_autosc_63", "cifar", 3, 8),
        ("resnet50_autosc_64", "imagenet_unpooled", 7, 16),
        ("resnet50_autosc_65", "imagenet", 7, 32),
        ("resnet50_autotl_64", "imagenet_3x3", 3, 32),
        ("resnet152_autotl_65", "imagenet", 7, 32),
        ("resnet50_human-cifar_224", "cifar", 3, 8),
        ("resnet50_human-imagenet_32", "imagenet", 7, 32),
    ],
)
def test_stems_of_the_authors_resnets(arch, stem, kernel, out_stride):
    config = load_table("shape_adaptor").archs[arch].backbone
    assert config["stem"] == stem
    with torch.device("meta"):
        backbone = MODELS.build(dict(config))
    assert (backbone.conv1.kernel_size, backbone.out_strides[-1]) == ((kernel, kernel), out_stride)


def test_poolings_behind_the_last_layer_are_asked_for(tmp_path, capsys):
    """VGG has one from above 64 px, which its keys do not show."""
    path, state = tmp_path / "in.pth", {}
    shapes, places = expected(load_table("shape_adaptor").archs["vgg16_human-cifar_32"].backbone).shapes, []
    for key in shapes:
        if (cell := key.rsplit(".", 2)[0]) not in places:
            places.append(cell)
    for key, shape in shapes.items():
        cell, part, name = key.rsplit(".", 2)
        number = 3 * places.index(cell) + int(cell[5]) - 1 + (part == "norm")
        state[f"features.{number}.{name}"] = torch.zeros(shape)
    torch.save(state, path)
    line = refusal(capsys, path, tmp_path / "out.pth", "--source", "auto")
    names = (
        "--source shape_adaptor --arch vgg16_human-cifar_32",
        "--source shape_adaptor --arch vgg16_human-imagenet_224",
    )
    assert f"has 4 poolings (pictures of up to 64 px): give {names[0]} if so, or {names[1]} if it has 5 pool" in line
    for name, stride in zip(names, (16, 32), strict=True):
        assert convert(path, tmp_path / "out.pth", *name.split(), "--force") == 0
        assert load_backbone(tmp_path / "out.pth").out_strides[-1] == stride


@pytest.mark.parametrize("options", [(), ("--source", "openmmlab", "--arch", "resnet18")])
def test_a_checkpoint_of_mmms_train_needs_no_conversion(options, tmp_path, capsys):
    path = tmp_path / "epoch_3.pth"
    network = {"backbone.layer.weight": torch.ones(2)}
    torch.save({"state_dict": network, "meta": {TRAINED: {}}}, path)
    line = refusal(capsys, path, tmp_path / "out.pth", *options)
    assert "epoch_3.pth: a checkpoint of mmms train needs no conversion: mmms test," in line
    assert "mmms publish prepares it for release" in line
    torch.save({"state_dict": network}, path)
    assert "needs no conversion" not in refusal(capsys, path, tmp_path / "out.pth", "--source", "timm")


def test_strides_of_segmentation_models_and_of_detectors_without_a_neck_are_asked_for(tmp_path, capsys):
    path, out = tmp_path / "in.pth", tmp_path / "out.pth"
    backbone = {f"backbone.{key}": value for key, value in PSResNet(18).state_dict().items()}
    resnet = ("--source", "openmmlab", "--arch", "resnet18")
    for head, kind in (
        ("decode_head.conv_seg.weight", "a segmentation model"),
        ("rpn_head.rpn_conv.weight", "a detector"),
    ):
        torch.save({"state_dict": backbone | {head: torch.zeros(2, 4, 1, 1)}}, path)
        out.unlink(missing_ok=True)
        assert f"the file is of {kind}" in (line := refusal(capsys, path, out, *resnet))
        assert "give --output-stride 8, 16 or 32" in line
        assert convert(path, out, *resnet, "--output-stride", "8", "--force") == 0
        config = read_checkpoint(out).meta["backbone"]
        assert (config["strides"], config["dilations"]) == ([1, 2, 1, 1], [1, 1, 2, 4])
        assert config.get("contract_dilation", False) is (kind == "a segmentation model")
    neck = {"neck.lateral_convs.0.conv.weight": torch.zeros(2, 2, 1, 1)}
    torch.save({"state_dict": backbone | neck | {"rpn_head.rpn_conv.weight": torch.zeros(2, 4, 1, 1)}}, path)
    assert convert(path, out, *resnet, "--force") == 0
    assert "strides" not in read_checkpoint(out).meta["backbone"]
    capsys.readouterr()
    torch.save(PSResNet(18, dilation_pattern=(1, 1, 1, 1)).state_dict(), path)
    assert convert(path, out, *resnet, "--force") == 0
    assert "strides and dilations of a classifier; the file, which has no head, may be" in capsys.readouterr().out
    torch.save(state_dict(), path)
    assert "--output-stride: not for source dla" in refusal(capsys, path, tmp_path / "x.pth", "--output-stride", "8")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_say_what_layers_compute_and_are_not_taken_for_another_network(suffix, tmp_path, capsys):
    source, out = tmp_path / "in.pth", tmp_path / f"out{suffix}"
    resnet = ["--source", "openmmlab", "--arch", "resnet18", "--part", "whole"]
    plain, dilated = (PSResNet(18, dilation_pattern=pattern) for pattern in ((1, 1, 1, 1), (1, 2, 1, 4)))
    torch.save(dict(state_dict=nn.ModuleDict(dict(backbone=plain)).state_dict()), source)
    assert convert(source, out, *resnet) == 0
    functions = read_checkpoint(out).functions
    assert len(functions) == 16
    assert all(function == dict(dilation_pattern=[1]) for function in functions.values())
    assert f"backbone.{next(name for name, part in plain.named_modules() if isinstance(part, PSConv2d))}" in functions
    assert convert(source, out, "--force", *resnet[:4], "--pattern", "1,2,1,4") == 0
    function = read_checkpoint(out).functions["layer1.0.conv2"]
    assert function["dilation_pattern"] == [1, 2, 1, 4]

    torch.save(dict(state_dict=nn.ModuleDict(dict(backbone=dilated)).state_dict()), source)
    words = f"not openmmlab resnet18: backbone.layer1.0.conv1 was trained with {function}"
    assert words in refusal(capsys, source, tmp_path / "other.pth", *resnet)


def test_wrong_names_are_answered_with_the_right_ones(source, tmp_path, capsys):
    out = tmp_path / "out.pth"
    assert "it has no PSConv" in refusal(capsys, source, out, "--pattern", "1,2,1,4")
    assert "the file fits dla dla46_c" in refusal(capsys, source, out, "--source", "dla", "--arch", "dla60")
    assert "source dla has dla34, dla46_c" in refusal(capsys, source, out, "--source", "dla", "--arch", "dla35")
    for source_name, arch in (("ucbdrive/dla", "DLA-46-C"), ("DLA", "dla46c"), ("timm", "dla46_c.in1k")):
        assert convert(source, out, "--source", source_name, "--arch", arch) == 0
        out.unlink()
    assert "allowed are auto, dla, elastic" in refusal(capsys, source, out, "--source", "dlaa")
    line = refusal(capsys, source, out, "--source", "auto", "--arch", "mobilenetv2_autosc")
    assert "--arch mobilenetv2_autosc: no source has it; the nearest are mobilenet" in line
    assert "NETWORK_MODE_SIDE" in line
    torch.save({"a.weight": torch.zeros(3)}, source)
    assert "not those of any source" in refusal(capsys, source, out, "--source", "auto")


def outputs_of(out: Path, image: Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        maps = load_backbone(out, out_indices=(4, 5)).eval()(image)
    head = torch.load(out)["head"]
    logits = maps[1].mean((2, 3)) @ head["fc.weight"].T + head["fc.bias"]
    return {"base.level4": maps[0].numpy(), "level5": maps[1].numpy(), "output": logits.numpy()[:, :, None, None]}


def test_reference_outputs_decide(source, tmp_path, capsys):
    image = torch.randn(1, 3, 64, 96)
    out, again, npz = tmp_path / "out.pth", tmp_path / "again.pth", tmp_path / "reference.npz"
    assert convert(source, out, "--verify") == 0
    assert "1x256x7x7" in capsys.readouterr().out
    reference = outputs_of(out, image)
    np.savez(npz, input=image.numpy(), **reference)
    assert convert(source, again, "--reference", str(npz)) == 0
    again.unlink()
    assert convert(source, tmp_path / "again.safetensors", "--reference", str(npz)) == 0  # logits, too
    changed = {**reference, "level5": reference["level5"] + 0.01 * reference["level5"].std()}
    np.savez(npz, input=image.numpy(), **changed)
    message = refusal(capsys, source, again, "--reference", str(npz))
    assert "1 outputs differ, most of all level5: 0.01 of its standard deviation, allowed is 0.0001" in message
    assert convert(source, again, "--reference", str(npz), "--tolerance", "0.02") == 0
    again.unlink()
    for content, words in (
        (reference, "needs an array 'input'"),
        ({"input": image.numpy(), "layer9": np.zeros(3)}, "'layer9'; its outputs may be named level0, level1"),
        (
            {"input": image.numpy(), "level5": np.zeros((1, 2))},
            "level5 has shape [1, 2], the network's is [1, 256, 2, 3]",
        ),
        ({"input": np.array([{}], dtype=object)}, "not an .npz of arrays"),
        ({**reference, "input": image.numpy()[:0]}, "needs an array 'input' of shape [N, 3, H, W]"),
        ({"input": image.numpy(), "level5": reference["output"] * 1j}, "level5 holds complex64, not real numbers"),
    ):
        np.savez(npz, **content)
        assert words in refusal(capsys, source, again, "--reference", str(npz))


def test_ungrouped_weights_beneath_the_mask_are_an_error_or_a_stated_deviation(tmp_path, capsys):
    state = make_state_dict(load_record("psconv_ps_resnet50"))
    state["layer1.0.conv2.conv.weight"][0, 0] = 0.125
    state["layer2.1.conv2.conv.weight"][0, 0] = 0.25
    torch.save(state, tmp_path / "in.pth")
    options = ["--source", "psconv", "--arch", "ps-resnet50"]
    message = refusal(capsys, tmp_path / "in.pth", tmp_path / "out.pth", *options)
    assert "2 PSConv layers have dilation-1 weights beneath the authors' mask" in message
    assert "largest: 0.25 in layer2.1.conv2" in message
    assert convert(tmp_path / "in.pth", tmp_path / "out.pth", *options, "--drop-extra") == 0
    moved = capsys.readouterr().out.split("fixed input): ")[1].splitlines()[0]
    figures = {item.split()[0]: float(item.split()[1]) for item in moved.split(", ")}
    assert 0 < figures["layer1"] < 0.1
    assert 0 < figures["layer2"] < 0.1


def test_grouped_extra_weights_are_kept_or_dropped_with_a_figure(tmp_path, capsys):
    torch.save(make_state_dict(load_record("psconv_ps_resnext50_32x4d")), tmp_path / "in.pth")
    options = ["--source", "psconv", "--arch", "ps_resnext50_32x4d"]
    assert convert(tmp_path / "in.pth", tmp_path / "kept.pth", *options) == 0
    assert torch.load(tmp_path / "kept.pth")["meta"]["backbone"]["extra_dilation1"] is True
    assert convert(tmp_path / "in.pth", tmp_path / "dropped.pth", *options, "--drop-extra") == 0
    assert "extra_dilation1" not in torch.load(tmp_path / "dropped.pth")["meta"]["backbone"]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        exact, paper = (load_backbone(tmp_path / f"{name}.pth").eval()(x)[0] for name in ("kept", "dropped"))
    measured = float((paper - exact).square().mean().sqrt() / exact.std())
    printed = float(capsys.readouterr().out.split("layer1 ")[1].split(",")[0])
    assert abs(printed - measured) < 0.1 * measured


def test_a_pattern_over_plain_weights_says_how_far_outputs_move(tmp_path, capsys):
    torch.save(make_state_dict(load_record("torchvision_resnet18")), tmp_path / "in.pth")
    options = ["--source", "torchvision", "--arch", "resnet18"]
    assert convert(tmp_path / "in.pth", tmp_path / "out.pth", *options, "--pattern", "1,2,1,4") == 0
    assert load_backbone(tmp_path / "out.pth").layer1[0].conv1.dilation_pattern == (1, 2, 1, 4)
    moved = capsys.readouterr().out.split("outputs move by")[1].splitlines()[0]
    assert convert(tmp_path / "in.pth", tmp_path / "out.safetensors", *options, "--pattern", "1,2,1,4") == 0
    assert capsys.readouterr().out.split("outputs move by")[1].splitlines()[0] == moved  # the logits' included
    assert "output " in moved
    assert convert(tmp_path / "in.pth", tmp_path / "plain.pth", *options, "--pattern", "1,1,1,1") == 0
    assert "outputs move" not in capsys.readouterr().out
    meta = torch.load(tmp_path / "plain.pth")["meta"]
    assert (meta["remarks"], meta["backbone"]["dilation_pattern"]) == ([], [1, 1, 1, 1])
    words = refusal(capsys, tmp_path / "in.pth", tmp_path / "x.pth", *options, "--pattern", "1,0")
    assert "--pattern" in words
    assert "--drop-extra" in refusal(capsys, tmp_path / "in.pth", tmp_path / "x.pth", *options, "--drop-extra")


def as_mmdet1(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A detector of mmdet 3.x as mmdet 1.x would have kept it: background first, heads beside each other."""
    old = {}
    for key, value in state.items():
        key = key.removeprefix("roi_head.")
        if "fc_cls" in key:
            value = torch.cat([value[-1:], value[:-1]])
        elif ("fc_reg" in key and len(value) > 4) or "conv_logits" in key:
            value = torch.cat([torch.full_like(value[: 4 if "fc_reg" in key else 1], 9.0), value])
        if key.startswith("backbone.") and key.endswith("conv2.weight"):
            stem, quarter = key.removesuffix("weight"), value.shape[1] // 4
            rows = value.shape[0] // 4
            blocks = value.view(4, rows, 4, quarter, 3, 3)
            old[f"{stem}gwconv.weight"] = torch.cat([blocks[i, :, i] for i in range(4)])
            old[f"{stem}gwconv_shift.weight"] = torch.cat([blocks[i, :, (i + 2) % 4] for i in range(4)])
            dense = blocks.clone()
            for i in range(4):
                dense[i, :, i] = dense[i, :, (i + 2) % 4] = 0
            old[f"{stem}conv.weight"] = dense.view(value.shape)
        else:
            old[key] = value
    return old


@pytest.mark.parametrize("config", ["mask_rcnn_ps_r50_fpn_1x", "cascade_mask_rcnn_ps_r50_fpn_1x"])
def test_whole_detectors_of_mmdet_1_load_strictly_into_todays(config, tmp_path):
    from mmengine.registry import init_default_scope

    from mmms_plugin.config.edit import replace_components
    from mmms_plugin.config.files import load_config

    init_default_scope("mmdet")
    cfg = load_config(config)
    model = MODELS.build(cfg.model)
    content = {"meta": {"mmdet_version": "0.6.0"}, "state_dict": as_mmdet1(model.state_dict()), "optimizer": {}}
    torch.save(content, tmp_path / "in.pth")
    assert main(["convert", str(tmp_path / "in.pth"), str(tmp_path / "out.pth"), "--source", "psconv"]) == 0
    converted = torch.load(tmp_path / "out.pth")
    wanted = model.state_dict()
    assert set(converted["state_dict"]) == set(wanted)
    assert all(torch.equal(value, wanted[key]) for key, value in converted["state_dict"].items())
    stages = 3 if "cascade" in config else 1
    # anchors once; box coders of the RPN and of every stage; RoIAlign for boxes and masks of every stage
    assert replace_components(cfg.model, converted["meta"]["components"]) == 1 + 1 + stages + 2
    legacy = MODELS.build(cfg.model)
    assert type(legacy.rpn_head.prior_generator).__name__ == "LegacyAnchorGenerator"
    assert set(legacy.state_dict()) == set(wanted)


def test_join_needs_every_part():
    with pytest.raises(ValueError, match="dilation2, dilation4 are missing"):
        join_published({"dilation1": torch.zeros(8, 8, 3, 3)}, {})
    parts = {name: torch.zeros(8, 2, 3, 3) for name in ("dilation2", "dilation4")}
    with pytest.raises(ValueError, match="do not belong together"):
        join_published({**parts, "dilation1": torch.zeros(8, 6, 3, 3)}, {})


@pytest.mark.parametrize("source", sources())
def test_every_arch_of_every_table_builds_and_names_its_outputs(source):
    table = load_table(source)
    assert table.source == source
    by_type: dict[str, list[Arch]] = {}
    for arch in table.archs.values():
        assert expected(arch.backbone).width > 0
        assert arch.outputs or table.outputs
        by_type.setdefault(arch.backbone["type"], []).append(arch)
    for archs in by_type.values():  # two of a type, as all of them would take long
        for arch in (archs[0], archs[-1]):
            with torch.device("meta"):
                last = MODELS.build(dict(arch.backbone)).eval()(torch.empty(1, 3, 64, 64))[-1]
            assert last.shape[1] == expected(arch.backbone).width  # the classifier's inputs


def test_a_rule_that_drops_needs_its_reason():
    with pytest.raises(ValueError, match="give the reason"):
        Rule("a", None)
    with pytest.raises(ValueError, match="apply='transpose': allowed are flatten"):
        Rule("a", "b", apply="transpose")
    assert Table("x", "", {"a": Arch({})}, ()).licence is None


MEMORY = """
import resource, sys
from mmms_plugin.weights.convert import convert
from mmms_plugin.weights.options import Options
from mmms_plugin.weights.mapping import expected
import mmms_plugin.registry, safetensors.torch
expected(dict(type="mmms_plugin.PSResNet", depth=18))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
convert(sys.argv[1], sys.argv[2], Options(source="psconv", arch="ps_resnet50", verify=True))
print(peak() - before)
"""


def test_memory_stays_below_three_times_the_file(tmp_path):
    source = tmp_path / "in.pth"
    torch.save({"state_dict": make_state_dict(load_record("psconv_ps_resnet50"))}, source)
    command = [sys.executable, "-c", MEMORY, str(source), str(tmp_path / "out.pth")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3 * source.stat().st_size
