"""Elastic: parallel branches at several resolutions, summed. ELASTIC paper, section 3.2 (github.com/allenai/elastic).

``F(x) = sum_i U_i(T_i(D_i(x)))`` with branches ``T_i`` at 1/r_i of the resolution and shares b_i of the channels;
``resampling.py`` has D and U.

1. The paper divides whole blocks (``elastic_bottleneck``, left of Figure 3: the paths of a ResNeXt bottleneck). A
   single convolution (``ElasticConv2d``) is divided as on the right of Figure 3: each branch has a share of the input
   channels and adds to all outputs, so that the weight is the plain layer's. In a grouped layer, each branch has a
   share of the groups, as on the left of Figure 3.
2. A strided convolution is plain, since "Elastic add-on is applied to all blocks except stride-2 ones"
   (section 4).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.layers.channel_parts import PaddingMode, PartwiseConv2d, Size
from mmms_plugin.layers.common import is_capturing, sum_terms
from mmms_plugin.layers.function import PLAIN_CONV, CarriesFunction
from mmms_plugin.layers.resampling import METHODS, Downsample, Upsample, check_ratios
from mmms_plugin.registry import MODELS


@dataclass(frozen=True)
class ElasticPolicy:
    """How a layer is divided: section 3.2 and the options of Tables 6 and 7.

    Args:
        ratios: r_i, by which branch i lowers the resolution; 1 for full resolution.
        shares: b_i (1/b_i in Table 1), the share of the channels or groups of branch i; 0 for no branch.
        method: 'bilinear', 'nearest', 'trained' or 'dilated'.
        pool: whether average pooling lowers the resolution ("w/ AP"), or ``method``.

    Raises: ValueError for ratios that are not integers >= 1, shares that do not sum to 1, an unknown method.
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

        Counts are rounded, and add up to the total.

        Raises: ValueError if a branch with a share gets none.
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


class Elastic(nn.Module):
    """Equation (3): run each branch at 1/ratio of the resolution and sum. A branch may be any module.

    Args:
        branches: by name, which becomes part of the state-dict keys. Each maps ``[N, C_in, h, w]`` to
            ``[N, C_out, h, w]``; if one has a ratio of 1, they may share a stride.
        ratios: one for each branch.
        method: as for ``ElasticPolicy``.
        pool: as for ``ElasticPolicy``.
        in_channels: C_in, needed by 'trained' only.
        out_channels: C_out, needed by 'trained' only.

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


class BottleneckPath(nn.Sequential):
    """1x1, grouped 3x3 and 1x1 layer: ``[N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]``.

    Section 4.1.1 computes the scale policy score from the activations of ``relu2``.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        stride: int,
        dilation: int,
        groups: int,
        norm: Callable[[int], nn.Module],
    ) -> None:
        conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, groups, bias=False)
        layers = OrderedDict(
            conv1=nn.Conv2d(in_channels, width, 1, bias=False),
            bn1=norm(width),
            relu1=nn.ReLU(inplace=True),
            conv2=conv2,
            bn2=norm(width),
            relu2=nn.ReLU(inplace=True),
            conv3=nn.Conv2d(width, out_channels, 1, bias=False),
        )
        super().__init__(layers)


def elastic_bottleneck(
    policy: ElasticPolicy,
    in_channels: int,
    width: int,
    out_channels: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 32,
    lower: bool = True,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
) -> Elastic:
    """The summed paths of one bottleneck, ``[N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]``.

    Args:
        policy: ratios and shares; the shares divide the groups, and the ``width`` channels with them.
        in_channels: of the block.
        width: channels of the 3x3 layers of all paths together.
        out_channels: of the block.
        stride: of the 3x3 layers.
        dilation: of the 3x3 layers.
        groups: of the 3x3 layers of all paths together.
        lower: False keeps all branches at full resolution, as in strided blocks and the last stage.
        norm: makes the norm layer for a number of channels.

    Branches are called ``high``, ``low``, ``low2``, ... in the order of the policy.
    Raises: ValueError if ``groups`` does not divide ``width`` or is too small for the shares.
    """
    if groups < 1 or width < 1 or width % groups:
        raise ValueError(f"groups={groups}: must divide the width of the 3x3 layer, which is {width}")
    branches, ratios = {}, []
    for i, (ratio, count) in enumerate(policy.divide(groups, "groups")):
        name = ("high", "low")[i] if i < 2 else f"low{i}"
        branches[name] = BottleneckPath(
            in_channels, width // groups * count, out_channels, stride, dilation, count, norm
        )
        ratios.append(ratio if lower else 1)
    return Elastic(branches, ratios, policy.method, policy.pool, in_channels=in_channels, out_channels=out_channels)


