"""A sum of convolutions of one input, each with some kernels of one weight and a dilation of its own.

Written with torch's operators, every re-ordered copy of the input and of the weight is kept for the backward pass,
which then fills a map of zeros for every part that was cut out and adds them up. Here the input and the weight alone
are kept, as for a plain convolution: the copies are made again, and gradients are added where they belong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmms_plugin.compat.torch_internals import conv2d_backward
from mmms_plugin.layers.channel_parts import ConvGeometry, inverse, is_channels_last, take_parts
from mmms_plugin.layers.common import is_transformed
from mmms_plugin.layers.dilation_lattice import SubConv

KernelTable = list[list[Tensor]]
FEW = 32  # channels of a group up to which oneDNN is slow at the weight gradient of a dilated convolution


@dataclass(frozen=True)
class MaskedTerm:
    """A convolution with the layer's weight under a mask.

    Args:
        geometry: the pixels it reads.
        layer_groups: groups of the layer.
        mask: bool ``[C_out, C_in / groups, 1, 1]``.
        merged: of the layer's groups in each group of this convolution, whose kernels between them are zeros.
    """

    geometry: ConvGeometry
    layer_groups: int
    mask: Tensor
    merged: int = 1

    @property
    def groups(self) -> int:
        return self.layer_groups // self.merged

    def inputs(self, x: Tensor) -> Tensor:
        """What the convolution reads."""
        pixels = self.geometry.pixels(x)
        return x if pixels is x else pixels.contiguous(memory_format=memory_format(x))

    def kernels(self, weight: Tensor) -> Tensor:
        """What it applies, ``[C_out, C_in / self.groups, kh, kw]``."""
        kernels = weight * self.mask
        if self.merged == 1:
            return kernels
        rows, columns, *size = kernels.shape
        wide = kernels.new_zeros(rows, columns * self.merged, *size)
        self._diagonal(wide).copy_(self._by_group(kernels))
        return wide.contiguous(memory_format=memory_format(weight))

    def outputs(self, y: Tensor) -> Tensor:
        """The sum of the outputs of all terms, in the layer's order."""
        return y

    def outputs_backward(self, grad: Tensor) -> Tensor:
        """The gradient of ``outputs``."""
        return grad

    def inputs_backward(self, grad: Tensor, x: Tensor, total: Tensor | None) -> Tensor:
        """Add the gradient of ``inputs`` to the total, in place; None stands for zeros."""
        if total is None:
            if grad.shape == x.shape:
                return grad
            total = torch.zeros_like(x)
        self.geometry.pixels(total).add_(grad)
        return total

    def kernels_backward(self, grad: Tensor, total: Tensor) -> None:
        """Write the gradient of ``kernels`` to its places in that of the weight."""
        if self.merged == 1:
            total.addcmul_(grad, self.mask)
        else:
            self._by_group(total).add_(self._diagonal(grad) * self._by_group(self.mask))

    def _by_group(self, weight: Tensor) -> Tensor:
        """``[C_out, C_in / layer groups, kh, kw] -> [groups, c_out, c_in, kh, kw, merged]``, a view."""
        view: Tensor = weight.unflatten(0, (self.groups, self.merged, -1))
        return view.movedim(1, -1)

    def _diagonal(self, wide: Tensor) -> Tensor:
        """The kernels within the layer's groups: ``[groups, c_out, c_in, kh, kw, merged]``, a view."""
        blocks: Tensor = wide.unflatten(1, (self.merged, -1)).unflatten(0, (self.groups, self.merged, -1))
        return blocks.diagonal(dim1=1, dim2=3)


