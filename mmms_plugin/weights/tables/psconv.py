"""github.com/d-li14/PSConv: ImageNet backbones, and whole detectors of its mmdet 0.6 fork.

mmdet 1.x and older: class 0 is the background (last since 2.0, and without box deltas and mask of its own), and heads
stand beside ``roi_head``. Their boxes count pixels inclusively (+1) and their RoIAlign is not aligned: ``components``
names the components of mmdet 3.x that compute as they did.

A published layer (the paper's 1.5x parameterisation) adds three convolutions: grouped with dilation 2, grouped with
dilation 4 on swapped channel halves, and a dense one with dilation 1, zero where the other two have their blocks. Their
blocks fill the single weight of ``PSConv2d``. Where the published mask misses blocks (grouped layers), the dense weight
has values beneath the dilated ones: those go to ``extra_weight``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmms_plugin.layers.ps_conv import published_mask
from mmms_plugin.weights.tables import Arch, Rule, Table
from mmms_plugin.weights.tables._resnet import AROUND_3X3, CLASSIFIER, STEM, ps_resnet

PATTERN = (2, 1, 4, 1)
PARTS = len(PATTERN)
EXTRA = ".extra_weight"

ROI_LAYERS = r"(?:(?:shared|cls|reg)_(?:fcs\.\d+|convs\.\d+\.conv)|convs\.\d+\.conv|upsample)"
ROI_HEADS = r"((?:bbox|mask)_head\.(?:\d+\.)?)"


def join_published(parts: Mapping[str, Tensor], backbone: Mapping[str, Any]) -> dict[str, Tensor]:
    """The three published weights as ``{'weight', 'extra_weight'}``.

    Args:
        parts: 'dilation2' and 'dilation4', ``[C_out, C_in / groups / 4, kh, kw]``, and 'dilation1',
            ``[C_out, C_in / groups, kh, kw]``.
        backbone: config with ``groups``.
    Raises: ValueError if a part is missing or the shapes do not belong together.
    """
    missing = {"dilation1", "dilation2", "dilation4"} - set(parts)
    if missing:
        raise ValueError(f"its weights of {', '.join(sorted(missing))} are missing")
    dense, groups = parts["dilation1"], backbone.get("groups", 1)
    if any(part.dim() != 4 or not part.numel() for part in parts.values()):
        raise ValueError(f"shapes {[tuple(p.shape) for p in parts.values()]}: expected [C_out, C_in / groups, kh, kw]")
    rows, columns = dense.shape[0] // groups // PARTS, dense.shape[1] // PARTS
    small = (dense.shape[0], columns, *dense.shape[2:])
    if rows * groups * PARTS != dense.shape[0] or any(parts[d].shape != small for d in ("dilation2", "dilation4")):
        raise ValueError(f"shapes {[tuple(p.shape) for p in parts.values()]} do not belong together, {groups} groups")
    weight = dense.clone().view(groups, PARTS, rows, PARTS, columns, *dense.shape[2:])
    extra = weight.new_empty(groups, PARTS, rows, 2, columns, *dense.shape[2:])
    for out in range(PARTS):
        for slot, (name, inp) in enumerate((("dilation2", out), ("dilation4", (out + 2) % PARTS))):
            extra[:, out, :, slot] = weight[:, out, :, inp]
            weight[:, out, :, inp] = parts[name].view(groups, PARTS, rows, columns, *dense.shape[2:])[:, out]
    return {"weight": weight.view(dense.shape), "extra_weight": extra.view(dense.shape[0], -1, *dense.shape[2:])}


def beneath_mask(extra: Tensor, groups: int) -> Tensor:
    """Values of an ``extra_weight`` that the published mask covers, and should be zero: one-dimensional."""
    blocks = extra.view(groups, PARTS, -1, 2, extra.shape[1] // 2, *extra.shape[2:])
    mask = published_mask(groups)
    values = [
        blocks[group, out, :, slot].flatten()
        for group in range(groups)
        for out in range(PARTS)
        for slot, inp in enumerate((out, (out + 2) % PARTS))
        if mask[group, out, inp]
    ]
    return torch.cat(values)


def unmasked_layers(state: Mapping[str, Tensor], groups: int) -> dict[str, float]:
    """Layers whose extra weights are not zero beneath the published mask, with the largest magnitude there."""
    largest = {key: float(beneath_mask(state[key], groups).abs().max()) for key in extra_keys(state)}
    return {key.removesuffix(EXTRA): value for key, value in largest.items() if value > 0}


def extra_keys(state: Iterable[str]) -> list[str]:
    """Keys of the extra dilation-1 weights."""
    return [key for key in state if key.endswith(EXTRA)]


def _ps(depth: int) -> Arch:
    return ps_resnet(depth, PATTERN)


def _ps_next(depth: int) -> Arch:
    return ps_resnet(depth, PATTERN, groups=32, base_width=4, extra_dilation1=True)


TABLE = Table(
    source="psconv",
    about="PSConv authors' ImageNet backbones and COCO detectors (github.com/d-li14/PSConv)",
    archs={
        "ps_resnet50": _ps(50),
        "ps_resnet101": _ps(101),
        "ps_resnext50_32x4d": _ps_next(50),
        "ps_resnext101_32x4d": _ps_next(101),
    },
    rules=(
        Rule(r"(.+\.conv2)\.gwconv\.weight", r"backbone.\1", join="dilation2"),
        Rule(r"(.+\.conv2)\.gwconv_shift\.weight", r"backbone.\1", join="dilation4"),
        Rule(r"(.+\.conv2)\.conv\.weight", r"backbone.\1", join="dilation1"),
        STEM,
        *AROUND_3X3,
        CLASSIFIER,
        Rule(r"(neck\.(?:lateral|fpn)_convs\.\d+\.conv\.(?:weight|bias))", r"\1"),
        Rule(r"(rpn_head\.rpn_(?:conv|cls|reg)\.(?:weight|bias))", r"\1"),
        Rule(ROI_HEADS + r"(fc_cls\.(?:weight|bias))", r"roi_head.\1\2", apply="background_last"),
        Rule(ROI_HEADS + r"(fc_reg\.(?:weight|bias))", r"roi_head.\1\2", apply="drop_background"),
        Rule(ROI_HEADS + r"(conv_logits\.(?:weight|bias))", r"roi_head.\1\2", apply="drop_background"),
        Rule(ROI_HEADS + rf"({ROI_LAYERS}\.(?:weight|bias))", r"roi_head.\1\2"),
    ),
    licence="MIT",
    outputs=("layer1", "layer2", "layer3", "layer4"),
    join=join_published,
    components=dict(
        AnchorGenerator=dict(type="LegacyAnchorGenerator", center_offset=0.5),
        DeltaXYWHBBoxCoder=dict(type="LegacyDeltaXYWHBBoxCoder"),
        RoIAlign=dict(aligned=False, sampling_ratio=2),
    ),
)
