"""What ``mmms advise`` reads from a detector's config: strides, anchors, and what can be changed in it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import TASK_UTILS
from numpy.typing import NDArray

from mmms_plugin.backbones.ps_resnet import PSResNet
from mmms_plugin.config.check import user_fault
from mmms_plugin.config.edit import dicts_in
from mmms_plugin.scale.advice import Options

PATTERN, PLAIN = (1, 2, 1, 4), (1, 1, 1, 1)
TAKES_CONV_CFG = ("ResNet", "ResNeXt", "ResNetV1d")  # of mmdet; elsewhere conv_cfg reaches layers it is not meant for
MULTI_SCALE = ("ElasticResNeXt", "ElasticDenseNet", "DLA", "ShapeAdaptorResNet", "ShapeAdaptorVGG",
               "ShapeAdaptorMobileNetV2", "MSDNet")  # fmt: skip
OTHER_LAYERS = ("ElasticConv", "DepthwisePSConv", "DynamicPSConv")


def dense_head(config: Config) -> tuple[str, dict[str, Any]]:
    """Key and config of the head that predicts from every cell: the RPN's, or that of a one-stage detector."""
    model = config.model
    key = next((key for key in ("rpn_head", "bbox_head") if isinstance(model.get(key), dict)), "")
    return key, dict(model.get(key) or {})


def anchors_of(config: Config) -> NDArray[np.float64] | None:
    """``[k, 4]`` width, height and distances to the next across and down, in px, of all base anchors.

    None for detectors without, which predict from points.
    """
    _, head = dense_head(config)
    generator = head.get("anchor_generator")
    if not isinstance(generator, dict):
        return None
    built = user_fault("anchor_generator", lambda: TASK_UTILS.build(deepcopy(dict(generator))))
    levels = getattr(built, "base_anchors", None)
    if not levels:
        return None
    sizes = [(level[:, 2:] - level[:, :2]).double().numpy() for level in levels]
    steps = [np.broadcast_to(stride, size.shape) for stride, size in zip(built.strides, sizes, strict=True)]
    return np.concatenate([np.concatenate(sizes), np.concatenate(steps)], 1)