@MODELS.register_module(name="ElasticConv")
class ElasticConv2d(CarriesFunction, PartwiseConv2d, nn.Conv2d):
    """Convolution that processes its input channels at several resolutions, with the plain layer's parameters.

    ``y = sum_i U_i(conv(D_i(x[:, part i]), weight[:, part i]))``; with ``groups`` the parts are of groups instead.
    Multiply-adds are ``sum_i b_i / r_i^2`` of the plain layer's (Table 1).

    Args: as ``nn.Conv2d``, and
        ratios, shares, method, pool: see ``ElasticPolicy``.
    Shape: ``[N, C_in, H, W] -> [N, C_out, H', W']``.
    Raises: ValueError for a bad argument, a stride of 1 without the padding that keeps the size, and for maps smaller
        than the largest ratio. ``load_state_dict`` refuses weights of another policy (``CarriesFunction``).
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
        ratios: Sequence[int] = (1, 2),
        shares: Sequence[float] = (0.5, 0.5),
        method: str = "bilinear",
        pool: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.policy = policy = ElasticPolicy(ratios, shares, method, pool)
        parts = [(1, in_channels)] if self.stride != (1, 1) else self._divide(policy)
        self.ratios, self.widths = [ratio for ratio, _ in parts], [width for _, width in parts]
        lowered = [i for i, ratio in enumerate(self.ratios) if ratio > 1]
        if lowered:
            self._check_size_is_kept()
        outputs = [out_channels if groups == 1 else width // (in_channels // groups) * (out_channels // groups)
                   for width in self.widths]  # fmt: skip
        self.outputs = outputs
        down = {str(i): Downsample(self.ratios[i], method, pool, self.widths[i]) for i in lowered}
        up = {str(i): Upsample(self.ratios[i], method, outputs[i]) for i in lowered}
        self.down, self.up = nn.ModuleDict(down).to(device, dtype), nn.ModuleDict(up).to(device, dtype)

    def function(self) -> dict[str, Any]:
        """The policy, whatever the stride: with the strides of another task, the weights may still be loaded."""
        policy = self.policy
        if max(policy.ratios) == 1:
            return dict(PLAIN_CONV)
        shares = [float(share) for share in policy.shares]
        return dict(ratios=list(policy.ratios), shares=shares, method=policy.method, pool=policy.pool)

    def _divide(self, policy: ElasticPolicy) -> list[tuple[int, int]]:
        """Ratio and number of input channels of every branch."""
        if self.groups == 1:
            return policy.divide(self.in_channels, "in_channels")
        width = self.in_channels // self.groups
        return [(ratio, count * width) for ratio, count in policy.divide(self.groups, "groups")]

    def _check_size_is_kept(self) -> None:
        spans = [self.dilation[axis] * (self.kernel_size[axis] - 1) for axis in (0, 1)]
        if any(sum(self.padding_of(axis, 1)) != span for axis, span in enumerate(spans)):
            raise ValueError(
                f"padding={self.padding!r}: must be {tuple(span / 2 for span in spans)}, which keeps the size of the "
                "map, as branches of lower resolution need"
            )

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self.forward(x[None])[0]
        check_map_size(x, max(self.ratios))
        size = (x.shape[-2], x.shape[-1])
        weights = self.weight.split(self.widths, 1) if self.groups == 1 else self.weight.split(self.outputs)
        terms = []
        for i, (part, weight) in enumerate(zip(x.split(self.widths, 1), weights, strict=True)):
            groups = 1 if self.groups == 1 else part.shape[1] // weight.shape[1]
            low = str(i) in self.down
            y = self.conv_part(self.down[str(i)](part) if low else part, weight, groups)
            terms.append(self.up[str(i)](y, size) if low else y)
        y = sum_terms(terms) if self.groups == 1 else torch.cat(terms, 1)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        plain = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{plain}, ratios={self.policy.ratios}, shares={self.policy.shares}"


def check_map_size(x: Tensor, ratio: int) -> None:
    """ValueError if the map ``x`` is smaller than the ratio; unchecked in captured graphs, whose sizes are symbols."""
    if is_capturing():
        return
    height, width = x.shape[-2:]
    if min(height, width) < ratio:
        raise ValueError(
            f"map of {height} x {width} is too small: height and width must be at least the ratio, {ratio}"
        )


def _are_numbers(shares: Sequence[float], count: int) -> bool:
    listed = shares if isinstance(shares, Sequence) else ()
    return len(listed) == count and all(isinstance(share, int | float) and share >= 0 for share in listed)
