"""Facts about a detector's config for ``mmms advise``: strides, anchors, and possible changes."""

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
from mmms_plugin.config.edit import class_name, dicts_in
from mmms_plugin.config.facts import method_name
from mmms_plugin.scale.advice import Options

PATTERN, PLAIN = (1, 2, 1, 4), (1, 1, 1, 1)
TAKES_CONV_CFG = ("ResNet", "ResNeXt", "ResNetV1d")  # of mmdet; in others conv_cfg also reaches unsuitable layers
OTHER_METHODS = ("ELASTIC", "Shape Adaptor", "MSDNet")
OTHER_LAYERS = ("ElasticConv", "DepthwisePSConv", "DynamicPSConv")


def dense_head(config: Config) -> tuple[str, dict[str, Any]]:
    """Key and config of the head that predicts at every cell: the RPN, or the head of a one-stage detector."""
    model = config.model
    key = next((key for key in ("rpn_head", "bbox_head") if isinstance(model.get(key), dict)), "")
    return key, dict(model.get(key) or {})


def anchors_of(config: Config) -> NDArray[np.float64] | None:
    """``[k, 4]`` width, height, and horizontal and vertical stride in px of all base anchors.

    Returns:
        None for detectors that predict from points.
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


def strides_of(config: Config, deepest: int) -> tuple[int, ...]:
    """Strides of the maps that a detector predicts from; that of the backbone's last stage if the head states none."""
    _, head = dense_head(config)
    for part in (head.get("anchor_generator"), head.get("prior_generator"), head):
        strides = part.get("strides") if isinstance(part, dict) else None
        if isinstance(strides, list | tuple) and strides:
            return tuple(int(s[0] if isinstance(s, list | tuple) else s) for s in strides)
    return (deepest,)


def options_of(config: Config) -> Options:
    """The possible changes of a config; the receptive field of its multi-scale form is measured elsewhere."""
    key, head = dense_head(config)
    backbone = config.model.get("backbone") or {}
    name, layer = class_name(backbone), class_name(backbone.get("conv_cfg") or {})
    method = method_name(config.model) if name else ""
    others = name if method in OTHER_METHODS else layer if layer in OTHER_LAYERS else ""
    plain: dict[str, Any] | None = None
    multi_scale: dict[str, Any] | None = None
    if name == "PSResNet":
        has_pattern = method == "PSConv"
        plain = {"model.backbone.dilation_pattern": PLAIN} if has_pattern else None
        pattern = tuple(backbone.get("dilation_pattern", PATTERN)) if has_pattern else PATTERN
        multi_scale = {"model.backbone.dilation_pattern": pattern}
    elif name in TAKES_CONV_CFG and layer == "PSConv":
        plain = {"model.backbone.conv_cfg": None}
        multi_scale = {"model.backbone.conv_cfg": dict(backbone["conv_cfg"])}
    elif name in TAKES_CONV_CFG and layer in ("", "Conv2d", "Conv"):
        multi_scale = _as_ps_resnet(name, backbone)
    generator = head.get("anchor_generator")
    generator = generator if isinstance(generator, dict) else {}
    scales: tuple[str, tuple[float, ...]] | None = None
    if class_name(generator) == "AnchorGenerator":
        path = f"model.{key}.anchor_generator"
        if generator.get("octave_base_scale") is not None:
            scales = f"{path}.octave_base_scale", (float(generator["octave_base_scale"]),)
        elif isinstance(generator.get("scales"), list | tuple):
            scales = f"{path}.scales", tuple(float(scale) for scale in generator["scales"])
    finer = _finer(config, key, generator)
    finer_anchors = None if finer is None else anchors_of(with_changes(config, finer))
    return Options(
        scales, finer, finer_anchors, plain, multi_scale, other_layers=others, two_stage="roi_head" in config.model
    )


def _as_ps_resnet(name: str, backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Changes that turn a ResNet of mmdet into a PSResNet, the paper's network, whose stem stays plain.

    If the backbone has arguments that PSResNet lacks (deformable layers, plugins), only its ``conv_cfg`` changes.
    Layers and norms that start from plain weights have to adapt, so nothing is frozen.
    """
    without = {"type", "conv_cfg", "pretrained", "_scope_"}
    starts = backbone.get("init_cfg") or backbone.get("pretrained")
    free = {"model.backbone.frozen_stages": -1, "model.backbone.norm_eval": False} if starts else {}
    if not set(backbone) - without <= set(inspect.signature(PSResNet).parameters):
        return {"model.backbone.conv_cfg": dict(type="mmms_plugin.PSConv"), **free}
    defaults: dict[str, Any] = dict(norm_eval=True, stem_channels=backbone.get("base_channels", 64))  # mmdet's
    if name == "ResNeXt":
        defaults |= dict(base_width=4) if backbone.get("groups", 1) > 1 else {}  # mmdet's only width
    elif name == "ResNetV1d":
        defaults |= dict(deep_stem=True, avg_down=True)
    if backbone.get("pretrained"):  # the old name of init_cfg
        defaults |= dict(init_cfg=dict(type="Pretrained", checkpoint=backbone["pretrained"]))
    changes = {key: value for key, value in defaults.items() if backbone.get(key) is None}
    return {
        "model.backbone.type": "mmms_plugin.PSResNet", "model.backbone.dilation_pattern": PATTERN,
        **{f"model.backbone.{key}": None for key in without - {"type"} if key in backbone},
        **{f"model.backbone.{key}": value for key, value in changes.items()}, **free,
    }  # fmt: skip


def _finer(config: Config, key: str, generator: Mapping[str, Any]) -> dict[str, Any] | None:
    """Changes that give a one-stage detector with a feature pyramid the level below its finest."""
    neck, backbone = config.model.get("neck"), config.model.get("backbone") or {}
    strides = generator.get("strides") or ()
    if key != "bbox_head" or not strides or not isinstance(neck, dict) or class_name(neck) != "FPN":
        return None
    first = neck.get("start_level")
    if not first or 0 not in backbone.get("out_indices", (0, 1, 2, 3)):
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
    """Whether a config has a backbone that can be measured."""
    return "backbone" in config.get("model", {}) and any("type" in part for part in dicts_in(config.model.backbone))
