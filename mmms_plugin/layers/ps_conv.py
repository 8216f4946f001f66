"""Poly-Scale Convolution (PSConv), equation (3) of "PSConv: Squeezing Feature Pyramid into One Compact Poly-Scale
Convolutional Layer" (Li, Yao, Chen, 2020), sections 3.1 and 3.2; published code: github.com/d-li14/PSConv.

Deviations:
1. From the published code: one weight of the plain convolution's shape and no more than its multiply-adds. The
   published layer adds a dense dilation-1 convolution under a zero mask, 1.5 times the arithmetic and parameters.
2. From the published code: any channel count, kernel size, base dilation, padding, stride and pattern.
3. The published mask misses kernels of grouped layers; ``extra_dilation1=True`` holds the weights trained that way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.layers.dilation_lattice import (
    AXES,
    ORDERS,
    SubConv,
    check_pattern,
    decompose,
    dilation_matrix,
)
from mmms_plugin.layers.poly_scale_conv import PaddingMode, PolyScaleConv2d, Size, is_channels_last
from mmms_plugin.registry import MODELS

IMPLEMENTATIONS = ("grouped", "masked")
# Fewer channels a part than this: oneDNN has no fast grouped convolution, on the CPU a few separate ones are faster.
NARROW = 32
KernelTable = list[list[Tensor]]


@MODELS.register_module(name="PSConv")
class PSConv2d(PolyScaleConv2d, nn.Conv2d):
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
        extra_dilation1: hold in ``extra_weight`` the dilation-1 weights that the published grouped layers have besides
            (deviation 3), ``[C_out, n * C_in / groups / t, kh, kw]``, n = number of pattern entries other than 1.
        implementation: 'grouped' computes with grouped convolutions and no more multiply-adds than the plain layer
            where t divides the channels of a group; where not, it falls back to 'masked': a dense convolution for
            each dilation under a mask. The attribute ``implementation`` tells which one serves.

    Shape: ``[N, C_in, H, W] -> [N, C_out, H', W']`` (also unbatched, as ``nn.Conv2d``).
    Raises: ValueError for a bad argument.
    """

    lattice: Tensor
    extra_keep: Tensor

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
        self.channel_order, self.axes, self.extra_dilation1 = channel_order, axes, extra_dilation1
        pattern = (1,) if self.kernel_size == (1, 1) else self.dilation_pattern
        if channel_order == "cyclic" or len(set(pattern)) == 1:
            pattern = _one_period(pattern)  # the same D in fewer and larger blocks
        self._parts, self._subs = len(pattern), decompose(pattern, axes)
        divides = in_channels // groups % self._parts == 0 and out_channels // groups % self._parts == 0
        self.implementation = implementation if divides else "masked"
        if extra_dilation1:
            self._add_extra_weight(pattern)
        elif self.implementation == "masked" and self._parts > 1:
            lattice = self.dilation_matrix()[:, :, None, None].to(self.weight.device)
            self.register_buffer("lattice", lattice, persistent=False)

    def dilation_matrix(self) -> Tensor:
        """D without the base dilation: int64 ``[C_out, C_in / groups]``, the rows of all groups one after the other."""
        per_group = (self.out_channels // self.groups, self.in_channels // self.groups)
        lattice = dilation_matrix(self.dilation_pattern, *per_group, self.channel_order, self.axes)
        return lattice.repeat(self.groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self.forward(x[None])[0]
        if self._parts == 1:
            return self.dilated_conv2d(x, self.weight, self._subs[0].dilation, self.groups, self.bias)
        y = self._masked(x) if self.implementation == "masked" else self._grouped(x)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, dilation_pattern={self.dilation_pattern}, channel_order={self.channel_order!r}"
        text += f", axes={self.axes!r}" if self.axes != "both" else ""
        return text + (", extra_dilation1=True" if self.extra_dilation1 else "")

    def _masked(self, x: Tensor) -> Tensor:
        terms = []
        for multiple in sorted(set(self.dilation_pattern)):
            weight = self.weight * (self.lattice == multiple).to(self.weight.dtype)
            terms.append(self.dilated_conv2d(x, weight, multiple, self.groups))
        return _sum(terms)

    def _grouped(self, x: Tensor) -> Tensor:
        if self.channel_order == "cyclic":
            x = _regroup(x, (self.groups, -1, self._parts), _transpose_parts)
        kernels = self._kernel_table(self.weight, self._parts)
        merged = self._with_extra(kernels) if self.extra_dilation1 else kernels
        if self.groups == 1 and x.device.type == "cpu" and self.in_channels // self._parts < NARROW:
            y = self._block_by_block(x, kernels, merged)
            return _regroup(y, (1, self._parts, -1), _transpose_parts) if self.channel_order == "cyclic" else y
        terms = []
        for sub in self._subs:
            table = merged if sub.dilation == 1 else kernels
            blocks = [_dense_block(table, ins, outs) for ins, outs in sub.blocks]
            parts = self._take_parts(x, self._parts, sub.in_order)
            weight = torch.stack(blocks, 1).flatten(0, 2)
            terms.append(self.dilated_conv2d(parts, weight, sub.dilation, self.groups * len(blocks)))
        y = self._join(terms) if self.axes == "output" else self._sum_in_place_of_parts(terms)
        return _regroup(y, (self.groups, self._parts, -1), _transpose_parts) if self.channel_order == "cyclic" else y

    def _block_by_block(self, x: Tensor, kernels: KernelTable, merged: KernelTable) -> Tensor:
        """One convolution for each dense block, summed by output part."""
        terms: list[list[Tensor]] = [[] for _ in range(self._parts)]
        inputs: dict[tuple[int, ...], Tensor] = {}
        for sub in self._subs:
            table = merged if sub.dilation == 1 else kernels
            for ins, outs in sub.blocks:
                if ins not in inputs:
                    inputs[ins] = self._take_parts(x, self._parts, ins)
                y = self.dilated_conv2d(inputs[ins], _dense_block(table, ins, outs)[0], sub.dilation, 1)
                for out, part in zip(outs, y.chunk(len(outs), 1), strict=True):
                    terms[out].append(part)
        return torch.cat([_sum(parts) for parts in terms], 1)

    def _sum_in_place_of_parts(self, terms: list[Tensor]) -> Tensor:
        orders = [_inverse(sub.out_order) for sub in self._subs]
        return _sum([self._take_parts(term, self._parts, order) for term, order in zip(terms, orders, strict=True)])

    def _join(self, terms: list[Tensor]) -> Tensor:
        """Each output part has a single term where dilations vary along the output only: put them side by side."""
        views = [
            term.unflatten(1, (self.groups, len(sub.out_order), -1))
            for term, sub in zip(terms, self._subs, strict=True)
        ]
        order = [part for sub in self._subs for part in sub.out_order]
        y = self._take_parts(torch.cat(views, 2).flatten(1, 3), self._parts, _inverse(order))
        return y.contiguous(memory_format=torch.channels_last) if is_channels_last(terms[0]) else y

    def _take_parts(self, x: Tensor, parts: int, order: Sequence[int]) -> Tensor:
        """The channel parts of every group in the given order."""
        if list(order) == list(range(parts)):
            return x
        runs = _runs(order)
        return _regroup(
            x, (self.groups, parts, -1), lambda v, axis: torch.cat([v.narrow(axis, a, n) for a, n in runs], axis)
        )

    def _kernel_table(self, weight: Tensor, in_parts: int) -> KernelTable:
        """``table[out part][in part]``: views of the weight, each ``[groups, c_out, c_in, kh, kw]``."""
        t, g = self._parts, self.groups
        if self.channel_order == "block":
            rows = weight.unflatten(0, (g, t, -1)).unbind(1)
            return [list(row.unflatten(2, (in_parts, -1)).unbind(2)) for row in rows]
        rows = weight.unflatten(0, (g, -1, t)).unbind(2)
        return [list(row.unflatten(2, (-1, in_parts)).unbind(3)) for row in rows]

    def _add_extra_weight(self, pattern: tuple[int, ...]) -> None:
        if self.axes != "both" or self.implementation != "grouped" or self._parts == 1:
            raise ValueError(
                "extra_dilation1=True: allowed with axes='both', implementation='grouped', a pattern of several "
                f"dilations whose length divides the channels of a group, and a kernel size above 1; got {self}"
            )
        every = tuple(range(self._parts))
        self._extra_offsets = [offset for offset in every if pattern[offset] != 1]
        self._subs = [SubConv(1, ((every, every),)), *(sub for sub in self._subs if sub.dilation != 1)]
        columns = self.in_channels // self.groups // self._parts * len(self._extra_offsets)
        # Zero, so that a fresh layer is the paper's; a converted checkpoint brings its own values.
        self.extra_weight = nn.Parameter(self.weight.new_zeros(self.out_channels, columns, *self.kernel_size))
        keep = (
            ~published_mask(self.groups)
            if self._parts == 4
            else torch.ones(self.groups, *[self._parts] * 2, dtype=torch.bool)
        )
        self.register_buffer("extra_keep", keep.to(self.weight.device), persistent=False)

    def _with_extra(self, kernels: KernelTable) -> KernelTable:
        """The kernel table of the dense dilation-1 convolution: the layer's own kernels, the extra ones elsewhere."""
        extra = self._kernel_table(self.extra_weight, len(self._extra_offsets))
        table = [list(row) for row in kernels]
        for out in range(self._parts):
            for column, offset in enumerate(self._extra_offsets):
                inp = (out + offset) % self._parts
                keep = self.extra_keep[:, out, inp].view(-1, 1, 1, 1, 1)
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


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=lambda position: order[position])


def _runs(order: Sequence[int]) -> list[tuple[int, int]]:
    """``[(first, count), ...]`` of the ascending runs, so that neighbours are copied together."""
    runs: list[tuple[int, int]] = []
    for part in order:
        if runs and part == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((part, 1))
    return runs


def _dense_block(table: KernelTable, ins: Sequence[int], outs: Sequence[int]) -> Tensor:
    """One dense block of kernels, ``[groups, outs * c_out, ins * c_in, kh, kw]``."""
    return torch.cat([torch.cat([table[out][inp] for inp in ins], 2) for out in outs], 1)


def _regroup(x: Tensor, split: tuple[int, int, int], move: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply ``move(view, axis of the middle factor)`` to the channels viewed as ``split``; keeps channels_last."""
    last = is_channels_last(x)
    axis = 3 if last else 1
    y = move((x.movedim(1, 3) if last else x).unflatten(axis, split), axis + 1).flatten(axis, axis + 2)
    return y.movedim(3, 1) if last else y


def _transpose_parts(view: Tensor, axis: int) -> Tensor:
    return view.transpose(axis, axis + 1)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
