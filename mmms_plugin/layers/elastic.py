"""Elastic: parallel branches at several resolutions, summed. ELASTIC paper, section 3.2 (github.com/allenai/elastic).

``F(x) = sum_i U_i(T_i(D_i(x)))`` with branches ``T_i`` at 1/r_i of the resolution and shares b_i of the channels.
Sizes that r_i does not divide are extended by repeating the last row and column, and the up-sampled map is cropped.

1. The authors' code has r = (1, 2) and average pooling with bilinear up-sampling only; other integers work alike.
2. Table 6 names its methods without defining them. Here 'trained' is one filter a channel, strided down and transposed
   up, that starts as average pooling and bilinear up-sampling (a trace of the latter is in the authors' code), and
   'dilated' keeps the branch at full resolution with its kernels dilated r times, which is what gives the 3.6 GFLOPs of
   that row; "w/ AP" then averages r x r pixels with stride 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.layers.fit_to import fit_to
from mmms_plugin.layers.graph_capture import is_capturing
from mmms_plugin.layers.halve_double import double, halve

METHODS = ("bilinear", "nearest", "trained", "dilated")


@dataclass(frozen=True)
class ElasticPolicy:
    """How a layer is divided: section 3.2 and the choices of Tables 6 and 7.

    Args:
        ratios: r_i, by which branch i lowers the resolution; 1 is full resolution.
        shares: b_i (1/b_i in Table 1), the part of the channels or groups that branch i has; a share of 0 is no branch.
        method: 'bilinear', 'nearest', 'trained' or 'dilated'.
        pool: lower the resolution by average pooling ("w/ AP"); otherwise as ``method`` says.

    Raises: ValueError for ratios that are no integers >= 1, shares that do not sum to 1, an unknown method.
    """

    ratios: Sequence[int] = (1, 2)
    shares: Sequence[float] = (0.5, 0.5)
    method: str = "bilinear"
    pool: bool = True

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        if not _are_numbers(self.shares, len(self.ratios)) or not abs(sum(self.shares) - 1) <= 1e-6:
            raise ValueError(
                f"shares={self.shares!r}: allowed are {len(self.ratios)} numbers >= 0 that sum to 1, one for each ratio"
            )
        check_choice("method", self.method, METHODS)

    def divide(self, total: int, name: str) -> list[tuple[int, int]]:
        """``[(ratio, count), ...]`` of the branches: ``total``, the value of argument ``name``, divided by the shares.

        Counts are rounded so that they add up. ValueError if a branch with a share gets none.
        """
        branches = sum(share > 0 for share in self.shares)
        if total < branches:
            raise ValueError(
                f"{name}={total}: must be at least {branches}, one for each branch of shares={self.shares!r}"
            )
        ends = [round(total * sum(self.shares[: i + 1])) for i in range(len(self.shares))]
        counts = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        if any(share > 0 and count == 0 for share, count in zip(self.shares, counts, strict=True)):
            raise ValueError(f"shares={self.shares!r}: too small a share, its branch gets none of {name}={total}")
        return [(ratio, count) for ratio, count in zip(self.ratios, counts, strict=True) if count]


class Downsample(nn.Module):
    """D_r: ``[N, C, H, W] -> [N, C, ceil(H / r), ceil(W / r)]``; 'dilated' gives ``[N r r, C, ...]``, all r x r phases.

    Args: ratio r; method, pool as ``ElasticPolicy``; channels C, needed by 'trained' without pooling only.
    Without pooling 'bilinear' takes the value at the middle of r x r pixels and 'nearest' their first pixel.
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

    Args: ratio r; method as ``ElasticPolicy``; channels C, needed by 'trained' only.
    """

    def __init__(self, ratio: int, method: str = "bilinear", channels: int | None = None) -> None:
        super().__init__()
        check_ratios((ratio,))
        check_choice("method", method, METHODS)
        self.ratio, self.method = ratio, method
        if method == "trained":
            self.weight = nn.Parameter(_bilinear_kernel(ratio).repeat(_channels(channels), 1, 1, 1))

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
        elif r == 2:
            y = double(x)
        else:
            y = F.interpolate(x, _times(x, r), mode="bilinear", align_corners=False)
        return fit_to(y, size)

    def extra_repr(self) -> str:
        return f"{self.ratio}, method={self.method!r}"


class Elastic(nn.Module):
    """Equation (3): run each branch at 1/ratio of the resolution and sum. A branch may be any module.

    Args:
        branches: by name, which becomes part of the state-dict keys. Each maps ``[N, C_in, h, w]`` to
            ``[N, C_out, h, w]``; with a ratio of 1 among them they may share a stride.
        ratios: one for each branch.
        method, pool: as ``ElasticPolicy``. in_channels, out_channels: needed by 'trained' only.

    Shape: ``[N, C_in, H, W] -> [N, C_out, H, W]``.
    Raises: ValueError for a bad argument, and for maps smaller than the largest ratio.
    """

    def __init__(
        self,
        branches: Mapping[str, nn.Module],
        ratios: Sequence[int],
        method: str = "bilinear",
        pool: bool = True,
        *,
        in_channels: int | None = None,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        check_ratios(ratios)
        if len(ratios) != len(branches):
            raise ValueError(f"ratios={ratios!r}: allowed are {len(branches)} integers >= 1, one for each branch")
        self.ratios = dict(zip(branches, ratios, strict=True))
        for name, branch in branches.items():
            self.add_module(name, branch)
        lowered = {name: ratio for name, ratio in self.ratios.items() if ratio > 1}
        self.down = nn.ModuleDict({n: Downsample(r, method, pool, in_channels) for n, r in lowered.items()})
        self.up = nn.ModuleDict({n: Upsample(r, method, out_channels) for n, r in lowered.items()})

    def forward(self, x: Tensor) -> Tensor:
        check_map_size(x, max(self.ratios.values()))
        terms = [self.get_submodule(name)(x) for name, ratio in self.ratios.items() if ratio == 1]
        height, width = (terms[0] if terms else x).shape[-2:]
        for name, down in self.down.items():
            terms.append(self.up[name](self.get_submodule(name)(down(x)), (height, width)))
        return sum_terms(terms)


def sum_terms(terms: Sequence[Tensor]) -> Tensor:
    """The sum of at least one tensor, without the zero that ``sum`` starts from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def check_ratios(ratios: Sequence[int]) -> None:
    """ValueError unless ``ratios`` are integers >= 1, at least one."""
    listed = ratios if isinstance(ratios, Sequence) else ()
    if not listed or any(isinstance(r, bool) or not isinstance(r, int) or r < 1 for r in listed):
        raise ValueError(f"ratios={ratios!r}: allowed are integers >= 1, at least one")


def _are_numbers(shares: Sequence[float], count: int) -> bool:
    listed = shares if isinstance(shares, Sequence) else ()
    return len(listed) == count and all(isinstance(share, int | float) and share >= 0 for share in listed)


def check_map_size(x: Tensor, ratio: int) -> None:
    """ValueError if the map ``x`` is smaller than the ratio. Not while a graph is captured: its sizes are symbols."""
    if is_capturing():
        return
    height, width = x.shape[-2:]
    if min(height, width) < ratio:
        raise ValueError(
            f"map of {height} x {width} is too small: height and width must be at least the ratio, {ratio}"
        )


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


def _bilinear_kernel(ratio: int) -> Tensor:
    """``[2r - r % 2, 2r - r % 2]`` transposed kernel that up-samples bilinearly."""
    size = 2 * ratio - ratio % 2
    line = 1 - (torch.arange(size) - (size - 1) / 2).abs() / ratio
    return line[:, None] * line
