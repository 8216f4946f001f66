"""DLA-Up: iterative deep aggregation towards high resolution (DLA, section 3.2; github.com/ucbdrive/dla, dla_up.py).

Step i joins the map of level n - 2 - i with all coarser maps, each projected to its channels and doubled in size; the
results replace the coarser maps, so that after the last step all have the finest level's size.

1. Up-sampled maps that came out larger than the finer one (odd sizes) are cropped at the right and bottom, as
   github.com/allenai/elastic does; smaller ones (a backbone that rounds down) repeat their last row and column.
2. Every level can be returned, not only the finest: level k as left by the step that first reaches it, the coarsest as
   the backbone gives it. For detectors ``out_channels`` and ``num_outs`` are FPN's.
3. Maps of one stride (a dilated backbone) are joined without up-sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.compat.networks import BaseModule
from mmms_plugin.layers.common import BATCH_NORM, HE_INIT, ConfigType, InitConfig, build_norm
from mmms_plugin.layers.resampling import BilinearUp, fit_to
from mmms_plugin.registry import MODELS


class Fuse(nn.Module):
    """A finer map ``[N, C, H, W]`` and a coarser one ``[N, D, h, w]`` to ``[N, C, H, W]``."""

    def __init__(self, channels: int, coarse_channels: int, factor: int, norm_cfg: ConfigType) -> None:
        super().__init__()
        same = coarse_channels == channels
        self.proj = nn.Identity() if same else _conv(coarse_channels, channels, 1, norm_cfg)
        self.up = BilinearUp(channels, factor) if factor > 1 else nn.Identity()
        self.node = _conv(2 * channels, channels, 3, norm_cfg)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        coarse = fit_to(self.up(self.proj(coarse)), (fine.shape[2], fine.shape[3]))
        joined: Tensor = self.node(torch.cat((fine, coarse), 1))
        return joined


@MODELS.register_module()
class DLAUp(BaseModule):
    """Decoder of segmentation networks (one output), or an alternative to FPN in detectors (several).

    The down ratio of the finest output is the first input's stride: with ``DLA``, ``out_indices=(1, 2, 3, 4, 5)`` gives
    2, ``(2, 3, 4, 5)`` gives 4 and ``(3, 4, 5)`` gives 8.

    Args:
        in_channels: of the maps, finest first; two or more.
        out_channels: project every output to so many channels by a 1x1 layer; None keeps level k's ``in_channels[k]``.
        num_outs: number of outputs, finest first; beyond the inputs the coarsest is halved by pooling, as in FPN.
        in_strides: ascending powers of two; by default each is twice its predecessor.
        norm_cfg: norm layers.
        init_cfg: None for He initialisation.

    Attributes:
        out_channels: of every output.

    Shape: maps ``[N, in_channels[k], H_k, W_k]`` to a tuple of ``[N, out_channels[k], H_k, W_k]``; pooled ones have
        ``ceil(H / 2)``.
    Raises: ValueError for a bad argument or another number of maps.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int | None = None,
        num_outs: int = 1,
        *,
        in_strides: Sequence[int] | None = None,
        norm_cfg: ConfigType = BATCH_NORM,
        init_cfg: InitConfig = None,
    ) -> None:
        super().__init__(init_cfg or HE_INIT)
        channels, strides = _check_maps(in_channels, in_strides)
        if not isinstance(num_outs, int) or num_outs < 1:
            raise ValueError(f"num_outs={num_outs!r}: allowed are integers from 1")
        if out_channels is not None and (not isinstance(out_channels, int) or out_channels < 1):
            raise ValueError(f"out_channels={out_channels!r}: allowed are None and integers from 1")
        self.in_channels, self.num_outs = channels, num_outs
        levels = len(channels)
        self.ida = nn.ModuleList()
        for level in reversed(range(levels - 1)):
            factor, below = strides[level + 1] // strides[level], (channels[level + 1],) * (levels - 1 - level)
            self.ida.append(nn.ModuleList(Fuse(channels[level], c, factor, norm_cfg) for c in below))
        self.out_convs: nn.ModuleList | None = None
        if out_channels is not None:
            self.out_convs = nn.ModuleList(nn.Conv2d(c, out_channels, 1) for c in channels[:num_outs])
        kept = [channels[min(k, levels - 1)] for k in range(num_outs)]
        self.out_channels = tuple(kept if out_channels is None else [out_channels] * num_outs)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        maps = list(inputs)
        if len(maps) != len(self.in_channels):
            raise ValueError(f"inputs: {len(maps)} maps, in_channels={self.in_channels} needs {len(self.in_channels)}")
        pyramid = [maps[-1]]
        for step, fuses in enumerate(self.ida):
            level = len(maps) - 2 - step
            x = maps[level]
            for k, fuse in enumerate(cast(nn.ModuleList, fuses), level + 1):
                x = maps[k] = fuse(x, maps[k])
            pyramid.insert(0, x)
        outputs = pyramid[: self.num_outs]
        if self.out_convs is not None:
            outputs = [conv(x) for conv, x in zip(self.out_convs, outputs, strict=True)]
        while len(outputs) < self.num_outs:
            outputs.append(F.max_pool2d(outputs[-1], 1, stride=2))
        return tuple(outputs)


def _conv(in_channels: int, channels: int, kernel: int, norm_cfg: ConfigType) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, build_norm(norm_cfg, channels), nn.ReLU(inplace=True))


def _check_maps(in_channels: Sequence[int], in_strides: Sequence[int] | None) -> tuple[tuple[int, ...], list[int]]:
    channels = tuple(in_channels) if isinstance(in_channels, Sequence) else ()
    if len(channels) < 2 or any(not isinstance(c, int) or c < 1 for c in channels):
        raise ValueError(f"in_channels={in_channels!r}: allowed are two or more integers from 1, finest map first")
    strides = [2**k for k in range(len(channels))] if in_strides is None else list(in_strides)
    powers = all(isinstance(s, int) and s > 0 and not s & (s - 1) for s in strides)
    if len(strides) != len(channels) or not powers or strides != sorted(strides):
        raise ValueError(f"in_strides={in_strides!r}: allowed are {len(channels)} ascending powers of two")
    return channels, strides
