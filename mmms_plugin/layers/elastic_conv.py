"""Elastic as a convolution layer: section 3.2 of the ELASTIC paper (github.com/allenai/elastic), for any backbone.

1. The paper divides whole blocks. One convolution is divided as in the right of Figure 3: the branches have shares of
   the input channels and sum into all outputs, so the weight is the plain layer's; of a grouped layer, shares of the
   groups, as in the left of Figure 3.
2. A strided layer is the plain one, for "Elastic add-on is applied to all blocks except stride-2 ones" (section 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmms_plugin.layers.elastic import Downsample, ElasticPolicy, Upsample, check_map_size, sum_terms
from mmms_plugin.layers.partwise_conv import PaddingMode, PartwiseConv2d, Size
from mmms_plugin.registry import MODELS


@MODELS.register_module(name="ElasticConv")
class ElasticConv2d(PartwiseConv2d, nn.Conv2d):
    """Convolution whose input channels are seen at several resolutions, at the plain layer's parameters.

    ``y = sum_i U_i(conv(D_i(x[:, part i]), weight[:, part i]))``; with ``groups`` the parts are of groups instead.
    Multiply-adds are ``sum_i b_i / r_i^2`` of the plain layer's (Table 1).

    Args: as ``nn.Conv2d``, and
        ratios, shares, method, pool: see ``ElasticPolicy``.
    Shape: ``[N, C_in, H, W] -> [N, C_out, H', W']``.
    Raises: ValueError for a bad argument, a stride of 1 without the padding that keeps the size, and for maps smaller
        than the largest ratio.
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
