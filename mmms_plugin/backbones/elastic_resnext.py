"""ResNeXt and SE-ResNeXt with Elastic: section 3.3, Figure 3 left, Table 10 of the ELASTIC paper.

Source: github.com/allenai/elastic. Every bottleneck is two half-width paths that are summed before one batch norm; with
Elastic on, the second runs at half resolution. It is on where the stride is 1, but never in the fourth stage.
Keys are torchvision's outside the paths, ``layer1.0.paths.high.conv1.weight`` and ``layer1.0.paths.low...`` inside.

1. ``elastic_cfg`` sets the paths' shares, ratios and resampling: Tables 6 and 7 for ResNeXt.
2. ``multi_grid`` multiplies the dilation of the last stage, in the paper's segmentation models a dilation of 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from mmms_plugin.arguments import check_choice, check_per_stage
from mmms_plugin.backbones.residual import (
    BlockOptions,
    ResidualBlock,
    ResidualNetwork,
    check_num_stages,
    doubling_stages,
)
from mmms_plugin.backbones.staged import Place, dilation_grids
from mmms_plugin.layers import ElasticPolicy, elastic_bottleneck
from mmms_plugin.layers.common import BATCH_NORM, HE_INIT, ConfigType, InitConfig
from mmms_plugin.registry import MODELS

EXPANSION = 4
LAST_STAGE = 3  # never lowers the resolution; in a classifier it has stride 32


class Variant(NamedTuple):
    """Blocks of each stage: without Elastic and with sElastic (Appendix A); with Elastic (Appendix B)."""

    base: tuple[int, ...]
    full: tuple[int, ...]


@dataclass(frozen=True)
class ElasticOptions:
    """How the bottlenecks of a network are divided; ``lowers=False`` keeps all paths at full resolution."""

    policy: ElasticPolicy
    lowers: bool


class ElasticBottleneck(ResidualBlock):
    """Summed paths, norm and gate."""

    def __init__(self, options: BlockOptions, elastic: ElasticOptions, place: Place) -> None:
        super().__init__(options, place)
        width, stride = place.width * options.base_width // 64 * options.groups, self.branch_stride
        self.paths = elastic_bottleneck(
            elastic.policy,
            place.in_channels,
            width,
            place.out_channels,
            stride=stride,
            dilation=place.dilation,
            groups=options.groups,
            lower=elastic.lowers and stride == 1 and place.stage != LAST_STAGE,
            norm=options.norm,
        )
        self.bn3 = options.norm(place.out_channels)
        self.se = options.gate(place.out_channels)
        self.add_shortcut(options, place)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3

    def branch(self, x: Tensor) -> Tensor:
        gated: Tensor = self.se(self.bn3(self.paths(x)))
        return gated


@MODELS.register_module()
class ElasticResNeXt(ResidualNetwork):
    """ResNeXt-50 and -101, their SE form, and both with Elastic.

    Args:
        depth: 50, 101; or 29, which has 3 stages and is for CIFAR with ``small_stem``.
        elastic: 'none', the authors' two-path baseline, which is equivalent to a plain ResNeXt; 'simple', sElastic,
            with the baseline's blocks and parameters; 'full', with the blocks that match its multiply-adds.
        se_ratio: reduction of squeeze-and-excitation (16 for SE-ResNeXt), None for none.
        groups, base_width: cardinality and width of both paths together; 64 groups are ResNeXt50x2+Elastic.
        elastic_cfg: arguments of ``ElasticPolicy``: ratios, shares, method, pool.
        in_channels, stem_channels, base_channels: channels of the image, the stem and the first stage's blocks.
        num_stages, strides, dilations: stages and, for each, the stride and base dilation.
        multi_grid: factors of the dilation for the blocks of the last stage, as many as it has blocks.
        small_stem: a stem of one 3x3 layer without stride or pooling, for pictures of some 32 px.
        out_indices: stages to return.
        frozen_stages: -1 none, 0 the stem, k the stem and k stages.
        norm_cfg: norm layers.
        norm_eval: keep batch norms in eval mode while training.
        with_cp: recompute blocks in the backward pass to save memory.
        zero_init_residual: start every block as an identity, as the authors do.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``, or None for He initialisation.

    Shape: ``[N, in_channels, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``.
    Raises: ValueError for a bad argument, and for pictures smaller than the last returned stage's stride.
    """

    arch_settings: ClassVar[dict[int, Variant]] = {
        50: Variant((3, 4, 6, 3), (6, 8, 5, 3)),
        101: Variant((3, 4, 23, 3), (12, 14, 20, 3)),
        29: Variant((3, 3, 3), (3, 3, 3)),  # of ResNeXt-29 for CIFAR; the paper has no such network
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
        small_stem: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: ConfigType = BATCH_NORM,
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        init_cfg: InitConfig = None,
    ) -> None:
        check_choice("depth", depth, tuple(self.arch_settings))
        check_choice("elastic", elastic, ("none", "simple", "full"))
        check_num_stages(num_stages, depth, len(self.arch_settings[depth].base))
        super().__init__(
            num_stages, out_indices, frozen_stages, norm_eval, init_cfg, HE_INIT, zero_init_residual=zero_init_residual
        )
        strides = check_per_stage("strides", strides, num_stages)
        dilations = check_per_stage("dilations", dilations, num_stages)
        self.depth, self.elastic = depth, elastic
        counts = self.arch_settings[depth].full if elastic == "full" else self.arch_settings[depth].base
        grids = dilation_grids(counts[:num_stages], dilations, multi_grid)
        elastic_options = ElasticOptions(ElasticPolicy(**(elastic_cfg or {})), elastic != "none")
        options = BlockOptions(norm_cfg, groups=groups, base_width=base_width, se_ratio=se_ratio, with_cp=with_cp)
        in_stride = self.build_stem(in_channels, stem_channels, norm_cfg, small=small_stem)
        stages = doubling_stages(base_channels, EXPANSION, strides, grids)
        self.build_stages(stages, partial(ElasticBottleneck, options, elastic_options), stem_channels, in_stride)
