"""MSDNet: Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification", ICLR 2018.

Source: github.com/kalviny/MSDNet-PyTorch. Every layer keeps a map at each of several scales (section 4, Figure 2). Two
convolutions compute its addition to a scale: one from the scale's own map, one with stride 2 from the next finer map.
After every block a classifier may read the coarsest map (``heads/multi_exit_head.py``). The finest scale is dropped as
soon as no later classifier needs it; a 1x1 convolution then halves the channels of the others ("network reduction").

1. In the published ImageNet networks the first classifier follows after as many layers as lie between two others; the
   paper's text counts three more.
2. As a backbone for detection it returns the last map of every scale (``output='scales'``), which the paper does not
   use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice, is_integer
from mmms_plugin.backbones.base import Backbone, run_block
from mmms_plugin.layers.common import BATCH_NORM, HE_INIT, ConfigType, InitConfig, build_norm
from mmms_plugin.registry import MODELS


class Variant(NamedTuple):
    """One setting of the network.

    Attributes:
        blocks: layers of each block; a classifier follows each block.
        stem: channels of the finest scale's first map.
        growth: new channels of a layer at the finest scale.
        factors: of ``stem`` and ``growth``, for each scale.
        bottlenecks: width of the 1x1 layers as a multiple of the new channels, for each scale.
        large_pictures: whether the stem has stride 4, as for ImageNet, or 1, as for CIFAR.
    """

    blocks: tuple[int, ...]
    stem: int
    growth: int
    factors: tuple[int, ...]
    bottlenecks: tuple[int, ...]
    large_pictures: bool

    def scales_after(self, layer: int) -> int:
        """Number of scales that remain after ``layer`` layers; the finest are dropped first."""
        interval = math.ceil(sum(self.blocks) / len(self.factors))
        return len(self.factors) - max(0, layer - 1) // interval


class ConvNorm(nn.Module):
    """Convolution without bias, norm, ReLU; ``[N, C, H, W] -> [N, channels, ceil(H / stride), ceil(W / stride)]``."""

    def __init__(
        self, norm_cfg: ConfigType, in_channels: int, channels: int, kernel: int, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=bias)
        self.norm = build_norm(norm_cfg, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class Stem(nn.Module):
    """The first layer: from a picture to a map for each scale, each half as high and wide as the map before."""

    def __init__(self, variant: Variant, norm_cfg: ConfigType, in_channels: int) -> None:
        super().__init__()
        widths = [variant.stem * factor for factor in variant.factors]
        kernel, stride = (7, 2) if variant.large_pictures else (3, 1)
        first = ConvNorm(norm_cfg, in_channels, widths[0], kernel, stride, bias=variant.large_pictures)
        coarser = (ConvNorm(norm_cfg, widths[s - 1], widths[s], 3, 2) for s in range(1, len(widths)))
        self.scales = nn.ModuleList([first, *coarser])
        self.pool = nn.MaxPool2d(3, 2, 1) if variant.large_pictures else nn.Identity()

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.pool(self.scales[0](x))]
        for conv in self.scales[1:]:
            maps.append(conv(maps[-1]))
        return maps


class ScaleLayer(nn.Module):
    """A layer at one scale: ``[N, C, H, W]``, and the next finer map, to ``[N, C + growth, H, W]``.

    Args:
        finer: channels and bottleneck of the next finer map, or None at the finest scale of the network.
    """

    def __init__(
        self,
        norm_cfg: ConfigType,
        in_channels: int,
        growth: int,
        bottleneck: int,
        finer: tuple[int, int] | None,
        with_cp: bool,
    ) -> None:
        super().__init__()
        added = growth if finer is None else growth // 2
        self.down = None if finer is None else _two_convs(norm_cfg, finer[0], added, finer[1], stride=2)
        self.same = _two_convs(norm_cfg, in_channels, added, bottleneck)
        self.with_cp = with_cp

    def forward(self, x: Tensor, finer: Tensor | None) -> Tensor:
        return run_block(self, self._append, (x, finer))

    def _append(self, maps: tuple[Tensor, Tensor | None]) -> Tensor:
        x, finer = maps
        new = [self.same(x)] if self.down is None else [self.down(finer), self.same(x)]
        return torch.cat([x, *new], 1)


def _two_convs(norm_cfg: ConfigType, in_channels: int, channels: int, bottleneck: int, stride: int = 1) -> nn.Module:
    """1x1 layer to ``bottleneck`` times the new channels, at most as many as it gets; 3x3 layer with the stride."""
    width = min(in_channels, bottleneck * channels)
    return nn.Sequential(
        ConvNorm(norm_cfg, in_channels, width, 1),
        ConvNorm(norm_cfg, width, channels, 3, stride),
    )


class MultiScaleLayer(nn.Module):
    """A layer at every scale; with ``drop`` the finest map is the input of the next scale and ends there."""

    def __init__(self, scales: Sequence[ScaleLayer], drop: bool) -> None:
        super().__init__()
        self.scales, self.drop = nn.ModuleList(scales), drop

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        finer: list[Tensor | None] = [*maps] if self.drop else [None, *maps]
        kept = maps[1:] if self.drop else maps
        return [scale(x, f) for scale, x, f in zip(self.scales, kept, finer, strict=False)]


class Transition(nn.Module):
    """A 1x1 layer at every scale, to half the channels."""

    def __init__(self, norm_cfg: ConfigType, channels: Sequence[int], reduced: Sequence[int]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(ConvNorm(norm_cfg, c, r, 1) for c, r in zip(channels, reduced, strict=True))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [scale(x) for scale, x in zip(self.scales, maps, strict=True)]


@MODELS.register_module()
class MSDNet(Backbone):
    """Multi-Scale DenseNet.

    Args:
        arch: a name of ``arch_settings``, or a dictionary of the fields of ``Variant``.
        output: 'scales' returns the last map of every scale, finest first (strides 4 to 32 for ImageNet's), for
            detectors; 'exits' returns the coarsest map after each block, for classifiers.
        in_channels: channels of the image.
        out_indices: scales, or exits, to return; None is all.
        frozen_stages: -1 none, 0 the stem, k the stem and k blocks.
        norm_cfg: norm layers.
        norm_eval: keep batch norms in eval mode while training.
        with_cp: recompute layers in the backward pass; memory then grows with their number, not with its square.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``, or None for He initialisation.

    Shape: ``[N, in_channels, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``.
    Raises: ValueError for a bad argument, and for pictures smaller than the stride of the coarsest scale.
    """

    arch_settings: ClassVar[dict[str, Variant]] = {
        "imagenet_step4": Variant((4,) * 5, 32, 16, (1, 2, 4, 4), (1, 2, 4, 4), True),
        "imagenet_step6": Variant((6,) * 5, 32, 16, (1, 2, 4, 4), (1, 2, 4, 4), True),
        "imagenet_step7": Variant((7,) * 5, 32, 16, (1, 2, 4, 4), (1, 2, 4, 4), True),
        "cifar_anytime": Variant((4, 2, 2, 2, 2, 2, 2), 16, 6, (1, 2, 4), (1, 2, 4), False),
        "cifar_budgeted": Variant((1, 2, 3, 4, 5), 16, 6, (1, 2, 4), (1, 2, 4), False),
    }

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        *,
        output: str = "scales",
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_cfg: ConfigType = BATCH_NORM,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitConfig = None,
    ) -> None:
        variant = self._variant(arch)
        check_choice("output", output, ("scales", "exits"))
        blocks, scales = len(variant.blocks), len(variant.factors)
        outputs = scales if output == "scales" else blocks
        chosen = tuple(range(outputs)) if out_indices is None else out_indices
        super().__init__(blocks, chosen, frozen_stages, norm_eval, init_cfg or HE_INIT, num_outputs=outputs)
        self.arch, self.output, self.variant = arch, output, variant
        self.norm_cfg, self.with_cp = dict(norm_cfg), with_cp
        self.stem = Stem(variant, norm_cfg, in_channels)
        finest = 4 if variant.large_pictures else 1
        strides = [finest * 2**scale for scale in range(scales)]
        widths = [variant.stem * factor for factor in variant.factors]
        last_of_scale: list[int] = []
        last_of_block: list[int] = []
        ends = list(accumulate(variant.blocks))
        self.blocks = nn.ModuleList()
        for end, count in zip(ends, variant.blocks, strict=True):
            modules: list[nn.Module] = []
            for layer in range(end - count + 1, end + 1):
                dropped = len(widths) - variant.scales_after(layer)
                last_of_scale += widths[:dropped]
                added, widths = self._layer(widths, drop=bool(dropped))
                modules += added
            self.blocks.append(nn.Sequential(*modules))
            last_of_block.append(widths[-1])
        last_of_scale += widths
        if output == "scales":
            self.declare_outputs(last_of_scale, strides)
        else:
            self.declare_outputs(last_of_block, strides[-1:] * blocks)
        self.freeze()

    def _variant(self, arch: str | Mapping[str, Any]) -> Variant:
        if isinstance(arch, str):
            check_choice("arch", arch, tuple(self.arch_settings))
            return self.arch_settings[arch]
        if not isinstance(arch, Mapping) or set(arch) != set(Variant._fields):
            names = ", ".join(self.arch_settings)
            raise ValueError(f"arch={arch!r}: allowed are {names}, or a dictionary of {', '.join(Variant._fields)}")
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, Sequence) else v for key, v in arch.items()}
        variant = Variant(**fields)
        rows = (variant.blocks, variant.factors, variant.bottlenecks)
        numbers = [variant.stem, variant.growth, *(n for row in rows if isinstance(row, tuple) for n in row)]
        if not all(row and isinstance(row, tuple) for row in rows) or not all(is_integer(n, 1) for n in numbers):
            raise ValueError(f"arch={arch!r}: allowed are integers >= 1, of blocks, factors and bottlenecks a sequence")
        if len(variant.factors) != len(variant.bottlenecks):
            raise ValueError(f"arch={arch!r}: allowed are as many bottlenecks as factors")
        if any(variant.growth * factor % 2 for factor in variant.factors[1:]):
            raise ValueError(f"arch={arch!r}: growth times factor must be even at all scales but the finest")
        if len(variant.factors) > sum(variant.blocks):
            raise ValueError(f"arch={arch!r}: allowed are at most as many scales as layers")
        return variant

    def _layer(self, widths: list[int], drop: bool) -> tuple[list[nn.Module], list[int]]:
        """A layer for maps of ``widths`` channels, with a transition if ``drop`` ends the finest; the new widths."""
        variant, first = self.variant, len(self.variant.factors) - len(widths)
        scales, grown = [], []
        for i in range(int(drop), len(widths)):
            scale = first + i
            finer = (widths[i - 1], variant.bottlenecks[scale - 1]) if i else None
            growth = variant.growth * variant.factors[scale]
            bottleneck = variant.bottlenecks[scale]
            scales.append(ScaleLayer(self.norm_cfg, widths[i], growth, bottleneck, finer, self.with_cp))
            grown.append(widths[i] + growth)
        modules: list[nn.Module] = [MultiScaleLayer(scales, drop)]
        if drop:
            factors = variant.factors[-len(grown) :]
            halved = [width // factor // 2 * factor for width, factor in zip(grown, factors, strict=True)]
            modules.append(Transition(self.norm_cfg, grown, halved))
            grown = halved
        return modules, grown

    def stem_modules(self) -> list[nn.Module]:
        """As ``Backbone``."""
        return [self.stem]

    def stage_modules(self) -> list[list[nn.Module]]:
        """As ``Backbone``: the blocks."""
        return [[block] for block in self.blocks]

    def start(self, x: Tensor) -> list[Tensor]:
        """The stem's maps, finest first, from which ``advance`` continues."""
        self.check_size(x)
        maps: list[Tensor] = self.stem(x)
        return maps

    def advance(self, maps: list[Tensor], index: int) -> list[Tensor]:
        """As ``Backbone``: to the end of a block ('exits'), or to the last map of a scale ('scales').

        The maps are those of all scales, finest first, so the coarsest one is the output of a block. The last map of a
        scale is known before the layer that drops it, or at the end; it is appended as the last of the maps.
        """
        if self.output == "exits":
            for block in self.blocks[self.stages_to(index)]:
                maps = block(maps)
            return maps
        dropping = [number for number, layer in enumerate(self.layers) if getattr(layer, "drop", False)]
        ends = [*dropping, *[len(self.layers)] * (len(self.variant.factors) - len(dropping))]  # of the scales
        scale, begin = self.out_indices[index], 0
        if index:
            maps, begin = maps[:-1], ends[self.out_indices[index - 1]]
        for layer in self.layers[begin : ends[scale]]:
            maps = layer(maps)
        return [*maps, maps[scale - len(self.variant.factors)]]

    @property
    def layers(self) -> list[nn.Module]:
        """Layers and transitions of all blocks, in the order in which they run."""
        return [layer for block in self.blocks for layer in cast(nn.Sequential, block)]
