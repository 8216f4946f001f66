"""What the tables of plain DenseNets share; target: ``ElasticDenseNet``, torchvision's keys without ``features.``."""

from __future__ import annotations

from mmms_plugin.weights.tables import Arch, Rule
from mmms_plugin.weights.tables._resnet import BN

LAYER = r"features\.(denseblock\d+\.denselayer\d+)"
RULES = (
    Rule(rf"{LAYER}\.((?:norm|conv)[12]\.{BN})", r"backbone.\1.\2"),
    Rule(rf"{LAYER}\.(norm|conv)\.([12])\.({BN})", r"backbone.\1.\2\3.\4"),  # files from before 2018
    Rule(rf"features\.((?:conv0|norm0|norm5|transition\d+\.(?:norm|conv))\.{BN})", r"backbone.\1"),
    Rule(r"classifier\.(weight|bias)", r"head.fc.\1"),
)
FINAL = "features.norm5"
OUTPUTS = (*(f"features.denseblock{i}" for i in (1, 2, 3)), FINAL)


def densenet(depth: int) -> Arch:
    """Plain DenseNet, whose transitions drop the last row and column of odd sizes, as published."""
    return Arch(dict(type="mmms_plugin.ElasticDenseNet", depth=depth, ceil_mode=False), outputs=OUTPUTS)


DENSENET = {f"densenet{depth}": densenet(depth) for depth in (121, 161, 169, 201)}
