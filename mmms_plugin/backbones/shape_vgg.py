"""VGG whose shape is learned: Shape Adaptor (Liu et al., ECCV 2020).

A row of 3x3 layers, each with batch norm and ReLU. Where there is an adaptor, it averages the 2x2 max-pooled map and
the map itself at a learned size. Keys: ``layer1.0.conv.weight``, ``layer1.0.norm.weight``, ``layer1.0.resize.alpha``.

1. The last pooling is there only in networks for pictures above 64 px; as designed ('human') poolings round odd sides
   down and in 'autosc' up, as in the published networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.backbones.base import run_block
from mmms_plugin.backbones.shape_plan import SMALL, Cell, ShapedNetwork, ShapeOptions, ShapePlan, place_adaptors
from mmms_plugin.layers.common import BATCH_NORM, HE_INIT, ConfigType, InitConfig, build_norm
from mmms_plugin.layers.shape_adaptor import Reshape, ShapeAdaptor
from mmms_plugin.registry import MODELS


class ConvCell(nn.Module):
    """3x3 layer, batch norm, ReLU, then an adaptor, a 2x2 max-pooling or nothing.

    ``[N, in_channels, H, W]`` to ``[N, channels, H, W]``, resized by what follows.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        norm_cfg: ConfigType,
        plan: ShapePlan,
        index: int,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm = build_norm(norm_cfg, channels)
        self.resize = plan.adaptors.get(index)
        self.pools, self.plan, self.with_cp = plan.stride(index) > 1, plan, with_cp

    def forward(self, x: Tensor, reshape: Reshape | None = None) -> Tensor:
        return run_block(self, partial(self._forward, reshape=reshape), x)

    def _forward(self, x: Tensor, reshape: Reshape | None) -> Tensor:
        y: Tensor = F.relu(self.norm(self.conv(x)))
        if self.resize is not None:
            resized: Tensor = self.resize(self.plan.pool(y), y, reshape)
            return resized
        return self.plan.pool(y) if self.pools else y


@MODELS.register_module()
class ShapeAdaptorVGG(ShapedNetwork):
    """VGG with batch norm and shape adaptors.

    Args:
        depth: 16.
        mode, num_adaptors, initial_scale, output_dim, limit_side, fixed_shape, resize_outputs: as in
            ``ShapeAdaptorResNet``.
        design_size: side in px of the pictures that the network is designed for; above 64 the last stage has a pooling,
            too, and 'autosc' has 4 adaptors from 64 on, 2 below.
        in_channels: channels of the image.
        out_indices: stages to return, by default the last.
        frozen_stages: -1 and 0 none (there is no stem), k the first k stages.
        norm_cfg, norm_eval, with_cp, init_cfg: as in ``PSResNet``.

    Shape: ``[N, in_channels, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``; with
        ``resize_outputs=False`` of any learned size. The nominal strides are 2, 4, 8, 16 and 32: a stage ends with its
        pooling; up to ``design_size=64`` the last has none, and a stride of 16.
    Raises: ValueError for a bad argument, a memory bound that cannot be met, and for too small pictures.
    """

    arch_settings: ClassVar[dict[int, tuple[tuple[int, int], ...]]] = {
        16: ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
    }

    def __init__(
        self,
        depth: int = 16,
        mode: str = "standard",
        *,
        design_size: int = 224,
        num_adaptors: int | None = None,
        initial_scale: float | Sequence[float] | None = None,
        output_dim: float | None = None,
        limit_side: float | None = None,
        fixed_shape: bool = False,
        resize_outputs: bool = True,
        in_channels: int = 3,
        out_indices: Sequence[int] = (4,),
        frozen_stages: int = -1,
        norm_cfg: ConfigType = BATCH_NORM,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitConfig = None,
    ) -> None:
        check_choice("depth", depth, tuple(self.arch_settings))
        stages = self.arch_settings[depth]
        shape = ShapeOptions(mode, design_size, num_adaptors, limit_side, fixed_shape, initial_scale, output_dim)
        super().__init__(len(stages), out_indices, frozen_stages, norm_eval, init_cfg or HE_INIT)
        self.resize_outputs, self.first_block = resize_outputs, 0
        pooled = len(stages) - (design_size <= SMALL)  # so many stages end with a pooling
        cells = [
            Cell(
                f"layer{s + 1}.{i}",
                stride=2 if i == count - 1 and s < pooled else 1,
                compressible=(s, i) != (len(stages) - 1, count - 1),
                rounds_up=mode != "human",
            )
            for s, (count, _) in enumerate(stages)
            for i in range(count)
        ]
        scales = place_adaptors(cells, shape, published=2 if design_size < SMALL else 4)
        self.plan = ShapePlan(cells, {i: ShapeAdaptor(scale) for i, scale in scales.items()}, shape)
        index, channels = 0, in_channels
        for number, (count, width) in enumerate(stages):
            row = []
            for _ in range(count):
                row.append(ConvCell(channels, width, norm_cfg, self.plan, index, with_cp))
                index, channels = index + 1, width
            self.add_module(f"layer{number + 1}", nn.Sequential(*row))
        strides = [2 ** min(s + 1, pooled) for s in range(len(stages))]
        self.declare_outputs([width for _, width in stages], strides)
        self.freeze()

    def stem_modules(self) -> list[nn.Module]:
        """As ``Backbone``: VGG has no stem."""
        return []

    def stage_modules(self) -> list[list[nn.Module]]:
        """As ``Backbone``."""
        return [[module] for name, module in self.named_children() if name.startswith("layer")]

    def forward_stem(self, x: Tensor) -> Tensor:
        """The image itself."""
        return x
