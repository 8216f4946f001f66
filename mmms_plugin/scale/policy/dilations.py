"""The share of each dilation in a PSConv layer's weight: "scale allocation", section 4.2 of the PSConv paper.

The paper refers to its supplement for the measure; here it is the sum of the absolute weights of a dilation's kernels,
as a share of the layer's. A layer without a preference for any scale would have the shares of the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmms_plugin.layers.dilation_lattice import part_of_channel
from mmms_plugin.layers.ps_conv import PSConv2d
from mmms_plugin.layers.ps_conv_variants import DepthwisePSConv2d, DynamicPSConv2d

Layer = PSConv2d | DepthwisePSConv2d | DynamicPSConv2d


@dataclass(frozen=True)
class DilationShares:
    """Shares of one layer.

    Attributes:
        name: of the layer in its model.
        weight: share of the sum of absolute weights, by dilation.
        kernels: share of the kernels, by dilation.
    """

    name: str
    weight: dict[int, float]
    kernels: dict[int, float]


def dilation_shares(model: nn.Module) -> list[DilationShares]:
    """Shares of every PSConv layer with kernels of several dilations, in the order of the model's modules."""
    layers = ((path, m) for path, m in model.named_modules() if isinstance(m, Layer) and max(m.kernel_size) > 1)
    shares = (_shares(path.removeprefix("backbone."), layer) for path, layer in layers)
    return [layer for layer in shares if len(layer.kernels) > 1]


@torch.no_grad()
def _shares(name: str, layer: Layer) -> DilationShares:
    lattice = _lattice(layer)
    sizes = layer.weight.detach().cpu().double().abs().sum((2, 3))
    totals = {int(d): float(sizes[lattice == d].sum()) for d in lattice.unique()}
    counts = {int(d): int((lattice == d).sum()) for d in lattice.unique()}
    extra = getattr(layer, "extra_weight", None)  # the dilation-1 kernels of the published grouped layers
    if isinstance(extra, Tensor):
        totals[1] = totals.get(1, 0.0) + float(extra.detach().cpu().double().abs().sum())
    return DilationShares(name, _normalised(totals), _normalised(counts))


def _lattice(layer: Layer) -> Tensor:
    """``[C_out, C_in / groups]`` with the dilation of every kernel."""
    base = max(layer.dilation)
    if isinstance(layer, DynamicPSConv2d):
        small, large = layer.dilations
        return base * torch.where(layer.mask().cpu() > 0, large, small)
    if isinstance(layer, PSConv2d):
        return base * layer.dilation_matrix().cpu()
    part = part_of_channel(layer.in_channels, len(layer.dilation_pattern), layer.channel_order)
    row = torch.tensor(layer.dilation_pattern)[part].repeat_interleave(layer.out_channels // layer.in_channels)
    return base * row[:, None]


def _normalised(values: dict[int, float] | dict[int, int]) -> dict[int, float]:
    total = sum(values.values()) or 1
    return {key: values[key] / total for key in sorted(values)}
