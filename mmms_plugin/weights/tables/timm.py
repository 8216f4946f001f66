"""timm (pytorch-image-models): ResNet and its -d, -c, SE and wide forms, ResNeXt, DenseNet, DLA.

The part of a timm name behind the dot (``resnet50.a1_in1k``) names the training, which keys do not show: few trainings
used another normalisation than ImageNet's, see the model card.
"""

from __future__ import annotations

from typing import Any

from mmms_plugin.weights.tables import Arch, Rule, Table, _dla
from mmms_plugin.weights.tables._densenet import DENSENET, FINAL
from mmms_plugin.weights.tables._densenet import RULES as DENSENET_RULES
from mmms_plugin.weights.tables._resnet import BN, RESNET, RESNEXT, WIDE, ps_resnet
from mmms_plugin.weights.tables._resnet import RULES as RESNET_RULES
from mmms_plugin.weights.tables.dla import ARCHS as DLA_ARCHS

# A deep stem is conv1.0, 1, 3, 4, 6 there, its last norm bn1.
DEEP_STEM = (
    Rule(rf"conv1\.([01346])\.({BN})", r"backbone.stem.\1.\2"),
    Rule(rf"bn1\.({BN})", r"backbone.stem.7.\1", when=r"conv1\.0\.weight"),
)
GATE = Rule(r"(layer[1-4]\.\d+\.se\.fc[12]\.(?:weight|bias))", r"backbone.\1")
D_STEM: dict[str, Any] = dict(deep_stem=True, avg_down=True)


def _resnet_d() -> dict[str, Arch]:
    return {f"resnet{depth}d": ps_resnet(depth, **D_STEM) for depth in (18, 34, 50, 101, 152)}


def _wide_groups() -> dict[str, Arch]:
    return {f"resnext101_32x{w}d": ps_resnet(101, groups=32, base_width=w) for w in (16, 32)}


def _se() -> dict[str, Arch]:
    plain = {f"seresnet{depth}": ps_resnet(depth, se_ratio=16) for depth in (50, 101, 152)}
    grouped = {
        f"seresnext{depth}_32x{w}d": ps_resnet(depth, groups=32, base_width=w, se_ratio=16)
        for depth, w in ((50, 4), (101, 4), (101, 8))
    }
    return {
        **plain,
        **grouped,
        "seresnet152d": ps_resnet(152, se_ratio=16, **D_STEM),
        "seresnext101d_32x8d": ps_resnet(101, groups=32, base_width=8, se_ratio=16, **D_STEM),
    }


TABLE = Table(
    source="timm",
    about="timm's ImageNet classifiers (github.com/huggingface/pytorch-image-models)",
    archs={
        **RESNET,
        **_resnet_d(),
        "resnet50c": ps_resnet(50, deep_stem=True),
        "resnet101c": ps_resnet(101, deep_stem=True),
        **{name: arch for name, arch in RESNEXT.items() if "152" not in name},
        "resnext50d_32x4d": ps_resnet(50, groups=32, base_width=4, **D_STEM),
        **_wide_groups(),
        **WIDE,
        **_se(),
        **DENSENET,
        **DLA_ARCHS,
    },
    rules=(*DEEP_STEM, *RESNET_RULES, GATE, *DENSENET_RULES, *_dla.BACKBONE, *_dla.CLASSIFIER),
    outputs=("layer1", "layer2", "layer3", "layer4"),
    before_relu=(FINAL,),
)
