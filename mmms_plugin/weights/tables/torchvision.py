"""torchvision: ResNet, ResNeXt, Wide ResNet, DenseNet."""

from __future__ import annotations

from mmms_plugin.weights.tables import Table
from mmms_plugin.weights.tables._densenet import DENSENET, FINAL
from mmms_plugin.weights.tables._densenet import RULES as DENSENET_RULES
from mmms_plugin.weights.tables._resnet import RESNET, RESNEXT, WIDE
from mmms_plugin.weights.tables._resnet import RULES as RESNET_RULES

TABLE = Table(
    source="torchvision",
    about="torchvision's ImageNet classifiers (github.com/pytorch/vision)",
    archs={
        **RESNET,
        **{name: RESNEXT[name] for name in ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")},
        **WIDE,
        **DENSENET,
    },
    rules=(*RESNET_RULES, *DENSENET_RULES),
    licence="BSD-3-Clause",
    outputs=("layer1", "layer2", "layer3", "layer4"),
    before_relu=(FINAL,),
)
