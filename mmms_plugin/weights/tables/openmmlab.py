"""OpenMMLab zoos (mmdet, mmseg, mmpretrain, mmcls): ResNet, -V1c, -V1d, ResNeXt, SE-ResNet; whole models too.

Keys are torchvision's but for deep stems and pooled shortcuts, which mmpretrain and mmcls number otherwise than mmdet
and mmseg. ``style='caffe'`` (stride in the first 1x1 layer, pixels BGR from 0 to 255, not divided) does not show in
keys and shapes: choose the arch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmms_plugin.weights.tables import Arch, Normalisation, Rule, Table
from mmms_plugin.weights.tables._resnet import BLOCKS, BN, CLASSIFIER, RESNET, RESNEXT, STEM, WIDE, ps_resnet

DEPTHS = (18, 34, 50, 101, 152)
RGB = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB", 255.0)
CAFFE = Normalisation((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "BGR", 255.0)
STYLE = "style='pytorch' is assumed; files of style='caffe' look the same: --arch ..._caffe"

# mmpretrain: three modules of conv and bn; mmdet: a row of conv, bn, relu.
STEMS = (
    *(Rule(rf"stem\.{i}\.conv\.weight", rf"backbone.stem.{3 * i}.weight") for i in range(3)),
    *(Rule(rf"stem\.{i}\.bn\.({BN})", rf"backbone.stem.{3 * i + 1}.\1") for i in range(3)),
    Rule(rf"(stem\.[013467]\.{BN})", r"backbone.\1"),
)
# mmpretrain has no pool of stride 1 in the first shortcut of -V1d, mmdet has.
FIRST_SHORTCUT = tuple(
    Rule(rf"(layer1\.0\.downsample)\.{i}\.({BN})", rf"backbone.\1.{i + 1}.\2", when=r"layer1\.0\.downsample\.0\.weight")
    for i in (0, 1)
)
GATE = Rule(r"(layer[1-4]\.\d+)\.se_layer\.conv([12])\.conv\.(weight|bias)", r"backbone.\1.se.fc\2.\3")
HEADS = (
    Rule(r"head\.fc\.(weight|bias)", r"head.fc.\1"),
    Rule(r"((?:neck|rpn_head|roi_head|bbox_head|mask_head|decode_head|auxiliary_head)\..+)", r"\1"),
)


def _caffe(depth: int) -> Arch:
    return replace(ps_resnet(depth, style="caffe"), normalisation=CAFFE)


def _deep(suffix: str, avg_down: bool) -> dict[str, Arch]:
    options: dict[str, Any] = dict(deep_stem=True, **(dict(avg_down=True) if avg_down else {}))
    return {f"resnet{depth}_{suffix}": ps_resnet(depth, **options) for depth in DEPTHS}


V1D = {name: replace(arch, rules=FIRST_SHORTCUT) for name, arch in _deep("v1d", avg_down=True).items()}
TABLE = Table(
    source="openmmlab",
    about="zoos of mmdet, mmseg, mmpretrain and mmcls (github.com/open-mmlab)",
    archs={
        **{name: replace(arch, note=STYLE) for name, arch in RESNET.items()},
        **{f"resnet{depth}_caffe": _caffe(depth) for depth in (50, 101, 152)},
        **_deep("v1c", avg_down=False),
        **V1D,
        **RESNEXT,
        **WIDE,
        **{f"seresnet{depth}": ps_resnet(depth, se_ratio=16) for depth in (50, 101)},
    },
    rules=(STEM, *STEMS, *BLOCKS, CLASSIFIER, GATE, *HEADS),
    normalisation=RGB,
    licence="Apache-2.0",
    outputs=("layer1", "layer2", "layer3", "layer4"),
    hints=("backbone.", "mmengine_version", "mmcls_version", "mmcv_version", "mmdet_version", "mmseg_version"),
)
