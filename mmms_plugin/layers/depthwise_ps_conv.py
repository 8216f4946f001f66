"""The depthwise form of PSConv, end of section 3.2 of the paper (github.com/d-li14/PSConv has no code for it).

1. The paper refers to its supplement for the figure; here the pattern runs over the channels of the whole layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.layers.channel_parts import is_channels_last
from mmms_plugin.layers.dilation_lattice import ORDERS, check_pattern, part_of_channel
from mmms_plugin.layers.partwise_conv import PaddingMode, PartwiseConv2d, Size
from mmms_plugin.registry import MODELS


@MODELS.register_module(name="DepthwisePSConv")
class DepthwisePSConv2d(PartwiseConv2d, nn.Conv2d):
    """Depthwise form of PSConv (end of section 3.2): each input channel has one dilation, ``pattern[part of channel]``.

    Equation (3) gives a depthwise layer a single dilation, for each group has one input channel; here the pattern runs
    over the channels of the whole layer instead, at the plain layer's parameters and multiply-adds.

    Args: as ``PSConv2d``; ``groups`` is ``in_channels`` and may be left out, ``out_channels`` is a multiple of it.
    Shape: ``[N, C_in, H, W] -> [N, C_out, H', W']``.
    Raises: ValueError for a bad argument.
    """

    _order: Tensor
    _inverse: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int | None = None,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        dilation_pattern: Sequence[int] = (1, 2, 1, 4),
        channel_order: str = "block",
    ) -> None:
        self.dilation_pattern = check_pattern(dilation_pattern)
        check_choice("channel_order", channel_order, ORDERS)
        check_choice("groups", groups, (None, in_channels))
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            in_channels,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self.channel_order = channel_order
        part = part_of_channel(in_channels, len(self.dilation_pattern), channel_order)
        multiples = torch.tensor(self.dilation_pattern)[part]
        order = torch.argsort(multiples, stable=True)
        self._runs = [(int(m), int((multiples == m).sum())) for m in multiples.unique()]
        self.register_buffer("_order", order.to(self.weight.device), persistent=False)
        width = out_channels // in_channels
        by_output = order.repeat_interleave(width) * width + torch.arange(width).repeat(in_channels)
        inverse = torch.argsort(by_output).to(self.weight.device)
        self.register_buffer("_inverse", inverse, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self.forward(x[None])[0]
        width, counts = self.out_channels // self.in_channels, [count for _, count in self._runs]
        inputs = _select_channels(x, self._order).split(counts, 1)  # one [N, count, H, W] for each dilation
        # [C_out, 1, kh, kw] -> [C_in, width, 1, kh, kw] -> one [count, width, 1, kh, kw] for each dilation
        kernels = self.weight.unflatten(0, (-1, width)).index_select(0, self._order).split(counts)
        terms = [
            self.conv_part(part, kernel.flatten(0, 1), count, multiple=multiple)
            for part, kernel, (multiple, count) in zip(inputs, kernels, self._runs, strict=True)
        ]
        y = _select_channels(torch.cat(terms, 1), self._inverse)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(1, -1, 1, 1)


def _select_channels(x: Tensor, index: Tensor) -> Tensor:
    if is_channels_last(x):
        return x.movedim(1, 3).index_select(3, index).movedim(3, 1)
    return x.index_select(1, index)
