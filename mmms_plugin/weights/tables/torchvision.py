"""torchvision: ResNet, ResNeXt, Wide ResNet, DenseNet, MobileNetV2.

MobileNetV2 becomes a ``ShapeAdaptorMobileNetV2`` without adaptors. Older files, and those of trackers, number all
layers of a block in one row.
"""

from __future__ import annotations

from dataclasses import replace

from mmms_plugin.weights.tables import Arch, Rule, Table
from mmms_plugin.weights.tables._densenet import DENSENET, FINAL
from mmms_plugin.weights.tables._densenet import RULES as DENSENET_RULES
from mmms_plugin.weights.tables._resnet import BN, RESNET, RESNEXT, WIDE
from mmms_plugin.weights.tables._resnet import RULES as RESNET_RULES

IN_A_ROW = {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1", 6: "2", 7: "3"}  # places in a block of MobileNetV2 of old files
FIRST_IN_A_ROW = {0: "0.0", 1: "0.1", 3: "1", 4: "2"}  # in its first block, which does not widen
OLD = r"features\.1\.conv\.3\.weight"  # of today's blocks, only the wider ones have a place 3
MOBILENET_RULES = (
    *(
        Rule(rf"features\.1\.conv\.{old}\.({BN})", rf"backbone.features.1.conv.{new}.\1", when=OLD)
        for old, new in FIRST_IN_A_ROW.items()
    ),
    *(
        Rule(rf"(features\.\d+\.conv)\.{old}\.({BN})", rf"backbone.\1.{new}.\2", when=OLD)
        for old, new in IN_A_ROW.items()
    ),
    Rule(rf"(features\.(?:0|18)\.[01]\.{BN})", r"backbone.\1"),
    Rule(rf"(features\.\d+\.conv\.(?:[01]\.[01]|[123])\.{BN})", r"backbone.\1"),
    Rule(r"classifier\.1\.(weight|bias)", r"head.fc.\1"),
)
MOBILENET = Arch(
    dict(type="mmms_plugin.ShapeAdaptorMobileNetV2", mode="human", stem="imagenet", out_indices=list(range(8))),
    outputs=tuple(f"stage{i}" for i in range(8)),
    unseen="stride 2 in the stem and the first widening block",
    shown_by=r"classifier\.1\.weight",
)
HEADLESS = replace(  # without the last 1x1 layer
    MOBILENET, backbone={**MOBILENET.backbone, "out_indices": list(range(7))}, outputs=MOBILENET.outputs[:7]
)

TABLE = Table(
    source="torchvision",
    about="torchvision's ImageNet classifiers (github.com/pytorch/vision)",
    archs={
        **RESNET,
        **{name: RESNEXT[name] for name in ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")},
        **WIDE,
        **DENSENET,
        "mobilenet_v2": MOBILENET,
        "mobilenet_v2_headless": HEADLESS,
    },
    rules=(*RESNET_RULES, *DENSENET_RULES, *MOBILENET_RULES),
    licence="BSD-3-Clause",
    outputs=("layer1", "layer2", "layer3", "layer4"),
    before_relu=(FINAL,),
)
