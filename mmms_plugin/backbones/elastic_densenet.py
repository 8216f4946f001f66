"""DenseNet with Elastic: section 3.3, Figure 3 right, Table 11 of the ELASTIC paper (github.com/allenai/elastic).

DenseNet-BC (Huang et al., CVPR 2017). With Elastic each dense layer consists of two branches after one batch norm;
their outputs are summed. The second runs at half resolution, except in the last block, where both run at full
resolution. Plain networks have torchvision's keys without their prefix ``features.``
(``denseblock1.denselayer1.conv1.weight``); Elastic ones have ``...denselayer1.paths.high.conv1.weight`` and
``...paths.low...``.

1. The authors' code recognises the last block by a map of 7 rows; here the block itself decides.
2. Table 11 prints a single path for the last block; the published model has two, as its parameters (19.5 M) show.
3. Transitions round odd sizes up, as Elastic's own pooling does, so that strides hold at every size;
   ``ceil_mode=False`` drops the last row and column as torchvision and the authors do.
4. Dropout is left out: the authors train without.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice, check_per_stage
from mmms_plugin.backbones.base import Backbone, run_block
from mmms_plugin.backbones.staged import dilation_grids
from mmms_plugin.layers import Downsample, Elastic, ElasticPolicy
from mmms_plugin.layers.common import BATCH_NORM, HE_FAN_IN_INIT, ConfigType, InitConfig, build_norm
from mmms_plugin.registry import MODELS

BOTTLENECK = 4  # width of the 1x1 layers in growth rates


class Variant(NamedTuple):
    """Channels of the stem, growth rate, layers of each block without Elastic and, if published, with it."""

    stem: int
    growth: int
    base: tuple[int, ...]
    elastic: tuple[int, ...] | None = None


@dataclass(frozen=True)
class LayerOptions:
    """Options that all dense layers of a network share; ``policy`` None makes a plain DenseNet."""

    growth: int
    policy: ElasticPolicy | None
    norm_cfg: ConfigType
    with_cp: bool

    def norm(self, channels: int) -> nn.Module:
        return build_norm(self.norm_cfg, channels)

    def path(self, in_channels: int, width: int, dilation: int) -> OrderedDict[str, nn.Module]:
        """1x1 and 3x3 layer with a norm between them: ``[N, in_channels, H, W] -> [N, growth, H, W]``."""
        conv2 = nn.Conv2d(width, self.growth, 3, 1, dilation, dilation, bias=False)
        return OrderedDict(
            conv1=nn.Conv2d(in_channels, width, 1, bias=False),
            norm2=self.norm(width),
            relu2=nn.ReLU(inplace=True),
            conv2=conv2,
        )

    def paths(self, policy: ElasticPolicy, in_channels: int, dilation: int, lower: bool) -> Elastic:
        """Branches ``high``, ``low``, ``low2``, ... that share the width of the plain layer."""
        branches, ratios = {}, []
        for i, (ratio, width) in enumerate(policy.divide(BOTTLENECK * self.growth, "channels")):
            name = ("high", "low")[i] if i < 2 else f"low{i}"
            branches[name] = nn.Sequential(self.path(in_channels, width, dilation))
            ratios.append(ratio if lower else 1)
        sizes = dict(in_channels=in_channels, out_channels=self.growth)
        return Elastic(branches, ratios, policy.method, policy.pool, **sizes)


class DenseLayer(nn.Module):
    """A list of maps of one size, ``in_channels`` channels together, to one map ``[N, growth, H, W]``."""

    def __init__(self, options: LayerOptions, in_channels: int, dilation: int, lower: bool) -> None:
        super().__init__()
        self.norm1 = options.norm(in_channels)
        if options.policy is None:
            path = options.path(in_channels, BOTTLENECK * options.growth, dilation)
            self.conv1, self.norm2, self.relu2, self.conv2 = path.values()
        else:
            self.paths = options.paths(options.policy, in_channels, dilation, lower)
        self.is_plain, self.with_cp = options.policy is None, options.with_cp

    def forward(self, maps: list[Tensor]) -> Tensor:
        return run_block(self, self._new_map, maps)

    def _new_map(self, maps: list[Tensor]) -> Tensor:
        # Joined inside, so that checkpointing recomputes it: memory then grows only with the number of layers.
        x = F.relu(self.norm1(torch.cat(maps, 1)), inplace=True)
        new: Tensor = self.conv2(self.relu2(self.norm2(self.conv1(x)))) if self.is_plain else self.paths(x)
        return new


class DenseBlock(nn.Module):
    """Dense layers, each with all earlier maps as its input; ``[N, C, H, W] -> [N, C + layers * growth, H, W]``."""

    def __init__(self, options: LayerOptions, in_channels: int, dilations: Sequence[int], lower: bool) -> None:
        super().__init__()
        for i, dilation in enumerate(dilations):
            layer = DenseLayer(options, in_channels + i * options.growth, dilation, lower)
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.children():
            maps.append(layer(maps.copy()))
        return torch.cat(maps, 1)


class Transition(nn.Module):
    """Norm, 1x1 layer to half the channels, average pooling by the stride of the next block, or pooling first."""

    def __init__(self, options: LayerOptions, in_channels: int, stride: int, ceil_mode: bool, pool_first: bool) -> None:
        super().__init__()
        self.norm = options.norm(in_channels)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)
        self.pool = Downsample(stride) if ceil_mode else nn.AvgPool2d(stride)
        self.pool_first = pool_first

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(x), inplace=True)
        y: Tensor = self.conv(self.pool(x)) if self.pool_first else self.pool(self.conv(x))
        return y


@MODELS.register_module()
class ElasticDenseNet(Backbone):
    """DenseNet-121, -161, -169 and -201, the last also with Elastic; DenseNet-BC-100 for CIFAR.

    Stage i ends with dense block i + 1, whose output is returned; that of the last block passes the final norm and ReLU
    first, since the classifier pools it.

    Args:
        depth: 121, 161, 169 or 201; or 100, which has 3 blocks and is for CIFAR with ``small_stem``.
        elastic: Elastic dense layers and the block sizes of Table 11; depth 201 only.
        elastic_cfg: arguments of ``ElasticPolicy``: ratios, shares, method, pool.
        in_channels: channels of the image.
        strides, dilations: for each block, the pooling before it (the first has none) and the dilation inside.
        multi_grid: factors of the dilation for the layers of the last block, as many as it has layers.
        ceil_mode: round odd sizes up in transitions; False is torchvision's.
        pool_first: pool before the 1x1 layer of a transition. The two commute, so the maps are the same, with 9 % fewer
            multiply-adds at depth 201 and 14 % fewer with Elastic; False has the published count.
        small_stem: a stem of one 3x3 layer without stride, norm or pooling, for pictures of some 32 px.
        out_indices: stages to return, or dense layers.
        output: 'stages' returns the maps of stages; 'blocks' all maps behind any dense layers, for classifiers inside a
            dense block.
        frozen_stages: -1 none, 0 the stem, k the stem and k stages.
        norm_cfg: norm layers.
        norm_eval: keep batch norms in eval mode while training.
        with_cp: recompute dense layers in the backward pass; without it memory grows with the square of the layers.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)``, or None for He initialisation by the fan-in.

    Shape: ``[N, in_channels, H, W]`` to a tuple of ``[N, out_channels[i], ceil(H / out_strides[i]), ...]``.
    Raises: ValueError for a bad argument, and for pictures smaller than the last returned stage's stride.
    """

    arch_settings: ClassVar[dict[int, Variant]] = {
        121: Variant(64, 32, (6, 12, 24, 16)),
        161: Variant(96, 48, (6, 12, 36, 24)),
        169: Variant(64, 32, (6, 12, 32, 32)),
        201: Variant(64, 32, (6, 12, 48, 32), (10, 20, 40, 30)),
        100: Variant(24, 12, (16, 16, 16)),  # for CIFAR (Huang et al., CVPR 2017, Table 2)
    }

    def __init__(
        self,
        depth: int,
        elastic: bool = False,
        *,
        elastic_cfg: ConfigType | None = None,
        in_channels: int = 3,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        multi_grid: Sequence[int] | None = None,
        ceil_mode: bool = True,
        pool_first: bool = False,
        small_stem: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        output: str = "stages",
        frozen_stages: int = -1,
        norm_cfg: ConfigType = BATCH_NORM,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: InitConfig = None,
    ) -> None:
        check_choice("depth", depth, tuple(self.arch_settings))
        check_choice("output", output, ("stages", "blocks"))
        variant = self.arch_settings[depth]
        counts = self._layer_counts(depth, elastic)
        outputs = sum(counts) if output == "blocks" else None
        super().__init__(len(counts), out_indices, frozen_stages, norm_eval, init_cfg or HE_FAN_IN_INIT, outputs)
        self.by_block, self.small_stem = output == "blocks", small_stem
        strides = check_per_stage("strides", strides, len(counts))
        if strides[0] != 1:
            raise ValueError(f"strides={strides!r}: allowed is 1 for the first block, which no transition precedes")
        dilations = check_per_stage("dilations", dilations, len(counts))
        grids = dilation_grids(counts, dilations, multi_grid, unit="layer of the last block")
        policy = ElasticPolicy(**(elastic_cfg or {})) if elastic else None
        if elastic_cfg and policy is None:
            raise ValueError(f"elastic_cfg={elastic_cfg!r}: allowed with elastic=True only")
        options = LayerOptions(variant.growth, policy, norm_cfg, with_cp)

        self.depth, self.elastic = depth, elastic
        kernel, stride = (3, 1) if small_stem else (7, 2)
        self.conv0 = nn.Conv2d(in_channels, variant.stem, kernel, stride, kernel // 2, bias=False)
        self.norm0 = nn.Identity() if small_stem else build_norm(norm_cfg, variant.stem)
        channels, widths, total = variant.stem, [], 1 if small_stem else 4
        all_strides: list[int] = []
        for stage, grid in enumerate(grids):
            if stage > 0:
                transition = Transition(options, channels, strides[stage], ceil_mode, pool_first)
                self.add_module(f"transition{stage}", transition)
                channels //= 2
            block = DenseBlock(options, channels, grid, lower=stage < len(counts) - 1)
            self.add_module(f"denseblock{stage + 1}", block)
            grown = [channels + (i + 1) * variant.growth for i in range(len(grid))]
            channels, total = grown[-1], total * strides[stage]
            widths += grown if self.by_block else grown[-1:]
            all_strides += [total] * (len(grid) if self.by_block else 1)
        self.norm5 = build_norm(norm_cfg, channels)
        self.relu5 = nn.ReLU()
        self.declare_outputs(widths, all_strides)
        self.freeze()

    def _layer_counts(self, depth: int, elastic: bool) -> tuple[int, ...]:
        check_choice("elastic", elastic, (False, True))
        counts = self.arch_settings[depth].elastic if elastic else self.arch_settings[depth].base
        if counts is None:
            deep = [d for d, variant in self.arch_settings.items() if variant.elastic]
            raise ValueError(f"elastic=True, depth={depth}: allowed with Elastic is depth {', '.join(map(str, deep))}")
        return counts

    def stem_modules(self) -> list[nn.Module]:
        """As ``Backbone``."""
        return [self.conv0, self.norm0]

    def stage_modules(self) -> list[list[nn.Module]]:
        """As ``Backbone``: transition and dense block, and the final norm and ReLU behind the last block."""
        stages: list[list[nn.Module]] = []
        last = max(int(name.removeprefix("denseblock")) for name, _ in self.named_children() if "denseblock" in name)
        for stage in range(last):
            names = [f"transition{stage}"] if stage else []
            names += [f"denseblock{stage + 1}", *(["norm5", "relu5"] if stage == last - 1 else [])]
            stages.append([cast(nn.Module, getattr(self, name)) for name in names])
        return stages

    def forward_stem(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W] -> [N, channels, H / 4, W / 4]``; ``[N, channels, H, W]`` from a small stem."""
        if self.small_stem:
            maps: Tensor = self.conv0(x)
            return maps
        return F.max_pool2d(F.relu(self.norm0(self.conv0(x))), 3, 2, 1)

    def advance(self, maps: list[Tensor], index: int) -> list[Tensor]:
        """As ``Backbone``, where the outputs are the dense layers' too."""
        if not self.by_block:
            return super().advance(maps, index)
        steps: list[list[nn.Module]] = []  # for each dense layer, with the modules before its block, or behind it
        for modules in self.stage_modules():
            place = next(i for i, module in enumerate(modules) if isinstance(module, DenseBlock))
            rows = [[layer] for layer in modules[place].children()]
            rows[0], rows[-1] = [*modules[:place], *rows[0]], [*rows[-1], *modules[place + 1 :]]
            steps += rows
        x = maps[-1]
        for row in steps[self.stages_to(index)]:
            for module in row:
                x = torch.cat([x, module([x])], 1) if isinstance(module, DenseLayer) else module(x)
        return [x]
