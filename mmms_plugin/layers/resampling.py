"""Down- and up-sampling of maps: the D and U of ELASTIC, bilinear kernels, cropping.

ELASTIC paper, section 3.2 (github.com/allenai/elastic). Maps whose size a ratio does not divide are extended by
repeating the last row and column; the up-sampled map is cropped.

1. The authors' code has only ratios of 1 and 2, and average pooling with bilinear up-sampling; other integers work the
   same way.
2. Table 6 names its methods without defining them. Here 'trained' is one filter per channel, a strided one down and a
   transposed one up, which start as average pooling and bilinear up-sampling (the authors' code has a trace of the
   latter). 'dilated' keeps the branch at full resolution with its kernels dilated r times, which gives that row's 3.6
   GFLOPs; "w/ AP" then averages r x r pixels with stride 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.layers.common import is_capturing

METHODS = ("bilinear", "nearest", "trained", "dilated")


class Downsample(nn.Module):
    """D_r: ``[N, C, H, W] -> [N, C, ceil(H / r), ceil(W / r)]``; 'dilated' gives ``[N r r, C, ...]``, all r x r phases.

    Args:
        ratio: r, an integer >= 1.
        method: as for ``ElasticPolicy``. Without pooling 'bilinear' takes the value at the middle of r x r pixels, and
            'nearest' their first pixel.
        pool: as for ``ElasticPolicy``.
        channels: C, needed only by 'trained' without pooling.
    """

    def __init__(self, ratio: int, method: str = "bilinear", pool: bool = True, channels: int | None = None) -> None:
        super().__init__()
        check_ratios((ratio,))
        check_choice("method", method, METHODS)
        self.ratio, self.method, self.pool = ratio, method, pool
        if method == "trained" and not pool:
            self.weight = nn.Parameter(torch.full((_channels(channels), 1, ratio, ratio), 1 / ratio**2))

    def forward(self, x: Tensor) -> Tensor:
        r = self.ratio
        if self.method == "dilated":
            return _phases(_extend(_mean_filter(x, r) if self.pool else x, r), r)
        if self.pool:
            x = _extend(x, r)
            return halve(x) if r == 2 else F.avg_pool2d(x, r)
        x = _extend(x, r)
        if self.method == "nearest":
            return x[..., ::r, ::r]
        if self.method == "bilinear":
            size = (x.shape[-2] // r, x.shape[-1] // r)
            return F.interpolate(x, size, mode="bilinear", align_corners=False)
        return F.conv2d(x, self.weight, stride=r, groups=x.shape[1])

    def extra_repr(self) -> str:
        return f"{self.ratio}, method={self.method!r}, pool={self.pool}"


class Upsample(nn.Module):
    """U_r, the reverse of ``Downsample``: ``[N, C, h, w]`` and a size ``(H, W)`` to ``[N, C, H, W]``, cropped.

    Args:
        ratio: r, an integer >= 1.
        method: as for ``ElasticPolicy``.
        channels: C, needed only by 'trained'.
    """

    def __init__(self, ratio: int, method: str = "bilinear", channels: int | None = None) -> None:
        super().__init__()
        check_ratios((ratio,))
        check_choice("method", method, METHODS)
        self.ratio, self.method = ratio, method
        if method == "trained":
            self.weight = nn.Parameter(bilinear_kernel(ratio).repeat(_channels(channels), 1, 1, 1))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        r = self.ratio
        if self.method == "dilated":
            y = _from_phases(x, r)
        elif self.method == "trained":
            # one repeated pixel around, so that the first kernel is bilinear up-sampling at the border too
            padding = (3 * r - r % 2) // 2
            x = F.pad(x, (1, 1, 1, 1), mode="replicate")
            y = F.conv_transpose2d(x, self.weight, stride=r, padding=padding, groups=x.shape[1])
        elif self.method == "nearest":
            y = F.interpolate(x, _times(x, r), mode="nearest")
        else:
            y = F.interpolate(x, _times(x, r), mode="bilinear", align_corners=False)
        return fit_to(y, size)

    def extra_repr(self) -> str:
        return f"{self.ratio}, method={self.method!r}"


class BilinearUp(nn.ConvTranspose2d):
    """Up-sampling by one trained filter per channel, which starts as bilinear.

    Args:
        channels: C.
        factor: a power of two.

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


def bilinear_kernel(ratio: int) -> Tensor:
    """The ``[k, k]`` weights, ``k = 2 * ratio - ratio % 2``, of a transposed convolution that up-samples bilinearly."""
    size = 2 * ratio - ratio % 2
    line = 1 - (torch.arange(size) - (size - 1) / 2).abs() / ratio
    return line[:, None] * line


def fit_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """``[N, C, H, W] -> [N, C, *size]``: crop at the right and bottom, or repeat the last row and column.

    In captured graphs, rows and columns are picked by index: slicing and padding would fix which of the two sizes is
    the larger. Elsewhere they are not, because picking takes longer.
    """
    height, width = x.shape[2:]
    if is_capturing():
        rows, columns = (
            torch.arange(side, device=x.device).clamp(max=last - 1)
            for side, last in zip(size, (height, width), strict=True)
        )
        return x.index_select(2, rows).index_select(3, columns)
    x = x[:, :, : size[0], : size[1]]
    below, right = size[0] - x.shape[2], size[1] - x.shape[3]
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def halve(x: Tensor) -> Tensor:
    """``[N, C, H, W] -> [N, C, H / 2, W / 2]``, means of 2 x 2 pixels; H and W are even.

    For NCHW tensors on the CPU torch pools value by value; sums of whole rows take a quarter of the time (one core,
    16,000 to 4,300,000 values; three quarters with the backward pass). Elsewhere, and in captured graphs, torch's own
    function is used.
    """
    pooled_slowly = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.is_contiguous()
    if is_capturing() or not pooled_slowly:
        return F.avg_pool2d(x, 2)
    rows = x[..., 0::2, :] + x[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]) * 0.25


def check_ratios(ratios: Sequence[int]) -> None:
    """ValueError unless ``ratios`` are integers >= 1, at least one."""
    listed = ratios if isinstance(ratios, Sequence) else ()
    if not listed or any(isinstance(r, bool) or not isinstance(r, int) or r < 1 for r in listed):
        raise ValueError(f"ratios={ratios!r}: allowed are integers >= 1, at least one")


def _channels(channels: int | None) -> int:
    if channels is None:
        raise ValueError("channels=None: method='trained' needs the number of channels to have a filter for each")
    return channels


def _times(x: Tensor, ratio: int) -> tuple[int, int]:
    return x.shape[-2] * ratio, x.shape[-1] * ratio


def _extend(x: Tensor, ratio: int) -> Tensor:
    """Repeat the last row and column until ``ratio`` divides height and width."""
    height, width = ((side + ratio - 1) // ratio * ratio for side in x.shape[-2:])
    return fit_to(x, (height, width))


def _mean_filter(x: Tensor, ratio: int) -> Tensor:
    before, after = (ratio - 1) // 2, ratio // 2
    return F.avg_pool2d(F.pad(x, (before, after, before, after), mode="replicate"), ratio, stride=1)


def _phases(x: Tensor, ratio: int) -> Tensor:
    """``[N, C, H, W] -> [N r r, C, H / r, W / r]``: a convolution on these is one dilated r times on ``x``."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // ratio, ratio, w // ratio, ratio)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(n * ratio**2, c, h // ratio, w // ratio)


def _from_phases(x: Tensor, ratio: int) -> Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n // ratio**2, ratio, ratio, c, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n // ratio**2, c, h * ratio, w * ratio)
