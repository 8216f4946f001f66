"""ResNeXt and SE-ResNeXt with Elastic: section 3.3, Figure 3 left, Table 10 of the ELASTIC paper.

Source: github.com/allenai/elastic. Every bottleneck is two half-width paths that are summed before one batch norm; with
Elastic on, the second runs at half resolution. It is on where the stride is 1, but never in the fourth stage.
Keys are torchvision's outside the paths, ``layer1.0.paths.high.conv1.weight`` and ``layer1.0.paths.low...`` inside.

1. The paths' shares, ratios and resampling are free (``elastic_cfg``): Tables 6 and 7 for ResNeXt.
2. ``multi_grid`` multiplies the dilation of the last stage, in the paper's segmentation models a dilation of 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.backbones.base import HE_INIT, Backbone, ConfigType, InitConfig, build_norm, check_per_stage, run_block
from mmms_plugin.layers import ElasticPolicy, SqueezeExcitation, elastic_bottleneck
from mmms_plugin.layers.dilation_lattice import check_choice
from mmms_plugin.registry import MODELS

EXPANSION = 4
LAST_STAGE = 3  # where resolution is not lowered any more, at stride 32 of a classifier


class Variant(NamedTuple):
    """Blocks of each stage without Elastic and with sElastic (Appendix A), and with Elastic (Appendix B)."""

    base: tuple[int, ...]
    full: tuple[int, ...]


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of one network share; ``elastic`` False keeps both paths at full resolution."""

    policy: ElasticPolicy
    elastic: bool
    groups: int
    base_width: int
    se_ratio: int | None
    norm_cfg: ConfigType
    with_cp: bool

    def norm(self, channels: int) -> nn.Module:
        return build_norm(self.norm_cfg, channels)


class ElasticBottleneck(nn.Module):
    """Summed paths, norm, gate, shortcut; ``[N, in_channels, H, W] -> [N, 4 * planes, H / stride, W / stride]``."""

    def __init__(
        self, options: BlockOptions, in_channels: int, planes: int, stride: int, dilation: int, last_stage: bool
    ) -> None:
        super().__init__()
        width = planes * options.base_width // 64 * options.groups
        channels = planes * EXPANSION
        lower = options.elastic and stride == 1 and not last_stage
        sizes = dict(stride=stride, dilation=dilation, groups=options.groups)
        self.paths = elastic_bottleneck(
            options.policy, in_channels, width, channels, lower=lower, norm=options.norm, **sizes
        )
        self.bn3 = options.norm(channels)
        self.se = SqueezeExcitation(channels, options.se_ratio) if options.se_ratio is not None else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, options.norm(channels))
        self.with_cp = options.with_cp

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(run_block(self._residual, x, self.with_cp))

    def _residual(self, x: Tensor) -> Tensor:
        return self.se(self.bn3(self.paths(x))) + self.downsample(x)


