r"""Checkpoints of the MSDNet authors: ``{'epoch', 'arch', 'state_dict', 'best_prec1', 'optimizer'}``.

Their blocks are lists of layers; the stem is the first layer of the first block. A classifier follows every block, so
what is written is a whole model, ``backbone.*`` and ``head.exits.*``.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmms_plugin.weights.tables import Arch, Normalisation, Rule, Table

TENSOR = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
PARALLEL = r"(?:module\.)?"  # of a block that DataParallel wraps
LONGEST = 8  # layers of the first block, a transition included
CONV_NORM = ((0, "conv"), (1, "norm"))
TWICE = ((0, "0.conv"), (1, "0.norm"), (3, "1.conv"), (4, "1.norm"))  # 2 and 5 are ReLUs
CIFAR100 = Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


def _rules(source: str, target: str, groups: int) -> tuple[Rule, ...]:
    """Of a layer, or of a transition; ``source`` names it with this many groups."""
    scale, tensor = rf"\g<{groups + 1}>", rf"\g<{groups + 2}>"
    layer = (
        Rule(
            rf"{source}\.layers\.(\d)\.conv_{theirs}\.net\.{i}\.{TENSOR}",
            rf"{target}.scales.{scale}.{ours}.{place}.{tensor}",
        )
        for theirs, ours in (("normal", "same"), ("down", "down"))
        for i, place in TWICE
    )
    transition = (
        Rule(rf"{source}\.m\.(\d)\.net\.{i}\.{TENSOR}", rf"{target}.scales.{scale}.{place}.{tensor}")
        for i, place in CONV_NORM
    )
    return (*layer, *transition)


STEM = tuple(
    Rule(rf"blocks\.0\.{PARALLEL}0\.layers\.(\d)\.(?:net\.)?{i}\.{TENSOR}", rf"backbone.stem.scales.\1.{place}.\2")
    for i, place in CONV_NORM
)
FIRST_BLOCK = tuple(
    rule for i in range(LONGEST) for rule in _rules(rf"blocks\.0\.{PARALLEL}{i + 1}", rf"backbone.blocks.0.{i}", 0)
)
BLOCKS = _rules(rf"blocks\.([1-9])\.{PARALLEL}(\d+)", r"backbone.blocks.\1.\2", 2)
CLASSIFIERS = (
    *(
        Rule(rf"classifier\.(\d+)\.{PARALLEL}m\.(\d)\.net\.{i}\.{TENSOR}", rf"head.exits.\1.convs.\2.{place}.\3")
        for i, place in CONV_NORM
    ),
    Rule(rf"classifier\.(\d+)\.{PARALLEL}linear\.(weight|bias)", r"head.exits.\1.fc.\2"),
)


def _arch(arch: str, in_channels: Sequence[int], scales: Sequence[int], classes: int) -> Arch:
    """``in_channels`` of the classifiers; ``scales`` that are left after each block."""
    cifar = arch.startswith("cifar")
    head = dict(type="mmms_plugin.MultiExitHead", num_classes=classes, in_channels=list(in_channels))
    return Arch(
        dict(type="mmms_plugin.MSDNet", arch=arch, output="exits"),
        parts=dict(head=dict(**head, channels=128) if cifar else head),
        normalisation=CIFAR100 if cifar else None,
        outputs=tuple(f"block{i + 1}_scale{count}" for i, count in enumerate(scales)),
    )


TABLE = Table(
    source="msdnet",
    about="MSDNet of its authors (github.com/kalviny/MSDNet-PyTorch)",
    archs={
        "imagenet_step4": _arch("imagenet_step4", (384, 384, 352, 304, 560), (4, 3, 2, 1, 1), 1000),
        "imagenet_step6": _arch("imagenet_step6", (512, 544, 496, 880, 792), (4, 3, 2, 2, 1), 1000),
        "imagenet_step7": _arch("imagenet_step7", (576, 640, 608, 528, 976), (4, 3, 2, 1, 1), 1000),
        "cifar100_anytime": _arch("cifar_anytime", (160, 208, 140, 188, 236, 152, 200), (3, 3, 2, 2, 2, 1, 1), 100),
        "cifar100_budgeted": _arch("cifar_budgeted", (88, 136, 104, 200, 208), (3, 3, 2, 2, 1), 100),
    },
    rules=(*STEM, *FIRST_BLOCK, *BLOCKS, *CLASSIFIERS),
    licence="MIT",
    hints=("best_prec1",),
)
