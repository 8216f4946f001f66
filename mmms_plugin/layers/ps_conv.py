"""Poly-Scale Convolution (PSConv), equation (3) of "PSConv: Squeezing Feature Pyramid into One Compact Poly-Scale
Convolutional Layer" (Li, Yao, Chen, 2020), sections 3.1 and 3.2; published code: github.com/d-li14/PSConv.

Deviations:
1. From the published code: one weight of the plain convolution's shape and no more than its multiply-adds. The
   published layer adds a dense dilation-1 convolution under a zero mask, 1.5 times the arithmetic and parameters.
2. From the published code: any channel count, kernel size, base dilation, padding, stride and pattern.
3. The published mask misses kernels of grouped layers; ``extra_dilation1=True`` holds the weights trained that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.layers.channel_parts import (
    PaddingMode,
    PartwiseConv2d,
    Size,
    inverse,
    is_channels_last,
    regroup,
    take_parts,
    transpose_parts,
)
from mmms_plugin.layers.common import is_exporting, sum_terms
from mmms_plugin.layers.dilation_lattice import AXES, ORDERS, SubConv, check_pattern, decompose, dilation_matrix
from mmms_plugin.layers.function import PLAIN_CONV, CarriesFunction
from mmms_plugin.registry import MODELS

IMPLEMENTATIONS = ("grouped", "masked")
# With fewer channels in a part than this, oneDNN is slow at grouped convolutions; on a CPU separate ones are faster.
NARROW = 32
KernelTable = list[list[Tensor]]


@MODELS.register_module(name="PSConv")
class PSConv2d(CarriesFunction, PartwiseConv2d, nn.Conv2d):
    """Convolution whose kernels carry a cyclic pattern of dilations along input and output channels.

    ``y[n, c, i, j] = sum_{k, u, v} weight[c, k, u, v] * x[n, k, i + (u - U) * D[c, k], j + (v - V) * D[c, k]]``
    (stride 1, kernel centre (U, V), k within the group), with ``D[c, k] = dilation * pattern[(k - c) mod t]``.
    A drop-in for ``nn.Conv2d``: same arguments, same ``weight`` and ``bias``, same output size.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            as for ``nn.Conv2d``; ``padding`` is given for the base ``dilation`` and widened where the pattern dilates
            more. With an even kernel and an odd widening, the odd pixel goes to the bottom and right.
        dilation_pattern: multiples of the base dilation, any length t. The authors' checkpoints need (2, 1, 4, 1),
            which is the paper's {1, 2, 1, 4} begun one step later.
        channel_order: 'block' counts c and k in t contiguous parts of each group's channels, as equal as possible
            (channel i of C is in part ``i * t // C``; the authors' layout), 'cyclic' channel by channel (figure 2).
        axes: 'both', or Table 5's 'input' (``pattern[k mod t]``) or 'output' (``pattern[c mod t]``) alone.
        extra_dilation1: True gives a ``PublishedPSConv2d``, which also holds the dilation-1 weights that the published
            grouped layers have (deviation 3).
        implementation: 'grouped' computes with grouped convolutions and no more multiply-adds than the plain layer
            where t divides the channels of a group; where not, it falls back to 'masked': a dense convolution for
            each dilation under a mask. The attribute ``implementation`` says which one is used.

    Shape: ``[N, C_in, H, W] -> [N, C_out, H', W']`` (also unbatched, as ``nn.Conv2d``).
    Raises: ValueError for a bad argument. ``load_state_dict`` refuses weights of another pattern (``CarriesFunction``).
    """

    # The bases name nn.Conv2d although PartwiseConv2d is one: mmengine's init_cfg with layer='Conv2d' looks at the
    # names of a layer's class and its direct bases only, and would leave the weights as torch draws them.

    lattice: Tensor
    extra_dilation1 = False

    def __new__(cls, *args: Any, extra_dilation1: bool = False, **kwargs: Any) -> PSConv2d:
        """The subclass that holds the extra weights, if they are asked for: configs name one type and set a flag."""
        return super().__new__(PublishedPSConv2d if extra_dilation1 else cls)

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
        dilation_pattern: Sequence[int] = (1, 2, 1, 4),
        channel_order: str = "block",
        axes: str = "both",
        extra_dilation1: bool = False,
        implementation: str = "grouped",
    ) -> None:
        self.dilation_pattern = check_pattern(dilation_pattern)
        check_choice("channel_order", channel_order, ORDERS)
        check_choice("axes", axes, AXES)
        check_choice("implementation", implementation, IMPLEMENTATIONS)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self.channel_order, self.axes = channel_order, axes
        pattern = (1,) if self.kernel_size == (1, 1) else self.dilation_pattern
        if channel_order == "cyclic" or len(set(pattern)) == 1:
            pattern = _one_period(pattern)  # the same D in fewer and larger blocks
        self._parts, self._subs = len(pattern), decompose(pattern, axes)
        divides = in_channels // groups % self._parts == 0 and out_channels // groups % self._parts == 0
        self.implementation = implementation if divides else "masked"
        self._add_tensors(pattern)

    def _add_tensors(self, pattern: tuple[int, ...]) -> None:
        """Register what the forward pass needs beside weight and bias."""
        if self.implementation == "masked" and self._parts > 1:
            lattice = self.dilation_matrix()[:, :, None, None].to(self.weight.device)  # [C_out, C_in / groups, 1, 1]
            self.register_buffer("lattice", lattice, persistent=False)

    def dilation_matrix(self) -> Tensor:
        """D without the base dilation: int64 ``[C_out, C_in / groups]``, the rows of all groups one after the other."""
        per_group = (self.out_channels // self.groups, self.in_channels // self.groups)
        lattice = dilation_matrix(self.dilation_pattern, *per_group, self.channel_order, self.axes)
        return lattice.repeat(self.groups, 1)

    def function(self) -> dict[str, Any]:
        """The arguments that make up the lattice; a pattern of ones makes a plain convolution, whatever the others."""
        if self.kernel_size == (1, 1) or set(self.dilation_pattern) == {1}:
            return dict(PLAIN_CONV)
        pattern = list(self.dilation_pattern)
        return dict(dilation_pattern=pattern, channel_order=self.channel_order, axes=self.axes)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self.forward(x[None])[0]
        if self._parts == 1:
            return self.conv_part(x, self.weight, self.groups, multiple=self._subs[0].dilation, bias=self.bias)
        y = self._masked(x) if self.implementation == "masked" else self._grouped(x)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        plain = super().extra_repr()  # type: ignore[no-untyped-call]
        text = f"{plain}, dilation_pattern={self.dilation_pattern}, channel_order={self.channel_order!r}"
        return text + (f", axes={self.axes!r}" if self.axes != "both" else "")

    def _masked(self, x: Tensor) -> Tensor:
        terms = []
        for multiple in sorted(set(self.dilation_pattern)):
            weight = self.weight * (self.lattice == multiple).to(self.weight.dtype)
            terms.append(self.conv_part(x, weight, self.groups, multiple=multiple))
        return sum_terms(terms)

    def _grouped(self, x: Tensor) -> Tensor:
        g, t = self.groups, self._parts
        if self.channel_order == "cyclic":
            x = regroup(x, (g, -1, t), transpose_parts)  # [N, g, c, t, H, W] -> [N, g, t, c, H, W]: block order
        kernels = self._kernel_table(self.weight, t)
        narrow = g == 1 and x.device.type == "cpu" and self.in_channels // t < NARROW
        # an exported graph may run on another device, where one convolution for each dilation is quicker
        compute = self._block_by_block if narrow and not is_exporting() else self._dilation_by_dilation
        y = compute(x, kernels)
        # [N, g, t, c, H', W'] -> [N, g, c, t, H', W']: back to cyclic order
        return regroup(y, (g, t, -1), transpose_parts) if self.channel_order == "cyclic" else y

    def _table_of(self, sub: SubConv, kernels: KernelTable) -> KernelTable:
        """The kernels that a grouped convolution applies; a subclass may hold others than the layer's own."""
        return kernels

    def _dilation_by_dilation(self, x: Tensor, kernels: KernelTable) -> Tensor:
        """One grouped convolution for each ``SubConv``: ``[N, C_in, H, W] -> [N, C_out, H', W']``, parts in blocks."""
        terms = []
        for sub in self._subs:
            table = self._table_of(sub, kernels)
            blocks = [_dense_block(table, ins, outs) for ins, outs in sub.blocks]
            inputs = take_parts(x, self.groups, self._parts, sub.in_order)
            # [g, blocks, outs * c_out, ins * c_in, kh, kw] -> [g * blocks * outs * c_out, ins * c_in, kh, kw]
            weight = torch.stack(blocks, 1).flatten(0, 2)
            terms.append(self.conv_part(inputs, weight, self.groups * len(blocks), multiple=sub.dilation))
        return self._join(terms) if self.axes == "output" else self._sum_in_place_of_parts(terms)

    def _block_by_block(self, x: Tensor, kernels: KernelTable) -> Tensor:
        """One convolution for each dense block of the only group, summed by output part."""
        terms: list[list[Tensor]] = [[] for _ in range(self._parts)]
        inputs: dict[tuple[int, ...], Tensor] = {}
        for sub in self._subs:
            table = self._table_of(sub, kernels)
            for ins, outs in sub.blocks:
                if ins not in inputs:
                    inputs[ins] = take_parts(x, 1, self._parts, ins)  # [N, ins * c_in, H, W]
                block = _dense_block(table, ins, outs)[0]  # [outs * c_out, ins * c_in, kh, kw]
                y = self.conv_part(inputs[ins], block, 1, multiple=sub.dilation)
                for out, part in zip(outs, y.chunk(len(outs), 1), strict=True):  # [N, c_out, H', W'] each
                    terms[out].append(part)
        return torch.cat([sum_terms(parts) for parts in terms], 1)

    def _sum_in_place_of_parts(self, terms: list[Tensor]) -> Tensor:
        """Sum ``[N, g * t * c_out, H', W']`` terms, whose parts are in the order of their convolution's blocks."""
        orders = [inverse(sub.out_order) for sub in self._subs]
        pairs = zip(terms, orders, strict=True)
        return sum_terms([take_parts(term, self.groups, self._parts, order) for term, order in pairs])

    def _join(self, terms: list[Tensor]) -> Tensor:
        """Each output part has a single term where dilations vary along the output only: put them side by side."""
        pairs = zip(terms, self._subs, strict=True)
        # each [N, g * outs * c, H', W'] -> [N, g, outs, c, H', W']
        views = [term.unflatten(1, (self.groups, len(sub.out_order), -1)) for term, sub in pairs]
        order = [part for sub in self._subs for part in sub.out_order]
        joined = torch.cat(views, 2).flatten(1, 3)  # [N, g, t, c, H', W'] -> [N, C_out, H', W']
        y = take_parts(joined, self.groups, self._parts, inverse(order))
        return y.contiguous(memory_format=torch.channels_last) if is_channels_last(terms[0]) else y

    def _kernel_table(self, weight: Tensor, in_parts: int) -> KernelTable:
        """``table[out part][in part]``, each ``[g, c_out, c_in, kh, kw]``: views of a weight ``[C_out, C, kh, kw]``."""
        g, t = self.groups, self._parts
        if self.channel_order == "block":
            rows = weight.unflatten(0, (g, t, -1)).unbind(1)  # [g, t, c_out, ...] -> t x [g, c_out, ...]
            # [g, c_out, in_parts * c_in, kh, kw] -> [g, c_out, in_parts, c_in, kh, kw] -> in_parts views
            return [list(row.unflatten(2, (in_parts, -1)).unbind(2)) for row in rows]
        rows = weight.unflatten(0, (g, -1, t)).unbind(2)  # [g, c_out, t, ...] -> t x [g, c_out, ...]
        # [g, c_out, c_in * in_parts, kh, kw] -> [g, c_out, c_in, in_parts, kh, kw] -> in_parts views
        return [list(row.unflatten(2, (-1, in_parts)).unbind(3)) for row in rows]


class PublishedPSConv2d(PSConv2d, nn.Conv2d):
    """PSConv as published for grouped layers: kernels at dilation 1 where the zero mask misses them (deviation 3).

    ``extra_weight`` has a dilation-1 kernel for every kernel of another dilation. It is zero at first, so that a fresh
    layer is the paper's. Its shape is ``[C_out, n * C_in / groups / t, kh, kw]``, n the pattern entries other than 1.

    Args: as ``PSConv2d``, of which this is made by ``extra_dilation1=True``.
    Shape: ``[N, C_in, H, W] -> [N, C_out, H', W']``.
    Raises: ValueError for a bad argument, and where 'grouped' cannot be used.
    """

    extra_keep: Tensor
    extra_dilation1 = True

    def _add_tensors(self, pattern: tuple[int, ...]) -> None:
        if self.axes != "both" or self.implementation != "grouped" or self._parts == 1:
            raise ValueError(
                "extra_dilation1=True: allowed with axes='both', implementation='grouped', a pattern of several "
                f"dilations whose length divides the channels of a group, and a kernel size above 1; got {self}"
            )
        t, every = self._parts, tuple(range(self._parts))
        self._extra_offsets = [offset for offset in every if pattern[offset] != 1]
        self._subs = [SubConv(1, ((every, every),)), *(sub for sub in self._subs if sub.dilation != 1)]
        columns = self.in_channels // self.groups // t * len(self._extra_offsets)
        self.extra_weight = nn.Parameter(self.weight.new_zeros(self.out_channels, columns, *self.kernel_size))
        keep = ~published_mask(self.groups) if t == 4 else torch.ones(self.groups, t, t, dtype=torch.bool)
        self.register_buffer("extra_keep", keep.to(self.weight.device), persistent=False)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, extra_dilation1=True"

    def _table_of(self, sub: SubConv, kernels: KernelTable) -> KernelTable:
        """For dilation 1, which is dense here, the layer's kernels of that dilation, and the extra ones elsewhere."""
        if sub.dilation != 1:
            return kernels
        extra = self._kernel_table(self.extra_weight, len(self._extra_offsets))
        table = [list(row) for row in kernels]
        for out in range(self._parts):
            for column, offset in enumerate(self._extra_offsets):
                inp = (out + offset) % self._parts
                keep = self.extra_keep[:, out, inp].view(-1, 1, 1, 1, 1)  # [g] -> [g, 1, 1, 1, 1]
                table[out][inp] = extra[out][column] * keep.to(self.extra_weight.dtype)
        return table


def published_mask(groups: int) -> Tensor:
    """Kernels whose dilation-1 weight the published code zeroes: bool ``[groups, 4 out parts, 4 in parts]``.

    It indexes row blocks by ``i + j * groups`` where ``i + 4 * j`` was meant, so that with 32 groups only every eighth
    group is masked (github.com/d-li14/PSConv). Row blocks past the end are silently empty there.
    """
    mask = torch.zeros(groups * 4, 4, dtype=torch.bool)
    for i in range(4):
        for j in range(groups):
            row = i + j * groups
            if row < len(mask):
                mask[row, i] = mask[row, (i + 2) % 4] = True
    return mask.view(groups, 4, 4)


def _one_period(pattern: tuple[int, ...]) -> tuple[int, ...]:
    t = len(pattern)
    return next(pattern[:p] for p in range(1, t + 1) if t % p == 0 and pattern[:p] * (t // p) == pattern)


def _dense_block(table: KernelTable, ins: Sequence[int], outs: Sequence[int]) -> Tensor:
    """One dense block of kernels, ``[g, outs * c_out, ins * c_in, kh, kw]``."""
    return torch.cat([torch.cat([table[out][inp] for inp in ins], 2) for out in outs], 1)
