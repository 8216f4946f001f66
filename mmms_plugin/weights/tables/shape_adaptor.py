"""Checkpoints of the Shape Adaptor authors (github.com/lorenmt/shape-adaptor): bare state dicts.

An architecture's name is network, mode and the side of the pictures. Their VGG holds all alphas in one vector, and its
keys count the poolings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmms_plugin.weights.tables import Arch, Normalisation, Rule, Table
from mmms_plugin.weights.tables._resnet import BLOCKS, BN, CLASSIFIER, STEM

if TYPE_CHECKING:
    from torch import Tensor

VGG_STAGES = (2, 2, 3, 3, 3)
CIFAR = Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
MODES = {"shape-adaptor": "standard", "autosc": "autosc", "autotl": "autotl", "human-cifar": "human"}
# Without adaptors the keys are those of other authors' networks, whose first layers have other strides.
HUMAN = {
    "ResNet": ("a 3x3 stem of stride 1 without a pooling", ""),
    "MobileNetV2": ("stride 1 in the stem and the first widening block", r"classifier\.0\.weight"),
}


def _arch(kind: str, mode: str, side: int, **options: Any) -> Arch:
    adapted = dict(mode=MODES[mode], resize_outputs=False, **options)
    if mode == "shape-adaptor":
        adapted["design_size"] = side
    norm = None if side > 64 else CIFAR
    count = {"VGG": 5, "ResNet": 4, "MobileNetV2": 8}[kind]
    names = tuple(f"stage{i}" for i in range(count))
    unseen, shown_by = HUMAN[kind] if mode == "human-cifar" else ("", "")
    return Arch(
        dict(type=f"mmms_plugin.ShapeAdaptor{kind}", **adapted), normalisation=norm, outputs=names, unseen=unseen,
        shown_by=shown_by,
    )  # fmt: skip


def _vgg_rules(pooled: bool) -> tuple[Rule, ...]:
    """Of every layer: three numbers each in ``features``, and one for a pooling behind all but the last stage."""
    rules, number = [], 0
    for stage, count in enumerate(VGG_STAGES):
        for layer in range(count):
            target = rf"backbone.layer{stage + 1}.{layer}"
            rules.append(Rule(rf"features\.{number}\.(weight|bias)", rf"{target}.conv.\1"))
            rules.append(Rule(rf"features\.{number + 1}\.({BN})", rf"{target}.norm.\1"))
            number += 3
        number += pooled
    return tuple(rules)


def _divide_alphas(pieces: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The vector of all alphas, to the adaptors in their order: ``{key in the backbone: scalar}``."""
    import torch

    from mmms_plugin.registry import MODELS

    with torch.device("meta"):
        keys = [key for key in MODELS.build(dict(config)).state_dict() if key.endswith(".alpha")]
    alphas = pieces["alphas"]
    if alphas.shape != (len(keys),):
        raise ValueError(f"alpha has shape {list(alphas.shape)}, expected [{len(keys)}], one for each adaptor")
    return {key: alphas[i].clone() for i, key in enumerate(keys)}


_VGG = {
    **{f"vgg16_shape-adaptor_{side}": _arch("VGG", "shape-adaptor", side) for side in (32, 64, 128, 224)},
    "vgg16_autosc_32": _arch("VGG", "autosc", 32),
}
_RESNET = {
    f"resnet{depth}_{mode}_{side}": _arch("ResNet", mode, side, depth=depth, stem=stem)
    for depth in (50, 101)
    for mode, side, stem in (
        ("shape-adaptor", 32, "cifar"), ("shape-adaptor", 64, "cifar"), ("shape-adaptor", 128, "cifar"),
        ("autosc", 32, "cifar"), ("human-cifar", 32, "cifar"), ("autotl", 224, "imagenet"),
    )
}  # fmt: skip
_MOBILENET = {
    f"mobilenetv2_{mode}_{side}": _arch("MobileNetV2", mode, side, stem="cifar", out_indices=list(range(8)))
    for mode, side in (
        ("shape-adaptor", 32), ("shape-adaptor", 64), ("shape-adaptor", 128), ("autosc", 32), ("human-cifar", 32),
    )
}  # fmt: skip

TABLE = Table(
    source="shape_adaptor",
    about="Shape Adaptor of its authors (github.com/lorenmt/shape-adaptor)",
    archs={**_VGG, **_RESNET, **_MOBILENET},
    rules=(
        STEM,
        *BLOCKS,
        CLASSIFIER,
        Rule(r"alpha_init", r"backbone.stem_adaptor.alpha", when=r"features\..*"),
        Rule(r"alpha_init", r"backbone.stem_adaptors.0.alpha", unless=r"features\..*"),
        Rule(r"alpha_init1", r"backbone.stem_adaptors.0.alpha"),
        Rule(r"alpha_init2", r"backbone.stem_adaptors.1.alpha"),
        Rule(r"alpha", r"backbone", join="alphas"),
        Rule(r"((?:layer\d\.\d+|features\.\d+))\.alpha", r"backbone.\1.resize.alpha"),
        Rule(rf"(features\.\d+\.(?:conv\.)?[\d.]*{BN})", r"backbone.\1"),
        Rule(r"classifier\.0\.(weight|bias)", r"head.fc.\1"),
    ),
    licence="CC-BY-NC-SA-4.0",
    join=_divide_alphas,
    rules_of={name: _vgg_rules(pooled="autosc" in name) for name in _VGG},
)
