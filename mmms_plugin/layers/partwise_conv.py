"""What the convolution layers here share: parts of one weight applied with the geometry of the plain layer."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Size = int | tuple[int, int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class PartwiseConv2d(nn.Conv2d):
    """A Conv2d whose forward pass applies parts of its weight, each with a multiple of the layer's dilation.

    The stride, padding and padding mode are the layer's, and whatever the multiple, so are the output's size and the
    pixels on which kernels are centred.
    """

    def conv_part(
        self, x: Tensor, weight: Tensor, groups: int, *, multiple: int = 1, bias: Tensor | None = None
    ) -> Tensor:
        """``[N, c_in, H, W] -> [N, c_out, H', W']`` with a weight ``[c_out, c_in / groups, kh, kw]``.

        Args:
            multiple: factor of the layer's dilation.
        """
        top, bottom = self.padding_of(0, multiple)
        left, right = self.padding_of(1, multiple)
        padding = (top, left)
        if padding != (bottom, right) or self.padding_mode != "zeros":
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = F.pad(x, (left, right, top, bottom), mode=mode), (0, 0)
        dilation = (self.dilation[0] * multiple, self.dilation[1] * multiple)
        return F.conv2d(x, weight, bias, self.stride, padding, dilation, groups)

    def padding_of(self, axis: int, multiple: int) -> tuple[int, int]:
        """Pixels added before and after along an axis (0: height, 1: width)."""
        span = self.dilation[axis] * (self.kernel_size[axis] - 1)
        if isinstance(self.padding, str):
            before, after = (0, 0) if self.padding == "valid" else (span // 2, span - span // 2)
        else:
            before = after = int(self.padding[axis])
        extra = span * (multiple - 1)
        return before + extra // 2, after + extra - extra // 2
