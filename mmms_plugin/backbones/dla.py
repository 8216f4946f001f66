"""DLA, deep layer aggregation (Yu et al., CVPR 2018; github.com/ucbdrive/dla), and DLA + Elastic.

A stem, two convolutional levels and four trees of residual blocks whose outputs are aggregated by 1x1 root layers. With
Elastic (Wang et al., CVPR 2019, Table 9; github.com/allenai/elastic) the blocks run half of their width at half
resolution. Keys are the authors' (``level3.tree1.root.conv.weight``).

1. In the authors' code a tree of several levels has a ``project`` layer on which its output does not depend. It is left
   out here, so that no parameter is unused. Published counts include these layers; ``DLA.left_out`` lists them.
2. Pooling rounds odd sizes up, as the strided 3x3 layers do, so that every size works; even sizes give the same maps.
   (allenai/elastic does so for segmentation only, ucbdrive/dla not at all.)
3. ``strides`` and ``dilations`` allow an output stride below 32; the authors have none. As in their code, Elastic is on
   where the block's stride is 1, except in the last level, so the first block of a level with stride 1 has it too.
4. ``elastic=False`` is also the baseline of the ELASTIC paper: for DLA its authors kept one path per block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice, check_per_stage
from mmms_plugin.backbones.base import Backbone, run_block
from mmms_plugin.layers import ElasticPolicy, elastic_bottleneck
from mmms_plugin.layers.common import BATCH_NORM, HE_INIT, ConfigType, InitConfig, build_norm
from mmms_plugin.registry import MODELS

NUM_LEVELS = 6


class Arch(NamedTuple):
    """One variant: cardinality of the blocks (0: two 3x3 layers); depths and channels of levels 0 to 5."""

    cardinality: int
    depths: tuple[int, ...]
    channels: tuple[int, ...]
    residual_root: bool = False


@dataclass(frozen=True)
class TreeOptions:
    """Options that all blocks and roots of a tree share.

    Args:
        norm_cfg: norm layers.
        cardinality: as in ``Arch``.
        residual_root: as in ``Arch``.
        policy: of Elastic blocks, None for none.
        lower: whether Elastic blocks of stride 1 lower the resolution.
        with_cp: recompute blocks and roots in the backward pass to save memory.
        grid: factors of the dilation for the two blocks of a leaf.
    """

    norm_cfg: ConfigType
    cardinality: int
    residual_root: bool
    policy: ElasticPolicy | None
    lower: bool
    with_cp: bool
    grid: tuple[int, ...] = (1, 1)

    def block(self, in_channels: int, channels: int, stride: int, dilation: int) -> Block:
        if self.policy is not None:
            return ElasticBottleneck(self, self.policy, in_channels, channels, stride, dilation)
        kind = Bottleneck if self.cardinality else BasicBlock
        return kind(self, in_channels, channels, stride, dilation)

    def norm(self, channels: int) -> nn.Module:
        return build_norm(self.norm_cfg, channels)


class Block(nn.Module):
    """A residual block: ``[N, in_channels, H, W]`` and the shortcut to ``[N, channels, H / stride, W / stride]``."""

    with_cp: bool

    def branch(self, x: Tensor) -> Tensor:
        """The term that is added to the shortcut."""
        raise NotImplementedError(f"{type(self).__name__} must define branch")

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return F.relu(run_block(self, self.branch, x) + shortcut)


class BasicBlock(Block):
    """Two 3x3 layers."""

    def __init__(self, options: TreeOptions, in_channels: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, dilation, dilation, bias=False)
        self.bn1 = options.norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False)
        self.bn2 = options.norm(channels)
        self.with_cp = options.with_cp

    def branch(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return y


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 layers, half as wide inside; with groups ``channels * cardinality / 32`` wide."""

    def __init__(self, options: TreeOptions, in_channels: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        groups = options.cardinality
        width = channels // 2 if groups == 1 else channels * groups // 32
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = options.norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, groups, bias=False)
        self.bn2 = options.norm(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = options.norm(channels)
        self.with_cp = options.with_cp

    def branch(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        z: Tensor = self.bn3(self.conv3(y))
        return z


class ElasticBottleneck(Block):
    """A grouped ``Bottleneck``, half of whose groups work at half resolution (ELASTIC, Figure 3, left)."""

    def __init__(
        self,
        options: TreeOptions,
        policy: ElasticPolicy,
        in_channels: int,
        channels: int,
        stride: int,
        dilation: int,
    ) -> None:
        super().__init__()
        self.paths = elastic_bottleneck(
            policy,
            in_channels,
            channels * options.cardinality // 32,
            channels,
            stride=stride,
            dilation=dilation,
            groups=options.cardinality,
            lower=options.lower and stride == 1,
            norm=options.norm,
        )
        self.bn3 = options.norm(channels)
        self.with_cp = options.with_cp

    def branch(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn3(self.paths(x))
        return y


class Root(nn.Module):
    """Aggregation node: a 1x1 layer over the concatenated children; the first may be added as a shortcut."""

    def __init__(self, options: TreeOptions, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn = options.norm(channels)
        self.residual, self.with_cp = options.residual_root, options.with_cp

    def forward(self, newest: Tensor, *others: Tensor) -> Tensor:
        joined = run_block(self, lambda x: self.bn(self.conv(torch.cat((x, *others), 1))), newest)
        return F.relu(joined + newest if self.residual else joined)


class Tree(nn.Module):
    """Hierarchical deep aggregation (DLA, section 3.2): two subtrees, or two blocks and their root.

    Args:
        options: shared by all blocks.
        depth: number of levels, this one included; a tree of depth 1 has two blocks and a root.
        in_channels, channels, stride, dilation: of the whole tree; the stride is the first block's.
        level_root: whether the root also gets the pooled input.
        passed: channels that the root gets from trees above.

    Shape: ``[N, in_channels, H, W]`` to ``[N, channels, ceil(H / stride), ceil(W / stride)]``.
    """

    def __init__(
        self,
        options: TreeOptions,
        depth: int,
        in_channels: int,
        channels: int,
        stride: int,
        dilation: int,
        level_root: bool = False,
        passed: int = 0,
    ) -> None:
        super().__init__()
        self.is_leaf, self.level_root = depth == 1, level_root
        self.left_out = None if self.is_leaf or in_channels == channels else (in_channels, channels)
        passed += in_channels if level_root else 0
        self.pool = nn.MaxPool2d(stride, stride, ceil_mode=True) if stride > 1 else nn.Identity()
        if self.is_leaf:
            self.tree1: nn.Module = options.block(in_channels, channels, stride, dilation * options.grid[0])
            self.tree2: nn.Module = options.block(channels, channels, 1, dilation * options.grid[1])
            self.root = Root(options, 2 * channels + passed, channels)
            self.project: nn.Module = nn.Identity()
            if in_channels != channels:
                conv = nn.Conv2d(in_channels, channels, 1, bias=False)
                self.project = nn.Sequential(conv, options.norm(channels))
        else:
            self.tree1 = Tree(options, depth - 1, in_channels, channels, stride, dilation)
            self.tree2 = Tree(options, depth - 1, channels, channels, 1, dilation, passed=passed + channels)

    def forward(self, x: Tensor, *passed: Tensor) -> Tensor:
        if self.level_root:
            passed = (*passed, self.pool(x))
        if self.is_leaf:
            y = self.tree1(x, self.project(self.pool(x)))
            joined: Tensor = self.root(self.tree2(y, y), y, *passed)
        else:
            y = self.tree1(x)
            joined = self.tree2(y, *passed, y)
        return joined


COMPACT, WIDE = (16, 32, 64, 64, 128, 256), (16, 32, 128, 256, 512, 1024)


@MODELS.register_module()
class DLA(Backbone):
    """Deep layer aggregation, plain, compact (_c) and with grouped bottlenecks (x); 60x and 102x also with Elastic.

    Levels are numbered as in the authors' code: level k has stride 2^k. By default levels 2 to 5 are returned, like a
    ResNet's four stages; ``DLAUp`` for dense prediction at stride 2 needs ``out_indices=(1, 2, 3, 4, 5)``.

    Args:
        arch: '34', '46_c', '46x_c', '60', '60x', '60x_c', '102', '102x', '102x2' or '169', with or without 'dla' in
            front.
        elastic: False or 'none'; 'simple', Elastic blocks in the same tree; True or 'full', the tree of Table 9. For
            '60x' the two are the same.
        elastic_cfg: arguments of ``ElasticPolicy``: ratios, shares, method, pool (Tables 6 and 7).
        in_channels: channels of the image.
        strides, dilations: for levels 0 to 5 the stride and the dilation of its 3x3 layers.
        multi_grid: factors of the dilation for the two blocks of level 5.
        out_indices: levels to return.
        frozen_stages: -1 none, 0 the stem, k the stem and levels 0 to k - 1.
        norm_cfg: norm layers.
        norm_eval: keep batch norms in eval mode while training.
        with_cp: recompute blocks and roots in the backward pass to save memory.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``, or None for He initialisation.

    Attributes:
        left_out: ``(in_channels, channels, stride)`` of the authors' unused 1x1 layers, each with a batch norm, at 1 /
            stride of the image; published counts include their parameters and multiply-adds.

    Shape: ``[N, in_channels, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``.
    Raises: ValueError for a bad argument, and for pictures smaller than the last returned level's stride.
    """

    arch_settings: ClassVar[dict[str, Arch]] = {
        "34": Arch(0, (1, 1, 1, 2, 2, 1), (16, 32, 64, 128, 256, 512)),
        "46_c": Arch(1, (1, 1, 1, 2, 2, 1), COMPACT),
        "46x_c": Arch(32, (1, 1, 1, 2, 2, 1), COMPACT),
        "60": Arch(1, (1, 1, 1, 2, 3, 1), WIDE),
        "60x": Arch(32, (1, 1, 1, 2, 3, 1), WIDE),
        "60x_c": Arch(32, (1, 1, 1, 2, 3, 1), COMPACT),
        "102": Arch(1, (1, 1, 1, 3, 4, 1), WIDE, True),
        "102x": Arch(32, (1, 1, 1, 3, 4, 1), WIDE, True),
        "102x2": Arch(64, (1, 1, 1, 3, 4, 1), WIDE, True),
        "169": Arch(1, (1, 1, 2, 3, 5, 1), WIDE, True),
    }
    elastic_settings: ClassVar[dict[str, dict[str, Arch]]] = {
        "none": arch_settings,
        "simple": {"60x": arch_settings["60x"], "102x": arch_settings["102x"]},
        "full": {"60x": arch_settings["60x"], "102x": Arch(50, (1, 1, 3, 3, 3, 1), WIDE, True)},
    }

    def __init__(
        self,
        arch: str,
        elastic: bool | str = False,
        *,
        elastic_cfg: ConfigType | None = None,
        in_channels: int = 3,
        strides: Sequence[int] = (1, 2, 2, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1, 1, 1),
        multi_grid: Sequence[int] | None = None,
        out_indices: Sequence[int] = (2, 3, 4, 5),
        frozen_stages: int = -1,
        norm_cfg: ConfigType = BATCH_NORM,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitConfig = None,
    ) -> None:
        super().__init__(NUM_LEVELS, out_indices, frozen_stages, norm_eval, init_cfg or HE_INIT)
        self.arch = str(arch).removeprefix("dla")
        check_choice("arch", self.arch, tuple(self.arch_settings))
        self.elastic = elastic if not isinstance(elastic, bool) else "full" if elastic else "none"
        check_choice("elastic", self.elastic, tuple(self.elastic_settings))
        settings = self.elastic_settings[self.elastic]
        if self.arch not in settings:
            raise ValueError(f"elastic={elastic!r}: allowed for arch={arch!r} is False; {', '.join(settings)} have it")
        setting = settings[self.arch]
        strides = check_per_stage("strides", strides, NUM_LEVELS)
        dilations = check_per_stage("dilations", dilations, NUM_LEVELS)
        grid = check_per_stage("multi_grid", (1, 1) if multi_grid is None else multi_grid, 2, "block of level 5")
        policy = ElasticPolicy(**(elastic_cfg or {})) if self.elastic != "none" else None
        if elastic_cfg and policy is None:
            raise ValueError(f"elastic_cfg={elastic_cfg!r}: allowed with elastic='simple' and 'full' only")
        options = TreeOptions(norm_cfg, setting.cardinality, setting.residual_root, policy, True, with_cp)
        widths = setting.channels
        self.base_layer = _conv_layers(norm_cfg, in_channels, widths[0], kernel=7)
        for level, depth in enumerate(setting.depths):
            inputs, stride, dilation = widths[max(level - 1, 0)], strides[level], dilations[level]
            if level < 2:
                module: nn.Module = _conv_layers(norm_cfg, inputs, widths[level], 3, stride, dilation, depth)
            else:
                last = level == NUM_LEVELS - 1
                tree_options = replace(options, lower=not last, grid=grid if last else (1, 1))
                module = Tree(tree_options, depth, inputs, widths[level], stride, dilation, level_root=level > 2)
            self.add_module(f"level{level}", module)
        level_strides = [math.prod(strides[: level + 1]) for level in range(NUM_LEVELS)]
        self.declare_outputs(widths, level_strides)
        self.left_out = tuple(
            (*tree.left_out, stride)
            for level, stride in zip(self.levels, level_strides, strict=True)
            for tree in level.modules()
            if isinstance(tree, Tree) and tree.left_out
        )
        self.freeze()

    @property
    def levels(self) -> list[nn.Module]:
        return [cast(nn.Module, getattr(self, f"level{level}")) for level in range(NUM_LEVELS)]

    def stem_modules(self) -> list[nn.Module]:
        """As ``Backbone``."""
        return [self.base_layer]

    def stage_modules(self) -> list[list[nn.Module]]:
        """As ``Backbone``: every level is one module."""
        return [[level] for level in self.levels]

    def forward_stem(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, 16, H, W]``."""
        stem: Tensor = self.base_layer(x)
        return stem


def _conv_layers(
    norm_cfg: ConfigType,
    in_channels: int,
    channels: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    count: int = 1,
) -> nn.Sequential:
    """``count`` layers of convolution, norm and ReLU; the first has the stride."""
    layers: list[nn.Module] = []
    for i in range(count):
        padding = dilation * (kernel // 2)
        first = (in_channels, stride) if i == 0 else (channels, 1)
        conv = nn.Conv2d(first[0], channels, kernel, first[1], padding, dilation, bias=False)
        layers += [conv, build_norm(norm_cfg, channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
