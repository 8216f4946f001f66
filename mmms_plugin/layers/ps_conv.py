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
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmms_plugin.arguments import check_choice
from mmms_plugin.layers.channel_parts import (
    ConvGeometry,
    PaddingMode,
    PartwiseConv2d,
    Size,
    inverse,
    is_channels_last,
    regroup,
    take_parts,
    transpose_parts,
)
from mmms_plugin.layers.common import is_capturing, is_observed, is_transformed, sum_terms
from mmms_plugin.layers.conv_sum import (
    GroupedTerm,
    KernelTable,
    MaskedTerm,
    SumOfConvs,
    Term,
    computed_format,
    dense_block,
    kernel_table,
    memory_format,
)
from mmms_plugin.layers.dilation_lattice import AXES, ORDERS, SubConv, check_pattern, decompose, dilation_matrix
from mmms_plugin.layers.function import PLAIN_CONV, CarriesFunction
from mmms_plugin.registry import MODELS

IMPLEMENTATIONS = ("grouped", "masked")
# On a CPU, oneDNN is slow at grouped convolutions of few channels. With fewer in a part than NARROW, the convolutions
# of a single group are computed one by one. With no more in a group than DENSE, all its kernels under a mask are faster
# than those of its parts, though they have as many more multiply-adds as there are dilations; groups of less than LANES
# channels are merged for it. Parts of one channel have depthwise convolutions, which oneDNN computes fast.
NARROW = 32
DENSE = 16
LANES = 8


