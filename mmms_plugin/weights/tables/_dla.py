"""What the tables of DLA's authors and of ELASTIC's share: the network, its decoder and its classifiers."""

from __future__ import annotations

from typing import Any

from mmms_plugin.weights.tables import Arch, Rule

TENSOR = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
BLOCK = r"(?:base\.)?(level[2-5](?:\.tree[12])+)"
ELASTIC_KEYS = r".+\.conv[123]_d\.weight"
DEEPEST = 5  # levels of DLA-169's deepest tree
LEVELS = tuple(f"level{level}" for level in range(6))
WIDE, NARROW = [32, 128, 256, 512, 1024], [32, 64, 128, 256, 512]


def _unused_projections() -> tuple[Rule, ...]:
    """A tree has an unused projection where its first subtree is a tree: where there is a tree1 in its tree1."""
    reason = "projection of a tree with subtrees: the output does not depend on it"
    rules = []
    for level in range(2, 6):
        for depth in range(DEEPEST - 1):
            tree = rf"(?:base\.)?level{level}" + r"\.tree1" * depth
            rules.append(Rule(rf"{tree}\.project\.[01]\.{TENSOR}", None, reason, when=rf"{tree}\.tree1\.tree1\..+"))
    return tuple(rules)


def _fusions() -> tuple[Rule, ...]:
    """The authors count the maps that a step joins from 1 on."""
    return tuple(
        Rule(rf"dla_up\.ida_(\d)\.(proj|up|node)_{k + 1}\.((?:[01]\.)?{TENSOR})", rf"neck.ida.\1.{k}.\2.\3")
        for k in range(DEEPEST - 1)
    )


BACKBONE = (
    *_unused_projections(),
    Rule(rf"(?:base\.)?((?:base_layer|level[01])\.\d\.{TENSOR})", r"backbone.\1"),
    Rule(rf"(?:base\.)?(level[2-5](?:\.tree1)*\.project\.[01]\.{TENSOR})", r"backbone.\1"),
    Rule(rf"(?:base\.)?(level[2-5](?:\.tree[12])*\.root\.(?:conv|bn)\.{TENSOR})", r"backbone.\1"),
    Rule(rf"{BLOCK}\.(conv[123]|bn[12])_d\.({TENSOR})", r"backbone.\1.paths.low.\2.\3"),
    Rule(rf"{BLOCK}\.(conv[123]|bn[12])\.({TENSOR})", r"backbone.\1.paths.high.\2.\3", when=ELASTIC_KEYS),
    Rule(rf"{BLOCK}\.((?:conv[123]|bn[123])\.{TENSOR})", r"backbone.\1.\2"),
)
CLASSIFIER = (Rule(r"fc\.(weight|bias)", r"head.fc.\1", apply="flatten"),)
DECODER = (
    Rule(r"base\.fc\.(?:weight|bias)", None, "ImageNet classifier: segmentation does without"),
    *_fusions(),
    Rule(r"fc\.0\.(weight|bias)", r"decode_head.conv_seg.\1"),
    Rule(r"up\.weight", "decode_head.up_weight"),
)


def dla(arch: str, **options: Any) -> Arch:
    """A classifier's backbone."""
    return Arch(dict(type="mmms_plugin.DLA", arch=arch, **options), outputs=LEVELS)


def dla_up(arch: str, num_classes: int, **options: Any) -> Arch:
    """Backbone, decoder and classifier of a segmentation network at down ratio 2."""
    channels = NARROW if arch == "34" else WIDE
    backbone = dict(type="mmms_plugin.DLA", arch=arch, out_indices=[1, 2, 3, 4, 5], **options)
    neck = dict(type="mmms_plugin.DLAUp", in_channels=channels)
    head = dict(type="mmms_plugin.DLAUpHead", in_channels=channels[0], num_classes=num_classes, down_ratio=2)
    return Arch(backbone, parts=dict(neck=neck, decode_head=head), outputs=LEVELS)
