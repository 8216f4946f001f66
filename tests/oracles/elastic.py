"""Resampling of the ELASTIC layers as loops over pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def average_down(x: Tensor, ratio: int) -> Tensor:
    """Mean of ratio x ratio pixels; beyond the border the last row and column repeat."""
    height, width = x.shape[-2:]
    y = x.new_zeros(*x.shape[:2], -(-height // ratio), -(-width // ratio))
    for i in range(y.shape[2] * ratio):
        for j in range(y.shape[3] * ratio):
            y[:, :, i // ratio, j // ratio] += x[:, :, min(i, height - 1), min(j, width - 1)] / ratio**2
    return y


def bilinear_up(x: Tensor, ratio: int, size: tuple[int, int]) -> Tensor:
    """Pixel centres at (i + 0.5) / ratio - 0.5 of the small map (align_corners=False); beyond its border it repeats."""
    y = x.new_zeros(*x.shape[:2], *size)
    for i in range(size[0]):
        for j in range(size[1]):
            for a, row in _neighbours(i, ratio, x.shape[2]):
                for b, column in _neighbours(j, ratio, x.shape[3]):
                    y[:, :, i, j] += a * b * x[:, :, row, column]
    return y


def _neighbours(i: int, ratio: int, length: int) -> list[tuple[float, int]]:
    centre = max(0.0, (i + 0.5) / ratio - 0.5)
    first = int(centre)
    return [(1 - centre + first, min(first, length - 1)), (centre - first, min(first + 1, length - 1))]


def nearest_up(x: Tensor, ratio: int, size: tuple[int, int]) -> Tensor:
    rows, columns = torch.arange(size[0]) // ratio, torch.arange(size[1]) // ratio
    return x[:, :, rows][:, :, :, columns]


def dilated_conv(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """3x3 convolution that keeps the size."""
    height, width = x.shape[-2:]
    y = bias.view(1, -1, 1, 1).expand(len(x), -1, height, width).clone()
    for i in range(height):
        for j in range(width):
            for a in range(3):
                for b in range(3):
                    row, column = i + (a - 1) * dilation, j + (b - 1) * dilation
                    if 0 <= row < height and 0 <= column < width:
                        y[:, :, i, j] += x[:, :, row, column] @ weight[:, :, a, b].T
    return y
