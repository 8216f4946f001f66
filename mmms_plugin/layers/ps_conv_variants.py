"""Variants of PSConv: the depthwise form, and a layer that learns where to dilate.

``DepthwisePSConv2d``: end of section 3.2 of the paper (github.com/d-li14/PSConv has no code for it).

1. The paper refers to its supplement for a figure; here the pattern runs over the channels of the whole layer.

``DynamicPSConv2d``: section 4.2, "learnable binary mask". The mask over the kernel lattice is a Kronecker product of
two small binary matrices, trained with the straight-through estimator. The paper gives no further detail, hence:

2. The factors hold signs (+1, -1) of real logits and the larger dilation is taken where the product is +1: with
   products of 0 and 1 the smaller dilation would dominate.
3. The gradient of sign is passed where |logit| <= 1, as in XNOR-Net, which the paper cites for the estimator.
4. The factors split each channel count as evenly as it divides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.layers.channel_parts import PaddingMode, PartwiseConv2d, Size, is_channels_last
from mmms_plugin.layers.dilation_lattice import ORDERS, check_pattern, part_of_channel
from mmms_plugin.layers.function import PLAIN_CONV, CarriesFunction
from mmms_plugin.registry import MODELS


@MODELS.register_module(name="DepthwisePSConv")
class DepthwisePSConv2d(CarriesFunction, PartwiseConv2d, nn.Conv2d):
    """Depthwise form of PSConv (end of section 3.2): each input channel has one dilation, ``pattern[part of channel]``.

    Equation (3) gives a depthwise layer a single dilation, because each group has one input channel; here the pattern
    runs over the channels of the whole layer, with the plain layer's parameters and multiply-adds.

    Args: as ``PSConv2d``; ``groups`` is ``in_channels`` and may be left out, ``out_channels`` is a multiple of it.
    Shape: ``[N, C_in, H, W] -> [N, C_out, H', W']``.
    Raises: ValueError for a bad argument. ``load_state_dict`` refuses weights of another pattern (``CarriesFunction``).
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

    def function(self) -> dict[str, Any]:
        """The arguments that give each channel its dilation; a pattern of ones makes a plain convolution."""
        if self.kernel_size == (1, 1) or set(self.dilation_pattern) == {1}:
            return dict(PLAIN_CONV)
        return dict(dilation_pattern=list(self.dilation_pattern), channel_order=self.channel_order, axes="channels")

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


class _StraightThroughSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return torch.where(logits >= 0, 1.0, -1.0).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        logits: Tensor = ctx.saved_tensors[0]
        return grad * (logits.abs() <= 1).to(grad.dtype)


@MODELS.register_module(name="DynamicPSConv")
class DynamicPSConv2d(CarriesFunction, PartwiseConv2d, nn.Conv2d):
    """Convolution that learns which of two dilations each kernel has.

    ``y = conv(x, weight * (1 - M), dilations[0]) + conv(x, weight * M, dilations[1])`` with the binary mask
    ``M = (kron(sign(left_logits), sign(right_logits)) + 1) / 2``, ``[C_out, C_in / groups]``.

    Args: as ``nn.Conv2d``, and
        dilations: the two multiples of the base dilation, small and large.
    Shape: ``[N, C_in, H, W] -> [N, C_out, H', W']``. Costs twice the plain layer's multiply-adds.
    Raises: ValueError for a bad argument. ``load_state_dict`` refuses weights of other dilations (``CarriesFunction``).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        dilations: tuple[int, int] = (1, 2),
    ) -> None:
        if len(dilations) != 2 or not 1 <= dilations[0] < dilations[1]:
            raise ValueError(f"dilations={dilations!r}: allowed are two integers, 1 <= small < large")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.dilations = (int(dilations[0]), int(dilations[1]))
        rows, columns = _even_factor(out_channels), _even_factor(in_channels // groups)
        self.left_logits = nn.Parameter(self.weight.new_empty(rows, columns))
        self.right_logits = nn.Parameter(self.weight.new_empty(out_channels // rows, in_channels // groups // columns))
        self.reset_mask()

    def function(self) -> dict[str, Any]:
        """The dilations between which the mask, a weight, chooses."""
        return dict(dilations=list(self.dilations))

    def reset_mask(self) -> None:
        """Draw the logits from U(-1, 1), where the straight-through gradient passes."""
        nn.init.uniform_(self.left_logits, -1, 1)
        nn.init.uniform_(self.right_logits, -1, 1)

    def mask(self) -> Tensor:
        """Binary ``[C_out, C_in / groups]``: 1 where a kernel uses the larger dilation."""
        sign = _StraightThroughSign.apply
        signs = torch.kron(sign(self.left_logits), sign(self.right_logits))  # type: ignore[no-untyped-call]
        return (signs + 1) / 2

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self.forward(x[None])[0]
        large = self.weight * self.mask()[:, :, None, None]
        small = self.weight - large
        y = self.conv_part(x, small, self.groups, multiple=self.dilations[0], bias=self.bias)
        return y + self.conv_part(x, large, self.groups, multiple=self.dilations[1])

    def extra_repr(self) -> str:
        plain = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{plain}, dilations={self.dilations}"


def _even_factor(channels: int) -> int:
    """The largest divisor not above the square root."""
    return next(d for d in range(math.isqrt(channels), 0, -1) if channels % d == 0)
