"""The backbone of a classifier that was trained here goes into the detectors and segmentation networks as it is."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmms_plugin.backbones.base import Backbone
from mmms_plugin.config.checkpoint import TRAINED, start_of, start_remark
from mmms_plugin.config.files import config_names, load_config
from mmms_plugin.config.function import Function
from mmms_plugin.registry import MODELS

MODELS.import_from_location()
# Shape Adaptor's networks but the ResNet have no config of a detector; a sequence of classifiers is none's backbone.
WITHOUT = {"ShapeAdaptorVGG", "ShapeAdaptorMobileNetV2", "ModelSequence"}
# Cascade and Faster R-CNN have the backbones of Mask R-CNN; one of deeper and shallower twins is enough.
GOALS = [n for n in config_names() if n.startswith(("mask_rcnn_", "deeplabv3_", "dla60x_up", "elastic_dla60x_up"))
         if not any(part in n for part in ("r50_psconv", "x50", "r101", "dla102x"))]  # fmt: skip
CLASSIFIERS = [name for name in config_names() if name.startswith("imagenet/")]


read = functools.cache(load_config)


def backbone_of(config: Mapping[str, Any]) -> Backbone:
    part = copy.deepcopy(dict(config["backbone"]))
    part.pop("init_cfg", None)
    with torch.device("meta"):
        return MODELS.build(part)


def fits(goal: nn.Module, source: nn.Module) -> bool:
    """Whether the source has every tensor of the goal; classifiers may have more, such as a last norm."""
    shapes = {key: value.shape for key, value in source.state_dict().items()}
    return all(shapes.get(key) == value.shape for key, value in goal.state_dict().items())


def test_every_backbone_is_in_a_detector_or_known_to_be_in_none():
    registered = {name for name, kind in MODELS.module_dict.items() if issubclass(kind, Backbone)}
    assert {read(name).model.backbone.type.rpartition(".")[2] for name in GOALS} == registered - WITHOUT


@pytest.mark.parametrize("name", GOALS)
def test_a_classifiers_backbone_fits_and_computes_the_same(name, tmp_path: Path):
    """Shapes do not show a PSConv's dilation pattern, nor pixels in another order: the checkpoint's config does."""
    config = read(name).model
    own, goal = Function.of(read(name)), backbone_of(config)
    remarks = []
    for classifier in map(read, CLASSIFIERS):
        if classifier.model.backbone.type != config.backbone.type or not fits(goal, backbone_of(classifier.model)):
            continue
        path = tmp_path / "classifier.pth"
        torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {TRAINED: dict(Function.of(classifier).parts)}}, path)
        remark = start_remark(nn.ModuleDict({"backbone": goal}), own, str(path), start_of(str(path)))
        if remark is None:
            return
        remarks.append(remark)
    pytest.fail(f"no config of imagenet/ trains the backbone of {name}: {remarks}")
