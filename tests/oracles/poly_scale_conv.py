"""Equation (3) of the PSConv paper written out: loops over output channel, input channel and taps, in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np


def poly_scale_conv(
    x: np.ndarray,
    weight: np.ndarray,
    dilation_of: Callable[[int, int], int],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """``[N, C_in, H, W]`` and ``[C_out, C_in / groups, kh, kw]`` to ``[N, C_out, H', W']``.

    ``dilation_of(c, k)`` is the multiple of the base dilation, c and k counted within the group. Odd kernels only. The
    centre tap of output (i, j) lies where the plain layer's lies; samples outside the picture are 0.
    """
    batch, _, height, width = x.shape
    out_channels, in_channels, kh, kw = weight.shape
    out_h = (height + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    rows = np.arange(out_h) * stride[0] - padding[0] + dilation[0] * (kh - 1) // 2
    columns = np.arange(out_w) * stride[1] - padding[1] + dilation[1] * (kw - 1) // 2

    @functools.cache  # the same for every output channel
    def samples(d: int, u: int, v: int) -> np.ndarray:
        r = rows + (u - kh // 2) * d * dilation[0]
        s = columns + (v - kw // 2) * d * dilation[1]
        inside = ((r >= 0) & (r < height))[:, None] & ((s >= 0) & (s < width))[None]
        return x[:, :, np.clip(r, 0, height - 1)][..., np.clip(s, 0, width - 1)].astype(np.float64) * inside

    y = np.zeros((batch, out_channels, out_h, out_w))
    for c in range(out_channels):
        group, c_in_group = divmod(c, out_channels // groups)
        for k in range(in_channels):
            d = dilation_of(c_in_group, k)
            for u in range(kh):
                for v in range(kw):
                    y[:, c] += weight[c, k, u, v] * samples(d, u, v)[:, group * in_channels + k]
    return y
