"""PSConv with its kernels assembled beforehand: a graph of few nodes, one convolution for each dilation.

A layer with the pattern (1, 2, 1, 4) becomes three grouped convolutions, each of which takes the channels in an order
of its own; their sum is brought back to the layer's order. The kernels of a dilation are read off the layer's dilation
matrix. Where they do not form blocks of equal shape, the convolution is the layer's own with zeros in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmms_plugin.layers import PSConv2d
from mmms_plugin.layers.channel_parts import PartwiseConv2d

Block = tuple[list[int], list[int]]  # channels of the input, channels of the output, of one group


class AssembledPSConv2d(PartwiseConv2d):
    """What a ``PSConv2d`` computes, with constant kernels; ``[N, C_in, H, W] -> [N, C_out, H', W']``.

    Args:
        layer: whose weights are copied, in new orders.
    """

    back: Tensor | None

    def __init__(self, layer: PSConv2d) -> None:
        sizes: Any = dict(kernel_size=layer.kernel_size, stride=layer.stride, padding=layer.padding)
        sizes |= dict(dilation=layer.dilation, groups=layer.groups, padding_mode=layer.padding_mode)
        super().__init__(layer.in_channels, layer.out_channels, **sizes, bias=layer.bias is not None, device="meta")
        columns, rows = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        matrix = layer.dilation_matrix()[:rows]  # of one group; the others are the same
        if layer.kernel_size == (1, 1):
            matrix = torch.ones_like(matrix)
        blocks = {multiple: _blocks(matrix == multiple) for multiple in matrix.unique().tolist()}
        first = min(blocks, key=lambda multiple: len(blocks[multiple]))
        order = [row for _, outs in blocks[first] for row in sorted(outs, key=lambda row: matrix[row].tolist())]
        whole = [(list(range(columns)), order)]
        self.multiples: list[tuple[int, int]] = []  # of the layer's dilation, and the groups, of every convolution
        for multiple in sorted(blocks, key=lambda multiple: multiple != first):
            aligned = _aligned(blocks[multiple], order) or whole
            kept = torch.where(matrix == multiple, 1.0, 0.0)
            number = len(self.multiples)
            weight = _kernels(layer.weight.detach(), layer.groups, aligned, kept)
            self.register_buffer(f"weight{number}", weight)
            inputs = [column for ins, _ in aligned for column in ins]
            self.register_buffer(f"inputs{number}", _index(inputs, columns, layer.groups))
            self.multiples.append((multiple, layer.groups * len(aligned)))
        places = sorted(range(rows), key=lambda place: order[place])  # of the layer's channels in ``order``
        self.register_buffer("back", _index(places, rows, layer.groups))
        del self.weight, self.bias
        rows_in_order = torch.cat([torch.tensor(order) + group * rows for group in range(layer.groups)])
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach()[rows_in_order])

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor | None = None
        for number, (multiple, groups) in enumerate(self.multiples):
            inputs, weight = self._buffers[f"inputs{number}"], self._buffers[f"weight{number}"]
            assert weight is not None
            part = x if inputs is None else x.index_select(1, inputs)
            bias = self.bias if total is None else None
            y = self.conv_part(part, weight, groups, multiple=multiple, bias=bias)
            total = y if total is None else total + y
        assert total is not None
        return total if self.back is None else total.index_select(1, self.back)


def assemble_kernels(model: nn.Module) -> int:
    """Replace every ``PSConv2d`` of a model, though not its subclasses; returns their number."""
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is PSConv2d
    ]
    for parent, name, layer in places:
        setattr(parent, name, AssembledPSConv2d(layer))
    return len(places)


def _blocks(mask: Tensor) -> list[Block]:
    """Dense blocks of equal shape that make up a mask ``[C_out, C_in]``; no blocks if it is not made of them."""
    outs: dict[tuple[int, ...], list[int]] = {}
    for row, line in enumerate(mask):
        outs.setdefault(tuple(line.nonzero().flatten().tolist()), []).append(row)
    used = [column for ins in outs for column in ins]
    shapes = {(len(ins), len(rows)) for ins, rows in outs.items()}
    if len(shapes) > 1 or not used or len(set(used)) < len(used):
        return [(list(range(mask.shape[1])), list(range(mask.shape[0])))]
    return [(list(ins), rows) for ins, rows in outs.items()]


def _aligned(blocks: Sequence[Block], order: Sequence[int]) -> list[Block]:
    """The blocks, sorted so that their outputs are in the given order; empty if they cannot be."""
    place = {row: number for number, row in enumerate(order)}
    arranged = [(ins, sorted(outs, key=place.__getitem__)) for ins, outs in blocks]
    arranged.sort(key=lambda block: place[block[1][0]])
    return arranged if [row for _, outs in arranged for row in outs] == list(order) else []


def _kernels(weight: Tensor, groups: int, blocks: Sequence[Block], kept: Tensor) -> Tensor:
    """The weight of a grouped convolution, ``[C_out, ins, kh, kw]``: the blocks of every group one after the other."""
    parts = [
        part[outs][:, ins] * kept[outs][:, ins][:, :, None, None].to(part.dtype)
        for part in weight.chunk(groups)
        for ins, outs in blocks
    ]
    return torch.cat(parts)


def _index(channels: Sequence[int], count: int, groups: int) -> Tensor | None:
    """Channels of every group, given those of one group of ``count``; None if all are in their order."""
    if list(channels) == list(range(count)):
        return None
    return torch.cat([torch.tensor(channels) + group * count for group in range(groups)])
