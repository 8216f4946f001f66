"""What all poly-scale convolutions share: one kernel applied at several dilations around the same centre."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = int | tuple[int, int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class PolyScaleConv2d(nn.Conv2d):
    """A Conv2d whose kernels may be applied at multiples of the base dilation, with the plain layer's output size."""

    def dilated_conv2d(
        self, x: Tensor, weight: Tensor, multiple: int, groups: int, bias: Tensor | None = None
    ) -> Tensor:
        """``[N, C_in, H, W] -> [N, C_out, H', W']`` at ``multiple`` times the base dilation, kernels kept centred."""
        top, bottom = self._padding_of(0, multiple)
        left, right = self._padding_of(1, multiple)
        padding = (top, left)
        if padding != (bottom, right) or self.padding_mode != "zeros":
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = F.pad(x, (left, right, top, bottom), mode=mode), (0, 0)
        dilation = (self.dilation[0] * multiple, self.dilation[1] * multiple)
        return F.conv2d(x, weight, bias, self.stride, padding, dilation, groups)

    def _padding_of(self, axis: int, multiple: int) -> tuple[int, int]:
        span = self.dilation[axis] * (self.kernel_size[axis] - 1)
        if isinstance(self.padding, str):
            before, after = (0, 0) if self.padding == "valid" else (span // 2, span - span // 2)
        else:
            before = after = int(self.padding[axis])
        extra = span * (multiple - 1)
        return before + extra // 2, after + extra - extra // 2


def is_channels_last(x: Tensor) -> bool:
    """Whether a 4-D tensor is stored as NHWC and not also as NCHW."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
