"""ResNet whose shape is learned: Shape Adaptor (Liu et al., ECCV 2020).

A block with an adaptor keeps the size in its branch and halves it in its 1x1 shortcut; the adaptor averages the two at
a learned size, doubled, where a plain block adds. Keys are torchvision's; an adaptor adds ``layer2.0.resize.alpha`` or
``stem_adaptors.0.alpha``. Weights of a plain ResNet load, and leave the shape as designed (``mode='autotl'``).

1. In AutoTL, adaptors replace the stem's stride and its pooling; both average 2x2 max-pooling and the identity, so that
   the stem's 7x7 layer runs at full resolution, as in the published model.
2. Two stems are there only for networks of the authors' code at up to 64 px. 'imagenet_3x3': their AutoTL has a 3x3
   layer. 'imagenet_unpooled': their AutoSC at 64 px has the 7x7 layer of stride 2 without the pooling, and its sizes
   do not count that stride, so that the first adaptor enlarges the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice, check_per_stage
from mmms_plugin.backbones.residual import BlockOptions, Bottleneck, ResidualNetwork, doubling_stages
from mmms_plugin.backbones.shape_plan import (
    SMALL,
    Cell,
    ShapedNetwork,
    ShapeOptions,
    ShapePlan,
    design_side,
    place_adaptors,
)
from mmms_plugin.backbones.staged import Place, Resizing, dilation_grids
from mmms_plugin.layers.common import BATCH_NORM, HE_INIT, ConfigType, InitConfig
from mmms_plugin.layers.shape_adaptor import ShapeAdaptor
from mmms_plugin.registry import MODELS


class Stem(NamedTuple):
    """A stem as designed: side of its kernel, stride, whether a pooling follows, and ``Cell.counted``."""

    kernel: int = 7
    stride: int = 2
    pooled: bool = True
    counted: bool = True

    def cells(self, mode: str) -> list[Cell]:
        """Its cells: the layer, and the pooling, for which there is no place in mode 'standard'."""
        pooling = [Cell("maxpool", 2, False)] if self.pooled and mode != "standard" else []
        return [Cell("conv1", self.stride, False, counted=self.counted), *pooling]


STEMS = {
    "imagenet": Stem(),
    "cifar": Stem(kernel=3, stride=1, pooled=False),
    "imagenet_3x3": Stem(kernel=3),
    "imagenet_unpooled": Stem(pooled=False, counted=False),
}


@MODELS.register_module()
class ShapeAdaptorResNet(ShapedNetwork, ResidualNetwork):
    """ResNet with shape adaptors.

    Args:
        depth: 50, 101 or 152.
        mode: 'standard' (adaptors are the only resizing), 'autosc' (they compress), 'autotl' (they replace every
            stride, for fine-tuning), 'human' (strides as designed, no adaptor).
        stem: 'imagenet' (7x7, and with strides also a pooling), 'cifar' (3x3 without stride), 'imagenet_3x3' or
            'imagenet_unpooled' (see above).
        design_size: side in px of the pictures that the network is designed for; sets number and start of the adaptors
            in 'standard', and their number in 'autosc': 4 above 64, 2 otherwise. None for 224, with ``stem='cifar'``
            32.
        num_adaptors: number of adaptors for 'standard' and 'autosc'; None for the published one.
        initial_scale: s of every adaptor before training, between 0.5 and 1, or a sequence with s of each; None for
            0.95 in 'autosc', 0.55 in 'autotl', and in 'standard' the one that leads from ``design_size`` to
            ``output_dim``.
        output_dim: for 'standard', side in px of the last map before training; None for 8. Where s would have to be 0.5
            or less, it starts just above 0.5.
        limit_side: bound in px for the side of the last map, which bounds the memory; None for none.
        fixed_shape: make the shape constant, that of the loaded weights, for use and export after training.
        resize_outputs: return maps at the nominal ``out_strides``, as FPN and other multi-scale heads need them, at the
            cost of one bilinear resizing per map. With False maps keep their learned size, for classifiers and
            DeepLabV3.
        in_channels, base_channels: channels of the image, and of the stem and the first stage's blocks.
        strides, dilations, multi_grid: of the human design, as in ``PSResNet``.
        out_indices, frozen_stages, norm_cfg, norm_eval, with_cp, zero_init_residual, init_cfg: as in ``PSResNet``.

    Shape: ``[N, in_channels, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``; with
        ``resize_outputs=False`` of any learned size.
    Raises: ValueError for a bad argument, a memory bound that cannot be met, and for too small pictures.
    """

    arch_settings: ClassVar[dict[int, tuple[int, ...]]] = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

    def __init__(
        self,
        depth: int = 50,
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
        base_channels: int = 64,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        multi_grid: Sequence[int] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: ConfigType = BATCH_NORM,
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        init_cfg: InitConfig = None,
    ) -> None:
        check_choice("depth", depth, tuple(self.arch_settings))
        check_choice("stem", stem, tuple(STEMS))
        strides = check_per_stage("strides", strides, 4)
        dilations = check_per_stage("dilations", dilations, 4)
        side = design_side(design_size, stem)
        shape = ShapeOptions(mode, side, num_adaptors, limit_side, fixed_shape, initial_scale, output_dim)
        super().__init__(4, out_indices, frozen_stages, norm_eval, init_cfg, HE_INIT, zero_init_residual)
        counts = self.arch_settings[depth]
        self.resize_outputs, design = resize_outputs, STEMS[stem]
        cells = design.cells(mode) + [
            Cell(f"layer{s + 1}.{b}", strides[s] if b == 0 else 1, b > 0) for s in range(4) for b in range(counts[s])
        ]
        scales = place_adaptors(cells, shape, published=2 if side <= SMALL else 4)
        self.first_block = len(cells) - sum(counts)
        stem_places = [i for i in scales if i < self.first_block]
        self.stem_adaptors = nn.ModuleList(ShapeAdaptor(scales[i]) for i in stem_places)
        in_blocks = {i: ShapeAdaptor(scale, doubled=True) for i, scale in scales.items() if i >= self.first_block}
        adaptors = {**dict(zip(stem_places, self._stem_list(), strict=True)), **in_blocks}
        self.plan = ShapePlan(cells, adaptors, shape)
        self.build_stem(in_channels, base_channels, norm_cfg, small=design.kernel == 3)
        self.conv1.stride = (self.plan.stride(0), self.plan.stride(0))
        firsts = [self.first_block + sum(counts[:s]) for s in range(4)]

        def resizing(place: Place) -> Resizing | None:
            adaptor = in_blocks.get(firsts[place.stage] + place.block)
            return None if adaptor is None else Resizing(adaptor, 2)

        options = BlockOptions(norm_cfg, with_cp=with_cp, resizing=resizing)
        built = [self.plan.stride(first) if first not in in_blocks else strides[s] for s, first in enumerate(firsts)]
        stages = doubling_stages(
            base_channels, Bottleneck.expansion, built, dilation_grids(counts, dilations, multi_grid)
        )
        self.build_stages(stages, partial(Bottleneck, options), base_channels, in_stride=1)
        nominal = [design.stride * (1 + design.pooled) * math.prod(strides[: s + 1]) for s in range(4)]
        self.declare_outputs([stage.out_channels for stage in stages], nominal)

    def _stem_list(self) -> list[ShapeAdaptor]:
        return [adaptor for adaptor in self.stem_adaptors if isinstance(adaptor, ShapeAdaptor)]

    def stem_modules(self) -> list[nn.Module]:
        """As ``Backbone``."""
        return [self.conv1, self.bn1, self.stem_adaptors]

    def forward_stem(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` to the input of the first block."""
        reshapes = self.plan.reshapes(x.shape[-2], x.shape[-1])
        x = F.relu(self.bn1(self.conv1(x)))
        for index in range(self.first_block):
            if (adaptor := self.plan.adaptors.get(index)) is not None:
                x = adaptor(self.plan.pool(x), x, reshapes[index])
            elif self.plan.cells[index].name == "maxpool":
                x = F.max_pool2d(x, 3, 2, 1)
        return x
