"""PS-ResNet, PS-ResNeXt and PS-SE-ResNet: section 4.1 of the PSConv paper (github.com/d-li14/PSConv).

ResNet (He et al., 2016) with PSConv in place of the 3x3 convolutions inside the blocks; stem and 1x1 layers are plain.
Keys are torchvision's (``layer1.0.conv2.weight``); a deep stem and average-pooled shortcuts have mmdet's
(``stem.0.weight``, ``layer2.0.downsample.1.weight``).

1. ``multi_grid`` multiplies the dilation of the last stage, as DeepLabV3 has it (section 4.2.1 there); mmseg's replaces
   the dilation.
2. With ``dilation_pattern=(1, 1, 1, 1)`` this is mmdet's ResNet, value for value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, cast

import torch.nn.functional as F
from mmcv.cnn import build_conv_layer
from torch import Tensor, nn

from mmms_plugin.backbones.base import (
    HE_INIT,
    Backbone,
    ConfigType,
    InitConfig,
    build_norm,
    check_per_stage,
    run_block,
)
from mmms_plugin.layers import SqueezeExcitation
from mmms_plugin.layers.dilation_lattice import check_choice
from mmms_plugin.registry import MODELS


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of one network share."""

    conv_cfg: ConfigType
    norm_cfg: ConfigType
    groups: int
    base_width: int
    se_ratio: int | None
    style: str
    avg_down: bool
    with_cp: bool

    def conv3x3(self, in_channels: int, out_channels: int, stride: int, dilation: int, groups: int) -> nn.Module:
        options = dict(stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=False)
        return build_conv_layer(dict(self.conv_cfg), in_channels, out_channels, 3, **options)

    def shortcut(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        """1x1 projection where size or channels change; with ``avg_down`` behind an average pooling (ResNet-D)."""
        if stride == 1 and in_channels == out_channels:
            return None
        pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if self.avg_down else []
        conv = nn.Conv2d(in_channels, out_channels, 1, 1 if self.avg_down else stride, bias=False)
        return nn.Sequential(*pool, conv, build_norm(self.norm_cfg, out_channels))

    def gate(self, channels: int) -> nn.Module:
        return SqueezeExcitation(channels, self.se_ratio) if self.se_ratio is not None else nn.Identity()


class BasicBlock(nn.Module):
    """Two 3x3 layers; ``[N, in_channels, H, W] -> [N, planes, H / stride, W / stride]``."""

    expansion = 1

    def __init__(self, options: BlockOptions, in_channels: int, planes: int, stride: int, dilation: int) -> None:
        super().__init__()
        if options.groups != 1 or options.base_width != 64:
            raise ValueError(
                f"groups={options.groups}, base_width={options.base_width}: depths 18 and 34 allow 1 and 64 only"
            )
        self.conv1 = options.conv3x3(in_channels, planes, stride, dilation, 1)
        self.bn1 = build_norm(options.norm_cfg, planes)
        self.conv2 = options.conv3x3(planes, planes, 1, 1, 1)
        self.bn2 = build_norm(options.norm_cfg, planes)
        self.se = options.gate(planes)
        self.downsample = options.shortcut(in_channels, planes, stride)
        self.with_cp = options.with_cp

    @property
    def last_norm_weight(self) -> Tensor:
        return cast(Tensor, self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(run_block(self._residual, x, self.with_cp))

    def _residual(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.se(self.bn2(self.conv2(y)))
        return y + (x if self.downsample is None else self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 layers; ``[N, in_channels, H, W] -> [N, 4 * planes, H / stride, W / stride]``."""

    expansion = 4

    def __init__(self, options: BlockOptions, in_channels: int, planes: int, stride: int, dilation: int) -> None:
        super().__init__()
        width = planes * options.base_width // 64 * options.groups
        channels = planes * self.expansion
        stride1, stride2 = (1, stride) if options.style == "pytorch" else (stride, 1)
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride1, bias=False)
        self.bn1 = build_norm(options.norm_cfg, width)
        self.conv2 = options.conv3x3(width, width, stride2, dilation, options.groups)
        self.bn2 = build_norm(options.norm_cfg, width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = build_norm(options.norm_cfg, channels)
        self.se = options.gate(channels)
        self.downsample = options.shortcut(in_channels, channels, stride)
        self.with_cp = options.with_cp

    @property
    def last_norm_weight(self) -> Tensor:
        return cast(Tensor, self.bn3.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(run_block(self._residual, x, self.with_cp))

    def _residual(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.se(self.bn3(self.conv3(y)))
        return y + (x if self.downsample is None else self.downsample(x))


@MODELS.register_module()
class PSResNet(Backbone):
    """ResNet family with poly-scale 3x3 layers, a drop-in for mmdet's, mmseg's and mmpretrain's ResNet(V1c/d), ResNeXt.

    Args:
        depth: 18, 34, 50, 101 or 152.
        groups, base_width: cardinality and width of ResNeXt (32 and 4 for 32x4d); depths from 50.
        se_ratio: reduction of squeeze-and-excitation, None for none.
        dilation_pattern, channel_order, axes, extra_dilation1: of every PSConv, see ``PSConv2d``. Published checkpoints
            need pattern (2, 1, 4, 1), and ``extra_dilation1=True`` with groups.
        conv_cfg: another 3x3 layer than PSConv, such as ``dict(type='mmms_plugin.DynamicPSConv')``.
        in_channels, stem_channels, base_channels: channels of the image, the stem and the first stage's blocks.
        num_stages, strides, dilations: stages and, for each, the stride and base dilation.
        multi_grid: factors of the dilation for the blocks of the last stage, as many as it has blocks.
        contract_dilation: halve the dilation in the first block of a dilated stage.
        style: 'pytorch' has a bottleneck's stride in its 3x3 layer, 'caffe' in its first 1x1 layer.
        deep_stem, avg_down: the stem of three 3x3 layers and pooled shortcuts of ResNet-C and -D.
        out_indices: stages to return. frozen_stages: -1 none, 0 the stem, k the stem and k stages.
        norm_cfg, norm_eval: norm layers; keep batch norms in eval mode while training.
        with_cp: recompute blocks in the backward pass to save memory.
        zero_init_residual: start every block as an identity.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``, or None for He initialisation.

    Shape: ``[N, in_channels, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``.
    Raises: ValueError for a bad argument.
    """

    arch_settings: ClassVar[dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]]] = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }

    def __init__(
        self,
        depth: int,
        groups: int = 1,
        base_width: int = 64,
        se_ratio: int | None = None,
        *,
        dilation_pattern: Sequence[int] = (1, 2, 1, 4),
        channel_order: str = "block",
        axes: str = "both",
        extra_dilation1: bool = False,
        conv_cfg: ConfigType | None = None,
        in_channels: int = 3,
        stem_channels: int = 64,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        multi_grid: Sequence[int] | None = None,
        contract_dilation: bool = False,
        style: str = "pytorch",
        deep_stem: bool = False,
        avg_down: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: ConfigType = MappingProxyType(dict(type="BN", requires_grad=True)),
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        init_cfg: InitConfig = None,
    ) -> None:
        check_choice("depth", depth, tuple(self.arch_settings))
        check_choice("num_stages", num_stages, (1, 2, 3, 4))
        check_choice("style", style, ("pytorch", "caffe"))
        self._pretrained = init_cfg is not None
        super().__init__(num_stages, out_indices, frozen_stages, norm_eval, init_cfg or HE_INIT)
        strides = check_per_stage("strides", strides, num_stages)
        dilations = check_per_stage("dilations", dilations, num_stages)
        block, counts = self.arch_settings[depth]
        pattern = dict(dilation_pattern=dilation_pattern, channel_order=channel_order, axes=axes)
        ps_conv = dict(type="mmms_plugin.PSConv", extra_dilation1=extra_dilation1, **pattern)
        options = BlockOptions(conv_cfg or ps_conv, norm_cfg, groups, base_width, se_ratio, style, avg_down, with_cp)

        self.depth, self.deep_stem, self.zero_init_residual = depth, deep_stem, zero_init_residual
        self._build_stem(in_channels, stem_channels, norm_cfg)
        channels = stem_channels
        for stage in range(num_stages):
            grid = _grid(dilations[stage], counts[stage], contract_dilation)
            if multi_grid is not None and stage == num_stages - 1:
                factors = check_per_stage("multi_grid", multi_grid, counts[stage], "block of the last stage")
                grid = [dilations[stage] * factor for factor in factors]
            planes, blocks = base_channels * 2**stage, []
            for i, dilation in enumerate(grid):
                blocks.append(block(options, channels, planes, strides[stage] if i == 0 else 1, dilation))
                channels = planes * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        widths = [base_channels * 2**stage * block.expansion for stage in range(num_stages)]
        self.declare_outputs(widths, [4 * math.prod(strides[: stage + 1]) for stage in range(num_stages)])
        self.freeze()

    def _build_stem(self, in_channels: int, channels: int, norm_cfg: ConfigType) -> None:
        if not self.deep_stem:
            self.conv1 = nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False)
            self.bn1 = build_norm(norm_cfg, channels)
            return
        layers: list[nn.Module] = []
        for inputs, outputs, stride in (
            (in_channels, channels // 2, 2),
            (channels // 2, channels // 2, 1),
            (channels // 2, channels, 1),
        ):
            conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            layers += [conv, build_norm(norm_cfg, outputs), nn.ReLU(inplace=True)]
        self.stem = nn.Sequential(*layers)

    @property
    def stages(self) -> list[nn.Sequential]:
        return [cast(nn.Sequential, m) for name, m in self.named_children() if name.startswith("layer")]

    def freezable_modules(self) -> list[list[nn.Module]]:
        stem: list[nn.Module] = [self.stem] if self.deep_stem else [self.conv1, self.bn1]
        stages: list[list[nn.Module]] = [[stage] for stage in self.stages]
        return [stem, *stages]

    def init_weights(self) -> None:
        """He initialisation, or what ``init_cfg`` says."""
        super().init_weights()
        if self.zero_init_residual and not self._pretrained:
            for stage in self.stages:
                for block in stage:
                    nn.init.zeros_(cast(BasicBlock | Bottleneck, block).last_norm_weight)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x) if self.deep_stem else F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        outputs = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


def _grid(dilation: int, blocks: int, contract: bool) -> list[int]:
    first = max(1, dilation // 2) if contract else dilation
    return [first] + [dilation] * (blocks - 1)
