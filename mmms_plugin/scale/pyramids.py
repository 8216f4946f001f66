"""The layers of Table 1 of the ELASTIC paper, for one size: n = 56, 64 to 64 channels, k = 3, r = (1, 2), b = (2, 2).

The paper has formulas. The pyramids are built here as its formulas have them, with every branch at full resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from mmengine.registry import MODELS
from torch import nn

from mmms_plugin.scale.flops import Cost, count

SIDE, CHANNELS, KERNEL = 56, 64, 3
PLAIN = Cost(CHANNELS**2 * KERNEL**2, SIDE**2 * CHANNELS**2 * KERNEL**2)  # c^2 k^2, n^2 c^2 k^2


def layer_cost(name: str) -> Cost:
    """Cost of a layer in `LAYERS`."""
    with torch.device("meta"):
        return count(LAYERS[name](), torch.empty(1, CHANNELS, SIDE, SIDE))


def _conv(outputs: int, ratio: int = 1) -> nn.Module:
    side = KERNEL * ratio
    padding = nn.ZeroPad2d(((side - 1) // 2, side // 2) * 2)  # keeps the size, of even kernels too
    return nn.Sequential(padding, nn.Conv2d(CHANNELS, outputs, side, bias=False))


def _registered(kind: str) -> nn.Module:
    layer: nn.Module = MODELS.get(kind)(CHANNELS, CHANNELS, KERNEL, padding=KERNEL // 2, bias=False)
    return layer


class _Concatenated(nn.ModuleList):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(x) for layer in self], 1)


class _Added(nn.Module):
    """One convolution of the sum of two maps of the pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _conv(CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x + x)


LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    "single scale": lambda: _conv(CHANNELS),
    "feature pyramid, concat": lambda: _Concatenated([_conv(CHANNELS) for _ in range(2)]),
    "feature pyramid, add": _Added,
    "filter pyramid, standard": lambda: _Concatenated([_conv(CHANNELS // 2, ratio) for ratio in (1, 2)]),
    "filter pyramid, dilated": lambda: _registered("mmms_plugin.PSConv"),
    "Elastic": lambda: _registered("mmms_plugin.ElasticConv"),
}
