"""Every variant against figures that are written here, not taken from the network's own declaration.

Parameters without a classifier are torchvision's where it has the network (ResNet, ResNeXt, DenseNet, MobileNetV2 and
VGG), timm's for DLA, the authors' for the others; an adaptor adds one.
"""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

THREE = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2), small_stem=True)
TWO = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
X4D = dict(groups=32, base_width=4)
LEVELS, GROUPS = tuple(range(6)), tuple(range(8))
BASIC, BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)
R50, R101, R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
BY_4, BY_1 = (4, 8, 16, 32), (1, 2, 4, 8)
COMPACT, WIDE = (16, 32, 64, 64, 128, 256), (16, 32, 128, 256, 512, 1024)
MOBILE, MOBILE_BY_2, MOBILE_BY_1 = (
    (16, 24, 32, 64, 96, 160, 320, 1280),
    (2, 4, 8, 16, 16, 32, 32, 32),
    (1, 1, 2, 4, 4, 8, 8, 8),
)
MOBILE_BLOCKS = (1, 2, 3, 4, 3, 3, 1, 0)
VGG, VGG_BY, VGG_LAYERS = (64, 128, 256, 512, 512), (2, 4, 8, 16, 32), (2, 2, 3, 3, 3)

# options, parameters, channels and strides of the outputs, 3x3 layers of every stage
PS_RESNET = [
    (dict(depth=18), 11176512, BASIC, BY_4, (4, 4, 4, 4)),
    (dict(depth=34), 21284672, BASIC, BY_4, (6, 8, 12, 6)),
    (dict(depth=50), 23508032, BOTTLENECK, BY_4, R50),
    (dict(depth=101), 42500160, BOTTLENECK, BY_4, R101),
    (dict(depth=152), 58143808, BOTTLENECK, BY_4, R152),
    (dict(depth=50, **X4D), 22979904, BOTTLENECK, BY_4, R50),
    # 18 extra kernels in place of every 2 x 2 that a dilation above 1 has, half of all
    (dict(depth=50, **X4D, extra_dilation1=True), 22979904 + 1414656 // 2, BOTTLENECK, BY_4, R50),
    (dict(depth=50, deep_stem=True, avg_down=True), 23527264, BOTTLENECK, BY_4, R50),
    (dict(depth=50, **TWO), 1444928, BOTTLENECK[:2], BY_4[:2], R50[:2]),
    (dict(depth=50, strides=(2, 2, 1, 2)), 23508032, BOTTLENECK, (8, 16, 16, 32), R50),
    (dict(depth=29, **THREE), 4904000, BOTTLENECK[:3], BY_1[:3], (3, 3, 3)),
]
ELASTIC_RESNEXT = [  # each path has a 3x3 layer of its own
    (dict(depth=50), 22979904, BOTTLENECK, BY_4, (6, 8, 12, 6)),
    (dict(depth=101), 42128704, BOTTLENECK, BY_4, (6, 8, 46, 6)),
    (dict(depth=50, elastic="simple"), 22979904, BOTTLENECK, BY_4, (6, 8, 12, 6)),
    (dict(depth=101, elastic="simple"), 42128704, BOTTLENECK, BY_4, (6, 8, 46, 6)),
    (dict(depth=50, elastic="full"), 23197504, BOTTLENECK, BY_4, (12, 16, 10, 6)),
    (dict(depth=101, elastic="full"), 42216256, BOTTLENECK, BY_4, (24, 28, 40, 6)),
    (dict(depth=50, elastic="full", se_ratio=16), 25754976, BOTTLENECK, BY_4, (12, 16, 10, 6)),
    (dict(depth=50, elastic="full", groups=64), 43575104, BOTTLENECK, BY_4, (12, 16, 10, 6)),
    (dict(depth=29, **THREE, elastic="full"), 4765504, BOTTLENECK[:3], BY_1[:3], (6, 6, 6)),
]
ELASTIC_DENSENET = [
    (dict(depth=121), 6953856, (256, 512, 1024, 1024), BY_4, (6, 12, 24, 16)),
    (dict(depth=161), 26472000, (384, 768, 2112, 2208), BY_4, (6, 12, 36, 24)),
    (dict(depth=169), 12484480, (256, 512, 1280, 1664), BY_4, (6, 12, 32, 32)),
    (dict(depth=201), 18092928, (256, 512, 1792, 1920), BY_4, (6, 12, 48, 32)),
    (dict(depth=201, elastic=True), 17673824, (384, 832, 1696, 1808), BY_4, (20, 40, 80, 60)),
    (dict(depth=121, strides=(1, 2, 1, 3)), 6953856, (256, 512, 1024, 1024), (4, 8, 8, 24), (6, 12, 24, 16)),
]
DLA = [
    (dict(arch="34", out_indices=LEVELS), 15229104, (16, 32, 64, 128, 256, 512), (1, 2, *BY_4), (1, 1, 4, 8, 8, 4)),
    (dict(arch="46_c", out_indices=LEVELS), 1044400, COMPACT, (1, 2, *BY_4), (1, 1, 2, 4, 4, 2)),
    (dict(arch="46x_c"), 811440, COMPACT[2:], BY_4, (1, 1, 2, 4, 4, 2)),
    (dict(arch="60", out_indices=LEVELS), 21011632, WIDE, (1, 2, *BY_4), (1, 1, 2, 4, 8, 2)),
    (dict(arch="60x"), 16327344, WIDE[2:], BY_4, (1, 1, 2, 4, 8, 2)),
    (dict(arch="60x_c"), 1062832, COMPACT[2:], BY_4, (1, 1, 2, 4, 8, 2)),
    (dict(arch="102"), 32243888, WIDE[2:], BY_4, (1, 1, 2, 8, 16, 2)),
    (dict(arch="102x"), 25284272, WIDE[2:], BY_4, (1, 1, 2, 8, 16, 2)),
    (dict(arch="102x2"), 40257200, WIDE[2:], BY_4, (1, 1, 2, 8, 16, 2)),
    (dict(arch="dla169"), 52364720, WIDE[2:], BY_4, (1, 1, 4, 8, 32, 2)),
    (dict(arch="60x", elastic=True), 16327344, WIDE[2:], BY_4, (1, 1, 4, 8, 16, 4)),
    (dict(arch="102x", elastic="simple"), 25284272, WIDE[2:], BY_4, (1, 1, 4, 16, 32, 4)),
    (dict(arch="102x", elastic=True), 23552688, WIDE[2:], BY_4, (1, 1, 16, 16, 16, 4)),
    (dict(arch="34", strides=(2, 1, 2, 3, 1, 2)), 15229104, BASIC, (4, 12, 12, 24), (1, 1, 4, 8, 8, 4)),
]
SHAPE_RESNET = [  # with stem 'cifar' a 3x3 layer for the 7x7 one; adaptors in a block without a projection add one
    (dict(mode="human"), 23508032, BOTTLENECK, BY_4, R50),
    (dict(mode="human", depth=101), 42500160, BOTTLENECK, BY_4, R101),
    (dict(mode="human", depth=152), 58143808, BOTTLENECK, BY_4, R152),
    (dict(mode="human", stem="cifar"), 23508032 - 64 * 3 * 40, BOTTLENECK, BY_1, R50),
    (dict(mode="autotl"), 23508032 + 5, BOTTLENECK, BY_4, R50),
    (dict(mode="autotl", stem="cifar"), 23500352 + 3, BOTTLENECK, BY_1, R50),
    (dict(mode="autotl", strides=(1, 2, 3, 1)), 23508032 + 4, BOTTLENECK, (4, 8, 24, 24), R50),
    (dict(mode="autosc"), 23508032 + 4 + sum(c * (c + 2) for c in (256, 512, 1024, 1024)), BOTTLENECK, BY_4, R50),
    (dict(mode="autosc", design_size=64), 23508032 + 2 + (256 * 258 + 1024 * 1026), BOTTLENECK, BY_4, R50),
    (dict(mode="human", stem="imagenet_3x3"), 23508032 - 64 * 3 * 40, BOTTLENECK, BY_4, R50),
    (dict(mode="human", stem="imagenet_unpooled"), 23508032, BOTTLENECK, (2, 4, 8, 16), R50),
    (dict(), 23508032 + 6 + sum(c * (c + 2) for c in (256, 512, 1024, 1024)), BOTTLENECK, BY_4, R50),
]
SHAPE_VGG = [
    (dict(mode=mode, out_indices=(0, 1, 2, 3, 4)), 14723136 + adaptors, VGG, VGG_BY, VGG_LAYERS)
    for mode, adaptors in (("human", 0), ("standard", 6), ("autosc", 4), ("autotl", 5))
] + [(dict(), 14723136 + 6, (512,), (32,), VGG_LAYERS), (dict(design_size=64), 14723136 + 5, (512,), (16,), VGG_LAYERS)]
SHAPE_MOBILENET = [
    (dict(mode="human", out_indices=GROUPS), 2223872, MOBILE, MOBILE_BY_2, MOBILE_BLOCKS),
    (dict(mode="human", stem="cifar", out_indices=GROUPS), 2223872, MOBILE, MOBILE_BY_1, MOBILE_BLOCKS),
    (dict(mode="standard", out_indices=GROUPS), 2223872 + 6, MOBILE, MOBILE_BY_2, MOBILE_BLOCKS),
    (dict(mode="autosc", out_indices=GROUPS), 2223872 + 4, MOBILE, MOBILE_BY_2, MOBILE_BLOCKS),
    (dict(mode="autotl", stem="cifar", out_indices=GROUPS), 2223872 + 3, MOBILE, MOBILE_BY_1, MOBILE_BLOCKS),
    (dict(), 2223872 - 320 * 1280 - 2 * 1280 + 6, (24, 32, 96, 320), BY_4, MOBILE_BLOCKS),
    *(
        (dict(mode="human", width_multiplier=wide, out_indices=GROUPS), count, channels, MOBILE_BY_2, MOBILE_BLOCKS)
        for wide, count, channels in (
            (0.25, 238112, (8, 8, 8, 16, 24, 40, 80, 1280)),
            (0.35, 396128, (8, 8, 16, 24, 32, 56, 112, 1280)),
            (1.4, 4315776, (24, 32, 48, 88, 136, 224, 448, 1792)),
        )
    ),
]  # fmt: skip
MSDNET = [  # 3x3 layers: one at the finest scale, two at the others
    (dict(arch="imagenet_step4"), 7114528, (112, 256, 544, 560), BY_4, (28, 23, 17, 11, 4)),
    (dict(arch="imagenet_step6"), 13583728, (160, 400, 880, 792), BY_4, (42, 35, 27, 18, 7)),
    (dict(arch="imagenet_step7"), 16804960, (176, 448, 992, 976), BY_4, (49, 40, 30, 20, 7)),
    (dict(arch="cifar_anytime"), 462716, (52, 118, 200), BY_1[:3], (20, 10, 7, 6, 6, 3, 2)),
    (dict(arch="cifar_budgeted"), 426712, (46, 100, 208), BY_1[:3], (5, 10, 14, 12, 6)),
    (dict(arch="imagenet_step4", output="exits"), 7114528, (384, 384, 352, 304, 560), (32,) * 5, (28, 23, 17, 11, 4)),
    (dict(arch="cifar_budgeted", output="exits"), 426712, (88, 136, 104, 200, 208), (4,) * 5, (5, 10, 14, 12, 6)),
]
FAMILIES = dict(
    PSResNet=PS_RESNET, ElasticResNeXt=ELASTIC_RESNEXT, ElasticDenseNet=ELASTIC_DENSENET, DLA=DLA,
    ShapeAdaptorResNet=SHAPE_RESNET, ShapeAdaptorVGG=SHAPE_VGG, ShapeAdaptorMobileNetV2=SHAPE_MOBILENET, MSDNet=MSDNET,
)  # fmt: skip
CASES = [(name, *case) for name, cases in FAMILIES.items() for case in cases]


def build(name: str, **options):
    with torch.device("meta"):
        return MODELS.build(dict(type=f"mmms_plugin.{name}", **options))


@pytest.mark.parametrize(
    ("name", "options", "parameters", "channels", "strides", "layers"),
    CASES,
    ids=[f"{name}-{'-'.join(map(str, options.values()))}" for name, options, *_ in CASES],
)
def test_every_variant_is_the_published_network(name, options, parameters, channels, strides, layers):
    model = build(name, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert (model.out_channels, model.out_strides) == (channels, strides)
    assert (
        tuple(
            sum(isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1 for stage in modules for m in stage.modules())
            for modules in model.stage_modules()
        )
        == layers
    )
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert {conv.dilation for conv in convs} == {(1, 1)}
    # as built: everything learns, norms use the batch, nothing is recomputed
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.train().modules())
    assert not any(getattr(module, "with_cp", False) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "options", "stem", "first"),
    [
        ("PSResNet", dict(depth=18), ["conv1.", "bn1."], "layer1."),
        ("PSResNet", dict(depth=18, deep_stem=True), ["stem."], "layer1."),
        ("ElasticResNeXt", dict(depth=50), ["conv1.", "bn1."], "layer1."),
        ("ElasticDenseNet", dict(depth=121), ["conv0.", "norm0."], "denseblock1."),
        ("DLA", dict(arch="46_c"), ["base_layer."], "level0."),
        ("ShapeAdaptorResNet", dict(mode="autotl"), ["conv1.", "bn1.", "stem_adaptors."], "layer1."),
        ("ShapeAdaptorMobileNetV2", dict(mode="autotl"), ["features.0.", "stem_adaptor."], "features.1."),
        ("ShapeAdaptorVGG", dict(), [], "layer1."),
        ("MSDNet", dict(arch="cifar_anytime"), ["stem."], "blocks.0."),
    ],
)
def test_the_stem_and_the_first_stage_can_be_frozen(name, options, stem, first):
    for stages, parts in ((-1, []), (0, stem), (1, [*stem, first])):
        parameters = dict(build(name, **options, frozen_stages=stages).named_parameters())
        frozen = {key for key, parameter in parameters.items() if not parameter.requires_grad}
        assert frozen == {key for key in parameters if key.startswith(tuple(parts))}
