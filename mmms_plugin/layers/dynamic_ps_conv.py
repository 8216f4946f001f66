"""PSConv with a learned allocation of two dilations: section 4.2 of the PSConv paper, "learnable binary mask".

The mask over the kernel lattice is a Kronecker product of two small binary matrices, trained with the straight-through
estimator. The paper gives no further detail, hence:
1. The factors hold signs (+1, -1) of real logits and the larger dilation is taken where the product is +1: with
   products of 0 and 1 the smaller dilation would dominate.
2. The gradient of sign is passed where |logit| <= 1, as in XNOR-Net, which the paper cites for the estimator.
3. The factors split each channel count as evenly as it divides.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mmms_plugin.layers.partwise_conv import PaddingMode, PartwiseConv2d, Size
from mmms_plugin.registry import MODELS


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
class DynamicPSConv2d(PartwiseConv2d, nn.Conv2d):
    """Convolution that learns for each kernel which of two dilations to use.

    ``y = conv(x, weight * (1 - M), dilations[0]) + conv(x, weight * M, dilations[1])`` with the binary mask
    ``M = (kron(sign(left_logits), sign(right_logits)) + 1) / 2``, ``[C_out, C_in / groups]``.

    Args: as ``nn.Conv2d``, and
        dilations: the two multiples of the base dilation, small and large.
    Shape: ``[N, C_in, H, W] -> [N, C_out, H', W']``. Costs twice the plain layer's multiply-adds.
    Raises: ValueError for a bad argument.
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