def strides_of(config: Config, stages: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of the maps that a detector predicts from; of its backbone's last stage where the head has none."""
    _, head = dense_head(config)
    for part in (head.get("anchor_generator"), head.get("prior_generator"), head):
        strides = part.get("strides") if isinstance(part, dict) else None
        if isinstance(strides, list | tuple) and strides:
            return tuple(int(s[0] if isinstance(s, list | tuple) else s) for s in strides)
    return (stages[-1],)


def options_of(config: Config) -> Options:
    """What can be changed; the field of the multi-scale form is measured elsewhere."""
    key, head = dense_head(config)
    backbone = config.model.get("backbone") or {}
    name, layer = _name(backbone), _name(backbone.get("conv_cfg") or {})
    others = name if name in MULTI_SCALE and _has_scales(name, backbone) else layer if layer in OTHER_LAYERS else ""
    plain: dict[str, Any] | None = None
    multi_scale: dict[str, Any] | None = None
    if name == "PSResNet":
        pattern = tuple(backbone.get("dilation_pattern", PATTERN))
        plain = None if set(pattern) == {1} else {"model.backbone.dilation_pattern": PLAIN}
        multi_scale = {"model.backbone.dilation_pattern": PATTERN if set(pattern) == {1} else pattern}
    elif name in TAKES_CONV_CFG and layer == "PSConv":
        plain = {"model.backbone.conv_cfg": None}
        multi_scale = {"model.backbone.conv_cfg": dict(backbone["conv_cfg"])}
    elif name in TAKES_CONV_CFG and layer in ("", "Conv2d", "Conv"):
        multi_scale = _as_ps_resnet(name, backbone)
    finer = _finer(config, key, head)
    finer_anchors = None if finer is None else anchors_of(with_changes(config, finer))
    return Options(
        _scales(key, head), finer, finer_anchors, plain, multi_scale, other_layers=others,
        two_stage="roi_head" in config.model,
    )  # fmt: skip


def _as_ps_resnet(name: str, backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Changes that make a ResNet of mmdet a PSResNet, which is the paper's network: its stem stays plain.

    Where a backbone has arguments that PSResNet lacks (deformable layers, plugins), its ``conv_cfg`` is changed. Layers
    that start from plain weights have to adapt, norms too: none of them is frozen.
    """
    without = {"type", "conv_cfg", "pretrained", "_scope_"}
    starts = backbone.get("init_cfg") or backbone.get("pretrained")
    free = {"model.backbone.frozen_stages": -1, "model.backbone.norm_eval": False} if starts else {}
    if not set(backbone) - without <= set(inspect.signature(PSResNet).parameters):
        return {"model.backbone.conv_cfg": dict(type="mmms_plugin.PSConv"), **free}
    defaults: dict[str, Any] = dict(norm_eval=True, stem_channels=backbone.get("base_channels", 64))  # mmdet's
    if name == "ResNeXt":
        defaults |= dict(base_width=4) if backbone.get("groups", 1) > 1 else {}  # mmdet has the width of groups alone
    elif name == "ResNetV1d":
        defaults |= dict(deep_stem=True, avg_down=True)
    if backbone.get("pretrained"):  # the old name
        defaults |= dict(init_cfg=dict(type="Pretrained", checkpoint=backbone["pretrained"]))
    changes = {key: value for key, value in defaults.items() if backbone.get(key) is None}
    return {
        "model.backbone.type": "mmms_plugin.PSResNet", "model.backbone.dilation_pattern": PATTERN,
        **{f"model.backbone.{key}": None for key in without - {"type"} if key in backbone},
        **{f"model.backbone.{key}": value for key, value in changes.items()}, **free,
    }  # fmt: skip


def _name(part: Mapping[str, Any]) -> str:
    return str(part.get("type") or "").rpartition(".")[2]


def _has_scales(name: str, backbone: Mapping[str, Any]) -> bool:
    """Whether a backbone that may be plain is not."""
    if name.startswith("ShapeAdaptor"):
        return backbone.get("mode") != "human"
    return name == "MSDNet" or backbone.get("elastic", "none") not in (False, "none")


def _scales(key: str, head: Mapping[str, Any]) -> tuple[str, tuple[float, ...]] | None:
    generator = head.get("anchor_generator")
    if not isinstance(generator, dict) or _name(generator) != "AnchorGenerator":
        return None
    path = f"model.{key}.anchor_generator"
    if generator.get("octave_base_scale") is not None:
        return f"{path}.octave_base_scale", (float(generator["octave_base_scale"]),)
    scales = generator.get("scales")
    return (f"{path}.scales", tuple(float(s) for s in scales)) if isinstance(scales, list | tuple) else None


def _finer(config: Config, key: str, head: Mapping[str, Any]) -> dict[str, Any] | None:
    """Changes that give a one-stage detector with a feature pyramid the level below its finest."""
    neck, backbone = config.model.get("neck"), config.model.get("backbone") or {}
    generator = head.get("anchor_generator")
    if key != "bbox_head" or not isinstance(neck, dict) or not isinstance(generator, dict):
        return None
    strides = generator.get("strides") or ()
    first = neck.get("start_level", 0)
    if _name(neck) != "FPN" or not first or not strides or 0 not in backbone.get("out_indices", (0, 1, 2, 3)):
        return None
    return {
        "model.neck.start_level": first - 1, "model.neck.num_outs": neck["num_outs"] + 1,
        "model.bbox_head.anchor_generator.strides": [strides[0] // 2, *strides],
    }  # fmt: skip


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy of a config with values set by dotted keys; None removes a value."""
    copied = deepcopy(config)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = copied
        for parent in parents:
            place = place[parent]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return copied


def has_objects(config: Config) -> bool:
    """Whether a config is a detector's whose backbone can be measured."""
    return "backbone" in config.get("model", {}) and any("type" in part for part in dicts_in(config.model.backbone))
