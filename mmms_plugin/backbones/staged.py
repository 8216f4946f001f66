"""A network of stages of blocks, and how a learned resizing layer replaces a block's stride.

``StagedNetwork`` builds the stages from a list of ``Stage`` and a function that makes the block for a ``Place``.
A stage of 3 blocks with stride 2, dilation 2 and ``multi_grid=(1, 2, 4)`` has strides 2, 1, 1 and dilations 2, 4, 8.

A learned resizing layer (Shape Adaptor) combines a small and a full-size version of one map, so it needs both branches
of a block, not only the convolution whose stride it replaces. A block therefore asks a ``ResizingFactory`` about its
place. If the answer is None, the block keeps its stride. If it is a ``Resizing``, the block's layers have stride 1, and
- a residual block computes ``layer(shortcut(x), branch(x), size)``, where only the shortcut has ``Resizing.stride``;
- a plain block (VGG) computes ``layer(pool(x), x, size)`` in place of its max-pooling ``pool(x)``;
- an inverted residual block (MobileNetV2) has stride 1 in its depthwise layer, and resizes its output in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from torch import Tensor, nn

from mmms_plugin.arguments import check_per_stage
from mmms_plugin.backbones.base import Backbone
from mmms_plugin.layers.common import InitConfig


@dataclass(frozen=True)
class Stage:
    """The plan of a stage.

    Args:
        width: channels that the blocks are designed for, such as a bottleneck's before its expansion.
        out_channels: channels of the stage's output.
        stride: stride of the first block.
        dilations: dilation of every block, so also the number of blocks.
    """

    width: int
    out_channels: int
    stride: int
    dilations: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """A block's place and sizes: ``[N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]``.

    Args:
        stage: number of the stage, from 0.
        block: number of the block in its stage, from 0.
        in_channels: of the block.
        width: as in ``Stage``.
        out_channels: of the block.
        stride: of the block.
        dilation: of the block's 3x3 layers.
    """

    stage: int
    block: int
    in_channels: int
    width: int
    out_channels: int
    stride: int
    dilation: int


class Resizing(NamedTuple):
    """A learned layer that replaces a stride.

    Args:
        layer: ``layer(small, full, size)`` combines ``[N, C, h, w]`` and ``[N, C, H, W]`` to the height and width of
            ``size``, a ``Reshape``, or None to let the layer choose it.
        stride: of the small map, relative to the full-size one.
    """

    layer: nn.Module
    stride: int


ResizingFactory = Callable[[Place], Resizing | None]
MakeBlock = Callable[[Place], nn.Module]


def no_resizing(place: Place) -> Resizing | None:
    """Every block keeps its stride."""
    return None


def dilation_grids(
    counts: Sequence[int],
    dilations: Sequence[int],
    multi_grid: Sequence[int] | None = None,
    *,
    unit: str = "block of the last stage",
    contract: bool = False,
) -> list[tuple[int, ...]]:
    """The dilation of every block of every stage.

    Args:
        counts: blocks of each stage.
        dilations: base dilation of each stage.
        multi_grid: factors of the dilation for the blocks of the last stage, as many as it has blocks.
        unit: what each factor belongs to, for the error message.
        contract: halve the dilation in the first block of a stage, as mmdet's and mmseg's ``contract_dilation``.

    Raises: ValueError for another number of factors, and for factors that are not integers >= 1.
    """
    grids = []
    for dilation, count in zip(dilations, counts, strict=True):
        first = max(1, dilation // 2) if contract else dilation
        grids.append((first, *[dilation] * (count - 1)))
    if multi_grid is not None:
        factors = check_per_stage("multi_grid", multi_grid, counts[-1], unit)
        grids[-1] = tuple(dilations[-1] * factor for factor in factors)
    return grids


def places(index: int, stage: Stage, in_channels: int) -> list[Place]:
    """The places of stage number ``index``, whose input has ``in_channels`` channels."""
    return [
        Place(
            stage=index,
            block=i,
            in_channels=in_channels if i == 0 else stage.out_channels,
            width=stage.width,
            out_channels=stage.out_channels,
            stride=stage.stride if i == 0 else 1,
            dilation=dilation,
        )
        for i, dilation in enumerate(stage.dilations)
    ]


class StagedNetwork(Backbone):
    """A backbone whose stages are sequences of blocks.

    A subclass builds its stem, calls ``build_stages`` and defines ``forward_stem`` and ``stem_modules``. It overrides
    ``add_stage`` and ``stages`` for other names than ``layer1``, ``layer2``, ..., and ``advance`` where it chooses the
    sizes of resizing layers: ``block(x, size)``.

    Args:
        num_stages, out_indices, frozen_stages, norm_eval, init_cfg: as for ``Backbone``.
        default_init: initial weights if ``init_cfg`` is None.
        zero_init_residual: start blocks that have a ``last_norm`` as identities, unless ``init_cfg`` is given.
        num_blocks: of all stages, where ``out_indices`` choose among the blocks; None where among the stages.
    """

    def __init__(
        self,
        num_stages: int,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: InitConfig,
        default_init: InitConfig,
        zero_init_residual: bool = False,
        num_blocks: int | None = None,
    ) -> None:
        super().__init__(num_stages, out_indices, frozen_stages, norm_eval, init_cfg or default_init, num_blocks)
        self.by_block = num_blocks is not None
        self.zero_init_residual = zero_init_residual
        self._zeroes_last_norms = zero_init_residual and init_cfg is None

    def build_stages(self, stages: Sequence[Stage], make_block: MakeBlock, in_channels: int, in_stride: int) -> None:
        """Build and register all stages, declare the outputs and freeze the ``frozen_stages``.

        Args:
            stages: their plans.
            make_block: makes the block for a place.
            in_channels: of the stem's output.
            in_stride: of the stem's output.
        """
        channels: list[int] = []
        strides: list[int] = []
        stride = in_stride
        for index, stage in enumerate(stages):
            blocks = [make_block(place) for place in places(index, stage, in_channels)]
            self.add_stage(index, blocks)
            in_channels, stride = stage.out_channels, stride * stage.stride
            outputs = len(blocks) if self.by_block else 1
            channels += [in_channels] * outputs
            strides += [stride] * outputs
        self.declare_outputs(channels, strides)
        self.freeze()

    def advance(self, maps: list[Tensor], index: int) -> list[Tensor]:
        """As ``Backbone``, where the outputs are the blocks' too."""
        if not self.by_block:
            return super().advance(maps, index)
        blocks, x = [block for stage in self.stages for block in stage], maps[-1]
        for block in blocks[self.stages_to(index)]:
            x = block(x)
        return [x]

    def add_stage(self, index: int, blocks: list[nn.Module]) -> None:
        """Register a stage."""
        self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))

    @property
    def stages(self) -> list[nn.Sequential]:
        """The registered stages."""
        return [cast(nn.Sequential, m) for name, m in self.named_children() if name.startswith("layer")]

    def stage_modules(self) -> list[list[nn.Module]]:
        """As ``Backbone``: every stage is one sequence."""
        return [[stage] for stage in self.stages]

    def init_weights(self) -> None:
        """Apply ``init_cfg``; by default every residual block then starts as an identity."""
        super().init_weights()
        if self._zeroes_last_norms:
            for stage in self.stages:
                for block in stage:
                    if isinstance(norm := getattr(block, "last_norm", None), nn.Module):
                        nn.init.zeros_(cast(Tensor, norm.weight))