class AssembledConv(NamedTuple):
    """A convolution with the kernels of one dilation, in the layer's stride and padding.

    Args:
        multiple: of the layer's dilation.
        groups: of this convolution.
        inputs: the layer's input channels in the order in which it takes them, ``[c_in]``.
        weight: ``[C_out, c_in / groups, kh, kw]``.
    """

    multiple: int
    groups: int
    inputs: Tensor
    weight: Tensor


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
            each dilation under a mask. The attribute ``implementation`` says which one is used. On a CPU, 'grouped'
            also uses masks where that is faster: in several groups of at most 16 channels.

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
        small = self.groups > 1 and max(self.in_channels, self.out_channels) <= DENSE * self.groups
        if self._parts > 1 and (small or self.implementation == "masked"):
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
        eager_cpu = x.device.type == "cpu" and not is_capturing() and not is_observed()
        if self._is_masked(eager_cpu):
            y = self._masked(x)
        else:
            # with gradients, the copies would be kept for the backward pass
            narrow = eager_cpu and self._is_narrow() and not torch.is_grad_enabled()
            y = self._grouped(x, self._block_by_block if narrow else self._dilation_by_dilation)
        if self.bias is None:
            return y
        bias = self.bias.to(y.dtype).view(1, -1, 1, 1)
        return y + bias if torch.is_grad_enabled() or is_capturing() else y.add_(bias)

    def assembled(self) -> tuple[list[AssembledConv], Tensor]:
        """The convolutions that add up to the layer, with the kernels they apply; their number is that of dilations.

        Returns: the convolutions, and the channel of their sum that is each of the layer's outputs, ``[C_out]``.
        """
        weight = self.weight.detach()
        columns, rows = (torch.arange(n, device=weight.device) for n in (self.in_channels, self.out_channels))
        if self._parts == 1:
            return [AssembledConv(self._subs[0].dilation, self.groups, columns, weight)], rows
        if self.implementation == "masked" or self.axes == "output":
            lattice = self.dilation_matrix()[:, :, None, None].to(weight.device)
            masks = {
                multiple: (lattice == multiple).to(weight.dtype) for multiple in sorted(set(self.dilation_pattern))
            }
            return [AssembledConv(m, self.groups, columns, weight * mask) for m, mask in masks.items()], rows
        g, t = self.groups, self._parts
        if self.channel_order == "cyclic":
            columns = columns.unflatten(0, (g, -1, t)).transpose(1, 2).flatten()  # of each place in block order
        convs = []
        for sub in self._subs:
            term = GroupedTerm(self.geometry(sub.dilation, (0, 0)), sub, g, t)
            inputs = take_parts(columns.view(1, -1, 1, 1), g, t, sub.in_order).flatten()
            convs.append(
                AssembledConv(sub.dilation, term.groups, inputs, term.kernels(self._in_block_order(weight, t)))
            )
        outputs = term.outputs(rows.view(1, -1, 1, 1)).flatten()
        if self.channel_order == "cyclic":
            outputs = outputs.unflatten(0, (g, t, -1)).transpose(1, 2).flatten()
        return convs, outputs

    def extra_repr(self) -> str:
        plain = super().extra_repr()  # type: ignore[no-untyped-call]
        text = f"{plain}, dilation_pattern={self.dilation_pattern}, channel_order={self.channel_order!r}"
        return text + (f", axes={self.axes!r}" if self.axes != "both" else "")

    def _is_masked(self, eager_cpu: bool) -> bool:
        return self.implementation == "masked" or (eager_cpu and hasattr(self, "lattice"))

    def _is_narrow(self) -> bool:
        return self.groups == 1 and self.in_channels // self._parts < NARROW

    def _masked(self, x: Tensor) -> Tensor:
        if terms := self._terms(masked=True):
            return _sum_of_convs(x, self.weight, terms)
        weights = {multiple: self._masked_weight(multiple, mask) for multiple, mask in self._masks().items()}
        return sum_terms([self.conv_part(x, weight, self.groups, multiple=m) for m, weight in weights.items()])

    def _masks(self) -> dict[int, Tensor]:
        """The kernels of each multiple of the dilation, bool: autocast chooses the dtype of the weights."""
        return {multiple: self.lattice == multiple for multiple in sorted(set(self.dilation_pattern))}

    def _terms(self, masked: bool) -> tuple[Term, ...]:
        """What ``SumOfConvs`` adds up; none where torch's own operators are needed."""
        geometries = self._geometries()
        if not geometries or self.extra_dilation1 or (not masked and self.axes == "output"):
            return ()
        if masked:
            return self._depthwise_terms(geometries) or self._masked_terms(geometries)
        return tuple(GroupedTerm(geometries[sub.dilation], sub, self.groups, self._parts) for sub in self._subs)

    def _masked_terms(self, geometries: dict[int, ConvGeometry]) -> tuple[Term, ...]:
        narrowest = min(self.in_channels, self.out_channels) // self.groups
        merged = max(n for n in range(1, max(1, LANES // narrowest) + 1) if self.groups % n == 0)
        return tuple(MaskedTerm(geometries[m], self.groups, mask, merged) for m, mask in self._masks().items())

    def _depthwise_terms(self, geometries: dict[int, ConvGeometry]) -> tuple[Term, ...]:
        """One for each place of the pattern, if every part is a channel: then that is all the kernels there are."""
        t = self._parts
        single = self.in_channels == self.out_channels == self.groups * t
        if not single or self.axes != "both" or self.implementation == "masked":
            return ()
        subs = []
        for offset, dilation in enumerate(self.dilation_pattern[:t]):
            subs.append(SubConv(dilation, tuple((((out + offset) % t,), (out,)) for out in range(t))))
        return tuple(GroupedTerm(geometries[sub.dilation], sub, self.groups, t) for sub in subs)

    def _masked_weight(self, multiple: int, mask: Tensor) -> Tensor:
        """The kernels of one dilation, and zeros: ``[C_out, C_in / groups, kh, kw]``."""
        return self.weight * mask

    def _grouped(self, x: Tensor, compute: Callable[[Tensor, KernelTable], Tensor]) -> Tensor:
        g, t = self.groups, self._parts
        if self.channel_order == "cyclic":
            x = regroup(x, (g, -1, t), transpose_parts)  # [N, g, c, t, H, W] -> [N, g, t, c, H, W]: block order
        weight = self._in_block_order(self.weight, t)
        terms = self._terms(masked=False) if compute == self._dilation_by_dilation else ()
        if terms:
            y = _sum_of_convs(x, weight, terms)
        else:
            maps = computed_format(x, self.weight) if compute == self._block_by_block else x
            y = compute(maps, kernel_table(weight, g, t, t)).contiguous(memory_format=memory_format(x))
        # [N, g, t, c, H', W'] -> [N, g, c, t, H', W']: back to cyclic order
        return regroup(y, (g, t, -1), transpose_parts) if self.channel_order == "cyclic" else y

    def _geometries(self) -> dict[int, ConvGeometry]:
        """That of each multiple of the dilation, for ``SumOfConvs``; none where torch's own operators are needed.

        That is in a captured graph, under ``torch.func`` or forward-mode differentiation, and with pixels other than
        zeros around the map or more of them on one side.
        """
        paddings = {multiple: self.even_padding(multiple) for multiple in set(self.dilation_pattern)}
        if is_capturing() or is_transformed():
            return {}
        geometries = {m: self.geometry(m, padding) for m, padding in paddings.items() if padding is not None}
        return geometries if len(geometries) == len(paddings) else {}

    def _table_of(self, sub: SubConv, kernels: KernelTable) -> KernelTable:
        """The kernels that a grouped convolution applies; a subclass may hold others than the layer's own."""
        return kernels

    def _dilation_by_dilation(self, x: Tensor, kernels: KernelTable) -> Tensor:
        """One grouped convolution for each ``SubConv``: ``[N, C_in, H, W] -> [N, C_out, H', W']``, parts in blocks."""
        terms = []
        for sub in self._subs:
            table = self._table_of(sub, kernels)
            blocks = [dense_block(table, ins, outs) for ins, outs in sub.blocks]
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
                block = dense_block(table, ins, outs)[0]  # [outs * c_out, ins * c_in, kh, kw]
                y = self.conv_part(inputs[ins], block, 1, multiple=sub.dilation)
                for out, part in zip(outs, y.chunk(len(outs), 1), strict=True):  # [N, c_out, H', W'] each
                    terms[out].append(part)
        return torch.cat([sum_terms(parts) for parts in terms], 1)

    def _sum_in_place_of_parts(self, terms: list[Tensor]) -> Tensor:
        """Sum ``[N, g * t * c_out, H', W']`` terms, whose parts are in the order of their convolution's blocks."""
        return take_parts(sum_terms(terms), self.groups, self._parts, inverse(self._subs[0].out_order))

    def _join(self, terms: list[Tensor]) -> Tensor:
        """Each output part has a single term where dilations vary along the output only: put them side by side."""
        pairs = zip(terms, self._subs, strict=True)
        # each [N, g * outs * c, H', W'] -> [N, g, outs, c, H', W']
        views = [term.unflatten(1, (self.groups, len(sub.out_order), -1)) for term, sub in pairs]
        order = [part for sub in self._subs for part in sub.out_order]
        joined = torch.cat(views, 2).flatten(1, 3)  # [N, g, t, c, H', W'] -> [N, C_out, H', W']
        y = take_parts(joined, self.groups, self._parts, inverse(order))
        return y.contiguous(memory_format=torch.channels_last) if is_channels_last(terms[0]) else y

    def _in_block_order(self, weight: Tensor, in_parts: int) -> Tensor:
        """A weight ``[C_out, C, kh, kw]`` whose output and input parts are contiguous."""
        if self.channel_order == "block":
            return weight
        rows = weight.unflatten(0, (self.groups, -1, self._parts)).transpose(1, 2).flatten(0, 2)
        ordered: Tensor = rows.unflatten(1, (-1, in_parts)).transpose(1, 2).flatten(1, 2)
        return ordered


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
        dense = SubConv(1, ((every, self._subs[0].out_order),))
        self._subs = [dense, *(sub for sub in self._subs if sub.dilation != 1)]
        columns = self.in_channels // self.groups // t * len(self._extra_offsets)
        self.extra_weight = nn.Parameter(self.weight.new_zeros(self.out_channels, columns, *self.kernel_size))
        keep = ~published_mask(self.groups) if t == 4 else torch.ones(self.groups, t, t, dtype=torch.bool)
        self.register_buffer("extra_keep", keep.to(self.weight.device), persistent=False)
        if self.channel_order == "block":
            super()._add_tensors(pattern)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, extra_dilation1=True"

    def _masked_weight(self, multiple: int, mask: Tensor) -> Tensor:
        if multiple != 1:
            return super()._masked_weight(multiple, mask)
        every = tuple(range(self._parts))
        kernels = kernel_table(self.weight, self.groups, self._parts, self._parts)
        return dense_block(self._table_of(SubConv(1, ((every, every),)), kernels), every, every).flatten(0, 1)

    def _table_of(self, sub: SubConv, kernels: KernelTable) -> KernelTable:
        """For dilation 1, which is dense here, the layer's kernels of that dilation, and the extra ones elsewhere."""
        if sub.dilation != 1:
            return kernels
        columns = len(self._extra_offsets)
        extra = kernel_table(self._in_block_order(self.extra_weight, columns), self.groups, self._parts, columns)
        table = [list(row) for row in kernels]
        for out in range(self._parts):
            for column, offset in enumerate(self._extra_offsets):
                inp = (out + offset) % self._parts
                keep = self.extra_keep[:, out, inp].view(-1, 1, 1, 1, 1)  # [g] -> [g, 1, 1, 1, 1]
                table[out][inp] = extra[out][column] * keep.to(self.extra_weight.dtype)
        return table


def cpu_terms(layer: PSConv2d) -> tuple[Term, ...]:
    """The convolutions of its weight that a layer's ``forward`` adds up on a CPU, without gradients.

    Returns: none where it computes otherwise, or with another order of the layer's channels.
    """
    masked = layer._is_masked(eager_cpu=True)
    if layer._parts == 1 or (not masked and (layer._is_narrow() or layer.channel_order == "cyclic")):
        return ()
    return layer._terms(masked)


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


def _sum_of_convs(x: Tensor, weight: Tensor, terms: tuple[Term, ...]) -> Tensor:
    """``SumOfConvs`` of the input and the weight as autocast, if active, hands them to a convolution."""
    device = x.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if autocast and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    y: Tensor = SumOfConvs.apply(x, weight, terms)  # type: ignore[no-untyped-call]
    return y
