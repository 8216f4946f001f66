"""Residual blocks and stems of the ResNet family (He et al., 2016), shared by PSResNet, ElasticResNeXt and others.

Keys are torchvision's (``conv1.weight``, ``layer1.0.conv2.weight``); a deep stem and average-pooled shortcuts have
mmdet's (``stem.0.weight``, ``layer2.0.downsample.1.weight``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.backbones.base import run_block
from mmms_plugin.backbones.staged import Place, ResizingFactory, Stage, StagedNetwork, no_resizing
from mmms_plugin.compat.networks import build_conv_layer
from mmms_plugin.layers.common import ConfigType, SqueezeExcitation, build_norm
from mmms_plugin.layers.shape_adaptor import Reshape


@dataclass(frozen=True)
class BlockOptions:
    """Options that all blocks of a network share.

    Args:
        norm_cfg: norm layers.
        conv_cfg: the 3x3 layers, None for plain ones.
        groups, base_width: cardinality and width of a bottleneck's 3x3 layer (32 and 4 for ResNeXt 32x4d).
        se_ratio: reduction of squeeze-and-excitation, None for none.
        style: 'pytorch' has a bottleneck's stride in its 3x3 layer, 'caffe' in its first 1x1 layer.
        avg_down: pool before the shortcut's 1x1 layer in place of its stride (ResNet-D).
        with_cp: recompute blocks in the backward pass to save memory.
        resizing: gives the learned layer that replaces a block's stride, or None.
    """

    norm_cfg: ConfigType
    conv_cfg: ConfigType | None = None
    groups: int = 1
    base_width: int = 64
    se_ratio: int | None = None
    style: str = "pytorch"
    avg_down: bool = False
    with_cp: bool = False
    resizing: ResizingFactory = no_resizing

    def norm(self, channels: int) -> nn.Module:
        return build_norm(self.norm_cfg, channels)

    def conv3x3(self, in_channels: int, out_channels: int, stride: int, dilation: int, groups: int) -> nn.Module:
        options = dict(stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=False)
        conv_cfg = None if self.conv_cfg is None else dict(self.conv_cfg)
        conv: nn.Module = build_conv_layer(conv_cfg, in_channels, out_channels, 3, **options)
        return conv

    def shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        """1x1 projection where size or channels change."""
        if stride == 1 and in_channels == out_channels:
            return None
        pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if self.avg_down else []
        conv = nn.Conv2d(in_channels, out_channels, 1, 1 if self.avg_down else stride, bias=False)
        return nn.Sequential(*pool, conv, self.norm(out_channels))

    def gate(self, channels: int) -> nn.Module:
        return SqueezeExcitation(channels, self.se_ratio) if self.se_ratio is not None else nn.Identity()


class ResidualBlock(nn.Module):
    """ReLU of branch plus shortcut; ``[N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]``.

    A subclass builds the branch, calls ``add_shortcut`` and defines ``branch`` and ``last_norm``. If the options give
    a resizing layer, the branch keeps the size, and the layer combines its output with the shortcut.
    """

    def __init__(self, options: BlockOptions, place: Place) -> None:
        super().__init__()
        self.with_cp = options.with_cp
        self.branch_stride = self.shortcut_stride = place.stride
        self.resize: nn.Module | None = None
        if (resizing := options.resizing(place)) is not None:
            self.branch_stride, self.shortcut_stride, self.resize = 1, resizing.stride, resizing.layer

    def add_shortcut(self, options: BlockOptions, place: Place) -> None:
        """Build the shortcut; the subclass calls it after its own layers, so that state-dict keys keep their order."""
        self.downsample = options.shortcut(place.in_channels, place.out_channels, self.shortcut_stride)

    @property
    def last_norm(self) -> nn.Module:
        """The norm layer that ends the branch."""
        raise NotImplementedError(f"{type(self).__name__} must define last_norm")

    def branch(self, x: Tensor) -> Tensor:
        """The term that is added to the shortcut."""
        raise NotImplementedError(f"{type(self).__name__} must define branch")

    def forward(self, x: Tensor, size: Reshape | None = None) -> Tensor:
        """The block's output; ``size`` is that of a resizing layer's output, None to let the layer choose."""
        return F.relu(run_block(self, partial(self._sum, size=size), x))

    def _sum(self, x: Tensor, size: Reshape | None) -> Tensor:
        y = self.branch(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        if self.resize is None:
            return y + shortcut
        resized: Tensor = self.resize(shortcut, y, size)
        return resized


class BasicBlock(ResidualBlock):
    """Two 3x3 layers."""

    expansion = 1

    def __init__(self, options: BlockOptions, place: Place) -> None:
        super().__init__(options, place)
        if options.groups != 1 or options.base_width != 64:
            raise ValueError(
                f"groups={options.groups}, base_width={options.base_width}: depths 18 and 34 allow 1 and 64 only"
            )
        channels = place.out_channels
        self.conv1 = options.conv3x3(place.in_channels, channels, self.branch_stride, place.dilation, 1)
        self.bn1 = options.norm(channels)
        self.conv2 = options.conv3x3(channels, channels, 1, 1, 1)
        self.bn2 = options.norm(channels)
        self.se = options.gate(channels)
        self.add_shortcut(options, place)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn2

    def branch(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        gated: Tensor = self.se(self.bn2(self.conv2(y)))
        return gated


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 layers."""

    expansion = 4

    def __init__(self, options: BlockOptions, place: Place) -> None:
        super().__init__(options, place)
        width, channels = place.width * options.base_width // 64 * options.groups, place.out_channels
        stride1, stride2 = (1, self.branch_stride) if options.style == "pytorch" else (self.branch_stride, 1)
        self.conv1 = nn.Conv2d(place.in_channels, width, 1, stride1, bias=False)
        self.bn1 = options.norm(width)
        self.conv2 = options.conv3x3(width, width, stride2, place.dilation, options.groups)
        self.bn2 = options.norm(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = options.norm(channels)
        self.se = options.gate(channels)
        self.add_shortcut(options, place)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3

    def branch(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        gated: Tensor = self.se(self.bn3(self.conv3(y)))
        return gated


class ResidualNetwork(StagedNetwork):
    """The network that ResNets and ResNeXts share: stem, max-pooling and stages of residual blocks.

    A subclass calls ``build_stem`` and ``build_stages``.
    """

    def build_stem(
        self, in_channels: int, channels: int, norm_cfg: ConfigType, deep: bool = False, small: bool = False
    ) -> int:
        """A 7x7 layer of stride 2 and max-pooling; ``deep``: three 3x3 layers (ResNet-C); ``small``: only a 3x3 layer.

        Returns: the stride of the stem, 4 or 1.
        """
        if deep and small:
            raise ValueError("small_stem=True, deep_stem=True: allowed is one of them")
        self.deep_stem, self.small_stem = deep, small
        if not deep:
            kernel, stride = (3, 1) if small else (7, 2)
            self.conv1 = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
            self.bn1 = build_norm(norm_cfg, channels)
            return 1 if small else 4
        layers: list[nn.Module] = []
        sizes = ((in_channels, channels // 2, 2), (channels // 2, channels // 2, 1), (channels // 2, channels, 1))
        for inputs, outputs, stride in sizes:
            conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            layers += [conv, build_norm(norm_cfg, outputs), nn.ReLU(inplace=True)]
        self.stem = nn.Sequential(*layers)
        return 4

    def stem_modules(self) -> list[nn.Module]:
        """As ``Backbone``."""
        return [self.stem] if self.deep_stem else [self.conv1, self.bn1]

    def forward_stem(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, channels, H / 4, W / 4]``; ``[N, channels, H, W]`` from a small stem."""
        x = self.stem(x) if self.deep_stem else F.relu(self.bn1(self.conv1(x)))
        return x if self.small_stem else F.max_pool2d(x, 3, 2, 1)


def check_num_stages(num_stages: int, depth: int, most: int) -> None:
    """Raises: ValueError unless a network of this depth can have so many stages."""
    if num_stages not in range(1, most + 1):
        allowed = ", ".join(map(str, range(1, most + 1)))
        raise ValueError(f"num_stages={num_stages!r}: allowed with depth {depth} are {allowed}")


def doubling_stages(
    base_channels: int, expansion: int, strides: Sequence[int], grids: Sequence[tuple[int, ...]]
) -> list[Stage]:
    """Stages, each of twice the width of the stage before."""
    return [
        Stage(base_channels * 2**i, base_channels * 2**i * expansion, stride, grid)
        for i, (stride, grid) in enumerate(zip(strides, grids, strict=True))
    ]
