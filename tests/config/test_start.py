"""Weights of any publisher to start from: what is loaded computes what it did, and what does not fit is named."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmms_plugin.config.function import Function
from mmms_plugin.config.start import Start, start_for
from mmms_plugin.errors import UserError
from mmms_plugin.registry import MODELS
from mmms_plugin.weights.files import Checkpoint
from mmms_plugin.weights.tables import IMAGENET, load_table
from tests.golden.compare import assert_outputs
from tests.golden.records import load_record, make_input, make_state_dict

MODELS.import_from_location()
PLACE = "x.pth"


def start(
    model: nn.Module, state: dict[str, Tensor], backbone: dict[str, Any] | None = None, classes: tuple[str, ...] = (),
    **more: Any,
) -> Start:  # fmt: skip
    parts = dict(type="Detector", backbone=backbone or {}, data_preprocessor=IMAGENET.data_preprocessor)
    return start_for(model, Function(parts, "mmdet"), Checkpoint(Path(PLACE), state, **more), PLACE, classes)


def refusal(model: nn.Module, state: dict[str, Tensor], **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        start(model, state, **more)
    return str(caught.value).removeprefix(f"--pretrained {PLACE}: ")


def with_backbone(config: dict[str, Any]) -> nn.ModuleDict:
    init_default_scope("mmdet")
    return nn.ModuleDict({"backbone": MODELS.build(dict(config))})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("torchvision_resnet18", "; not used: fc (2)"),
        ("timm_resnet50d", "; not used: fc (2)"),
        ("openmmlab_resnet50_v1d", ""),
        ("psconv_ps_resnet50", "; not used: fc (2)"),
        ("dla_dla34", "; not used: fc (2); dropped: projection of a tree with subtrees: the output does"),
    ],
)
def test_published_weights_compute_what_their_authors_recorded(name, unused):
    record, source = load_record(name), name.partition("_")[0]
    table = load_table(source)
    arch = table.archs[record["arch"]]
    stages = arch.outputs or table.outputs
    model = with_backbone({**arch.backbone, "out_indices": range(len(stages))})
    begun = start(model, make_state_dict(record), dict(arch.backbone))
    count = len(model.state_dict())
    assert begun.line.startswith(f"{PLACE}, as {source} {record['arch']}: backbone ({count} tensors){unused}")
    assert begun.remark is None
    model.load_state_dict(begun.state)
    for case in record["cases"][:1]:
        with torch.no_grad():
            outputs = dict(zip(stages, model.eval().backbone(make_input(case)), strict=True))
        for stage in set(table.before_relu) & set(stages):
            case["outputs"][stage]["value"] = [max(0, value) for value in case["outputs"][stage]["value"]]
        case["outputs"] = {stage: values for stage, values in case["outputs"].items() if stage in stages}
        assert_outputs(case, outputs)


RESNET = dict(type="ResNet", depth=18)
PLAIN = dict(type="mmms_plugin.PSResNet", depth=18, dilation_pattern=(1, 1, 1, 1))
DILATED = "was made for backbone.dilation_pattern=[1], the config has [1, 2, 1, 4]: not the same function; its kernels"


@pytest.mark.parametrize(
    ("config", "remark"),
    [
        (RESNET, None),
        (PLAIN, None),
        (dict(type="mmms_plugin.PSResNet", depth=18), f"{PLACE} {DILATED} were trained without dilation ("),
        (RESNET | dict(conv_cfg=dict(type="mmms_plugin.PSConv")), f"{PLACE} {DILATED} were trained without dilation ("),
        (RESNET | dict(style="caffe"), "backbone.style='pytorch', the config has 'caffe': not the same function"),
    ],
)
def test_what_a_file_fits_says_what_its_kernels_were_trained_for(config, remark):
    begun = start(with_backbone(config), make_state_dict(load_record("torchvision_resnet18")), config)
    assert begun.line.startswith(f"{PLACE}, as torchvision resnet18: backbone (")
    assert remark in begun.remark if remark else begun.remark is None


def test_a_deeper_network_is_refused_and_named():
    model, state = with_backbone(RESNET), make_state_dict(load_record("torchvision_resnet18"))
    more = {key.replace("layer2.1", "layer2.2"): value for key, value in state.items() if "layer2.1" in key}
    assert refusal(model, state | more).startswith(
        f"not the weights of this config's backbone: {len(more)} tensors unknown (first: layer2.2.conv1.weight)"
    )
    fewer = {key: value for key, value in state.items() if not key.startswith("layer2.1")}
    assert "tensors missing (first: layer2.1.conv1.weight); is it of another depth or width?" in refusal(model, fewer)
    assert "the file has those of torchvision resnet18" in refusal(with_backbone(RESNET | dict(depth=34)), state)
    short = with_backbone(RESNET | dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)))
    assert "; not used: layer4 (30), fc (2)" in start(short, state).line


def row(*sizes: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


def detector(classes: int = 2, backbone: nn.Module | None = None, **more: nn.Module) -> nn.ModuleDict:
    first = nn.ModuleDict(dict(stem=nn.Linear(3, 3), features=row(3, 4, 4))) if backbone is None else backbone
    head = nn.ModuleDict(dict(fc=nn.Linear(4, 4), cls=nn.Linear(4, classes), norm=nn.BatchNorm1d(4)))
    return nn.ModuleDict(dict(backbone=first, neck=row(4, 4), head=head, **more))


def test_of_a_whole_model_neck_and_heads_are_loaded_layer_by_layer():
    model, theirs = detector(), detector(3, extra=nn.Linear(1, 1)).state_dict()
    theirs.pop("head.norm.num_batches_tracked")
    theirs["head.cls.bias"] = torch.zeros(2)  # fits, its layer's weight does not
    begun = start(model, theirs, meta=dict(dataset_meta=dict(classes=("a", "b", "c"))), classes=("a", "d"))
    assert begun.line == (
        f"{PLACE}: backbone (6 tensors), neck (2 tensors), head (6 of 9 tensors); made for 3 classes; with other "
        "shapes, so fresh: head.cls; not used: extra (2)"
    )
    assert begun.remark is None
    assert {key for key in model.state_dict() if key not in begun.state} == {
        "head.cls.weight", "head.cls.bias", "head.norm.num_batches_tracked"
    }  # fmt: skip
    assert all(torch.equal(value, theirs[key]) for key, value in begun.state.items())


def test_a_layer_that_lacks_a_tensor_starts_fresh_as_a_whole():
    model, state = detector(), detector().state_dict()
    key = next(key for key in state if not key.startswith("backbone.") and key.endswith("bias"))
    begun = start(model, {name: value for name, value in state.items() if name != key})
    layer = key.removesuffix(".bias")
    assert not [name for name in begun.state if name.startswith(f"{layer}.")]
    assert f"; incomplete in the file, so fresh: {layer}" in begun.line
    assert "with other shapes" not in begun.line


def test_heads_for_classes_of_other_names_are_loaded_with_a_warning():
    meta = dict(dataset_meta=dict(classes=("a", "b")))
    begun = start(detector(), detector().state_dict(), meta=meta, classes=("a", "d"))
    assert begun.remark == f"{PLACE} was trained for the classes a, b; the data has a, d"
    assert start(detector(), detector().state_dict(), meta=meta, classes=("a", "b")).remark is None


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_a_backbone_is_found_under_the_usual_prefixes(prefix):
    model = detector()
    state = {prefix + key: value for key, value in detector().backbone.state_dict().items()}
    begun = start(model, state | {f"{prefix}features.2.weight": torch.ones(1), "fc.weight": torch.ones(1)})
    assert {key.removeprefix("backbone.") for key in begun.state} == set(model.backbone.state_dict())
    assert "backbone (6 tensors); not used: " in begun.line  # it may go on behind its last layer
    state[f"{prefix}stem.0.weight"] = torch.ones(1)
    assert "1 tensors unknown (first: stem.0.weight)" in refusal(model, state)


def test_a_wrapper_s_network_is_filled_by_the_network_s_own_keys():
    network, classifier = detector().backbone, {"fc.weight": torch.ones(1)}
    wrapped = detector(backbone=nn.ModuleDict(dict(timm_model=network)))
    begun = start(wrapped, network.state_dict() | classifier)
    assert set(begun.state) == {f"backbone.timm_model.{key}" for key in network.state_dict()}
    assert begun.line == f"{PLACE}: backbone (6 tensors); not used: fc (1)"
    assert "unknown" in refusal(wrapped, network.state_dict() | {"stem.0.weight": torch.ones(1)})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (torch.full((3, 3), torch.nan), "stem.weight has values that are not finite"),
        (torch.ones(3, 3, dtype=torch.int64), "stem.weight has type int64; floating-point numbers are expected"),
    ],
)
def test_values_that_are_not_weights_are_refused(value, problem):
    state = detector().backbone.state_dict() | {"stem.weight": value}
    assert refusal(detector(), state) == problem
    halves = {key: tensor.half() for key, tensor in detector().backbone.state_dict().items()}
    assert len(start(detector(), halves).state) == 6


def test_files_of_this_plugin_say_what_they_were_trained_for():
    other = dict(type="mmms_plugin.PSResNet", depth=18, dilation_pattern=(2, 1, 4, 1))
    config = dict(other, dilation_pattern=(1, 2, 1, 4))
    state = with_backbone(other).backbone.state_dict()
    functions = {name: notes["function"] for name, notes in state._metadata.items() if "function" in notes}
    begun = start(with_backbone(config), dict(state), config, functions=functions)
    assert begun.line == f"{PLACE}: backbone (120 tensors)"  # under its own keys, whatever they may fit as well
    assert "backbone.layer1.0.conv1.dilation_pattern=[2, 1, 4, 1], the config has [1, 2, 1, 4]" in begun.remark
    assert start(with_backbone(other), dict(state), other, functions=functions).remark is None
