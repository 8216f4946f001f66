"""github.com/d-li14/PSConv: ImageNet backbones, and whole detectors of its mmdet 0.6 fork.

mmdet 1.x and older: class 0 is the background (last since 2.0, and without box deltas and mask of its own), and heads
stand beside ``roi_head``. Their boxes count pixels inclusively (+1) and their RoIAlign is not aligned: ``components``
names the components of mmdet 3.x that compute as they did.
"""

from __future__ import annotations

from mmms_plugin.weights.psconv import PATTERN, join_published
from mmms_plugin.weights.tables import Arch, Rule, Table
from mmms_plugin.weights.tables._resnet import AROUND_3X3, CLASSIFIER, STEM, ps_resnet

ROI_LAYERS = r"(?:(?:shared|cls|reg)_(?:fcs\.\d+|convs\.\d+\.conv)|convs\.\d+\.conv|upsample)"
ROI_HEADS = r"((?:bbox|mask)_head\.(?:\d+\.)?)"


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