@dataclass(frozen=True)
class GroupedTerm:
    """A grouped convolution of the layer's parts; it has every output part once. For its methods see ``MaskedTerm``.

    Args:
        geometry: the pixels it reads.
        sub: its dense blocks of parts.
        layer_groups: groups of the layer.
        parts: t, into which the channels of each of these are divided.
    """

    geometry: ConvGeometry
    sub: SubConv
    layer_groups: int
    parts: int

    @property
    def groups(self) -> int:
        return self.layer_groups * len(self.sub.blocks)

    def inputs(self, x: Tensor) -> Tensor:
        pixels = self.geometry.pixels(x)
        if pixels is not x:
            pixels = pixels.contiguous(memory_format=memory_format(x))
        return take_parts(pixels, self.layer_groups, self.parts, self.sub.in_order)

    def kernels(self, weight: Tensor) -> Tensor:
        ins, outs = self.sub.blocks[0]
        rows = weight.shape[0] // self.parts * len(outs) * len(self.sub.blocks)
        columns = weight.shape[1] // self.parts * len(ins)
        shape = (rows, columns, *weight.shape[2:])
        kernels = torch.empty(shape, dtype=weight.dtype, device=weight.device, memory_format=memory_format(weight))
        for part, place in self._places(kernels, weight):
            part.copy_(place)
        return kernels

    def outputs(self, y: Tensor) -> Tensor:
        return take_parts(y, self.layer_groups, self.parts, inverse(self.sub.out_order))

    def outputs_backward(self, grad: Tensor) -> Tensor:
        return take_parts(grad, self.layer_groups, self.parts, self.sub.out_order)

    def inputs_backward(self, grad: Tensor, x: Tensor, total: Tensor | None) -> Tensor:
        order = self.sub.in_order
        if total is None:
            if grad.shape == x.shape:
                return take_parts(grad, self.layer_groups, self.parts, inverse(order))
            total = torch.zeros_like(x)
        view = self.geometry.pixels(total).unflatten(1, (self.layer_groups, self.parts, -1))
        parts = grad.unflatten(1, (self.layer_groups, len(order), -1))
        for position, part in enumerate(order):
            view[:, :, part].add_(parts[:, :, position])
        return total

    def kernels_backward(self, grad: Tensor, total: Tensor) -> None:
        for part, place in self._places(grad, total):
            place.copy_(part)

    def _places(self, kernels: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For every output and input part: its kernels in the weight of the term and in that of the layer, as views."""
        ins, outs = self.sub.blocks[0]
        # [g * blocks * outs * c_out, ins * c_in, kh, kw] -> [g, blocks, outs, c_out, ins, c_in, kh, kw]
        rows = kernels.unflatten(0, (self.layer_groups, len(self.sub.blocks), len(outs), -1))
        view = rows.unflatten(4, (len(ins), -1))
        # [g, parts, c_out, parts, c_in, kh, kw]; not ``kernel_table``, whose views may not be written to under autograd
        table = weight.unflatten(0, (self.layer_groups, self.parts, -1)).unflatten(3, (self.parts, -1))
        for block, (ins, outs) in enumerate(self.sub.blocks):
            for row, out in enumerate(outs):
                for column, inp in enumerate(ins):
                    yield view[:, block, row, :, column], table[:, out, :, inp]


Term = MaskedTerm | GroupedTerm


class SumOfConvs(torch.autograd.Function):
    """``apply(x, weight, terms)``: ``[N, C_in, H, W] -> [N, C_out, H', W']``; its gradient has a gradient itself.

    Args:
        x: the input.
        weight: ``[C_out, C_in / groups, kh, kw]``; a kernel belongs to one term.
        terms: the convolutions, with their output parts in one order.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, terms: tuple[Term, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.terms = terms
        return add_terms(x, terms, (term.kernels(weight) for term in terms))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        terms: tuple[Term, ...] = ctx.terms
        x, weight = ctx.saved_tensors
        for_x, for_weight = ctx.needs_input_grad[:2]
        maps = computed_format(x, weight)
        grad = terms[0].outputs_backward(grad.contiguous(memory_format=memory_format(maps)))
        grad_x, grad_weight = None, torch.zeros_like(weight) if for_weight else None
        for term in terms:
            to_inputs, to_kernels = _gradients(grad, term.inputs(maps), term.kernels(weight), term, (for_x, for_weight))
            if to_inputs is not None:
                grad_x = term.inputs_backward(to_inputs, maps, grad_x)
            if to_kernels is not None and grad_weight is not None:
                term.kernels_backward(to_kernels, grad_weight)
        if grad_x is not None:
            grad_x = grad_x.contiguous(memory_format=memory_format(x))
        return grad_x, grad_weight, None


def add_terms(x: Tensor, terms: Sequence[Term], kernels: Iterable[Tensor], bias: Tensor | None = None) -> Tensor:
    """The sum of convolutions of one input.

    Args:
        x: the input, ``[N, C_in, H, W]``.
        terms: the convolutions.
        kernels: of each, as ``Term.kernels`` gives them.
        bias: of the sum, in the channel order of the first convolution's own output, ``[C_out]``.

    Returns: ``[N, C_out, H', W']`` in the layer's order of channels, in the memory format of the input.
    """
    total = None
    for term, weight in zip(terms, kernels, strict=True):
        if total is None:
            maps = computed_format(x, weight)
            total = F.conv2d(term.inputs(maps), weight, bias, *term.geometry.arguments, term.groups)
        else:
            total.add_(F.conv2d(term.inputs(maps), weight, None, *term.geometry.arguments, term.groups))
    assert total is not None
    return terms[0].outputs(total).contiguous(memory_format=memory_format(x))


def _gradients(
    grad: Tensor, x: Tensor, kernels: Tensor, term: Term, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Those of a term's convolution by its inputs and its kernels; None where not needed."""
    if x.device.type != "cpu":
        return conv2d_backward(grad, x, kernels, term.geometry.arguments, term.groups, needed)
    by_inputs = _data_gradient(grad, x, kernels, term) if needed[0] else None
    return by_inputs, _weight_gradient(grad, x, kernels, term) if needed[1] else None


def _data_gradient(grad: Tensor, x: Tensor, kernels: Tensor, term: Term) -> Tensor | None:
    """On a CPU. That of dilated depthwise convolutions, where oneDNN is slow, is a convolution with flipped kernels."""
    stride, (p, q), (d, e) = term.geometry.arguments
    height, width = kernels.shape[2:]
    around = d * (height - 1) - p, e * (width - 1) - q
    is_depthwise = len(kernels) == term.groups == x.shape[1]
    if is_depthwise and (d, e) != (1, 1) == stride and min(around) >= 0:
        return F.conv2d(grad, kernels.flip(2, 3), None, 1, around, (d, e), term.groups)
    return conv2d_backward(grad, x, kernels, term.geometry.arguments, term.groups, (True, False))[0]


def _weight_gradient(grad: Tensor, x: Tensor, kernels: Tensor, term: Term) -> Tensor | None:
    """On a CPU. oneDNN takes 2 to 20 times as long for dilated convolutions of few channels as for undilated ones.

    Theirs is that of an undilated convolution of the phases, which are every d-th row and column. With more channels it
    takes up to 3 times as long for NHWC as for NCHW.
    """
    stride, (p, q), (d, e) = geometry = term.geometry.arguments
    if kernels.shape[1] > FEW:
        grad, x, kernels = grad.contiguous(), x.contiguous(), kernels.contiguous()
    elif (d, e) != (1, 1) == stride and p % d == q % e == 0:
        grad, x, geometry = _phases(grad, (d, e)), _phases(x, (d, e)), ((1, 1), (p // d, q // e), (1, 1))
    return conv2d_backward(grad, x, kernels, geometry, term.groups, (False, True))[1]


def _phases(x: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Every d-th row and e-th column as a picture: ``[N, C, H, W] -> [d * e * N, C, ceil(H / d), ceil(W / e)]``."""
    d, e = dilation
    below, right = -x.shape[2] % d, -x.shape[3] % e
    padded = F.pad(x, (0, right, 0, below)) if below or right else x
    # [N, C, H / d, d, W / e, e] -> [d, e, N, C, H / d, W / e]
    phases: Tensor = padded.unflatten(3, (-1, e)).unflatten(2, (-1, d)).permute(3, 5, 0, 1, 2, 4)
    if is_channels_last(x):
        return phases.movedim(3, 5).flatten(0, 2).movedim(3, 1)
    return phases.flatten(0, 2)


def kernel_table(weight: Tensor, groups: int, out_parts: int, in_parts: int) -> KernelTable:
    """``table[out part][in part]``, each ``[g, c_out, c_in, kh, kw]``: views of a weight ``[C_out, C, kh, kw]``."""
    rows = weight.unflatten(0, (groups, out_parts, -1)).unbind(1)  # [g, t, c_out, ...] -> t x [g, c_out, ...]
    # [g, c_out, in_parts * c_in, kh, kw] -> [g, c_out, in_parts, c_in, kh, kw] -> in_parts views
    return [list(row.unflatten(2, (in_parts, -1)).unbind(2)) for row in rows]


def dense_block(table: KernelTable, ins: Sequence[int], outs: Sequence[int]) -> Tensor:
    """One dense block of kernels, ``[g, outs * c_out, ins * c_in, kh, kw]``."""
    return torch.cat([torch.cat([table[out][inp] for inp in ins], 2) for out in outs], 1)


def computed_format(x: Tensor, weight: Tensor) -> Tensor:
    """The maps in the format in which to compute: NHWC on a CPU, where every convolution of NCHW maps copies them.

    Not for kernels of one row or column: with padding along it, torch 2.13 ends the process by a signal for NHWC.
    """
    on_cpu = x.device.type == "cpu" and not is_transformed() and min(weight.shape[2:]) > 1
    return x.contiguous(memory_format=torch.channels_last) if on_cpu else x


def memory_format(x: Tensor) -> torch.memory_format:
    """That of a 4-D tensor, for ``contiguous``."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format
