"""Channels viewed as groups of parts, reordered parts, and convolutions with parts of a weight.

All functions take NCHW and channels_last tensors.

With 2 groups of 4 parts, 16 channels are the view ``[N, 2, 4, 2, H, W]``. Taking the parts in the order (1, 2, 3, 0)
turns the channels of the first group from 0 1 | 2 3 | 4 5 | 6 7 to 2 3 | 4 5 | 6 7 | 0 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.layers.common import is_capturing, is_transformed

Size = int | tuple[int, int]
Pair = tuple[int, int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def is_channels_last(x: Tensor) -> bool:
    """Whether a 4-D tensor is stored as NHWC and not also as NCHW; False under ``torch.func``, which does not say."""
    return not is_transformed() and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def regroup(x: Tensor, split: tuple[int, int, int], move: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply ``move(view, axis of b)`` to ``[N, C, H, W]`` viewed as ``[N, a, b, c, H, W]`` with ``split=(a, b, c)``.

    A channels_last tensor is viewed as ``[N, H, W, a, b, c]`` and stays channels_last. One of a, b, c may be -1.
    """
    last = is_channels_last(x)
    axis = 3 if last else 1
    y = move((x.movedim(1, 3) if last else x).unflatten(axis, split), axis + 1).flatten(axis, axis + 2)
    return y.movedim(3, 1) if last else y


def transpose_parts(view: Tensor, axis: int) -> Tensor:
    """Swap b and c of a view ``[N, a, b, c, H, W]`` or ``[N, H, W, a, b, c]``; ``axis`` is that of b."""
    return view.transpose(axis, axis + 1)


def take_parts(x: Tensor, groups: int, parts: int, order: Sequence[int]) -> Tensor:
    """Reorder or choose the channel parts of every group of ``[N, groups * parts * c, H, W]``."""
    if list(order) == list(range(parts)):
        return x
    runs = _runs(order)
    return regroup(x, (groups, parts, -1), lambda v, axis: torch.cat([v.narrow(axis, a, n) for a, n in runs], axis))


def inverse(order: Sequence[int]) -> list[int]:
    """The order that undoes ``order``: (1, 2, 3, 0) gives [3, 0, 1, 2]."""
    return sorted(range(len(order)), key=lambda position: order[position])


def _runs(order: Sequence[int]) -> list[tuple[int, int]]:
    """``[(first, count), ...]`` of the ascending runs, whose parts are copied together: (1, 2, 3, 0) has 2 runs."""
    runs: list[tuple[int, int]] = []
    for part in order:
        if runs and part == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((part, 1))
    return runs


class ConvGeometry(NamedTuple):
    """Which pixels a convolution reads, (height, width) each.

    Every ``step``-th row and column is read, then ``stride``, ``padding`` and ``dilation`` apply to those.
    """

    step: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @classmethod
    def of(cls, stride: Pair, padding: Pair, dilation: Pair) -> ConvGeometry:
        """Of a convolution. Where the stride divides padding and dilation, the pixels between are never read.

        Dilation 2 at stride 2, padding 2, is dilation 1 at stride 1, padding 1, on every second row and column.
        """
        (s, t), (p, q), (d, e) = stride, padding, dilation
        if is_capturing() or any((p % s, d % s, q % t, e % t)):  # a graph is captured with the layer's own stride
            return cls((1, 1), stride, padding, dilation)
        return cls(stride, (1, 1), (p // s, q // t), (d // s, e // t))

    @property
    def arguments(self) -> tuple[Pair, Pair, Pair]:
        """Stride, padding and dilation, as ``F.conv2d`` takes them."""
        return self.stride, self.padding, self.dilation

    def pixels(self, x: Tensor) -> Tensor:
        """The rows and columns that are read: x itself, or a view."""
        return x if self.step == (1, 1) else x[:, :, :: self.step[0], :: self.step[1]]


class PartwiseConv2d(nn.Conv2d):
    """A Conv2d whose forward pass applies parts of its weight, each with a multiple of the layer's dilation.

    Stride, padding and padding mode are the layer's. So are, with any multiple, the size of the output and the pixels
    on which kernels are centred.
    """

    def conv_part(
        self, x: Tensor, weight: Tensor, groups: int, *, multiple: int = 1, bias: Tensor | None = None
    ) -> Tensor:
        """``[N, c_in, H, W] -> [N, c_out, H', W']`` with a weight ``[c_out, c_in / groups, kh, kw]``.

        Args:
            x: the input.
            weight: part of the layer's.
            groups: of this convolution.
            multiple: factor of the layer's dilation.
            bias: added to the output.
        """
        padding = self.even_padding(multiple)
        if padding is None:
            (top, bottom), (left, right) = self.padding_of(0, multiple), self.padding_of(1, multiple)
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = F.pad(x, (left, right, top, bottom), mode=mode), (0, 0)
        geometry = self.geometry(multiple, padding)
        return F.conv2d(geometry.pixels(x), weight, bias, *geometry.arguments, groups)

    def geometry(self, multiple: int, padding: Pair) -> ConvGeometry:
        """Of a part with a multiple of the layer's dilation."""
        dilation = (self.dilation[0] * multiple, self.dilation[1] * multiple)
        return ConvGeometry.of((self.stride[0], self.stride[1]), padding, dilation)

    def even_padding(self, multiple: int) -> Pair | None:
        """The zeros added on each side (height, width); None if they are not zeros, or more on one side."""
        (top, bottom), (left, right) = self.padding_of(0, multiple), self.padding_of(1, multiple)
        return (top, left) if self.padding_mode == "zeros" and (top, left) == (bottom, right) else None

    def padding_of(self, axis: int, multiple: int) -> tuple[int, int]:
        """Pixels added before and after along an axis (0: height, 1: width)."""
        span = self.dilation[axis] * (self.kernel_size[axis] - 1)
        if isinstance(self.padding, str):
            before, after = (0, 0) if self.padding == "valid" else (span // 2, span - span // 2)
        else:
            before = after = int(self.padding[axis])
        extra = span * (multiple - 1)
        return before + extra // 2, after + extra - extra // 2
