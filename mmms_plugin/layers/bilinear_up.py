"""Bilinear up-sampling as a grouped transposed convolution, trained on or fixed (Long et al., 2015; DLA, 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def bilinear_kernel(factor: int) -> Tensor:
    """The ``[2 * factor, 2 * factor]`` weights with which a stride-``factor`` transposed convolution interpolates."""
    distance = (torch.arange(2 * factor) - (factor - 0.5)).abs()
    line = 1 - distance / factor
    return line[:, None] * line


class BilinearUp(nn.ConvTranspose2d):
    """One filter per channel, bilinear at first, then trained.

    Args:
        channels: C. factor: a power of two.
    Shape: ``[N, C, H, W] -> [N, C, factor * H, factor * W]``.
    Raises: ValueError for another factor.
    """

    def __init__(self, channels: int, factor: int) -> None:
        if factor < 2 or factor & (factor - 1):
            raise ValueError(f"factor={factor!r}: allowed are powers of two from 2")
        super().__init__(channels, channels, 2 * factor, factor, factor // 2, groups=channels, bias=False)

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(bilinear_kernel(self.stride[0]).expand_as(self.weight))
