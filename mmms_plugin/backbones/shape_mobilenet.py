"""MobileNetV2 whose shape is learned: Shape Adaptor (Liu et al., ECCV 2020).

A block with an adaptor has stride 1 and no shortcut; the adaptor averages its 2x2 max-pooled output and the output
itself at a learned size. Keys are torchvision's (``features.2.conv.0.0.weight``); an adaptor adds
``features.2.resize.alpha``.

1. With ``stem='cifar'`` the strides of the stem and of the first widening block are 1, as in the published networks for
   pictures of up to 64 px. The authors' code can also build networks without adaptors of which one of the two is 1:
   'imagenet_small' and 'cifar_large'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.backbones.base import run_block
from mmms_plugin.backbones.shape_plan import (
    SMALL,
    Cell,
    ShapedNetwork,
    ShapeOptions,
    ShapePlan,
    design_side,
    place_adaptors,
)
from mmms_plugin.layers.common import BATCH_NORM, HE_INIT, ConfigType, InitConfig, build_norm
from mmms_plugin.layers.shape_adaptor import Reshape, ShapeAdaptor
from mmms_plugin.registry import MODELS

STEMS = {"imagenet": (2, 2), "cifar": (1, 1), "imagenet_small": (2, 1), "cifar_large": (1, 2)}
STEM_CHANNELS, LAST_CHANNELS = 32, 1280


class Group(NamedTuple):
    """A row of inverted residual blocks of MobileNetV2, Table 2: expansion, channels, blocks, stride of the first."""

    expansion: int
    channels: int
    blocks: int
    stride: int


class ConvNormReLU6(nn.Sequential):
    """Convolution without bias, batch norm, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, norm_cfg: ConfigType, stride: int = 1, groups: int = 1
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, build_norm(norm_cfg, outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise and 1x1 layers; ``[N, inputs, H, W] -> [N, outputs, H / stride, W / stride]``.

    With an adaptor the stride is 1, the output is resized, and there is no shortcut.
    """

    def __init__(
        self, inputs: int, outputs: int, expansion: int, stride: int, norm_cfg: ConfigType, plan: ShapePlan,
        index: int, with_cp: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        width = inputs * expansion
        expand = [ConvNormReLU6(inputs, width, 1, norm_cfg)] if expansion > 1 else []
        depthwise = ConvNormReLU6(width, width, 3, norm_cfg, stride, groups=width)
        project = nn.Conv2d(width, outputs, 1, bias=False)
        self.conv = nn.Sequential(*expand, depthwise, project, build_norm(norm_cfg, outputs))
        self.resize, self.plan, self.with_cp = plan.adaptors.get(index), plan, with_cp
        self.adds = stride == 1 and inputs == outputs and self.resize is None

    def forward(self, x: Tensor, reshape: Reshape | None = None) -> Tensor:
        return run_block(self, partial(self._forward, reshape=reshape), x)

    def _forward(self, x: Tensor, reshape: Reshape | None) -> Tensor:
        y: Tensor = self.conv(x)
        if self.resize is not None:
            y = self.resize(self.plan.pool(y), y, reshape)
        return x + y if self.adds else y


@MODELS.register_module()
class ShapeAdaptorMobileNetV2(ShapedNetwork):
    """MobileNetV2 with shape adaptors.

    Args:
        width_multiplier: factor of all channels, rounded to multiples of 8; the last layer has at least 1280.
        mode, num_adaptors, initial_scale, output_dim, limit_side, fixed_shape, resize_outputs: as in
            ``ShapeAdaptorResNet``.
        stem: strides of the stem and of the first widening block: 'imagenet' 2 and 2, 'cifar' 1 and 1,
            'imagenet_small' 2 and 1, 'cifar_large' 1 and 2.
        design_size: as in ``ShapeAdaptorResNet``, but 'autosc' has 4 adaptors from 64 on and 3 below.
        in_channels: channels of the image.
        out_indices: of the 7 groups of blocks (0 to 6) and the last 1x1 layer (7); by default the groups that end at
            strides 4, 8, 16 and 32.
        frozen_stages: -1 none, 0 the stem, k the stem and k groups.
        norm_cfg, norm_eval, with_cp, init_cfg: as in ``PSResNet``.

    Shape: ``[N, in_channels, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``; with
        ``resize_outputs=False`` of any learned size.
    Raises: ValueError for a bad argument, a memory bound that cannot be met, and for too small pictures.
    """

    arch_settings: ClassVar[tuple[Group, ...]] = (
        Group(1, 16, 1, 1),
        Group(6, 24, 2, 2),
        Group(6, 32, 3, 2),
        Group(6, 64, 4, 2),
        Group(6, 96, 3, 1),
        Group(6, 160, 3, 2),
        Group(6, 320, 1, 1),
    )

    def __init__(
        self,
        width_multiplier: float = 1.0,
        mode: str = "standard",
        *,
        stem: str = "imagenet",
        design_size: int | None = None,
        num_adaptors: int | None = None,
        initial_scale: float | Sequence[float] | None = None,
        output_dim: float | None = None,
        limit_side: float | None = None,
        fixed_shape: bool = False,
        resize_outputs: bool = True,
        in_channels: int = 3,
        out_indices: Sequence[int] = (1, 2, 4, 6),
        frozen_stages: int = -1,
        norm_cfg: ConfigType = BATCH_NORM,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitConfig = None,
    ) -> None:
        if not isinstance(width_multiplier, int | float) or not width_multiplier > 0:
            raise ValueError(f"width_multiplier={width_multiplier!r}: must be a number above 0")
        check_choice("stem", stem, tuple(STEMS))
        side = design_side(design_size, stem)
        shape = ShapeOptions(mode, side, num_adaptors, limit_side, fixed_shape, initial_scale, output_dim)
        super().__init__(len(self.arch_settings) + 1, out_indices, frozen_stages, norm_eval, init_cfg or HE_INIT)
        stem_stride, widening = STEMS[stem]
        groups = list(self.arch_settings)
        groups[1] = groups[1]._replace(stride=widening)
        self.resize_outputs, self.first_block = resize_outputs, 1
        cells = _cells(groups, stem_stride, last_free=side < SMALL or widening > 1)
        scales = place_adaptors(cells, shape, published=3 if side < SMALL else 4)
        self.plan = ShapePlan(cells, {i: ShapeAdaptor(scale) for i, scale in scales.items()}, shape)
        channels = [_multiple_of_8(g.channels * width_multiplier) for g in groups]
        channels.append(_multiple_of_8(LAST_CHANNELS * max(1.0, width_multiplier)))
        self.groups = [g.blocks for g in groups]
        self._build(groups, channels, _multiple_of_8(STEM_CHANNELS * width_multiplier), in_channels, norm_cfg, with_cp)
        strides = [stem_stride * math.prod(g.stride for g in groups[: i + 1]) for i in range(len(groups))]
        self.declare_outputs(channels, [*strides, strides[-1]])
        self.freeze()

    def _build(
        self, groups: Sequence[Group], channels: Sequence[int], width: int, in_channels: int, norm_cfg: ConfigType,
        with_cp: bool,
    ) -> None:  # fmt: skip
        plan = self.plan
        layers: list[nn.Module] = [ConvNormReLU6(in_channels, width, 3, norm_cfg, plan.stride(0))]
        for group, outputs in zip(groups, channels[:-1], strict=True):
            for _ in range(group.blocks):
                index = len(layers)
                block = InvertedResidual(
                    width, outputs, group.expansion, plan.stride(index), norm_cfg, plan, index, with_cp
                )
                layers.append(block)
                width = outputs
        if self.out_indices[-1] == len(groups):  # else it would be without use
            layers.append(ConvNormReLU6(width, channels[-1], 1, norm_cfg))
        self.features = nn.Sequential(*layers)
        if 0 in plan.adaptors:
            self.stem_adaptor = plan.adaptors[0]

    def stem_modules(self) -> list[nn.Module]:
        """As ``Backbone``."""
        return [self.features[0], *([self.stem_adaptor] if 0 in self.plan.adaptors else [])]

    def stage_modules(self) -> list[list[nn.Module]]:
        """As ``Backbone``: the groups of blocks, then the last layer."""
        layers, ends = list(self.features), [1]
        for blocks in self.groups:
            ends.append(ends[-1] + blocks)
        return [*(layers[a:b] for a, b in pairwise(ends)), layers[ends[-1] :]]

    def blocks_of(self, modules: Sequence[nn.Module]) -> Sequence[nn.Module]:
        """As ``ShapedNetwork``: the modules of a group are its blocks."""
        return modules

    def forward_stem(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` to the input of the first block."""
        reshapes = self.plan.reshapes(x.shape[-2], x.shape[-1])
        x = self.features[0](x)
        if 0 in self.plan.adaptors:
            x = self.stem_adaptor(self.plan.pool(x), x, reshapes[0])
        return x


def _cells(groups: Sequence[Group], stem_stride: int, last_free: bool) -> list[Cell]:
    """The stem, every block, and the last 1x1 layer. AutoSC leaves stem, first block and last layer as they are.

    At 64 px it leaves the last block too (not ``last_free``), because the authors count the strides of larger networks.
    """
    cells, blocks = [Cell("features.0", stem_stride, False)], sum(group.blocks for group in groups)
    for group in groups:
        for i in range(group.blocks):
            free = 1 < len(cells) < blocks + last_free
            cells.append(Cell(f"features.{len(cells)}", group.stride if i == 0 else 1, free))
    return [*cells, Cell(f"features.{len(cells)}", 1, False)]


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, but not less than 90 % of ``channels`` (MobileNet's authors' rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
