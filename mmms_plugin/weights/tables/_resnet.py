"""What the tables of ResNet families share; target: ``PSResNet``, whose keys are torchvision's and mmdet's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmms_plugin.weights.tables import Arch, Rule

BN = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
STEM = Rule(rf"(conv1\.weight|bn1\.{BN})", r"backbone.\1")
AROUND_3X3 = (  # of a bottleneck: all but its 3x3 layer
    Rule(rf"(layer[1-4]\.\d+\.(?:conv[13]\.weight|bn[123]\.{BN}))", r"backbone.\1"),
    Rule(rf"(layer[1-4]\.\d+\.downsample\.[012]\.{BN})", r"backbone.\1"),
)
BLOCKS = (*AROUND_3X3, Rule(r"(layer[1-4]\.\d+\.conv2\.weight)", r"backbone.\1"))
CLASSIFIER = Rule(r"fc\.(weight|bias)", r"head.fc.\1", apply="flatten")
RULES = (STEM, *BLOCKS, CLASSIFIER)
PLAIN = (1, 1, 1, 1)


def ps_resnet(depth: int, pattern: tuple[int, ...] = PLAIN, **options: Any) -> Arch:
    """PSResNet of a depth; by default its plain twin, so that weights of a plain ResNet compute what they did."""
    note = options.pop("note", "")
    return Arch(dict(type="mmms_plugin.PSResNet", depth=depth, dilation_pattern=list(pattern), **options), note=note)


RESNEXT = {
    "resnext50_32x4d": ps_resnet(50, groups=32, base_width=4),
    "resnext101_32x4d": ps_resnet(101, groups=32, base_width=4),
    "resnext101_32x8d": ps_resnet(101, groups=32, base_width=8),
    "resnext101_64x4d": ps_resnet(101, groups=64, base_width=4),
    "resnext152_32x4d": ps_resnet(152, groups=32, base_width=4),
}
RESNET: Mapping[str, Arch] = {f"resnet{depth}": ps_resnet(depth) for depth in (18, 34, 50, 101, 152)}
WIDE = {f"wide_resnet{depth}_2": ps_resnet(depth, base_width=128) for depth in (50, 101)}
