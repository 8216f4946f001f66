"""PS-ResNet, PS-ResNeXt and PS-SE-ResNet: section 4.1 of the PSConv paper (github.com/d-li14/PSConv).

ResNet (He et al., 2016) with PSConv in place of the blocks' 3x3 convolutions; stem and 1x1 layers are plain.
Keys are torchvision's and mmdet's (see ``residual.py``).

1. ``multi_grid`` multiplies the dilation of the last stage, as in DeepLabV3 (section 4.2.1 there); mmseg's replaces the
   dilation.
2. With ``dilation_pattern=(1, 1, 1, 1)`` this is mmdet's ResNet, value for value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from mmms_plugin.arguments import check_choice, check_per_stage
from mmms_plugin.backbones.residual import (
    BasicBlock,
    BlockOptions,
    Bottleneck,
    ResidualNetwork,
    check_num_stages,
    doubling_stages,
)
from mmms_plugin.backbones.staged import dilation_grids
from mmms_plugin.layers.common import BATCH_NORM, HE_INIT, ConfigType, InitConfig
from mmms_plugin.registry import MODELS


@MODELS.register_module()
class PSResNet(ResidualNetwork):
    """ResNet family with poly-scale 3x3 layers, a drop-in for mmdet's, mmseg's and mmpretrain's ResNet(V1c/d), ResNeXt.

    Args:
        depth: 18, 34, 50, 101, 152; or 8, 14, 20, 29, 32, 44, 56, 62, 110, which have 3 stages and are for CIFAR with
            ``small_stem``, all but 29 with ``stem_channels=16, base_channels=16``.
        groups, base_width: cardinality and width of ResNeXt (32 and 4 for 32x4d); depths from 50.
        se_ratio: reduction of squeeze-and-excitation, None for none.
        dilation_pattern, channel_order, axes, extra_dilation1: of every PSConv, see ``PSConv2d``; None for its
            defaults. Published checkpoints need pattern (2, 1, 4, 1), and ``extra_dilation1=True`` with groups.
        conv_cfg: a 3x3 layer in place of PSConv, such as ``dict(type='mmms_plugin.DynamicPSConv')``, with its
            arguments; those of PSConv must then be left out.
        in_channels, stem_channels, base_channels: channels of the image, the stem and the first stage's blocks.
        num_stages, strides, dilations: stages and, for each, the stride and base dilation.
        multi_grid: factors of the dilation for the blocks of the last stage, as many as it has blocks.
        contract_dilation: halve the dilation in the first block of a dilated stage.
        style: 'pytorch' has a bottleneck's stride in its 3x3 layer, 'caffe' in its first 1x1 layer.
        small_stem: a stem of one 3x3 layer without stride or pooling, for pictures of some 32 px.
        deep_stem, avg_down: the stem of three 3x3 layers and pooled shortcuts of ResNet-C and -D.
        out_indices: stages to return, or blocks.
        output: 'stages' returns the maps of stages; 'blocks' those of any blocks, for classifiers inside a stage.
        frozen_stages: -1 none, 0 the stem, k the stem and k stages.
        norm_cfg: norm layers.
        norm_eval: keep batch norms in eval mode while training.
        with_cp: recompute blocks in the backward pass to save memory.
        zero_init_residual: start every block as an identity.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``, or None for He initialisation.

    Shape: ``[N, in_channels, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``.
    Raises: ValueError for a bad argument, and for pictures smaller than the last returned stage's stride.
    """

    arch_settings: ClassVar[dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]]] = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
        29: (Bottleneck, (3, 3, 3)),  # of ResNeXt-29 for CIFAR, Table 6
        # for CIFAR (He et al., 2016, section 4.2)
        **{depth: (BasicBlock, ((depth - 2) // 6,) * 3) for depth in (8, 14, 20, 32, 44, 56, 62, 110)},
    }

    def __init__(
        self,
        depth: int,
        groups: int = 1,
        base_width: int = 64,
        se_ratio: int | None = None,
        *,
        dilation_pattern: Sequence[int] | None = None,
        channel_order: str | None = None,
        axes: str | None = None,
        extra_dilation1: bool | None = None,
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
        small_stem: bool = False,
        deep_stem: bool = False,
        avg_down: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        output: str = "stages",
        frozen_stages: int = -1,
        norm_cfg: ConfigType = BATCH_NORM,
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        init_cfg: InitConfig = None,
    ) -> None:
        check_choice("depth", depth, tuple(self.arch_settings))
        check_num_stages(num_stages, depth, len(self.arch_settings[depth][1]))
        check_choice("style", style, ("pytorch", "caffe"))
        check_choice("output", output, ("stages", "blocks"))
        block, counts = self.arch_settings[depth]
        num_blocks = sum(counts[:num_stages]) if output == "blocks" else None
        super().__init__(
            num_stages, out_indices, frozen_stages, norm_eval, init_cfg, HE_INIT, zero_init_residual, num_blocks
        )
        strides = check_per_stage("strides", strides, num_stages)
        dilations = check_per_stage("dilations", dilations, num_stages)
        self.depth = depth
        grids = dilation_grids(counts[:num_stages], dilations, multi_grid, contract=contract_dilation)
        for_ps_conv = dict(
            dilation_pattern=dilation_pattern, channel_order=channel_order, axes=axes, extra_dilation1=extra_dilation1
        )
        conv_cfg = _conv_cfg(conv_cfg, for_ps_conv)
        options = BlockOptions(norm_cfg, conv_cfg, groups, base_width, se_ratio, style, avg_down, with_cp)
        in_stride = self.build_stem(in_channels, stem_channels, norm_cfg, deep=deep_stem, small=small_stem)
        stages = doubling_stages(base_channels, block.expansion, strides, grids)
        self.build_stages(stages, partial(block, options), stem_channels, in_stride)


def _conv_cfg(conv_cfg: ConfigType | None, for_ps_conv: Mapping[str, Any]) -> ConfigType:
    """The config of the 3x3 layers; ValueError if both another layer and arguments of PSConv are given."""
    given = {name: value for name, value in for_ps_conv.items() if value is not None}
    if not conv_cfg:
        return dict(type="mmms_plugin.PSConv", **given)
    if given:
        arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(
            f"{arguments}: must not be given beside conv_cfg={dict(conv_cfg)!r}; write "
            f"conv_cfg=dict(type={conv_cfg.get('type')!r}, {arguments}) if that layer takes it, else leave it out"
        )
    return conv_cfg
