"""Checkpoints of the Shape Adaptor authors (github.com/lorenmt/shape-adaptor): bare state dicts.

An architecture's name is network, mode and the side of the pictures, on which strides, stem and number of adaptors
depend. Their VGG holds all alphas in one vector, and its keys count the poolings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmms_plugin.backbones.shape_mobilenet import STEMS
from mmms_plugin.backbones.shape_plan import SMALL
from mmms_plugin.weights.tables import Arch, Archs, Normalisation, Rule, Table
from mmms_plugin.weights.tables._resnet import BLOCKS, BN, CLASSIFIER, STEM

if TYPE_CHECKING:
    from torch import Tensor

VGG_STAGES = (2, 2, 3, 3, 3)
CIFAR = Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
MODES = {
    "shape-adaptor": "standard", "autosc": "autosc", "autotl": "autotl", "human-cifar": "human",
    "human-imagenet": "human",
}  # fmt: skip
SIDES = range(9, 8193)  # px: from above the last map of a network in mode 'standard'; VGG has 12 places for adaptors
NETWORKS = ("vgg16", "resnet50", "resnet101", "resnet152", "mobilenetv2")
NAME = re.compile(
    rf"({'|'.join(NETWORKS)})_({'|'.join(MODES)})_(\d{{1,4}})(?:_width(\d(?:\.\d{{1,4}})?))?", flags=re.ASCII
)
FORM = (
    f"NETWORK_MODE_SIDE with NETWORK of {', '.join(NETWORKS)}; MODE of "
    f"{', '.join(f'{mode} (ResNet alone)' if mode == 'autotl' else mode for mode in MODES)}; SIDE from {SIDES[0]} to "
    f"{SIDES[-1]} px, such as resnet50_autosc_96, with _width0.85 behind it for a width multiplier of mobilenetv2"
)


def read_arch(name: str) -> Arch | None:
    """The architecture of a name such as ``mobilenetv2_autosc_224_width0.85``, None if it is not one.

    Modes of networks without adaptors say which first layers they have, whatever the side.
    """
    match = NAME.fullmatch(name)
    if match is None:
        return None
    network, mode, side, width = match[1], match[2], int(match[3]), match[4]
    if side not in SIDES or (width is not None and (network != "mobilenetv2" or not float(width))):
        return None
    if mode == "autotl" and not network.startswith("resnet"):  # the authors have it for ResNet only
        return None
    small = side <= SMALL if mode in ("shape-adaptor", "autosc", "autotl") else mode == "human-cifar"
    shape = dict(mode=MODES[mode], resize_outputs=False, design_size=side)
    normalisation = CIFAR if side <= SMALL else None
    if network == "vgg16":
        shown = mode == "shape-adaptor" or (mode == "autosc" and side < SMALL)
        unseen = (
            ""
            if shown
            else f"4 poolings (pictures of up to {SMALL} px)"
            if side <= SMALL
            else "5 poolings (larger pictures)"
        )
        return _arch("VGG", 5, shape, normalisation, unseen, _vgg_rules(pooled=mode != "shape-adaptor"))
    if network == "mobilenetv2":
        first, second = 1 if small else 2, 1 if side <= SMALL else 2
        apart = "" if first == second else f"stride {second} in "
        both = f"stride {first} in the stem and {apart}the first widening block"
        options: dict[str, Any] = dict(width_multiplier=float(width)) if width else {}
        stem = next(name for name, strides in STEMS.items() if strides == (first, second))
        options |= dict(stem=stem, out_indices=list(range(8)))
        return _arch("MobileNetV2", 8, shape | options, normalisation, both if "human" in mode else "")
    stem = "cifar" if small else "imagenet"
    if small and mode == "autotl":
        stem = "imagenet_3x3"
    elif side == SMALL and mode == "autosc":
        stem = "imagenet_unpooled"
    unseen = "a 3x3 stem of stride 1 without a pooling" if mode == "human-cifar" else ""
    return _arch("ResNet", 4, dict(depth=int(network[6:]), stem=stem) | shape, normalisation, unseen)


def _arch(
    kind: str, stages: int, options: dict[str, Any], normalisation: Normalisation | None, unseen: str,
    rules: tuple[Rule, ...] = (),
) -> Arch:  # fmt: skip
    backbone = dict(type=f"mmms_plugin.ShapeAdaptor{kind}", **options)
    outputs = tuple(f"stage{i}" for i in range(stages))
    return Arch(backbone, normalisation=normalisation, outputs=outputs, unseen=unseen, rules=rules)


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


NAMES = [
    f"{network}_{mode}"
    for network in ("vgg16", "resnet50", "resnet101", "mobilenetv2")
    for mode in (
        "shape-adaptor_32", "shape-adaptor_64", "shape-adaptor_96", "shape-adaptor_128", "shape-adaptor_224",
        "autosc_32", "autosc_64", "autosc_224", "autotl_224", "human-cifar_32", "human-imagenet_224",
    )
]  # fmt: skip
LISTED = {name: arch for name in NAMES if (arch := read_arch(name)) is not None}

TABLE = Table(
    source="shape_adaptor",
    about="Shape Adaptor of its authors (github.com/lorenmt/shape-adaptor)",
    archs=Archs(LISTED, FORM, read_arch),
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
)