@MODELS.register_module()
class ElasticResNeXt(Backbone):
    """ResNeXt-50 and -101, their SE form, and both with Elastic.

    Args:
        depth: 50 or 101.
        elastic: 'none', the authors' two-path baseline, which computes what a plain ResNeXt does; 'simple', sElastic,
            with the baseline's blocks and parameters; 'full', with the blocks that match its multiply-adds.
        se_ratio: reduction of squeeze-and-excitation (16 for SE-ResNeXt), None for none.
        groups, base_width: cardinality and width of both paths together; 64 groups are ResNeXt50x2+Elastic.
        elastic_cfg: arguments of ``ElasticPolicy``: ratios, shares, method, pool.
        in_channels, stem_channels, base_channels: channels of the image, the stem and the first stage's blocks.
        num_stages, strides, dilations: stages and, for each, the stride and base dilation.
        multi_grid: factors of the dilation for the blocks of the last stage, as many as it has blocks.
        out_indices: stages to return. frozen_stages: -1 none, 0 the stem, k the stem and k stages.
        norm_cfg, norm_eval: norm layers; keep batch norms in eval mode while training.
        with_cp: recompute blocks in the backward pass to save memory.
        zero_init_residual: start every block as an identity, as the authors do.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``, or None for He initialisation.

    Shape: ``[N, in_channels, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``.
    Raises: ValueError for a bad argument, and for pictures smaller than the last returned stage's stride.
    """

    arch_settings: ClassVar[dict[int, Variant]] = {
        50: Variant((3, 4, 6, 3), (6, 8, 5, 3)),
        101: Variant((3, 4, 23, 3), (12, 14, 20, 3)),
    }

    def __init__(
        self,
        depth: int,
        elastic: str = "none",
        se_ratio: int | None = None,
        *,
        groups: int = 32,
        base_width: int = 4,
        elastic_cfg: ConfigType | None = None,
        in_channels: int = 3,
        stem_channels: int = 64,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        multi_grid: Sequence[int] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: ConfigType = MappingProxyType(dict(type="BN", requires_grad=True)),
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        init_cfg: InitConfig = None,
    ) -> None:
        check_choice("depth", depth, tuple(self.arch_settings))
        check_choice("elastic", elastic, ("none", "simple", "full"))
        check_choice("num_stages", num_stages, (1, 2, 3, 4))
        self._pretrained = init_cfg is not None
        super().__init__(num_stages, out_indices, frozen_stages, norm_eval, init_cfg or HE_INIT)
        policy = ElasticPolicy(**(elastic_cfg or {}))
        options = BlockOptions(policy, elastic != "none", groups, base_width, se_ratio, norm_cfg, with_cp)
        counts = self.arch_settings[depth].full if elastic == "full" else self.arch_settings[depth].base
        strides = check_per_stage("strides", strides, num_stages)
        dilations = check_per_stage("dilations", dilations, num_stages)
        factors: tuple[int, ...] | None = None
        if multi_grid is not None:
            factors = check_per_stage("multi_grid", multi_grid, counts[num_stages - 1], "block of the last stage")

        self.depth, self.elastic, self.zero_init_residual = depth, elastic, zero_init_residual
        self.conv1 = nn.Conv2d(in_channels, stem_channels, 7, 2, 3, bias=False)
        self.bn1 = build_norm(norm_cfg, stem_channels)
        channels, widths = stem_channels, [base_channels * 2**stage for stage in range(num_stages)]
        for stage, planes in enumerate(widths):
            grid = factors if factors and stage == num_stages - 1 else (1,) * counts[stage]
            blocks = []
            for i, factor in enumerate(grid):
                sizes = (strides[stage] if i == 0 else 1, dilations[stage] * factor)
                blocks.append(ElasticBottleneck(options, channels, planes, *sizes, last_stage=stage == LAST_STAGE))
                channels = planes * EXPANSION
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        strides_so_far = [4 * math.prod(strides[: stage + 1]) for stage in range(num_stages)]
        self.declare_outputs([planes * EXPANSION for planes in widths], strides_so_far)
        self.freeze()

    @property
    def stages(self) -> list[nn.Sequential]:
        return [cast(nn.Sequential, m) for name, m in self.named_children() if name.startswith("layer")]

    def freezable_modules(self) -> list[list[nn.Module]]:
        stem: list[nn.Module] = [self.conv1, self.bn1]
        stages: list[list[nn.Module]] = [[stage] for stage in self.stages]
        return [stem, *stages]

    def init_weights(self) -> None:
        """He initialisation, or what ``init_cfg`` says."""
        super().init_weights()
        if self.zero_init_residual and not self._pretrained:
            for stage in self.stages:
                for block in stage:
                    nn.init.zeros_(cast(Tensor, cast(ElasticBottleneck, block).bn3.weight))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self.check_size(x)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        outputs = []
        for index, stage in enumerate(self.stages[: self.out_indices[-1] + 1]):
            x = stage(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)
